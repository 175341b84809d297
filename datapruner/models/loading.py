"""Load tokenizers and causal language models by alias, path or hub name; strictly, and never remote code."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from datapruner.errors import DataPrunerError
from datapruner.models import offline
from datapruner.models.quiet import quiet_loading
from datapruner.paths import exists, expanded
from datapruner.text import did_you_mean

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DEFAULT_TOKENIZER = "smollm2-135m-q4"
# The bundled model and the hub's float model have one tokenizer, so counts agree wherever it comes from.
HUB_TOKENIZER = "HuggingFaceTB/SmolLM2-135M-Instruct"


def resolve_model(name: str, *, verify: bool = True) -> str:
    """Turn an alias or a path into what ``from_pretrained`` takes; a hub name stays as it is."""
    if name in offline.MODELS:
        return str(offline.model_folder(name, verify=verify))
    if exists(folder := expanded(Path(name))) and folder.is_dir():
        return str(folder)
    if "/" not in name or name.startswith((".", "/", "~")):
        raise DataPrunerError(
            f"there is no model '{name}': it is neither a folder, nor a hub name (org/name), nor one of "
            f"{', '.join(offline.MODELS)}.{did_you_mean(name, offline.MODELS)}"
        )
    return name


@quiet_loading()
def load_tokenizer(name: str = DEFAULT_TOKENIZER) -> PreTrainedTokenizerBase:
    """Load a tokenizer.

    Parameters
    ----------
    name : str
        Alias, folder or hub name.

    Raises
    ------
    DataPrunerError
        It cannot be had; the sentence says why.
    """
    from transformers import AutoTokenizer

    if name == DEFAULT_TOKENIZER and not offline.is_installed(name):
        name = HUB_TOKENIZER
    resolved = resolve_model(name, verify=False)
    try:
        return AutoTokenizer.from_pretrained(resolved, trust_remote_code=False)
    except Exception as error:
        if name == HUB_TOKENIZER:
            raise DataPrunerError(
                "tokens are counted with SmolLM2's tokenizer, which is not installed and cannot be had from the hub: "
                "run `make install` in a clone of datapruner, or pass --tokenizer"
            ) from error
        raise DataPrunerError(f"the tokenizer '{name}' cannot be loaded: {first_line(error)}") from error


@quiet_loading()
def load_causal_lm(
    name: str, *, dtype: str = "float32", device: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model in evaluation mode, refusing any checkpoint whose keys do not all match.

    Parameters
    ----------
    name : str
        Alias, folder or hub name.
    dtype : str
        A torch dtype's name.
    device : str, optional
        Default: CUDA where there is one, else the CPU.

    Returns
    -------
    model, tokenizer
        The model without gradients, on ``device``.

    Raises
    ------
    DataPrunerError
        The model cannot be had, or its checkpoint lacks, adds or reshapes tensors (transformers would
        fill them with random weights and only warn).
    """
    import torch
    from transformers import AutoModelForCausalLM

    resolved = resolve_model(name)
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            resolved,
            dtype=getattr(torch, dtype),
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (
        Exception
    ) as error:  # a damaged file, a library that lacks, shapes that differ: each has its own type
        raise DataPrunerError(f"the model '{name}' cannot be loaded: {first_line(error)}") from error
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        refuse_keys(name, kind, info[kind])
    return model.eval().requires_grad_(False).to(device or default_device()), load_tokenizer(name)


def refuse_keys(name: str, kind: str, keys: Iterable[object]) -> None:
    """Raise where a checkpoint's tensors are not the model's; ``kind`` is transformers' word for how."""
    if named := sorted(map(str, keys)):
        raise DataPrunerError(
            f"the checkpoint of '{name}' does not fit its configuration: {kind.replace('_', ' ')} "
            f"{', '.join(named[:3])}{' and others' if len(named) > 3 else ''}"
        )


def default_device() -> str:
    """CUDA where there is one, else the CPU."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def weights_hash(module: torch.nn.Module) -> str:
    """Hash a module's parameters and buffers by name, dtype, shape and bytes."""
    import torch

    digest = xxhash.xxh3_128()
    for key, tensor in sorted(module.state_dict().items()):
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def config_hash(config: Any) -> str:
    """Hash what else decides a model's output: heads, activations, rotary base, attention kernel.

    Two checkpoints may have the same tensors and other settings.
    """
    described = {
        key: value
        for key, value in config.to_dict().items()
        if key not in {"_name_or_path", "transformers_version", "architectures", "use_cache"}
    }
    described["attention"] = getattr(config, "_attn_implementation", None)
    return xxhash.xxh3_128_hexdigest(json.dumps(described, sort_keys=True, default=str).encode())


def tokenizer_hash(tokenizer: Any) -> str:
    """Hash everything that decides how a tokenizer cuts a text, its chat template included.

    Truncation and padding are left out: they are arguments of a call that a fast tokenizer remembers.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        parts = json.loads(backend.to_str())
        parts.pop("truncation", None)
        parts.pop("padding", None)
        described = json.dumps(parts, sort_keys=True)
    else:
        described = repr(sorted(tokenizer.get_vocab().items()))
    template = getattr(tokenizer, "chat_template", None)
    return xxhash.xxh3_128_hexdigest(f"{described}\n{template}".encode("utf-8", "surrogatepass"))


def first_line(error: BaseException) -> str:
    """Give an exception's first line, for one sentence to the user."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
