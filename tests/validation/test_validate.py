"""Trainings on rows that differ: which rows they are, what an adapter learns, and what the figures say."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import datapruner as dp
from datapruner.errors import DataPrunerError
from datapruner.scorers import NearestTarget, QTuning
from datapruner.validation.gaps import Groups, gap_of
from datapruner.validation.result import ScoreValidation, SelectionValidation
from datapruner.validation.study import study
from datapruner.validation.target import held_out_of, rows_of
from datapruner.validation.training import Training, adapter, judged, left_out, steps, supervised, train
from tests.conftest import command
from tests.validation.token_rows import rendered

pytest.importorskip("peft", reason="validate trains a LoRA adapter")


# --- what is left out -----------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 40)), min_size=2, max_size=40),
    st.floats(0.05, 0.5),
    st.integers(0, 99),
)
def test_best_worst_and_any_leave_as_many_tokens(rows, leave_out, seed):
    values, tokens = (np.array(of) for of in zip(*rows, strict=True))
    found = left_out(values.astype(float), tokens, leave_out, np.random.default_rng(seed))
    gone = {name: np.setdiff1d(np.arange(len(rows)), stays) for name, stays in found.items()}
    for name, of in gone.items():
        assert len(of) >= 1
        assert len(found[name]) >= 1
        if 1 < len(of) < len(rows) - 1:
            assert abs(tokens[of].sum() - leave_out * tokens.sum()) <= tokens.max() / 2
    assert values[gone["best"]].min() >= values[found["best"]].max()
    assert values[gone["worst"]].max() <= values[found["worst"]].min()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 99), st.integers(1, 12))
def test_so_many_steps_hold_every_row_once(seed, count):
    rows = rendered(np.random.default_rng(seed), 50, 12)
    found = steps(rows, count, seed)
    assert sorted(id(row) for batch in found for row in batch) == sorted(map(id, rows))
    assert len(found) == count
    assert all(found)
    tokens = np.array([sum(map(supervised, batch)) for batch in found])
    if count <= 3:  # four rows a step and more
        assert abs(tokens - tokens.sum() / count).max() <= max(map(supervised, rows))


# --- the training ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tiny_llama):
    from datapruner.models import load_causal_lm

    return load_causal_lm(str(tiny_llama), device="cpu")


def test_losses_are_the_models_own(tiny, one_thread):
    model = tiny[0]
    rows = rendered(np.random.default_rng(0), model.config.vocab_size)
    seen = []
    hook = model.get_output_embeddings().register_forward_hook(
        lambda _, given, out: seen.append(given[0].shape[1])
    )
    own = judged(model, rows)
    hook.remove()
    assert sum(seen) == sum(map(supervised, rows))  # no logits are made of what is in no loss
    for row, found in zip(rows, own, strict=True):
        assert found == pytest.approx(by_the_model(model, row) * supervised(row), rel=1e-5)


def by_the_model(model, row):
    import torch

    ids = torch.tensor(row.input_ids[None]).long()
    labels = torch.where(torch.tensor(row.supervised[None]), ids, -100)
    with torch.no_grad():
        return float(model(input_ids=ids, labels=labels).loss)


@pytest.mark.parametrize("family", ["gemma2", "granite", "cohere", "headless"])
def test_so_they_are_of_families_that_change_their_logits(family, one_thread, monkeypatch):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "llama" if family == "headless" else family,
        vocab_size=60,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **{"gemma2": {"final_logit_softcapping": 0.5}, "granite": {"logits_scaling": 3.0}}.get(family, {}),
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    if family == "headless":  # what says of no layer that it is the last
        monkeypatch.setattr(model, "get_output_embeddings", lambda: None)
    rows = rendered(np.random.default_rng(0), 60)
    for row, found in zip(rows, judged(model, rows), strict=True):
        assert found == pytest.approx(by_the_model(model, row) * supervised(row), rel=1e-5)


def test_an_adapter_learns_and_leaves_the_model_as_it_was(tiny, one_thread):
    model = tiny[0]
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    wants = [weight.requires_grad for weight in model.parameters()]
    rows = rendered(np.random.default_rng(0), model.config.vocab_size)
    start, ends = judged(model, rows).sum(), []
    for _ in range(2):
        with adapter(model, 4, 0) as wrapped:
            train(wrapped, rows * 10, 15, 1e-2, 0)
            ends.append(judged(wrapped, rows).sum())
    assert ends[0] == ends[1] < 0.9 * start
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all((before[name] == after[name]).all() for name in before)
    assert [weight.requires_grad for weight in model.parameters()] == wants
    assert judged(model, rows).sum() == start


# --- the figures ----------------------------------------------------------------------------------------------


def found_of(gaps, rows=1, spread=None):
    """A result in which the best are missed more by so much in each run, and by ``spread`` in each row."""
    tokens = np.full(rows, 10)
    base = np.random.default_rng(0).normal(20, 1, (len(gaps), 1, rows))
    losses = np.repeat(base, 3, axis=1)
    losses[:, 0] += 10 * np.array(gaps)[:, None]
    if spread is not None:
        losses[:, 0] += spread
    return ScoreValidation("a", "b", 50, tokens, base[0, 0], losses)


def test_with_one_target_row_it_is_the_paired_t_test():
    from scipy import stats

    gaps = [0.03, 0.01, 0.02, 0.05]
    found = found_of(gaps).gap()
    wanted = stats.ttest_1samp(gaps, 0).confidence_interval(0.95)
    assert found.mean == pytest.approx(np.mean(gaps))
    assert found.half == pytest.approx((wanted.high - wanted.low) / 2)


def test_with_equal_runs_it_is_that_of_the_targets_rows():
    from scipy import stats

    spread = np.random.default_rng(1).normal(0.5, 1, 30)
    found = found_of([0.0, 0.0, 0.0], 30, spread).gap()
    wanted = stats.ttest_1samp(spread / 10, 0).confidence_interval(0.95)
    assert found.mean == pytest.approx(spread.mean() / 10)
    assert found.half == pytest.approx((wanted.high - wanted.low) / 2, rel=1e-3)


def test_of_two_groups_it_is_welchs_interval():
    from scipy import stats

    rng = np.random.default_rng(2)
    first, second = rng.normal(0.5, 1, 9), rng.normal(0.1, 3, 25)
    found = found_of([0.0, 0.0], 34, np.concatenate([first, second]))
    found = replace(found, groups=Groups("kind", ["a", "b"], np.repeat([0, 1], [9, 25])))
    # The half of a sum has half the interval of a difference.
    wanted = stats.ttest_ind(first / 10, -second / 10, equal_var=False).confidence_interval(0.95)
    gap = found.mean_gap()
    assert gap.mean == pytest.approx((first.mean() + second.mean()) / 20)
    assert gap.half == pytest.approx((wanted.high - wanted.low) / 4)
    alone = found_of([0.0, 0.0], 9, first).gap()
    assert found.group_gaps()["a"] == pytest.approx(alone)
    assert found.gap() == pytest.approx(found_of([0.0, 0.0], 34, np.concatenate([first, second])).gap())


def test_each_group_counts_the_same_and_in_it_each_token():
    tokens, over = np.array([1, 3, 100, 300]), np.array([[1.0, 1.0, 20.0, 60.0]] * 2)
    assert gap_of(over, tokens, [np.arange(4)]).mean == pytest.approx(82 / 404)
    assert gap_of(over, tokens, [np.arange(2), np.arange(2, 4)]).mean == pytest.approx((2 / 4 + 80 / 400) / 2)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(2, 4))
def test_the_interval_of_a_mean_over_groups_grows_with_what_rows_differ_by(seed, groups, runs):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, 30, 12 * groups)
    of = [np.flatnonzero(np.arange(12 * groups) % groups == one) for one in range(groups)]
    over = np.repeat(rng.normal(0, 1, (1, len(tokens))) * tokens, runs, axis=0)
    one, twice = gap_of(over, tokens, of), gap_of(2 * over, tokens, of)
    assert twice.half == pytest.approx(2 * one.half)
    assert twice.mean == pytest.approx(2 * one.mean)
    assert one.seen_from > one.half > 0
    shuffled = rng.permutation(len(tokens))
    back = np.argsort(shuffled)
    again = gap_of(over[:, shuffled], tokens[shuffled], [back[rows] for rows in of])
    assert again == pytest.approx(one)


def test_verdicts():
    assert found_of([0.03, 0.03, 0.031]).verdict == "means something"
    assert found_of([-0.03, -0.03, -0.031]).verdict == "points the wrong way"
    assert found_of([0.03, -0.03, 0.01]).verdict == "no difference is seen"
    told = found_of([0.03, -0.03, 0.01])
    assert f"one of {told.gap().seen_from:.4f} would be" in told.describe()
    assert (
        "higher than without its worst: the score means something" in found_of([0.03, 0.03, 0.031]).describe()
    )


def test_the_mean_over_groups_says_what_the_tokens_hide():
    """Long answers rule the tokens, and lose a little; short ones win much."""
    tokens = np.repeat([200, 4], 20)
    over = np.repeat([-4.0, 2.0], 20) + np.random.default_rng(0).normal(0, 0.05, (3, 40))
    losses = np.full((3, 2, 40), 300.0)
    losses[:, 0] += over
    groups = Groups("skill", ["long", "=short\x1b[31m"], np.repeat([0, 1], 20))
    told = SelectionValidation(
        "chosen", "dev", 50, tokens, losses[0, 0], losses, groups=groups, learnt=np.full((3, 2), 900)
    )
    assert told.verdict == "is worth less than a random draw"
    assert told.mean_verdict == "is worth more than a random draw"
    said = told.describe()
    assert "By skill, how much lower the loss is on kept rows than on random ones:" in said
    lines = [line.split() for line in said.splitlines()]
    assert ["long", "20", "rows", "4,000", "tokens", *told.group_gaps()["long"].told().split()] in lines
    assert ["their", "mean", *told.mean_gap().told().split()] in lines
    assert said.endswith(
        "As the mean over these 2: what is kept is worth more than a random draw for this target"
    )
    assert "\x1b" not in said
    held = told.to_dict()
    assert held["mean_verdict"] == told.mean_verdict
    assert held["groups"][0] == "long"
    assert held["mean_gap"]["mean"] == pytest.approx(told.mean_gap().mean)
    without = replace(told, groups=None)
    assert without.mean_verdict is None
    assert without.group_gaps() == {}
    assert "mean_gap" not in without.to_dict()
    with pytest.raises(ValueError, match="by="):
        without.mean_gap()


# --- planted truth, from scores to a verdict -------------------------------------------------------------------


WORDS = ["red", "green", "blue", "black", "white", "brown"]


@pytest.fixture(scope="module")
def planted(tmp_path_factory, tiny_llama):
    """Rows of which half answer as the target does, and the other half with something else."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("planted")

    def row(good, number):
        word = str(rng.choice(WORDS))
        answer = (
            f"{word} {word} {word} {word} {word} {word}"
            if good
            else " ".join(rng.permutation(list("qzxjkvw")))
        )
        return {"question": f"what is {word} {number}", "answer": answer, "good": good}

    rows = [row(number % 2 == 0, number) for number in range(120)]
    target = [row(True, 1000 + number) for number in range(12)]
    for name, of in (("rows", rows), ("target", target)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in of))
    return folder, str(tiny_llama)


