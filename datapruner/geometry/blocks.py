"""Embeddings in blocks: arrays larger than memory, read without keeping their pages.

A row of a memory-mapped file that has been read stays in the process's resident set until the kernel
wants it back, so that one pass over a 7 GB file shows as 7 GB used. Every function here reads a bounded
window and then hands the mapped pages back.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError, RowError

BLOCK_BYTES = 64 << 20

FloatBlock = NDArray[np.float32]


@runtime_checkable
class Matrix(Protocol):
    """What the geometry reads: rows by slice or by integer array, as ``np.ndarray`` and ``np.memmap`` do."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, columns."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """float16, float32 or float64."""

    @property
    def ndim(self) -> int:
        """Two."""

    def __getitem__(self, key: slice | Ints, /) -> Any:
        """Those rows, as an ndarray."""


class RowView:
    """Some rows of a matrix, read only when asked for; used after deduplication.

    Parameters
    ----------
    matrix
        The source, of shape (N, d).
    rows
        Source row numbers, int64 of shape (n,). Ascending rows read fastest: a view in random order
        walks the whole file for every block.
    """

    def __init__(self, matrix: Matrix, rows: Ints) -> None:
        self.matrix = matrix
        self.rows: Ints = np.asarray(rows, dtype=np.int64)
        if self.rows.ndim != 1:
            raise DataPrunerError(f"Rows must be a flat list of row numbers, got shape {self.rows.shape}.")
        if self.rows.size and not 0 <= self.rows.min() <= self.rows.max() < matrix.shape[0]:
            bad = self.rows.min() if self.rows.min() < 0 else self.rows.max()
            raise DataPrunerError(f"Row {bad} is outside the embeddings, which have {matrix.shape[0]} rows.")

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows of the view, columns of the source."""
        return (len(self.rows), *self.matrix.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """The source's."""
        return self.matrix.dtype

    @property
    def ndim(self) -> int:
        """The source's."""
        return self.matrix.ndim

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: slice | Ints) -> NDArray[Any]:
        return np.asarray(self.matrix[self.rows[key]])


class SideBySide:
    """Vectors of several matrices beside each other, each of length one and then times a number; read when asked for.

    The inner product of two rows is the weighted sum of their cosines in all of them, each weight squared.

    Parameters
    ----------
    matrices
        Of shape (n, d) each; d may differ.
    weights
        One number for each.
    """

    def __init__(self, matrices: Sequence[Matrix], weights: Sequence[float]) -> None:
        self.matrices, self.weights = list(matrices), list(weights)

    @property
    def shape(self) -> tuple[int, ...]:
        """Their rows, and all their columns."""
        return int(self.matrices[0].shape[0]), sum(int(one.shape[1]) for one in self.matrices)

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32."""
        return np.dtype(np.float32)

    @property
    def ndim(self) -> int:
        """Two."""
        return 2

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype=dtype)

    def __getitem__(self, key: slice | Ints) -> FloatBlock:
        parts = [np.array(one[key], dtype=np.float32) for one in self.matrices]
        rows = np.arange(len(self))[key]
        for part, weight in zip(parts, self.weights, strict=True):
            normalise_rows(part, rows)
            np.multiply(part, np.float32(weight), out=part)
        return np.concatenate(parts, axis=1)


def source_rows(matrix: Matrix, rows: Ints) -> tuple[Matrix, Ints]:
    """Look through any nest of views: the array behind it, and the rows' numbers there."""
    while isinstance(matrix, RowView):
        rows, matrix = matrix.rows[rows], matrix.matrix
    return matrix, rows


def require_matrix(matrix: Matrix) -> tuple[int, int]:
    """Rows and columns of a usable matrix.

    Raises
    ------
    DataPrunerError
        When it is not two-dimensional, is empty, or does not hold floating point numbers.
    """
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise DataPrunerError(
            f"Embeddings must have shape (rows, dimensions), both above 0; got {tuple(matrix.shape)}."
        )
    if not np.issubdtype(matrix.dtype, np.floating):
        raise DataPrunerError(f"Embeddings must be float16, float32 or float64; got {matrix.dtype}.")
    return int(matrix.shape[0]), int(matrix.shape[1])


def release_pages(matrix: Matrix) -> None:
    """Hand a memory map's pages back to the kernel; everything else is left alone.

    Reached through views and plain-array views of a map too. A copy-on-write map (mode ``c``) is left
    alone, because its private pages hold the only copy of what was written.
    """
    base: Any = source_rows(matrix, np.empty(0, np.int64))[0]
    if isinstance(base, SideBySide):
        for one in base.matrices:
            release_pages(one)
        return
    while base is not None:
        mapping = getattr(base, "_mmap", None)
        if isinstance(base, np.memmap) and mapping is not None:
            if base.mode != "c" and hasattr(mmap, "MADV_DONTNEED"):
                mapping.madvise(mmap.MADV_DONTNEED)
            return
        base = getattr(base, "base", None)


