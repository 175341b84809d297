"""What a model is called, and where it lies: aliases, folders, hub names, adapters and their bases."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from datapruner.errors import DataPrunerError
from datapruner.extras import how_to_install
from datapruner.files.paths import exists, expanded
from datapruner.models import offline
from datapruner.models.formats import refuse_file
from datapruner.models.untrusted import check_files
from datapruner.text import did_you_mean

DEFAULT_TOKENIZER = "smollm2-135m-q4"

ADAPTER = "adapter_config.json"

ADAPTER_FILES = [ADAPTER, "adapter_model.*", "*token*", "vocab.*", "merges.txt", "chat_template*"]

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def resolve_model(name: str, *, verify: bool = True) -> str:
    """Turn an alias or a path into what ``from_pretrained`` takes; a hub name stays as it is.

    A folder's files are checked for what they may make a library do: :mod:`datapruner.models.untrusted`.
    """
    if name in offline.MODELS:
        return str(offline.model_folder(name, verify=verify))
    if exists(folder := expanded(Path(name))):
        if not folder.is_dir():
            refuse_file(name, folder)
        check_files(name, folder)
        return str(folder)
    if "/" not in name or name.startswith((".", "/", "~")):
        raise DataPrunerError(
            f"there is no model '{name}': it is neither a folder, nor a hub name (org/name), nor one of "
            f"{', '.join(offline.MODELS)}.{did_you_mean(name, offline.MODELS)}"
        )
    return name


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer's files."""
    return any(exists(folder / file) for file in TOKENIZER_FILES)


def base_and_adapter(name: str, adapter: str | None) -> tuple[str, Path | None]:
    """Tell a model's name and its adapter's folder apart."""
    folder = adapter_folder(name)
    if adapter is None:
        return (name, None) if folder is None else (base_of(name, folder), folder)
    if folder is not None:
        raise DataPrunerError(
            f"'{name}' is an adapter itself, so it takes no other: merge the two, or give its base as the model"
        )
    folder = adapter_folder(adapter)
    if folder is None:
        raise DataPrunerError(f"'{adapter}' is no adapter: it has no {ADAPTER}")
    return name, folder


def adapter_folder(name: str) -> Path | None:
    """Return the folder of a LoRA adapter, fetched from the hub if need be; None for anything else."""
    if name in offline.MODELS:
        return None
    folder = Path(resolve_model(name, verify=False))
    if not folder.is_dir():
        from huggingface_hub import snapshot_download
        from transformers.utils import cached_file

        try:
            if cached_file(name, ADAPTER, _raise_exceptions_for_missing_entries=False) is None:
                return None
            folder = Path(snapshot_download(name, allow_patterns=ADAPTER_FILES))
        except Exception:  # what it is that cannot be had, the model's own loading says
            return None
    if not exists(folder / ADAPTER):
        return None
    if exists(folder / "config.json"):
        raise DataPrunerError(
            f"'{name}' holds a model and an adapter: move {ADAPTER} away, or give the adapter a folder of its own"
        )
    if importlib.util.find_spec("peft") is None:
        raise DataPrunerError(f"'{name}' is a LoRA adapter, which needs peft: {how_to_install('peft')}")
    return folder


def base_of(name: str, folder: Path) -> str:
    """Return the model that an adapter was made for; a relative path counts from the adapter's folder."""
    try:
        base = json.loads((folder / ADAPTER).read_text("utf-8"))["base_model_name_or_path"]
        beside = folder / str(base)
        if not base:
            raise KeyError
    except (OSError, ValueError, KeyError, TypeError):
        raise DataPrunerError(
            f"the adapter '{name}' names no base model in {ADAPTER}; give the base as the model, and '{name}' as its "
            "adapter"
        ) from None
    if exists(beside) and beside.is_dir():
        base = str(beside)
    try:
        if str(base).startswith("."):
            raise DataPrunerError(f"there is no {beside}")
        nested = adapter_folder(base)
    except DataPrunerError as error:
        raise DataPrunerError(
            f"the base of the adapter '{name}' cannot be had: {error}; give the base as the model, and '{name}' as "
            "its adapter"
        ) from error
    if nested is not None:
        raise DataPrunerError(
            f"the base of the adapter '{name}' is an adapter itself ('{base}'); merge them first"
        )
    return str(base)


def first_line(error: BaseException) -> str:
    """Give an exception's first line, for one sentence to the user."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