@dataclass(frozen=True)
class Good(dp.Scorer):
    """What was planted, or the opposite."""

    way: float = 1.0
    name: ClassVar[str] = "good"
    needs: ClassVar[frozenset[str]] = frozenset({"text"})

    def _score(self, signals):
        return dp.Ranking(
            self.way * np.array(["q" not in text.split()[-7:] for text in signals["text"]], dtype=float)
        )


@dataclass(frozen=True)
class Bad(Good):
    """The opposite."""

    way: float = -1.0
    name: ClassVar[str] = "bad"


@pytest.fixture(scope="module")
def scored(planted):
    return dp.score(str(planted[0] / "rows.jsonl"), scorers=[Good(), Bad(), "random"], progress=False)


FEW = Training(step_tokens=60)
SMALL = {"rows": 40, "runs": 3, "step_tokens": 60, "rate": 2e-2, "leave_out": 0.4, "progress": False}


def test_a_score_that_knows_is_told_from_one_that_is_wrong(planted, scored, one_thread):
    folder, model = planted
    good, bad = (
        dp.validate(scored, str(folder / "target.jsonl"), scorer=name, model=model, **SMALL)
        for name in ("good", "bad")
    )
    assert good.verdict == "means something", good.describe()
    assert bad.verdict == "points the wrong way", bad.describe()
    assert (
        good.loss("without_worst")
        < good.loss("without_any")
        < good.loss("without_best")
        < good.before.sum() / good.tokens.sum()
    )


