"""How much better the chosen answer is than the rejected one, by a reward model or by a policy and its reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from datapruner.errors import DataPrunerError
from datapruner.ranking import Ranking
from datapruner.ranks import average_ranks
from datapruner.scorers.base import Scorer
from datapruner.signals import Signals

Which = Literal["large", "small", "middling"]
Reward = Literal["classifier", "implicit"]


@dataclass(frozen=True)
class PreferenceMargin(Scorer):
    """Reward of the chosen answer minus that of the rejected one, by ``--classifier`` or by two language models.

    *Published* and disputed: pairs of large margins (arXiv 2502.14560), which leave out labels that are wrong; or of
    small ones (arXiv 2508.04149), which leave out what is easy; so that it is a parameter. Both papers take implicit
    rewards too (DPO, arXiv 2305.18290): log p under a policy minus log p under the reference that it was trained
    from. *Derived*: DPO's beta scales all margins alike, and is left out; what both sides begin with cancels. *Ours*:
    any classifier or reward model; any two models of the same tokens; of several rejected answers the best one counts;
    ``small`` is nearest to zero on either side, and ``middling`` nearest to the median rank. Where the rewards are
    right, pairs of a large negative margin have their labels swapped: they come last with every choice. A row is kept
    or dropped with both of its sides.

    Parameters
    ----------
    keep : {"large", "small", "middling"}
        The largest margins; those nearest to zero; those nearest to the median rank.
    label : str, optional
        Of a classifier with classes: the one whose probability is the reward.
    reward : {"classifier", "implicit"}
        What ``--classifier`` says; or log p under ``--model`` minus that under ``--reference-model``, nats, summed over
        the supervised tokens: ``--model`` is the policy, trained on preferences, its reference the model before that.
    """

    keep: Which = "large"
    label: str | None = None
    reward: Reward = "classifier"
    name: ClassVar[str] = "preference_margin"
    needs: ClassVar[frozenset[str]] = frozenset({"class_output", "rejected_class_output"})
    holds: ClassVar[frozenset[str] | None] = frozenset({"margin", "chosen_reward", "rejected_reward"})
    paper: ClassVar[str] = "arXiv 2502.14560, 2508.04149, 2305.18290"
    provenance: ClassVar[str] = (
        "margins and implicit rewards published, which to keep disputed; small, middling and several sides ours"
    )

    def __post_init__(self) -> None:
        """Refuse a class without a name."""
        super().__post_init__()
        if self.label == "":
            raise DataPrunerError("preference_margin: label is a class's name, not empty")
        if self.label is not None and self.reward == "implicit":
            raise DataPrunerError(
                "preference_margin: label is a classifier's class, and implicit rewards have none; leave it out"
            )

    @property
    def requires(self) -> frozenset[str]:
        """The reward of both sides."""
        return frozenset(self._signals)

    @property
    def _signals(self) -> tuple[str, str]:
        if self.reward == "implicit":
            return "implicit_reward", "rejected_implicit_reward"
        own = "class_output" if self.label is None else f"class:{self.label}"
        return own, f"rejected_{own}"

    def _score(self, signals: Signals) -> Ranking:
        chosen, rejected = (np.array(signals.column(name), dtype=np.float64) for name in self._signals)
        margin = chosen - rejected
        if self.keep == "large":
            values = margin.copy()
        elif self.keep == "small":
            values = 0.0 - np.abs(margin)
        else:
            values = 0.0 - np.abs(average_ranks(margin) - (len(margin) + 1) / 2)
        columns = {"margin": margin, "chosen_reward": chosen, "rejected_reward": rejected}
        return Ranking(values, columns=columns)
