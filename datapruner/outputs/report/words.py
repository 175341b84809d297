"""The summary: what happened, in sentences made from the figures."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, chdtrc

from datapruner.arrays import Ints
from datapruner.outputs.report.facets import Facet
from datapruner.overlap import jaccard
from datapruner.ranks import average_ranks, rank_correlation
from datapruner.scorers.baselines import BASELINES
from datapruner.text import safe_text

if TYPE_CHECKING:
    from datapruner.results.scored import Scored
    from datapruner.results.selected import Selected


STEPS = {
    "exact_duplicate": ("exact duplicate", "exact duplicates"),
    "near_duplicate": ("near duplicate", "near duplicates"),
    "semantic_duplicate": ("semantic duplicate", "semantic duplicates"),
    "contaminated": ("row that leaks from the test set", "rows that leak from the test set"),
    "no_answer": ("row without an answer", "rows without an answer"),
    "no_supervised_tokens": ("row without supervised tokens", "rows without supervised tokens"),
    "never_keep": ("row on the never-keep list", "rows on the never-keep list"),
}
ENOUGH = 20
"""Rows from which a group's share is compared."""
STARVED, FEWEST = 0.25, 10
"""Part of the whole's share below which a group of so many rows is warned of."""
CHANCE = 0.05
"""Chance, over all of a column's groups, that one is warned of although rows were drawn at random."""
EXPECTED = 5
"""Kept, or dropped, rows of a group that are to be expected for a chi-square."""
MOST_WARNINGS = 3
"""Columns that are warned of one by one."""
NAMED = 5
"""Groups that a sentence names; more are counted."""
TIED = 0.05
"""Share of the rows with one and the same score from which that is said."""
SURPRISE = 3.0
"""Standard errors by which a group's share must differ to be worth a sentence."""
BIAS = 0.2
"""Rank correlation with length from which a score counts as biased."""


def counted(count: int, one: str, many: str | None = None) -> str:
    """Write ``no rows``, ``1 row``, ``1,234 rows``."""
    many = f"{one}s" if many is None else many
    return f"no {many}" if count == 0 else f"1 {one}" if count == 1 else f"{count:,} {many}"


def percent(part: float, whole: float) -> str:
    """Write a share: whole numbers from 10 on, one decimal below, and never 0 or 100 unless it is that."""
    if not whole:
        return "-"
    share = 100 * part / whole
    if 0 < share < 0.1:
        return "under 0.1\u00a0%"
    if share < 9.95:
        return f"{share:.1f}".removesuffix(".0") + "\u00a0%"
    return f"{min(share, 99.9):.1f}\u00a0%" if 99.5 <= share < 100 else f"{share:.0f}\u00a0%"


def share_of_rows(keep: float) -> str:
    """Write a budget's share of the rows to four digits: ``12.5 %``."""
    return f"{100 * keep:.4g}\u00a0%"


def listed(parts: Sequence[str]) -> str:
    """Join words: ``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def selection_words(
    selection: Selected, facets: Sequence[Facet], lengths: Ints | None, unit: str
) -> list[str]:
    """Sum up one selection in sentences."""
    n, kept = len(selection.kept), len(selection)
    what = (
        f"{kept:,} of {counted(n, 'row')} ({percent(kept, n)})"
        if kept < n
        else f"all {counted(n, 'row')}"
        if n > 1
        else "the only row"
    )
    out = [
        f"{_name(selection.scorer)} keeps {what}, chosen by the selector {_name(selection.selector.name)} for a budget "
        f"of {_budget(selection)}."
    ]
    tokens = selection.scores.tokens.get("num_supervised_tokens")
    if tokens is not None and tokens.sum():
        held, whole = int(tokens[selection.kept].sum()), int(tokens.sum())
        out[0] += f" The kept rows hold {percent(held, whole)} of the {counted(whole, 'supervised token')}."
    out += [
        _cleaning(selection.scores),
        *_tokenless(selection),
        *_tokens(selection),
        *_forced(selection.scores),
    ]
    for facet in facets:
        out += _groups(facet, selection)
    if lengths is not None:
        out += _length_bias(selection, lengths, unit)
    return [sentence for sentence in [*out, *_ties(selection)] if sentence]


def by_budget(selections: Sequence[Selected]) -> list[list[int]]:
    """Sort selections' places by budget, in the order in which these come."""
    found: dict[str, list[int]] = {}
    for place, selection in enumerate(selections):
        found.setdefault(selection.budget.describe(), []).append(place)
    return list(found.values())