def test_from_the_command_line(planted, one_thread, tmp_path, capsys, monkeypatch):
    folder, model = planted
    assert (
        command(
            monkeypatch,
            "score",
            folder / "rows.jsonl",
            "--scorer",
            "perplexity",
            "--model",
            model,
            "-o",
            tmp_path / "s",
        )
        == 0
    )
    options = ["--target", folder / "target.jsonl", "--runs", 2, "--rows", 30, "--step-tokens", 60]
    capsys.readouterr()
    assert command(monkeypatch, "validate", tmp_path / "s", *options, "--dry-run") == 0
    said = capsys.readouterr()
    assert "6 trainings of a LoRA adapter" in said.out
    assert command(monkeypatch, "validate", tmp_path / "s", *options, "-o", tmp_path / "out") == 0
    said = capsys.readouterr()
    assert "than without its worst" in said.out
    held = json.loads((tmp_path / "out" / "validation.json").read_text())
    assert held["verdict"] in ("means something", "points the wrong way", "no difference is seen")
    assert np.shape(held["losses"]["without_best"]) == (2, 12)
    assert len((tmp_path / "out" / "validation.csv").read_text().splitlines()) == 3
    assert command(monkeypatch, "validate", tmp_path / "s", *options, "-o", tmp_path / "out") == 2
    assert (
        command(
            monkeypatch,
            "validate",
            tmp_path / "s",
            *options,
            "-o",
            tmp_path / "out",
            "--overwrite",
            "--quiet",
        )
        == 0
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"leave_out": 0.6}, "leave_out must lie in"),
        ({"runs": 1}, "runs must be at least 2"),
        ({"rows": 5}, "rows must be at least 20"),
        ({"rate": 0.0}, "the learning rate above 0"),
        ({"last_layers": 0}, "last_layers must be at least 1"),
        ({"step_tokens": 10_000}, "raise rows= or lower step_tokens="),
        ({"scorer": None}, "say which scorer"),
        ({"model": None}, "name the one that is to be trained with model="),
    ],
)
def test_bad_input_gets_a_sentence(planted, scored, options, sentence):
    folder, model = planted
    given = {"scorer": "good", "model": model, **SMALL, **options}
    with pytest.raises(DataPrunerError, match=sentence):
        dp.validate(scored, str(folder / "target.jsonl"), **given)


