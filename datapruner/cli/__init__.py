"""The command line: the same verbs as :mod:`datapruner.api`, a file each."""

from datapruner.cli.app import app
from datapruner.cli.entry import main

__all__ = ["app", "main"]
