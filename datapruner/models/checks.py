"""What is no causal language model, or not all of one, is refused."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datapruner.errors import DataPrunerError
from datapruner.models.formats import refuse_config, refuse_folder
from datapruner.models.names import first_line, resolve_model
from datapruner.models.sizes import input_device, vocabulary_size

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def refuse_keys(name: str, kind: str, keys: Iterable[object]) -> None:
    """Raise where a checkpoint's tensors are not the model's; ``kind`` is transformers' word for how."""
    if named := sorted(map(str, keys)):
        raise DataPrunerError(
            f"the checkpoint of '{name}' does not fit its configuration: {kind.replace('_', ' ')} "
            f"{', '.join(named[:3])}{' and others' if len(named) > 3 else ''}"
        )


def refuse_masks(name: str, info: dict[str, Any]) -> None:
    """Raise where weights lie beside masks instead of multiplied: transformers would fill them at random."""
    missing = set(info["missing_keys"])
    if masked := sorted(key for key in missing if f"{key}_orig" in info["unexpected_keys"]):
        raise DataPrunerError(
            f"the checkpoint of '{name}' was saved by torch.nn.utils.prune with masks apart, hence the missing keys "
            f"{masked[0]} and so on: give it as --pruned-model, which folds the masks in, or call "
            "prune.remove on every pruned layer before save_pretrained"
        )


def read_config(name: str, called: str) -> Any:
    """Read the configuration of a model, or of what it is called; no code of its own runs."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(resolve_model(name, verify=False), trust_remote_code=False)
    except DataPrunerError:
        raise
    except Exception as error:
        raise DataPrunerError(f"the {called} '{name}' cannot be loaded: {first_line(error)}") from error


def causal_config(name: str) -> Any:
    """Read a model's configuration, and refuse what is no causal language model."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    refuse_folder(name, Path(resolve_model(name, verify=False)))
    config = read_config(name, "model")
    if getattr(config, "is_encoder_decoder", False) or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise DataPrunerError(
            f"'{name}' is no causal language model: its type is {config.model_type}; give a model that predicts "
            "the next token"
        )
    refuse_config(name, config.to_dict())
    return config


def check_model(name: str, model: PreTrainedModel, *, quantised: bool) -> None:
    """Refuse a model that is not all here, or in which a token sees what comes after it."""
    import torch

    if any(tensor.is_meta for tensor in model.state_dict().values()):
        raise DataPrunerError(
            f"the model '{name}' does not fit on the devices of its device_map; give a smaller dtype, quantize, or "
            "device='cpu'"
        )
    output = model.get_output_embeddings()
    held = getattr(output, "weight", None)
    if quantised and (held is None or not held.is_floating_point()):
        raise DataPrunerError(
            f"the output layer of '{name}' would be quantised too, and exact statistics need it; leave quantize out"
        )
    try:
        size = vocabulary_size(model)
    except Exception as error:
        raise DataPrunerError(f"the model '{name}' cannot be run: {first_line(error)}") from error
    ids = [[token % size for token in (5, 6, 7, last)] for last in (8, 9)]
    try:
        with torch.inference_mode():
            given = torch.tensor(ids, device=input_device(model))
            logits = model(input_ids=given, use_cache=False).logits[:, :-1]
    except Exception as error:
        raise DataPrunerError(f"the model '{name}' cannot be run: {first_line(error)}") from error
    # Encoders have causal classes in transformers too, and run as they were trained: with a view of what follows.
    one, other = logits.float()
    tolerance = 1e-3 if logits.dtype in (torch.float32, torch.float64) else 2e-2
    if (one - other).abs().max() > tolerance * one.abs().max():
        raise DataPrunerError(
            f"'{name}' is no causal language model: its tokens see those that follow ({model.config.model_type}); "
            "give a model that predicts the next token"
        )
