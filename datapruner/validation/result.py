"""What a validation found."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datapruner.arrays import Floats, Ints
from datapruner.files.paths import expanded
from datapruner.outputs.folder import whole_folder
from datapruner.outputs.tables import aligned, write_csv, write_json
from datapruner.text import safe_text

LEFT_OUT = ("best", "worst", "any")
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
class Validation:
    """What a target loses without the best rows of a score, without the worst, and without any.

    Attributes
    ----------
    scorer, target : str
    leave_out : float
        Of the supervised tokens, left out.
    rows : int
        Drawn for a run.
    tokens : ndarray, int64, shape (m,)
        Supervised tokens of the target's rows.
    before : ndarray, float64, shape (m,)
        Their summed losses before any training, nats.
    losses : ndarray, float64, shape (runs, 3, m)
        The same after training without the best, the worst and any rows.
    seed : int
    """

    scorer: str
    target: str
    leave_out: float
    rows: int
    tokens: Ints
    before: Floats = field(repr=False)
    losses: Floats = field(repr=False)
    seed: int = 0

    def loss(self, left_out: str) -> float:
        """Nats a token after training without ``best``, ``worst`` or ``any`` rows; mean over the runs."""
        held = self.losses[:, LEFT_OUT.index(left_out)]
        return float(held.sum(axis=1).mean() / self.tokens.sum())

    def gap(self, more: str = "best", less: str = "worst") -> Gap:
        """How much higher the loss is without some rows than without others.

        Runs are paired: they draw the same rows, and train them in one order from one start. The variance is that of
        the runs plus that of the target's rows (of a ratio, linearised); the interval is Student's, with degrees of
        freedom by Welch and Satterthwaite.
        """
        from scipy.stats import norm, t

        a, b = (self.losses[:, LEFT_OUT.index(name)] for name in (more, less))
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
        """``means something``, ``points the wrong way`` or ``no difference is seen``."""
        mean, half, _ = self.gap()
        if abs(mean) <= half:
            return "no difference is seen"
        return "means something" if mean > 0 else "points the wrong way"

    def describe(self) -> str:
        """Give losses and verdict for a terminal."""
        gap = self.gap()
        told = {
            "before training": self.before.sum() / self.tokens.sum(),
            **{f"without the {name} rows": self.loss(name) for name in LEFT_OUT[:2]},
            "without any rows": self.loss("any"),
        }
        more = "higher" if gap.mean >= 0 else "lower"
        words = {
            "means something": "the score means something for this target",
            "points the wrong way": "the score points the wrong way for this target",
            "no difference is seen": f"no difference is seen; one of {gap.seen_from:.4f} would be, four times in five",
        }
        return "\n".join(
            [
                f"What {safe_text(self.target, 200)} loses ({len(self.tokens):,} rows, {self.tokens.sum():,} "
                f"supervised tokens) when {100 * self.leave_out:.0f} % of the tokens are left out by "
                f"{safe_text(self.scorer, 60)}: nats a token, {len(self.losses)} runs of {self.rows:,} rows",
                *aligned([[name, f"{value:.4f}"] for name, value in told.items()]),
                f"Without its best rows the loss is {abs(gap.mean):.4f} ± {gap.half:.4f} {more} than without its "
                f"worst: {words[self.verdict]}",
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        """Give all figures, as they are saved."""
        return {
            "scorer": self.scorer,
            "target": self.target,
            "leave_out": self.leave_out,
            "rows": self.rows,
            "seed": self.seed,
            "verdict": self.verdict,
            "gaps": {
                f"{more} - {less}": self.gap(more, less)._asdict()
                for more, less in (("best", "worst"), ("best", "any"), ("any", "worst"))
            },
            "tokens": self.tokens.tolist(),
            "before": self.before.tolist(),
            "losses": dict(zip(LEFT_OUT, self.losses.transpose(1, 0, 2).tolist(), strict=True)),
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
            write_csv(folder / "validation.csv", ["run", *(f"without_{name}" for name in LEFT_OUT)], rows)
        return path
