"""How a model can be fed: whether its rows can be packed, which is tried out, and which tokens they all begin with."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from datapruner.errors import DataPrunerError
from datapruner.models.sizes import vocabulary_size
from datapruner.samples.rendering import render
from datapruner.samples.sample import Message, Sample
from datapruner.signals.language_model.attention import packed_attention
from datapruner.signals.language_model.batches import Item, lay_out, run_packed
from datapruner.signals.language_model.reader import LanguageModel

logger = logging.getLogger(__name__)

LEAST_PREFIX = 4
"""A prefix of fewer tokens is not worth sharing."""
WINDOWS = ("sliding_window", "attention_chunk_size")
"""What configurations call the number of tokens that a token sees."""
PROBE_TOLERANCE = {"torch.float64": 1e-5, "torch.float32": 1e-4}
"""Root mean square by which the states of packed rows may differ, relative to the states; else ``HALF_TOLERANCE``."""
HALF_TOLERANCE = 0.05


def way_of_feeding(language_model: LanguageModel) -> tuple[LanguageModel, NDArray[np.int32]]:
    """Tell whether a model's rows can be packed, and which tokens they share then."""
    if language_model.packing:
        prefix = template_prefix(language_model)
        if packs_exactly(language_model, prefix):
            return language_model, prefix
        logger.info("this model's rows cannot be packed: they run in padded batches")
    return replace(language_model, packing=False), np.empty(0, np.int32)


def template_prefix(feed: LanguageModel) -> NDArray[np.int32]:
    """Give the tokens that the chat template puts before every conversation without a system turn."""
    try:
        first, second = (
            render(Sample((Message("user", word), Message("assistant", word))), feed.tokenizer).input_ids
            for word in ("0", "Why")
        )
    except DataPrunerError:
        return np.empty(0, np.int32)
    size = min(len(first), len(second))
    same = int(np.argmin(np.append(first[:size] == second[:size], False)))
    return (
        first[:same] if LEAST_PREFIX <= same < min(feed.max_length, feed.tokens_a_batch // 4) else first[:0]
    )


def packs_exactly(feed: LanguageModel, prefix: NDArray[np.int32]) -> bool:
    """Whether packed sequences give the states that the model gives each alone.

    A model with a state that runs on between tokens, or with an attention of its own, does not.
    """
    import torch

    from datapruner.signals.language_model.find_output_layer import body, root_mean_square

    if getattr(feed.model, "_is_stateful", False):
        return False
    rng = np.random.default_rng(0)
    highest, longest = vocabulary_size(feed.model), feed.max_length - len(prefix)
    rows = [
        np.concatenate([prefix, rng.integers(0, highest, size=min(size, longest)).astype(np.int32)])
        for size in (telling_length(feed), 11, 5, 17)
    ]
    items = [Item(number, row, np.array([len(row) - 1])) for number, row in enumerate(rows)]
    try:
        with torch.inference_mode():
            plain = [
                body(feed.model)(
                    input_ids=torch.from_numpy(row)[None].long().to(feed.device), use_cache=False
                ).last_hidden_state[0, len(prefix) :]
                for row in rows
            ]
            with packed_attention(feed.model):
                pack = lay_out(items, prefix, len(prefix) + sum(map(len, rows)))
                states = run_packed(feed, pack)
    except Exception as error:  # whatever a model says to a mask of another kind, or to its length
        logger.info("packing is refused by the model: %s", error)
        return False
    own = pack.segments[1:] if len(prefix) else pack.segments
    packed = [states[segment.start : segment.start + segment.length] for segment in own]
    tolerance = PROBE_TOLERANCE.get(str(states.dtype), HALF_TOLERANCE)
    return all(
        root_mean_square(other - one) <= tolerance * root_mean_square(one)
        for one, other in zip(plain, packed, strict=True)
    )


def telling_length(feed: LanguageModel) -> int:
    """Give the length of a row that a model's windows show in: longer than any that rows can be longer than."""
    config = feed.model.config.get_text_config()
    named = [getattr(config, key, None) for key in WINDOWS]
    # Rotary positions of these two kinds change for all rows of a batch once one of them is long.
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    if {"dynamic", "longrope"} & {rope.get("rope_type"), rope.get("type")}:
        named += [rope.get("original_max_position_embeddings"), config.max_position_embeddings]
    return max([1, *(int(size) + 8 for size in named if size and size < feed.max_length)])
