"""The benchmark of the last layer against all layers, on a tiny model: it runs, goes on, and pairs what it compares."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.conftest import save_tiny_llama

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
WORDS = ["ship", "sail", "wave", "salt", "harbour", "flour", "oven", "yeast", "crust", "dough"]


@pytest.fixture
def layers(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import layers

    return layers


def test_what_is_compared_is_a_difference_of_differences(layers):
    from datapruner.validation.result import ScoreValidation

    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 30, 12)
    one, other = (
        ScoreValidation("a", "b", 40, tokens, np.ones(12), rng.random((4, 2, 12)) * tokens) for _ in range(2)
    )
    by_hand = [(held.losses[:, 0] - held.losses[:, 1]).sum(axis=1) / tokens.sum() for held in (one, other)]
    found = layers.beside(one, other)
    assert found.mean == pytest.approx((by_hand[0] - by_hand[1]).mean(), abs=1e-12)
    assert layers.beside(one, one).mean == pytest.approx(0, abs=1e-12)
    assert layers.validation(json.loads(json.dumps(layers.held(one)))).gap() == pytest.approx(one.gap())


@pytest.mark.slow
def test_it_runs_on_a_tiny_model_and_goes_on(layers, tmp_path):
    pytest.importorskip("peft")
    rng = np.random.default_rng(0)

    def write(name, count):
        rows = [
            {"prompt": " ".join(rng.choice(WORDS, 3)), "completion": " ".join(rng.choice(WORDS, 6))}
            for _ in range(count)
        ]
        (tmp_path / name).write_text("".join(json.dumps(one) + "\n" for one in rows))
        return tmp_path / name

    asked = SimpleNamespace(
        model=str(save_tiny_llama(tmp_path / "lm")),
        arms=list(layers.ARMS),
        checkpoints=None,
        pool=50,
        cache=tmp_path / "cache",
        leave_out=0.2,
        rows=40,
        runs=2,
        step_tokens=64,
    )
    files = write("pool.jsonl", 50), write("told.jsonl", 4), write("judge.jsonl", 8)
    layers.study(tmp_path, "sea", *files, asked)
    found = layers.report(layers.done(tmp_path, ["sea"]))["sea"]
    assert set(found["arms"]) == {"last layer", "all layers", "states"}
    assert all(np.isfinite(one["mean"]) and one["half"] > 0 for one in found["arms"].values())
    assert len(found["against each other"]) == 3
    import warm_up

    training = {"share": 0.2, "epochs": 2, "rank": 2, "rate": 1e-3, "batch": 4, "seed": 0}
    warm_up.warm_up(files[0], tmp_path / "warm-up", SimpleNamespace(model=asked.model, **training))
    asked.checkpoints = [str(tmp_path / "warm-up")]
    layers.study(tmp_path, "sea", *files, asked)
    runs = layers.done(tmp_path, ["sea", "not begun"])
    assert "LESS" in layers.report(runs)["sea"]["arms"]
    (tmp_path / "found.json").write_text(json.dumps({"runs": runs}))
    (tmp_path / "new").mkdir()
    layers.restore(tmp_path / "new", tmp_path / "found.json")
    assert layers.done(tmp_path / "new", ["sea"]) == runs
    for file in files:
        file.unlink()
    layers.study(tmp_path, "sea", *files, asked)  # nothing is left to do
