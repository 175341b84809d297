"""Answers that end where none does go; whole ones stay, and where ends say nothing nothing goes."""

from __future__ import annotations

import numpy as np
import pytest

from datapruner.cleaning.own_text import OwnText
from datapruner.cleaning.step import Remaining
from datapruner.cleaning.steps.unfinished_answer import UnfinishedAnswer
from datapruner.cleaning.vetoes import Vetoes
from datapruner.errors import DataPrunerError
from datapruner.models import load_causal_lm
from datapruner.progress import PASSES
from datapruner.ragged import Ragged
from datapruner.recipe import Recipe
from datapruner.samples import load_samples
from datapruner.samples.sample import Message, Sample
from datapruner.signals.language_model import LanguageModel, measure_language_model
from datapruner.signals.language_model.answer_ends import Cut, cut_off, end_surprise
from datapruner.signals.losses import tokenizer_of
from datapruner.signals.measurements import ends as module
from datapruner.signals.measurements.ends import Ends
from datapruner.signals.run import Fed, Run
from datapruner.signals.store import SignalStore
from datapruner.signals.tokens import stored_counts

N = 2000


def cleaned(own: np.ndarray, cut: np.ndarray, protected: np.ndarray | None = None) -> Vetoes:
    samples = load_samples([{"prompt": f"{row}?", "response": "So it is."} for row in range(len(own))])
    keep = np.zeros(len(own), dtype=np.bool_) if protected is None else protected
    signals = {"end_surprise": own, "cut_end_surprise": cut}
    left = Remaining(samples, np.arange(len(own)), keep, OwnText(samples, False), signals)
    return UnfinishedAnswer().clean(left)


