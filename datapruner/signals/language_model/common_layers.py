"""The layers at the bottom that a pruned model has in common with the dense one run once for both (*ours*).

A model that lost whole layers is the dense one up to the first that is gone: what both give there is the same, bit for
bit. That it is, is shown on a few tokens before anything is left out.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from datapruner.models.identity import structure_hash
from datapruner.signals.language_model.find_output_layer import body
from datapruner.signals.language_model.layers import PROBES, layers_of, replaced, run_again, states_of_probe

logger = logging.getLogger(__name__)

OF_DEPTH = frozenset({"num_hidden_layers", "n_layer", "num_layers", "layer_types"})
"""Settings in which models of different depths may differ; what they say of the layers in common is compared."""
OF_SAVING = frozenset(
    {"_name_or_path", "transformers_version", "architectures", "use_cache", "dtype", "torch_dtype"}
)
"""Settings that decide nothing here; the tensors' dtypes are compared as they are."""


@contextmanager
def running_once(dense: Any, pruned: Any) -> Iterator[int]:
    """Let the pruned model begin where it leaves the dense one, which must have run over the same batch before.

    Parameters
    ----------
    dense, pruned : PreTrainedModel
        In evaluation mode.

    Yields
    ------
    int
        Layers that run once; 0 where the models have none in common, or share modules in memory.
    """
    given: list[Any] = []
    with ExitStack() as undo:
        try:
            count = _begin(dense, pruned, given, undo)
        except Exception as error:  # whatever a model of another kind says; then both run whole
            logger.info("no layers run once for both models: %s", error)
            count = 0
        if not count:
            undo.close()
        yield count


def _begin(dense: Any, pruned: Any, given: list[Any], undo: ExitStack) -> int:
    """Let the pruned model take over, show on a few tokens that nothing else changes, and count the layers."""
    ours, theirs = layers_of(dense), layers_of(pruned)
    count = _in_common(dense, pruned, ours, theirs)
    if not count:
        return 0
    shape, other = PROBES
    alone = states_of_probe(pruned, shape)
    states_of_probe(pruned, other)  # what a layer hands on beside its output is then of these tokens

    def keep(_layer: Any, _input: Any, output: Any) -> None:
        given[:] = [output]

    def passed(*_: Any, **__: Any) -> Any:
        return given[0]

    def last(*_: Any, **__: Any) -> Any:
        return given.pop()  # some layers give large tensors beside their states

    undo.callback(given.clear)
    undo.callback(ours[count - 1].register_forward_hook(keep).remove)
    undo.callback(run_again, theirs)
    for number, layer in enumerate(theirs[:count]):
        layer.forward = passed if number < count - 1 else last
    states_of_probe(dense, shape)
    return count if torch.equal(states_of_probe(pruned, shape), alone) else 0


def _in_common(dense: Any, pruned: Any, ours: Any, theirs: Any) -> int:
    """Count the layers from the bottom that are the same, where the models differ in their layers alone."""
    settings = [
        {key: value for key, value in model.config.to_dict().items() if key not in OF_DEPTH | OF_SAVING}
        | {"attention": getattr(model.config, "_attn_implementation", None)}
        for model in (dense, pruned)
    ]
    # A hook on a layer that is left out would run on what the other model's hook gave.
    if (
        settings[0] != settings[1]
        or replaced(*ours, *theirs, body(dense), body(pruned))
        or {*map(id, ours)} & {*map(id, theirs)}
    ):
        return 0
    if type(body(dense)) is not type(body(pruned)) or not _same(*(_around(of) for of in (dense, pruned))):
        return 0
    kinds = [getattr(model.config, "layer_types", None) or [] for model in (dense, pruned)]
    count = 0
    for one, other in zip(ours, theirs, strict=False):
        if kinds[0][count : count + 1] != kinds[1][count : count + 1]:
            break
        if not _same(one, other):
            break
        count += 1
    return count


def _around(model: Any) -> Any:
    """Give what stands around the layers, each part under its name."""
    whole, layers = body(model), layers_of(model)
    out = torch.nn.Module()
    for name, part in whole.named_children():
        if part is not layers:
            out.add_module(name, part)
    for name, tensor in (*whole.named_parameters(recurse=False), *whole.named_buffers(recurse=False)):
        out.register_buffer(name, tensor)
    return out


def _same(one: Any, other: Any) -> bool:
    """Whether two modules hold the same numbers and run the same code."""
    return _equal(_tensors(one), _tensors(other)) and structure_hash(one) == structure_hash(other)


def _tensors(module: Any) -> dict[str, Any]:
    return dict((*module.named_parameters(), *module.named_buffers()))


def _equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        type(held) is type(other[name])
        and not held.is_meta
        and _told(held) == _told(other[name])
        and torch.equal(held, other[name])
        for name, held in one.items()
    )


def _told(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Tell how a tensor lies in memory; products of others have other last bits."""
    return tensor.dtype, tensor.device, tensor.shape, tensor.stride()
