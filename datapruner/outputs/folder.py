"""Write a folder whole or not at all, and never over anything that is not ours."""

from __future__ import annotations

import errno
import glob
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from datapruner.errors import DataPrunerError
from datapruner.files.checksums import write_checksums
from datapruner.files.paths import expanded, resolved
from datapruner.files.remote import address_of, is_url, refuse_other
from datapruner.files.temporary import (
    MARK,
    new_folder,
    private_folder,
    release,
    remove,
    sweep,
    sync,
    sync_folder,
)
from datapruner.outputs.swap import place, recover
from datapruner.outputs.upload import check_address, upload
from datapruner.text import safe_text

MARKER = "recipe.yaml"
TABLES = ("selection.parquet", "scores.parquet")
OURS = re.compile(
    r"checksums\.txt|README\.md|recipe\.yaml|report\.html|timings\.json|(selection|scores)\.parquet|state/[^/]+\.npz"
    r"|data/(.+/)?((.+-)?\d{5}-of-\d{5}\.(parquet|jsonl|arrow)|(dataset_info|dataset_dict|state)\.json)"
)
"""What a run leaves; a folder that holds anything else is never replaced."""
COMPARED = re.compile(
    r"checksums\.txt|(comparison|stability|damage|validation)\.json|(stability|damage)\.png|rows\.parquet"
    r"|(pairs|overlap|correlation|groups|balance|lengths|diversity|scores|disagreements|stability|damage|validation)\.csv"
)
"""What a comparison, a table of damage or a validation leaves."""
PAIRS = (
    ("comparison.json", "overlap.csv"),
    ("stability.json", "stability.csv"),
    ("damage.json", "damage.csv"),
    ("validation.json", "validation.csv"),
)
"""Files of it that are there together."""


def check_target(path: Path, *, overwrite: bool, reads: Iterable[str | Path] = ()) -> None:
    """Refuse, before any work is done, a folder that could not be written at the end.

    Parameters
    ----------
    path : Path
    overwrite : bool
        An earlier result may be replaced.
    reads : iterable of str or Path
        What the run reads; none of it may lie in a folder that is replaced.

    Raises
    ------
    DataPrunerError
        It is ``-``, is a file, holds something, or its parent cannot be written.
    """
    if (url := address_of(path)) is not None:
        check_address(url, (OURS, COMPARED), overwrite=overwrite, reads=map(str, reads))
        return
    refuse_other(path)
    if str(path) == "-":
        raise DataPrunerError(
            "'-' is no output: what is written is a folder, and nothing of it goes to standard output; name a folder"
        )
    path = expanded(path).absolute()
    reads = [name for name in reads if not is_url(str(name))]
    try:
        path = _target(path)
        os.fsencode(path).decode("utf-8")
        recover(path)
        _check(path, overwrite=overwrite, name=path)
        inside = (name for name in reads if resolved(expanded(Path(name))).is_relative_to(resolved(path)))
        if path.exists() and (name := next(inside, None)) is not None:
            raise DataPrunerError(
                f"the output folder {path} would replace {name}, which is read; name another"
            )
    except UnicodeError as error:
        raise DataPrunerError(
            f"the output folder {safe_text(str(path))} has a name that is not UTF-8, which neither its card nor its "
            "recipe could hold; name another"
        ) from error
    except OSError as error:
        raise _refused(path, error) from error


def _target(path: Path) -> Path:
    """Follow a link to a folder: what it names is written, and it stays a link."""
    try:
        return path.resolve() if path.is_symlink() else path
    except RuntimeError:  # until Python 3.13
        raise OSError(errno.ELOOP, "a link that leads to itself") from None


def _check(path: Path, *, overwrite: bool, name: Path) -> None:
    """Refuse to replace what lies in ``path``, which the user knows as ``name``."""
    if path.exists() and not path.is_dir():
        raise DataPrunerError(f"the output {name} is a file; name a folder that does not exist yet")
    if path.is_dir() and any(path.iterdir()):
        allowed = _allowed(path)
        # We write no links: one is somebody's, whatever it is called and wherever it leads.
        other = next(
            (found for entry in path.rglob("*") if (found := _foreign(entry, path, allowed or OURS))), None
        )
        if allowed is None or other is not None:
            shown = "" if other is None else f" ({safe_text(other, 60)})"
            raise DataPrunerError(
                f"the output folder {name} holds other files{shown}; name one that is empty or does not exist"
            )
        if not overwrite:
            raise DataPrunerError(
                f"the output folder {name} holds an earlier result; pass --overwrite to replace it"
            )
    parent = path.parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise DataPrunerError(f"the output folder {path} cannot be written: {parent} is a file")
    if not os.access(parent, os.W_OK):
        raise DataPrunerError(f"the output folder {path} cannot be written: no permission in {parent}")


def _foreign(entry: Path, path: Path, ours: re.Pattern[str]) -> str | None:
    """Give the name of what is not ours, as seen from the folder."""
    name = entry.relative_to(path).as_posix()
    if entry.is_symlink():
        return name
    return None if entry.is_dir() or ours.fullmatch(name) else name


def _allowed(path: Path) -> re.Pattern[str] | None:
    """Tell what an earlier result in a folder consists of; None where there is none."""
    if (path / MARKER).is_file() and any((path / table).is_file() for table in TABLES):
        return OURS
    compared = any(all((path / name).is_file() for name in pair) for pair in PAIRS)
    return COMPARED if compared else None


@contextmanager
def whole_folder(path: Path, *, overwrite: bool, reads: Iterable[str | Path] = ()) -> Iterator[Path]:
    """Give a temporary folder beside ``path`` that takes its place when the block ends without an error.

    Parameters
    ----------
    path : Path
    overwrite, reads
        As in :func:`check_target`.

    Raises
    ------
    DataPrunerError
        Like :func:`check_target`, and where writing fails (disk full, no permission).
    """
    if (url := address_of(path)) is not None:
        check_target(path, overwrite=overwrite, reads=reads)
        with spilling(url) as made:
            yield made
            write_checksums(made)
            # Somebody may have put something there meanwhile.
            check_target(path, overwrite=overwrite, reads=reads)
            upload(made, url)
        return
    path = expanded(path).absolute()
    check_target(path, overwrite=overwrite, reads=reads)
    path = _target(path)
    missing = [parent for parent in path.parents if not parent.exists()]
    done = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden = path.with_name(f".{path.name[:20]}")
        sweep(path.parent.glob(f"{glob.escape(hidden.name)}{MARK}*"))
        made, lock = new_folder(hidden)
        try:
            try:
                yield made
                write_checksums(made)
                sync_folder(made)
            except BaseException:
                remove(made)
                raise
            place(made, path, lambda folder: _check(folder, overwrite=overwrite, name=path))
        finally:
            release(lock)
        done = True
        sync(path.parent)
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        if not done:
            with suppress(OSError):  # another run may have put something there meanwhile
                for parent in missing:
                    parent.rmdir()


@contextmanager
def spilling(url: str) -> Iterator[Path]:
    """Give a private folder in which a result for an object store is built."""
    base = private_folder()
    made = base / (Path(url).name or "out")
    try:
        made.mkdir()
        yield made
    except OSError as error:
        raise _refused(base, error) from error
    finally:
        remove(base)


def _refused(path: Path, error: OSError) -> DataPrunerError:
    return DataPrunerError(f"the output folder {path} cannot be written: {error.strerror or error}")
