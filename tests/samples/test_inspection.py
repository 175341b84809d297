from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given
from hypothesis import strategies as st

from datapruner.samples import inspect_samples, load_samples, render_text
from datapruner.text import did_you_mean, normalise, safe_text

UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
ANY = st.text(st.characters(exclude_categories=()))


@given(ANY, st.none() | st.integers(0, 40))
def test_safe_text_is_safe(text, limit):
    shown = safe_text(text, limit)
    assert not any(unicodedata.category(character) in UNSAFE for character in shown)
    shown.encode("utf-8")
    whole = safe_text(text)
    if limit is None or len(whole) <= limit:
        assert shown == whole
    else:
        assert len(shown) <= limit
        assert whole.startswith(shown.removesuffix("…"))
        assert not limit or shown.endswith("…")


def test_safe_text_examples():
    assert safe_text("\x1b[31mred\x1b[0m") == "\\x1b[31mred\\x1b[0m"
    assert safe_text("a\u202eb\u200bc\ud800\x9b") == "a\\u202eb\\u200bc\\ud800\\x9b"
    assert safe_text("a\nb\tc\u2028") == "a⏎b\\tc\\u2028"
    assert safe_text("naïve 😀 日本") == "naïve 😀 日本"
    assert safe_text("\U000e0041") == "\\U000e0041"
    assert safe_text("abc\x1bd", 5) == "abc…"
    assert safe_text("x" * 10_000_000, 5) == "xxxx…"


@given(ANY)
def test_normalise_is_stable(text):
    once = normalise(text)
    assert normalise(once) == once
    assert once == normalise(text.upper().lower()) or not text.isascii()


def test_normalise_examples():
    assert normalise("  A\n\tb  C ") == "a b c"
    assert normalise("STRASSE") == normalise("straße")
    assert normalise("e\u0301") == normalise("É") == "é"
    assert normalise("5² ½ \uff21") == "5² ½ \uff41"


def test_normalise_is_stable_for_every_character():
    # With a mark below and a space around: composition and folding must have nothing left to do.
    for code in range(0x110000):
        if 0x3400 <= code < 0xA000 or 0xAC00 <= code < 0xD7A4 or code >= 0x20000:
            continue
        once = normalise(f"a {chr(code)}\u0345\u0301 b")
        assert normalise(once) == once, hex(code)


def test_did_you_mean():
    assert did_you_mean("anser", ["question", "Answer"]) == " Did you mean 'Answer'?"
    assert did_you_mean("zzz", ["question"]) == ""
    assert did_you_mean("x", []) == ""


def make():
    rows = [
        {"question": "q " * i, "answer": "a" * (i % 7), "note": None if i % 3 else "n"} for i in range(100)
    ]
    rows += [{"question": "q\nq", "answer": "aa", "note": "dup"}]
    return rows


def test_findings_against_numpy():
    rows = make()
    data = DatasetDict(train=Dataset.from_list(rows), test=Dataset.from_list(rows[:4]))
    found = inspect_samples(load_samples(data), examples=2)
    lengths = [len(row["question"]) for row in rows]
    expected = [np.percentile(lengths, q, method="inverted_cdf") for q in (5, 50, 95, 100)]
    assert list(found.lengths["prompt characters"]) == expected
    words = [len(row["question"].split()) for row in rows]
    assert found.lengths["prompt words"][-1] == max(words)
    assert found.rows == 101
    assert found.other_splits == {"test": 4}
    assert found.nulls == {"question": 0, "answer": 0, "note": sum(row["note"] is None for row in rows)}
    assert found.empty_responses == sum(not row["answer"] for row in rows)
    distinct = {" ".join(f"{row['question']}\n{row['answer']}".lower().split()) for row in rows}
    assert found.exact_duplicates == len(rows) - len(distinct) > 0
    assert [example.part("both") for example in found.examples] == ["\n", "q \na"]


@pytest.mark.parametrize("width", [10, 60, 100])
def test_text_is_neat_and_harmless(width):
    hostile = "\x1b]0;owned\x07\u202etxt " + "word " * 200
    rows = [
        {"messages": [{"role": "user", "content": hostile}, {"role": "assistant", "content": ""}], hostile: 1}
    ]
    text = render_text(inspect_samples(load_samples(rows)), width=width)
    lines = text.split("\n")
    assert all(len(line) <= max(width, 40) for line in lines)
    assert all(line == line.rstrip() for line in lines)
    assert not any(unicodedata.category(c) in UNSAFE for line in lines for c in line)
    assert "\\x1b]0;owned" in text
    assert "(empty)" in text
    assert "empty responses   1" in text


def test_sources_without_text():
    found = inspect_samples(load_samples([{"embedding": [0.1, 0.2]}]))
    assert (found.examples, found.lengths, found.layout) == ([], {}, "embedding")
    assert "embedding = embedding" in render_text(found)
    found = inspect_samples(load_samples([{"text": "a"}]))
    assert "row 0 (plain text)\n  text       a\n" in render_text(found)
    many = load_samples([{f"c{i}": "x" for i in range(100)} | {"text": "t"}])
    assert "and 61 more" in render_text(inspect_samples(many))
