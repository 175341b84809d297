"""Implicit rewards of a policy and its reference, against plain loops over both models and both sides."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

import datapruner as dp
from datapruner.errors import DataPrunerError
from datapruner.models import load_causal_lm
from datapruner.scorers import make_scorer
from datapruner.scorers.preference_margin import PreferenceMargin
from tests.conftest import save_tiny_llama

pytestmark = pytest.mark.usefixtures("one_thread", "cache")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return [save_tiny_llama(folder / name, seed=seed) for name, seed in (("policy", 0), ("before", 1))]


@cache
def loaded(folder):
    return load_causal_lm(str(folder))


def log_p(folder, prompt, answer):
    """Log p of what an answer adds to its prompt, as a trainer of pairs has it."""
    model, tokenizer = loaded(folder)
    ids = [
        torch.tensor(tokenizer(text, add_special_tokens=False).input_ids)
        for text in (prompt, prompt + answer)
    ]
    with torch.no_grad():
        found = torch.log_softmax(model(input_ids=ids[1][None]).logits[0].double(), -1)
    places = torch.arange(len(ids[0]), len(ids[1]))
    return float(found[places - 1, ids[1][places]].sum())


def reward(models, turns, answer):
    """The first model's log p minus the second's."""
    roles = ("user", "assistant")
    prompt = (
        "".join(f"<|{roles[place % 2]}|>{text}</s>" for place, text in enumerate(turns)) + "<|assistant|>"
    )
    policy, before = (log_p(folder, prompt, f"{answer}</s>") for folder in models)
    return policy - before


def ranking(models, rows, **parameters):
    scorer = PreferenceMargin(reward="implicit", **parameters)
    policy, before = map(str, models)
    told = {"model": policy, "reference_model": before, "progress": False}
    return dp.score(rows, scorers=scorer, **told).rankings["preference_margin"]


def test_margins_are_those_of_plain_loops_over_both_models_and_both_sides(models):
    rows = [
        {"prompt": f"say {number}", "chosen": "yes " * (1 + number % 3), "rejected": ["no", "not at all"]}
        for number in range(5)
    ]
    expected = [
        (
            reward(models, [row["prompt"]], row["chosen"]),
            max(reward(models, [row["prompt"]], answer) for answer in row["rejected"]),
        )
        for row in rows
    ]
    found = ranking(models, rows)
    for name, side in (("chosen_reward", 0), ("rejected_reward", 1)):
        np.testing.assert_allclose(found.columns[name], [pair[side] for pair in expected], atol=1e-4)
    np.testing.assert_allclose(found.values, [one - other for one, other in expected], atol=1e-4)
    again = ranking(models, rows, keep="small")
    np.testing.assert_allclose(again.values, -np.abs(found.values), atol=0)


def test_earlier_answers_cancel_and_texts_are_read_whole(models):
    said = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "bc"},
        {"role": "user", "content": "d"},
    ]
    sides = {
        side: [*said, {"role": "assistant", "content": answer}]
        for side, answer in (("chosen", "good"), ("rejected", "rather bad"))
    }
    wanted = reward(models, ["a", "bc", "d"], "good") - reward(models, ["a", "bc", "d"], "rather bad")
    np.testing.assert_allclose(ranking(models, [sides]).values, [wanted], atol=1e-4)
    texts = {"chosen": "a, good", "rejected": "a, rather bad"}

    def whole(text):
        policy, before = (log_p(folder, text[0], text[1:]) for folder in models)
        return policy - before

    np.testing.assert_allclose(
        ranking(models, [texts]).values, [whole(texts["chosen"]) - whole(texts["rejected"])], atol=1e-4
    )


def test_what_cannot_be_told_is_refused(models):
    pair = {"prompt": "a", "chosen": "b", "rejected": "c"}
    told = {"scorers": PreferenceMargin(reward="implicit"), "progress": False}
    with pytest.raises(
        DataPrunerError, match="preference_margin' holds the model's losses against a reference's"
    ):
        dp.score([pair], model=str(models[0]), **told)
    with pytest.raises(DataPrunerError, match="reads the rejected side of a row"):
        dp.score(
            [{"prompt": "a", "completion": "b"}], model=str(models[0]), reference_model=str(models[1]), **told
        )
    with pytest.raises(DataPrunerError, match="fails on row 0: its rejected answer: no supervised token"):
        dp.score(
            [{"prompt": "a", "chosen": "b", "rejected": [{"role": "user", "content": "long " * 30}]}],
            model=str(models[0]),
            reference_model=str(models[1]),
            **told,
        )
    with pytest.raises(DataPrunerError, match="label is a classifier's class"):
        make_scorer("preference_margin", {"reward": "implicit", "label": "good"})


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A policy that learnt to like '+' and to dislike '-', and the model before, to which all tokens are alike."""
    folders = [save_tiny_llama(tmp_path_factory.mktemp("taught") / name) for name in ("policy", "before")]
    for folder, learnt in zip(folders, (1.0, 0.0), strict=True):
        model, tokenizer = load_causal_lm(str(folder))
        with torch.no_grad():
            for name, weight in model.named_parameters():
                weight.fill_(1.0 if "norm" in name else 0.0)
            model.model.embed_tokens.weight[:, 0] = 1
            for sign, worth in (("+", learnt), ("-", -learnt)):
                model.lm_head.weight[tokenizer.convert_tokens_to_ids(sign), 0] = worth
        model.save_pretrained(folder)
    return folders


def test_planted_swaps_are_found(taught):
    drawn = np.random.default_rng(0)
    swapped = set(drawn.choice(60, 6, replace=False).tolist())
    rows = []
    for number in range(60):
        good, bad = ("+" * drawn.integers(1, 9) + " so", "-" * drawn.integers(1, 9) + " so")
        chosen, rejected = (bad, good) if number in swapped else (good, bad)
        rows.append({"prompt": f"question {number}", "chosen": chosen, "rejected": rejected})
    policy, before = map(str, taught)
    told = {"model": policy, "reference_model": before, "keep": 54, "progress": False}
    kept = dp.prune(rows, scorer=PreferenceMargin(reward="implicit"), **told)
    assert set(range(60)) - set(kept.indices.tolist()) == swapped


def test_a_side_on_which_a_model_fails_is_its_rows(models, tmp_path):
    """Row 0 has two rejected answers, so that the sides are not numbered as the rows are."""
    model, tokenizer = load_causal_lm(str(models[0]))
    with torch.no_grad():
        model.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids("#")] = float("nan")
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "odd")
    rejected = [["no", "nor that"], ["#1"], ["no"]]
    rows = [{"prompt": f"say {row}", "chosen": "yes", "rejected": some} for row, some in enumerate(rejected)]
    told = {
        "scorers": PreferenceMargin(reward="implicit"),
        "progress": False,
        "reference_model": str(models[1]),
    }
    with pytest.raises(
        DataPrunerError, match="the language model fails on row 1: its rejected answer: no finite"
    ):
        dp.score(rows, model=str(tmp_path / "odd"), **told)
    found = dp.score(rows, model=str(tmp_path / "odd"), on_error="drop", **told)
    assert [vetoes.rows.tolist() for vetoes in found.vetoes if len(vetoes)] == [[1]]
    whole = ranking(models, rows).values
    np.testing.assert_allclose(found.rankings["preference_margin"].values[[0, 2]], whole[[0, 2]], atol=1e-5)
