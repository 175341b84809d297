"""Write a folder whole or not at all, and never over anything that is not ours."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from datapruner.errors import DataPrunerError

MARKER = "recipe.yaml"


def check_target(path: Path, *, overwrite: bool) -> None:
    """Refuse, before any work is done, a folder that could not be written at the end.

    Raises
    ------
    DataPrunerError
        It is a file, holds something, or its parent cannot be written.
    """
    path = path.expanduser().absolute()
    if path.exists() and not path.is_dir():
        raise DataPrunerError(f"the output {path.name} is a file; name a folder that does not exist yet")
    if path.is_dir() and any(path.iterdir()):
        ours = (path / MARKER).is_file() and (
            (path / "selection.parquet").is_file() or (path / "scores.parquet").is_file()
        )
        if not ours:
            raise DataPrunerError(
                f"the output folder {path} holds other files; name one that is empty or does not exist"
            )
        if not overwrite:
            raise DataPrunerError(
                f"the output folder {path} holds an earlier result; pass --overwrite to replace it"
            )
    parent = path.parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise DataPrunerError(f"the output folder {path} cannot be written: no permission in {parent}")


@contextmanager
def whole_folder(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a temporary folder beside ``path`` that takes its place when the block ends without an error.

    Raises
    ------
    DataPrunerError
        Like :func:`check_target`, and where writing fails (disk full, no permission).
    """
    path = path.expanduser().absolute()
    check_target(path, overwrite=overwrite)
    made: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{path.name[:100]}.", dir=path.parent))
        made.chmod(0o755)
        yield made
        _sync(made)
        if path.exists() and any(path.iterdir()):
            old = Path(tempfile.mkdtemp(prefix=f".{path.name[:100]}.old.", dir=path.parent))
            path.replace(old / "was")
            made.replace(path)
            shutil.rmtree(old)
        else:
            made.replace(path)
        made = None
    except OSError as error:
        raise DataPrunerError(
            f"the output folder {path} cannot be written: {error.strerror or error}"
        ) from error
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)


def _sync(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
