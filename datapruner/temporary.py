"""Names for what is being written, from which a later run can tell whether its writer is still there."""

from __future__ import annotations

import os
import platform
import threading
import time
from pathlib import Path

import xxhash

MARK = ".tmp-"
STALE_SECONDS = 86400.0


def host() -> str:
    """Name this machine: a folder may be shared, and another machine's process numbers mean nothing here."""
    return xxhash.xxh32_hexdigest(platform.node().encode())


def owned(name: str) -> str:
    """Give a name for a temporary file or folder of this thread."""
    return f"{name}{MARK}{host()}-{threading.get_ident()}-{os.getpid()}"


def abandoned(leftover: Path) -> bool:
    """Tell whether what :func:`owned` named has lost its writer: dead on this machine, or silent for a day."""
    try:
        if time.time() - leftover.stat().st_mtime > STALE_SECONDS:
            return True
    except FileNotFoundError:
        return False
    _, _, owner = leftover.name.rpartition(MARK)
    machine, _, rest = owner.partition("-")
    return machine == host() and not _alive(rest.rpartition("-")[2])


def _alive(pid: str) -> bool:
    if not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
