"""What a validation found: of a score, or of a selection."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from datapruner.arrays import Floats, Ints
from datapruner.files.paths import expanded
from datapruner.outputs.folder import whole_folder
from datapruner.outputs.tables import aligned, write_csv, write_json
from datapruner.text import safe_text

UNSEEN = "no difference is seen"
LEVEL, POWER = 0.95, 0.8


class Gap(NamedTuple):
    """A difference of two losses, in nats a token.

    Attributes
    ----------
    mean : float
    half : float
        Half of its 95 % interval.
    seen_from : float
        The difference that would be found four times in five.
    """

    mean: float
    half: float
    seen_from: float


@dataclass(frozen=True, eq=False)
class Validation(ABC):
    """What a target loses after trainings that differ in their rows alone.

    Attributes
    ----------
    of, target : str
        The scorer or the selection; what was read.
    rows : int
        Drawn for a run, at most.
    tokens : ndarray, int64, shape (m,)
        Supervised tokens of the target's rows.
    before : ndarray, float64, shape (m,)
        Their summed losses before any training, nats.
    losses : ndarray, float64, shape (runs, arms, m)
        The same after training, in the order of ``arms``.
    seed : int
    """

    of: str
    target: str
    rows: int
    tokens: Ints
    before: Floats = field(repr=False)
    losses: Floats = field(repr=False)
    seed: int = 0

    arms: ClassVar[tuple[str, ...]]
    """What is trained on. The verdict is of the first two: the loss is higher after the one where it speaks for."""
    verdicts: ClassVar[tuple[str, str]]
    """What is said where it is higher, and where it is lower."""

    def loss(self, arm: str) -> float:
        """Nats a token after training on one of ``arms``; mean over the runs."""
        held = self.losses[:, self.arms.index(arm)]
        return float(held.sum(axis=1).mean() / self.tokens.sum())

    def gap(self, more: str | None = None, less: str | None = None) -> Gap:
        """How much higher the loss is after one training than after another; by default those of the verdict.

        Runs are paired: their trainings begin at the same start. The variance is that of the runs plus that of the
        target's rows (of a ratio, linearised); the interval is Student's, with degrees of freedom by Welch and
        Satterthwaite.
        """
        from scipy.stats import norm, t

        names = (more or self.arms[0], less or self.arms[1])
        a, b = (self.losses[:, self.arms.index(name)] for name in names)
        runs, rows = len(a), len(self.tokens)
        by_run = (a - b).sum(axis=1) / self.tokens.sum()
        mean = float(by_run.mean())
        parts = [(float(by_run.var(ddof=1)) / runs, runs - 1.0)]
        if rows > 1:
            rest = (a - b).mean(axis=0) - mean * self.tokens
            parts.append((float(rows * rest.var(ddof=1)) / float(self.tokens.sum()) ** 2, rows - 1.0))
        total = sum(part for part, _ in parts)
        if total == 0:
            return Gap(mean, 0.0, 0.0)
        freedom = total**2 / sum(part**2 / degrees for part, degrees in parts)
        spread = float(np.sqrt(total))
        half = float(t.ppf((1 + LEVEL) / 2, freedom)) * spread
        return Gap(mean, half, half + float(norm.ppf(POWER)) * spread)

    @property
    def verdict(self) -> str:
        """One of ``verdicts``, or ``no difference is seen``."""
        mean, half, _ = self.gap()
        if abs(mean) <= half:
            return UNSEEN
        return self.verdicts[int(mean < 0)]

    def describe(self) -> str:
        """Give losses and verdict for a terminal."""
        gap = self.gap()
        told = {"before training": self.before.sum() / self.tokens.sum()}
        told |= {words: self.loss(arm) for arm, words in self._told().items()}
        found = (
            f"{UNSEEN}; one of {gap.seen_from:.4f} would be, four times in five"
            if self.verdict == UNSEEN
            else f"{self._subject} {self.verdict} for this target"
        )
        read = f"({len(self.tokens):,} rows, {self.tokens.sum():,} supervised tokens)"
        return "\n".join(
            [
                f"What {safe_text(self.target, 200)} loses {read} {self._asked()}: nats a token, "
                f"{len(self.losses)} runs of {self.rows:,} rows",
                *aligned([[name, f"{value:.4f}"] for name, value in told.items()]),
                f"{self._compared(gap)}: {found}",
            ]
        )

    _subject: ClassVar[str]

    @abstractmethod
    def _asked(self) -> str:
        """Say what was done before the target was read."""

    @abstractmethod
    def _told(self) -> dict[str, str]:
        """Arms that are told, in words."""

    @abstractmethod
    def _compared(self, gap: Gap) -> str:
        """Say the difference."""

    def to_dict(self) -> dict[str, Any]:
        """Give all figures, as they are saved."""
        return {
            "of": self.of,
            "target": self.target,
            "rows": self.rows,
            "seed": self.seed,
            "verdict": self.verdict,
            "gaps": {f"{a} - {b}": self.gap(a, b)._asdict() for a, b in combinations(self.arms, 2)},
            "tokens": self.tokens.tolist(),
            "before": self.before.tolist(),
            "losses": dict(zip(self.arms, self.losses.transpose(1, 0, 2).tolist(), strict=True)),
        }

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write ``validation.json``, and ``validation.csv`` with the loss of every training; both or none.

        Parameters
        ----------
        path : str or Path
            A folder that does not exist yet, or is empty.
        overwrite : bool
            Replace an earlier folder of datapruner.
        """
        path = expanded(Path(path))
        by_run = self.losses.sum(axis=2) / self.tokens.sum()
        with whole_folder(path, overwrite=overwrite) as folder:
            write_json(folder / "validation.json", self.to_dict())
            rows = [[run, *held] for run, held in enumerate(by_run.tolist())]
            write_csv(folder / "validation.csv", ["run", *self.arms], rows)
        return path


