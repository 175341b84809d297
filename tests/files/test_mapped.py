"""Pages of a mapped file leave the process and come back as they were; no other memory is touched."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import datapruner.samples.tables as tables_module
from datapruner.cleaning.steps.no_answer import unanswered
from datapruner.files.mapped import let_go, mapped_by
from datapruner.outputs.data_files import write_split
from datapruner.outputs.report.rows import characters
from datapruner.samples import load_samples

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
