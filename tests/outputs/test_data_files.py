"""Parquet is written in groups of bounded rows; small sets are written as `datasets` writes them."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from datapruner.outputs import data_files
from datapruner.outputs.data_files import write_split

ROWS = 5_000


@pytest.fixture
def kept() -> Dataset:
    """Some rows of a set, not next to each other."""
    whole = Dataset.from_dict({"id": np.arange(ROWS), "text": [f"row {number}" for number in range(ROWS)]})
    return whole.select(np.arange(0, ROWS, 2))


def test_few_rows_are_written_as_datasets_writes_them(kept, tmp_path):
    write_split(kept, tmp_path / "a.parquet", "parquet")
    kept.to_parquet(tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


@pytest.mark.parametrize(
    ("rows", "size", "groups"), [(1_000, 10**8, 3), (2_000, 20_000, 3), (1_000, 1, 2_500)]
)
def test_many_rows_are_written_in_groups_of_so_many_or_so_many_bytes(
    kept, tmp_path, monkeypatch, rows, size, groups
):
    monkeypatch.setattr(data_files, "GROUP_ROWS", rows)
    monkeypatch.setattr(data_files, "GROUP_BYTES", size)
    write_split(kept, tmp_path / "a.parquet", "parquet")
    file = pq.ParquetFile(tmp_path / "a.parquet")
    assert file.read().to_pylist() == kept.to_list()
    counted = [file.metadata.row_group(number).num_rows for number in range(file.metadata.num_row_groups)]
    assert max(counted) <= rows
    assert len(counted) == groups


def test_the_bytes_of_a_group_are_those_that_datasets_aims_for(kept, monkeypatch):
    from datasets.arrow_writer import get_writer_batch_size_from_data_size

    monkeypatch.setattr(data_files, "GROUP_ROWS", 1)
    monkeypatch.setattr(kept, "_estimate_nbytes", lambda: 10**12)
    wanted = get_writer_batch_size_from_data_size(len(kept), 10**12)
    monkeypatch.setattr(data_files, "GROUP_ROWS", len(kept) - 1)
    assert data_files._group_rows(kept) == wanted
