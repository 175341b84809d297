"""From what the user names (hub, folder, files, memory) to samples."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from datapruner.errors import DataPrunerError
from datapruner.files.patterns import files_of
from datapruner.guards.limits import Limits, limited
from datapruner.samples.confined import confined, offline
from datapruner.samples.detecting import detect_layout
from datapruner.samples.files import load_files, load_folder
from datapruner.samples.memory import load_memory
from datapruner.samples.readers import file_format
from datapruner.samples.samples import Samples
from datapruner.samples.sound import check_times
from datapruner.samples.stamps import stamps
from datapruner.samples.tables import Read, held
from datapruner.samples.transcripts import with_transcripts
from datapruner.text import did_you_mean, safe_text

Splits = dict[str, Read]

_HUB_NAME = re.compile(r"(?P<name>[\w.-]+(?:/[\w.-]+)?)(?::(?P<config>[^@]+))?(?:@(?P<revision>\S+))?")
_SHA = re.compile(r"@([0-9a-f]{40})/")


def load_samples(
    source: Any,
    *,
    split: str | None = None,
    columns: dict[str, str] | None = None,
    layout: str | None = None,
    embeddings_given: bool = False,
    prefer: str = "train",
    limits: Limits | None = None,
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
        disk is a path.
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
    """
    with limited(limits):
        return _load_samples(source, split, columns, layout, embeddings_given=embeddings_given, prefer=prefer)


def _load_samples(
    source: Any,
    split: str | None,
    columns: dict[str, str] | None,
    layout: str | None,
    *,
    embeddings_given: bool,
    prefer: str,
) -> Samples:
    revision: str | None = None
    if isinstance(source, (str, Path)):
        name = str(source)
        splits, revision = _load_named(name)
    else:
        name, splits = load_memory(source)
        if offline():  # what is in memory is the user's own, but for what lies elsewhere
            splits = {key: confined(read, None, name) for key, read in splits.items()}
    chosen = _choose(splits, split, safe_text(name, 200), prefer)
    splits = {
        key: replace(read, dataset=held(read.dataset, safe_text(name, 200))) for key, read in splits.items()
    }
    for read in splits.values():
        check_times(read.dataset, safe_text(name, 200))
    dataset = splits[chosen].dataset
    if len(dataset) == 0:
        raise DataPrunerError(f"{safe_text(name, 200)} has no rows; give a source with at least one row.")
    found = detect_layout(dataset, columns=columns, layout=layout, embeddings_given=embeddings_given)
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
    if not {*layout.columns.values()} <= {*dataset.column_names}:
        found = detect_layout(dataset, columns=None, layout=None, embeddings_given=False)
        layout = with_transcripts(dataset, found)
    return replace(samples, dataset=dataset, layout=layout, split=split, others={}, stamps={})


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


def _load_named(name: str) -> tuple[Splits, str | None]:
    """Load a path or, when nothing on disk has that name, a hub dataset."""
    label = safe_text(name, 200)
    try:
        path = Path(name).expanduser()
        exists = bool(name.strip()) and path.exists()
    except (OSError, ValueError, RuntimeError) as error:
        raise DataPrunerError(
            f"'{label}' is neither a path nor a hub name ({safe_text(str(error), 80)})."
        ) from error
    if exists:
        return (load_folder(path, label) if path.is_dir() else {"train": load_files([path], label)}), None
    if any(character in name for character in "*?["):
        files = files_of(str(path), label)
        if not files:
            raise DataPrunerError(f"There is no such file: nothing matches '{label}'.")
        return {"train": load_files(files, label)}, None
    hub = _HUB_NAME.fullmatch(name)
    looks_like_path = name.startswith(("/", "./", "../", "~", "\\")) or file_format(path) is not None
    if looks_like_path or hub is None:
        raise DataPrunerError(f"There is no such file or folder: '{label}'.{_near_path(path)}")
    return _load_hub(hub["name"], hub["config"], hub["revision"], label)


def _near_path(path: Path) -> str:
    """Suggest a neighbour of a path that is not there."""
    if not path.parent.is_dir():
        return ""
    return did_you_mean(path.name, [entry.name for entry in path.parent.iterdir()])


def _load_hub(name: str, config: str | None, revision: str | None, label: str) -> tuple[Splits, str | None]:
    """Load a dataset from the hub; its code, if it has any, is never run."""
    import datasets
    import huggingface_hub
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES as FORMATS

    # `datasets` would read whatever lies in the working folder in that format, pickles too.
    if name in FORMATS:
        raise DataPrunerError(
            f"There is no such file or folder: '{label}', which is the name of a format; on the hub, datasets are "
            "called org/name."
        )
    # Before datasets 4 a dataset could bring a script; later versions do not know the argument.
    old = int(datasets.__version__.split(".")[0]) < 4
    options = {"trust_remote_code": False} if old else {}
    try:
        loaded = datasets.load_dataset(name, config, revision=revision, **options)
    except Exception as error:
        # The hub client raises what its version, its HTTP library and the builder raise: no list is complete.
        raise DataPrunerError(_hub_problem(error, label)) from error
    caches = [Path(datasets.config.HF_DATASETS_CACHE), Path(huggingface_hub.constants.HF_HUB_CACHE)]
    splits = {
        split: confined(
            Read(dataset, stamps=stamps(Path(file["filename"]) for file in dataset.cache_files)),
            caches,
            label,
        )
        for split, dataset in (loaded if isinstance(loaded, dict) else {"train": loaded}).items()
    }
    if revision is None:
        for dataset in (read.dataset for read in splits.values()):
            found = _SHA.search(" ".join(dataset.info.download_checksums or {}))
            revision = revision or (found[1] if found else None)
    return splits, revision


def _hub_problem(error: Exception, label: str) -> str:
    """Return one sentence for what went wrong with the hub."""
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and len(chain) < 10:
        chain.append(cause)
    names = " ".join(type(link).__name__ for link in chain)
    reason = safe_text(" ".join(str(error).split()), 200)
    if re.search(r"Connect|Offline|Timeout|LocalEntryNotFound|MaxRetry|ProxyError", names):
        return (
            f"'{label}' is not on disk, and the Hugging Face hub cannot be reached ({reason}); check the"
            f" name, go"
            f" online, or give a file or folder."
        )
    if "DatasetNotFound" in names or "RepositoryNotFound" in names:
        return f"'{label}' is neither on disk nor on the Hugging Face hub (or it is private); check the name."
    return f"'{label}' could not be loaded from the Hugging Face hub ({reason})."