def _budget(selection: Selected) -> str:
    budget = selection.budget
    if budget.per_group is None and not budget.quotas:
        if isinstance(budget.keep, float):
            return f"{share_of_rows(budget.keep)} of the rows"
        if budget.keep_tokens is not None:
            return counted(budget.keep_tokens, "supervised token")
        return counted(int(budget.keep or 0), "row")
    return budget.describe()


def _cleaning(scores: Scored) -> str:
    """Say what was dropped before any score was looked at, step by step."""
    found: dict[str, int] = {}
    for vetoes in scores.vetoes:
        found[vetoes.kind] = found.get(vetoes.kind, 0) + len(vetoes)
    total = sum(found.values())
    words = [
        counted(count, *STEPS.get(kind, (_name(kind), _name(kind)))) for kind, count in found.items() if count
    ]
    if len(words) == 1:
        return f"Before that, {words[0]} {_be(total)} dropped."
    if total:
        return f"Before that, {counted(total, 'row')} {_be(total)} dropped: {listed(words)}."
    sought = [STEPS[kind][1] for kind in found if kind in STEPS]
    return f"Cleaning looked for {listed(sought)} and found none." if sought else ""


def _tokenless(selection: Selected) -> list[str]:
    count = selection.counts().get("no_supervised_tokens", 0)
    words = counted(count, *STEPS["no_supervised_tokens"])
    return [f"{_upper(words)} {_be(count)} dropped: nothing in them is trained on."] if count else []


def _tokens(selection: Selected) -> list[str]:
    stay, masks = selection.supervised_tokens_kept, selection.token_masks
    if stay is None or masks is None:
        return []
    pruned, gone = int((masks.lengths > 0).sum()), int((~masks.values).sum())
    whole = int(stay.sum()) + gone
    return [
        f"Inside {counted(pruned, 'kept row')}, {counted(gone, 'token')} {_be(gone)} taken out of the loss; "
        f"{percent(int(stay.sum()), whole)} of the kept rows' supervised tokens stay in it."
    ]


def _forced(scores: Scored) -> list[str]:
    forced = int(scores.forced.sum())
    return [f"{counted(forced, 'row')} {_be(forced)} on the always-keep list."] if forced else []


def counted_here(missing: NDArray[np.bool_], scores: Scored, rows: Ints | None = None) -> str:
    """Say how many rows a figure counts or draws, and why the others are missing from it.

    Parameters
    ----------
    missing : ndarray, bool, shape (n,)
    scores : Scored
    rows : ndarray, int64, shape (m,), optional
        The rows that the page shows, where only these are drawn.
    """
    cleaned = np.zeros(len(missing), dtype=np.bool_)
    for vetoes in scores.vetoes:
        cleaned[vetoes.rows] = True
    done, shown = "counted", counted(len(missing), "row")
    if rows is not None:
        missing, cleaned = missing[rows], cleaned[rows]
        done, shown = "drawn", counted(len(rows), "row" if len(rows) == len(scores) else "shown row")
    there, before, other = (int(mask.sum()) for mask in (~missing, missing & cleaned, missing & ~cleaned))
    why = [f"{before:,} {_be(before)} dropped before scoring"] if before else []
    why += [f"{other:,} {'has' if other == 1 else 'have'} no value"] if other else []
    if why:
        return f"{there:,} of {shown} {_be(there, now=True)} {done}; {listed(why)}."
    return f"{'All ' if there > 1 else ''}{shown} {_be(there, now=True)} {done}."


