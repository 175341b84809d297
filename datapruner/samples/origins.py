"""Several sources at once: what each is called, and which rows it gave."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datapruner.errors import DataPrunerError
from datapruner.files.paths import exists, expanded
from datapruner.files.remote import is_url, label_of
from datapruner.samples.files import SPLIT_WORDS
from datapruner.samples.readers import FORMATS, PACKED, file_format
from datapruner.text import safe_text

COLUMN = "source"
"""What the column is called that names each row's source, unless another name is given."""
ROW = "source_row"
"""What ``selection.parquet`` calls a row's position in its source."""
OF_SOURCE = "source "
"""Before a source's name, where a recipe notes the content of each."""
_ON_THE_HUB = re.compile(r"[\w.-]+/[\w.-]+(?::[^@\s]+)?(?:@\S+)?")
_LONGEST = 200


@dataclass(frozen=True)
class Origin:
    """One of several sources.

    Attributes
    ----------
    name : str
        What its rows have in the column of sources.
    source : str
        As the user named it.
    split : str
    rows : int
        How many it gave; those of the sources before it come first.
    revision : str, optional
        Of a hub dataset, where it is known.
    """

    name: str
    source: str
    split: str
    rows: int
    revision: str | None = None


def named_sources(
    given: Any, names: Sequence[str] = (), *, sure: bool = False
) -> str | dict[str, str] | None:
    """Read what is given as source where it is a name, or several.

    Parameters
    ----------
    given : str, Path, a sequence of them, a mapping of a name to each, or anything
    names : sequence of str
        What sources are called that are given in a sequence; default: as their files are.
    sure : bool
        A sequence is of names, whether they look like some or not, and of no rows.

    Returns
    -------
    str or dict of str to str or None
        One source as it is, several by their names; None for what is no name of a source.

    Raises
    ------
    DataPrunerError
        Two sources have one name, one is given twice, or a name cannot be one.
    """
    if isinstance(given, str | Path):
        return str(given)
    if isinstance(given, Mapping):
        texts = [one for one in given.values() if isinstance(one, str | Path)]
        if not texts or len(texts) < len(given) or not all(isinstance(name, str) for name in given):
            return None
        if not any(_is_sure(str(one)) or _may_be(str(one)) for one in texts):
            return None
        if all(name.lower() in SPLIT_WORDS for name in given):
            raise DataPrunerError(
                f"{', '.join(safe_text(name, 40) for name in given)}: these are names of splits, and each is given "
                "a source; prune one of them, or name the sources otherwise"
            )
        pairs = [(name, str(one)) for name, one in given.items()]
    elif isinstance(given, list | tuple) and (names or sure or are_sources(given)):
        if len(given) == 1 and not names:
            return str(given[0])
        if names and len(names) != len(given):
            raise DataPrunerError(
                f"{len(names)} names are given with --source-name for {len(given)} sources; give one for each, in "
                "their order"
            )
        pairs = list(zip(names or map(stem, map(str, given)), map(str, given), strict=True))
    else:
        return None
    return _apart(pairs)


def _apart(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Refuse names and sources that are there twice."""
    out: dict[str, str] = {}
    met: dict[str, str] = {}
    for name, source in pairs:
        shown = safe_text(name, 60)
        if not name.strip() or len(name) > _LONGEST or not name.isprintable():
            raise DataPrunerError(
                f"'{shown}' cannot be the name of a source (printable text of at most {_LONGEST} characters); give "
                f"{label_of(source)} another with --source-name"
            )
        if name in out:
            raise DataPrunerError(
                f"two sources are called '{shown}' ({label_of(out[name])}, {label_of(source)}); name each with "
                "--source-name, in their order"
            )
        place = source if is_url(source) else os.path.realpath(expanded(Path(source)))
        if place in met:
            raise DataPrunerError(f"the source {label_of(source)} is given twice; give each once")
        out[name] = met[place] = source
    return out


def are_sources(given: Iterable[Any]) -> bool:
    """Whether things are names of sources and no texts: one is a path, a file or an address for sure, or all exist."""
    listed = list(given)
    texts = [one for one in listed if isinstance(one, str)]
    if not listed or not all(isinstance(one, str | Path) for one in listed):
        return False
    if not all(_is_sure(one) or _may_be(one) for one in texts):
        return False
    return any(map(_is_sure, texts)) or len(texts) < len(listed) or all(map(_is_there, texts))


def _is_sure(text: str) -> bool:
    return len(text) < 1024 and (
        is_url(text) or text.startswith(("./", "../", "/", "~")) or file_format(Path(text)) is not None
    )


def _may_be(text: str) -> bool:
    return _ON_THE_HUB.fullmatch(text) is not None or _is_there(text)


def _is_there(text: str) -> bool:
    return len(text) < 1024 and exists(Path(text))


def stem(source: str) -> str:
    """Make a name of a source: the last part of its path, pattern, address or hub name, without its ending."""
    last = Path(source.rstrip("/\\")).name
    low = last.lower()
    for endings in (PACKED, FORMATS):
        for ending in endings:
            if low.endswith(ending) and low != ending:
                last, low = last[: -len(ending)], low[: -len(ending)]
    if _ON_THE_HUB.fullmatch(source) and not exists(Path(source)) and last == Path(source).name:
        last = re.split(r"[:@]", last)[0]
    return last or source
