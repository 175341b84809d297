"""Tables for a terminal and for files, of which the same figures give the same bytes."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from datapruner.text import safe_lines, safe_text

if TYPE_CHECKING:
    from datapruner.recipe import Recipe


FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a spreadsheet's formula begins with, as OWASP lists it, the wide forms too."""


def figure(value: float | None) -> str:
    """Give two decimals; a dash where there is no figure, and no minus before zero."""
    return "-" if value is None or math.isnan(value) else f"{round(value, 2) + 0.0:.2f}"


def aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    """Lay out rows of cells as lines of a table, the first column to the left."""
    shown = [[safe_text(cell, 60) for cell in row] for row in cells]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return [
        "  ".join(
            [
                "",
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
        ).rstrip()
        for row in shown
    ]


def as_saved(recipe: Recipe, path: Path) -> dict[str, Any]:
    """Give a recipe as it is saved at ``path``: what differs from the defaults, without absolute paths."""
    saved: dict[str, Any] = yaml.safe_load(recipe.save_yaml(path)) or {}
    return saved


def write_json(file: Path, held: Mapping[str, Any]) -> None:
    """Write JSON of which the same figures give the same bytes; what a terminal would act on is escaped."""
    lines = json.dumps(held, indent=2, ensure_ascii=False, allow_nan=False).split("\n")
    text = "\n".join(line if line.isprintable() else "".join(map(_escaped, line)) for line in lines)
    file.write_text(f"{text}\n", encoding="utf-8")


def _escaped(character: str) -> str:
    return character if safe_text(character) == character else json.dumps(character)[1:-1]


def write_csv(file: Path, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write a table; nothing stands where there is no figure.

    No text reads as a spreadsheet's formula, and what a terminal would act on is a visible escape.
    """
    with file.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow([_inert(cell) for cell in head])
        writer.writerows([[_inert(cell) for cell in row] for row in rows])


def _inert(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    shown = safe_lines(cell)
    return f"'{shown}" if cell.startswith(FORMULA) else shown
