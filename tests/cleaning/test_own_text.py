"""What of a row's text is its own."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import datapruner as dp
from datapruner.cleaning.own_text import OwnText, Shared, find_shared
from datapruner.samples import load_samples

GUIDE = (
    "You answer for the harbour office. Give the berth and the hour of high water. Never guess a depth. If a "
    "skipper asks for fuel, name the pier and the opening hours; if one asks for a pilot, name the channel."
)
LICENCE = "\n".join(
    [
        "# Copyright (c) the authors of the tide tables.",
        "# Licensed under the terms that come with this file; you may not use it otherwise.",
        "# It is given as it is, without a warranty of any kind, express or implied.",
    ]
)
TOOLS = json.dumps(
    [
        {
            "name": name,
            "description": f"Look up the {name} of a ship in the register of the port",
            "parameters": {},
        }
        for name in ("berth", "draught", "flag", "cargo")
    ]
)
QUESTIONS = {
    "When may I enter with two metres?": "From ten to three, on the flood.",
    "Where is the fuel pier please?": "On the north mole behind the crane.",
    "Who takes me through the narrows?": "Call the pilots on channel eleven.",
    "Is there a laundry for crews?": "Yes, beside the showers in shed four.",
    "How long may a guest stay?": "Seven nights, longer if asked before.",
    "Can a trailer be left over winter?": "Only on the gravel field by the road.",
}
THAI = "คุณเป็นผู้ช่วยของสำนักงานท่าเรือโปรดตอบอย่างสุภาพและบอกเวลาน้ำขึ้นเสมอ"
THAI_ASKED = ["เรือเข้าได้กี่โมง", "ปั๊มน้ำมันอยู่ที่ไหน", "ค่าจอดเรือเท่าไร", "มีห้องอาบน้ำไหม"]


def texts(rows, **options):
    return list(OwnText(load_samples(rows), **options).texts("both"))


def test_system_turns_stay_out_and_an_option_puts_them_in():
    turn = {"role": "system", "content": GUIDE}
    rows = [
        {
            "messages": [
                turn,
                {"role": "user", "content": asked},
                {"role": "assistant", "content": said},
            ]
        }
        for asked, said in QUESTIONS.items()
    ]
    assert texts(rows) == ["\n".join(pair) for pair in QUESTIONS.items()]
    assert texts(rows, whole=True) == ["\n".join((GUIDE, *pair)) for pair in QUESTIONS.items()]
    assert len(dp.prune(rows, scorer="random", keep=1.0, dedup=True)) == len(rows)
    whole = dp.prune(rows, scorer="random", keep=1.0, dedup=True, near_threshold=0.5, similarity_context=True)
    assert len(whole) == 1
    assert texts([{"messages": [turn]}, *rows])[0] == GUIDE


@pytest.mark.parametrize("block", [GUIDE, LICENCE, TOOLS], ids=["guide", "licence", "tools"])
@pytest.mark.parametrize("place", ["before", "after", "between"])
def test_a_block_that_many_rows_share_is_left_out_and_told(block, place, caplog):
    form = {
        "before": "{block}\n\n{asked}",
        "after": "{asked}\n\n{block}",
        "between": "Hi!\n{block}\n{asked}",
    }[place]
    rows = [
        {"prompt": form.format(block=block, asked=asked), "completion": said}
        for asked, said in QUESTIONS.items()
    ]
    for own, (asked, said) in zip(texts(rows), QUESTIONS.items(), strict=True):
        assert asked in own
        assert said in own
        assert block[20:60] not in own
    with caplog.at_level("WARNING"):
        assert len(dp.prune(rows, scorer="random", keep=1.0, dedup=True, near_threshold=0.5)) == len(rows)
    told = caplog.messages[-1]
    assert told.startswith("6 of 6 rows hold words that many share")
    assert "similarity_context=True compares them whole" in told


def test_a_block_without_spaces_between_its_words():
    rows = [{"text": f"{THAI} {asked}"} for asked in THAI_ASKED]
    assert texts(rows) == THAI_ASKED


def test_a_template_with_a_blank_filled_in_keeps_its_text_and_so_do_copies():
    copies = [
        f"The ferry of {day} leaves at {hour} from the old quay and carries mail, milk and up to thirty guests."
        for day, hour in [("Monday", 9), ("Tuesday", 10), ("Friday", 11), ("Sunday", 12), ("Monday", 9)]
    ]
    assert texts([{"text": text} for text in copies]) == copies
    assert len(dp.prune([{"text": text} for text in copies], scorer="random", keep=1.0, dedup=True)) < 5


def test_a_short_lead_stays():
    rows = [
        {"prompt": f"Classify the following: {asked}", "completion": said}
        for asked, said in QUESTIONS.items()
    ]
    assert texts(rows) == texts(rows, whole=True)


def test_a_leak_behind_a_shared_block_is_found(tmp_path):
    rows = [
        {"prompt": f"{GUIDE} {asked} And what does it cost?", "completion": said}
        for asked, said in QUESTIONS.items()
    ]
    test = tmp_path / "test.jsonl"
    test.write_text(json.dumps({"prompt": rows[2]["prompt"], "completion": ""}))
    selection = dp.prune(rows, scorer="random", keep=1.0, decontaminate=str(test))
    assert [row for row in range(len(rows)) if not selection.kept[row]] == [2]


def test_few_rows_share_nothing():
    assert not find_shared([f"{GUIDE} {asked}" for asked in list(QUESTIONS)[:3]]).grams.size
    assert not find_shared([GUIDE] * 100).grams.size
    many = [f"{number} " + " ".join(f"w{number}_{place}" for place in range(20)) for number in range(100)]
    assert find_shared([*many, *(f"{GUIDE} {asked}" for asked in QUESTIONS)]).rows == 0


@given(st.lists(st.text("ab \nก", max_size=40), max_size=12), st.booleans())
def test_no_row_is_left_without_text(found, padded):
    block = "one two three four five six seven eight nine"
    given_texts = [f"{block} {text}" if padded else text for text in found]
    shared = find_shared(given_texts)
    assert isinstance(shared, Shared)
    own = list(shared.leave_out(given_texts))
    assert [bool(text.strip()) for text in own] == [bool(text.strip()) for text in given_texts]
    for text, whole in zip(own, given_texts, strict=True):
        assert set(text.split()) <= set(whole.split()) or "ก" in whole


def test_blocks_of_texts_give_what_each_gives_alone(monkeypatch):
    rows = [f"{GUIDE}\n{asked} {said}" for asked, said in QUESTIONS.items()] + ["", "alone"]
    shared = find_shared(rows)
    alone = [next(shared.leave_out([text])) for text in rows]
    assert list(shared.leave_out(rows)) == alone
    monkeypatch.setattr("datapruner.cleaning.own_text.BLOCK", 3)
    assert list(shared.leave_out(rows)) == alone
    assert alone[-2:] == ["", "alone"]


def test_a_large_source_is_looked_at_in_part(monkeypatch, caplog):
    monkeypatch.setattr("datapruner.cleaning.own_text.SAMPLED", 40)
    rng = np.random.default_rng(3)
    rows = [
        {"text": (GUIDE + " ") * bool(number % 2) + " ".join(rng.choice([f"w{i}" for i in range(500)], 12))}
        for number in range(200)
    ]
    own = OwnText(load_samples(rows))
    assert all(GUIDE[:50] not in text for text in own.texts("both"))
    assert own.shared.looked_at == 40
    assert " of 40 rows looked at hold" in caplog.messages[0]


def test_a_step_that_takes_much_is_told_with_a_pair(caplog):
    said = "On {} the boats of the north go out before sunrise and come back with herring, so that the market is full"
    rows = [{"text": said.format(day)} for day in ("Monday", "Tuesday", "Friday\x1b[31m", "Sunday")]
    rows += [{"text": " ".join(f"v{number}x{place}" for place in range(9))} for number in range(4)]
    dp.prune(rows, scorer="random", keep=1, dedup=True)
    (told,) = [text for text in caplog.messages if "are dropped" in text]
    assert told == (
        "near duplicate: 3 of 8 rows are dropped, 3 of them for row 0; raise near_threshold= if these are different "
        f"rows\n  row 1: {said.format('Tuesday')[:99]}…\n  row 0: {said.format('Monday')[:99]}…"
    )
    caplog.clear()
    dp.prune(rows[1:3] + rows[4:] * 2, scorer="random", keep=1, dedup=True)
    assert not [text for text in caplog.messages if "near duplicate:" in text]
    assert "exact duplicate: 4 of 10 rows are dropped, 1 of them for row 2" in caplog.text


def test_near_duplicates_that_differ_in_numbers_alone_are_told(caplog):
    said = "A farmer packs {} crates with {} pears each and drives them to the town in the morning, how many pears does"
    said += (
        " she bring to the people there before the bell rings at noon and the stalls are closed for the day?"
    )
    rows = [{"question": said.format(3 + place, 12), "answer": str(12 * (3 + place))} for place in range(3)]
    rows += [{"question": said.format(3, 12).replace("farmer", "grower"), "answer": "36"}]
    rows += [{"question": f"word{place} " * 5, "answer": "x"} for place in range(12)]
    selection = dp.prune(rows, scorer="random", keep=1.0, dedup=True)
    assert selection.counts()["near_duplicate"] == 3
    assert (
        "2 of 3 near duplicates differ from the row that stays in their numbers alone, row 1 first"
        in caplog.text
    )
    apart = dp.prune(rows, scorer="random", keep=1.0, dedup=True, near_numbers=True)
    assert [row for row in range(len(rows)) if not apart.kept[row]] == [3]
