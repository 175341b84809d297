"""What all rules promise: hostile and long texts take little time, protected rows stay, names and parameters reach."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import datapruner as dp
from datapruner.cleaning.stage import make_step
from datapruner.cleaning.step import checked
from datapruner.cleaning.steps.rules import NAMES, Rules
from datapruner.errors import DataPrunerError
from tests.cleaning.steps.rules import HOSTILE, asked, hits, left
from tests.conftest import command

PLAIN = [
    asked(f"Number {n} is a plain answer, and it ends as one ends.", f"Say number {n}.") for n in range(30)
]
REFUSAL = asked("I'm sorry, but I can't help with that.")
STUCK = asked("and so it goes " * 30)


@pytest.mark.parametrize("name", NAMES)
def test_hostile_texts_take_little_time(name):
    import time

    rows = [asked(text, text[::-1]) for text in HOSTILE]
    step = make_step(name, {"drop": True} if name == "personal_data" else None)
    step.clean(left(PLAIN))  # loads what it needs
    start = time.process_time()
    step.clean(left(rows))
    assert time.process_time() - start < 4


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=80), st.text(max_size=200)), min_size=1, max_size=6))
def test_whatever_a_text_holds_is_judged(pairs):
    given = left([{"prompt": prompt, "response": response} for prompt, response in pairs])
    for name in NAMES:
        step = make_step(name, {"drop": True} if name == "personal_data" else None)
        checked(step, given, step.clean(given))


def test_plain_rows_stay_and_protected_rows_too():
    rows = [*PLAIN, REFUSAL, STUCK]
    assert hits("rules", rows) == {30: "refused", 31: "repeats_itself"}
    found = Rules().clean(left(rows, protected=[30]))
    assert [vetoes.rows.tolist() for vetoes in found] == [[31]]


def test_a_row_is_dropped_once_for_the_surest_reason():
    echo = "and so it goes " * 30
    assert hits("rules", [*PLAIN, asked(echo, echo)]) == {30: "echoes_prompt"}


def test_rules_can_be_left_out():
    assert hits("rules", [*PLAIN, REFUSAL, STUCK], without=["refused"]) == {31: "repeats_itself"}
    with pytest.raises(DataPrunerError, match=r"no rule 'refusd' to leave out\. Did you mean 'refused'"):
        Rules(["refusd"])


def test_they_are_named_in_python_and_on_the_command_line(tmp_path, monkeypatch, cache, caplog):
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*PLAIN, REFUSAL, STUCK]))
    with caplog.at_level(logging.WARNING):
        cleaned = dp.clean(
            "rows.jsonl", cleaning=[{"repeats_itself": {"share": 0.4}}, "refused"], progress=False
        )
    assert cleaned.counts() == {"kept": 30, "refused": 1, "repeats_itself": 1}
    assert "1 of 32 rows were dropped as answers that repeat themselves, row 31 first" in caplog.text
    words = ["rows.jsonl", "--scorer", "random", "--keep", "1.0", "-q"]
    assert command(monkeypatch, "prune", *words, "--cleaning", "rules", "--out", "out") == 0
    assert dp.load_selection("out").counts() == {"kept": 30, "refused": 1, "repeats_itself": 1}
    assert "| dropped as refusals | 1 |" in Path("out", "README.md").read_text()


def test_personal_data_is_counted_in_every_result(tmp_path, monkeypatch, cache, capsys):
    monkeypatch.chdir(tmp_path)
    secret, other = "maria.keller@posteo-mail.de", "91.198.174.192"
    rows = [*PLAIN, asked(f"Write to {secret} or {secret}."), asked(f"Ask {other} and {secret}."), REFUSAL]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["rows.jsonl", "--scorer", "random", "--keep", "1.0", "--cleaning", "rules", "--report"]
    assert command(monkeypatch, "prune", *words, "--out", "out") == 0
    counted = {"rows with an e-mail address": 2, "rows with an IP address": 1}
    shown = capsys.readouterr()
    assert "2  counted, not dropped: rows with an e-mail address" in shown.out
    card, page = Path("out", "README.md").read_text(), Path("out", "report.html").read_text()
    assert "| counted, not dropped: rows with an IP address | 1 |" in card
    assert "rows with an e-mail address (2) and rows with an IP address (1)" in page
    assert dp.load_selection("out").summary.counted == counted
    assert "rows with an IP address" in dp.load_selection("out").summary._repr_html_()
    scores = dp.score("rows.jsonl", scorers=["random"], cleaning=["rules"], progress=False)
    scores.save("scores")
    assert dp.load_scores("scores").summary.counted == scores.summary.counted == counted
    for told in (shown.out, shown.err, card):
        assert secret not in told
        assert other not in told
    cleaned = dp.clean("rows.jsonl", cleaning=[{"personal_data": {"drop": True}}], progress=False)
    assert cleaned.counts() == {"kept": 31, "personal_data": 2}
    assert not cleaned.summary.counted
