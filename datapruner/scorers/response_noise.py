"""Response noise: answers to another prompt, broken text and wrong final numbers, without a label (ours)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from datapruner.ranking import Ranking
from datapruner.ranks import average_ranks
from datapruner.scorers._grouping import CLUSTER
from datapruner.scorers.base import Scorer
from datapruner.scorers.combined import Combined, joined
from datapruner.signals import Signals


@dataclass(frozen=True)
class ResponseNoise(Scorer):
    """Put last the rows whose response is improbable for its kind, ignores its prompt, or ends in a wrong number.

    *Ours* altogether, and measured in ``benchmarks/noise.md``. Three ranks, and the worst of them decides. Within a
    row's cluster of the embeddings: its perplexity (broken text has a high one), and its IFD (a response to another
    prompt is not helped by the one it has). In the whole set: the surprise of the last number in the response, the
    largest NLL - entropy of its tokens, where there is a number. Loss levels differ more between kinds of rows than
    between good and bad ones, hence the ranks inside clusters; a number's surprise does not, hence the whole set.

    What it finds, it finds relative to the rest of the set: it always puts some rows last, so keep as much as the
    set is thought to hold of good rows. It says nothing of how useful a good row is. The clustering depends on the
    order of the rows, so permuted rows may get other values.

    Parameters
    ----------
    numbers : bool
        Look at final numbers.
    n_clusters : int, optional
        k; default round(sqrt(n / 2)) between 8 and 1000.
    min_group : int
        Rows of smaller clusters are ranked in the whole set.
    """

    numbers: bool = True
    n_clusters: int | None = None
    min_group: int = 10
    name: ClassVar[str] = "response_noise"
    needs: ClassVar[frozenset[str]] = frozenset(
        {"log_ppl", "response_log_ppl", "embedding", "number_surprise"}
    )
    paper: ClassVar[str] = "none"
    provenance: ClassVar[str] = "ours; perplexity and IFD published"

    @cached_property
    def _text(self) -> Combined:
        """Perplexity and IFD, by the worst rank in the cluster."""
        return Combined(within=CLUSTER, n_clusters=self.n_clusters, min_group=self.min_group)

    @property
    def requires(self) -> frozenset[str]:
        """Without ``numbers`` their surprise is not read."""
        return self.needs if self.numbers else self.needs - {"number_surprise"}

    @property
    def offers(self) -> frozenset[str] | None:
        """The columns of both, and what there is to the numbers."""
        return joined({"number_surprise", "number_rank"}, self._text)

    @property
    def promises(self) -> frozenset[str]:
        """Equal rows get equal values; the clustering depends on the order of the rows."""
        return frozenset({"duplicates"})

    def _score(self, signals: Signals) -> Ranking:
        text = self._text.score(signals)
        values, columns = text.values, dict(text.columns)
        if self.numbers:
            surprise = np.asarray(signals.column("number_surprise"), dtype=np.float64)
            expected = 1 - (average_ranks(surprise) - 0.5) / len(surprise)
            expected[surprise <= 0] = 1  # no number, or one that was expected
            values = np.minimum(values, expected)
            columns |= {"number_surprise": surprise, "number_rank": expected}
        return Ranking(values, groups=text.groups, columns=columns)