def test_a_target_without_answers_and_a_flat_score_are_refused(planted, tmp_path):
    folder, model = planted
    (tmp_path / "empty.jsonl").write_text('{"messages": [{"role": "user", "content": "why"}]}\n')
    scores = dp.score(str(folder / "rows.jsonl"), scorers=["random", "unranked"], progress=False)
    with pytest.raises(DataPrunerError, match="gives all rows the same score"):
        dp.validate(scores, str(folder / "target.jsonl"), scorer="unranked", model=model, **SMALL)
    with pytest.raises(DataPrunerError, match="has no answers"):
        dp.validate(scores, str(tmp_path / "empty.jsonl"), scorer="random", model=model, **SMALL)


# --- a selection beside a random draw --------------------------------------------------------------------------


def kept_of(scored, scorer, **more):
    return scored.select(scorer, keep=0.4, **more)


def test_what_is_worth_more_than_random_rows_is_told_from_what_is_worth_less(
    planted, scored, one_thread, tmp_path
):
    folder, model = planted
    target = str(folder / "target.jsonl")
    small = {**SMALL, "leave_out": None, "model": model}
    good = dp.validate(kept_of(scored, "good"), target, **small)
    kept_of(scored, "bad").save(tmp_path / "bad")
    bad = dp.validate(tmp_path / "bad", target, **small)
    assert good.verdict == "is worth more than a random draw", good.describe()
    assert bad.verdict == "is worth less than a random draw", bad.describe()
    assert good.loss("kept") < good.loss("random")
    assert "what is kept is worth more than a random draw for this target" in good.describe()
    assert f"{tmp_path / 'bad'} keeps" in bad.describe()


