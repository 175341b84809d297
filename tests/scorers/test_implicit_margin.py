"""Implicit rewards of a policy and its reference, against plain loops over both models and both sides."""

from __future__ import annotations

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


def log_p(folder, prompt, answer):
    """Log p of what an answer adds to its prompt, as a trainer of pairs has it."""
    model, tokenizer = load_causal_lm(str(folder))
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
    with pytest.raises(DataPrunerError, match="row 0 has no supervised token in its rejected answer"):
        dp.score(
            [{"prompt": "a", "chosen": "b", "rejected": [{"role": "user", "content": "long " * 30}]}],
            model=str(models[0]),
            reference_model=str(models[1]),
            **told,
        )
    with pytest.raises(DataPrunerError, match="label is a classifier's class"):
        make_scorer("preference_margin", {"reward": "implicit", "label": "good"})
