"""Where a causal language model's output layer is, and the proof on a few tokens that it is understood."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from datapruner.errors import DataPrunerError
from datapruner.models.identity import evaluation
from datapruner.models.names import first_line
from datapruner.models.sizes import input_device, vocabulary_size
from datapruner.signals.language_model.output_layer import TILE, OutputLayer, logits_of

PROBE_TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
"""Root mean square by which our logits may differ from the model's, relative to the logits'."""


def body(model: Any) -> Any:
    """Give the module whose ``last_hidden_state``, after the final norm, goes into the output layer."""
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    # transformers 4 lacks get_decoder for some families (GPT-2).
    return model.base_model if decoder is None or decoder is model else decoder


def find_output_layer(model: Any) -> OutputLayer:
    """Find the output layer of a causal language model, and prove on a few tokens that it is understood.

    The scale and the soft-capping are read from the configuration of the families cohere, cohere2, granite,
    gemma2 and gemma3_text; any other family is taken to give W h + b. Whatever the family, our logits
    are compared with the model's.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A causal language model; it is left in its mode.

    Returns
    -------
    OutputLayer

    Raises
    ------
    DataPrunerError
        There is no output layer, it does not map states linearly, its weights are quantised or elsewhere, or the
        logits differ from the model's.
    """
    module = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    if module is None:
        raise DataPrunerError(
            f"the model {type(model).__name__} has no output layer, so it gives no token a probability: "
            "load a causal language model, as AutoModelForCausalLM does"
        )
    scale, softcap = _scale_and_softcap(model.config)
    if _is_plain(module):
        bias = None if module.bias is None else module.bias.detach()
        layer = OutputLayer(module.weight.detach(), bias, scale, softcap)
    else:
        layer = OutputLayer(*_worked_out(model, module), scale, softcap)
    _probe(model, layer)
    return layer


def _worked_out(model: Any, module: Any) -> tuple[Tensor, Tensor | None]:
    """Give the matrix and the bias of a module that maps states linearly: what it makes of unit vectors, and of zero.

    A linear layer between rotations, permutations or scales (as pruning tools leave it), or with an adapter, is one
    matrix all the same (*ours*). Gradients are then those of this matrix.
    """
    called = type(module).__name__
    held = [*module.parameters(), *module.buffers()]
    if not held or any(type(one.data) is not Tensor or one.is_meta or _packed(one) for one in held):
        raise DataPrunerError(
            f"the output layer of {type(model).__name__} is no plain linear layer in memory ({called}): load it "
            "neither quantised nor offloaded, and merge its adapter"
        )
    weights = [one for one in held if one.is_floating_point()]
    try:
        width = int(model.config.get_text_config().hidden_size)
        with torch.no_grad(), evaluation(model):
            unit = torch.eye(width, dtype=weights[0].dtype, device=weights[0].device)
            zero = module(torch.zeros_like(unit[:1]))[0]
            weight = zero.new_empty(len(zero), width)
            for start in range(0, width, TILE):
                weight[:, start : start + TILE] = (module(unit[start : start + TILE]) - zero).T
            # A layer without a bias gives exactly zero.
            bias = zero if zero.any() else None
            other = torch.randn(TILE, width, generator=torch.Generator().manual_seed(0)).to(unit)
            theirs, ours = module(other), torch.nn.functional.linear(other, weight, bias)
            size = root_mean_square(theirs)
    except Exception as error:
        raise DataPrunerError(
            f"the output layer of {type(model).__name__} ({called}) cannot be asked for its matrix: "
            f"{first_line(error)}; put a plain linear layer in its place"
        ) from error
    if not root_mean_square(ours - theirs) <= PROBE_TOLERANCE[weight.dtype] * size:
        raise DataPrunerError(
            f"the output layer of {type(model).__name__} ({called}) does not map last hidden states linearly, and "
            "exact losses need one matrix: put what is not linear before it, into the model's body"
        )
    return weight, bias


def _packed(tensor: Tensor) -> bool:
    """Whether a tensor may hold quantised numbers: bytes of more than one dimension, or floats of eight bits."""
    if tensor.is_floating_point():
        return tensor.dtype not in PROBE_TOLERANCE
    return tensor.dtype in (torch.int8, torch.uint8, torch.int32) and tensor.dim() > 1


def _is_plain(module: Any) -> bool:
    """Tell whether a module is a linear layer of floating-point numbers that lie in memory."""
    if type(module) is not torch.nn.Linear:
        return False
    weight = module.weight
    return type(weight.data) is Tensor and weight.dtype in PROBE_TOLERANCE and not weight.is_meta


def _scale_and_softcap(config: Any) -> tuple[float, float | None]:
    family = config.model_type
    if family in {"cohere", "cohere2"}:
        return float(config.logit_scale), None
    if family == "granite":
        return 1 / config.logits_scaling, None
    if family in {"gemma2", "gemma3_text"}:
        return 1.0, config.final_logit_softcapping
    return 1.0, None


def _probe(model: Any, layer: OutputLayer) -> None:
    """Refuse a model whose logits are not those of the layer found."""
    family = model.config.model_type
    try:
        ids = torch.randint(vocabulary_size(model), (2, 8), generator=torch.Generator().manual_seed(0))
        ids = ids.to(input_device(model))
        with torch.no_grad(), evaluation(model):
            arguments = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
            theirs = model(**arguments, return_dict=True).logits.flatten(0, 1)
            states = body(model)(**arguments, return_dict=True).last_hidden_state.flatten(0, 1)
            dtype = torch.float64 if layer.weight.dtype == torch.float64 else torch.float32
            ours = torch.empty(len(states), len(layer.weight), dtype=dtype, device=layer.weight.device)
            logits_of(layer, states.to(ours), ours)
    except Exception as error:  # whatever a model of another kind says to being called like this
        raise DataPrunerError(
            f"the output layer of the family '{family}' cannot be checked on token ids alone: {first_line(error)}; "
            "take a causal language model of text"
        ) from error
    if layer.softcap is not None:
        ours.div_(layer.softcap).tanh_().mul_(layer.softcap)
    size = root_mean_square(theirs)
    if not math.isfinite(size):
        raise DataPrunerError(
            f"the model of the family '{family}' gives logits that are not numbers: load it in another dtype, "
            "or look at its weights"
        )
    same = ours.shape == theirs.shape
    if not same or root_mean_square(ours - theirs.to(ours)) > PROBE_TOLERANCE[layer.weight.dtype] * size:
        raise DataPrunerError(
            f"the family '{family}' changes its logits in a way that datapruner does not know; take a model of "
            "another family, or a scorer that needs no language model"
        )


def root_mean_square(values: Tensor) -> float:
    """Give the root of the mean square, in float64."""
    return values.double().square().mean().sqrt().item()