def warning_words(selection: Selected, facets: Sequence[Facet]) -> list[str]:
    """Name the labels of which nothing, or far less than of the whole, is kept, and say what helps."""
    out = []
    for facet in facets:
        starved = _starved(facet, selection)
        if not starved:
            continue
        sizes, taken = facet.sizes, facet.counts(selection.kept)
        scored = facet.counts(np.isfinite(selection.values))
        parts = [
            f"{_group(facet, j)} ({taken[j]:,} of {counted(int(sizes[j]), 'row')}, "
            f"{percent(int(taken[j]), int(sizes[j]))}{'' if scored[j] else '; all were dropped before scoring'})"
            for j in starved
        ]
        sentence = (
            f"By {facet.name}, little or nothing is kept of {listed(_some(parts, NAMED, 'group'))}, against "
            f"{percent(len(selection), len(selection.kept))} of all rows."
        )
        if scored[starved].any() and safe_text(facet.column) == facet.column:
            sentence += f" --per-group {shlex.quote(facet.column)} gives every group its share."
        out.append(sentence)
    return _first(out)


def comparison_warnings(selections: Sequence[Selected], facets: Sequence[Facet]) -> list[str]:
    """Name the labels of which a scorer keeps nothing, or far less than of the whole, at the first budget."""
    out, compared = [], [selections[place] for place in by_budget(selections)[0]]
    start = f"At {_budget(selections[0])}, by" if len(compared) < len(selections) else "By"
    for facet in facets:
        found = [(_name(one.scorer), _starved(facet, one)) for one in compared]
        parts = [
            f"{name} of {listed(_some([_group(facet, j) for j in starved], 2, 'group'))}"
            for name, starved in sorted(found, key=lambda held: -len(held[1]))
            if starved
        ]
        if parts:
            told = "; ".join(_some(parts, NAMED, "scorer"))
            out.append(f"{start} {facet.name}, little or nothing is kept by {told}.")
    return _first(out)


def _first(warnings: list[str]) -> list[str]:
    rest = len(warnings) - MOST_WARNINGS
    more = [f"The same is true of labels in {counted(rest, 'more column')}."] if rest > 0 else []
    return warnings[:MOST_WARNINGS] + more


def _some(parts: Sequence[str], most: int, kind: str) -> list[str]:
    """Give the first parts, and how many more of their kind there are."""
    rest = len(parts) - most
    return [*parts[:most], *([counted(rest, f"more {kind}")] if rest > 0 else [])]


def _starved(facet: Facet, selection: Selected) -> list[int]:
    """Find labels of enough rows that keep under a quarter of the whole's share, the largest first.

    And less than random rows would by chance: a binomial tail, shared by the column's groups (Bonferroni). Clusters
    have no name that could matter to anybody, and a budget by group is shared as it was asked to be.
    """
    if facet.scorer or selection.budget.per_group == facet.column:
        return []
    sizes, taken = facet.sizes, facet.counts(selection.kept)
    share = taken.sum() / max(int(sizes.sum()), 1)
    found = [j for j in np.argsort(-sizes, kind="stable").tolist() if sizes[j] >= FEWEST]
    starved = [j for j in found if taken[j] < STARVED * share * sizes[j]]
    tails = bdtr(taken[starved].astype(np.float64), sizes[starved], share)
    return [j for j, tail in zip(starved, tails.tolist(), strict=True) if tail * len(found) < CHANCE]


def _groups(facet: Facet, selection: Selected) -> list[str]:
    """Name the groups of which strikingly much and little is kept."""
    sizes, taken = facet.sizes, facet.counts(selection.kept)
    there = np.flatnonzero(sizes)
    if len(there) < 2:
        return []
    overall = float(taken.sum() / sizes.sum())
    error = np.sqrt(max(overall * (1 - overall), 1e-12) / sizes[there])
    apart = (taken[there] / sizes[there] - overall) / error
    high, low = int(there[np.argmax(apart)]), int(there[np.argmin(apart)])
    parts = [
        f"strikingly {word} in {_group(facet, j)} ({taken[j]:,} of {sizes[j]:,}, "
        f"{percent(int(taken[j]), int(sizes[j]))})"
        for word, j, far in (("high", high, apart.max()), ("low", low, -apart.min()))
        if far >= SURPRISE
    ]
    if parts:
        return [f"By {facet.name}, the share kept is {listed(parts)}."]
    if _starved(facet, selection):
        return []
    chance = independence(taken, sizes)
    if chance < CHANCE:
        shown = f"p = {chance:.2g}" if chance >= 0.001 else "p under 0.001"
        parts = [
            f"{'the most' if j == high else 'the least'} of {_group(facet, j)} ({taken[j]:,} of {sizes[j]:,}, "
            f"{percent(int(taken[j]), int(sizes[j]))})"
            for j in (high, low)
        ]
        return [
            f"By {facet.name}, the shares kept differ by more than chance allows, taken together (chi-square, "
            f"{shown}), although no one group stands out: {listed(parts)}."
        ]
    emptied = [
        f"{_group(facet, j)} ({counted(int(sizes[j]), 'row')})" for j in there.tolist() if not taken[j]
    ]
    if len(emptied) > NAMED:
        emptied = [f"{counted(len(emptied), 'small group')} of {len(there):,}"]
    few = f", although nothing is kept of {listed(emptied)}" if emptied else ""
    return [f"By {facet.name}, no group's share kept is further from the whole than chance allows{few}."]


