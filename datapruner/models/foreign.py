"""Models that the user's own code gives: a function, a pickle."""

from __future__ import annotations

import importlib
import re
import sys
import types
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datapruner.errors import DataPrunerError
from datapruner.files.paths import exists, expanded, is_file
from datapruner.models.checkpoints import OWN_FUNCTION
from datapruner.models.formats import refuse_file
from datapruner.models.names import first_line
from datapruner.text import did_you_mean

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FUNCTION = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*)")

PICKLES = (".pt", ".pth", ".bin", ".pkl")

Pair = tuple["PreTrainedModel", "PreTrainedTokenizerBase | None"]


def runs_code(name: str) -> bool:
    """Whether a name stands for a function or a pickle: a model that its weights and settings do not describe."""
    path = expanded(Path(name))
    return is_file(path) or (FUNCTION.fullmatch(name) is not None and not exists(path))


def from_function(name: str, module: str, function: str, trust_code: bool) -> Pair:
    """Call a function of the user's."""
    if not trust_code:
        raise DataPrunerError(
            f"'{name}' would run code of the module {module}; pass --trust-code where you trust it"
        )
    sys.path.insert(0, here := str(Path.cwd()))
    try:
        importlib.invalidate_caches()
        found = _imported(module)
        if not callable(getattr(found, function, None)):
            raise DataPrunerError(
                f"the module {module} has no function {function}.{did_you_mean(function, vars(found))}"
            )
        given = getattr(found, function)()
    except DataPrunerError:
        raise
    except Exception as error:
        where = " (looked for in the current folder, then on Python's path)"
        raise DataPrunerError(
            f"'{name}' raises {type(error).__name__}: {first_line(error)}"
            + where * isinstance(error, ModuleNotFoundError)
        ) from error
    finally:
        if here in sys.path:
            sys.path.remove(here)
    if not (isinstance(given, tuple) and len(given) == 2):
        raise DataPrunerError(
            f"'{name}' must return (model, tokenizer), the tokenizer may be None; it returns {_kind(given)}"
        )
    return checked_pair(name, *given)


_READ: dict[str, tuple[int, int]] = {}
"""The modules that were imported here, with the size and time of their files then."""


def _imported(name: str) -> types.ModuleType:
    """Import a module, anew where its file has been corrected since it was imported here."""
    known = sys.modules.get(name)
    module = importlib.import_module(name)
    stat = Path(str(getattr(module, "__file__", None) or __file__)).stat()
    now = (stat.st_size, stat.st_mtime_ns)
    if known is module and _READ.get(name, now) != now:
        module = importlib.reload(module)
    _READ[name] = now
    return module


def from_pickle(name: str, path: Path, trust_code: bool) -> Pair:
    """Unpickle a whole model."""
    import torch

    if path.suffix not in PICKLES:
        refuse_file(name, path)
    load: Callable[..., Any] = torch.load
    try:  # what holds tensors alone opens without running code
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles that it was not made for; these fail below
            found = load(path, map_location="meta", weights_only=True)
    except Exception:
        if not trust_code:
            raise DataPrunerError(
                f"'{name}' is a pickle, and opening it runs the code that it holds; pass --trust-code "
                "where you trust it, or save the model with save_pretrained and give the folder"
            ) from None
        found = None
    if found is None:
        try:
            found = load(path, map_location="cpu", weights_only=False)
        except Exception as error:
            raise DataPrunerError(
                f"'{name}' cannot be opened by torch.load: {type(error).__name__}: {first_line(error)}"
            ) from error
    if isinstance(found, tuple | list) and len(found) == 2:
        return checked_pair(name, *found)
    if isinstance(found, Mapping) and isinstance(found.get("model"), torch.nn.Module):
        return checked_pair(name, found["model"], found.get("tokenizer"))
    if isinstance(found, Mapping):
        raise DataPrunerError(
            f"'{name}' holds tensors and no model: give a folder with them and their config.json (save_pretrained), or "
            f"{OWN_FUNCTION}"
        )
    return checked_pair(name, found, None)


def checked_pair(name: str, model: Any, tokenizer: Any = None) -> Pair:
    """Raise where what code gave is no model with its tokenizer."""
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    given, model = model, without_peft(name, model)
    if not isinstance(model, PreTrainedModel) or model.get_output_embeddings() is None:
        raise DataPrunerError(
            f"'{name}' gives {_kind(given)} for a model; it must be a causal language model of transformers, with an "
            "output layer over the vocabulary (a PeftModel is taken, another wrapper is not)"
        )
    if tokenizer is not None and not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise DataPrunerError(
            f"'{name}' gives {_kind(tokenizer)} for a tokenizer; it must be one of transformers, or None"
        )
    return model, tokenizer


def without_peft(name: str, model: Any) -> Any:
    """Take the model out of a ``PeftModel``: its adapters lie in its layers and work there in every pass."""
    if not type(model).__module__.startswith("peft."):
        return model
    kinds = {
        str(config.peft_type.value) for config in model.peft_config.values() if config.is_prompt_learning
    }
    if kinds:
        raise DataPrunerError(
            f"'{name}' gives a PeftModel of the type {', '.join(sorted(kinds))}, which puts tokens before every text; "
            "only adapters inside of layers (LoRA and its kin) are read"
        )
    return model.get_base_model()


def _kind(value: Any) -> str:
    kind = f"a {type(value).__name__}"
    return f"{kind} of {len(value)}" if isinstance(value, tuple | list) else kind


def settled(name: str, model: PreTrainedModel, dtype: str, device: str) -> PreTrainedModel:
    """Make a model that code gave what the loading of a checkpoint gives."""
    import torch
    from torch.nn.utils import prune

    for module in model.modules():
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, prune.BasePruningMethod):  # hashes and gradients are of weights, not of parts
                prune.remove(module, hook._tensor_name)  # type: ignore[no-untyped-call]
    try:
        if dtype != "auto" or not device.startswith("cuda"):
            wanted = getattr(torch, "float32" if dtype == "auto" else dtype)
            # Not model.to(dtype): rotary frequencies are not saved, and transformers keeps them in float32.
            for tensor in model.state_dict(keep_vars=True).values():
                if tensor.is_floating_point():
                    tensor.data = tensor.data.to(wanted)
        model = model.to(device)
    except Exception as error:
        raise DataPrunerError(
            f"the model '{name}' cannot be put on {device} as {dtype}: {first_line(error)}"
        ) from error
    return model.eval().requires_grad_(False)
