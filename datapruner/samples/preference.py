"""Preference data as trl's trainers read it: DPOTrainer and RewardTrainer pairs, KTOTrainer votes."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING

import numpy as np

from datapruner.errors import DataPrunerError
from datapruner.samples.base import Message
from datapruner.samples.conversation import has_more, turns_array
from datapruner.text import safe_text

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

    from datapruner.samples.base import Samples

Turns = list[Message]


def preference(samples: Samples, rows: np.ndarray | None = None) -> Dataset:
    """Return rows as trl's preference trainers read them, whatever their layout was.

    Pairs have the columns ``prompt``, ``chosen`` and ``rejected``, lists of messages: what both sides begin with is the
    prompt. A row with several rejected answers becomes as many pairs. Transcripts in one text have ``chosen`` and
    ``rejected`` alone, from which trl takes the prompt. Votes (unpaired preference) have ``prompt``, ``completion``
    and ``label``.

    Parameters
    ----------
    samples
        The source's rows.
    rows
        The rows to take, in this order; all of them by default.

    Raises
    ------
    DataPrunerError
        The rows have no rejected answers and no votes.
    """
    votes = samples.layout.name == "unpaired_preference"
    if not votes and "rejected" not in samples.layout.columns:
        raise DataPrunerError(
            f"{safe_text(samples.source, 200)} holds no preference data: its layout is '{samples.layout.name}', "
            "without rejected answers or votes; `conversation()` gives its rows for SFTTrainer"
        )
    return (_votes if votes else _pairs)(samples, rows)


def _pairs(samples: Samples, rows: np.ndarray | None) -> Dataset:
    import pyarrow as pa

    pairs: list[tuple[Turns, Turns, Turns]] = []
    texts: list[tuple[str, str]] = []
    for row in samples.iter_rows(rows):
        read = row.sample(None)
        if read.plain:
            texts.append((read.part("both"), row.string("rejected")))
            continue
        said = list(read.messages)
        for answer in row.rejected():
            pairs.append(_pair(said, answer))
    if texts:
        chosen, rejected = zip(*texts, strict=True)
        return _dataset({"chosen": pa.array(chosen), "rejected": pa.array(rejected)})
    columns = [list(side) for side in zip(*pairs, strict=True)] if pairs else [[], [], []]
    return _messages(dict(zip(("prompt", "chosen", "rejected"), columns, strict=True)))


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


def _votes(samples: Samples, rows: np.ndarray | None) -> Dataset:
    import pyarrow as pa

    prompts, answers = [], []
    for row in samples.iter_rows(rows):
        prompt, answer, _ = _pair(list(row.sample(None).messages), [])
        prompts.append(prompt)
        answers.append(answer)
    votes = samples.column(samples.layout.columns["label"])
    held = votes if rows is None else [votes[row] for row in np.asarray(rows).tolist()]
    return _messages({"prompt": prompts, "completion": answers}, label=pa.array(held, pa.bool_()))


def _messages(columns: dict[str, list[Turns]], **more: pa.Array) -> Dataset:
    whole = any(has_more(turns) for column in columns.values() for turns in column)
    return _dataset({name: turns_array(column, whole=whole) for name, column in columns.items()} | more)


def _dataset(columns: dict[str, pa.Array]) -> Dataset:
    import pyarrow as pa
    from datasets import Dataset
    from datasets.table import InMemoryTable

    return Dataset(InMemoryTable(pa.table(columns)))
