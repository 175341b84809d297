"""What is varied: seeds, the noise on the vectors, and a second source of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datapruner.errors import DataPrunerError
from datapruner.files.paths import expanded
from datapruner.measuring.arguments import requested
from datapruner.measuring.measure import Measured, measure
from datapruner.measuring.request import Request

NOISE = (0.25, 0.5, 1.0)
MOST_SEEDS = 1000
"""Every seed is a run of its own, and all pairs of them are compared."""
OF_VECTORS = frozenset({"embedding", "manifold", "neighbours"})
"""Signals that move when the vectors do."""


@dataclass(frozen=True)
class Variations:
    """What is varied.

    Parameters
    ----------
    seeds : int
        Runs that differ in the seed, the recipe's own among them; also draws of noise. From 2 to 1,000.
    noise : sequence of float
        Standard deviations of the noise, in those of every dimension.
    """

    seeds: int = 5
    noise: Sequence[float] = NOISE

    def __post_init__(self) -> None:
        """Refuse what varies nothing."""
        if isinstance(self.seeds, bool) or not isinstance(self.seeds, int) or self.seeds < 2:
            raise DataPrunerError(f"seeds must be 2 or more, so that there is a pair, not {self.seeds}")
        if self.seeds > MOST_SEEDS:
            raise DataPrunerError(
                f"seeds must be {MOST_SEEDS:,} at most, not {self.seeds:,}: for each, all scorers rank and choose, "
                "and all pairs of runs are compared"
            )
        for level in self.noise:
            if isinstance(level, bool) or not isinstance(level, int | float) or not 0 < level < np.inf:
                raise DataPrunerError(
                    f"noise must be numbers above 0, in standard deviations of the vectors, not {level}"
                )
        object.__setattr__(self, "noise", tuple(float(level) for level in self.noise))


class Measurement(NamedTuple):
    """What a second embedder gave, and the names of both."""

    held: Measured | None
    names: tuple[str, str]


@dataclass(frozen=True)
class Second:
    """A second source of vectors.

    Attributes
    ----------
    first, own : dict
        Options that the first run takes from it, and those of its own run.
    names : tuple of str
        Of both sources.
    given : bool
        The first vectors were given, so that it does not matter what the dataset holds.
    """

    first: dict[str, Any]
    own: dict[str, Any]
    names: tuple[str, str]
    given: bool = False

    @classmethod
    def of(cls, options: Mapping[str, Any], embedders: Any, embeddings: Any) -> Second | None:
        """Read it from the arguments; None where one embedder is all there is."""
        given = [
            options[name] for name in ("embeddings", "embedding_column") if options.get(name) is not None
        ]
        embedder = options.get("embedder", "minilm")
        if embeddings is not None:
            if embedders is not None:
                raise DataPrunerError("the second vectors are made or given: embedders or second_embeddings")
            own = {"embeddings": embeddings, "embedding_column": None}
            return cls({}, own, (name_of(given[0] if given else embedder), name_of(embeddings)), bool(given))
        if embedders is None:
            return None
        if isinstance(embedders, str) or not isinstance(embedders, Sequence) or len(embedders) != 2:
            raise DataPrunerError("--embedders must name two, such as minilm and a path")
        if given:
            raise DataPrunerError(
                "the vectors are given, so no embedder runs; give the second ones with --second-embeddings"
            )
        if embedder != "minilm":
            raise DataPrunerError("--embedders names both models; leave --embedder out")
        first, second = embedders
        return cls({"embedder": first}, {"embedder": second}, (name_of(first), name_of(second)))

    def requested(self, asked: Request, source: Any, options: Mapping[str, Any]) -> Request | None:
        """Ask for the same with the second vectors, for the scorers that read vectors; None where none does."""
        readers = [scorer for scorer in asked.scorers if scorer.requires & OF_VECTORS]
        if not readers:
            return None
        return requested(source, scorers=readers, budgets=asked.budgets, **{**options, **self.own})

    def measured(self, held: Measured, other: Request | None) -> Measurement:
        """Run up to the scorers again with the second vectors."""
        names = self.names
        if held.samples.layout.name == "embedding" and not self.given:
            if "embedder" in self.own:
                raise DataPrunerError(
                    "this dataset has no text to embed; give the second vectors with --second-embeddings"
                )
            names = (f"column {held.samples.layout.columns['embedding']}", names[1])
        return Measurement(None if other is None else measure(other), names)


def name_of(embedder: Any) -> str:
    """Name what gives vectors without saying where on this machine it lies."""
    if isinstance(embedder, str | Path):
        text = str(embedder)
        return Path(text).name if expanded(Path(text)).is_absolute() or text.startswith(".") else text
    return "given array" if isinstance(embedder, np.ndarray | list) else type(embedder).__name__
