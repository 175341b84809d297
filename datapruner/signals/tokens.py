"""How many tokens each row has, counted once: a tokenizer is loaded only where a row has not been counted before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Ints
from datapruner.models.identity import tokenizer_hash
from datapruner.models.known import Opening, opening
from datapruner.models.tokenizers import load_tokenizer
from datapruner.samples.rendered import TokenCounts
from datapruner.samples.rendering import CODE_VERSION, token_counts
from datapruner.signals.failing import Failing, RowsFailedError
from datapruner.signals.language_model.records import fed_content
from datapruner.signals.store import Batch, SignalStore, row_keys

if TYPE_CHECKING:
    from datapruner.samples.samples import Samples

TEMPLATE = "the chat template"
"""What fails on rows that cannot be rendered."""
WINDOW_ROWS = 4096
"""Rows that are counted together; what is counted is kept if a run is stopped."""


@dataclass(frozen=True, eq=False)
class NamedTokenizer:
    """A tokenizer and its hash, which may be known before it is loaded.

    Attributes
    ----------
    load : callable
    known : str, optional
        Its hash.
    note : callable, optional
        Is told the hash that was not known, once.
    """

    load: Callable[[], Any]
    known: str | None = None
    note: Callable[[str], None] | None = None

    @classmethod
    def of(cls, name: str, adapter: str | None, store: SignalStore) -> NamedTokenizer:
        """Take the one that a name stands for, as :func:`datapruner.models.load_tokenizer` does."""

        def about() -> Opening:
            return opening("tokenizer", name, store.notes, adapter=adapter, weights=False)

        opened = about()
        return cls(
            lambda: load_tokenizer(name, adapter),
            (opened.known() or {}).get("tokenizer"),
            lambda found: opened.note({"tokenizer": found}, about()),
        )

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer itself."""
        return self.load()

    @cached_property
    def hash(self) -> str:
        """What tells it from others."""
        if self.known is not None:
            return self.known
        found = tokenizer_hash(self.tokenizer)
        if self.note is not None:
            self.note(found)
        return found


def stored_counts(
    samples: Samples,
    tokenizer: NamedTokenizer,
    store: SignalStore,
    rows: Ints | None = None,
    *,
    last_turn_only: bool = False,
    max_length: int | None = None,
    drop_failing: bool = False,
) -> TokenCounts:
    """Count each row's tokens and supervised tokens through the store, and tell which rows were cut.

    Parameters
    ----------
    samples : Samples
        The source's rows.
    tokenizer : NamedTokenizer
    store : SignalStore
    rows : ndarray, int64, ascending, optional
        Count these alone; the others have no tokens in what is given back. Default: all.
    last_turn_only, max_length
        As for :func:`datapruner.samples.rendering.render`.
    drop_failing : bool
        Tell of rows that cannot be rendered in what is given back, in which they have no tokens.

    Returns
    -------
    TokenCounts

    Raises
    ------
    DataPrunerError
        A row cannot be rendered; such a row is never stored.
    """
    context = _context(tokenizer.hash, last_turn_only, max_length)
    keys = row_keys(map(fed_content, samples.iter_samples(rows, identity=False)), context)
    counted = np.zeros((len(samples), 3), dtype=np.int64)
    every = left = np.arange(len(samples), dtype=np.int64) if rows is None else rows
    failed: dict[int, str] = {}

    def counts_of(places: Ints) -> NDArray[np.float32]:
        counts = token_counts(
            samples, tokenizer.tokenizer, left[places], last_turn_only=last_turn_only, max_length=max_length
        )
        columns = (counts.tokens, counts.supervised, counts.truncated)
        # The store holds float32, whose bits a count keeps exactly.
        return np.column_stack(columns).astype("<i4").view("<f4")

    def compute(places: Ints) -> Iterator[Batch]:
        failing = Failing(TEMPLATE, left, collect=drop_failing, refusals=True)
        failing.begin(len(places))
        for start in range(0, len(places), WINDOW_ROWS):
            window = places[start : start + WINDOW_ROWS]
            yield from (failing.each(window, counts_of) if drop_failing else [(window, counts_of(window))])
        failing.end()

    while left.size:
        try:
            found = store.fetch(keys[np.searchsorted(every, left)], context, 3, compute)
        except RowsFailedError as error:
            failed |= error.why
            left = np.setdiff1d(left, np.array(list(error.why)), assume_unique=True)
        else:
            counted[left] = np.ascontiguousarray(found).view("<i4")
            break
    return TokenCounts(counted[:, 0], counted[:, 1], counted[:, 2].astype(bool), failed)


def unrendered(counts: TokenCounts, rows: Ints) -> RowsFailedError | None:
    """Give what is to be said of those among some rows that could not be rendered, if there are any."""
    failed = {row: counts.failed[row] for row in rows[np.isin(rows, list(counts.failed))].tolist()}
    return RowsFailedError(TEMPLATE, failed) if failed else None


def missing_counts(
    samples: Samples,
    tokenizer: NamedTokenizer,
    store: SignalStore,
    *,
    last_turn_only: bool = False,
    max_length: int | None = None,
) -> int:
    """Count the rows that :func:`stored_counts` would count; a tokenizer that was never loaded has counted none."""
    if tokenizer.known is None:
        return len(samples)
    context = _context(tokenizer.known, last_turn_only, max_length)
    return store.missing(
        row_keys(map(fed_content, samples.iter_samples(identity=False)), context), context, 3
    )


def _context(tokenizer: str, last_turn_only: bool, max_length: int | None) -> dict[str, object]:
    return {
        "signal": "tokens",
        "rendering": CODE_VERSION,
        "tokenizer": tokenizer,
        "last_turn_only": last_turn_only,
        "max_length": max_length,
    }
