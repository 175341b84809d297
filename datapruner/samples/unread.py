"""The columns that nothing read, and which of them look as if they made a row what it is."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError
from datapruner.files.mapped import blocks
from datapruner.samples.column_kinds import TEXT_KINDS, kinds_of
from datapruner.samples.decoding import decoder
from datapruner.samples.identity import said
from datapruner.samples.layouts import LAYOUTS, MEDIA_ROLES
from datapruner.text import safe_text

if TYPE_CHECKING:
    from datapruner.samples.samples import Samples

PROBED = 200
"""Rows that are looked at, spread over the source."""
LONG = 8
"""Words from which a text is no name, category or id."""
ROLE_LIKE = frozenset(
    {"passage", "document", "documents", "evidence", "background", "knowledge", "paragraph"}
)


@dataclass(frozen=True)
class Overlooked:
    """A column that was not read and holds what the row's own text does not say.

    Parameters
    ----------
    column
        Its name.
    words
        The median number of its words.
    role
        A role of the layout that it could play; empty where there is none.
    """

    column: str
    words: int
    role: str

    def __str__(self) -> str:
        """Say it in a sentence, with the way out."""
        name = safe_text(self.column, 60)
        way = (
            f" --columns {self.role}={name} reads it."
            if self.role
            else " --columns says which columns are read."
        )
        return (
            f"Column '{name}' was not read, though it holds texts of its own (median {self.words:,} words): rows that "
            f"differ there alone count as equal.{way}"
        )


def overlooked(samples: Samples, used: Collection[str] = ()) -> list[Overlooked]:
    """Find the unread columns that look as if they made a row what it is.

    They hold texts that differ from row to row, are long or go by a name that roles go by, and are neither a part
    of what was read nor a rendered copy of it.

    Parameters
    ----------
    samples
        The source's rows.
    used
        Columns that something else reads.
    """
    unread = [name for name in samples.unread if name not in used] if samples.layout.has_text else []
    kinds = kinds_of(samples.dataset) if unread else {}
    names = [name for name in unread if kinds[name] in TEXT_KINDS]
    if not names:
        return []
    rows = np.unique(np.linspace(0, len(samples) - 1, min(PROBED, len(samples))).astype(np.int64))
    try:
        own = [
            [message.content for message in sample.messages if message.role != "system"]
            for sample in samples.iter_samples(rows, identity=False)
        ]
    except DataPrunerError:
        return []  # whoever reads all rows will say what is wrong with one
    known = ROLE_LIKE.union(*(roles.meant for roles in LAYOUTS.values()))
    found = []
    for name in names:
        texts = list(_texts(samples, name, rows))
        news = [text for text, turns in zip(texts, own, strict=True) if text and _is_news(text, turns)]
        if 2 * len(news) <= max(sum(map(bool, texts)), 1) or 2 * len(set(news)) <= len(news):
            continue
        words = int(np.median([len(text.split()) for text in news]))
        if words >= LONG or name.lower() in known:
            found.append(Overlooked(name, words, _free_role(samples, name)))
    return found


def _texts(samples: Samples, name: str, rows: Ints) -> Iterator[str]:
    for value in _values(samples, name, rows):
        yield " ".join(text for place, text in said("", value) if not place.endswith(".length")).strip()


def _values(samples: Samples, name: str, rows: Ints) -> Iterator[Any]:
    for _, table in blocks(samples.dataset.select_columns([name]), PROBED, rows):
        column: Any = table.column(0)
        decode = decoder(column.type, text=False)
        yield from column.to_pylist() if decode is None else map(decode, column.to_pylist())


def _is_news(text: str, turns: list[str]) -> bool:
    """Whether a text is no part of what was read, and no copy of all of it."""
    text, *squeezed = ("".join(piece.lower().split()) for piece in (text, *turns))
    return text not in "".join(squeezed) and not all(turn in text for turn in squeezed)


def _free_role(samples: Samples, column: str) -> str:
    """Name a role of the layout that takes a text and that no column plays, where a column is not read."""
    layout = next(layout for layout, unread in samples.left if column in unread)
    return next(
        (
            role
            for role in ("context", "input", "system")
            if role in LAYOUTS[layout.name].roles and role not in layout.columns
        ),
        "",
    )


def copies_that_differ(samples: Samples, column: str, pairs: list[tuple[int, int]], most: int = 1000) -> str:
    """Say how many rows were dropped as copies of a row that holds something else in a column; empty if none were.

    Parameters
    ----------
    samples
        The source's rows.
    column
        The column.
    pairs
        A dropped row and the row that it copies.
    most
        How many pairs are looked at.
    """
    if not pairs:
        return ""
    looked = np.array(pairs[:most], dtype=np.int64)
    dropped, kept = (_values(samples, column, looked[:, side]) for side in (0, 1))
    differ = [place for place, (mine, its) in enumerate(zip(dropped, kept, strict=True)) if mine != its]
    if not differ:
        return ""
    words = [samples.row_words(row) for row in looked[differ[0]].tolist()]
    first = "the first " if len(pairs) > most else ""
    return f" Of {first}{len(looked):,} exact duplicates {len(differ):,} differ in it, e.g. {words[0]} from {words[1]}."


def unseen(samples: Samples) -> str:
    """Say which images and sounds are part of the rows though models are given the text alone; empty if none."""
    columns = list(
        dict.fromkeys(
            layout.columns[role]
            for _, _, layout in samples.spans()
            for role in layout.beside
            if role in MEDIA_ROLES or role not in LAYOUTS[layout.name].roles
        )
    )
    if not samples.layout.has_text or not columns:
        return ""
    named = ", ".join(f"'{safe_text(name, 60)}'" for name in columns)
    return (
        f"What column{'s' * (len(columns) > 1)} {named} hold{'s' * (len(columns) == 1)} tells rows apart and is not "
        "scored: models are given the text alone."
    )
