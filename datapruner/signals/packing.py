"""Several signals of a row as one stored record: how many words each takes, then the words of one after the other.

The store keeps words of four bytes, bit by bit: an integer or a number of eight bytes is two of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError
from datapruner.ragged import Ragged, offsets_of
from datapruner.signals.measurement import Given
from datapruner.text import safe_text

DIMENSIONS = {"row": 1, "matrix": 2, "token": 1}
"""The shapes that rows can be measured one by one in, and how many dimensions an array of them has."""


def pack(gives: Sequence[Given], found: Mapping[str, Any], rows: int, owner: str) -> Ragged:
    """Put what was measured of some rows into records.

    Parameters
    ----------
    gives : sequence of Given
    found : mapping
        Signal -> array of shape (rows,) or (rows, d); for a number a token :class:`Ragged` or a sequence of arrays.
    rows : int
    owner : str
        Who measured, for messages.

    Returns
    -------
    Ragged
        float32, of ``rows`` records.

    Raises
    ------
    DataPrunerError
        Something is not of the shape that was announced, or holds no numbers.
    """
    parts = [_words(given, found[given.name], rows, owner) for given in gives]
    lengths = np.stack([part.lengths for part in parts], axis=1)
    starts = offsets_of(lengths.sum(axis=1) + len(parts))
    values = np.empty(int(starts[-1]), dtype="<f4")
    head = lengths.astype("<i4").view("<f4")
    for number in range(len(parts)):
        values[starts[:-1] + number] = head[:, number]
    at = starts[:-1] + len(parts)
    for number, part in enumerate(parts):
        values[_places(at, lengths[:, number])] = part.values
        at = at + lengths[:, number]
    return Ragged(values, starts)


def unpack(gives: Sequence[Given], records: Ragged, owner: str) -> dict[str, Any]:
    """Take records apart into the signals, as :func:`pack` was given them.

    Raises
    ------
    DataPrunerError
        Vectors of different rows have different lengths.
    """
    count, starts = len(gives), records.offsets[:-1]
    head = np.ascontiguousarray(records.values[starts[:, None] + np.arange(count)], dtype="<f4")
    lengths = head.view("<i4").astype(np.int64).reshape(-1, count)
    at = starts + count
    out: dict[str, Any] = {}
    for number, given in enumerate(gives):
        stored, words = _stored(given)
        taken = np.ascontiguousarray(records.values[_places(at, lengths[:, number])], dtype="<f4")
        values, each = taken.view(stored).astype(np.dtype(given.dtype)), lengths[:, number] // words
        at = at + lengths[:, number]
        if given.shape == "row":
            out[given.name] = values
        elif given.shape == "token":
            out[given.name] = Ragged(values, offsets_of(each))
        else:
            width = int(each[0]) if len(each) else 0
            if (other := each != width).any():
                raise DataPrunerError(
                    f"{owner} gave vectors of {width} and of {int(each[other][0])} numbers as "
                    f"'{safe_text(given.name, 60)}'"
                )
            out[given.name] = values.reshape(len(each), width)
    return out


def _stored(given: Given) -> tuple[np.dtype[Any], int]:
    """Give the type that a signal is stored as, and the words that a number takes: small types are widened."""
    dtype = np.dtype(given.dtype).newbyteorder("<")
    if dtype.itemsize < 4:
        dtype = np.dtype("<f4") if dtype.kind == "f" else np.dtype("<i4")
    return dtype, dtype.itemsize // 4


def _words(given: Given, found: Any, rows: int, owner: str) -> Ragged:
    stored, words = _stored(given)
    what = f"{owner} gave '{safe_text(given.name, 60)}'"
    try:
        if given.shape == "token" and not isinstance(found, Ragged):
            found = Ragged.from_rows([np.asarray(one) for one in found], stored)
        values = found.values if isinstance(found, Ragged) else np.asarray(found)
        numbers = np.asarray(values, dtype=stored)
    except (TypeError, ValueError) as error:
        raise DataPrunerError(
            f"{what} as something that holds no numbers of the type {given.dtype}"
        ) from error
    shape = (len(found),) if isinstance(found, Ragged) else values.shape
    if (
        len(shape) != DIMENSIONS[given.shape]
        or shape[0] != rows
        or isinstance(found, Ragged) != (given.shape == "token")
    ):
        raise DataPrunerError(
            f"{what} of shape {shape} for {rows} rows, and announces the shape '{given.shape}'"
        )
    each = (
        found.lengths
        if isinstance(found, Ragged)
        else np.full(rows, shape[1] if len(shape) == 2 else 1, np.int64)
    )
    return Ragged(np.ascontiguousarray(numbers.reshape(-1)).view("<f4"), offsets_of(each * words))


def _places(starts: Ints, lengths: Ints) -> Ints:
    """Give the positions of runs that start at ``starts``, run by run."""
    offsets = offsets_of(lengths)
    return np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
