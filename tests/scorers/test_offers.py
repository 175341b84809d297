"""What a scorer says that its ranking holds is what it holds: a selector is refused before a run as after it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

import datapruner as dp
from datapruner.errors import DataPrunerError
from datapruner.ranking import Ranking
from datapruner.scorers import Combined, Scorer, available_scorers, make_scorer
from datapruner.scorers.d2 import D2
from datapruner.selection.budget_rows import Portion
from datapruner.selection.selector import GROUPS
from datapruner.selection.selectors import available_selectors, make_selector
from datapruner.selection.selectors.eu_plane import EUPlaneSelector
from datapruner.selection.selectors.topk import TopK
from datapruner.testing import example_signals
from datapruner.testing.examples import with_asked

N = 60


@pytest.fixture(scope="module")
def signals():
    return example_signals(N)


def refuses(ask) -> bool:
    try:
        ask()
    except DataPrunerError as error:
        assert "which this scorer does not give" in str(error)  # noqa: PT017 - others are no refusals
        return True
    return False


SCORERS = [
    *[make_scorer(name) for name in available_scorers()],
    Combined(["qtuning", "prototypes"]),
    Combined(["donod", "length"], within="cluster"),
    D2("donod"),
    make_scorer("qtuning", {"token_keep": 1.0}),
    make_scorer("paser", {"efficiency": "typical"}),
]
SELECTORS = [*[make_selector(name) for name in available_selectors()], EUPlaneSelector(token_keep=1.0)]


@pytest.mark.parametrize("scorer", SCORERS, ids=repr)
def test_what_is_refused_before_is_refused_after_and_the_other_way(scorer, signals):
    ranking = scorer.score(with_asked(signals, scorer.requires))
    whole = ranking.groups is not None and ranking.group_weights is not None
    held = {*ranking.columns, *ranking.state, *[GROUPS] * whole}
    patterns = [re.compile(re.escape(name).replace(r"\*", ".*")) for name in scorer.offers]
    assert [name for name in held if not any(pattern.fullmatch(name) for pattern in patterns)] == []
    portion = Portion(np.arange(N), np.ones(N, dtype=np.int64), N // 3)
    ranking = replace(
        ranking, state={**ranking.state, "embedding": signals["embedding"]}
    )  # as a run hands it on
    for selector in SELECTORS:
        early = refuses(lambda of=selector: of.check(scorer.offers))
        late = refuses(lambda of=selector: of.select(ranking, portion, np.random.default_rng(0)))
        # What may be there, such as the state of a scorer that another holds, is only known afterwards.
        assert early == late or (late and isinstance(scorer, Combined))


class Silent(Scorer):
    """A plug-in's that does not say."""

    name = "silent"
    needs = frozenset()

    def _score(self, signals):
        return Ranking(np.zeros(signals.num_rows))


def test_who_does_not_say_is_asked_afterwards(signals, cache):
    assert Silent().offers is None
    rows = [{"text": f"row {number}"} for number in range(9)]
    with pytest.raises(DataPrunerError, match="needs groups with weights, which this scorer does not give"):
        dp.prune(rows, scorer=Silent(), selector="group_quota", keep=3, progress=False)


@dataclass(frozen=True)
class Reading(TopK):
    """Reads what nobody gives."""

    name: ClassVar[str] = "reading"
    needs: ClassVar[frozenset[str]] = frozenset({"tide", "moon"})


def test_a_selector_of_ones_own_says_what_it_reads(cache):
    class Unasked:
        def encode(self, texts):
            pytest.fail("the embedder ran")

    rows = [{"text": f"row {number}"} for number in range(9)]
    with pytest.raises(
        DataPrunerError, match="the selector 'reading' needs moon and tide, which this scorer does not"
    ):
        dp.prune(rows, scorer="k_center", embedder=Unasked(), selector=Reading(), keep=3, progress=False)
