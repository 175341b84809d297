"""From a row to token ids and the mask of what is supervised: the assistant's turns.

Three ways, chosen by the tokenizer:

- its chat template marks the assistant's text with ``{% generation %}``: that is the mask;
- it has another chat template: for every assistant turn, the text up to and with the generation prompt must be
  a beginning of the text up to the turn's end, and this one of the whole; the difference is supervised. Where a
  template has no generation prompt, the difference holds the assistant's header too;
- it has none: ``System:``, ``User:``, ``Tool:`` or ``Assistant:`` on a line of its own, the text below it, an
  empty line between turns. The assistant's text and the end-of-sequence token after it are supervised. The
  pieces are tokenised one by one, so the mask is exact.

A row is refused where its template leaves out or rewrites an assistant's text (white space aside): what is scored
would not be what the row says. A chat is tokenised once, as a whole; a token that runs over the edge of an answer
belongs to the side that its end lies on. The first token of a row is never supervised: nothing predicts it.

A plain ``text`` row is tokenised as it is, and all of it is supervised.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from datapruner.errors import DataPrunerError
from datapruner.samples.masking import Batch
from datapruner.samples.rendered import Ids, Rendered, Response, TokenCounts, Turn
from datapruner.samples.sample import Sample
from datapruner.samples.templates import Template

if TYPE_CHECKING:
    from datapruner.samples.samples import Samples

CODE_VERSION = 1
"""To be raised whenever the tokens or the mask of some row change: they are part of the keys of what is stored."""
BATCH = 256


def render(
    sample: Sample, tokenizer: Any, *, last_turn_only: bool = False, max_length: int | None = None
) -> Rendered:
    """Tokenise one row and mask what is supervised.

    Parameters
    ----------
    sample
        The row.
    tokenizer
        A Hugging Face tokenizer.
    last_turn_only
        Supervise the last assistant turn alone.
    max_length
        Cut the row after this many tokens.
    """
    return next(render_many([sample], tokenizer, last_turn_only=last_turn_only, max_length=max_length))


def render_many(
    samples: Iterable[Sample],
    tokenizer: Any,
    *,
    last_turn_only: bool = False,
    max_length: int | None = None,
    numbers: Iterable[int] | None = None,
) -> Iterator[Rendered]:
    """Tokenise rows in batches; the same as ``render`` on each, and faster.

    Parameters
    ----------
    samples
        The rows.
    tokenizer, last_turn_only, max_length
        As for ``render``.
    numbers
        The rows' positions in the source, for the errors.
    """
    if max_length is not None and max_length < 1:
        raise DataPrunerError(f"max_length is {max_length}; it must be 1 or more.")
    rows = iter(samples)
    positions = None if numbers is None else iter(numbers)
    templates: dict[str, Template] = {}
    while batch := list(islice(rows, BATCH)):
        named = None if positions is None else list(islice(positions, len(batch)))
        made = Batch(batch, tokenizer, named, templates, last_turn_only=last_turn_only).rows()
        for sample, (ids, turns) in zip(batch, made, strict=True):
            try:
                row = _rendered(ids, turns, max_length, plain=sample.plain)
            except OverflowError:
                raise DataPrunerError(
                    f"the tokenizer has a token of number {max(ids)}, which no model has"
                ) from None
            yield row


def responses(rendered: Rendered, bos: int | None = None) -> list[Response]:
    """Take every supervised turn out of its row: the assistant's header and the turn, nothing before them.

    Parameters
    ----------
    rendered
        A row.
    bos
        The tokenizer's ``bos_token_id``, put in front where the row itself begins with it.
    """
    ids, found = rendered.input_ids, []
    starts = bos is not None and len(ids) > 0 and ids[0] == bos
    for header, first, stop in rendered.turns.tolist():
        alone = ids[header:stop]
        before = int(starts and header > 0)
        # A target needs a token before it, here as in the row.
        targets = np.flatnonzero(rendered.supervised[first:stop]) + first
        targets = targets[targets - header + before > 0]
        supervised = np.zeros(before + len(alone), dtype=bool)
        supervised[targets - header + before] = True
        alone = np.concatenate([ids[:before], alone])
        found.append(Response(alone, supervised, targets))
    return found


def token_counts(
    samples: Samples,
    tokenizer: Any,
    rows: np.ndarray | None = None,
    *,
    last_turn_only: bool = False,
    max_length: int | None = None,
) -> TokenCounts:
    """Count each row's tokens and supervised tokens, as ``render`` gives them, and tell which rows were cut.

    Parameters
    ----------
    samples
        The source's rows.
    tokenizer, last_turn_only, max_length
        As for ``render``.
    rows
        The rows to count; all of them by default.
    """
    numbers = np.arange(len(samples)) if rows is None else np.asarray(rows, dtype=np.int64)
    counts = np.zeros((3, len(numbers)), dtype=np.int64)
    rendered = render_many(
        samples.iter_samples(rows, identity=False),
        tokenizer,
        last_turn_only=last_turn_only,
        max_length=max_length,
        numbers=numbers.tolist(),
    )
    for place, row in enumerate(rendered):
        counts[:, place] = len(row.input_ids), np.count_nonzero(row.supervised), row.truncated
    return TokenCounts(counts[0], counts[1], counts[2].astype(bool))


def count_tokens(
    samples: Samples,
    tokenizer: Any,
    rows: np.ndarray | None = None,
    *,
    last_turn_only: bool = False,
    max_length: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Count each row's tokens and supervised tokens: the first two of ``token_counts``."""
    counts = token_counts(samples, tokenizer, rows, last_turn_only=last_turn_only, max_length=max_length)
    return counts.tokens, counts.supervised


def _rendered(ids: Ids, turns: list[Turn], max_length: int | None, *, plain: bool) -> Rendered:
    """Cut a row and mask its turns."""
    length = len(ids) if max_length is None else min(len(ids), max_length)
    kept = [Turn(turn.header, turn.first, min(turn.stop, length)) for turn in turns if turn.first < length]
    supervised = np.zeros(length, dtype=bool)
    for turn in kept:
        supervised[turn.first : turn.stop] = True
    supervised[:1] = False
    return Rendered(
        input_ids=np.array(ids[:length], dtype=np.int32),
        supervised=supervised,
        truncated=length < len(ids),
        turns=np.array(kept, dtype=np.int32).reshape(-1, 3),
        plain=plain,
    )
