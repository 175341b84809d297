"""What lies before a run: rows, what is stored, time; told before anything is measured."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

import datapruner as dp
from datapruner.measuring.arguments import requested
from datapruner.measuring.measure import look_ahead
from datapruner.signals import outlook as module
from datapruner.signals import run as run_module
from datapruner.signals.outlook import Foreseen, Outlook

ROWS = [
    {"prompt": f"What is {i} and {i * i % 17}?", "completion": f"A number, {i}, and then more."}
    for i in range(40)
]


def ahead(rows, cache, **options):
    found = look_ahead(requested(rows, cache=cache, progress=False, **options))
    return {step.name: step for step in found.steps}


def files(folder):
    return sorted(str(file) for file in folder.rglob("*")) if folder.exists() else []


def test_what_is_stored_is_counted_and_nothing_is_written(tiny_llama, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    options = {"scorers": ["donod", "ifd"], "model": str(tiny_llama), "dtype": "float32"}
    first = ahead(ROWS, cache, **options)
    assert list(first) == ["tokens", "losses", "responses"]
    assert [step.missing for step in first.values()] == [40, 40, 40]
    assert not files(cache)

    dp.score(ROWS[:25], cache=cache, progress=False, **options)
    before = files(cache)
    monkeypatch.setattr(
        "datapruner.models.loading.load_causal_lm", lambda *a, **k: pytest.fail("a model was opened")
    )
    again = ahead(ROWS, cache, **options)
    assert [step.missing for step in again.values()] == [15, 15, 15]
    assert [step.missing for step in ahead(ROWS[:25], cache, **options).values()] == [0, 0, 0]
    assert files(cache) == before


def test_given_vectors_take_no_time_and_what_follows_from_them_is_not_known(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(40, 8))
    found = ahead(ROWS, tmp_path, scorers=["topoprune"], embeddings=vectors)
    assert (found["embedding"].missing, found["embedding"].seconds) == (0, 0)
    assert found["shape"].missing is None
    assert found["shape"].seconds > 0


def test_rows_that_cleaning_drops_are_not_counted(tmp_path):
    found = look_ahead(
        requested([*ROWS, ROWS[0]], scorers="length", dedup=["exact"], cache=tmp_path, progress=False)
    )
    assert (found.rows, found.left) == (41, 40)
    assert found.lines()[0] == "40 of 41 rows to measure:"


def test_the_lines():
    steps = (
        Foreseen("tokens", 5600, 0, 0.0),
        Foreseen("embedding", 5600, 1200, 42.0),
        Foreseen("shape", 5600, None, 90.0),
        Foreseen("losses", 5600, 5600, 7200.0, 184_000_000),
    )
    assert Outlook(6000, 5600, steps).lines() == [
        "5,600 of 6,000 rows to measure:",
        "  tokens     5,600 rows  all stored                no time",
        "  embedding  5,600 rows  4,400 stored              about 42 s",
        "  shape      5,600 rows  not known what is stored  at most 2 min",
        "  losses     5,600 rows  none stored               about 2.0 h, 184 MB on disk",
        "  all together: at most 2.0 h",
    ]
    assert str(Outlook(3, 3, ())) == "3 of 3 rows, and nothing to measure"


def test_a_long_run_tells_what_lies_ahead_and_a_short_one_does_not(tmp_path, capsys, monkeypatch):
    options = {"scorer": "length", "keep": 0.5, "cache": tmp_path}
    dp.prune(ROWS, **options)
    assert "to measure" not in capsys.readouterr().err
    monkeypatch.setattr("datapruner.signals.measurements.tokens.Tokens.pace", lambda self, run: 10.0)
    dp.prune([*ROWS, {"prompt": "one", "completion": "more"}], **options)  # all but one are stored
    assert "to measure" not in capsys.readouterr().err
    dp.prune([{**row, "prompt": f"New: {row['prompt']}"} for row in ROWS], **options)
    assert "  tokens  40 rows  none stored  about 7 min" in capsys.readouterr().err


def test_the_pace_is_that_of_the_run_before(tmp_path, monkeypatch):
    from datapruner.signals.measurements.tokens import Tokens

    monkeypatch.setattr(module, "LEAST_ROWS", 40)
    clock = iter(range(0, 10_000, 20))
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    dp.prune(ROWS, scorer="length", keep=0.5, cache=tmp_path, progress=False)
    monkeypatch.undo()
    more = [{**row, "prompt": f"New: {row['prompt']}"} for row in ROWS]
    assert ahead(more, tmp_path, scorers="length")["tokens"].seconds == pytest.approx(20.0)
    assert ahead(more, tmp_path / "other", scorers="length")["tokens"].seconds == 40 * Tokens.cost.seconds


def test_the_pace_of_a_model_is_that_of_the_run_before(tiny_llama, tmp_path, monkeypatch):
    """It is found by what was asked, before anybody knows how many tokens the model reads."""
    options = {"scorers": "donod", "model": str(tiny_llama), "dtype": "float32"}
    monkeypatch.setattr(module, "LEAST_ROWS", 40)
    clock = iter(range(0, 10_000, 20))
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    dp.score(ROWS, cache=tmp_path, progress=False, **options)
    monkeypatch.undo()
    more = [{**row, "prompt": f"New: {row['prompt']}"} for row in ROWS]
    assert ahead(more, tmp_path, **options)["losses"].seconds == pytest.approx(20.0)
    assert ahead(more, tmp_path / "other", **options)["losses"].seconds != pytest.approx(20.0)


def test_the_model_is_looked_at_once(tiny_llama, tmp_path, monkeypatch):
    looked = []
    found = run_module.local_folder
    monkeypatch.setattr(run_module, "local_folder", lambda name: looked.append(name) or found(name))
    ahead(ROWS, tmp_path, scorers=["donod", "ifd"], model=str(tiny_llama))
    assert looked == [str(tiny_llama)]


@pytest.mark.parametrize("verb", ["prune", "score", "compare", "clean", "run", "damage"])
def test_a_dry_run_says_it_and_leaves_nothing(verb, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from datapruner.cli import app

    rows, out, cache = tmp_path / "rows.jsonl", tmp_path / "out", tmp_path / "cache"
    rows.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    np.save(tmp_path / "jsd.npy", np.full(40, 0.1))
    if verb == "run":
        dp.prune(rows, scorer="prototypes", keep=0.5, progress=False, cache=tmp_path / "x").save(
            tmp_path / "made"
        )
    monkeypatch.setattr(
        "datapruner.signals.vectors.load_text_embedder", lambda *a, **k: pytest.fail("a model ran")
    )
    given = {
        "prune": [str(rows), "--keep", "0.5", "--scorer", "prototypes"],
        "score": [str(rows), "--scorer", "d2"],
        "compare": [str(rows), "--scorer", "all", "--keep", "0.5", "--no-report"],
        "clean": [str(rows), "--dedup-semantic"],
        "run": [str(tmp_path / "made" / "recipe.yaml")],
        "damage": [str(rows), "--divergences", str(tmp_path / "jsd.npy")],
    }
    before = files(tmp_path)
    done = CliRunner().invoke(
        app, [verb, *given[verb], "--dry-run", "-o", str(out), "--cache", str(cache)], catch_exceptions=False
    )
    assert done.exit_code == 0
    assert done.stdout.startswith("40 of 40 rows to measure:\n")
    assert re.search(r"^  embedding +40 rows +none stored", done.stdout, re.MULTILINE)
    assert files(tmp_path) == before


def test_the_plan_from_python(tmp_path):
    found = dp.plan(ROWS, scorers=["d2", "length"], cache=tmp_path, progress=False)
    assert [step.name for step in found.steps] == ["tokens", "embedding"]
    assert found.seconds > 0
    assert str(found) == "\n".join(found.lines())
    with pytest.raises(dp.DataPrunerError, match="keep"):
        dp.plan(ROWS, keep=0.3)


def test_given_vectors_are_refused_before_rows_are_cleaned_or_a_model_is_opened(
    tiny_llama, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        "datapruner.models.loading.load_causal_lm", lambda *a, **k: pytest.fail("a model was opened")
    )
    monkeypatch.setattr(
        "datapruner.cleaning.stage.Stage.run", lambda *a, **k: pytest.fail("rows were cleaned")
    )
    how = {"model": str(tiny_llama), "embeddings": np.zeros((7, 3)), "cache": tmp_path, "progress": False}
    with pytest.raises(dp.DataPrunerError, match="7 vectors, but the dataset has 40 rows"):
        dp.score(ROWS, scorers=["donod", "prototypes"], **how)
