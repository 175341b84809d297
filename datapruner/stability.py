"""How steady a selection is: under other seeds, under noise on the vectors, with another embedder.

All of it is *ours*. Cleaning and every pass of a model are done once; what a scorer makes of them is done again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Unpack

import numpy as np
from numpy.typing import NDArray

from datapruner.api import (
    OPTION_DEFAULTS,
    SCORERS_OWN,
    SELECTING,
    option_notes,
    rank,
    run_arguments,
)
from datapruner.arguments import takes
from datapruner.arrays import Flags, Floats
from datapruner.errors import DataPrunerError
from datapruner.measuring.measure import Measured, measure
from datapruner.options import Scoring
from datapruner.outputs.folder import whole_folder
from datapruner.outputs.tables import aligned, as_saved, figure, write_csv, write_json
from datapruner.overlap import chance, correlation, jaccard
from datapruner.parameters import one_or_more
from datapruner.paths import expanded
from datapruner.progress import bar as progress_bar
from datapruner.scorers import make_scorer
from datapruner.selection.budget import Amount, Budget
from datapruner.selection.selectors import make_selector

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

    from datapruner.geometry.blocks import Matrix
    from datapruner.recipe import Recipe
    from datapruner.scorers.base import Scorer
    from datapruner.selection.selectors import Selector

NOISE = (0.25, 0.5, 1.0)
OF_VECTORS = frozenset({"embedding", "manifold", "neighbours"})
"""Signals that move when the vectors do."""
UNREAD = "reads no embedding"


@dataclass(frozen=True)
class Agreement:
    """How far runs of one scorer agree that differ in one thing.

    Attributes
    ----------
    scorer : str
    varied : {"seed", "noise", "embedder"}
    noise : float, optional
        In standard deviations of every dimension, where noise was added.
    comparisons : int
        Pairs of runs behind the figures; 0 where nothing was compared, and ``note`` says why.
    jaccard, jaccard_sd : float, optional
        Mean and standard deviation, over the comparisons, of the rows that both runs keep as a share of the rows
        that either keeps.
    chance : float, optional
        The Jaccard index to be expected of two independent random selections of that size.
    spearman, spearman_sd : float, optional
        Rank correlation of the scores; None where a run gave all rows the same score.
    note : str
    """

    scorer: str
    varied: Literal["seed", "noise", "embedder"]
    noise: float | None = None
    comparisons: int = 0
    jaccard: float | None = None
    jaccard_sd: float | None = None
    chance: float | None = None
    spearman: float | None = None
    spearman_sd: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Stability:
    """What moves the selections of some scorers, and how far.

    Attributes
    ----------
    records : tuple of Agreement
    recipe : Recipe
        What was read and how.
    rows, eligible, kept : int
        Of the source, left by cleaning, kept by every selection; for a budget in tokens by the first one.
    seeds : int
    noise : tuple of float
    embedders : tuple of str, optional
        The two that were compared.
    keep_tokens : int, optional
        The budget, where it counts supervised tokens.
    """

    records: tuple[Agreement, ...]
    recipe: Recipe
    rows: int
    eligible: int
    kept: int
    seeds: int
    noise: tuple[float, ...]
    embedders: tuple[str, str] | None = None
    keep_tokens: int | None = None

    def __repr__(self) -> str:
        """Name the scorers and count the rows."""
        return f"Stability({self.kept} of {self.rows} rows by {', '.join(self.scorers)})"

    @property
    def scorers(self) -> tuple[str, ...]:
        """Their names, in the order given."""
        return tuple(dict.fromkeys(record.scorer for record in self.records))

    def to_frame(self) -> DataFrame:
        """Give the records as a table, one row each."""
        import pandas as pd

        return pd.DataFrame.from_records(
            [asdict(record) for record in self.records], columns=[spec.name for spec in fields(Agreement)]
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the overlap against the noise; see :func:`datapruner.plots.plot_stability`."""
        from datapruner.plots import plot_stability

        return plot_stability(self, ax)

    def table(self) -> list[list[str]]:
        """Give the figures as rows of cells, the first row the columns' names."""
        columns = {
            (record.varied, record.noise): f"noise {record.noise:g}"
            if record.noise is not None
            else f"{record.varied}s"
            for record in self.records
        }
        return [
            ["", *columns.values()],
            *(
                [name, *(_cell(record) for record in self.records if record.scorer == name)]
                for name in self.scorers
            ),
        ]

    def describe(self) -> str:
        """Give the figures as a table for a terminal."""
        chance = next((record.chance for record in self.records if record.chance is not None), None)
        said = "" if chance is None else f" ({chance:.2f} by chance)"
        return "\n".join(
            [
                f"Stability: Jaccard of the kept rows{said}, mean ± deviation; Spearman of the scores",
                *aligned(self.table()),
                *([f"  embedders: {' and '.join(self.embedders)}"] if self.embedders else []),
            ]
        )

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write ``stability.json``, ``.csv`` and, where matplotlib is installed, ``.png``; whole or not at all.

        Parameters
        ----------
        path : str or Path
            A folder that does not exist yet, or is empty.
        overwrite : bool
            Replace an earlier comparison.
        """
        path = expanded(Path(path))
        with whole_folder(path, overwrite=overwrite, reads=self.recipe.reads) as folder:
            self.write(folder, path)
        return path

    def write(self, folder: Path, path: Path) -> None:
        """Write the files into a folder that will lie at ``path``."""
        records = [asdict(record) for record in self.records]
        about = {
            "rows": self.rows,
            "eligible": self.eligible,
            "kept": self.kept,
            "keep_tokens": self.keep_tokens,
            "seeds": self.seeds,
            "noise": list(self.noise),
            "embedders": self.embedders,
        }
        write_json(
            folder / "stability.json", {**about, "records": records, "recipe": as_saved(self.recipe, path)}
        )
        write_csv(
            folder / "stability.csv",
            [spec.name for spec in fields(Agreement)],
            [list(record.values()) for record in records],
        )
        drawn = any(record.varied == "noise" and record.comparisons for record in self.records)
        if drawn and find_spec("matplotlib") is not None:
            from matplotlib.figure import Figure

            drawing = Figure(figsize=(8, 4.5), layout="constrained")
            self.plot(drawing.subplots())
            drawing.savefig(folder / "stability.png", dpi=150, metadata={"Software": None})


@dataclass(frozen=True)
class Variations:
    """What is varied.

    Parameters
    ----------
    seeds : int
        Runs that differ in the seed, the recipe's own among them; also draws of noise.
    noise : sequence of float
        Standard deviations of the noise, in those of every dimension.
    """

    seeds: int = 5
    noise: Sequence[float] = NOISE

    def __post_init__(self) -> None:
        """Refuse what varies nothing."""
        if isinstance(self.seeds, bool) or not isinstance(self.seeds, int) or self.seeds < 2:
            raise DataPrunerError(f"seeds must be 2 or more, so that there is a pair, not {self.seeds}")
        for level in self.noise:
            if isinstance(level, bool) or not isinstance(level, int | float) or not 0 < level < np.inf:
                raise DataPrunerError(
                    f"noise must be numbers above 0, in standard deviations of the vectors, not {level}"
                )
        object.__setattr__(self, "noise", tuple(float(level) for level in self.noise))


OF_ONE_SELECTION = {
    **dict.fromkeys(SELECTING | {"per_group"}, "it takes `scorers`, what to `keep`, and one `selector`"),
    **SCORERS_OWN,
}
"""Arguments of a verb that makes one selection, and what those that make several take instead."""


@takes(
    Scoring,
    defaults=OPTION_DEFAULTS,
    told=option_notes(Scoring),
    elsewhere=OF_ONE_SELECTION,
)
def compare_stability(
    source: Any,
    *,
    scorers: str | Scorer | Sequence[str | Scorer] = "concept_complexity",
    keep: Amount = 0.3,
    seeds: int = 5,
    noise: Sequence[float] = NOISE,
    embedders: Sequence[Any] | None = None,
    second_embeddings: Any = None,
    selector: str | Selector | None = None,
    **options: Unpack[Scoring],
) -> Stability:
    """Measure how far the selections of some scorers depend on what should not matter.

    Runs are compared by the Jaccard index of the rows they keep and by the Spearman correlation of their scores:
    all pairs of runs that differ in the seed; runs with Gaussian noise on the vectors against the one without; and
    two embedders. Every figure stands beside what two independent random selections would give.

    Parameters
    ----------
    source : str, Path, Dataset, DatasetDict, list of dict or DataFrame
        See :func:`datapruner.score`.
    scorers : str, Scorer, or a sequence of them
    keep : float or int
        A fraction of the rows, or a number of rows.
    seeds, noise
        See :class:`Variations`. The vectors with noise are held in memory.
    embedders : pair of str or Encoder, optional
        Compare these two; the first makes the vectors of all other runs.
    second_embeddings : path or array of shape (n, d), optional
        Vectors that stand for a second embedder.
    selector : str or Selector, optional
        Default: each scorer's own.
    **options
        Everything :func:`datapruner.score` takes.

    Raises
    ------
    DataPrunerError
        Anything the user can put right.
    """
    varied = Variations(seeds, noise)
    budget = Budget(keep)
    made = [make_scorer(one) for one in one_or_more(scorers)]
    chooser = None if selector is None else make_selector(selector)
    second = Second.of(options, embedders, second_embeddings)
    given: dict[str, Any] = {**options, **({} if second is None else second.first)}
    held = measure(**run_arguments(source, scorers=made, **given))
    return stability_of(
        held,
        budget=budget,
        selectors=dict.fromkeys((scorer.name for scorer in made), chooser),
        varied=varied,
        second=None if second is None else second.measured(held, source, made, given),
        progress=given.get("progress", True),
    )


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
            return cls({}, own, (_name(given[0] if given else embedder), _name(embeddings)), bool(given))
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
        return cls({"embedder": first}, {"embedder": second}, (_name(first), _name(second)))

    def measured(
        self, held: Measured, source: Any, scorers: Sequence[Scorer], options: Mapping[str, Any]
    ) -> Measurement:
        """Run up to the scorers again with the second vectors; nothing is run where no scorer reads vectors."""
        names = self.names
        if held.samples.layout.name == "embedding" and not self.given:
            if "embedder" in self.own:
                raise DataPrunerError(
                    "this dataset has no text to embed; give the second vectors with --second-embeddings"
                )
            names = (f"column {held.samples.layout.columns['embedding']}", names[1])
        readers = [scorer for scorer in scorers if scorer.requires & OF_VECTORS]
        again = (
            measure(**run_arguments(source, **{**options, **self.own, "scorers": readers}))
            if readers
            else None
        )
        return Measurement(again, names)


def stability_of(
    held: Measured,
    *,
    budget: Budget,
    selectors: Mapping[str, Selector | None],
    varied: Variations,
    second: Measurement | None = None,
    progress: bool = True,
) -> Stability:
    """Compare the runs of all scorers of a measurement; see :func:`compare_stability`.

    Parameters
    ----------
    held : Measured
    budget : Budget
        Without groups.
    selectors : mapping
        Scorer's name -> its selector, None or missing for its own.
    varied : Variations
    second : Measurement, optional
        The same rows with other vectors.
    progress : bool
    """
    scorers = held.scorers
    readers = [scorer for scorer in scorers if scorer.requires & OF_VECTORS]

    def runs_of(measured: Measured, made: Sequence[Scorer]) -> dict[str, _Run]:
        scores = rank(measured, made)
        return {
            scorer.name: _Run(
                scores.select(
                    scorer.name,
                    keep=budget.keep,
                    keep_tokens=budget.keep_tokens,
                    selector=selectors.get(scorer.name),
                ).kept,
                scores.rankings[scorer.name].values,
                scores.forced,
            )
            for scorer in made
        }

    draws = len(varied.noise) * varied.seeds if readers else 0
    with progress_bar(varied.seeds + draws, "stability", "runs", progress) as bar:
        by_seed = []
        for number in range(varied.seeds):
            by_seed.append(runs_of(_varied(held, seed=(held.recipe.seed + number) % 2**32), scorers))
            bar.update()
        base = by_seed[0]
        noisy: dict[tuple[str, float], list[_Figures]] = {}
        if draws:
            vectors = held.signals["embedding"]
            spread = deviations(vectors)
            for level in varied.noise:
                for draw in range(varied.seeds):
                    moved = with_noise(vectors, np.float32(level) * spread, held.recipe.seed, draw)
                    for name, run in runs_of(_varied(held, vectors=moved), readers).items():
                        noisy.setdefault((name, level), []).append(_compared(base[name], run))
                    bar.update()
    other = {} if second is None or second.held is None else runs_of(second.held, readers)
    records: list[Agreement] = []
    for scorer in scorers:
        name = scorer.name
        unread = "" if scorer in readers else UNREAD
        pairs = combinations([runs[name] for runs in by_seed], 2)
        records.append(_agreement(name, "seed", [_compared(*pair) for pair in pairs]))
        records.extend(
            _agreement(name, "noise", noisy.get((name, level), []), noise=level, note=unread)
            for level in varied.noise
        )
        if second is not None:
            found = [_compared(base[name], other[name])] if name in other else []
            records.append(_agreement(name, "embedder", found, note=unread))
    first = next(iter(base.values()))
    return Stability(
        tuple(records),
        held.recipe.pinned(held.samples.revision),
        len(held.samples),
        len(held.rows),
        int(first.kept.sum()),
        varied.seeds,
        tuple(varied.noise),
        None if second is None else second.names,
        budget.keep_tokens,
    )


def deviations(vectors: Matrix) -> NDArray[np.float32]:
    """Give the standard deviation of every dimension over the rows; float32 (d,)."""
    from datapruner.geometry.blocks import iter_blocks

    n, d = vectors.shape
    mean, square = np.zeros((2, d))
    for _, _, block in iter_blocks(vectors):
        mean += block.sum(axis=0, dtype=np.float64) / n
    for _, _, block in iter_blocks(vectors):
        square += ((block - mean) ** 2).sum(axis=0) / n
    return np.sqrt(square).astype(np.float32)


def with_noise(vectors: Matrix, scale: NDArray[np.float32], seed: int, draw: int) -> NDArray[np.float32]:
    """Add Gaussian noise; a draw has the same shape at every scale, so that levels differ in the level alone.

    Parameters
    ----------
    vectors : Matrix, shape (n, d)
    scale : ndarray, float32, shape (d,)
        Standard deviation in every dimension.
    seed, draw : int
    """
    from datapruner.geometry.blocks import iter_blocks

    rng = np.random.default_rng([seed, draw])
    out = np.empty(vectors.shape, dtype=np.float32)
    for start, stop, block in iter_blocks(vectors):
        out[start:stop] = block + scale * rng.standard_normal(block.shape, dtype=np.float32)
    return out


class _Run(NamedTuple):
    """What one run of one scorer kept, its scores, and the rows it had to keep."""

    kept: Flags
    values: Floats
    forced: Flags


def _varied(held: Measured, *, seed: int | None = None, vectors: Matrix | None = None) -> Measured:
    """Give the same measurements under another seed or with other vectors; what follows from these is made again."""
    from datapruner.signals.plan import measure_shape

    recipe = held.recipe if seed is None else held.recipe.model_copy(update={"seed": seed})
    measured = dict(held.signals.measured)
    if vectors is not None:
        measured["embedding"] = vectors
    again = {name: name in measured for name in ("neighbours", "manifold")}
    if any(again.values()):
        measured |= measure_shape(recipe, measured["embedding"], held.store, **again)
    return held._replace(recipe=recipe, signals=replace(held.signals, measured=measured, seed=recipe.seed))


class _Figures(NamedTuple):
    """What two runs have in common, and what two random selections of their sizes would."""

    jaccard: float
    chance: float
    spearman: float | None


def _compared(first: _Run, second: _Run) -> _Figures:
    return _Figures(
        jaccard(first.kept, second.kept),
        chance(
            (int(first.kept.sum()), int(second.kept.sum())),
            (np.isfinite(first.values), np.isfinite(second.values)),
            first.forced,
        ),
        correlation(first.values, second.values),
    )


def _agreement(
    scorer: str,
    varied: Literal["seed", "noise", "embedder"],
    found: Sequence[_Figures],
    *,
    noise: float | None = None,
    note: str = "",
) -> Agreement:
    if not found:
        return Agreement(scorer, varied, noise, note=note)
    overlaps, levels, ranks = zip(*found, strict=True)
    return Agreement(
        scorer,
        varied,
        noise,
        comparisons=len(found),
        jaccard=_mean(overlaps),
        jaccard_sd=_deviation(overlaps),
        chance=_mean(levels),
        spearman=_mean(ranks),
        spearman_sd=_deviation(ranks),
        note=note,
    )


def _mean(figures: Sequence[float | None]) -> float | None:
    """Of what is not known there is no mean."""
    known = [found for found in figures if found is not None]
    return float(np.mean(known)) if len(known) == len(figures) else None


def _deviation(figures: Sequence[float | None]) -> float | None:
    """Give the standard deviation of a sample; of one figure there is none."""
    known = [found for found in figures if found is not None]
    return float(np.std(known, ddof=1)) if len(known) == len(figures) > 1 else None


def _name(embedder: Any) -> str:
    """Name what gives vectors without saying where on this machine it lies."""
    if isinstance(embedder, str | Path):
        text = str(embedder)
        return Path(text).name if expanded(Path(text)).is_absolute() or text.startswith(".") else text
    return "given array" if isinstance(embedder, np.ndarray | list) else type(embedder).__name__


def _cell(record: Agreement) -> str:
    if record.jaccard is None:
        return record.note
    spread = "" if record.jaccard_sd is None else f" ± {figure(record.jaccard_sd)}"
    return f"{figure(record.jaccard)}{spread}; {figure(record.spearman)}"