def test_the_last_layers_tell_it_too(planted, scored, one_thread, tmp_path, monkeypatch, capsys, caplog):
    folder, model = planted
    kept_of(scored, "good").save(tmp_path / "good")
    given = [tmp_path / "good", "--target", folder / "target.jsonl", "--model", model, "--rows", 40]
    given += ["--step-tokens", 60, "--rate", 2e-2, "--last-layers"]
    capsys.readouterr()
    assert command(monkeypatch, "validate", *given, 1, "--dry-run") == 0
    assert "a LoRA adapter in the last layer, each in" in capsys.readouterr().out
    with caplog.at_level("INFO"):
        assert command(monkeypatch, "validate", *given, 1, "-o", tmp_path / "out") == 0
    assert "do not run on their own" not in caplog.text
    said = capsys.readouterr().out
    assert "5 runs of 40 rows, the last layer trained" in said
    held = json.loads((tmp_path / "out" / "validation.json").read_text())
    assert held["last_layers"] == 1
    assert held["gaps"]["random - kept"]["mean"] > 0.1
    assert command(monkeypatch, "validate", *given, 99) == 2
    assert "not the last 99 of --last-layers" in capsys.readouterr().err


def test_a_column_tells_what_it_is_worth_more_for(planted, scored, one_thread, tmp_path, monkeypatch, capsys):
    folder, model = planted
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    target = [{**row, "question": f"{row['question']}?"} for row in rows[:24]]
    (tmp_path / "mixed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in target))
    small = {**SMALL, "leave_out": None, "model": model, "by": "good"}
    found = dp.validate(kept_of(scored, "good"), str(tmp_path / "mixed.jsonl"), **small)
    gaps = found.group_gaps()
    assert gaps["True"].mean > 0.5
    assert gaps["False"].mean < -0.5
    assert found.mean_gap().mean == pytest.approx((gaps["True"].mean + gaps["False"].mean) / 2)
    kept_of(scored, "good").save(tmp_path / "kept")
    options = ["--model", model, "--runs", 2, "--rows", 30, "--step-tokens", 60]
    words = ["validate", tmp_path / "kept", "--target", tmp_path / "mixed.jsonl", *options]
    assert command(monkeypatch, *words, "--by", "good", "-o", tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "By good, how much lower the loss is on kept rows than on random ones:" in said
    assert "their mean" in said
    held = json.loads((tmp_path / "out" / "validation.json").read_text())
    assert held["groups"] == ["True", "False"] * 12
    assert held["group_gaps"].keys() == {"True", "False"}
    assert command(monkeypatch, *words, "--by", "goood") == 2
    assert "has no column 'goood'. Did you mean 'good'?" in " ".join(capsys.readouterr().err.split())
    assert command(monkeypatch, *words, "--by", "question") == 2
    assert "there must be two at least" in " ".join(capsys.readouterr().err.split())


def test_rows_without_an_answer_are_of_no_group(planted, scored, tmp_path):
    model = planted[1]
    turns = [{"role": "user", "content": "what"}, {"role": "assistant", "content": "red red"}]
    rows = [{"messages": turns[: 2 if i else 1], "of": "ab"[i % 2]} for i in range(6)]
    (tmp_path / "some.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ready = study(kept_of(scored, "good"), str(tmp_path / "some.jsonl"), model=model, how=FEW, by="of")
    groups = ready.target.groups
    assert len(ready.target.rows) == len(groups.of) == 5
    assert [groups.names[of] for of in groups.of] == list("babab")


def test_a_random_selection_is_not_told_from_a_random_draw(planted, scored, one_thread):
    folder, model = planted
    found = dp.validate(
        kept_of(scored, "random"),
        str(folder / "target.jsonl"),
        **{**SMALL, "leave_out": None, "model": model},
    )
    assert found.verdict == "no difference is seen", found.describe()


def reader_of(model):
    from datapruner.models import load_tokenizer
    from datapruner.signals.language_model.reader import LanguageModel

    return LanguageModel(None, load_tokenizer(model), 1024)


def arms(selection, target, model, rows=500, runs=2, seed=0):
    from datapruner.validation.arms import of_selection

    reader = reader_of(model)
    return of_selection(selection, reader, rows_of(target, reader, None, {}), rows, runs, seed), reader


def test_random_rows_are_of_the_whole_source_and_of_as_many_tokens(planted, scored):
    folder, model = planted
    target = dp.load_samples(str(folder / "target.jsonl"))
    selection = kept_of(scored, "good")
    found, reader = arms(selection, target, model, runs=6)
    every = [row.input_ids.tobytes() for row in reader.render(selection.source, np.arange(120))]
    kept = {every[row] for row in selection.indices}
    longest = max(map(supervised, reader.render(selection.source, np.arange(120))))
    for run, learnt in zip(found.runs, found.learnt, strict=True):
        assert {row.input_ids.tobytes() for row in run["kept"]} == kept
        drawn = [row.input_ids.tobytes() for row in run["random"]]
        assert set(drawn) <= set(every)
        assert abs(learnt[0] - learnt[1]) <= longest / 2
    # Half of the source is what this selection never keeps, so that a draw has it as often.
    others = [row.input_ids.tobytes() not in kept for run in found.runs for row in run["random"]]
    assert 0.4 < np.mean(others) < 0.8
    assert len({tuple(row.input_ids.tobytes() for row in run["random"]) for run in found.runs}) == 6


def test_kept_rows_are_drawn_where_there_are_more(planted, scored):
    folder, model = planted
    target = dp.load_samples(str(folder / "target.jsonl"))
    found, _ = arms(kept_of(scored, "random"), target, model, rows=25)
    assert found.rows == 25
    first, second = ({row.input_ids.tobytes() for row in run["kept"]} for run in found.runs)
    assert len(first) == len(second) == 25
    assert first != second


def test_rows_of_the_target_are_in_neither_arm(planted, scored):
    model = planted[1]
    selection = kept_of(scored, "good")
    leaked = [selection.source.dataset[int(row)] for row in selection.indices[:5]]
    found, reader = arms(selection, dp.load_samples(leaked), model)
    gone = {row.input_ids.tobytes() for row in reader.render(selection.source, selection.indices[:5])}
    assert found.shared == 5
    for run in found.runs:
        for rows in run.values():
            assert not gone & {row.input_ids.tobytes() for row in rows}


# --- rows that are held out, where no target is named ---------------------------------------------------------


def test_without_a_target_rows_that_cleaning_left_judge_and_are_in_no_training(planted, scored):
    selection, model = kept_of(scored, "good"), planted[1]
    ready = study(selection, model=model, how=FEW, rows=40, hold_out=20, by="good")
    held_out = ready.target.held_out
    assert len(held_out) == len(set(held_out.tolist())) == 20
    assert set(ready.target.groups.names) == {"False", "True"}  # kept or not: of the rows as they are
    read = [row.input_ids.tobytes() for row in ready.target.rows]
    wanted = reader_of(model).render(selection.source, held_out)
    assert read == [row.input_ids.tobytes() for row in wanted]
    learnt = {row.input_ids.tobytes() for run in ready.arms.runs for rows in run.values() for row in rows}
    assert learnt
    assert not learnt & set(read)
    assert "20 rows of the source that are held out" in ready.describe()
    assert ready.target.called == f"held-out rows of {selection.source.source}"
    again = study(selection, model=model, how=FEW, rows=40, hold_out=20, seed=1).target.held_out
    assert again.tolist() != held_out.tolist()


def test_of_scores_rows_are_held_out_too(planted, scored):
    ready = study(scored, scorer="good", model=planted[1], how=FEW, rows=40)
    assert len(ready.target.rows) == 24  # a fifth
    read = {row.input_ids.tobytes() for row in ready.target.rows}
    assert not read & {
        row.input_ids.tobytes() for run in ready.arms.runs for of in run.values() for row in of
    }


def test_rows_that_cleaning_dropped_do_not_judge(planted, tmp_path):
    rows = [json.loads(line) for line in (planted[0] / "rows.jsonl").read_text().splitlines()]
    bad = {"question": "what", "answer": "no", "good": True}
    (tmp_path / "some.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows + 60 * [bad]))
    selection = dp.prune(str(tmp_path / "some.jsonl"), keep=0.4, scorer="random", dedup=True, progress=False)
    assert np.isnan(selection.values).sum() >= 59
    ready = study(selection, model=planted[1], how=FEW, rows=30, runs=2)
    assert len(ready.target.held_out) == 24
    assert ready.target.held_out.max() <= 120  # of sixty copies the first is left


def test_copies_of_what_is_held_out_are_in_no_training(planted, tmp_path):
    rows = (planted[0] / "rows.jsonl").read_text().splitlines()
    (tmp_path / "twice.jsonl").write_text("\n".join(rows + rows))
    scores = dp.score(str(tmp_path / "twice.jsonl"), scorers=["random"], progress=False)
    for result, scorer in ((scores, "random"), (scores.select("random", keep=0.5), None)):
        ready = study(result, scorer=scorer, model=planted[1], how=FEW, rows=150, runs=2)
        read = {row.input_ids.tobytes() for row in ready.target.rows}
        learnt = {row.input_ids.tobytes() for run in ready.arms.runs for of in run.values() for row in of}
        assert not read & learnt
        assert ready.arms.shared > 10
        assert "drawn rows are the same as some of these and were left out" in ready.describe()


def test_what_the_scorer_was_told_of_is_not_held_out(planted, tmp_path):
    rows = (planted[0] / "rows.jsonl").read_text().splitlines()
    (tmp_path / "told.jsonl").write_text("\n".join(rows[::2]))
    vectors = np.random.default_rng(0).normal(size=(120, 4))
    for name, of in (("rows", vectors), ("told", vectors[::2])):
        np.save(tmp_path / f"{name}.npy", of)
    selection = dp.prune(
        str(planted[0] / "rows.jsonl"),
        keep=0.4,
        scorer=NearestTarget(representation="embedding"),
        target=str(tmp_path / "told.jsonl"),
        embeddings=str(tmp_path / "rows.npy"),
        target_embeddings=str(tmp_path / "told.npy"),
        progress=False,
    )
    for seed in range(3):
        ready = study(selection, model=planted[1], how=FEW, rows=40, seed=seed)
        assert (ready.target.held_out % 2 == 1).all()


def test_rows_without_an_answer_are_not_held_out(planted, tmp_path):
    rows = [json.loads(line) for line in (planted[0] / "rows.jsonl").read_text().splitlines()]
    chats = [
        {
            "messages": [
                {"role": "user", "content": row["question"]},
                {"role": "assistant", "content": row["answer"]},
            ][: 1 + number % 2]
        }
        for number, row in enumerate(rows + rows)
    ]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chats))
    scores = dp.score(str(tmp_path / "chats.jsonl"), scorers=["random"], on_empty="keep", progress=False)
    ready = study(scores, scorer="random", model=planted[1], how=FEW, rows=120)
    assert len(ready.target.rows) == len(ready.target.held_out) == 48  # of 240
    assert (ready.target.held_out % 2 == 1).all()


def test_all_but_what_is_held_out_may_not_be_kept(planted, scored):
    selection = scored.select("random", keep=119)
    (gone,) = np.setdiff1d(np.arange(120), selection.indices).tolist()
    reader = reader_of(planted[1])

    def held_out(seed):
        return held_out_of(scored.samples, selection.values, None, seed, reader, None, {}).held_out

    drawn = (seed for seed in range(60) if gone in held_out(seed))
    with pytest.raises(DataPrunerError, match="all rows are kept"):
        study(selection, model=planted[1], how=FEW, rows=40, seed=next(drawn))


def test_from_a_folder_without_a_target(planted, scored, one_thread, tmp_path, monkeypatch, capsys):
    kept_of(scored, "good").save(tmp_path / "good")
    given = [tmp_path / "good", "--model", planted[1], "--rows", 30, "--runs", 2, "--step-tokens", 60]
    assert command(monkeypatch, "validate", *given, "--hold-out", 20) == 0
    said = capsys.readouterr().out
    assert f"Loss of held-out rows of {planted[0] / 'rows.jsonl'} (20 rows, " in said
    assert "On kept rows the loss is" in said


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"target": "rows.jsonl", "hold_out": 30}, "leave one of the two out"),
        ({"hold_out": 5}, "hold_out must be at least 20"),
        ({"target_split": "test"}, "is of a target, and none is named"),
    ],
)
def test_bad_input_without_a_target_gets_a_sentence(planted, scored, options, sentence):
    with pytest.raises(DataPrunerError, match=sentence):
        dp.validate(kept_of(scored, "good"), model=planted[1], progress=False, **options)


