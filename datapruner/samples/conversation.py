"""Rows as trl's trainers read them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from datapruner.errors import DataPrunerError
from datapruner.samples.fingerprint import dataset_of
from datapruner.samples.sample import Message, Sample, json_text

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

OPTIONS = "chat_template_kwargs"

BLOCK = 1000
"""Rows that become Arrow at a time."""


def conversation(read: Callable[[], Iterator[Sample]]) -> Dataset:
    """Return rows as trl's SFTTrainer reads them, whatever their layout was.

    One ``messages`` column, ``tools`` as JSON and ``chat_template_kwargs`` when any row has them, or a ``text`` column
    when the source is plain text. Messages that are a role and a content alone are a list of structs. Where any has
    more (calls, reasoning, parts, ``weight``: 0 for a turn that must not be trained on), each is a ``Json`` value,
    which has the keys of its own and no others.

    Parameters
    ----------
    read
        Reads the rows from the first on; it is called twice, so that they need not all be held.
    """
    import pyarrow as pa

    whole = options = False
    kinds_met = set()
    for row in read():
        kinds_met.add(row.plain)
        whole = whole or has_more(row.messages)
        options = options or bool(row.options)
    if len(kinds_met) > 1:
        raise DataPrunerError(
            "some rows are plain texts and others are conversations, which SFTTrainer reads in no one column: prune "
            "the sources of plain text by themselves, or train on the rows as they are saved"
        )
    kinds = {"text": pa.string(), "messages": _turns_type(whole), "tools": pa.string()}
    schema = pa.schema(kinds | ({OPTIONS: _json_type()} if options else {}))
    batches = []
    rows = read()
    while block := list(islice(rows, BLOCK)):
        turns = turns_array([sample.messages for sample in block], whole=whole)
        text = [sample.part("both") if sample.plain else None for sample in block]
        tools = [None if sample.tools is None else json.dumps(sample.tools) for sample in block]
        columns = [pa.array(text, pa.string()), turns, pa.array(tools, pa.string())]
        if options:
            columns.append(pa.array([json_text(sample.options) for sample in block]).cast(_json_type()))
        batches.append(pa.RecordBatch.from_arrays(columns, schema=schema))
    table = pa.Table.from_batches(batches, schema=schema)
    plain = True in kinds_met
    names = ["text"] if plain else ["messages"]
    if not plain and table.column("tools").null_count < len(table):
        names.append("tools")
    names += [OPTIONS] if options and not plain else []
    return dataset_of(table.select(names))


def has_more(messages: Iterable[Message]) -> bool:
    """Whether any message is more than a role and a content."""
    return any(_message(message).keys() != {"role", "content"} or _parted(message) for message in messages)


def turns_array(rows: Sequence[Sequence[Message]], *, whole: bool) -> pa.Array:
    """Return rows' messages as an Arrow column; ``whole``: each a ``Json`` value with keys of its own."""
    import pyarrow as pa

    said = [[_message(message) for message in turns] for turns in rows]
    if not whole:
        return pa.array(said, _turns_type(whole))
    texts = [[json_text(message) for message in turns] for turns in said]
    return pa.array(texts, pa.list_(pa.string())).cast(_turns_type(whole))


def _turns_type(whole: bool) -> pa.DataType:
    import pyarrow as pa

    return pa.list_(_json_type() if whole else pa.struct([("role", pa.string()), ("content", pa.string())]))


def _message(message: Message) -> dict[str, Any]:
    said = message.handed() if message.trained else {**message.handed(), "weight": 0}
    # Texts in parts are a text: most templates would print the list as Python does.
    return said if _parted(message) else {**said, "content": message.content}


def _parted(message: Message) -> bool:
    """Whether a content must stay a list: it holds more than texts."""
    parts = message.fields.get("content", "")
    return not isinstance(parts, str) and not (
        isinstance(parts, list)
        and all(
            isinstance(part, str) or (isinstance(part, dict) and part.get("type") == "text") for part in parts
        )
    )


def _json_type() -> pa.DataType:
    """Return the type of a column of JSON values, which older libraries do not have."""
    import datasets
    import pyarrow as pa

    if not hasattr(datasets, "Json") or not hasattr(pa, "json_"):
        raise DataPrunerError(
            "Messages with calls or reasoning need the Json columns of a later version of datasets; upgrade with"
            " pip install -U datasets."
        )
    return pa.json_()
