"""Embedders by name: texts through sentence-transformers or a language model, images through an image model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError
from datapruner.models import offline
from datapruner.models.encoders import ImageEmbedder, Pooling, TokenEmbedder
from datapruner.models.identity import config_hash, tokenizer_hash, used, versions, weights_hash
from datapruner.models.keeping import kept
from datapruner.models.loading import load_causal_lm
from datapruner.models.names import first_line, resolve_model
from datapruner.models.options import default_device
from datapruner.models.quiet import quiet_loading
from datapruner.models.sentence_models import config_of, hub_minilm, load_sentence_model, settle_missing

if TYPE_CHECKING:
    import torch


@quiet_loading()
def load_text_embedder(
    name: str, *, pooling: Pooling = "auto", max_length: int | None = None, device: str | None = None
) -> TokenEmbedder:
    """Load a text embedder by alias, path or hub name.

    Parameters
    ----------
    name : str
        A sentence-transformers model, or a causal language model.
    pooling : {"auto", "mean", "last"}
        ``auto`` is the model's own for sentence-transformers and ``mean`` for a language model; ``mean``
        and ``last`` pool the final hidden states of a language model over all tokens, or take the last's.
    max_length : int, optional
        Longer texts are cut. Default: the model's own, 1024 for a language model.
    device : str, optional
        Default: CUDA where there is one.
    """
    on_hub = name == "minilm" and not offline.is_installed(name)
    resolved = hub_minilm() if on_hub else resolve_model(name)
    if pooling != "auto" or _is_causal_lm(resolved):
        return _language_model(name, "mean" if pooling == "auto" else pooling, max_length or 1024, device)
    return load_sentence_model(name, resolved, max_length, device)


@kept
@quiet_loading()
def load_image_embedder(name: str, *, device: str | None = None) -> ImageEmbedder:
    """Load an image model through transformers: CLIP-like image features, else the mean of the last states."""
    import torch
    from transformers import AutoImageProcessor, AutoModel

    resolved = resolve_model(name)
    try:
        model, info = AutoModel.from_pretrained(resolved, trust_remote_code=False, output_loading_info=True)
        processor = AutoImageProcessor.from_pretrained(resolved, trust_remote_code=False)
    except Exception as error:
        raise DataPrunerError(f"the image model '{name}' cannot be loaded: {first_line(error)}") from error
    settle_missing(name, model, info)
    device = device or default_device()
    model = model.eval().requires_grad_(False).to(device)

    def forward(images: Sequence[Any]) -> NDArray[np.float32]:
        inputs = processor(images=[image.convert("RGB") for image in images], return_tensors="pt").to(device)
        with torch.inference_mode():
            if hasattr(model, "get_image_features"):
                out = model.get_image_features(**inputs)
                out = getattr(out, "pooler_output", out)
            else:
                out = model(**inputs).last_hidden_state
                out = out.flatten(2).mean(2) if out.dim() == 4 else out.mean(1)
        features: NDArray[np.float32] = out.float().cpu().numpy()
        return features

    from PIL import Image

    width = forward([Image.new("RGB", (32, 32))]).shape[1]
    context: dict[str, object] = {
        "model": weights_hash(model),
        "config": config_hash(model.config),
        "processor": json.dumps(processor.to_dict(), default=str, sort_keys=True),
        "libraries": versions(*used(model)),
        "device": model.device.type,
    }
    return ImageEmbedder(context, width, forward, model.device.type)


def _is_causal_lm(folder: str) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if (Path(folder) / "modules.json").exists():
        return False
    config = config_of(folder)
    named = getattr(config, "architectures", None) or []
    return any(
        name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values() and "CausalLM" in name for name in named
    ) or any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in named)


def _language_model(
    name: str, pooling: Literal["mean", "last"], max_length: int, device: str | None
) -> TokenEmbedder:
    import torch

    model, tokenizer = load_causal_lm(name, device=device)
    body: torch.nn.Module = model.base_model

    def whole(texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = tokenizer(texts, verbose=False)["input_ids"]
        end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else 0
        return [row or [end] for row in ids]

    def forward(input_ids: Ints, mask: Ints) -> NDArray[np.float32]:
        device = next(body.parameters()).device
        attention = torch.from_numpy(mask).to(device)
        with torch.inference_mode():
            # No mask: padding stands on the right, where causal attention never looks from a row's tokens. With
            # one, transformers takes another kernel for batches in which a row is padded than for those without.
            hidden = body(
                input_ids=torch.from_numpy(input_ids).to(device), use_cache=False
            ).last_hidden_state.float()
            if pooling == "last":
                pooled = hidden[torch.arange(len(hidden), device=device), attention.sum(1) - 1]
            else:
                weights = attention.unsqueeze(2).to(hidden.dtype)
                pooled = (hidden * weights).sum(1) / weights.sum(1)
        vectors: NDArray[np.float32] = pooled.cpu().numpy()
        return vectors

    context = {
        "model": weights_hash(model),
        "modules": [f"hidden states, {pooling}"],
        "tokenizer": tokenizer_hash(tokenizer),
        "max_length": max_length,
        "cut": "both ends",
        "dtype": str(next(model.parameters()).dtype),
        "config": config_hash(model.config),
        "libraries": versions(*used(model)),
    }
    pad = tokenizer.pad_token_id or 0
    # Some byte-level tokenizers, which know all there is, name their end as what is unknown.
    unknown = None if tokenizer.unk_token_id in (tokenizer.eos_token_id, pad) else tokenizer.unk_token_id
    width: int = model.config.get_text_config().hidden_size
    return TokenEmbedder(context, width, whole, forward, pad, max_length, model.device.type, unknown)
