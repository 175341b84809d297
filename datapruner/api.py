"""The verbs: score, select, prune, explain; every other way in ends here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datapruner.errors import DataPrunerError
from datapruner.recipe import Recipe, load_recipe, make_recipe, method_of, plain
from datapruner.samples import load_samples
from datapruner.scorers import make_scorer, scorer_class
from datapruner.scorers.base import Ranking, Scorer
from datapruner.selection.budget import Amount, Budget
from datapruner.selection.cleaning import clean_embeddings, clean_texts, without
from datapruner.selection.result import Scores, Selection
from datapruner.selection.selectors import Selector, make_selector
from datapruner.selection.vetoes import Vetoes
from datapruner.signals import Signals
from datapruner.signals.store import SignalStore

if TYPE_CHECKING:
    from datapruner.models.embedders import Encoder
    from datapruner.samples.base import Samples


SELECTING = frozenset({"scorer", "selector", "keep", "keep_tokens", "quotas"})
"""A recipe's fields of the selection; `per_group` is taken, to find a typo before a model runs."""


def score(
    source: Any,
    *,
    scorers: str | Scorer | Sequence[str | Scorer] = "concept_complexity",
    embeddings: str | Path | ArrayLike | None = None,
    embedder: str | Encoder = "minilm",
    always_keep: str | ArrayLike | None = None,
    never_keep: str | ArrayLike | None = None,
    dedup: bool | Sequence[str] = False,
    count_tokens: bool = False,
    cache: str | Path | None = None,
    progress: bool = True,
    **options: Any,
) -> Scores:
    """Rank every row with one or more scorers, in as few passes as they need together.

    Parameters
    ----------
    source : str, Path, Dataset, DatasetDict, list of dict or DataFrame
        A hub name ``org/name[:config][@revision]``, a file, a glob, a folder, or data in memory.
    scorers : str, Scorer, or a sequence of them
        Names from ``datapruner scorers``, or objects with parameters of their own.
    embeddings : path or array of shape (n, d), optional
        Vectors that exist already: ``.npy``, ``.parquet`` or an array.
    embedder : str or Encoder
        Alias, path or hub name; or any object with ``encode(list[str])``.
    always_keep, never_keep : str or array, optional
        A boolean column's name, a boolean mask, or row numbers.
    dedup : bool or sequence of {"exact", "near", "semantic"}
        True means exact and near.
    count_tokens : bool
        Count tokens even if no scorer needs them, for token budgets later on.
    cache : path, optional
        Folder of the signals; default ``DATAPRUNER_CACHE``, else the user's cache folder.
    progress : bool
        Show progress on a terminal.
    **options
        Any other field of :class:`datapruner.recipe.Recipe`: ``split``, ``columns``, ``layout``, ``embed``,
        ``pooling``, ``max_length``, ``tokenizer``, ``near_threshold``, ``decontaminate``, ``seed``, ...

    Returns
    -------
    Scores

    Raises
    ------
    DataPrunerError
        Anything the user can put right.
    """
    for name in SELECTING & options.keys():
        raise DataPrunerError(
            f"score takes no '{name}': it ranks with `scorers`, and `select` on its result spends a budget"
        )
    methods: list[Any] = list(scorers) if isinstance(scorers, list | tuple) else [scorers]
    made = [make_scorer(method) for method in methods]
    if not isinstance(embedder, str) and not hasattr(embedder, "encode"):
        raise DataPrunerError(f"an embedder is a name or an object with `encode`, not {embedder!r}")
    named = isinstance(source, str | Path)
    objects = {
        "source": not named,
        "embeddings": embeddings is not None and not isinstance(embeddings, str | Path),
        "embedder": not isinstance(embedder, str),
        **{f"scorer {scorer.name}": not _is_registered(scorer) for scorer in made},
    }
    recipe = make_recipe(
        source=str(source) if named else None,
        in_memory=[name for name, held in objects.items() if held],
        scorers=[method_of(scorer.name, _changed(scorer), named=_is_registered(scorer)) for scorer in made],
        embeddings=str(embeddings) if isinstance(embeddings, str | Path) else None,
        embedder=embedder if isinstance(embedder, str) else "minilm",
        always_keep=_mask_field(always_keep),
        never_keep=_mask_field(never_keep),
        dedup=_steps(dedup),
        count_tokens=count_tokens,
        **options,
    )
    return run_scores(
        recipe,
        scorers=made,
        source=None if named else source,
        embeddings=None if isinstance(embeddings, str | Path) else embeddings,
        embedder=None if isinstance(embedder, str) else embedder,
        masks={"always_keep": always_keep, "never_keep": never_keep},
        cache=cache,
        progress=progress,
    )


