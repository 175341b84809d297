"""What is larger than a limit is refused with its place before memory goes; what is not is read."""

from __future__ import annotations

import gzip
import json
import time
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import datapruner as dp
from datapruner.samples import load_samples, readers, sound
from datapruner.samples.plain import plain

MOST = 5_000


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setenv("DATAPRUNER_MAX_ROW_BYTES", str(MOST))


def refused(file: Path, where: str) -> None:
    with pytest.raises(
        dp.DataPrunerError, match=rf"{where}.* than 5,000; limits={{'row_bytes': '10000'}} allows more"
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
    with pytest.raises(dp.DataPrunerError, match=r"more bytes than 10,000; limits=.'json_bytes'"):
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
    for whole in (True, False):
        part = table.slice(171) if whole else table
        if name == "a.parquet":
            pq.write_table(part, tmp_path / name, row_group_size=50)
        else:
            with pa.ipc.new_stream(str(tmp_path / name), part.schema) as writer:
                writer.write_table(part, max_chunksize=50)
        if whole:
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
    with pytest.raises(dp.DataPrunerError, match="allows more"):
        load_samples(str(file))
    assert tracemalloc.get_traced_memory()[1] < 12_000_000
    tracemalloc.stop()


def write_arrow(table: pa.Table, file: Path) -> None:
    with pa.ipc.new_file(str(file), table.schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize(
    "kind",
    [
        pa.string_view(),
        pa.list_(pa.string(), 1),
        pa.list_view(pa.string()),
        pa.map_(pa.string(), pa.string()),
        pa.dictionary(pa.int32(), pa.string()),
    ],
    ids=str,
)
def test_a_long_text_of_any_kind_of_column(tmp_path, kind):
    long, short = "x" * (MOST + 1), "short"
    wrapped = {"map": lambda text: [("key", text)], "lis": lambda text: [text], "fix": lambda text: [text]}
    wrap = wrapped.get(str(kind)[:3], str)
    table = pa.table({"text": ["a"] * 9, "other": pa.array([wrap(short)] * 7 + [wrap(long), None], kind)})
    write_arrow(table.slice(0, 7), tmp_path / "a.arrow")
    assert len(load_samples(str(tmp_path / "a.arrow"))) == 7
    write_arrow(table, tmp_path / "a.arrow")
    refused(tmp_path / "a.arrow", "row 7, column 'other', holds a text")


@pytest.mark.parametrize("name", ["a.parquet", "coded.parquet", "deep.parquet", "a.arrow", "runs.arrow"])
def test_few_long_texts_that_many_rows_refer_to(tmp_path, monkeypatch, name):
    """A file of some kilobytes that is gigabytes once each row has its own copy."""
    monkeypatch.setenv("DATAPRUNER_MAX_ROW_BYTES", "1_000_000")
    monkeypatch.setattr(readers, "UNPACKED", 20_000_000)
    monkeypatch.setattr(sound, "UNPACKED", 20_000_000)
    monkeypatch.setattr(readers, "BLOCK_BYTES", 1_000_000)
    rows, text = 1_000, "x" * 500_000
    if name == "runs.arrow":
        column = pa.RunEndEncodedArray.from_arrays(pa.array([rows], pa.int32()), pa.array([text]))
    else:
        column = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([text]))
    if name == "deep.parquet":
        column = pa.StructArray.from_arrays([column], ["text"])
    table = pa.table({"text": ["a"] * rows, "other": column})
    if name.endswith(".parquet"):
        pq.write_table(table, tmp_path / name, store_schema=name != "a.parquet", compression="zstd")
    else:
        write_arrow(table, tmp_path / name)
    before = pa.total_allocated_bytes()
    with pytest.raises(dp.DataPrunerError, match=r"becomes larger, .* by more times than (200|30)"):
        load_samples(str(tmp_path / name))
    assert pa.total_allocated_bytes() - before < 50_000_000


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet", "arrow"])
def test_more_columns_than_a_source_may_have(tmp_path, ending):
    file = tmp_path / f"a.{ending}"
    row = {"text": "a", **{f"c{number}": "1" for number in range(30)}}
    if ending == "jsonl":
        file.write_text(json.dumps(row) + "\n")
    elif ending == "csv":
        file.write_text(",".join(row) + "\n" + ",".join(row.values()) + "\n")
    elif ending == "parquet":
        pq.write_table(pa.table({name: [value] for name, value in row.items()}), file)
    else:
        write_arrow(pa.table({name: [value] for name, value in row.items()}), file)
    assert len(load_samples(str(file), limits={"columns": 31})) == 1
    with pytest.raises(dp.DataPrunerError, match=r"has 31 columns, more than 30; limits=\{'columns': '60'\}"):
        load_samples(str(file), limits={"columns": 30})


def test_a_thousand_columns_are_no_million_steps(tmp_path, monkeypatch):
    """What is asked of all columns for each of them takes minutes; this takes a second."""
    monkeypatch.delenv("DATAPRUNER_MAX_ROW_BYTES")
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"text": "a", **{f"c{number}": number for number in range(1_000)}}) + "\n")
    copies = []
    from datasets import Features

    copy = Features.copy

    def counted(self):
        copies.append(1)
        return copy(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Features, "copy", counted)
        dp.prune(str(file), scorer="random", keep=1, progress=False)
    assert len(copies) < 50


