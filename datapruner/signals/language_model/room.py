"""The room on the disk for what a pass stores."""

from __future__ import annotations

import shutil

from datapruner.errors import DataPrunerError
from datapruner.signals.store import SignalStore

SHARE = 0.9
"""Share of the free disk that it may take."""


def check_room(store: SignalStore, needed: int, what: str, less: str) -> None:
    """Refuse to store what would fill the disk.

    Parameters
    ----------
    store : SignalStore
    needed : int
        Bytes.
    what : str
        In the plural, for the message.
    less : str
        What else would help.
    """
    folder = store.folder
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > SHARE * free:
        raise DataPrunerError(
            f"{what} take {needed / 2**30:.1f} GiB and {folder} has {free / 2**30:.1f} free: name another folder with "
            f"DATAPRUNER_CACHE, take fewer rows, or {less}"
        )
