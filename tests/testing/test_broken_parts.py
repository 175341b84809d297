"""Each check of the contract suite catches a part that breaks its promise, and says so."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from datapruner.cleaning.step import CleaningStep
from datapruner.cleaning.vetoes import drops
from datapruner.errors import DataPrunerError
from datapruner.ragged import Ragged
from datapruner.reasons import Reason
from datapruner.scorers.base import Ranking, Scorer
from datapruner.selection.selector import Choice, Selector, best_first, take
from datapruner.selection.selectors.eu_plane import EUPlaneSelector
from datapruner.selection.selectors.topk import TopK
from datapruner.signals import Signals
from datapruner.signals.by_rows import Block, RowMeasurement
from datapruner.signals.measurement import Given
from datapruner.testing import (
    CLEANING_CHECKS,
    MEASUREMENT_CHECKS,
    SCORER_CHECKS,
    SELECTOR_CHECKS,
    check_cleaning_step,
    check_measurement,
    check_scorer,
    check_selector,
    example_signals,
    parametrize_with_checks,
)
from datapruner.testing.suite import checks_of


@dataclass(frozen=True)
class Fair(Scorer):
    name: ClassVar[str] = "fair"
    needs: ClassVar[frozenset[str]] = frozenset({"embedding"})

    def _score(self, signals):
        from datapruner.geometry.blocks import iter_blocks, require_finite

        norms = []
        for start, _, block in iter_blocks(signals["embedding"]):
            require_finite(block, start, matrix=signals["embedding"])
            norms.append(np.linalg.norm(block, axis=1).astype(np.float64))
        return Ranking(np.concatenate(norms))


def scorer(score=Fair._score, **more):
    return dataclass(frozen=True)(type("Broken", (Fair,), {"_score": score, **more}))()


def counting():
    calls = [0]

    def score(self, signals):
        calls[0] += 1
        return Ranking(np.full(signals.num_rows, float(calls[0])))

    return score


def mutating(self, signals):
    signals["embedding"][0] = 1
    return Ranking(np.ones(signals.num_rows))


def by_place(self, signals):
    return Ranking(np.arange(float(signals.num_rows)))


def by_second_row(self, signals):
    return Ranking(np.full(signals.num_rows, float(signals["embedding"][1, 0])))


@dataclass(frozen=True)
class Even(Selector):
    """As fair as can be."""

    name: ClassVar[str] = "even"

    def _select(self, ranking, portion, rng):
        kept = take(best_first(ranking.values[portion.rows]), portion.costs, np.array([portion.budget]))
        return Choice(kept, kept.astype(np.int64), ["dropped: as it came", "kept: as it came"])


def selector(choose=Even._select, **more):
    return dataclass(frozen=True)(type("Broken", (Even,), {"_select": choose, **more}))()


def one_too_few(self, ranking, portion, rng):
    """A selector that does not let its choice be checked."""
    return Even()._select(ranking, replace(portion, budget=portion.budget - 1), rng)


def one_too_many(self, ranking, portion, rng):
    return Even()._select(ranking, replace(portion, budget=portion.budget + 1), rng)


def turning(calls=None):
    """Every call another selector: as one that draws from a state of its own."""
    calls = [0]

    def own(self):
        calls[0] += 1
        return TopK() if calls[0] % 2 else selector(last_first)

    return own


def last_first(self, ranking, portion, rng):
    return Even()._select(replace(ranking, values=-ranking.values), portion, rng)


def mixed_up(self, ranking, portion, rng):
    choice = Even()._select(ranking, portion, rng)
    return replace(choice, codes=1 - choice.codes)


def masking(self, ranking, portion, rng):
    choice = Even()._select(ranking, portion, rng)
    every = [np.ones(int(length), np.bool_) for length in ranking.state["token_nll"].lengths[portion.rows]]
    return replace(choice, token_masks=Ragged.from_rows(every, np.bool_))


def drawing():
    own = np.random.default_rng()

    def select(self, ranking, portion, rng):
        return Even()._select(replace(ranking, values=own.random(len(ranking.values))), portion, rng)

    return select


def by_all_rows(self, ranking, portion, rng):
    apart = np.abs(ranking.values - ranking.values.mean())
    return Even()._select(replace(ranking, values=np.nan_to_num(apart)), portion, rng)


def by_second_place(self, ranking, portion, rng):
    ranking.values[portion.rows[1]]
    return Even()._select(ranking, portion, rng)


class Letters(RowMeasurement):
    """As fair as can be."""

    name: ClassVar[str] = "letters"
    gives: ClassVar[tuple[Given, ...]] = (Given("letters", "letters of a row", dtype="int64"),)

    def measure_rows(self, block):
        return np.array([len(text) for text in block.texts])


def measurement(rows=Letters.measure_rows, **more):
    return type("Broken", (Letters,), {"measure_rows": rows, **more})()


def in_a_block(self, block):
    return np.full(len(block), sum(map(len, block.texts)))


def drawn(self, block):
    return np.random.default_rng().integers(0, 1000, len(block))


def of_the_second(self, block):
    return np.full(len(block), len(block.texts[1]))


def again(self, run, wanted):
    """Measures all rows, stored or not."""
    return {"letters": self.measure_rows(Block(run.rows, Signals(len(run.rows)), {}, run))}


def in_single(self, run, wanted):
    return {"letters": np.zeros(len(run.rows), np.float32)}


def of_some(self, run, wanted):
    return {"letters": np.zeros(3, np.int64)}


SHORT = Reason("short", "only {measure:.0f} letters", one="short row")


@dataclass(frozen=True)
class Short(CleaningStep):
    """As fair as can be."""

    least: int = 30
    name: ClassVar[str] = "short"
    reasons: ClassVar[tuple[Reason, ...]] = (SHORT,)

    def clean(self, left):
        letters = [len(text) for text in left.texts("response", left.free)]
        found = [(row, count) for row, count in zip(left.free, letters, strict=True) if count < self.least]
        return drops(SHORT, [row for row, _ in found], measures=[count for _, count in found])


def step(clean=Short.clean, **more):
    return dataclass(frozen=True)(type("Broken", (Short,), {"clean": clean, **more}))()


def first_of_the_source(self, left):
    return drops(SHORT, [0])


def for_another_reason(self, left):
    return drops(Reason("long"), left.free[:1])


def protected_too(self, left):
    return drops(SHORT, left.rows[:1])


def for_the_next(self, left):
    return drops(SHORT, left.free[:-1], left.free[1:])


def for_one_that_is_gone(self, left):
    return drops(SHORT, left.free[-1:], [0])


def some(self, left):
    return drops(SHORT, left.free[np.random.default_rng().random(len(left.free)) < 0.5])


def greedy(self, left):
    left.protected[0] = True


def by_the_first(self, left):
    return drops(SHORT, [left.rows[0]] if not left.protected[left.rows[0]] else [])


LONG_WORDS = Reason("short", one="short " * 60)
CLEANING = [
    (step(name="not a word"), "cleaning_describes_itself", "is not a plain word"),
    (step(reasons=()), "cleaning_describes_itself", "no reason"),
    (step(reasons=(SHORT, SHORT)), "cleaning_describes_itself", "a reason twice"),
    (step(first_of_the_source), "cleaning_drops_what_it_may", "which it was not given"),
    (step(for_another_reason), "cleaning_drops_what_it_may", "the reason 'long'"),
    (step(protected_too), "cleaning_spares_protected_rows", "row 0 is to be kept always"),
    (step(for_the_next), "cleaning_refers_to_rows_that_stay", "that is dropped too"),
    (step(for_one_that_is_gone), "cleaning_refers_to_rows_that_stay", "dropped before"),
    (step(some), "cleaning_repeats", "two calls differ"),
    (step(greedy), "cleaning_repeats", "always were changed"),
    (step(by_the_first), "cleaning_takes_little", "0 rows end in IndexError"),
    (step(reasons=(LONG_WORDS,)), "cleaning_reasons_survive_saving", "is read as"),
]
MEASUREMENTS = [
    (measurement(name="not a word"), "measurement_describes_itself", "is not a plain word"),
    (measurement(gives=()), "measurement_describes_itself", "gives no signal"),
    (measurement(gives=2 * Letters.gives), "measurement_describes_itself", "gives a signal twice"),
    (measurement(gives=(Given("letters", ""),)), "measurement_describes_itself", "nobody says"),
    (measurement(needs=frozenset({"letters"})), "measurement_describes_itself", "needs what it gives"),
    (
        measurement(measure=in_single),
        "measurement_gives_what_it_announces",
        "announced as int64, and is float32",
    ),
    (measurement(measure=of_some), "measurement_gives_what_it_announces", "3 entries for 40 rows"),
    (measurement(lambda self, b: [1, 2]), "measurement_gives_what_it_announces", "letters"),
    (measurement(drawn), "measurement_repeats", "two runs give another signal"),
    (measurement(in_a_block), "measurement_follows_rows", "depends on the rows beside it"),
    (measurement(measure=again), "measurement_is_stored", "40 rows were measured, and 1 were not stored"),
    (measurement(of_the_second), "measurement_takes_one_row", "IndexError"),
]
SCORERS = [
    (scorer(name="not a word"), "scorer_describes_itself", "is not a plain word"),
    (scorer(needs=frozenset({"nowhere"})), "scorer_describes_itself", "nowhere"),
    (scorer(lambda self, s: Ranking(np.ones(3))), "scorer_ranks_every_row", "shape"),
    (scorer(lambda self, s: Ranking(np.ones(s.num_rows, np.float32))), "scorer_ranks_every_row", "float64"),
    (
        scorer(lambda self, s: Ranking(np.ones(s.num_rows), np.arange(s.num_rows) - 1, np.ones(2))),
        "scorer_ranks_every_row",
        "groups from -1",
    ),
    (
        scorer(lambda self, s: Ranking(np.ones(s.num_rows), np.zeros(s.num_rows, np.int64), -np.ones(1))),
        "scorer_ranks_every_row",
        "negative",
    ),
    (
        scorer(lambda self, s: Ranking(np.ones(s.num_rows), columns={"kept": np.ones(s.num_rows)})),
        "scorer_ranks_every_row",
        "must not name a column 'kept'",
    ),
    (scorer(lambda self, s: np.ones(s.num_rows)), "scorer_ranks_every_row", "must return"),
    (
        scorer(
            lambda self, s: Ranking(np.ones(s.num_rows), columns={"norm": np.ones(s.num_rows)}),
            holds=frozenset({"length"}),
        ),
        "scorer_holds_what_it_announces",
        "holds 'norm', and the scorer announces length",
    ),
    (scorer(counting()), "scorer_repeats", "two calls"),
    (scorer(mutating), "scorer_leaves_signals_alone", "'embedding' was changed"),
    (scorer(by_place), "scorer_follows_rows", "Not equal"),
    (scorer(by_place), "scorer_treats_equals_equally", "Not equal"),
    (scorer(by_second_row), "scorer_takes_one_row", "IndexError"),
    (
        scorer(lambda self, s: Ranking(np.ones(s.num_rows))),
        "scorer_refuses_nan",
        "NaN in 'embedding' was ranked",
    ),
    (scorer(selector=lambda self: selector(select=one_too_few)), "scorer_meets_budgets", "kept .* rows of a"),
    (scorer(selector=turning()), "scorer_survives_saving", "selects other rows"),
]
SELECTORS = [
    (selector(name="not a word"), "selector_describes_itself", "is not a plain word"),
    (selector(one_too_few), "selector_meets_budgets", "spent"),
    (selector(select=one_too_few), "selector_meets_budgets", "kept .* rows of a budget"),
    (selector(select=one_too_many), "selector_meets_budgets", "kept .* rows of a budget"),
    (
        selector(mixed_up),
        "selector_gives_reasons",
        "a row that is kept=True says: dropped|a row that is kept=False says: kept",
    ),
    (
        selector(masking, prunes_tokens=True),
        "selector_masks_tokens_of_kept_rows",
        "a dropped row has a token mask",
    ),
    (selector(masking), "selector_masks_tokens_of_kept_rows", "prunes_tokens is not true"),
    (selector(drawing()), "selector_repeats", "two calls"),
    (selector(by_all_rows), "selector_reads_only_its_portion", "outside the portion"),
    (selector(by_second_place), "selector_takes_little", "IndexError"),
]


@pytest.mark.parametrize(("part", "check", "said"), [*SCORERS, *SELECTORS, *MEASUREMENTS, *CLEANING])
def test_a_broken_part_is_caught(part, check, said):
    with pytest.raises((AssertionError, DataPrunerError), match=said):
        checks_of(part)[check](part)


def test_every_check_has_a_part_that_it_catches():
    assert {check for _, check, _ in SCORERS} == set(SCORER_CHECKS)
    assert {check for _, check, _ in SELECTORS} == set(SELECTOR_CHECKS)
    assert {check for _, check, _ in MEASUREMENTS} == set(MEASUREMENT_CHECKS)
    assert {check for _, check, _ in CLEANING} == set(CLEANING_CHECKS)


@parametrize_with_checks([Fair(), Even(), Letters(), Short()])
def test_parts_that_break_nothing_pass(part, check):
    check(part)


def test_all_checks_at_once():
    check_scorer(Fair())
    check_selector(Even())
    check_measurement(Letters())
    check_cleaning_step(Short())
    with pytest.raises(AssertionError):
        check_scorer(scorer(counting()))
    with pytest.raises(AssertionError):
        check_selector(selector(drawing()))
    with pytest.raises(AssertionError):
        check_measurement(measurement(drawn))
    with pytest.raises(AssertionError):
        check_cleaning_step(step(some))


def test_signals_that_nobody_made_are_drawn_as_they_are_announced(monkeypatch):
    class New(Letters):
        gives: ClassVar[tuple[Given, ...]] = (
            Given("new_row", "a number", dtype="int64"),
            Given("new_token", "a number a token", shape="token", dtype="float32"),
            Given("new_matrix", "a vector", shape="matrix", dtype="float32"),
            Given("new_text", "a text", shape="text"),
            Given("new:", "any of many"),
        )

    monkeypatch.setattr("datapruner.testing.examples.measurements", lambda: [New()])
    signals = example_signals(50)
    assert (signals.column("new_row").dtype, len(signals.column("new_row"))) == (np.int64, 50)
    assert signals.ragged("new_token").lengths.tolist() == signals.column("num_supervised_tokens").tolist()
    assert (signals.matrix("new_matrix").dtype, len(signals.matrix("new_matrix"))) == (np.float32, 50)
    assert len(set(signals.texts("new_text"))) == 50
    assert "new:" not in signals.measured
    assert signals.column("new_row").tobytes() == example_signals(50).column("new_row").tobytes()


@dataclass(frozen=True)
class ByTheirState(Even):
    """Reads what only its own scorer leaves."""

    name: ClassVar[str] = "by_their_state"

    def _select(self, ranking, portion, rng):
        if "theirs" not in ranking.state:
            raise DataPrunerError("the selector 'by_their_state' needs the state 'theirs'")
        values = np.asarray(ranking.state["theirs"])[:, 0]
        return Even()._select(replace(ranking, values=values), portion, rng)


def test_a_selector_is_checked_on_a_ranking_with_its_state():
    with pytest.raises(DataPrunerError, match="needs the state 'theirs'"):
        check_selector(ByTheirState())
    state = {"theirs": np.random.default_rng(0).random((40, 2))}
    check_selector(ByTheirState(), Ranking(np.arange(40.0), state=state))
    for name in set(SELECTOR_CHECKS) - {"selector_describes_itself", "selector_masks_tokens_of_kept_rows"}:
        broken = next(part for part, check, _ in SELECTORS if check == name)
        with pytest.raises((AssertionError, DataPrunerError)):
            SELECTOR_CHECKS[name](broken, Ranking(np.random.default_rng(1).random(40), state=state))


def test_a_built_in_selector_on_the_ranking_of_its_scorer():
    from datapruner.scorers.qtuning import QTuning

    check_selector(EUPlaneSelector(), QTuning().score(example_signals()))


def test_what_is_no_part_is_refused():
    with pytest.raises(DataPrunerError, match=r"checks are for objects: .*write Fair\(\)"):
        parametrize_with_checks([Fair])
    with pytest.raises(DataPrunerError, match="not 'topk'"):
        parametrize_with_checks(["topk"])


def test_failures_show_part_and_check():
    mark = parametrize_with_checks([Fair(), Even()])
    ids = [case.id for case in mark.mark.args[1]]
    assert ids[0] == "Fair()-scorer_describes_itself"
    assert ids[-1] == "Even()-selector_takes_little"
    assert len(set(ids)) == len(SCORER_CHECKS) + len(SELECTOR_CHECKS)
