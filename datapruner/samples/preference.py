"""Preference data as trl's trainers read it: DPOTrainer and RewardTrainer pairs, KTOTrainer votes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING

import numpy as np

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError, RowError
from datapruner.samples.conversation import has_more, turns_array
from datapruner.samples.fingerprint import dataset_of
from datapruner.samples.reading import Row
from datapruner.samples.sample import Message, Sample

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

Turns = list[Message]


def pairs(rows: Iterable[Row]) -> Dataset:
    """Return rows as pairs, whatever their layout was.

    The columns are ``prompt``, ``chosen`` and ``rejected``, lists of messages: what both sides begin with is the
    prompt. A row with several rejected answers becomes as many pairs. Sides in one text without turns are ``chosen``
    and ``rejected`` alone, from which trl takes the prompt.

    Parameters
    ----------
    rows
        Rows with a column of rejected answers.
    """
    import pyarrow as pa

    found: list[tuple[Turns, Turns, Turns]] = []
    texts: list[tuple[str, str]] = []
    for row in rows:
        read = row.sample(None)
        if read.plain:
            texts.append((read.part("both"), row.string("rejected")))
            continue
        said = list(read.messages)
        for answer in row.rejected():
            found.append(_pair(said, answer))
    if texts and found:
        raise DataPrunerError(
            "some pairs are plain texts and others are conversations, which no trainer reads together: prune their "
            "sources each by itself"
        )
    if texts:
        chosen, rejected = zip(*texts, strict=True)
        return _dataset({"chosen": pa.array(chosen), "rejected": pa.array(rejected)})
    columns = [list(side) for side in zip(*found, strict=True)] if found else [[], [], []]
    return _messages(dict(zip(("prompt", "chosen", "rejected"), columns, strict=True)))


def sides(row: Row) -> tuple[Sample, list[Sample]]:
    """Return a row of a pair as two conversations or more: with the chosen answer, and with each rejected one.

    All have the row's prompt, tools and settings; of sides in one text without turns each is a plain text.

    Parameters
    ----------
    row
        A row with a column of rejected answers.
    """
    chosen = row.sample(None)
    if chosen.plain:
        return chosen, [replace(chosen, messages=(Message("assistant", row.string("rejected")),))]
    said = list(chosen.messages)
    parted = [_pair(said, answer) for answer in row.rejected()]
    return chosen, [replace(chosen, messages=(*prompt, *answer)) for prompt, _, answer in parted]


def parted(row: Row) -> tuple[Sample, Sample, list[Sample]]:
    """Return a row's prompt, its chosen answer, and each rejected one, as conversations of their own.

    What both sides begin with is the prompt, with the row's tools and settings; a plain text has none. A row without a
    column of rejected answers has its last answer, and nothing beside it.

    Parameters
    ----------
    row
        A row of text.
    """
    chosen = row.sample(None)
    rejected = "rejected" in row.layout.columns
    if chosen.plain:
        others = [row.string("rejected")] if rejected else []
        return (
            replace(chosen, messages=()),
            chosen,
            [replace(chosen, messages=(Message("assistant", text),)) for text in others],
        )
    said = list(chosen.messages)
    found = [_pair(said, answer) for answer in (row.rejected() if rejected else [[]])]
    prompt, answer, _ = found[0]
    answers = [turns for _, _, turns in found if turns]

    def alone(turns: Turns) -> Sample:
        return Sample(tuple(turns), beside=None)

    return replace(chosen, messages=tuple(prompt)), alone(answer), [alone(turns) for turns in answers]


def rejected_sides(rows: Iterable[Row]) -> tuple[list[Sample], Ints]:
    """Return rows with their rejected answers in place of the chosen one.

    Parameters
    ----------
    rows
        Rows with a column of rejected answers.

    Returns
    -------
    answered, counts
        The conversations, those of a row one after the other; int64 [m]: how many each row has, at least one.
    """
    answered: list[Sample] = []
    counts: list[int] = []
    for row in rows:
        answers = sides(row)[1]
        if not answers:
            raise RowError(
                f"row {row.number} has no rejected answer; give it one, or leave it out", row.number
            )
        answered += answers
        counts.append(len(answers))
    return answered, np.array(counts, dtype=np.int64)


def votes(rows: Iterable[Row], labels: list[bool]) -> Dataset:
    """Return rows of unpaired preference as ``prompt``, ``completion`` and ``label``.

    Parameters
    ----------
    rows
        The rows.
    labels
        Whether each answer is a good one.
    """
    import pyarrow as pa

    prompts, answers = [], []
    for row in rows:
        prompt, answer, _ = _pair(list(row.sample(None).messages), [])
        prompts.append(prompt)
        answers.append(answer)
    return _messages({"prompt": prompts, "completion": answers}, label=pa.array(labels, pa.bool_()))


def _pair(said: Turns, answer: Turns) -> tuple[Turns, Turns, Turns]:
    """Tell the prompt from the two answers."""
    if any(turn.role not in ("assistant", "tool") for turn in answer):
        # The rejected side is a conversation of its own: the prompt is what both begin with. A system prompt from a
        # column of its own stands before the chosen side alone.
        lead = int(said[0].role == "system" and answer[0].role != "system")
        both = takewhile(lambda pair: pair[0] == pair[1], zip(said[lead:], answer, strict=False))
        common = sum(1 for _ in both)
        return said[: lead + common], said[lead + common :], answer[common:]
    last = next(
        (place for place in range(len(said), 0, -1) if said[place - 1].role not in ("assistant", "tool")), 0
    )
    return said[:last], said[last:], answer


def _messages(columns: dict[str, list[Turns]], **more: pa.Array) -> Dataset:
    whole = any(has_more(turns) for column in columns.values() for turns in column)
    return _dataset({name: turns_array(column, whole=whole) for name, column in columns.items()} | more)


def _dataset(columns: dict[str, pa.Array]) -> Dataset:
    import pyarrow as pa

    return dataset_of(pa.table(columns))