def prune(
    source: Any,
    *,
    scorer: str | Scorer = "concept_complexity",
    keep: Amount | None = None,
    keep_tokens: int | None = None,
    per_group: str | None = None,
    quotas: Mapping[str, Amount] | None = None,
    selector: str | Selector | None = None,
    **options: Any,
) -> Selection:
    """Choose the rows to train on.

    Parameters
    ----------
    source : str, Path, Dataset, DatasetDict, list of dict or DataFrame
        See :func:`score`.
    scorer : str or Scorer
    keep : float or int, optional
        A float in (0, 1] is a fraction of the rows, an int a number of rows.
    keep_tokens : int, optional
        Supervised tokens instead of rows.
    per_group : str, optional
        Column whose values share the budget in proportion to their size.
    quotas : mapping, optional
        Group -> its own fraction or number; the others share what is left.
    selector : str or Selector, optional
        Default: the one the method was published with.
    **options
        Everything :func:`score` takes.

    Returns
    -------
    Selection
        ``selection.dataset`` is the pruned dataset; ``save``, ``rebudget``, ``explain`` do the rest.

    Raises
    ------
    DataPrunerError
        Anything the user can put right.
    """
    if "scorers" in options:
        raise DataPrunerError("prune takes one `scorer`; use datapruner.score for several `scorers`")
    # Refused before a model runs, not after.
    Budget(keep, keep_tokens, per_group, {} if quotas is None else quotas)
    chooser = None if selector is None else make_selector(selector)
    counted = options.pop("count_tokens", False) or keep_tokens is not None
    scores = score(source, scorers=scorer, count_tokens=counted, per_group=per_group, **options)
    return scores.select(
        keep=keep, keep_tokens=keep_tokens, per_group=per_group, quotas=quotas, selector=chooser
    )


def run(recipe: str | Path | Recipe, **objects: Any) -> Selection:
    """Do again what a recipe says.

    Parameters
    ----------
    recipe : path or Recipe
        As saved beside a result.
    **objects
        ``cache`` and ``progress`` as in :func:`score`.
    """
    plan = load_recipe(Path(recipe)) if isinstance(recipe, str | Path) else recipe.located()
    held = plan.in_memory or ["source"] * (plan.source is None)
    if held:
        raise DataPrunerError(
            f"this recipe was made with what was in memory ({', '.join(held)}); call datapruner.prune with "
            "the same again"
        )
    Budget(plan.keep, plan.keep_tokens, plan.per_group, plan.quotas)
    chooser = None if plan.selector is None else make_selector(plan.selector.name, plan.selector.parameters)
    scores = run_scores(plan, **objects)
    return scores.select(
        plan.scorer,
        keep=plan.keep,
        keep_tokens=plan.keep_tokens,
        per_group=plan.per_group,
        quotas=plan.quotas,
        selector=chooser,
    )


def read_samples(recipe: Recipe, source: Any = None, *, embeddings_given: bool = False) -> Samples:
    """Load the rows that a recipe names, or those given in memory; what could not be saved is refused now."""
    from datapruner.outputs.dataset import check_format, check_splits

    given = (
        embeddings_given
        or bool(recipe.embeddings or recipe.embedding_column)
        or "embeddings" in recipe.in_memory
    )
    samples = load_samples(
        recipe.source if source is None else source,
        split=recipe.split,
        columns=recipe.columns,
        layout=recipe.layout,
        embeddings_given=given,
    )
    splits = {samples.split: samples.dataset, **samples.others}
    if source is None:  # data in memory may stay there
        check_splits(splits)
    check_format(splits, recipe.format)
    return samples


def run_scores(
    recipe: Recipe,
    *,
    scorers: Sequence[Scorer] | None = None,
    source: Any = None,
    embeddings: Any = None,
    embedder: Encoder | None = None,
    masks: Mapping[str, Any] | None = None,
    cache: str | Path | None = None,
    progress: bool = True,
) -> Scores:
    """Carry out the scoring half of a recipe: read, clean, measure, rank.

    Parameters
    ----------
    recipe : Recipe
    scorers, source, embeddings, embedder, masks
        Objects that stand in for what the recipe names.
    cache, progress
        As in :func:`score`.
    """
    from datapruner.signals.plan import make_plan, measure_embedding, measure_tokens

    made = (
        list(scorers) if scorers is not None else [make_scorer(m.name, m.parameters) for m in recipe.scorers]
    )
    names = [scorer.name for scorer in made]
    if len(set(names)) != len(names) or not names:
        raise DataPrunerError(f"every scorer must be named once, not {', '.join(names) or 'none'}")
    plan = make_plan(recipe, made)
    samples = read_samples(recipe, source, embeddings_given=embeddings is not None)
    n = len(samples)
    if recipe.per_group is not None:
        samples.check_column(recipe.per_group)
    test_texts = None if recipe.decontaminate is None else _test_texts(recipe)

    for name, mask in (masks or {}).items():
        _check_length(mask, n, name)
    forced = _mask(recipe.always_keep, samples, "always_keep")
    vetoes: list[Vetoes] = []
    rows = np.arange(n, dtype=np.int64)
    banned = _mask(recipe.never_keep, samples, "never_keep")
    if banned.any():
        if (both := banned & forced).any():
            raise DataPrunerError(f"row {int(np.argmax(both))} is to be kept always and never")
        listed = np.flatnonzero(banned)
        vetoes.append(
            Vetoes(
                "never_keep", listed, np.full(listed.size, -1), np.ones(listed.size), "on the never-keep list"
            )
        )
        rows = without(rows, vetoes[-1])

    if plan.cleaning:
        found, rows = clean_texts(recipe, samples, test_texts, rows, forced)
        vetoes += found
    measured: dict[str, Any] = {}
    if plan.embedding:
        _require_rows(rows)
        matrix = measure_embedding(
            recipe,
            samples,
            rows,
            SignalStore(None if cache is None else Path(cache).expanduser()),
            embeddings=embeddings,
            embedder=embedder,
            progress=progress,
        )
        before = rows
        found, rows = clean_embeddings(recipe, matrix, rows, forced)
        vetoes += found
        measured["embedding"] = matrix
        if len(rows) < len(before):
            from datapruner.geometry.blocks import RowView

            measured["embedding"] = RowView(matrix, np.searchsorted(before, rows))
    _require_rows(rows)
    tokens = measure_tokens(recipe, samples, required=plan.tokens_required) if plan.tokens else {}
    measured |= {name: counted[rows] for name, counted in tokens.items()}
    if plan.text:
        measured["text"] = samples.texts("both", None if len(rows) == n else rows)

    signals = Signals(len(rows), measured, recipe.seed, rows)
    rankings: dict[str, Ranking] = {scorer.name: scorer.score(signals).scatter(rows, n) for scorer in made}
    return Scores(samples, recipe, dict(zip(names, made, strict=True)), rankings, vetoes, forced, tokens)


