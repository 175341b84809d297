"""``python -m datapruner`` is ``datapruner``."""

from datapruner.cli import main

main()
