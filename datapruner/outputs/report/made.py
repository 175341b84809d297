"""How a result was made, and what pruning a model broke: what a page says beside its rows."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datapruner.intervals import mean_interval, with_interval
from datapruner.outputs.wording import percent
from datapruner.text import safe_text
from datapruner.version import __version__

if TYPE_CHECKING:
    from datapruner.outputs.facets import Facet
    from datapruner.recipe import Recipe
    from datapruner.results.selected import Selected
    from datapruner.samples.sample import Layout

LIBRARIES = (
    "torch",
    "transformers",
    "sentence-transformers",
    "datasets",
    "faiss-cpu",
    "scikit-learn",
    "numpy",
)
"""Those that numbers come from."""
MOST_GROUPS = 30


@dataclass(frozen=True)
class Section:
    """A part of a page that its writer adds.

    Attributes
    ----------
    title : str
    text : str
        A paragraph.
    head : sequence of str
        Names of a table's columns.
    rows : sequence of sequence of str
        Its cells, written as they are to be read; the first of each row names it.
    """

    title: str
    text: str = ""
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


def how_it_was_made(selection: Selected) -> list[tuple[str, str]]:
    """Say which models, thresholds and seed a result comes from, and which versions made it: names and texts."""
    recipe, samples = selection.recipe, selection.scores.samples
    told = {
        "Rows": "; ".join(
            f"{source} read as {_roles(layout)}".strip()
            for source, layout in samples.layouts or [("", samples.layout)]
        ),
        "Language model": _model(recipe),
        "Pruned model": _named(recipe, "pruned_model"),
        "Reference model": _named(recipe, "reference_model"),
        "Divergences": _named(recipe, "divergences"),
        "Classifier": _named(recipe, "classifier"),
        "Judge": _named(recipe, "judge"),
        "Vectors": _vectors(selection),
        "Cleaning": _cleaning(recipe),
        "Target": _named(recipe, "target"),
        "Seed": str(recipe.seed),
        "Versions": ", ".join(
            [f"datapruner {__version__}", f"Python {platform.python_version()}", *_versions()]
        ),
    }
    return [(name, safe_text(text, 400)) for name, text in told.items() if text]


def _roles(layout: Layout) -> str:
    read = ", ".join(f"{role}: {column}" for role, column in layout.columns.items())
    return layout.name + (f" ({read})" if read else "")


def recipe_text(selection: Selected) -> str:
    """Give the recipe as it can be copied: of paths, the last part alone, since a page is handed on."""
    # The source's hash is a saved recipe's: it is not known before the result is written, and says nothing to a reader.
    return selection.recipe.taken_as_it_is.save_yaml(None)


def _named(recipe: Recipe, field: str) -> str:
    """Give what a field names: of a path, its last part."""
    value = getattr(recipe, field)
    if value is None:
        return f"{field.replace('_', ' ')} given in memory" if field in recipe.in_memory else ""
    if isinstance(value, dict):  # a task each
        return ", ".join(f"{name}: {Path(of).name}" for name, of in value.items())
    return Path(value).name if recipe.path(field) is not None else str(value)


def _model(recipe: Recipe) -> str:
    name = _named(recipe, "model")
    if not name:
        return ""
    told = [name, f"rows cut at {recipe.max_length:,} tokens" if recipe.max_length else ""]
    told += [f"adapter {_named(recipe, 'adapter')}" if recipe.adapter else "", recipe.quantize or ""]
    told += [
        recipe.dtype if recipe.dtype != "auto" else "",
        "last turn only" if recipe.last_turn_only else "",
    ]
    return ", ".join(part for part in told if part)


def _vectors(selection: Selected) -> str:
    recipe, scores = selection.recipe, selection.scores
    reads = {"embedding", "manifold", "neighbours"}
    if (
        not any(reads & scorer.requires for scorer in scores.scorers.values())
        and "semantic" not in recipe.dedup
    ):
        return ""
    if recipe.embedding_column is not None:
        return f"column {recipe.embedding_column}"
    if recipe.has("embeddings"):
        return _named(recipe, "embeddings")
    if scores.samples.layout.name == "embedding":
        return "given with the rows"
    name = "embedder given in memory" if "embedder" in recipe.in_memory else _named(recipe, "embedder")
    told = [name, f"of {recipe.embed}" if recipe.embed != "both" else ""]
    if recipe.embedder_max_length is not None:
        told.append(f"{recipe.embedder_max_length:,} tokens of a row")
    return ", ".join(part for part in told if part)


def _cleaning(recipe: Recipe) -> str:
    steps = []
    if "exact" in recipe.dedup:
        steps.append(f"exact duplicates (match {recipe.match})")
    if "near" in recipe.dedup:
        steps.append(f"near duplicates (Jaccard {recipe.near_threshold:g} of {recipe.near_ngram} words)")
    if "semantic" in recipe.dedup:
        steps.append(f"semantic duplicates (1 − cosine {recipe.semantic_eps:g})")
    if recipe.decontaminate is not None:
        steps.append(
            f"decontamination against {_named(recipe, 'decontaminate')} (share {recipe.decontaminate_share:g} of "
            f"{recipe.decontaminate_ngram} words)"
        )
    steps.append(f"rows without an answer: {recipe.on_empty}")
    return "; ".join(steps)


def _versions() -> list[str]:
    found = []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return found


def damage_sections(selections: Sequence[Selected], facets: Sequence[Facet]) -> list[Section]:
    """Tell what pruning the model broke, by the groups of a scorer that compared it with the dense one."""
    for selection in selections:
        columns = selection.scores.rankings[selection.scorer].columns
        facet = next((one for one in facets if one.scorer == selection.scorer), None)
        if "jsd" in columns and facet is not None:
            return [_damage(selection, facet, columns)]
    return []


def _damage(selection: Selected, facet: Facet, columns: Mapping[str, Any]) -> Section:
    jsd = np.asarray(columns["jsd"], dtype=np.float64)
    losses = [np.asarray(columns[name]) for name in ("log_ppl", "pruned_log_ppl") if name in columns]
    scored = np.isfinite(selection.values)
    head = [facet.name, "rows", "divergence, nats [95 %]"]
    head += ["loss before", "loss after", "rise"] if len(losses) == 2 else []
    head += ["kept", "share kept"]

    def line(name: str, of: np.ndarray) -> list[str]:
        held = jsd[of]
        low, high = mean_interval(held, selection.recipe.seed) or (None, None)
        cells = [name, f"{len(held):,}", with_interval(float(held.mean()), low, high)]
        if len(losses) == 2:
            before, after = (float(loss[of].mean()) for loss in losses)
            cells += [f"{before:.3f}", f"{after:.3f}", f"{after - before:+.3f}".replace("-", "−")]
        kept = int((selection.kept & of).sum())
        return [*cells, f"{kept:,}", percent(kept, len(held))]

    groups = [j for j in range(len(facet.names)) if (scored & (facet.codes == j)).any()]
    groups.sort(key=lambda j: -float(jsd[scored & (facet.codes == j)].mean()))
    notes = facet.notes or [""] * len(facet.names)
    rows = [line("all scored rows", scored)]
    rows += [
        line(f"{facet.names[j]} · {notes[j]}" if notes[j] else facet.names[j], scored & (facet.codes == j))
        for j in groups[:MOST_GROUPS]
    ]
    more = (
        f" The {MOST_GROUPS} most damaged of {len(groups)} are listed." if len(groups) > MOST_GROUPS else ""
    )
    text = (
        "Mean Jensen-Shannon divergence of the two models' predictions a supervised token"
        + (", and the mean loss of a row before and after pruning, nats a token" if len(losses) == 2 else "")
        + f". The most damaged first; intervals are of groups of five rows or more.{more}"
    )
    return Section("What pruning the model broke", text, head, rows)
