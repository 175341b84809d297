"""Pages of a mapped file leave the process and come back as they were; no other memory is touched."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset

import datapruner.samples.tables as tables_module
from datapruner.cleaning.steps.no_answer import unanswered
from datapruner.errors import DataPrunerError
from datapruner.files.mapped import blocks, let_go, mapped_by
from datapruner.outputs.data_files import write_split
from datapruner.outputs.report.rows import characters
from datapruner.samples import load_samples
from datapruner.samples.mixture import refuse_mixture
from datapruner.samples.sample import Layout
from datapruner.samples.several import Given, joined
from datapruner.samples.sound import check_dataset, check_times
from datapruner.samples.tables import Read
from datapruner.samples.transcripts import with_transcripts
from datapruner.samples.unread import copies_that_differ

MEGABYTES = 24


def resident() -> int:
    with Path("/proc/self/status").open() as file:
        return next(int(line.split()[1]) >> 10 for line in file if line.startswith("RssFile"))


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux")
def test_pages_leave_and_come_back(tmp_path):
    file = tmp_path / "a file.npy"
    values = np.arange(MEGABYTES << 17)
    np.save(file, values)
    mapped = np.load(file, mmap_mode="r")
    other = values + 1
    assert mapped.sum() == values.sum()
    before = resident()
    let_go([str(file), str(tmp_path / "gone")])
    assert before - resident() >= MEGABYTES - 4
    np.testing.assert_array_equal(mapped, values)
    np.testing.assert_array_equal(other, values + 1)


def test_what_may_be_written_stays(tmp_path):
    file = tmp_path / "a.npy"
    np.save(file, np.zeros(10_000))
    mine = np.load(file, mmap_mode="c")  # changed here, and not in the file
    mine[:] = 7
    let_go([str(file)])
    assert (mine == 7).all()


def test_arrow_reads_on(tmp_path):
    table = pa.table({"text": [f"row {number}" for number in range(50_000)]})
    file = tmp_path / "a.arrow"
    with pa.ipc.new_stream(str(file), table.schema) as writer:
        writer.write_table(table)
    mapped = pa.ipc.open_stream(pa.memory_map(str(file))).read_all()
    let_go([str(file)])
    assert mapped.equals(table)


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux")
@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_rows_leave_once_they_are_read_hashed_and_written(tmp_path, monkeypatch, format):
    text = "x" * 500
    monkeypatch.setattr(tables_module, "IN_MEMORY_BYTES", 1000)
    rows = MEGABYTES << 11
    source = [{"prompt": f"{number}", "completion": text} for number in range(rows)]
    samples = load_samples(source)
    (file,) = mapped_by(samples.dataset)
    let_go([file])
    before = resident()
    some = np.arange(0, rows, 3)
    assert sum(map(len, samples.iter_parts("response", some))) == 500 * len(some)
    assert resident() - before < MEGABYTES / 4
    assert not unanswered(samples, some).size
    assert resident() - before < MEGABYTES / 4
    assert len(samples.content) == 32
    assert resident() - before < MEGABYTES / 4
    assert characters(samples)[some].min() == 501
    assert resident() - before < MEGABYTES / 4
    write_split(samples.dataset.select(some), tmp_path / f"a.{format}", format)
    assert resident() - before < MEGABYTES / 4


ROWS = 1000
WALKS = {
    "mixture": lambda dataset: refuse_mixture(
        dataset.remove_columns("rejected"), Layout("prompt_completion", SIDES), "it"
    ),
    "times": lambda dataset: check_times(dataset, "it"),
    "a saved dataset": lambda dataset: check_dataset(dataset, "it"),
    "transcripts": lambda dataset: with_transcripts(dataset, Layout("preference", PAIR)),
    "several sources": lambda dataset: joined([Given("a", "a", Read(dataset))], "source"),
    "unread columns": lambda dataset: copies_that_differ(
        load_samples(dataset, columns=SIDES), "chosen", [(row, row + 1) for row in range(ROWS - 1)]
    ),
}
SIDES, PAIR = (
    {"prompt": "prompt", "completion": "chosen"},
    {"chosen": "chosen", "rejected": "rejected"},
)


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux")
@pytest.mark.parametrize("walk", WALKS)
def test_no_walk_over_a_column_keeps_its_pages(tmp_path, monkeypatch, walk):
    monkeypatch.setattr(tables_module, "IN_MEMORY_BYTES", 1000)
    said = "\n\nHuman: a\n\nAssistant: " + "b" * (MEGABYTES << 9)
    times = pa.array([[number] * 3000 for number in range(ROWS)], pa.list_(pa.timestamp("us")))
    Dataset(
        pa.table(
            {
                "prompt": [said] * (ROWS - 1) + [None],
                "chosen": [said] * ROWS,
                "rejected": [said] * ROWS,
                "when": times,
            }
        )
    ).save_to_disk(tmp_path / "a")
    dataset = Dataset.load_from_disk(str(tmp_path / "a"))
    WALKS[walk](dataset)  # what is imported stays
    let_go(mapped_by(dataset))
    before = resident()
    WALKS[walk](dataset)
    assert resident() - before < MEGABYTES / 4


@pytest.mark.parametrize("step", [1, 4, 100])
@pytest.mark.parametrize("rows", [None, range(3, 9), np.array([7, 1, 1, 9, 0])])
def test_blocks_are_the_rows_in_their_order(tmp_path, monkeypatch, step, rows):
    monkeypatch.setattr("datapruner.files.mapped.RELEASED", 1)  # pages go after every block
    Dataset.from_dict({"n": range(10)}).save_to_disk(tmp_path / "a")
    dataset = Dataset.load_from_disk(str(tmp_path / "a")).select(range(9, -1, -1))
    read = list(blocks(dataset, step, rows))
    wanted = [9 - row for row in (range(10) if rows is None else rows)]
    assert [value for _, table in read for value in table.column("n").to_pylist()] == wanted
    assert [start for start, _ in read] == list(range(0, len(wanted), step))
    assert list(blocks(dataset, 3, range(0))) == []


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux")
def test_pages_leave_where_a_walk_ends_early(tmp_path):
    Dataset.from_dict({"text": ["x" * (MEGABYTES << 10)] * 1000}).save_to_disk(tmp_path / "a")
    dataset = Dataset.load_from_disk(str(tmp_path / "a"))
    before = resident()

    def refused() -> None:
        for _, table in blocks(dataset, 1000):
            assert len(table.column("text").to_pylist()) == 1000
            raise DataPrunerError("a row is no good")

    with pytest.raises(DataPrunerError, match="no good"):
        refused()
    assert resident() - before < MEGABYTES / 4
