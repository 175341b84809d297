"""What a page's template writes itself: the summary, a comparison's tables, the methods."""

from __future__ import annotations

from typing import Any

import numpy as np

from datapruner.outputs.card import source_name
from datapruner.outputs.report.contrasts import comparison_words
from datapruner.outputs.report.made import how_it_was_made, recipe_text
from datapruner.outputs.report.shown import Shown
from datapruner.outputs.report.summary import selection_words
from datapruner.outputs.tables import figure
from datapruner.outputs.warnings import comparison_warnings, warning_words
from datapruner.outputs.wording import by_budget, counted, listed, percent
from datapruner.overlap import correlation, jaccard
from datapruner.ranks import rank_correlation
from datapruner.reasons import KEPT, OVER_BUDGET
from datapruner.results.selected import Selected
from datapruner.text import safe_text

COLOURS = 6
"""Of causes other than the budget; they come again where there are more causes."""


def title_of(shown: Shown) -> str:
    """Give the page's title: what was kept, or how much is compared."""
    first = shown.selections[0]
    if len(shown.selections) > 1:
        scorers = len({selection.scorer for selection in shown.selections})
        return f"{f'{scorers} scorers' if scorers > 1 else f'{len(shown.selections)} budgets'} compared"
    return f"{len(first):,} of {counted(len(first.kept), 'row')} kept"


def facts_of(shown: Shown) -> dict[str, Any]:
    """Give what the template writes itself: the summary, the tables of a comparison, the methods."""
    first = shown.selections[0]
    several = len(shown.selections) > 1
    if several:
        words = comparison_words(shown.selections, shown.facets, shown.lengths, shown.unit)
    else:
        words = selection_words(first, shown.facets, shown.lengths, shown.unit)
    samples = shown.scores.samples
    return {
        "several": several,
        "crowded": len(shown.scores.rankings) > 1,
        "apart": shown.disagreement is not None,
        "source": source_name(shown.scores),
        "split": samples.split,
        "revision": samples.revision or "",
        "words": words,
        "warnings": comparison_warnings(shown.selections, shown.labels)
        if several
        else warning_words(first, shown.labels),
        "sampled": shown.sampled,
        "fates": [] if several else _fates(first),
        "parts": [] if several else [one.cells() for one in first.summary.parts],
        "overlaps": _overlaps(shown) if several else [],
        "table": _table(shown) if several else [],
        "unit": shown.unit,
        "names": shown.names,
        "left_out": listed(shown.left_out),
        "methods": _methods(shown),
        "made": how_it_was_made(first),
        "held": first.recipe.in_memory,
        "recipe": recipe_text(first).splitlines(),
    }


def _fates(selection: Selected) -> list[dict[str, Any]]:
    n = len(selection.kept)
    return [
        {
            "words": selection.reasons_by_code[name].label,
            "count": f"{count:,}",
            "share": percent(count, n),
            "width": f"{100 * count / n:.3f}",
            "colour": {KEPT: 0, OVER_BUDGET: 1}.get(name, 2 + (place - 1) % COLOURS),
        }
        for place, (name, count) in enumerate(selection.counts().items())
    ]


def _overlaps(shown: Shown) -> list[dict[str, Any]]:
    """Give a matrix for every budget: Jaccard of what is kept; and one of the scores' rank correlation."""
    out, budgets = [], by_budget(shown.selections)
    for numbers in budgets:
        held = [shown.selections[number] for number in numbers]
        words = held[0].budget.describe()
        matrix = [[jaccard(a.kept, b.kept) for b in held] for a in held]
        names = [selection.scorer for selection in held]
        if len(set(names)) < len(names):
            names = [shown.names[number] for number in numbers]
        if len(names) > 1:
            title = f"Overlap at {words}" if len(budgets) > 1 else "Overlap of the kept rows"
            text = "Rows that both keep, as a share of the rows that either keeps (Jaccard)."
            out.append(_matrix(title, text, names, matrix))
    scorers = list(dict.fromkeys(selection.scorer for selection in shown.selections))
    if len(scorers) > 1:
        places = np.stack([shown.places[name] for name in scorers])
        ranks = rank_correlation(list(places[:, np.isfinite(places).all(axis=0)]))
        text = "Spearman's, over all scored rows; a dash where a scorer gave all rows the same score."
        out.append(_matrix("Rank correlation of the scores", text, scorers, ranks.tolist()))
    return out


def _matrix(title: str, text: str, names: list[str], values: list[list[float]]) -> dict[str, Any]:
    """Give a table of every name beside every name, and how warm each cell is."""
    return {
        "title": title,
        "text": text,
        "names": names,
        "cells": [
            [
                {"text": figure(value).replace("-", "−"), "heat": f"{max(np.nan_to_num(value), 0):.3f}"}
                for value in row
            ]
            for row in values
        ],
    }


def _table(shown: Shown) -> list[list[str]]:
    """Give a line for every selection: what it kept, and how long these rows are."""
    lines = []
    for name, selection in zip(shown.names, shown.selections, strict=True):
        line = [name, selection.selector.name, selection.budget.describe(), f"{len(selection):,}"]
        if shown.lengths is not None:
            related = correlation(selection.values, shown.lengths.astype(np.float64))
            line += [
                f"{np.median(shown.lengths[selection.kept]):,.0f}",
                figure(related).replace("-", "−"),
            ]
        lines.append(line)
    return lines


def _methods(shown: Shown) -> list[dict[str, str]]:
    """Say where each scorer comes from, and with which parameters it ran."""
    out = []
    for name in dict.fromkeys(selection.scorer for selection in shown.selections):
        scorer = shown.scores.scorers[name]
        settings = ", ".join(f"{key}={value}" for key, value in scorer.parameters().items())
        out.append(
            {
                "name": name,
                "what": (type(scorer).__doc__ or "").strip().partition("\n")[0],
                "settings": safe_text(settings, 400),
                "paper": scorer.paper,
                "provenance": scorer.provenance,
            }
        )
    return out
