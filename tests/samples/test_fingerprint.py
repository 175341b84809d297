"""Fingerprints of datasets in memory: one for each content, and made without a copy of it."""

from __future__ import annotations

import json
import tracemalloc

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapruner.samples import load_samples
from datapruner.samples.fingerprint import dataset_of

COLUMNS = {
    "text": st.none() | st.text(max_size=5),
    "count": st.none() | st.integers(0, 3),
    "tags": st.none() | st.lists(st.sampled_from("ab"), max_size=2),
    "who": st.none() | st.fixed_dictionaries({"name": st.text("xy", max_size=2)}),
}
KINDS = pa.schema(
    {
        "text": pa.dictionary(pa.int8(), pa.string()),
        "count": pa.int64(),
        "tags": pa.large_list(pa.string()),
        "who": pa.struct({"name": pa.string()}),
    }
)
ROWS = st.lists(st.fixed_dictionaries(COLUMNS), max_size=4)


def fingerprint(rows, columns=None):
    return dataset_of(pa.Table.from_pylist(rows, schema=KINDS).select(columns or KINDS.names))._fingerprint


@given(ROWS, ROWS)
def test_rows_that_differ_have_another(one, other):
    assert (fingerprint(one) == fingerprint(other)) == (one == other)


def test_columns_that_differ_have_another():
    rows = [{"text": None, "count": None, "tags": None, "who": None}] * 3
    assert len({fingerprint(rows), fingerprint(rows, ["text"]), fingerprint(rows, ["count"])}) == 3
    assert (
        fingerprint(rows, ["count"]) != dataset_of(pa.table({"other": pa.nulls(3, pa.int64())}))._fingerprint
    )


def test_parts_of_a_table_differ():
    table = pa.table({"number": list(range(100)), "text": [str(number) for number in range(100)]})
    assert len({dataset_of(table.slice(at, 10))._fingerprint for at in range(0, 100, 10)}) == 10


@pytest.fixture
def not_pickled(monkeypatch):
    def refused(dataset):
        raise AssertionError("the whole dataset was pickled")

    monkeypatch.setattr("datasets.arrow_dataset.generate_fingerprint", refused)


TURNS = [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "so"}]
READ = {
    "turns": [{"messages": TURNS}] * 3,
    "pairs": [{"prompt": "why?", "chosen": "so", "rejected": "no"}] * 3,
    "transcripts": [{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}]
    * 3,
}


@pytest.mark.usefixtures("not_pickled")
@pytest.mark.parametrize("name", READ)
def test_nothing_is_pickled(name, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in READ[name]), "utf-8")
    for source in (str(file), READ[name]):
        assert len(load_samples(source)) == 3


def test_an_arrow_file_is_mapped_and_not_copied(tmp_path):
    table = pa.table(
        {"question": [f"{number} " + "why? " * 100 for number in range(20_000)], "answer": ["so"] * 20_000}
    )
    file = tmp_path / "rows.arrow"
    with pa.ipc.new_file(str(file), table.schema) as writer:
        writer.write_table(table)
    load_samples(str(file))  # what is imported stays
    tracemalloc.start()
    try:
        samples = load_samples(str(file))
        assert tracemalloc.get_traced_memory()[1] < table.nbytes / 4
    finally:
        tracemalloc.stop()
    # Another file under the same name is another content, though nobody has read it.
    before = samples.dataset._fingerprint
    with pa.ipc.new_file(str(file), table.schema) as writer:
        writer.write_table(table.slice(1))
    assert load_samples(str(file)).dataset._fingerprint != before
