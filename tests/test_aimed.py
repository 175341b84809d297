"""The benchmark of choosing for a target: who is told, who judges, what the oracle draws from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
NAMES = ("code", "math", "tools")


@pytest.fixture(scope="module")
def aimed():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import aimed

        yield aimed


@pytest.fixture
def folder(aimed, tmp_path):
    """Three capabilities of 30 rows each, 100 held out of each; math alone, its answers of 1 to 90 words."""

    def rows(count, capability, words):
        return [aimed.Row(capability, f"{capability} {at}?", "word " * words(at)) for at in range(count)]

    def of_all(count):
        return [row for name in NAMES for row in rows(count, name, lambda at: 5)]

    aimed.write_set(tmp_path, "clean", of_all(30), truth=True)
    aimed.write_set(tmp_path, "held_out", of_all(100), truth=True)
    aimed.write_set(tmp_path, "single", rows(90, "math", lambda at: at + 1), truth=True)
    aimed.write_set(tmp_path, "long", rows(50, "math", lambda at: 60 + at), truth=True)
    return tmp_path


def test_who_is_told_does_not_judge_and_all_are_of_the_target(aimed, folder):
    assert list(aimed.cases(folder)) == [*NAMES, aimed.HARD]
    for name, case in aimed.cases(folder).items():
        assert len(case.told) == aimed.TOLD
        assert not {*case.told} & {*case.judges}
        truth = [json.loads(line) for line in (folder / f"{case.held_out}.truth.jsonl").open()]
        own = {row for row, of in enumerate(truth) if of["capability"] == name or name == aimed.HARD}
        assert {*case.told} | {*case.judges} == own


def test_the_oracle_draws_what_is_of_the_target_and_random_what_there_is(aimed, folder):
    for name, case in aimed.cases(folder).items():
        tokens = np.full(len(case.groups), 7)
        there = set(aimed.sampled(len(tokens), 0).tolist())
        kept = {arm: aimed.drawn(folder, aimed.Aim(name, arm, 0, 0), tokens) for arm in ("oracle", "random")}
        assert {case.groups[row] for row in kept["oracle"]} == {case.own}
        assert {*kept["oracle"], *kept["random"]} <= there
        budget = int(aimed.BUDGET * 7 * len(there))
        assert all(budget - 7 < 7 * len(rows) <= budget for rows in kept.values())


def test_the_harder_oracle_has_the_longest_third(aimed, folder):
    groups = aimed.cases(folder)[aimed.HARD].groups
    assert [of for of in groups if of == "long"] == groups[60:]
    rows = [aimed.Row("math", str(words), "word " * words) for words in (9, 1, 8, 3, 2, 7)]
    assert [row.prompt for row in aimed.longest_third(rows)] == ["9", "8"]


def test_runs_and_choices_come_back_in_a_new_folder(aimed, folder, tmp_path):
    run = {"tokens": 70, "of_the_target": 1.0, "losses": [1.5, 2.25]}
    chosen = aimed._chosen(folder, aimed.Aim("code", "feature_mapping", 0, 0))
    chosen.parent.mkdir()
    chosen.write_text(json.dumps({"rows": [3, 1, 4], "cpu_seconds": 1.5}))
    done = {"runs": {aimed.Aim("code", "random", 0, 0).key: run}, "tokens": {"code": [4, 4]}}
    aimed.saved(folder, done | {"machine": {}, "versions": {}}, tmp_path / "found.json")
    new = tmp_path / "new"
    new.mkdir()
    for _ in range(2):  # what is there stays
        aimed.restore(new, tmp_path / "found.json")
        assert aimed.load(new / "aimed.json")["runs"] == done["runs"]
        assert json.loads((new / "aimed" / chosen.name).read_text()) == json.loads(chosen.read_text())


def test_what_an_earlier_day_found_of_other_arms_stays(aimed, folder, tmp_path):
    """And every arm's differences are those from the random rows of its own day."""

    def day(losses):
        runs = {
            aimed.Aim("code", arm, 0, seed).key: {
                "tokens": 70,
                "of_the_target": 1.0,
                "losses": [of + seed, of],
            }
            for arm, of in losses.items()
            for seed in range(3)
        }
        done = {"runs": runs, "tokens": {"code": [4, 4], "math": [4]}, "machine": {}, "versions": {}}
        aimed.saved(folder, done, tmp_path / "found.json")
        return {of["target"]: of for of in json.loads((tmp_path / "found.json").read_text())["tables"]}

    first = day({"random": 8.0, "oracle": 4.0, "stratified": 6.0})
    second = day({"random": 16.0, "oracle": 10.0, "nearest_target, gradient": 12.0})
    assert {*first, *second} == {"code"}
    arms = second["code"]["arms"]
    assert {*arms} == {"oracle", "stratified", "nearest_target, gradient"}
    assert [arms[name]["difference"] for name in sorted(arms)] == pytest.approx([-1.0, -1.5, -0.5])
    assert arms["nearest_target, gradient"]["against_oracle"]["difference"] == pytest.approx(0.5)
    assert second["code"]["random"] == pytest.approx(2 * first["code"]["random"] - 0.125)
