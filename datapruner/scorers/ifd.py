"""Instruction-following difficulty: how much the prompt helps with the response."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from datapruner.arrays import Floats
from datapruner.ranking import Ranking
from datapruner.scorers.base import Scorer
from datapruner.signals import Signals

MOST = 1e12
"""Stands for what a response of no loss at all would make infinite."""


@dataclass(frozen=True)
class IFD(Scorer):
    """Difficulty of the response given the prompt, over its difficulty alone.

    *Published*: the highest below 1 are kept and those above 1 dropped, because there the prompt hinders.
    Cherry_LLM (arXiv 2308.12032) takes the ratio of the mean losses (its official code), Superfiltering
    (arXiv 2402.00530) the ratio of the perplexities, from a small model. *Ours*: the rows above 1 come last,
    nearest to 1 first, where the papers have no room for them; exactly 1, which Cherry_LLM's code keeps and
    Superfiltering's drops, counts as above: a prompt that changes nothing, or none. Where the response alone has no
    loss, the ratio is 1 (none with the prompt either) or 1e12.

    A high IFD is also what a response to another prompt has. To remove noise take ``keep="low"``.

    Parameters
    ----------
    variant : {"ifd", "superfiltering"}
        Ratio of mean losses, or of perplexities.
    keep : {"high", "low"}
        High is published; low keeps the rows whose prompt helps most (*ours*).
    drop_above_one : bool
        Put 1 and above last when the high ones are kept.
    """

    variant: Literal["ifd", "superfiltering"] = "ifd"
    keep: Literal["high", "low"] = "high"
    drop_above_one: bool = True
    name: ClassVar[str] = "ifd"
    needs: ClassVar[frozenset[str]] = frozenset({"log_ppl", "response_log_ppl"})
    holds: ClassVar[frozenset[str] | None] = frozenset({"ifd", "log_ppl", "response_log_ppl"})
    paper: ClassVar[str] = "arXiv 2308.12032, 2402.00530"
    provenance: ClassVar[str] = "published; the order above 1 and keep=low ours"

    def _score(self, signals: Signals) -> Ranking:
        given, alone = (
            np.maximum(np.asarray(signals.column(name), dtype=np.float64), 0)
            for name in ("log_ppl", "response_log_ppl")
        )
        ifd = self._ratio(given, alone)
        if self.keep == "low":
            values = -ifd
        elif self.drop_above_one:
            # IFD is never negative, so that all of these stand below the others.
            values = np.where(given >= alone, -ifd, ifd)
        else:
            values = ifd.copy()
        columns = {"ifd": ifd, **{name: signals.column(name) for name in ("log_ppl", "response_log_ppl")}}
        return Ranking(values, columns=columns)

    def _ratio(self, given: Floats, alone: Floats) -> Floats:
        if self.variant == "superfiltering":
            return np.exp(np.minimum(given - alone, np.log(MOST)))
        undefined = np.where(given > 0, MOST, 1.0)
        with np.errstate(over="ignore"):
            ratio: Floats = np.divide(given, alone, out=undefined, where=alone > 0)
        return np.minimum(ratio, MOST)