def _require_rows(rows: NDArray[np.int64]) -> None:
    if not len(rows):
        raise DataPrunerError("cleaning dropped every row; clean less")


def _test_texts(recipe: Recipe) -> list[str]:
    """Read the test set's prompts; its ``test`` split where it has one and none was named."""
    try:
        tests = load_samples(
            recipe.decontaminate,
            split=recipe.decontaminate_split,
            columns=recipe.decontaminate_columns,
            prefer="test",
        )
    except DataPrunerError as error:
        said = str(error).replace("--columns", "--decontaminate-columns")
        raise DataPrunerError(f"the test set: {said}") from error
    return [sample.part("both") if sample.plain else sample.part("prompt") for sample in tests]


def _is_registered(scorer: Scorer) -> bool:
    """Whether a recipe can build it again by its name."""
    try:
        return scorer_class(scorer.name) is type(scorer)
    except DataPrunerError:
        return False


def _changed(scorer: Scorer) -> dict[str, Any]:
    """Give the parameters that differ from the defaults."""
    from dataclasses import MISSING, fields

    out = {}
    for spec in fields(scorer):
        value = getattr(scorer, spec.name)
        default = spec.default if spec.default_factory is MISSING else spec.default_factory()
        if default is MISSING or not _same(value, default):
            out[spec.name] = value
    return out


def _same(first: Any, second: Any) -> bool:
    try:
        return bool(plain(first, "") == plain(second, ""))
    except DataPrunerError:
        return first is second


def _steps(dedup: Any) -> Any:
    """Give the cleaning steps by name; what is none of them is left for the recipe to refuse."""
    if isinstance(dedup, bool):
        return ["exact", "near"] if dedup else []
    return list(dedup) if isinstance(dedup, tuple) else dedup


def _check_length(mask: Any, n: int, what: str) -> None:
    array = np.asarray(mask)
    if array.dtype.kind == "b" and len(array) != n:
        raise DataPrunerError(f"{what} has {len(array)} entries, but the dataset has {n} rows")


def _mask_field(value: str | ArrayLike | None) -> str | list[int] | None:
    """Turn a mask or row numbers into what a recipe holds."""
    if value is None or isinstance(value, str):
        return value
    array = np.asarray(value)
    if array.size == 0 and array.ndim == 1:
        return None
    if array.ndim != 1 or array.dtype.kind not in "bui":
        raise DataPrunerError(
            "always_keep and never_keep take a column's name, a boolean mask or row numbers"
        )
    listed: list[int] = (np.flatnonzero(array) if array.dtype.kind == "b" else array).tolist()
    return listed


def _mask(value: str | list[int] | None, samples: Samples, what: str) -> NDArray[np.bool_]:
    mask = np.zeros(len(samples), dtype=np.bool_)
    if value is None:
        return mask
    if isinstance(value, str):
        column = samples.column(value)
        for row, cell in enumerate(column):
            if cell is not None and not isinstance(cell, bool):
                raise DataPrunerError(
                    f"{what}: column '{value}', row {row}, holds {cell!r}, not true or false"
                )
        return np.array([bool(cell) for cell in column], dtype=np.bool_)
    for row in value:
        if not 0 <= row < len(mask):
            raise DataPrunerError(
                f"{what} names row {row}, but the dataset has {len(mask)} rows, counted from 0"
            )
    mask[value] = True
    return mask
