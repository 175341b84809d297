"""What is larger than a limit is refused with its place before memory goes; what is not is read."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import datapruner as dp
from datapruner.samples import load_samples, readers

MOST = 5_000


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setenv("DATAPRUNER_MAX_ROW_BYTES", str(MOST))


def refused(file: Path, where: str) -> None:
    with pytest.raises(
        dp.DataPrunerError, match=rf"{where}.* than 5,000; DATAPRUNER_MAX_ROW_BYTES sets that limit"
    ):
        load_samples(str(file))


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".jsonl.gz"])
def test_a_long_line_of_json(tmp_path, ending):
    file = tmp_path / f"a{ending}"

    def write(length: int) -> None:
        rows = [{"text": "a"}, {"text": "é" * (length // 2)}, {"text": "b"}]
        raw = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        file.write_bytes(gzip.compress(raw) if ending.endswith(".gz") else raw)

    write(MOST - 20)
    assert len(load_samples(str(file))) == 3
    write(MOST)
    refused(file, "line 2 has more bytes")


def test_a_list_on_one_line_is_no_row(tmp_path):
    rows = [{"text": "a" * 1000}] * 20
    (tmp_path / "a.json").write_text(json.dumps(rows))
    assert len(load_samples(str(tmp_path / "a.json"))) == 20


def test_a_list_that_does_not_fit_into_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("DATAPRUNER_MAX_JSON_BYTES", "10_000")
    (tmp_path / "a.json").write_text(json.dumps([{"text": "a" * 1000}] * 20))
    with pytest.raises(dp.DataPrunerError, match="more bytes than 10,000; DATAPRUNER_MAX_JSON_BYTES"):
        load_samples(str(tmp_path / "a.json"))


@pytest.mark.parametrize("quoted", [False, True])
def test_a_long_line_or_cell_of_csv(tmp_path, quoted):
    file = tmp_path / "a.csv"
    cell = '"' + "line\n" * 999 + '"' if quoted else "x" * (MOST - 10)
    file.write_text(f"text,n\na,1\n{cell},2\n")
    assert len(load_samples(str(file))) == 2
    cell = '"' + "line\n" * 1001 + '"' if quoted else "x" * (MOST + 1)
    file.write_text(f"text,n\na,1\n{cell},2\n")
    refused(file, "line (3|1003) has more bytes")


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_a_long_text_of_a_table(tmp_path, name, deep):
    texts = ["short"] * 300
    texts[170] = "x" * (MOST + 1)
    held = [[{"role": "user", "content": text}] for text in texts] if deep else texts
    table = pa.table({"messages" if deep else "text": held})
    for sound in (True, False):
        part = table.slice(171) if sound else table
        if name == "a.parquet":
            pq.write_table(part, tmp_path / name, row_group_size=50)
        else:
            with pa.ipc.new_stream(str(tmp_path / name), part.schema) as writer:
                writer.write_table(part, max_chunksize=50)
        if sound:
            assert len(load_samples(str(tmp_path / name))) == 129
    refused(tmp_path / name, "row 170, column '(text|messages)', holds a text of more bytes")


@pytest.mark.parametrize("ending", [".jsonl.gz", ".json.gz", ".csv.gz", ".parquet.gz"])
def test_a_file_of_zeros_is_refused_before_memory_goes(tmp_path, monkeypatch, ending):
    monkeypatch.setenv("DATAPRUNER_MAX_JSON_BYTES", "1_000_000")
    monkeypatch.setattr(readers, "UNPACKED", 1_000_000)
    file = tmp_path / f"a{ending}"
    head = b"text\n" if ending == ".csv.gz" else b""
    file.write_bytes(gzip.compress(head + b"\0" * 30_000_000, compresslevel=1))
    tracemalloc.start()
    with pytest.raises(dp.DataPrunerError, match="DATAPRUNER_MAX_"):
        load_samples(str(file))
    assert tracemalloc.get_traced_memory()[1] < 12_000_000
    tracemalloc.stop()