def test_too_few_rows_to_hold_some_out(planted, tmp_path):
    rows = (planted[0] / "rows.jsonl").read_text().splitlines()[:60]
    (tmp_path / "few.jsonl").write_text("\n".join(rows))
    selection = dp.prune(str(tmp_path / "few.jsonl"), keep=0.5, scorer="random", progress=False)
    with pytest.raises(DataPrunerError, match="name rows of your task with target="):
        study(selection, model=planted[1], how=FEW)


# --- what is refused ------------------------------------------------------------------------------------------


def test_what_the_scorer_was_told_of_is_no_judge(planted, tmp_path, caplog):
    folder, model = planted
    lines = (folder / "target.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "told.jsonl").write_text("".join(lines[:8]))
    (tmp_path / "mixed.jsonl").write_text("".join(lines[6:]))
    (tmp_path / "judge.jsonl").write_text("".join(lines[8:]))
    vectors = np.random.default_rng(0).normal(size=(120, 4))
    for name, of in (("rows", vectors), ("told", vectors[:8])):
        np.save(tmp_path / f"{name}.npy", of)
    dp.prune(
        str(folder / "rows.jsonl"),
        scorer=NearestTarget(representation="embedding"),
        target=str(tmp_path / "told.jsonl"),
        keep=0.4,
        embeddings=str(tmp_path / "rows.npy"),
        target_embeddings=str(tmp_path / "told.npy"),
        progress=False,
    ).save(tmp_path / "out")
    small = {**SMALL, "leave_out": None, "model": model}
    with pytest.raises(
        DataPrunerError, match=r"2 of the 6 rows of .*mixed.jsonl are rows that the scorer was told of"
    ):
        dp.validate(tmp_path / "out", str(tmp_path / "mixed.jsonl"), **small)
    assert (
        study(tmp_path / "out", str(tmp_path / "judge.jsonl"), model=model, rows=40, how=FEW).trainings == 10
    )
    (tmp_path / "told.jsonl").unlink()
    with caplog.at_level("WARNING"):
        study(tmp_path / "out", str(tmp_path / "mixed.jsonl"), model=model, rows=40, how=FEW)
    assert "cannot be seen" in caplog.text


def test_tokens_that_were_pruned_are_not_learnt(planted, one_thread):
    folder, model = planted
    scores = dp.score(
        str(folder / "rows.jsonl"),
        scorers=QTuning(token_keep=0.5),
        model=model,
        progress=False,
    )
    selection = scores.select(keep=0.5)
    found, reader = arms(selection, dp.load_samples(str(folder / "target.jsonl")), model)
    whole = sum(map(supervised, reader.render(selection.source, selection.indices)))
    assert found.learnt[0, 1] == selection.supervised_tokens_kept.sum() < 0.9 * whole
    with pytest.raises(DataPrunerError, match="leave model= out"):
        dp.validate(selection, str(folder / "target.jsonl"), model=str(folder), progress=False)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"scorer": "good"}, "scorer= is of scores"),
        ({"leave_out": 0.2}, "leave_out= is of scores"),
        ({"model": None}, "name the one that is to be trained with model="),
        ({"step_tokens": 10_000}, "raise rows= or lower step_tokens="),
    ],
)
def test_bad_input_beside_a_selection_gets_a_sentence(planted, scored, options, sentence):
    folder, model = planted
    given = {**SMALL, "leave_out": None, "model": model, **options}
    with pytest.raises(DataPrunerError, match=sentence):
        dp.validate(kept_of(scored, "good"), str(folder / "target.jsonl"), **given)


