"""Planted noise is found, good rows stay, and a set without noise loses next to nothing."""

from __future__ import annotations

from collections import Counter
from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from datapruner.cleaning.own_text import OwnText
from datapruner.cleaning.step import Remaining
from datapruner.cleaning.steps.unfit_answer import UnfitAnswer
from datapruner.cleaning.stray_numbers import ends
from datapruner.cleaning.vetoes import Vetoes
from datapruner.cleaning.word_order import FOLDS, word_orders
from datapruner.errors import DataPrunerError
from datapruner.samples import load_samples

ROWS = 900
NAMES = [
    f"{first}{last}" for first in "BCDFGHKLMNPRSTV" for last in ("ana", "olo", "iri", "esa", "umo", "ari")
]
THINGS = ["apples", "tickets", "stamps", "marbles", "books", "coins", "shells", "cards", "pens", "kites"]


@cache
def made() -> tuple[list[dict[str, str]], np.ndarray, np.ndarray]:
    """Small sums in words, and vectors in which a prompt and its answer are near each other."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(ROWS):
        who, other = rng.choice(NAMES, 2, replace=False)
        what, (first, second) = rng.choice(THINGS), rng.integers(11, 500, 2)
        rows.append(
            {
                "prompt": f"{who} has {first} {what} and {other} brings {second} more. How many are there now?",
                "response": f"At first {who} had {first} {what}. Then {other} came with {second} more of them, so "
                f"there are {first} + {second} = {first + second} {what} in all. The answer is {first + second}",
            }
        )
    own = rng.normal(size=(ROWS, 24))
    noise = rng.normal(size=(2, ROWS, 24))
    return rows, (own + 0.5 * noise[0]).astype(np.float32), (own + 0.5 * noise[1]).astype(np.float32)


def planted() -> tuple[list[dict[str, str]], np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    rows, asked, said = made()
    rows, said = [dict(row) for row in rows], said.copy()
    rng = np.random.default_rng(1)
    order = rng.permutation(ROWS)
    kinds = {
        "mismatched_answer": order[:60],
        "shuffled_answer": order[60:120],
        "stray_number": order[120:160],
    }
    taken = np.roll(kinds["mismatched_answer"], 1)
    answers = [rows[row]["response"] for row in taken.tolist()]
    for row, answer in zip(kinds["mismatched_answer"].tolist(), answers, strict=True):
        rows[row]["response"] = answer
    said[kinds["mismatched_answer"]] = said[taken]
    for row in kinds["shuffled_answer"].tolist():
        rows[row]["response"] = " ".join(rng.permutation(rows[row]["response"].split()))
    for row in kinds["stray_number"].tolist():
        rows[row]["response"] = rows[row]["response"].rsplit(" ", 1)[0] + f" {rng.integers(1001, 9999)}"
    return rows, asked, said, kinds


def cleaned(
    step: UnfitAnswer,
    rows: list[dict[str, str]],
    asked: np.ndarray,
    said: np.ndarray,
    protected: np.ndarray | None = None,
) -> dict[str, Vetoes]:
    samples = load_samples(rows)
    signals = {"prompt_embedding": asked, "response_embedding": said}
    keep = np.zeros(len(samples), dtype=np.bool_) if protected is None else protected
    left = Remaining(samples, np.arange(len(samples)), keep, OwnText(samples, False), signals)
    return {vetoes.kind: vetoes for vetoes in step.clean(left)}


def test_each_kind_is_found_and_told() -> None:
    rows, asked, said, kinds = planted()
    found = cleaned(UnfitAnswer(), rows, asked, said)
    for kind, of in kinds.items():
        assert np.isin(of, found[kind].rows).mean() > 0.5, kind
    dropped = np.concatenate([vetoes.rows for vetoes in found.values()])
    assert np.isin(dropped, np.concatenate(list(kinds.values()))).mean() > 0.85
    wrong = rows[int(found["stray_number"].rows[0])]["response"].rsplit(" ", 1)[1]
    assert f"ends in {wrong}," in found["stray_number"].reasons()[0]
    assert "half of all rows have 0% or less" in found["mismatched_answer"].reasons()[0]
    assert "standard deviations" in found["shuffled_answer"].reasons()[0]


@pytest.mark.slow
def test_good_rows_stay() -> None:
    found = cleaned(UnfitAnswer(), *made())
    assert sum(map(len, found.values())) <= 0.005 * ROWS


def test_a_part_can_be_left_out_and_protected_rows_stay() -> None:
    rows, asked, said, kinds = planted()
    only = UnfitAnswer(match=False, word_order=False)
    found = cleaned(only, rows, asked, said)
    assert set(found) == {"stray_number"}
    keep = np.zeros(ROWS, dtype=np.bool_)
    keep[kinds["stray_number"]] = True
    assert not cleaned(only, rows, asked, said, keep)


@pytest.mark.parametrize("fdr", [0.0, 1.0, -0.1])
def test_a_rate_that_is_none_is_refused(fdr: float) -> None:
    with pytest.raises(DataPrunerError, match="above 0 and below 1"):
        UnfitAnswer(fdr=fdr)


def test_shuffles_stand_to_shuffles_as_chance_has_it() -> None:
    """The value of a text in no order is standard normal, about: it is one more shuffle."""
    rows, *_ = made()
    orders = word_orders(row["response"] for row in rows)
    assert np.abs(np.median(orders.shuffled, axis=0)).max() < 0.2
    assert 0.8 < orders.shuffled[:, 0].std() < 1.4
    assert np.quantile(orders.own, 0.01) > np.quantile(orders.shuffled, 0.99)
    assert word_orders([]).words.shape == (0,)
    assert not word_orders(["", "one two"]).told.any()


def test_order_says_nothing_of_words_that_no_other_text_holds() -> None:
    """Rows in another language, say: their order is worth as little as shuffles of it, and they stay."""
    rows, asked, said, kinds = planted()
    rng = np.random.default_rng(2)
    alone = np.setdiff1d(np.arange(ROWS), np.concatenate(list(kinds.values())))[:60]
    for row in alone.tolist():
        letters = rng.choice(list("abcdefghijklmnopqrstuvwxyz"), size=(20, 7))
        rows[row]["response"] = " ".join("".join(word) for word in letters)
    found = cleaned(UnfitAnswer(match=False, numbers=False), rows, asked, said)["shuffled_answer"]
    assert np.isin(kinds["shuffled_answer"], found.rows).mean() > 0.5
    assert not np.isin(alone, found.rows).any()


def test_what_the_best_order_is_worth_is_that_of_every_two_words() -> None:
    texts = ["a b c d e", "c a d b", "e d c b a f", "a b a c", "b c", "d e f a b c a", "f a b c"] * 3
    orders = word_orders(texts)
    fold = np.random.default_rng(0).integers(FOLDS, size=len(texts))
    for place in (0, 2, 5, 10):
        words = texts[place].split()
        others = [text.split() for text, of in zip(texts, fold, strict=True) if of != fold[place]]
        pairs = Counter(pair for other in others for pair in pairwise(["<", *other, ">"]))
        held = Counter(word for other in others for word in other)
        held |= {"<": len(others), ">": len(others)}
        total = sum(map(len, others))
        worth = np.full((len(words) + 1, len(words) + 1), np.nan)
        for first, before in enumerate([*words, "<"]):
            for second, after in enumerate([*words, ">"]):
                if first != second:
                    common = (held[after] + 0.5) / (total + 1)
                    together = pairs[before, after] + 2 * common
                    worth[first, second] = np.log(together / (held[before] + 2) / common)
        best = (np.nanmax(worth, axis=1) - np.nanmean(worth)).sum()
        expected = best / np.nanstd(worth) / len(worth) ** 0.5
        assert orders.possible[place, 0] == pytest.approx(expected, rel=1e-9)
        assert orders.known[place, 0] == pytest.approx(np.mean([np.log1p(held[word]) for word in words]))


def test_a_last_number_that_was_there_before() -> None:
    prompt = "A dress costs 40 dollars and is 25 % off."
    known = [
        "40 * .25 = $10 off, 40 - 10 = 30\n#### 30",
        "40 * 0.25 = 10.00, and 40 - 10 = $30.00\n#### -30",
        "25 / 100 = 0.3\n#### 30",
        "40 * 50 = 2,000 and 2 000 is 2000 cents\n#### 2 000",
    ]
    found = ends([prompt] * 4, known)
    assert found.rows.tolist() == [0, 1, 2, 3]
    assert not found.stray.any()
    assert ends([prompt], [known[0].replace("#### 30", "#### 35")]).stray.all()
    assert not ends(
        [prompt], ["It was opened in 1912, 40 years before 1952 and 1999."]
    ).rows.size  # computes nothing
    assert not found.told  # too few rows