def gather(matrix: Matrix, rows: Ints, *, block_bytes: int = BLOCK_BYTES) -> FloatBlock:
    """Read some rows as float32, without keeping mapped pages.

    Parameters
    ----------
    matrix
        Shape (N, d).
    rows
        Row numbers in ``matrix``, int64 (m,), in any order, repeats allowed.
    block_bytes
        At most this much of the source is mapped at a time. A sparse sample costs as many pages as a
        dense one, hence windows over the source and not over the sample.

    Returns
    -------
    ndarray
        float32, C-contiguous, of shape (m, d), in the order of ``rows``.
    """
    source, numbers = source_rows(matrix, np.asarray(rows, dtype=np.int64))
    columns = int(source.shape[1])
    out = np.empty((len(numbers), columns), dtype=np.float32)
    window = max(1, block_bytes // max(1, columns * source.dtype.itemsize))
    order = None if np.all(numbers[1:] >= numbers[:-1]) else np.argsort(numbers, kind="stable")
    ascending = numbers if order is None else numbers[order]
    cuts = np.flatnonzero(np.diff(ascending // window)) + 1
    edges = [0, *cuts.tolist(), len(ascending)]
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf and is reported as such
        for start, stop in pairwise(edges):
            where = slice(start, stop) if order is None else order[start:stop]
            out[where] = source[ascending[start:stop]]
            release_pages(source)
    return out


def iter_blocks(matrix: Matrix, *, block_bytes: int = BLOCK_BYTES) -> Iterator[tuple[int, int, FloatBlock]]:
    """All rows in order, as fresh float32 blocks that the caller may overwrite.

    Parameters
    ----------
    matrix
        Shape (N, d); float16, float32 or float64, in memory, mapped, or a `RowView`.
    block_bytes
        Size of a float32 block, in bytes; a block has at least one row.

    Yields
    ------
    start, stop, block
        ``block`` is float32, C-contiguous, of shape (stop - start, d). Mapped pages behind it have been
        released already.
    """
    rows, columns = require_matrix(matrix)
    step = max(1, block_bytes // (4 * columns))
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        if isinstance(matrix, RowView):
            yield start, stop, gather(matrix, np.arange(start, stop), block_bytes=block_bytes)
            continue
        with np.errstate(over="ignore"):
            block = np.array(matrix[start:stop], dtype=np.float32, order="C", copy=True, subok=False)
        release_pages(matrix)
        yield start, stop, block


def normalise_rows(
    block: FloatBlock, rows: int | Ints = 0, *, matrix: Matrix | None = None
) -> NDArray[np.float32]:
    """Scale every row to length one, in place.

    Parameters
    ----------
    block
        float32 (m, d), overwritten.
    rows
        The number of the first row, or every row's number (int64, (m,)); used in messages only.
    matrix
        What ``rows`` count in, so that a view's row is named by its number in the source.

    Returns
    -------
    ndarray
        The rows' Euclidean lengths before, float32 (m,).

    Raises
    ------
    DataPrunerError
        When a row holds NaN or infinity, or is all zeros and so has no direction.
    """
    norms = cast(NDArray[np.float32], np.sqrt(np.einsum("ij,ij->i", block, block)))
    # Squares leave float32's range long before the row itself does: those few again in float64.
    odd = np.flatnonzero(~((norms > 1e-15) & (norms < 1e15)))
    if odd.size:
        exact = np.linalg.norm(block[odd].astype(np.float64), axis=1)
        require_finite(block, rows, matrix=matrix)
        zero = odd[exact == 0]
        if zero.size:
            number = _source_number(int(zero[0]), rows, matrix)
            raise RowError(
                f"Row {number} of the embeddings is all zeros and has no direction; "
                "remove the row, or embed it again.",
                number,
            )
        block[odd] = block[odd] / exact[:, None]
        norms[odd] = 1
    block /= norms[:, None]
    if odd.size:
        norms[odd] = exact
    return norms


def require_finite(block: FloatBlock, rows: int | Ints = 0, *, matrix: Matrix | None = None) -> None:
    """Raise `DataPrunerError` naming the first row that holds NaN or infinity; arguments as above."""
    with np.errstate(invalid="ignore", over="ignore"):
        suspects = np.flatnonzero(~np.isfinite(block.sum(axis=1)))  # one pass; a finite row may overflow here
    bad = suspects[~np.isfinite(block[suspects]).all(axis=1)]
    if bad.size:
        number = _source_number(int(bad[0]), rows, matrix)
        raise RowError(
            f"Row {number} of the embeddings holds NaN or infinity (as float32); remove the row, or embed it again.",
            number,
        )


def _source_number(place: int, rows: int | Ints, matrix: Matrix | None) -> int:
    number = np.array([rows + place if isinstance(rows, int) else rows[place]], dtype=np.int64)
    return int(number[0] if matrix is None else source_rows(matrix, number)[1][0])