def drawn(share: float, apart: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Surprises of ends, of 200 that were cut off, and which of the first are."""
    rng = np.random.default_rng(0)
    broken = rng.random(N) < share
    own = rng.normal(size=N) + apart * broken
    cut = np.zeros(N)
    cut[rng.permutation(N)[:200]] = rng.normal(size=200) + apart
    return own, cut, broken


def test_what_ends_as_cut_answers_do_goes() -> None:
    own, cut, broken = drawn(0.03, 5)
    found = cleaned(own, cut)
    assert broken[found.rows].mean() >= 0.85
    assert np.isin(np.flatnonzero(broken), found.rows).mean() > 0.6
    assert (
        "nats less expected than its other words are; half of all rows have 0.0 or less" in found.reasons()[0]
    )


def test_whole_answers_stay_and_so_do_protected_ones() -> None:
    assert not len(cleaned(*drawn(0, 5)[:2]))
    own, cut, broken = drawn(0.03, 5)
    assert not len(cleaned(own, cut, broken | (own > 3)))


def test_where_ends_say_nothing_nothing_goes() -> None:
    """A model that knows no end of a turn, and rows whose ends were not read."""
    assert not len(cleaned(*drawn(0.03, 0)[:2]))
    own, cut, _ = drawn(0.03, 5)
    assert not len(cleaned(np.zeros(N), cut))
    assert not len(cleaned(own, np.zeros(N)))


@pytest.mark.parametrize("fdr", [0.0, 1.0])
def test_a_rate_that_is_none_is_refused(fdr: float) -> None:
    with pytest.raises(DataPrunerError, match="above 0 and below 1"):
        UnfinishedAnswer(fdr=fdr)


def test_the_end_is_the_less_expected_of_the_last_two_tokens() -> None:
    rows = [[1.0, 2.0, 6.0, 0.0], [1.0, 3.0], [4.0], [], [0.0, 0.0, 9.0]]
    expected = [6 - 9 / 4, 3 - 2, 0, 0, 9 - 3]
    np.testing.assert_allclose(end_surprise(Ragged.from_rows(rows)), expected, rtol=1e-6)


def row(*turns: tuple[str, str], **fields: object) -> Sample:
    messages = [Message(role, text) for role, text in turns]
    messages[-1] = Message(*turns[-1], fields=dict(fields))
    return Sample(tuple(messages))


def test_the_last_answer_is_cut_between_two_words() -> None:
    rng = np.random.default_rng(0)
    asked, first, last = (
        ("user", "Why?"),
        ("assistant", "Since it rains."),
        ("assistant", " One two\nthree  four. "),
    )
    seen = set()
    for _ in range(60):
        short = cut_off(row(asked, first, asked, last), rng)
        assert short is not None
        assert [turn.content for turn in short.messages[:3]] == ["Why?", "Since it rains.", "Why?"]
        seen.add(short.messages[3].content)
    assert seen == {" One", " One two", " One two\nthree"}
    inside = cut_off(row(asked, ("assistant", "東京です。")), rng)
    assert inside is not None
    assert "東京です。".startswith(inside.messages[1].content)
    assert 0 < len(inside.messages[1].content) < 5


@pytest.mark.parametrize(
    "sample",
    [
        row(("user", "Why?"), ("assistant", "No.")),
        row(("user", "Why?"), ("assistant", " ")),
        row(("user", "Why?")),
        row(("user", "Why?"), ("assistant", "I look it up, wait."), tool_calls=[{"name": "f"}]),
        row(("user", "Why?"), ("assistant", "one two three four"), content=[{"type": "text"}]),
        Sample((Message("assistant", "one two three four five"),), plain=True),
        Sample((Message("user", "Why?"), Message("assistant", "one two three four", trained=False))),
    ],
)
def test_what_cannot_be_cut(sample: Sample) -> None:
    assert cut_off(sample, np.random.default_rng(0)) is None


def test_some_rows_are_read_again_cut_off(tiny_llama, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against passes over the same rows and over rows that were cut by hand; one is longer than is read."""
    monkeypatch.setattr(module, "TRIED", 3)
    reader = LanguageModel(*load_causal_lm(str(tiny_llama), device="cpu"), max_length=96)
    rows = [
        {"question": f"{row} or {row + 1}?", "answer": f"It is {row}, and then {row + 1}."}
        for row in range(6)
    ]
    rows[2]["answer"] = "word " * 60
    samples = load_samples(rows)
    store = SignalStore(tmp_path)
    every = np.arange(len(rows))
    counts = stored_counts(samples, tokenizer_of(reader), store, last_turn_only=False, max_length=96)
    run = Run(Recipe(seed=5), samples, store, OwnText(samples, False), None, every, progress=False)  # type: ignore[arg-type]
    run.fed = Fed(reader, counts)
    run.signals = measure_language_model(samples, every, reader, store, progress=False)
    found = Ends().measure(run, frozenset({"end_surprise", "cut_end_surprise"}))
    own, cut = found["end_surprise"], found["cut_end_surprise"]
    assert np.flatnonzero(own == 0).tolist() == [2]
    tried = np.flatnonzero(cut)
    assert len(tried) == 3
    assert 2 not in tried
    rng = np.random.default_rng(5)
    order = rng.permutation([0, 1, 3, 4, 5])[:3].tolist()
    by_hand = [cut_off(samples[place], rng) for place in order]
    assert sorted(order) == tried.tolist()
    again = load_samples(
        [{"question": one.messages[0].content, "answer": one.messages[1].content} for one in by_hand if one]
    )
    nll = measure_language_model(again, np.arange(3), reader, SignalStore(tmp_path / "other"), progress=False)
    np.testing.assert_allclose(cut[order], end_surprise(nll["token_nll"]), rtol=1e-5)
    assert "cut_end_surprise" not in Ends().measure(run, frozenset({"end_surprise"}))
    assert [(one.name, one.rows) for one in Ends().passes(run)] == [(PASSES["row"], 3)]
    assert [one.messages[0].content for one in Cut([samples[4], samples[1]]).iter_samples(np.array([1]))] == [
        "1 or 2?"
    ]
