"""The rows that were taken first, with who took each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from datapruner.ranking import Ranking
from datapruner.recipe.targets import ONLY
from datapruner.selection.budget_rows import Portion
from datapruner.selection.selector import Choice, Selector
from datapruner.selection.selectors.topk import TopK
from datapruner.text import safe_text


@dataclass(frozen=True)
class Turns(Selector):
    """Keep the rows that were taken first, as ``topk`` does; a kept row's reason says who took it.

    It reads the columns of ``nearest_target``: the row of the target that chose, its task, and as its how manyth.
    """

    name: ClassVar[str] = "turns"
    needs: ClassVar[frozenset[str]] = frozenset({"task", "query", "choice"})

    def _select(self, ranking: Ranking, portion: Portion, rng: np.random.Generator) -> Choice:
        choice = TopK().select(ranking, portion, rng)
        if choice.kept.all():  # whoever chose, nothing depended on it
            return choice
        codes, texts = choice.codes.copy(), list(choice.texts)
        said = [ranking.columns[name] for name in ("task", "query", "choice")]
        for place in np.flatnonzero(choice.kept).tolist():
            task, query, number = (column[portion.rows[place]] for column in said)
            named = "the target" if task == ONLY else safe_text(str(task), 60)
            who = f"row {query} of {named}" if query >= 0 else named
            codes[place] = len(texts)
            texts.append(f"{choice.texts[choice.codes[place]]}; {who} chose it, as its choice {number}")
        return Choice(choice.kept, codes, texts)
