"""The groups that a page breaks rows down by: a scorer's clusters, the budget's column, labels in the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from datapruner.arrays import Flags, Ints
from datapruner.samples.labels import encode_labels
from datapruner.text import safe_text

if TYPE_CHECKING:
    from datasets import Dataset

    from datapruner.results.scored import Scored
    from datapruner.results.selected import Selected
    from datapruner.samples.samples import Samples


MOST_VALUES = 60
"""A column of more distinct values is no label."""
PROBED = 20_000
"""Rows that are looked at before a whole column is."""
MOST_COLUMNS = 3
"""Columns that are shown where fewer were named."""


@dataclass(frozen=True, eq=False)
class Facet:
    """A way to sort rows into groups.

    Attributes
    ----------
    name : str
        ``cluster``, or a column.
    names : list of str
        Of the groups.
    codes : ndarray, int64, shape (n,)
        Each row's group; -1 where it has none.
    scorer : str
        Whose groups they are; empty for a column of the data.
    column : str
        That column, as the data name it: for look-ups and never to be shown; empty for a scorer's groups.
    asked : bool
        Whether that column was named: to compare by, by a budget, or as the label.
    notes : list of str
        What each group holds (``mostly math (88 %)``, ``all math``), as far as a column tells; empty otherwise.
    """

    name: str
    names: list[str]
    codes: Ints
    scorer: str = ""
    column: str = ""
    asked: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def sizes(self) -> Ints:
        """Rows of each group, int64 (k,)."""
        return self.counts(np.ones(len(self.codes), dtype=np.bool_))

    def counts(self, mask: Flags) -> Ints:
        """Count the marked rows of each group, int64 (k,)."""
        return np.bincount(self.codes[mask] + 1, minlength=len(self.names) + 1)[1:].astype(np.int64)


def find_facets(selections: Sequence[Selected], labels: Sequence[Facet]) -> list[Facet]:
    """Choose the groups that a page breaks rows down by: columns asked for, clusters, and some other labels."""
    asked = [facet for facet in labels if facet.asked]
    others = [facet for facet in labels if not facet.asked][: max(MOST_COLUMNS - len(asked), 0)]
    scorers = list(dict.fromkeys(s.scorer for s in selections))
    return asked + _clusters(selections[0].scores, scorers, labels[:1]) + others


def find_labels(selections: Sequence[Selected], by: Sequence[str] = ()) -> list[Facet]:
    """Find the columns that sort rows into groups: those that ``by`` and budgets name, then every other label."""
    scores = selections[0].scores
    used = dict.fromkeys([*by, *(s.budget.per_group for s in selections if s.budget.per_group is not None)])
    asked = [Facet(_name(name), *_encoded(scores, name), column=name, asked=True) for name in used]
    features = scores.samples.dataset.features  # asked for once: each time, those of all columns are copied
    return asked + [
        facet
        for name in _candidates(scores.samples)
        if name not in used
        for facet in _label(scores.samples.dataset, name, features[name])
    ]


def _clusters(scores: Scored, scorers: Sequence[str], known: Sequence[Facet]) -> list[Facet]:
    """Give the scorers' own groups, once each where two have the same."""
    found: list[Facet] = []
    for scorer in scorers:
        ranking = scores.rankings[scorer]
        if ranking.groups is None or any(np.array_equal(ranking.groups, facet.codes) for facet in found):
            continue
        named = (name for name, held in ranking.columns.items() if np.array_equal(held, ranking.groups))
        name = _name(next(named, "group"))
        taken = {facet.name for facet in found}
        codes = ranking.groups.astype(np.int64)
        k = int(codes.max(initial=-1)) + 1
        notes = _mostly(codes, k, known[0]) if known else []
        found.append(
            Facet(
                f"{name} ({scorer})" if name in taken else name,
                [str(j) for j in range(k)],
                codes,
                scorer,
                notes=notes,
            )
        )
    return found


def _mostly(codes: Ints, k: int, label: Facet) -> list[str]:
    """Say which label most or all rows of each group have."""
    both = (codes >= 0) & (label.codes >= 0)
    width = len(label.names)
    table = np.bincount(codes[both] * width + label.codes[both], minlength=k * width).reshape(k, width)
    best, whole = table.argmax(axis=1), table.sum(axis=1)
    return [
        ""
        if not total
        else f"all {label.names[j]}"
        if row[j] == total
        else f"mostly {label.names[j]} ({min(100 * int(row[j]) / int(total), 99):.0f}\u00a0%)"
        for row, j, total in zip(table, best.tolist(), whole.tolist(), strict=True)
    ]


def _candidates(samples: Samples) -> list[str]:
    """List the columns that may hold labels: text, truth values and whole numbers that are not the text itself."""
    from datasets import ClassLabel, Value

    texts = {name for role, name in samples.layout.columns.items() if role != "label"}
    kinds = ("string", "large_string", "bool", "int", "uint")
    return [
        name
        for name, feature in samples.dataset.features.items()
        if name not in texts
        and (
            isinstance(feature, ClassLabel)
            or (isinstance(feature, Value) and str(feature.dtype).startswith(kinds))
        )
    ]


def _label(dataset: Dataset, name: str, feature: Any) -> list[Facet]:
    """Read a column where it has few values, and more rows than values."""
    import pyarrow.compute as pc

    stored, order = dataset.data.table.column(name), dataset._indices
    order = None if order is None else order.table.column(0)
    head = stored[:PROBED] if order is None else stored.take(order[:PROBED])
    most = min(MOST_VALUES, len(head) // 2)
    if pc.count_distinct(head, mode="all").as_py() > most:
        return []
    # The first rows of a set that was put together may all be of one source. Counted before values are
    # looked up, which takes longer.
    column = stored if order is None else stored.take(order)
    if not 2 <= pc.count_distinct(column, mode="all").as_py() <= most:
        return []
    unique = pc.unique(column)  # nulls among them, which dictionaries of several chunks cannot be joined with
    codes = pc.index_in(column, value_set=unique, skip_nulls=False).to_numpy(zero_copy_only=False)
    values = _as_names(feature, unique.to_pylist())
    return [
        Facet(
            _name(name),
            ["(none)" if value is None else _label_name(str(value)) for value in values],
            codes.astype(np.int64),
            column=name,
        )
    ]


def _encoded(scores: Scored, name: str) -> tuple[list[str], Ints]:
    names, codes = encode_labels(_as_names(scores.samples.dataset.features.get(name), scores.column(name)))
    return [_label_name(name) for name in names], codes


def _as_names(feature: Any, values: Sequence[Any]) -> Sequence[Any]:
    """Give a class label's names for its numbers, and other values as they are."""
    from datasets import ClassLabel

    if not isinstance(feature, ClassLabel):
        return values
    names = feature.names  # and not int2str, which takes microseconds a row
    return [None if value is None or value < 0 else names[value] for value in values]


def _label_name(name: str) -> str:
    return safe_text(name, 60) if name.strip() else "(blank)" if name else "(empty)"


def _name(name: str) -> str:
    return safe_text(name, 40)


def group_name(facet: Facet, j: int) -> str:
    """Name a group in a sentence: a label in quotes, a cluster by its number and what most of it is."""
    note = facet.notes[j] if facet.notes else ""
    note = note.rpartition(" (")[0] if note.startswith("mostly ") else note
    return (
        f"“{facet.names[j]}”"
        if not facet.scorer
        else f"{facet.name.partition(' ')[0]} {facet.names[j]}{note and f', {note}'}"
    )
