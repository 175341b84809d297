"""PASER's selector: shares of damage, and in every group a walk that keeps its concepts consistent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from datapruner.arrays import Flags, Floats, Ints
from datapruner.ragged import Ragged
from datapruner.ranking import Ranking
from datapruner.selection.allocation import allocate
from datapruner.selection.budget_rows import Portion
from datapruner.selection.concept_graph import ConceptGraph
from datapruner.selection.selector import Choice, Selector, best_first, fill

CONCEPTS, NAMES = "concepts", "concept_names"
"""A ranking's state: the numbers of every row's concepts, and what each is called."""


@dataclass
class _Walk:
    """One group: what is left to visit, in order, and what its kept rows say."""

    places: Ints
    budget: int = 0
    graph: ConceptGraph = field(default_factory=ConceptGraph)
    conflicts: dict[int, tuple[int, int]] = field(default_factory=dict)

    def go(self, costs: Ints, concepts: Ragged | None, rows: Ints, kept: Flags) -> None:
        """Take rows in order while they fit; one in conflict with those that were taken is put aside."""
        if not len(self.places):
            return
        passed = []
        visited = 0
        cheapest = int(costs[self.places].min())
        for place in self.places.tolist():
            if self.budget < cheapest:
                break
            visited += 1
            if costs[place] > self.budget:
                passed.append(place)
                continue
            if self.accepts(place, concepts, rows):
                kept[place] = True
                self.budget -= int(costs[place])
        self.places = np.concatenate([np.array(passed, dtype=np.int64), self.places[visited:]])

    def accepts(self, place: int, concepts: Ragged | None, rows: Ints) -> bool:
        """Tell whether a row's concepts fit to those of the rows before it; they join the graph, or the conflicts."""
        if concepts is None:
            return True
        ids = concepts[int(rows[place])].tolist()
        if (pair := self.graph.conflict(ids)) is not None:
            self.conflicts[place] = pair
            return False
        self.graph.add(ids)
        return True


@dataclass(frozen=True)
class PaserSelector(Selector):
    """Share the budget over groups by their damage, and keep each group's best rows whose concepts fit together.

    *Published* (arXiv 2502.12594): budgets proportional to degradation; rows by efficiency; a row is rejected when two
    of its concepts are known and stand together in no row accepted before. *Ours*: groups' sizes cap their shares, and
    what a group cannot spend goes to the others, by their damage; where all groups have run out of consistent rows,
    the rejected ones are taken after all, best first, and their reason says so; a group's concepts are its own.

    A ranking without the state ``concepts`` is walked without a graph.
    """

    name: ClassVar[str] = "paser"
    needs_groups: ClassVar[bool] = True

    def _select(self, ranking: Ranking, portion: Portion, rng: np.random.Generator) -> Choice:
        assert ranking.groups is not None
        assert ranking.group_weights is not None
        rows, costs, values = portion.rows, portion.costs, ranking.values[portion.rows]
        kept = np.zeros(len(rows), dtype=np.bool_)
        if not len(rows):
            return Choice(kept, np.zeros(0, np.int64), [])
        numbers, groups = np.unique(ranking.groups[rows], return_inverse=True)
        concepts = ranking.state.get(CONCEPTS)
        concepts = concepts if isinstance(concepts, Ragged) else None
        order = best_first(values)
        by_group = order[np.argsort(groups[order], kind="stable")]
        walks = [
            _Walk(places) for places in np.split(by_group, np.flatnonzero(np.diff(groups[by_group])) + 1)
        ]
        left = min(portion.budget, int(costs.sum()))
        while left:
            room = np.array([int(costs[walk.places].sum()) for walk in walks], dtype=np.int64)
            shares = proportional(ranking.group_weights[numbers], room, min(left, int(room.sum())))
            before = left, int(room.sum())
            for walk, share in zip(walks, shares.tolist(), strict=True):
                walk.budget += share
                left -= share
            for walk in walks:
                walk.go(costs, concepts, rows, kept)
                left += walk.budget
                walk.budget = 0
            # A group that only met conflicts has spent nothing, and what it had goes to the others all the same.
            if before == (left, sum(int(costs[walk.places].sum()) for walk in walks)):
                break
        # Of tokens, less than the cheapest row of each group may be left in its share, and more in all of them.
        waiting = np.concatenate([walk.places for walk in walks])
        waiting = waiting[costs[waiting] <= left]
        for place in waiting[np.lexsort((waiting, -values[waiting]))].tolist():
            if costs[place] <= left and walks[groups[place]].accepts(place, concepts, rows):
                kept[place] = True
                left -= int(costs[place])
        fill(order[~kept[order]], costs, left, kept)
        return self._explained(ranking, portion, groups, numbers, walks, kept)

    def _explained(
        self,
        ranking: Ranking,
        portion: Portion,
        groups: Ints,
        numbers: Ints,
        walks: list[_Walk],
        kept: Flags,
    ) -> Choice:
        """Give every row its reason."""
        names = ranking.state.get(NAMES)
        sizes, taken = np.bincount(groups), np.bincount(groups, kept).astype(np.int64)
        where = f" within {portion.name}" if portion.name else ""
        codes = np.zeros(len(groups), dtype=np.int64)
        texts: list[str] = []
        for j, walk in enumerate(walks):
            called = f"cluster {numbers[j]}"
            here = groups == j
            share = f"the {taken[j]} of {sizes[j]} rows that {called} keeps{where}"
            codes[here] = len(texts) + kept[here]
            texts += [f"dropped: not among {share}", f"kept: among {share}"]
            if portion.unit == "tokens":
                values = ranking.values[portion.rows]
                last = values[here & kept].min(initial=np.inf)
                long = np.flatnonzero(here & ~kept & (values > last))
                codes[long] = len(texts)
                texts.append(f"dropped: too long for what was left of the budget of {called}{where}")
            for place, pair in walk.conflicts.items():
                first, second = (
                    str(names[one]) if isinstance(names, np.ndarray) else str(one) for one in pair
                )
                told = (
                    f"'{first}' and '{second}' are known in {called} and stand together in no row kept before"
                )
                codes[place] = len(texts)
                texts.append(
                    f"kept: although {told}, since the budget had room" if kept[place] else f"dropped: {told}"
                )
        return Choice(kept, codes, texts)


def proportional(weights: Floats, caps: Ints, budget: int) -> Ints:
    """Share a budget by weight, within caps; groups of no weight get what the others cannot take, by their size."""
    reach = int(caps[weights > 0].sum())
    shares = np.zeros(len(caps), dtype=np.int64)
    if reach:
        shares += allocate(weights, caps, min(budget, reach), projection="proportional")
    if budget > reach:
        rest = np.where(weights > 0, 0, caps)
        shares += allocate(rest, rest, budget - reach, projection="proportional")
    return shares
