"""DONOD: what one step on one sample does to the output layer's weights (arXiv 2504.14810)."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from datapruner.arrays import Floats
from datapruner.errors import DataPrunerError
from datapruner.ranking import Ranking
from datapruner.ranks import Normalization, spearman, topsis
from datapruner.scorers.base import Scorer
from datapruner.signals import Signals

logger = logging.getLogger(__name__)

Direction = Literal["shrink", "grow"]

LARGE_STEP = 0.1
"""Median share of the second-order term in DON from which a step size decides the ranking, not the gradient."""


@dataclass(frozen=True)
class Donod(Scorer):
    """Keep rows whose step changes the output layer's norm as wished (DON) and moves the layer little (NOD).

    *Published* (arXiv 2504.14810): one update on one sample, output-layer weights W only; DON, the change of their
    norm, high is good, as a proxy for generalisation; NOD = ||W' - W||, low is good; both joined by TOPSIS.
    *Derived*: with G the gradient of the mean loss, <W, G> = log PPL - entropy (for plain logits), NOD = eta ||G||, and
    ||W'|| - ||W|| = (eta^2 ||G||^2 - 2 eta <W, G>) / (||W'|| + ||W||), so that one forward pass is enough and two
    almost equal norms are never subtracted. As eta falls to 0 the ranking becomes that of (<W, G>, ||G||) or, with
    ``don="grow"``, of (-<W, G>, ||G||), which is nearly that of -||G|| alone.
    *Ours*, since the paper does not say: plain SGD on the mean loss over supervised tokens, weights reset for
    every sample, TOPSIS's normalisation and weights, and the limit eta -> 0 as the default.

    **Which way DON counts is not settled.** The one rendering of the paper's equation that we found has the norm
    before the step minus the norm after it, so that a high DON is a norm that shrinks; its full text we could not
    read. The two directions prefer opposite rows: ``shrink`` those that the model is wrong about and sure of, ``grow``
    those that it gets right unsurely. Compare both on your data before you rely on either.

    NOD is low for long and easy rows: its rank correlation with the length is in the ranking's state
    (``nod_length_correlation``).

    Parameters
    ----------
    step_size : float, optional
        eta of the one SGD step. None is the limit eta -> 0: ``don`` is then <W, G>, or -<W, G> for ``grow``, and
        ``nod`` is ||G||. Above the limit eta itself decides the ranking: ``step_ratio`` in the ranking's state is the
        median over the rows of eta ||G||^2 / (2 |<W, G>|), and above 0.1 there is a warning.
    weights : pair of float
        Of DON and of NOD in TOPSIS.
    normalization : {"vector", "minmax"}
        TOPSIS's.
    length_correction : bool
        Multiply NOD by sqrt(supervised tokens) (*ours*): the mean of T unrelated gradients shrinks like 1 / sqrt(T).
    don : {"shrink", "grow"}
        Which change of the norm is high, in the score and in the column ``don``: before minus after, or after minus
        before. ``grow`` is what versions without this parameter did.
    """

    step_size: float | None = None
    weights: Sequence[float] = (0.5, 0.5)
    normalization: Normalization = "vector"
    length_correction: bool = False
    don: Direction = "shrink"
    name: ClassVar[str] = "donod"
    needs: ClassVar[frozenset[str]] = frozenset(
        {"weight_dot", "grad_norm", "log_ppl", "num_supervised_tokens"}
    )
    holds: ClassVar[frozenset[str] | None] = frozenset(
        {"don", "nod", "log_ppl", "entropy", "num_supervised_tokens", "nod_length_correlation", "step_ratio"}
    )
    paper: ClassVar[str] = "arXiv 2504.14810"
    provenance: ClassVar[str] = (
        "DON, NOD and TOPSIS published, DON's direction unsettled; one-pass formulas derived; SGD, eta -> 0, weights "
        "ours"
    )

    def __post_init__(self) -> None:
        """Refuse parameters that have no meaning."""
        super().__post_init__()
        object.__setattr__(self, "weights", tuple(self.weights))  # a recipe gives a list
        if self.step_size is not None and not 0 < self.step_size < math.inf:
            raise DataPrunerError(
                f"donod: step_size must be a number above 0, or left out for the limit, not {self.step_size}"
            )
        if len(self.weights) != 2 or not all(0 <= weight < math.inf for weight in self.weights):
            raise DataPrunerError(
                f"donod: weights are two numbers, of DON and of NOD, 0 or more, not {self.weights}"
            )
        if not sum(self.weights) > 0:
            raise DataPrunerError("donod: one of the two weights must be above 0")

    @property
    def requires(self) -> frozenset[str]:
        """The weights' norm is read for a finite step only."""
        return self.needs if self.step_size is None else self.needs | {"weight_norm"}

    def _score(self, signals: Signals) -> Ranking:
        tokens = signals.column("num_supervised_tokens")
        dot, norm = (
            np.asarray(signals.column(name), dtype=np.float64) for name in ("weight_dot", "grad_norm")
        )
        if self.step_size is None:
            growth, nod, ratio = -dot, norm.copy(), 0.0
        else:
            growth, nod = weight_delta(
                dot, norm, np.asarray(signals.column("weight_norm"), np.float64), self.step_size
            )
            ratio = self._ratio(dot, norm)
        don = growth if self.don == "grow" else -growth
        if self.length_correction:
            nod *= np.sqrt(tokens)
        correlation = spearman(nod, tokens.astype(np.float64))
        logger.info("donod: NOD's rank correlation with the number of supervised tokens is %.2f", correlation)
        columns = {"don": don, "nod": nod, "log_ppl": signals.column("log_ppl")}
        if "entropy" in signals.measured:
            columns["entropy"] = signals.column("entropy")
        return Ranking(
            topsis(np.column_stack([don, nod]), self.weights, (True, False), self.normalization),
            columns={**columns, "num_supervised_tokens": tokens},
            state={
                "nod_length_correlation": np.array([correlation]),
                "step_ratio": np.array([ratio]),
            },
        )

    def _ratio(self, dot: Floats, norm: Floats) -> float:
        """How much of DON is the step's second order: the median row's eta ||G||^2 / (2 |<W, G>|)."""
        assert self.step_size is not None
        second, first = self.step_size * norm**2, 2 * np.abs(dot)
        beyond = np.where(second > 0, np.inf, 0.0)
        ratio = float(np.median(np.divide(second, first, out=beyond, where=first > 0)))
        if ratio > LARGE_STEP:
            logger.warning(
                "donod: at step_size %g the step itself decides DON: the median of eta ||G||^2 / (2 |<W, G>|) is %.3g, "
                "above %g; take a smaller step_size, or none for the limit",
                self.step_size,
                ratio,
                LARGE_STEP,
            )
        return ratio


def weight_delta(dot: Floats, norm: Floats, weight_norm: Floats, step_size: float) -> tuple[Floats, Floats]:
    """Growth of the norm and NOD of one SGD step, without subtracting two norms (*derived*).

    Parameters
    ----------
    dot, norm, weight_norm : ndarray, float64, shape (n,)
        <W, G>, ||G|| and ||W||.
    step_size : float

    Returns
    -------
    growth, nod : ndarray, float64, shape (n,)
        ||W - eta G|| - ||W||, which is DON or its negative, and eta ||G||.
    """
    nod = step_size * norm
    change = nod**2 - 2 * step_size * dot
    # Rounding may leave less than nothing of a W' that is almost zero.
    after = np.sqrt(np.maximum(weight_norm**2 + change, 0))
    total = after + weight_norm
    growth: Floats = np.divide(change, total, out=np.zeros(len(change)), where=total > 0)
    return growth, nod