def test_limits_are_options_of_both_ways_in(tmp_path, monkeypatch, capsys):
    from datapruner import cli

    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"text": "x" * 6_000}) + "\n")
    given = {"scorer": "random", "keep": 1, "progress": False}
    with pytest.raises(dp.DataPrunerError, match="limits="):
        dp.prune(str(file), **given)
    assert len(dp.prune(str(file), limits={"row_bytes": "7KB"}, **given).dataset) == 1
    assert len(dp.prune(str(file), limits={"row_bytes": 7_000}, **given).dataset) == 1
    assert "limits" not in dp.prune(str(file), limits={"row_bytes": 7_000}, **given).recipe.save_yaml(None)
    with pytest.raises(dp.DataPrunerError, match="limits="):
        dp.prune(str(file), **given)  # it held for that call alone

    def run(*more: str) -> tuple[int, str]:
        words = ["datapruner", "prune", str(file), "--scorer", "random", "--keep", "1", "-q"]
        monkeypatch.setattr("sys.argv", [*words, "-o", str(tmp_path / "out"), *more])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0, capsys.readouterr().err

    code, said = run()
    assert (code, said.count("\n")) == (2, 1)
    assert "than 5,000; --limit row_bytes=10000 allows more" in said
    assert run("--limit", "row_bytes=10000")[0] == 0
    assert run("--limit", "row_bytes=0.1")[0] == 2
    assert "Did you mean 'row_bytes'" in run("--limit", "row_byte=1MB")[1]
    assert "--keep" in run("--limit", "500")[1]


@pytest.mark.parametrize("wrong", [0, -1, True, 1.5, None, "", "9" * 30, "1e9", "1 MB MB", "١", float("nan")])
def test_a_limit_is_a_number_or_a_size(wrong):
    with pytest.raises(
        dp.DataPrunerError, match=r"limits=.row_bytes. is a whole|limits= row_bytes is a whole"
    ):
        load_samples([{"text": "a"}], limits={"row_bytes": wrong})


def test_rows_that_take_no_room_are_refused_before_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr("datapruner.guards.limits.MANY_ROWS", 1000)
    pq.write_table(pa.table({"text": pa.nulls(200_000, pa.string())}), tmp_path / "nulls.parquet")
    with pytest.raises(dp.DataPrunerError, match=r"has 200,000 rows in .*rows_per_byte.*40.* allows more"):
        load_samples(tmp_path / "nulls.parquet")
    pq.write_table(pa.table({"text": [f"row {n}" for n in range(2000)]}), tmp_path / "rows.parquet")
    assert len(load_samples(tmp_path / "rows.parquet")) == 2000


def test_names_of_columns_are_counted_once():
    table = pa.table({f"c{number}": [1] for number in range(6000)})
    start = time.process_time()
    assert plain(table, "it").equals(table)
    assert time.process_time() - start < 1
