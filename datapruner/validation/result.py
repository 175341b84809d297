"""What a validation found: of a score, or of a selection."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from datapruner.arrays import Floats, Ints
from datapruner.files.paths import expanded
from datapruner.outputs.folder import whole_folder
from datapruner.outputs.tables import aligned, write_csv, write_json
from datapruner.text import safe_text
from datapruner.validation.gaps import Gap, Groups, gap_of
from datapruner.validation.training import in_words

UNSEEN = "no difference is seen"


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
    groups : Groups, optional
        What the rows are told apart by.
    last_layers : int, optional
        Layers that were trained, counted from the last; by default all.
    held_out : bool
        Whether what was read are rows of the source.
    """

    of: str
    target: str
    rows: int
    tokens: Ints
    before: Floats = field(repr=False)
    losses: Floats = field(repr=False)
    seed: int = 0
    groups: Groups | None = None
    last_layers: int | None = None
    held_out: bool = False

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

        Over all supervised tokens. Runs are paired: their trainings begin at the same start.
        """
        return self._gap([np.arange(len(self.tokens))], more, less)

    def group_gaps(self, more: str | None = None, less: str | None = None) -> dict[str, Gap]:
        """Give the same of every group's rows; none where nothing tells rows apart. Intervals are each group's own."""
        if self.groups is None:
            return {}
        found = zip(self.groups.names, self.groups.rows(), strict=True)
        return {name: self._gap([rows], more, less) for name, rows in found}

    def mean_gap(self, more: str | None = None, less: str | None = None) -> Gap:
        """Give the mean over groups, each of which counts the same however many tokens it has.

        Raises
        ------
        ValueError
            Nothing tells the rows apart: ``by`` was not given.
        """
        if self.groups is None:
            raise ValueError("there are no groups; name a column of the target with by=")
        return self._gap(self.groups.rows(), more, less)

    def _gap(self, parts: Sequence[Ints], more: str | None, less: str | None) -> Gap:
        a, b = (self.arms.index(name) for name in (more or self.arms[0], less or self.arms[1]))
        return gap_of(self.losses[:, a] - self.losses[:, b], self.tokens, parts)

    @property
    def verdict(self) -> str:
        """One of ``verdicts``, or ``no difference is seen``: over all supervised tokens."""
        return self._judged(self.gap())

    @property
    def mean_verdict(self) -> str | None:
        """The same of the mean over groups; None where there are none."""
        return None if self.groups is None else self._judged(self.mean_gap())

    def _judged(self, gap: Gap) -> str:
        return UNSEEN if abs(gap.mean) <= gap.half else self.verdicts[int(gap.mean < 0)]

    def describe(self) -> str:
        """Give losses and verdict for a terminal."""
        told = {"before training": self.before.sum() / self.tokens.sum()}
        told |= {words: self.loss(arm) for arm, words in self._told().items()}
        read = f"({len(self.tokens):,} rows, {self.tokens.sum():,} supervised tokens)"
        gap = self.gap()
        return "\n".join(
            [
                f"Loss of {safe_text(self.target, 200)} {read} {self._asked()}: nats a token, "
                f"{len(self.losses)} runs of {self.rows:,} rows"
                + ("" if self.last_layers is None else f", {in_words(self.last_layers)} trained"),
                *aligned([[name, f"{value:.4f}"] for name, value in told.items()]),
                f"{self._compared(gap)}: {self._found(gap)}",
                *self._by_group(),
            ]
        )

    def _found(self, gap: Gap) -> str:
        verdict = self._judged(gap)
        if verdict == UNSEEN:
            return f"{UNSEEN}; one of {gap.seen_from:.4f} would be, four times in five"
        return f"{self._subject} {verdict} for {'rows like those of its source' if self.held_out else 'this target'}"

    def _by_group(self) -> list[str]:
        """Tell the groups apart, and what their mean says."""
        if self.groups is None:
            return []
        mean, gaps = self.mean_gap(), self.group_gaps()
        table = [
            [name, f"{len(rows):,} rows", f"{self.tokens[rows].sum():,} tokens", gap.told()]
            for (name, gap), rows in zip(gaps.items(), self.groups.rows(), strict=True)
        ]
        return [
            f"By {safe_text(self.groups.by, 60)}, {self._way}:",
            *aligned([*table, ["their mean", "", "", mean.told()]]),
            f"As the mean over these {len(table):,}: {self._found(mean)}",
        ]

    _subject: ClassVar[str]
    _way: ClassVar[str]
    """What a positive difference is."""

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
            "last_layers": self.last_layers,
            "held_out": self.held_out,
            "verdict": self.verdict,
            "gaps": {f"{a} - {b}": self.gap(a, b)._asdict() for a, b in combinations(self.arms, 2)},
            "tokens": self.tokens.tolist(),
            "before": self.before.tolist(),
            "losses": dict(zip(self.arms, self.losses.transpose(1, 0, 2).tolist(), strict=True)),
            **self._groups_dict(),
        }

    def _groups_dict(self) -> dict[str, Any]:
        if self.groups is None:
            return {}
        return {
            "by": self.groups.by,
            "groups": [self.groups.names[place] for place in self.groups.of.tolist()],
            "group_gaps": {name: gap._asdict() for name, gap in self.group_gaps().items()},
            "mean_gap": self.mean_gap()._asdict(),
            "mean_verdict": self.mean_verdict,
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
    _way = "how much higher the loss is without the best rows than without the worst"

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
    _way = "how much lower the loss is on kept rows than on random ones"

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
