"""The benchmark of excess loss: every arm's steps have as many tokens in the loss, and the script runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import save_tiny_llama

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import excess_loss

        yield excess_loss


def rows_of(script, lengths):
    return [script.Row(np.arange(length + 2), np.arange(length + 2) > 1) for length in lengths]


def test_steps_have_as_many_tokens_whatever_the_rows(script):
    for lengths in ([3, 9, 1, 20, 7], [2] * 40):
        data = rows_of(script, lengths)
        batches = script.plan(data, 20, 25, seed=0)
        assert len(batches) == 20
        spent = np.cumsum([sum(lengths[place] for place in batch) for batch in batches])
        wanted = 25 * np.arange(1, 21)
        assert (spent >= wanted).all()
        assert spent[-1] < wanted[-1] + max(lengths)


def test_a_random_share_of_all_tokens_stays(script):
    data = rows_of(script, [4, 10, 6])
    some = script.at_random(data, 0.5, seed=0)
    assert sum(int(row.supervised.sum()) for row in some) == 10
    assert all((one.supervised <= row.supervised).all() for one, row in zip(some, data, strict=True))
    assert sum(int(row.supervised.sum()) for row in data) == 20


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread", "cache")
def test_the_script_runs(script, tmp_path):
    pytest.importorskip("peft", reason="the adapters extra is not installed")
    model = save_tiny_llama(tmp_path / "model")
    for name in ("pool", "trusted", "held"):
        rows = [{"prompt": f"{name} {row}", "completion": "abc " * (1 + row % 4)} for row in range(8)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = [
        f"--{option}={tmp_path / name}.jsonl"
        for option, name in (("rows", "pool"), ("trusted", "trusted"), ("held-out", "held"))
    ]
    few = [
        "--steps=2",
        "--reference-steps=2",
        "--tokens=20",
        "--seeds=1",
        f"--output={tmp_path / 'out.json'}",
    ]
    found = script.main([*files, f"--model={model}", *few])
    assert set(found["arms"]) == {*script.ARMS, "untrained", "reference"}
    spent = found["tokens_in_the_loss"].values()
    assert all(40 <= tokens < 40 + 20 for tokens in spent)
    assert json.loads((tmp_path / "out.json").read_text())["settings"]["steps"] == 2
