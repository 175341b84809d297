"""Put a finished folder under its name: there is never a moment without a whole result, and nothing foreign goes."""

from __future__ import annotations

import ctypes
import errno
import glob
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from datapruner.files.temporary import locked, remove
from datapruner.text import safe_text

logger = logging.getLogger(__name__)

WAS = ".was-"
TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
LACKING = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM)
EXCHANGE = 2  # RENAME_EXCHANGE of linux/fs.h, RENAME_SWAP of Darwin's stdio.h: the same number


def place(made: Path, path: Path, check: Callable[[Path], None]) -> None:
    """Rename a finished folder to its place, and remove it where that is refused.

    Parameters
    ----------
    made : Path
        The finished folder, beside ``path``.
    path : Path
        Nothing, an empty folder, or an earlier result.
    check : callable
        Raises where what lies in a folder must not be replaced. Asked once before and once after the exchange, when
        nobody who goes by the name can add to the old folder any more.
    """
    try:
        made.rename(path)  # over nothing, or over an empty folder
        return
    except OSError as error:
        if error.errno not in TAKEN:
            remove(made)
            raise
    with locked(path):
        try:
            check(path)
            exchange(made, path)
        except BaseException:
            remove(made)
            raise
        try:
            check(made)
        except BaseException:
            exchange(made, path)  # where this fails, too, both stay where they are
            remove(made)
            raise
    remove(made)


def exchange(made: Path, path: Path) -> None:
    """Let two folders change their names, in one call where the system has it.

    Elsewhere the earlier result stands aside for a moment under a name that :func:`recover` knows.
    """
    try:
        _exchange(made, path)
        return
    except OSError as error:
        if error.errno not in LACKING:
            raise
    aside = made.with_name(f".{path.name[:100]}{WAS}{made.name[-12:]}")
    path.rename(aside)
    try:
        made.rename(path)
    except BaseException:
        aside.rename(path)
        raise
    aside.rename(made)


def _exchange(made: Path, path: Path) -> None:
    library: Any = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None
    one, other = os.fsencode(made), os.fsencode(path)
    if sys.platform == "darwin" and hasattr(library, "renamex_np"):
        failed = library.renamex_np(one, other, EXCHANGE)
    elif hasattr(library, "renameat2"):
        here = ctypes.c_int(-100)  # AT_FDCWD: both paths are absolute
        failed = library.renameat2(here, one, here, other, EXCHANGE)
    else:
        raise OSError(errno.ENOSYS, "no exchange of names")
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def recover(path: Path) -> None:
    """Give an earlier result its name back that a killed run left aside, where there is none under the name."""
    for aside in sorted(path.parent.glob(f".{glob.escape(path.name[:100])}{WAS}*")):
        if not path.exists():
            with suppress(OSError):
                aside.rename(path)
                logger.warning(
                    "the earlier result %s was found under %s, where a killed run left it",
                    safe_text(str(path)),
                    safe_text(str(aside)),
                )
