"""A judge's grades are those of a plain loop of transformers; what cannot grade is refused in a sentence."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import datapruner as dp
from datapruner.errors import DataPrunerError
from datapruner.measuring.arguments import described
from datapruner.recipe import load_recipe, make_recipe
from datapruner.scorers import make_scorer
from datapruner.scorers.combined import Combined
from datapruner.scorers.judge import Judge
from datapruner.signals.grading import PROMPTS, Grading
from datapruner.signals.measurements.judge import tell_grades
from tests.conftest import save_tiny_llama

pytestmark = pytest.mark.usefixtures("one_thread", "cache")

ROWS = [
    {"prompt": f"what is {row} and {row % 5}?", "response": "five " * (row % 7) + str(row)}
    for row in range(12)
]
ASKED = "Is it good?\n{prompt}\n{response}\nSay 1 to 3: "
GRADES = ["1", "2", "3"]


def whole(row, text=ASKED):
    return text.replace("{prompt}", row["prompt"]).replace("{response}", row["response"])


def alone(folder, texts, grades=GRADES, cut=None):
    """Transformers itself: each row's probabilities of the grade tokens behind its prompt."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(folder).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    of = [tokenizer.convert_tokens_to_ids(grade) for grade in grades]
    found = []
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if cut is not None and len(ids) > cut:
            ids = ids[: cut - cut // 2] + ids[-(cut // 2) :]
        with torch.inference_mode():
            found.append(model(torch.tensor([ids])).logits[0, -1].double().softmax(-1)[of].numpy())
    return np.array(found)


def expected(chances, grades=(1, 2, 3)):
    return chances @ np.array(grades, dtype=float) / chances.sum(1)


def ranked(folder, scorer, rows=ROWS, **options):
    told = {"progress": False, "count_tokens": False, **options}
    return dp.score(rows, scorers=scorer, judge=str(folder), **told).rankings[scorer.name]


def test_grades_are_those_of_a_plain_loop(tiny_llama, caplog):
    found = ranked(tiny_llama, Judge(ASKED, GRADES, chat=False))
    chances = alone(tiny_llama, map(whole, ROWS))
    np.testing.assert_allclose(found.values, expected(chances), atol=1e-5)
    assert np.ptp(found.values) > 1e-2
    assert "of the judge's probability, on average" in caplog.text  # a random model says anything
    chat = ranked(tiny_llama, Judge(ASKED, [1, 2, 3], keep="low"))
    turns = [f"<|user|>{whole(row)}</s><|assistant|>" for row in ROWS]
    np.testing.assert_allclose(chat.values, -expected(alone(tiny_llama, turns)), atol=1e-5)


def test_two_questions_of_one_judge_are_joined(tiny_llama, monkeypatch):
    from datapruner.models import loading

    opened = []
    load = loading.load_causal_lm
    monkeypatch.setattr(loading, "load_causal_lm", lambda *of, **how: opened.append(of) or load(*of, **how))
    other = "How hard? {prompt} "
    both = Combined(
        [
            {"name": "judge", "parameters": {"prompt": text, "grades": GRADES, "chat": False}}
            for text in (ASKED, other)
        ],
        by="mean_rank",
    )
    found = ranked(tiny_llama, both)
    assert len(opened) == 1
    for label, text in (("judge", ASKED), ("judge_2", other)):
        chances = alone(tiny_llama, [whole(row, text) for row in ROWS])
        np.testing.assert_allclose(found.columns[f"{label}_score"], expected(chances), atol=1e-5)
    assert np.array_equal(ranked(tiny_llama, both).values, found.values)
    assert len(opened) == 1, "what is stored needs no judge"


def test_a_long_row_loses_its_middle_and_the_question_stays(tiny_llama, caplog):
    rows = [*ROWS[:3], {"prompt": "why? " * 60, "response": "so " * 60}]
    found = ranked(tiny_llama, Judge(ASKED, GRADES, chat=False), rows, judge_max_length=120)
    chances = alone(tiny_llama, map(whole, rows), cut=120)
    np.testing.assert_allclose(found.values, expected(chances), atol=1e-5)
    assert "judge: 1 of 4 rows are longer than the 120 tokens" in caplog.text


def test_documented_prompts_ask_for_what_they_name():
    row = {"prompt": "{row} 5", "response": "{prompt}"}  # a row's own braces are its text
    samples = dp.load_samples([row])
    quality = Grading.of("quality", ["1", "2"], chat=False)
    text = quality.filled(samples[0])
    assert "User:\n{row} 5\n\nAssistant:\n{prompt}\n---" in text
    assert Grading.from_signal(quality.signal) == quality
    text = Grading.of("complexity", ["1", "2"], chat=False).filled(samples[0])
    assert "--- request ---\n{row} 5\n---" in text
    assert set(PROMPTS) == {"quality", "complexity"}


def test_one_grade_for_nearly_all_is_told(caplog):
    sure = np.log(np.tile([0.01, 0.98, 0.01], (40, 1))).astype(np.float32)
    tell_grades(sure, Grading(ASKED, ("1", "2", "3")))
    assert "100 % of 40 rows get the grade '2'" in caplog.text
    caplog.clear()
    sure[::2] = sure[::2, [1, 0, 2]]
    tell_grades(sure, Grading(ASKED, ("1", "2", "3")))
    assert not caplog.text


def test_grades_without_numbers_count_from_the_worst_to_the_best():
    chances = np.array([[0.2, 0.1, 0.7], [0.05, 0.05, 0.1]])
    asked = Grading(ASKED, ("bad", "3", "good"))
    np.testing.assert_allclose(
        asked.expected(np.log(chances).astype(np.float32)), expected(chances), rtol=1e-6
    )
    assert Grading(ASKED, ("10", "0.5")).values.tolist() == [10, 0.5]


def test_what_cannot_grade_is_a_sentence(tiny_llama, tmp_path):
    for scorer, said in (
        (Judge(ASKED, ["1", "qq"], chat=False), "the grade 'qq' is not one token of the judge's"),
        (Judge(ASKED * 40, GRADES), "the grading prompt alone has"),
    ):
        with pytest.raises(DataPrunerError, match=said):
            ranked(tiny_llama, scorer)
    with pytest.raises(DataPrunerError, match=r"has no place for the row.*Did you mean 'quality'"):
        Judge("qualty")
    with pytest.raises(DataPrunerError, match="two or more different"):
        Judge(grades=[1, "1"])
    with pytest.raises(DataPrunerError, match=r"with (--)?judge"):
        dp.score(ROWS, scorers="judge", progress=False)
    with pytest.raises(DataPrunerError, match="no scorer of this run reads it"):
        dp.score(ROWS, scorers="length", judge=str(tiny_llama), progress=False)
    from transformers import AutoTokenizer

    folder = save_tiny_llama(tmp_path / "other")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["five"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(DataPrunerError, match="it is of another vocabulary"):
        ranked(folder, Judge(ASKED, GRADES))


def test_a_recipe_asks_the_same_again(tmp_path):
    asked = Judge('{row}: "good"?\n# so\n', ["no", "yes"], chat=False)
    scorer = Combined(["length", {"name": "judge", "parameters": asked.parameters()}])
    recipe = make_recipe(source="rows.jsonl", judge="./judge", scorers=[described(scorer)])
    (tmp_path / "recipe.yaml").write_text(recipe.save_yaml(tmp_path))
    (again,) = load_recipe(tmp_path / "recipe.yaml").scorers
    assert make_scorer(again.name, again.parameters) == scorer