def independence(taken: Ints, sizes: Ints) -> float:
    """Give the chance of shares kept that differ as much, were rows drawn at random: Pearson's chi-square.

    Parameters
    ----------
    taken, sizes : ndarray, int64, shape (k,)
        Kept rows and rows of each group. Groups of which fewer than five kept, or five dropped, rows are expected are
        taken together, so that the distribution holds.

    Returns
    -------
    float
        In [0, 1]; 1 where there are fewer than two groups to compare.
    """
    share = float(taken.sum()) / max(int(sizes.sum()), 1)
    small = sizes * min(share, 1 - share) < EXPECTED
    kept = np.append(taken[~small], taken[small].sum()).astype(np.float64)
    rows = np.append(sizes[~small], sizes[small].sum()).astype(np.float64)
    there = rows * min(share, 1 - share) >= EXPECTED
    if there.sum() < 2:
        return 1.0
    kept, rows = kept[there], rows[there]
    share = float(kept.sum() / rows.sum())
    if not 0 < share < 1:
        return 1.0
    return float(chdtrc(len(rows) - 1, ((kept - share * rows) ** 2 / (rows * share * (1 - share))).sum()))


def _group(facet: Facet, j: int) -> str:
    note = facet.notes[j] if facet.notes else ""
    note = note.rpartition(" (")[0] if note.startswith("mostly ") else note
    return (
        f"“{facet.names[j]}”"
        if not facet.scorer
        else f"{facet.name.partition(' ')[0]} {facet.names[j]}{note and f', {note}'}"
    )


def length_correlation(values: NDArray[np.float64], lengths: Ints) -> float:
    """Spearman's of a score with the rows' lengths, over the rows that have a score; NaN where either is constant."""
    there = np.isfinite(values)
    ranks = [average_ranks(values[there]), average_ranks(lengths[there].astype(np.float64))]
    return float(rank_correlation(ranks)[0, 1])


def _length_bias(selection: Selected, lengths: Ints, unit: str) -> list[str]:
    scored = np.isfinite(selection.values)
    names, fates = selection.fates()
    ours, others = lengths[selection.kept & scored], lengths[fates == names.index("over_budget")]
    if not len(ours) or not len(others):
        return []
    one, other = float(np.median(ours)), float(np.median(others))
    alike = "as long as" if one == other else "about as long as" if abs(one - other) <= 0.1 * other else ""
    shape = alike or ("longer than" if one > other else "shorter than")
    words = f"Kept rows are {shape} those that the budget dropped: a median of {one:,.0f} {unit} against {other:,.0f}"
    related = round(length_correlation(selection.values, lengths), 2) + 0.0
    if np.isnan(related):
        return [f"{words}."]
    favours = 0 if abs(related) < BIAS else 1 if related > 0 else -1
    bias = ("hardly depends on length", "favours long rows", "favours short rows")[favours]
    agree = favours == (0 if alike else 1 if one > other else -1)
    return [
        f"{words}{';' if agree else ', although'} the score {bias} "
        f"(rank correlation {f'{related:.2f}'.replace('-', '−')})."
    ]


def _ties(selection: Selected) -> list[str]:
    values = selection.values[np.isfinite(selection.values)]
    if len(values) < 2:
        return []
    _, counts = np.unique(values, return_counts=True)
    most = int(counts.max())
    if most < 2 or most < TIED * len(values):
        return []
    who = "All rows that were scored" if most == len(values) else counted(most, "row")
    return [f"{who} share one score, so that the order of the source decides between them."]


