"""Sequences of tokens, and how they share a forward pass: packed without padding, or in padded length buckets."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Ints
from datapruner.signals.language_model.attention import Pack, Segment
from datapruner.signals.language_model.reader import LanguageModel
from datapruner.signals.shapes import canonical_shape

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Item:
    """A sequence on its way through the model: a row, or one of its turns."""

    place: int
    ids: NDArray[np.int32]
    targets: Ints
    """Positions of the supervised tokens."""
    part: int = 0


class Ran(NamedTuple):
    """The last hidden states of a batch, and where those of its sequences lie.

    Attributes
    ----------
    states : Tensor, shape (n, d)
    prefix : int
        So many states come first that are those of every sequence's first tokens.
    starts : list of int
        Where each sequence's further states begin.
    """

    states: torch.Tensor
    prefix: int
    starts: list[int]


def fill_packs(lengths: Sequence[int], items: Sequence[Item], room: int) -> Iterator[list[Item]]:
    """Share sequences over packs: the longest that is left, then whatever still fits, longest first."""
    order = sorted(
        range(len(items)), key=lambda number: (-lengths[number], items[number].place, items[number].part)
    )
    by_length: dict[int, list[int]] = defaultdict(list)
    for number in reversed(order):
        by_length[lengths[number]].append(number)
    left = sorted(by_length)
    while left:
        batch, free = [], max(room, left[-1])
        while (at := bisect_right(left, free)) > 0:
            length = left[at - 1]
            batch.append(items[by_length[length].pop()])
            free -= length
            if not by_length[length]:
                left.pop(at - 1)
        yield batch


def fill_buckets(items: Sequence[Item], feed: LanguageModel) -> Iterator[list[Item]]:
    """Share sequences over padded batches of one canonical shape each."""
    shapes: dict[tuple[int, bool], list[Item]] = defaultdict(list)
    for item in items:
        shapes[canonical_shape(len(item.ids), feed.max_length)].append(item)
    for (length, _), of in sorted(shapes.items(), reverse=True):
        each = rows_a_batch(length, feed)
        yield from (of[start : start + each] for start in range(0, len(of), each))


def padded_shape(batch: Sequence[Item], feed: LanguageModel) -> tuple[int, int]:
    """Give a padded batch's length and its number of rows, dummies included."""
    length, _ = canonical_shape(max(len(item.ids) for item in batch), feed.max_length)
    return length, rows_a_batch(length, feed)


def rows_a_batch(length: int, feed: LanguageModel) -> int:
    """Give the rows of a padded batch of rows of a length."""
    rows = feed.tokens_a_batch // length
    return even_tokens(rows * length, feed, length) // length if rows > 1 else 1


def even_tokens(tokens: int, feed: LanguageModel, step: int = 1) -> int:
    """Round a number of tokens up, in steps, to one that the CPU's threads share evenly.

    A model's width is whole vectors, so that each thread's share of an elementwise operation then is. The end of one
    that is not is computed with other instructions, in other bits: a row's would depend on its place in the batch.
    """
    import torch

    unit = math.lcm(step, torch.get_num_threads()) if feed.device.type == "cpu" else step
    return -(-tokens // unit) * unit


def lay_out(batch: Sequence[Item], prefix: NDArray[np.int32], tokens: int) -> Pack:
    """Lay sequences out one after the other, behind the prefix that they share."""
    taken = len(prefix)
    used = taken + sum(len(item.ids) - taken for item in batch)
    length, _ = (tokens, True) if used <= tokens else canonical_shape(used, used + tokens)
    ids, positions = np.zeros((2, length), dtype=np.int64)
    ids[:taken], positions[:taken] = prefix, np.arange(taken)
    segments = [Segment(0, taken)] if taken else []
    start = taken
    for item in batch:
        rest = len(item.ids) - taken
        ids[start : start + rest], positions[start : start + rest] = (
            item.ids[taken:],
            np.arange(taken, taken + rest),
        )
        segments.append(Segment(start, rest))
        start += rest
    return Pack(ids, positions, segments, taken)


def run_packed(feed: LanguageModel, pack: Pack) -> torch.Tensor:
    """Give the last hidden states of a pack's tokens; shape (n, d)."""
    import torch

    from datapruner.signals.language_model.find_output_layer import body

    with pack.active():
        out = body(feed.model)(
            input_ids=torch.from_numpy(pack.ids)[None].to(feed.device),
            position_ids=torch.from_numpy(pack.positions)[None].to(feed.device),
            use_cache=False,
        )
    states: torch.Tensor = out.last_hidden_state[0]
    return states


def run_padded(feed: LanguageModel, batch: Sequence[Item]) -> torch.Tensor:
    """Give the last hidden states of a padded batch, dummies included; shape (rows * length, d)."""
    import torch

    from datapruner.signals.language_model.find_output_layer import body

    length, rows = padded_shape(batch, feed)
    ids, mask = np.zeros((2, rows, length), dtype=np.int64)
    for number in range(len(ids)):
        item = batch[number] if number < len(batch) else batch[0]
        ids[number, : len(item.ids)], mask[number, : len(item.ids)] = item.ids, 1
    out = body(feed.model)(
        input_ids=torch.from_numpy(ids).to(feed.device),
        attention_mask=torch.from_numpy(mask).to(feed.device),
        use_cache=False,
    )
    states: torch.Tensor = out.last_hidden_state.flatten(0, 1)
    return states