def test_a_selection_of_all_rows_and_one_whose_source_is_gone_are_refused(planted, scored, tmp_path):
    folder, model = planted
    given = {**SMALL, "leave_out": None, "model": model}
    target = str(folder / "target.jsonl")
    with pytest.raises(DataPrunerError, match="all rows are kept"):
        dp.validate(scored.select("random", keep=1.0), target, **given)
    copy = tmp_path / "rows.jsonl"
    copy.write_bytes((folder / "rows.jsonl").read_bytes())
    dp.prune(str(copy), scorer="random", keep=0.5, progress=False).save(tmp_path / "out")
    copy.unlink()
    with pytest.raises(DataPrunerError, match=r"rows\.jsonl"):
        dp.validate(tmp_path / "out", target, **given)


def test_figures_of_a_selection():
    base = np.full((3, 2, 4), 20.0)
    base[:, 0] += 1
    told = SelectionValidation(
        "chosen", "dev", 50, np.full(4, 10), base[0, 0], base, learnt=np.full((3, 2), 900)
    )
    assert told.gap().mean == pytest.approx(0.1)
    assert told.to_dict()["gaps"].keys() == {"random - kept"}
    said = told.describe()
    assert "900 supervised tokens of what chosen keeps" in said
    assert "On kept rows the loss is 0.1000 ± 0.0000 lower than on random ones" in said
