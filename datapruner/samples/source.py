"""From what the user names (hub, folder, files, memory) to samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datapruner.errors import DataPrunerError
from datapruner.guards.limits import Limits, limited
from datapruner.samples.confined import confined, offline
from datapruner.samples.detecting import detect_layout
from datapruner.samples.memory import load_memory
from datapruner.samples.mixture import refuse_mixture
from datapruner.samples.named import Splits, load_named
from datapruner.samples.origins import COLUMN, Origin, named_sources
from datapruner.samples.recorded import ways_noted
from datapruner.samples.samples import Samples
from datapruner.samples.several import Given, joined, other_ways, ways_of
from datapruner.samples.sound import check_times
from datapruner.samples.tables import held
from datapruner.samples.transcripts import with_transcripts
from datapruner.samples.ways import Mixed, Way
from datapruner.text import did_you_mean, safe_text

if TYPE_CHECKING:
    from datasets import Dataset


def load_samples(
    source: Any,
    *,
    split: str | None = None,
    columns: dict[str, str] | None = None,
    layout: str | None = None,
    embeddings_given: bool = False,
    prefer: str = "train",
    limits: Limits | None = None,
    source_column: str | None = None,
) -> Samples:
    """Load a dataset and find out how its rows are read.

    Parameters
    ----------
    source
        A hub name ``org/name[:config][@revision]``, a file (Parquet, JSON, JSON lines, CSV, TSV, Arrow;
        plain, ``.gz`` or ``.zst``), a quoted glob, a folder (of data files, of images or sound with
        ``metadata.jsonl``, from ``save_to_disk`` or from datapruner), a list of files; or what is in memory: a
        Dataset, DatasetDict, a list or generator of dictionaries or texts, a list of values for each column, a
        pandas, polars or other DataFrame, an Arrow table, anything with a length and rows by number. What is on
        disk is a path. A mapping of a name to a path or hub name each is several sources, whose rows follow each
        other.
    split
        The split to read; ``train``, or the only one there is, by default.
    columns
        Which column plays which role, e.g. ``{"question": "Q", "answer": "A"}``.
    layout
        The layout's name, where detection should not decide.
    embeddings_given
        Embeddings come from elsewhere, so a source without text is fine.
    prefer
        The split that is taken where there are several and none was named: ``train``, or ``test`` for a test set.
    limits
        How much is taken before it is refused, such as ``{"row_bytes": "100MB"}``; see :mod:`datapruner.guards.limits`.
    source_column
        The column that names each row's source, where there are several; default: ``source``.
    """
    with limited(limits):
        if isinstance(source, Mapping) and isinstance(named := named_sources(source), dict):
            return _load_several(
                named, split, columns, layout, embeddings_given, prefer, source_column or COLUMN
            )
        if source_column is not None:
            raise DataPrunerError("--source-column is for several sources, and there is one; leave it out")
        return _load_samples(source, split, columns, layout, embeddings_given=embeddings_given, prefer=prefer)


def _load_samples(
    source: Any,
    split: str | None,
    columns: dict[str, str] | None,
    layout: str | None,
    *,
    embeddings_given: bool,
    prefer: str,
    beside: bool = False,
) -> Samples:
    revision: str | None = None
    if isinstance(source, (str, Path)):
        name = str(source)
        splits, revision = load_named(name)
    else:
        name, splits = load_memory(source)
        if offline():  # what is in memory is the user's own, but for what lies elsewhere
            splits = {key: confined(read, None, name) for key, read in splits.items()}
    chosen, splits = _checked(splits, split, safe_text(name, 200), prefer)
    dataset = splits[chosen].dataset
    ways: dict[str, tuple[Way, ...]] = {}
    if beside:
        layout = None if splits[chosen].layouts or layout is None or not _fits(dataset, layout) else layout
        own = {} if splits[chosen].layouts else columns or {}
        columns = {role: column for role, column in own.items() if column in dataset.column_names}
    if splits[chosen].layouts and not columns and layout is None:
        label = safe_text(name, 200)
        ways = {
            key: ways_noted(one.layouts, one.dataset, label) for key, one in splits.items() if one.layouts
        }
        found = Mixed.of(way.layout for way in ways[chosen])
    else:
        found = detect_layout(dataset, columns=columns, layout=layout, embeddings_given=embeddings_given)
        if not columns and layout is None:
            refuse_mixture(dataset, found, safe_text(name, 200))
        found = with_transcripts(dataset, found)
    others = {key: value.dataset for key, value in splits.items() if key != chosen}
    nulls = {key: value.given_nulls for key, value in splits.items() if value.given_nulls}
    return Samples(
        dataset,
        found,
        source=name,
        split=chosen,
        others=others,
        revision=revision,
        given_nulls=nulls,
        exact=all(read.exact for read in splits.values()),
        stamps={name: stamp for read in splits.values() for name, stamp in read.stamps.items()},
        ways=ways.pop(chosen, ()),
        other_ways=ways,
    )


def load_beside(source: str, *, columns: dict[str, str] | None, layout: str | None) -> Samples:
    """Load a set that a source's rows are compared with: what is said of the source's columns holds where it has them.

    Parameters
    ----------
    source
        As for :func:`load_samples`; of a result of several sources each row is read as it was there.
    columns, layout
        As they are said of the source's rows.
    """
    return _load_samples(source, None, columns, layout, embeddings_given=False, prefer="train", beside=True)


def _fits(dataset: Dataset, layout: str) -> bool:
    try:
        detect_layout(dataset, layout=layout)
    except DataPrunerError:
        return False
    return True


def _checked(splits: Splits, split: str | None, label: str, prefer: str) -> tuple[str, Splits]:
    """Choose the split to read, and refuse what no dataset holds."""
    chosen = _choose(splits, split, label, prefer)
    splits = {key: replace(read, dataset=held(read.dataset, label)) for key, read in splits.items()}
    for read in splits.values():
        check_times(read.dataset, label)
    if len(splits[chosen].dataset) == 0:
        raise DataPrunerError(f"{label} has no rows; give a source with at least one row.")
    return chosen, splits


def _load_several(
    named: Mapping[str, str],
    split: str | None,
    columns: dict[str, str] | None,
    layout: str | None,
    embeddings_given: bool,
    prefer: str,
    column: str,
) -> Samples:
    """Load several sources, one after another."""
    origins: list[Origin] = []
    parts: dict[str, list[Given]] = {}
    chosen: list[Given] = []
    for name, source in named.items():
        label = safe_text(source, 200)
        splits, revision = load_named(source)
        own, splits = _checked(splits, split, label, prefer)
        chosen.append(Given(name, label, splits[own]))
        origins.append(Origin(name, source, own, len(splits[own].dataset), revision))
        for key, read in splits.items():
            if key != own:
                parts.setdefault(key, []).append(Given(name, label, read))
    own = origins[0].split if len({origin.split for origin in origins}) == 1 else "train"
    ways = ways_of(chosen, columns=columns, layout=layout, embeddings_given=embeddings_given)
    read = joined(chosen, column)
    others = {key: joined(given, column) for key, given in parts.items() if key != own}
    every = {own: read, **others}
    return Samples(
        read.dataset,
        Mixed.of(way.layout for way in ways),
        source=", ".join(named.values()),
        split=own,
        others={key: one.dataset for key, one in others.items()},
        given_nulls={key: one.given_nulls for key, one in every.items() if one.given_nulls},
        exact=all(one.exact for one in every.values()),
        stamps={file: stamp for one in every.values() for file, stamp in one.stamps.items()},
        origins=tuple(origins),
        source_column=column,
        ways=ways,
        other_ways={key: other_ways(given, ways) for key, given in parts.items() if key != own},
    )


def other_split(samples: Samples, split: str) -> Samples:
    """Give another split of a source, which was read with it.

    Parameters
    ----------
    samples : Samples
    split : str
        Read as the source's own rows where it has the columns that they are read by.

    Raises
    ------
    DataPrunerError
        There is no such split beside the one that was read, it has no rows, or nothing says how they are read.
    """
    label = safe_text(samples.source, 200)
    if split not in samples.others:
        listed = ", ".join(safe_text(name, 40) for name in samples.others) or "none"
        raise DataPrunerError(
            f"{label} has no split '{safe_text(split, 40)}' beside '{safe_text(samples.split, 40)}'."
            f"{did_you_mean(split, samples.others)} Its others: {listed}; name a test set with --decontaminate"
        )
    dataset, layout = samples.others[split], samples.layout
    if not len(dataset):
        raise DataPrunerError(f"the split '{safe_text(split, 40)}' of {label} has no rows")
    ways = samples.other_ways.get(split, ())
    if any(way.missing for way in ways):
        ways = ()
    if ways:
        layout = Mixed.of(way.layout for way in ways)
    elif samples.ways or not {*layout.columns.values()} <= {*dataset.column_names}:
        found = detect_layout(dataset, columns=None, layout=None, embeddings_given=False)
        refuse_mixture(dataset, found, f"the split '{safe_text(split, 40)}'")
        layout = with_transcripts(dataset, found)
    gone: dict[str, Any] = {"others": {}, "other_ways": {}, "stamps": {}, "origins": ()}
    return replace(samples, dataset=dataset, layout=layout, split=split, ways=ways, **gone)


def _choose(splits: Splits, split: str | None, source: str, prefer: str) -> str:
    """Return the split to read."""
    listed = ", ".join(safe_text(name, 40) for name in splits)
    option = "--split" if prefer == "train" else "--decontaminate-split"
    if split is not None:
        if split not in splits:
            raise DataPrunerError(
                f"{source} has no split '{safe_text(split, 40)}'.{did_you_mean(split, splits)} Its"
                f" splits: {listed}."
            )
        return split
    for usual in (prefer, "train"):
        if usual in splits:
            return usual
    if len(splits) == 1:
        return next(iter(splits))
    if not splits:
        raise DataPrunerError(f"{source} has no splits, hence no rows; give a source with at least one row.")
    raise DataPrunerError(f"{source} has the splits {listed}; name one with {option}.")