@dataclass(frozen=True, eq=False)
class ScoreValidation(Validation):
    """What a target loses without the best rows of a score, without the worst, and without any.

    Attributes
    ----------
    leave_out : float
        Of the supervised tokens, left out.
    """

    leave_out: float = 0.2

    arms = ("without_best", "without_worst", "without_any")
    verdicts = ("means something", "points the wrong way")
    _subject = "the score"

    def _asked(self) -> str:
        return f"when {100 * self.leave_out:.0f} % of the tokens are left out by {safe_text(self.of, 60)}"

    def _told(self) -> dict[str, str]:
        return {arm: f"{arm.replace('_', ' the ', 1)} rows" for arm in self.arms[:2]} | {
            self.arms[2]: "without any rows"
        }

    def _compared(self, gap: Gap) -> str:
        more = "higher" if gap.mean >= 0 else "lower"
        return f"Without its best rows the loss is {abs(gap.mean):.4f} ± {gap.half:.4f} {more} than without its worst"

    def to_dict(self) -> dict[str, Any]:
        """Give all figures, as they are saved."""
        return {"leave_out": self.leave_out, **super().to_dict()}


@dataclass(frozen=True, eq=False)
class SelectionValidation(Validation):
    """What a target loses after training on what a selection keeps, and on as many tokens of random rows.

    Attributes
    ----------
    learnt : ndarray, int64, shape (runs, 2)
        Supervised tokens that were trained on.
    shared : int
        Rows of the source that the target has too, and that no training has seen.
    """

    learnt: Ints = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int64))
    shared: int = 0

    arms = ("random", "kept")
    verdicts = ("is worth more than a random draw", "is worth less than a random draw")
    _subject = "what is kept"

    def _asked(self) -> str:
        return (
            f"after training on {self.learnt.mean():,.0f} supervised tokens of what {safe_text(self.of, 200)} keeps, "
            "and of its source at random"
        )

    def _told(self) -> dict[str, str]:
        return {"random": "on random rows", "kept": "on kept rows"}

    def _compared(self, gap: Gap) -> str:
        more = "lower" if gap.mean >= 0 else "higher"
        return f"On kept rows the loss is {abs(gap.mean):.4f} ± {gap.half:.4f} {more} than on random ones"

    def to_dict(self) -> dict[str, Any]:
        """Give all figures, as they are saved."""
        return {**super().to_dict(), "learnt": self.learnt.tolist(), "in_both": self.shared}
