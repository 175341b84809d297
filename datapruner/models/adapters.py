"""A LoRA adapter on its base, every tensor matched."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datapruner.errors import DataPrunerError
from datapruner.models.checks import refuse_keys
from datapruner.models.untrusted import check_patterns
from datapruner.text import safe_text

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def with_adapter(model: PreTrainedModel, folder: Path, *, merge: bool) -> PreTrainedModel:
    """Put a LoRA adapter onto a model, every tensor matched: peft itself ignores what is missing or too many."""
    import torch
    from peft import PeftConfig, PeftModel, PeftType, load_peft_weights, set_peft_model_state_dict

    own = {id(tensor) for tensor in model.state_dict(keep_vars=True).values()}
    try:
        config = PeftConfig.from_pretrained(str(folder))
        if config.peft_type != PeftType.LORA:
            raise DataPrunerError(
                f"the adapter '{folder}' is of the type {config.peft_type}, and only LoRA is read; merge it into its "
                "base with peft and give the merged model"
            )
        config.inference_mode = True
        check_patterns(str(folder), config, [key for key, _ in model.named_modules()])
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what peft would warn of is an error below
            adapted = PeftModel(model, config)
            found = set_peft_model_state_dict(adapted, load_peft_weights(str(folder), device="cpu"))
    except DataPrunerError:
        raise
    except Exception as error:
        reason = safe_text(" ".join(str(error).split()), 200)
        raise DataPrunerError(f"the adapter '{folder}' cannot be loaded: {reason}") from error
    state = adapted.state_dict(keep_vars=True)
    biases = {"none": "no bias", "all": ".bias", "lora_only": "base_layer.bias"}[config.bias]
    wanted = {key for key, tensor in state.items() if id(tensor) not in own or key.endswith(biases)}
    refuse_keys(str(folder), "missing_keys", wanted & set(found.missing_keys))
    refuse_keys(str(folder), "unexpected_keys", found.unexpected_keys)
    return _merged(adapted, model) if merge else _in_place(adapted, model)


def _merged(adapted: Any, model: PreTrainedModel) -> PreTrainedModel:
    """Add an adapter to the weights."""
    import torch

    # Tied weights: what is added to the one layer must not reach the other.
    layers = [model.get_input_embeddings(), model.get_output_embeddings()]
    if any(hasattr(layer, "get_base_layer") for layer in layers):
        first, last = (
            layer.get_base_layer() if hasattr(layer, "get_base_layer") else layer for layer in layers
        )
        if last is not None and last.weight is first.weight:
            last.weight = torch.nn.Parameter(last.weight.detach().clone(), requires_grad=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        merged: PreTrainedModel = adapted.merge_and_unload(safe_merge=True)
    if hasattr(merged, "peft_config"):
        del merged.peft_config
    return merged


def _in_place(adapted: Any, model: PreTrainedModel) -> PreTrainedModel:
    """Leave an adapter beside the weights, where it works in every pass."""
    if type(model.get_output_embeddings()).__module__.startswith("peft."):
        raise DataPrunerError(
            "the adapter changes the output layer, which exact statistics need as one matrix; leave it out of the "
            "adapter's target modules, or have the adapter merged: leave quantize out, and --sketch-layers=lora"
        )
    inner: PreTrainedModel = adapted.get_base_model()
    return inner
