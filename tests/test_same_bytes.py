"""The records that tell whether a change moved a result: what is another is listed, and counts where it should."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    import same_bytes
    import same_bytes_compare

    return same_bytes, same_bytes_compare.differences


@pytest.fixture
def left(tmp_path):
    """A run's folder."""
    out = tmp_path / "out"
    (out / "data").mkdir(parents=True)
    table = pa.table({"kept": [True, False], "score": [0.5, 0.25]})
    pq.write_table(table, out / "selection.parquet")
    for name in ("recipe.yaml", "report.html", "data/rows.jsonl"):
        (out / name).write_text(name)
    return out


def record(same_bytes, out, *, recipes=False):
    runs = {"run": {"code": 0, **same_bytes.files_of(out), "said": "a"}}
    return {"recipes": recipes, "runs": runs}


def test_equal_folders_do_not_differ(scripts, left):
    same_bytes, differences = scripts
    assert differences(record(same_bytes, left), record(same_bytes, left)) == ([], [])


def test_the_number_of_a_recipes_format_is_no_difference_and_the_rest_of_it_is(scripts, left):
    same_bytes, differences = scripts
    before = record(same_bytes, left)
    (left / "recipe.yaml").write_text("recipe_format: 7\nrecipe.yaml")
    assert differences(before, record(same_bytes, left)) == ([], [])
    (left / "recipe.yaml").write_text("recipe_format: 7\nrecipe.yml")
    assert differences(before, record(same_bytes, left))[0] == ["run: recipe.yaml: other bytes"]


def test_what_moved_is_named_with_its_columns(scripts, left):
    same_bytes, differences = scripts
    before = record(same_bytes, left)
    pq.write_table(pa.table({"kept": [True, False], "score": [0.5, 0.250001]}), left / "selection.parquet")
    (left / "recipe.yaml").unlink()
    (left / "new.csv").write_text("a")
    (left / "report.html").write_text("reworded")
    after = record(same_bytes, left)
    after["runs"]["run"] |= {"code": 2, "said": "b"}
    after["runs"]["more"] = copy.deepcopy(after["runs"]["run"])
    counts, reworded = differences(before, after)
    assert counts == [
        "run: exit code 0, then 2",
        "run: new.csv: only written after",
        "run: recipe.yaml: only written before",
        "run: selection.parquet: other columns: score",
        "more: the run is in one record only",
    ]
    assert reworded == ["run: report.html: other bytes", "run: what was printed"]
    assert differences(before, after, ["more"])[0] == counts[-1:]


def test_a_table_that_was_only_written_otherwise_is_told_as_such(scripts, left):
    same_bytes, differences = scripts
    before = record(same_bytes, left)
    table = pq.read_table(left / "selection.parquet")
    pq.write_table(table, left / "selection.parquet", compression="none")
    (told,) = differences(before, record(same_bytes, left))[0]
    assert told == "run: selection.parquet: the same values and types in other bytes"
    pq.write_table(table.select(["score", "kept"]), left / "selection.parquet")
    (told,) = differences(before, record(same_bytes, left))[0]
    assert told.endswith("in other bytes, in another order")


def test_recipes_are_held_against_the_runs_that_saved_them(scripts, left):
    same_bytes, differences = scripts
    before = record(same_bytes, left.parent)  # the result lies in a folder of the run's own
    after = record(same_bytes, left, recipes=True)
    after["runs"] = {"run/out": after["runs"]["run"]}
    assert differences(before, after) == ([], [])
    del after["runs"]["run/out"]["files"]["data/rows.jsonl"]
    assert differences(before, after)[0] == ["run/out: data/rows.jsonl: only written before"]


def test_every_run_has_a_folder_of_its_own(scripts):
    from same_bytes_runs import COMMANDS, FROM_PYTHON, TOLD, words

    assert not COMMANDS.keys() & FROM_PYTHON.keys()
    for name in COMMANDS:
        line = words(name)
        assert line[0] in TOLD or line[-2:] == ["-o", f"outs/{name}"]