def comparison_words(
    selections: Sequence[Selected], facets: Sequence[Facet], lengths: Ints | None, unit: str
) -> list[str]:
    """Sum up several selections of the same rows in sentences; the baselines are left out where others remain."""
    first = selections[0]
    scorers = list(dict.fromkeys(selection.scorer for selection in selections))
    budgets = [[selections[place] for place in held] for held in by_budget(selections)]
    told = [_budget(held[0]) for held in budgets]
    out = [
        f"{counted(len(scorers), 'scorer')} {'rank' if len(scorers) > 1 else 'ranks'} the same "
        f"{counted(len(first.kept), 'row')}, for {'a budget' if len(budgets) == 1 else f'{len(budgets)} budgets'}: "
        f"{listed(told)}.",
        _cleaning(first.scores),
        *_forced(first.scores),
    ]
    for place, (budget, held) in enumerate(zip(told, budgets, strict=True)):
        compared = [one for one in held if one.scorer not in BASELINES]
        compared = compared if len(compared) > 1 else held
        if len(compared) > 1:
            out += _shared(compared, f"At {budget}: of" if len(budgets) > 1 else "Of")
            if place == 0:
                out += _longest(compared, lengths, unit)
                out += _contrast([facet for facet in facets if not facet.scorer], compared)
    return [sentence for sentence in out if sentence]


def _shared(compared: Sequence[Selected], start: str) -> list[str]:
    """Say how much of what they keep is the same."""
    names = [_name(one.scorer) for one in compared]
    pairs = [
        (jaccard(one.kept, other.kept), names[i], names[j])
        for i, one in enumerate(compared)
        for j, other in enumerate(compared)
        if i < j
    ]
    near, far = max(pairs), min(pairs)
    words = f"{start} the rows that {near[1]} or {near[2]} keeps, both keep {percent(near[0], 1)}"
    if len(pairs) > 1:
        words += f", the most of any two; {far[1]} and {far[2]} share the least, {percent(far[0], 1)}"
    votes = np.sum([one.kept for one in compared], axis=0)
    every, none = int((votes == len(compared)).sum()), int((votes == 0).sum())
    who = "both" if len(compared) == 2 else f"all of {listed(names)}"
    return [
        f"{words}. "
        f"{_upper(counted(every, 'row'))} {_be(every, now=True)} kept by {who}, {counted(none, 'row')} by none.",
    ]


def _longest(compared: Sequence[Selected], lengths: Ints | None, unit: str) -> list[str]:
    if lengths is None:
        return []
    middle = [(float(np.median(lengths[one.kept])), _name(one.scorer)) for one in compared]
    long, short = max(middle), min(middle)
    if long[0] == short[0]:
        return []
    return [
        f"The longest rows are kept by {long[1]} (a median of {long[0]:,.0f} {unit}), the shortest by {short[1]} "
        f"({short[0]:,.0f}); all rows have {np.median(lengths):,.0f}."
    ]


def _contrast(facets: Sequence[Facet], compared: Sequence[Selected]) -> list[str]:
    """Name the group whose share differs most from one selection to another."""
    for facet in facets:
        sizes = facet.sizes
        there = np.flatnonzero(sizes >= ENOUGH)
        if not len(there):
            continue
        shares = np.array([facet.counts(one.kept)[there] / sizes[there] for one in compared])
        apart = np.ptp(shares, axis=0)
        if not apart.any():
            continue
        place = int(np.argmax(apart))
        high, low = int(shares[:, place].argmax()), int(shares[:, place].argmin())
        return [
            f"By {facet.name}, they differ most on {_group(facet, int(there[place]))}: "
            f"{_name(compared[high].scorer)} keeps {percent(float(shares[high, place]), 1)} of it, "
            f"{_name(compared[low].scorer)} {percent(float(shares[low, place]), 1)}."
        ]
    return []


def _be(count: int, *, now: bool = False) -> str:
    return ("is" if count == 1 else "are") if now else ("was" if count == 1 else "were")


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _name(name: str) -> str:
    return safe_text(name, 60)
