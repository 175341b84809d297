"""What a model takes: token ids, their number at a time, and the device that they lie on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# What configurations call the longest input; a sliding window is none.
POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "seq_length")

LONGEST = 2048
"""Rows are cut here where nobody says otherwise."""


def vocabulary_size(model: PreTrainedModel) -> int:
    """Count the token ids that a model knows, as input and as target; a tokenizer may have more or fewer."""
    weight = getattr(model.get_input_embeddings(), "weight", None)
    known = model.config.get_text_config().vocab_size if weight is None else weight.shape[0]
    return min(int(known), predicted_tokens(model))


def predicted_tokens(model: PreTrainedModel) -> int:
    """Count the tokens that a model gives logits for; of a wrapped output layer by asking the model."""
    import torch

    layer = model.get_output_embeddings()
    if layer is None or (isinstance(layer, torch.nn.Linear) and layer.weight.is_floating_point()):
        return int((layer or model.get_input_embeddings()).weight.shape[0])
    with torch.inference_mode():
        given = torch.zeros((1, 1), dtype=torch.int64, device=input_device(model))
        return int(model(input_ids=given, use_cache=False).logits.shape[-1])


def input_device(model: PreTrainedModel) -> torch.device:
    """Tell where a model wants its token ids."""
    weight = getattr(model.get_input_embeddings(), "weight", None)
    device: torch.device = (next(model.parameters()) if weight is None else weight).device
    return device


def context_length(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None, default: int = LONGEST
) -> int:
    """Give the length that rows are cut at: the model's or the tokenizer's longest, and at most ``default``."""
    named = positions(model, tokenizer)
    return default if named is None else min(default, named)


def positions(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None) -> int | None:
    """Give the longest input that a model's configuration or its tokenizer names, or None."""
    config = model.config.get_text_config()
    named = [getattr(config, key, None) for key in POSITIONS]
    # A tokenizer without a limit says 1e30.
    named += [length for length in (getattr(tokenizer, "model_max_length", None),) if length and length < 1e6]
    return min((int(length) for length in named if length is not None and length > 0), default=None)
