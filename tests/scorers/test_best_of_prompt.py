"""The most probable answer of each prompt, against plain loops; what a prompt is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import datapruner as dp
from datapruner.ranks import places_in_groups
from datapruner.scorers.best_of_prompt import BestOfPrompt
from datapruner.signals import Ragged, Signals
from datapruner.signals.measurements.answers import UNREAD, last_means
from datapruner.signals.measurements.prompts import before_last_answer


def chat(*texts):
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]


pytestmark = pytest.mark.usefixtures("one_thread", "cache")


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-3, 3)), max_size=30))
def test_places_are_those_of_a_loop(rows):
    groups = np.array([group for group, _ in rows], dtype=np.int64)
    values = np.array([float(value) for _, value in rows])
    for row, (group, value) in enumerate(rows):
        before = sum(
            other == group and (held > value or (held == value and place < row))
            for place, (other, held) in enumerate(rows)
        )
        assert places_in_groups(values, groups)[row] == before


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 9)), min_size=1, max_size=30), st.integers(1, 3))
def test_a_budget_of_the_prompts_keeps_the_best_of_each(rows, m):
    prompt = np.unique([group for group, _ in rows], return_inverse=True)[1]
    loss = np.array([value for _, value in rows])
    ranking = BestOfPrompt(m).score(Signals(len(rows), {"prompt": prompt, "answer_log_ppl": loss}))
    expected = set()
    for one in range(prompt.max() + 1):
        of = sorted(np.flatnonzero(prompt == one).tolist(), key=lambda row: (loss[row], row))
        expected |= set(of[:m])
    order = np.argsort(-ranking.values, kind="stable")
    assert set(order[: len(expected)].tolist()) == expected
    first = order[: len(expected)]
    assert (np.diff(loss[first]) >= 0).all(), "of as good a place the more probable comes first"


def test_means_of_the_last_tokens():
    tokens = Ragged(np.array([1, 2, 3, 4, 5, 6], np.float32), np.array([0, 2, 2, 6]))
    assert last_means(tokens, np.array([1, 0, 4])).tolist() == [2, UNREAD, 4.5]
    assert last_means(tokens, np.array([0, 0, 0])).tolist() == [UNREAD] * 3


def test_what_comes_before_the_last_answer():
    rows = [{"messages": chat("a", "b", "c", answer)} for answer in ("x", "y")]
    rows.append({"messages": chat("a", "x")})
    keys = [before_last_answer(sample) for sample in dp.load_samples(rows)]
    assert keys[0] == keys[1] != keys[2]
    assert before_last_answer(dp.load_samples([{"text": "alone"}])[0]) == ""


ROWS = [
    {"messages": chat("why?", "so", f"what is {prompt}?", answer)}
    for prompt, answer in [
        ("x", "five"),
        ("y", "the sum of two"),
        ("x", "a list"),
        ("x", "three is five and five"),
        ("y", "sorts"),
        ("z", "你好"),
    ]
]


def test_a_run_keeps_what_transformers_finds_most_probable(tiny_llama):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = (of.from_pretrained(tiny_llama) for of in (AutoModelForCausalLM, AutoTokenizer))
    losses = []
    for row in ROWS:
        whole, start = (
            tokenizer.apply_chat_template(
                row["messages"][:stop], tokenize=False, add_generation_prompt=stop < 4
            )
            for stop in (4, 3)
        )
        ids, before = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (whole, start))
        with torch.inference_mode():
            chances = model.eval()(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        losses.append(-np.mean([float(chances[at - 1, ids[at]]) for at in range(len(before), len(ids))]))
    told = {"model": str(tiny_llama), "progress": False}
    kept = dp.prune(ROWS, scorer="best_of_prompt", keep=3, **told)
    np.testing.assert_allclose(
        kept.scores.rankings["best_of_prompt"].columns["answer_log_ppl"], losses, rtol=1e-5
    )
    best = [min(of, key=losses.__getitem__) for of in ([0, 2, 3], [1, 4], [5])]
    assert kept.indices.tolist() == sorted(best)
    for more in ({}, {"last_turn_only": True}):
        cleaned = dp.clean(ROWS, dedup=False, cleaning=["best_of_prompt"], **told, **more)
        assert cleaned.indices.tolist() == sorted(best)
    dropped = next(row for row in (0, 2, 3) if row != best[0])
    assert f"row {best[0]}, another answer to the same prompt" in cleaned.reason(dropped)
    two = dp.clean(ROWS, dedup=False, cleaning=[{"best_of_prompt": {"m": 2}}], **told)
    assert len(two) == 5
    always = dp.clean(ROWS, dedup=False, cleaning=["best_of_prompt"], always_keep=[dropped], **told)
    assert dropped in always.indices
    assert best[0] not in always.indices


def test_short_steps_are_those_of_a_loop(tiny_llama):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = (of.from_pretrained(tiny_llama) for of in (AutoModelForCausalLM, AutoTokenizer))
    window, losses = 5, []
    for row in ROWS:
        whole, start = (
            tokenizer.apply_chat_template(
                row["messages"][:stop], tokenize=False, add_generation_prompt=stop < 4
            )
            for stop in (4, 3)
        )
        ids, before = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (whole, start))
        means = []
        for first in range(len(before), len(ids), window):
            piece = ids[first - window : first + window]
            with torch.inference_mode():
                chances = model.eval()(torch.tensor([piece])).logits[0].double().log_softmax(-1)
            means.append(-np.mean([float(chances[at - 1, piece[at]]) for at in range(window, len(piece))]))
        losses.append(np.mean(means))
    told = {"model": str(tiny_llama), "progress": False}
    scorer = BestOfPrompt(window=window)
    found = dp.score(ROWS, scorers=scorer, **told).rankings["best_of_prompt"]
    np.testing.assert_allclose(found.columns["answer_log_ppl"], losses, rtol=1e-5)
    best = [min(of, key=losses.__getitem__) for of in ([0, 2, 3], [1, 4], [5])]
    step = [{"best_of_prompt": {"window": window}}]
    assert dp.clean(ROWS, dedup=False, cleaning=step, **told).indices.tolist() == sorted(best)
    with pytest.raises(dp.DataPrunerError, match="window is a number of tokens, 2 or more"):
        BestOfPrompt(window=1)
