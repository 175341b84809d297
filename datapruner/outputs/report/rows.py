"""What a page shows of rows: an excerpt of the text, and how long the whole is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError
from datapruner.files.mapped import blocks
from datapruner.samples.column_kinds import is_json
from datapruner.samples.sample import leading
from datapruner.selection.allocation import allocate
from datapruner.text import safe_lines, safe_text

if TYPE_CHECKING:
    import pyarrow as pa

    from datapruner.samples.samples import Samples


ROOM = 6_000_000
"""Bytes that all excerpts of a page take at most."""
LONGEST, SHORTEST = 4000, 100
"""Characters of an excerpt, by how many there are."""
MOST_TURNS, FIRST_TURNS = 40, 10
"""Turns of a row that are shown, and how many of them from its beginning."""
BLOCK = 500
"""Rows read at a time; a row may have megabytes."""
SPEAKERS = ("role", "from")
"""Fields of a turn that say who speaks."""


@dataclass(frozen=True)
class Excerpt:
    """The beginning of every turn of a row.

    Attributes
    ----------
    turns : list of (role, text)
        Unchanged text, cut.
    length : int
        Characters of the whole row.
    spoken : bool
        Somebody says the turns; else they are columns.
    """

    turns: list[tuple[str, str]]
    length: int
    spoken: bool = True

    def cut(self, limit: int) -> Excerpt:
        """Leave at most so many characters, shared so that a long question does not hide the answer."""
        lengths = [len(text) for _, text in self.turns]
        if sum(lengths) <= limit:
            return self
        shares = allocate(np.ones(len(lengths)), lengths, limit).tolist()
        cut = [(role, text[:share]) for (role, text), share in zip(self.turns, shares, strict=True)]
        return replace(self, turns=cut)

    def as_shown(self) -> dict[str, Any]:
        """Give what the page holds: the turns, made visible, and how many characters are missing."""
        shown = sum(len(text) for _, text in self.turns)
        return {
            "turns": [[safe_text(role, 40), safe_lines(text)] for role, text in self.turns],
            "lead": leading([role for role, _ in self.turns])
            if self.spoken
            else list(range(len(self.turns))),
            "length": self.length,
            "missing": self.length - shown,
        }


def excerpts(samples: Samples, rows: Ints, room: int = ROOM) -> list[dict[str, Any]]:
    """Read excerpts of rows, as long as fits into ``room`` bytes together.

    Parameters
    ----------
    samples : Samples
    rows : ndarray, int64, shape (m,)
    room : int

    Returns
    -------
    list of dict
        ``turns`` (pairs of role and text), ``lead`` (the places of those that stand for the row), ``length`` and
        ``missing`` (characters). A row that cannot be read says so.
    """
    limit = int(np.clip(room // max(len(rows), 1), SHORTEST, LONGEST))
    found = [excerpt.cut(limit) for excerpt in _read(samples, rows)]
    while True:
        shown = [excerpt.as_shown() for excerpt in found]
        size = len(script_json(shown).encode())
        if size <= room or limit <= SHORTEST:
            return shown
        limit = max(SHORTEST, limit * max(room, 0) // size * 9 // 10)
        found = [excerpt.cut(limit) for excerpt in found]


def script_json(held: Any) -> str:
    """Write JSON that may stand inside an HTML script element, whatever text it holds."""
    text = json.dumps(held, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def characters(samples: Samples) -> Ints | None:
    """Count the characters of every row's text, without turning rows into objects.

    Returns
    -------
    ndarray, int64, shape (n,), or None
        None where rows have no text.
    """
    if not samples.layout.has_text:
        return None
    columns = samples.layout.spoken
    counted = np.zeros(len(samples), dtype=np.int64)
    for start, table in blocks(samples.dataset.select_columns(columns), 100 * BLOCK):
        for column in table.columns:
            place = start
            for chunk in column.chunks:
                counted[place : place + len(chunk)] += _characters(chunk)
                place += len(chunk)
    return counted


def _characters(array: pa.Array) -> Ints:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as pt

    if pt.is_dictionary(array.type):
        array = array.dictionary_decode()
    if isinstance(array, pa.ExtensionArray):
        if is_json(array.type):
            return np.array([_said(text) for text in array.storage.to_pylist()], dtype=np.int64)
        array = array.storage
    kind = array.type
    if pt.is_string(kind) or pt.is_large_string(kind):
        lengths: Ints = pc.fill_null(pc.utf8_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        return lengths
    if pt.is_list(kind) or pt.is_large_list(kind):
        turns = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        inside = np.concatenate([[0], np.cumsum(_characters(array.flatten()))])
        ends = np.cumsum(turns)
        return np.asarray(inside[ends] - inside[ends - turns], dtype=np.int64)
    if pt.is_struct(kind):
        total = np.zeros(len(array), dtype=np.int64)
        for place, part in enumerate(array.flatten()):
            if kind.field(place).name not in SPEAKERS:
                total += _characters(part)
        return total
    return np.zeros(len(array), dtype=np.int64)


def _said(text: str | None) -> int:
    """Count the characters of a JSON value's texts, without who speaks."""
    return 0 if text is None else _leaves(json.loads(text))


def _leaves(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(_leaves(part) for name, part in value.items() if name not in SPEAKERS)
    return sum(map(_leaves, value)) if isinstance(value, list) else 0


def _read(samples: Samples, rows: Ints) -> Iterator[Excerpt]:
    if not samples.layout.has_text:
        yield from _described(samples, rows)
        return
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        done = 0
        try:
            for sample in samples.iter_samples(block, identity=False):
                yield _excerpt([(message.role, message.text) for message in sample.messages])
                done += 1
        except DataPrunerError:
            # One row of the block cannot be read; nobody had to read it so far, and the others are still shown.
            for row in block[done:]:
                try:
                    sample = next(samples.iter_samples(np.array([row]), identity=False))
                except DataPrunerError as error:
                    yield _excerpt([("unreadable", str(error))])
                else:
                    yield _excerpt([(message.role, message.text) for message in sample.messages])


def _excerpt(turns: list[tuple[str, str]], *, spoken: bool = True) -> Excerpt:
    length = sum(len(text) for _, text in turns)
    if len(turns) > MOST_TURNS:
        more = f"{len(turns) - MOST_TURNS:,} more turns are not shown"
        # The last ones are what the row is trained on, and stand for it.
        turns = [*turns[:FIRST_TURNS], ("…", more), *turns[FIRST_TURNS - MOST_TURNS :]]
        length += len(more)
    return Excerpt(turns, length, spoken).cut(LONGEST)


def _described(samples: Samples, rows: Ints) -> Iterator[Excerpt]:
    """Describe rows without text by their plain columns; images and vectors are not shown."""
    from datasets import ClassLabel, Value

    features = samples.dataset.features
    plain = [
        name
        for name, feature in features.items()
        if isinstance(feature, ClassLabel)
        or (isinstance(feature, Value) and "binary" not in str(feature.dtype))
    ]
    if not plain:
        yield from (Excerpt([], 0) for _ in rows)
        return
    dataset = samples.dataset.select_columns(plain).with_format(None)
    for start in range(0, len(rows), BLOCK):
        for row in dataset.select(rows[start : start + BLOCK]):
            yield _excerpt([(name, str(row[name])) for name in plain], spoken=False)
