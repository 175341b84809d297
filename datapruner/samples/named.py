"""From a name (path, pattern, hub dataset) to the rows of its splits."""

from __future__ import annotations

import re
from pathlib import Path

from datapruner.errors import DataPrunerError
from datapruner.files.patterns import files_of
from datapruner.files.remote import is_url, refuse_other
from datapruner.samples.confined import confined
from datapruner.samples.files import load_files, load_folder
from datapruner.samples.readers import file_format
from datapruner.samples.remote import load_address
from datapruner.samples.stamps import stamps
from datapruner.samples.tables import Read
from datapruner.text import did_you_mean, safe_text

Splits = dict[str, Read]

_HUB_NAME = re.compile(r"(?P<name>[\w.-]+(?:/[\w.-]+)?)(?::(?P<config>[^@]+))?(?:@(?P<revision>\S+))?")
_SHA = re.compile(r"@([0-9a-f]{40})/")


def load_named(name: str) -> tuple[Splits, str | None]:
    """Load a path or, when nothing on disk has that name, a hub dataset."""
    label = safe_text(name, 200)
    if is_url(name):
        return load_address(name), None
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
    refuse_other(name)
    if name == "-":
        raise DataPrunerError(
            "'-' is no source: standard input is not read, since rows are read more than once; write them to a file "
            "whose name says what they are, such as rows.jsonl, and give that"
        )
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
    # Where the hub is out of reach, `datasets` takes whatever folder of that name was loaded before, wherever it lay.
    parts = list(loaded.values()) if isinstance(loaded, dict) else [loaded]
    if "/" not in name and not any(part.info.download_checksums for part in parts):
        raise DataPrunerError(
            f"There is no such file or folder: '{label}'; on the hub, datasets are called org/name. A folder of that "
            "name was loaded once and lies in the cache of `datasets`, which may hold any rows."
        )
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
