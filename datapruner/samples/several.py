"""Several sources become one: their rows one after another, a column that names each row's source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError
from datapruner.files.mapped import COLUMN_BLOCK, blocks
from datapruner.samples.detecting import detect_layout
from datapruner.samples.layouts import LAYOUTS
from datapruner.samples.mixture import refuse_mixture
from datapruner.samples.readers import BLOCK_BYTES, BLOCK_ROWS
from datapruner.samples.recorded import ways_noted
from datapruner.samples.sample import Layout
from datapruner.samples.tables import Gatherer, Read
from datapruner.samples.transcripts import with_transcripts
from datapruner.samples.ways import Way, stands_apart
from datapruner.text import safe_text

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset


class Given(NamedTuple):
    """A source that was read: its name, what it is called in a sentence, and the rows of a split."""

    name: str
    label: str
    read: Read


def joined(given: Sequence[Given], column: str) -> Read:
    """Join the rows of sources in their order; a column that one lacks is null in its rows.

    Parameters
    ----------
    given : sequence of Given
    column : str
        The column that names each row's source; added as the last one.

    Raises
    ------
    DataPrunerError
        There is such a column, two sources read the same file, or a column has types that do not go together.
    """
    for one in given:
        if column in one.read.dataset.column_names:
            raise DataPrunerError(
                f"{one.label} has a column '{safe_text(column, 60)}' already, where each row's source is to be named; "
                "give another name with --source-column"
            )
    for first, second in combinations(given, 2):
        if shared := first.read.stamps.keys() & second.read.stamps.keys():
            raise DataPrunerError(
                f"the sources {first.label} and {second.label} both read {safe_text(sorted(shared)[0], 200)}; give "
                "each file once"
            )
    kinds = _declared(given)
    gatherer = Gatherer(" and ".join(one.label for one in given[:3]) + ", ..." * (len(given) > 3))
    gatherer.exact = all(one.read.exact for one in given)
    for one in given:
        for block in _blocks(one.read.dataset):
            gatherer.add(_with_name(block, column, one.name), one.label)
    made = gatherer.read().dataset
    types = made.features.arrow_schema
    fitting = {
        name: kind
        for name, kind in kinds.items()
        if type(made.features)({name: kind}).arrow_schema.field(name).type == types.field(name).type
    }
    if fitting:
        info = made.info.copy()
        info.features = type(made.features)({**made.features, **fitting})
        made = type(made)(made.data, info=info, split=made.split)
    stamps = {file: stamp for one in given for file, stamp in one.read.stamps.items()}
    return Read(made, _own_nulls(given), gatherer.exact, stamps)


def _declared(given: Sequence[Given]) -> dict[str, Any]:
    """Give what sources agree on that no type says, such as images; refuse two kinds of labels."""
    held: dict[str, tuple[Any, str]] = {}
    apart = set()
    for one in given:
        for name, kind in one.read.dataset.features.items():
            other, label = held.setdefault(name, (kind, one.label))
            if other != kind:
                if "ClassLabel" in (type(other).__name__, type(kind).__name__):
                    raise DataPrunerError(
                        f"Column '{safe_text(name, 60)}' numbers its labels otherwise in {label} than in {one.label}; "
                        "make them texts, or number them alike."
                    )
                apart.add(name)
    return {name: kind for name, (kind, _) in held.items() if name not in apart}


def _blocks(dataset: Dataset) -> Any:
    """Give a dataset's rows as tables that are small however large the rows are."""
    whole = max(int(dataset.data.nbytes), 1)
    rows = max(1, min(BLOCK_ROWS, BLOCK_BYTES * len(dataset) // whole))
    for _, table in blocks(dataset, rows):
        yield table.replace_schema_metadata(None)


def _with_name(table: pa.Table, column: str, name: str) -> pa.Table:
    import pyarrow as pa

    return table.append_column(column, pa.repeat(pa.scalar(name, pa.string()), len(table)))


def _own_nulls(given: Sequence[Given]) -> Mapping[str, Ints]:
    """For each column that some rows do not have at all, give the rows that hold a null of their own there."""
    names = dict.fromkeys(name for one in given for name in one.read.dataset.column_names)
    partial = {
        name
        for name in names
        for one in given
        if name in one.read.given_nulls or name not in one.read.dataset.column_names
    }
    none: Ints = np.zeros(0, dtype=np.int64)
    found: dict[str, list[Ints]] = {name: [none] for name in names if name in partial}
    start = 0
    for one in given:
        for name, rows in found.items():
            if name in one.read.given_nulls:
                rows.append(one.read.given_nulls[name] + start)
            elif name in one.read.dataset.column_names:
                for first, table in blocks(one.read.dataset.select_columns([name]), COLUMN_BLOCK):
                    rows.append(np.flatnonzero(table.column(0).is_null().to_numpy()) + start + first)
        start += len(one.read.dataset)
    return {name: np.concatenate(rows) for name, rows in found.items()}


def ways_of(
    given: Sequence[Given], *, columns: dict[str, str] | None, layout: str | None, embeddings_given: bool
) -> tuple[Way, ...]:
    """Find how each of several sources is read, as it would be by itself.

    What is said of columns holds for the sources that have them, and a layout for those that it fits.

    Raises
    ------
    DataPrunerError
        One cannot be read, or their rows are of kinds that nothing can be chosen from together.
    """
    mapping = dict(columns or {})
    every = {name for one in given for name in one.read.dataset.column_names}
    if lost := {role: name for role, name in mapping.items() if name not in every}:
        detect_layout(given[0].read.dataset, columns=lost)
    found: list[Way] = []
    owners: list[Given] = []
    fitting = 0
    for one in given:
        dataset = one.read.dataset
        if one.read.layouts:
            found += (replace(way, name=one.name) for way in ways_noted(one.read.layouts, dataset, one.label))
            owners += [one] * (len(found) - len(owners))
            continue
        said = {role: name for role, name in mapping.items() if name in dataset.column_names}
        own, fits = _detected(one, said or None, layout, embeddings_given)
        fitting += fits
        own = with_transcripts(dataset, own, one.label)
        found.append(Way(len(dataset), own, dataset.features, one.read.exact, one.name))
        owners.append(one)
    if layout is not None and not fitting:
        raise DataPrunerError(f"no source fits the layout '{layout}'; leave --layout out, or give --columns")
    for one, way in zip(owners, found, strict=True):
        if (kind := stands_apart(way.layout)) != (other := stands_apart(found[0].layout)) or (
            not way.layout.has_text and way.layout != found[0].layout
        ):
            raise DataPrunerError(
                f"{given[0].label} is read as {_way(found[0].layout)} and {one.label} as {_way(way.layout)}: {other} "
                f"and {kind} cannot be chosen from together; prune each by itself, or say with --columns which columns "
                "are read"
            )
    return tuple(found)


def _detected(
    one: Given, columns: dict[str, str] | None, layout: str | None, embeddings_given: bool
) -> tuple[Layout, bool]:
    """Find a source's layout, and whether it is the one that was asked for."""
    dataset = one.read.dataset
    try:
        found = detect_layout(dataset, columns=columns, layout=layout, embeddings_given=embeddings_given)
    except DataPrunerError as error:
        if layout in LAYOUTS:
            with suppress(DataPrunerError):  # the layout may be that of other sources
                return detect_layout(dataset, columns=columns, embeddings_given=embeddings_given), False
        raise DataPrunerError(f"{one.label}: {error.sentence}") from error
    if columns is None and layout is None:
        refuse_mixture(dataset, found, one.label)
    return found, True


def other_ways(given: Sequence[Given], ways: Sequence[Way]) -> tuple[Way, ...]:
    """Give how rows of another split are read: as those that are chosen from, whether they have the columns or not."""
    found: list[Way] = []
    for one in given:
        if one.read.layouts:
            found += ways_noted(one.read.layouts, one.read.dataset, one.label)
            continue
        layouts = [way.layout for way in ways if way.name == one.name]
        if len(layouts) > 1:  # a result of several sources, which says nothing of this split
            return ()
        dataset = one.read.dataset
        found.append(Way(len(dataset), layouts[0], dataset.features, one.read.exact, one.name))
    return tuple(found)


def _way(layout: Layout) -> str:
    roles = ", ".join(f"{role}={safe_text(name, 40)}" for role, name in layout.columns.items())
    return f"'{layout.name}' ({roles})"
