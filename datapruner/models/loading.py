"""Load tokenizers and causal language models by alias, path or hub name; strictly, and never remote code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from datapruner.errors import DataPrunerError
from datapruner.models import offline
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
    if Path(name).expanduser().is_dir():
        return str(Path(name).expanduser())
    if "/" not in name or name.startswith((".", "/", "~")):
        raise DataPrunerError(
            f"there is no model '{name}': it is neither a folder, nor a hub name (org/name), nor one of "
            f"{', '.join(offline.MODELS)}.{did_you_mean(name, offline.MODELS)}"
        )
    return name


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
    try:
        return AutoTokenizer.from_pretrained(resolve_model(name, verify=False), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise DataPrunerError(f"the tokenizer '{name}' cannot be loaded: {first_line(error)}") from error


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

    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            resolve_model(name),
            dtype=getattr(torch, dtype),
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError) as error:
        raise DataPrunerError(f"the model '{name}' cannot be loaded: {first_line(error)}") from error
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if keys := sorted(map(str, info[kind])):
            raise DataPrunerError(
                f"the checkpoint of '{name}' does not fit its configuration: {kind.replace('_', ' ')} "
                f"{', '.join(keys[:3])}{' and others' if len(keys) > 3 else ''}"
            )
    return model.eval().requires_grad_(False).to(device or default_device()), load_tokenizer(name)


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


def tokenizer_hash(tokenizer: Any) -> str:
    """Hash everything that decides how a tokenizer cuts a text, its chat template included."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    described = backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))
    template = getattr(tokenizer, "chat_template", None)
    return xxhash.xxh3_128_hexdigest(f"{described}\n{template}".encode())


def first_line(error: BaseException) -> str:
    """Give an exception's first line, for one sentence to the user."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
