"""The command line: the same verbs as :mod:`datapruner.api`."""

from datapruner.cli import looking, pruning, studies
from datapruner.cli.app import PANELS, Panels, app
from datapruner.cli.entry import main

__all__ = ["PANELS", "Panels", "app", "looking", "main", "pruning", "studies"]
