"""Files of figures: the same text back, and nothing in them that a terminal or a spreadsheet acts on."""

from __future__ import annotations

import csv
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapruner.outputs.tables import write_csv, write_json
from datapruner.text import safe_text

HOSTILE = "a\x1b[2Jb\x07\x9b\u202e\u200b\u2028\x7f\r\n\tz\U000e0041é字"


def acted_on(text: str) -> set[str]:
    return {character for character in text if character not in "\n\t" and safe_text(character) != character}


@given(st.text(st.characters(codec="utf-8")))
def test_json_says_what_it_was_given_without_control_characters(tmp_path_factory, text):
    file = tmp_path_factory.getbasetemp() / "one.json"
    for said in (text, HOSTILE):
        write_json(file, {said: [said, 1.5], "plain": "é字"})
        written = file.read_bytes().decode()
        assert json.loads(written) == {said: [said, 1.5], "plain": "é字"}
        assert acted_on(written) == set()
        assert "é字" in written


@pytest.mark.parametrize("text", [HOSTILE, "\x1b]0;title\x07", "=1+1\x1b", "plain é字", "two\nlines"])
def test_csv_has_no_control_characters_in_cells_or_heads(tmp_path, text):
    write_csv(tmp_path / "one.csv", ["name", text], [[text, 1.5], ["b", None]])
    written = (tmp_path / "one.csv").read_bytes().decode()
    assert acted_on(written) == set()
    head, first, second = csv.reader(written.splitlines(keepends=True))
    assert len(head) == len(first) == len(second) == 2
    if text.isprintable() or text == "two\nlines":
        assert (head[1], first) == (text, [text, "1.5"])
    assert not first[0].startswith("=")


@pytest.mark.parametrize(
    "start", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"]
)
def test_texts_are_no_formulas_and_numbers_stay_numbers(tmp_path, start):
    write_csv(
        tmp_path / "table.csv", [f"{start}1+1", "n"], [[f"{start}cmd()", -1.5], ["a=b", -2], ["", None]]
    )
    with (tmp_path / "table.csv").open(encoding="utf-8", newline="") as handle:
        head, *rows = csv.reader(handle)
    assert head[0].startswith("'")
    assert rows[0][0].startswith("'")
    assert [row[1] for row in rows] == ["-1.5", "-2", ""]
    assert rows[1][0] == "a=b"
