"""A comparison as files: JSON, a CSV file a table, and what its page says beside the selections."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datapruner.arrays import Floats
from datapruner.comparison.compared import AtBudget
from datapruner.comparison.frames import Frames
from datapruner.files.paths import expanded
from datapruner.outputs.folder import whole_folder
from datapruner.outputs.report import Section, require_report, write_report
from datapruner.outputs.tables import as_saved, write_csv, write_json
from datapruner.recipe import method_of

if TYPE_CHECKING:
    from pandas import DataFrame


def sections(comparison: Frames) -> list[Section]:
    """Give what the page says of a comparison beside its selections."""
    found = []
    if comparison.stability is not None:
        head, *rows = comparison.stability.table()
        told = (
            "How much of the first budget's rows is kept again when seeds, vectors or the embedder vary: Jaccard, "
            "mean ± deviation; then the rank correlation of the scores."
        )
        found.append(Section("What moves the selections", told, ["scorer", *head[1:]], rows))
    if comparison.left_out:
        rows = [list(one) for one in comparison.left_out.items()]
        found.append(Section("Scorers that were left out", "", ["scorer", "why"], rows))
    return found


def save(comparison: Frames, path: Path, *, overwrite: bool, report: bool) -> Path:
    """Write the files; see :meth:`datapruner.comparison.result.Comparison.save`."""
    if report:
        require_report()
    path, names, scores = expanded(path), comparison.names, comparison.scores
    # Of the one selection that its recipe is asked of, only what all of them share is saved.
    recipe = next(iter(comparison.selections.values())).recipe
    shared = {"scorer": None, "selector": None, "keep": None, "keep_tokens": None}
    ran = [method for method in recipe.scorers if method.name in names]
    recipe = recipe.model_copy(update={**shared, "scorers": ran})
    frames = {
        "pairs": comparison.to_frame(),
        "groups": comparison.groups_frame(),
        "balance": comparison.balance_frame(),
        "lengths": comparison.lengths_frame(),
        "diversity": comparison.diversity_frame(),
        "scores": comparison.scores_frame(),
        "disagreements": comparison.disagreements_frame(),
    }
    matrices = {"overlap": _cells(comparison.overlap), "correlation": _cells(comparison.correlation)}
    held = {
        "rows": len(scores),
        "eligible": len(comparison.rows),
        "budgets": [_budget(at) for at in comparison.budgets],
        "scorers": [
            {
                "name": name,
                "parameters": method_of(name, scores.scorers[name].parameters(), named=False).parameters,
                "selector": selection.selector.name,
            }
            for name, selection in comparison.selections.items()
        ],
        "left_out": dict(comparison.left_out),
        "correlation": matrices["correlation"],
        **{name: _records(frame) for name, frame in frames.items() if name != "pairs"},
        "recipe": as_saved(recipe, path),
    }
    with whole_folder(path, overwrite=overwrite, reads=recipe.reads) as folder:
        write_json(folder / "comparison.json", held)
        for name, matrix in matrices.items():
            rows = [[scorer, *row] for scorer, row in zip(names, matrix, strict=True)]
            write_csv(folder / f"{name}.csv", ["scorer", *names], rows)
        for name, frame in frames.items():
            write_csv(folder / f"{name}.csv", list(frame.columns), _plain(frame))
        if comparison.stability is not None:
            comparison.stability.write(folder, path)
        if report:
            write_report(
                folder / "report.html", comparison.every, sections=sections(comparison), by=comparison.by
            )
    return path


def _budget(at: AtBudget) -> dict[str, Any]:
    return {
        "budget": at.label,
        "keep": at.budget.keep,
        "keep_tokens": at.budget.keep_tokens,
        "kept": {name: len(selection) for name, selection in at.selections.items()},
        "overlap": _cells(at.overlap),
        "chance": _cells(at.chance),
    }


def _cells(matrix: Floats) -> list[list[float | None]]:
    return [[None if np.isnan(held) else held for held in row] for row in matrix.tolist()]


def _plain(frame: DataFrame) -> list[list[Any]]:
    """Give a table's rows as Python's own values, None where there is no figure."""
    rows: list[list[Any]] = frame.astype(object).where(frame.notna(), None).to_numpy().tolist()
    return rows


def _records(frame: DataFrame) -> list[dict[str, Any]]:
    return [dict(zip(frame.columns, row, strict=True)) for row in _plain(frame)]
