"""What a run says on the way."""

from __future__ import annotations

import json

import pytest

import datapruner as dp
from datapruner import progress
from datapruner.progress import Ahead, outlook
from tests.conftest import command


def test_the_estimate_is_of_all_passes_of_the_run():
    now, later = Ahead("language model", 2000, 120_000), [Ahead("responses alone", 1500, 60_000)]
    assert outlook(now, later, 100.0) == (
        "language model, 2,000 rows, 120,000 tokens: about 20 min; then responses alone, 1,500 rows, 60,000 tokens: "
        "about 10 min, at 100 tokens a second. All passes together: about 30 min. What is done is kept if you stop it."
    )
    # Two models read a token in twice the time of one.
    assert "dense and pruned model, 10 rows, 6,000 tokens: about 2 min" in outlook(
        Ahead("dense model", 10, 6000), [Ahead("dense and pruned model", 10, 6000, 2)], 100.0
    )
    assert outlook(Ahead("a", 1, 5999), [], 100.0) == ""
    assert outlook(Ahead("a", 1, 5999), [Ahead("b", 1, 200)], 100.0) != ""  # both together are long


@pytest.fixture
def rows(tmp_path, cache, monkeypatch):
    monkeypatch.chdir(tmp_path)
    held = [{"question": f"q{n}?", "answer": f"a{n % 7} " * (n % 5 + 1)} for n in range(60)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held))
    return held


def test_every_pass_has_a_bar_with_its_name_and_later_ones_are_told(rows, tiny_llama, monkeypatch):
    clocks = []
    own = progress.Clock.__init__

    def init(self, name, count, *given, **options):
        clocks.append((name, count, [one.name for one in options["ahead"]]))
        own(self, name, count, *given, **options)

    monkeypatch.setattr(progress.Clock, "__init__", init)
    options = {"model": str(tiny_llama), "batch_tokens": 256, "progress": False}
    dp.score(rows, scorers="ifd", **options)
    assert clocks == [("language model", 60, ["responses alone"]), ("responses alone", 60, [])]
    clocks.clear()
    dp.score(rows, scorers=["paser", "ifd"], pruned_model=str(tiny_llama), embeddings=[[n % 7, 1] for n in range(60)],
             **options)  # fmt: skip
    both = "dense and pruned model"
    assert clocks == [(both, 60, [])]  # the responses are stored by now


def test_a_line_stands_before_a_silence_also_where_it_is_piped(rows, tiny_llama, monkeypatch, capsys):
    words = [
        "prune",
        "rows.jsonl",
        "--scorer",
        "perplexity",
        "--model",
        tiny_llama,
        "--keep",
        "5",
        "--batch-tokens",
        256,
    ]
    assert command(monkeypatch, *words, "-o", "one") == 0
    said = capsys.readouterr()
    assert said.err.splitlines()[:2] == [
        "reading rows.jsonl ...",
        f"loading the language model {tiny_llama} ...",
    ]
    assert "reading" not in said.out
    assert command(monkeypatch, *words, "-o", "two", "--quiet") == 0
    assert capsys.readouterr() == ("", "")
