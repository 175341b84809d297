"""Pairs whose turns are written into texts, Human and Assistant, as in hh-rlhf: each side whole, or their prompt."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from datapruner.files.mapped import blocks
from datapruner.samples.sample import Layout, Message
from datapruner.text import safe_text

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

WHOLE = r"(?s)^\s*Human:.*\n\nAssistant:"
"""As Arrow's expressions have it: the human opens, and the assistant speaks."""
ASKED = r"(?s)^\s*Human:.*\n\nAssistant:\s*$"
"""Of a prompt: the assistant is about to."""
TURN = re.compile(r"(?:^\s*|\n\n)(Human|Assistant):")
ROLES = {"Human": "user", "Assistant": "assistant"}
TOLD = "Pairs are written as texts with turns of Human: and Assistant: in them, and are read as these turns."
FIRST, STEP = 100, 1000
"""Rows that are looked at first, which tell nearly always, and then at a time."""


def with_transcripts(dataset: Dataset, layout: Layout, label: str = "") -> Layout:
    """Say of a layout whether the pairs of every row are transcripts, which are then read as turns.

    Parameters
    ----------
    dataset
        The rows.
    layout
        As it was found by names and types of columns.
    label
        What the rows are called in a warning, where they are not all there are.
    """
    import pyarrow.compute as pc

    columns = layout.columns
    if layout.name != "preference" or {"input", "context"} & columns.keys():
        return layout
    names, form = [columns[side] for side in ("chosen", "rejected")], WHOLE
    if "prompt" in columns:
        names, form = [columns["prompt"]], ASKED
    if any(
        getattr(dataset.features[name], "dtype", None) not in ("string", "large_string") for name in names
    ):
        return layout
    source = dataset.select_columns(list(dict.fromkeys(names)))
    for part in (range(len(dataset))[:FIRST], range(len(dataset))[FIRST:]):
        for start, table in blocks(source, STEP, part):
            for name in names:
                fits = pc.fill_null(pc.match_substring_regex(table.column(name), form), False)
                place = pc.index(fits, False).as_py()
                if place < 0:
                    continue
                if part.start:  # the first rows are of them
                    logger.warning(
                        "%srow %s has no turns of Human: and Assistant: in '%s', as all before it have; so all rows "
                        "are read as plain texts: mend or remove that row, and they are read as turns",
                        f"{label}: " if label else "",
                        part[start + place],
                        safe_text(name, 60),
                    )
                return layout
    return replace(layout, transcripts=True)


def transcript(text: str) -> list[Message]:
    """Return the turns of a transcript; what one speaker says in a row is one turn."""
    marks = list(TURN.finditer(text))
    if not marks:  # of another split than the one that was looked at
        return [Message("assistant", text)]
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    turns: list[Message] = []
    for mark, end in zip(marks, ends, strict=True):
        role, said = ROLES[mark[1]], text[mark.end() : end].strip()
        if turns and turns[-1].role == role:
            said = "\n\n".join(part for part in (turns.pop().content, said) if part)
        turns.append(Message(role, said))
    return turns


def asked(text: str) -> list[Message]:
    """Return the turns of a transcript that ends where the assistant is to speak."""
    turns = transcript(text)
    return turns[:-1] if turns[-1] == Message("assistant", "") else turns
