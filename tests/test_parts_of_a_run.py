"""`--shard I/N`: tasks that know nothing of each other measure the rows, and the last call finds all of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import command
from hypothesis import given
from hypothesis import strategies as st

import datapruner as dp
from datapruner.errors import DataPrunerError
from datapruner.measuring.arguments import requested
from datapruner.measuring.measure import measure
from datapruner.measuring.sharding import Part

ROWS = 60


@pytest.fixture
def source(tmp_path) -> Path:
    """Conversations, one of them twice and one without an answer."""
    rng = np.random.default_rng(0)
    words = ["red", "green", "blue", "seven", "twelve", "walks", "sleeps", "never", "often"]

    def text() -> str:
        return " ".join(rng.choice(words, rng.integers(3, 12)).tolist())

    rows = [{"prompt": text(), "completion": text()} for _ in range(ROWS)]
    rows[40] = rows[7]
    rows[11]["completion"] = ""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.usefixtures("one_thread")
def test_parts_in_any_order_and_the_last_call_give_the_bytes_of_one_run(
    source, tiny_llama, tmp_path, monkeypatch, capfd
):
    line = [
        "prune",
        source,
        "--scorer",
        "ifd",
        "--keep",
        0.5,
        "--model",
        tiny_llama,
        "--dedup",
        "--on-empty",
        "drop",
    ]
    assert command(monkeypatch, *line, "-q", "--cache", tmp_path / "a", "--out", tmp_path / "whole") == 0
    options = ["--cache", tmp_path / "b", "--out", tmp_path / "result"]
    capfd.readouterr()
    for part in (3, 1, 4, 2):
        assert command(monkeypatch, *line, *options, "--shard", f"{part}/4") == 0
        assert f"part {part}/4" in capfd.readouterr().out
        assert not (tmp_path / "result").exists()

    def fails(*_):
        raise AssertionError("a row is measured again")

    from datapruner.signals.language_model.forward import Pass

    monkeypatch.setattr(Pass, "run_batch", fails)
    assert command(monkeypatch, *line, "-q", *options) == 0
    whole, result = tree(tmp_path / "whole"), tree(tmp_path / "result")
    assert whole.keys() == result.keys()
    assert [name for name in whole if whole[name] != result[name]] == []


@pytest.mark.slow
def test_every_row_is_in_one_part_and_what_depends_on_all_is_left(
    source, tiny_sentence_transformer, tmp_path
):
    options = {
        "scorers": "topoprune",
        "embedder": str(tiny_sentence_transformer),
        "dedup": True,
        "cache": tmp_path / "cache",
        "progress": False,
    }
    done = [dp.measure_part(source, f"{number}/3", **options) for number in (2, 3, 1)]
    left = ROWS - 2  # the copy and the row without an answer are dropped before
    assert {one.all_rows for one in done} == {left}
    assert sum(one.rows for one in done) == left
    assert min(one.rows for one in done) > ROWS / 6
    assert sum(one.computed["embedding"] for one in done) == left
    assert all("shape" in one.left and "shape" not in one.computed for one in done)
    assert "shape: measured of all rows together" in str(done[0])
    assert len(measure(requested(str(source), **options)).rows) == left


@given(st.integers(-2, 30), st.integers(-2, 30))
def test_a_part_is_one_of_so_many(number, of):
    written = f"{number}/{of}"
    if 1 <= number <= of:
        assert Part.read(written) == (number, of)
    else:
        with pytest.raises(DataPrunerError, match="such as 1/8"):
            Part.read(written)


@pytest.mark.parametrize("written", ["0/8", "9/8", "1/0", "1", "a/b", "1/2/3", "-1/8", "1/999999"])
def test_what_is_no_part_is_refused(written):
    with pytest.raises(DataPrunerError, match="part of the rows"):
        Part.read(written)
