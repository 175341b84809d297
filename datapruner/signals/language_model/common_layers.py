"""The layers at the bottom that a pruned model has in common with the dense one run once for both (*ours*).

A model that lost whole layers is the dense one up to the first that is gone: what both give there is the same, bit for
bit. That it is, is shown on a few tokens before anything is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from datapruner.models.identity import structure_hash
from datapruner.models.sizes import input_device, vocabulary_size
from datapruner.signals.language_model.find_output_layer import body

OF_DEPTH = frozenset({"num_hidden_layers", "n_layer", "num_layers", "layer_types"})
"""Settings in which models of different depths may differ."""
OF_SAVING = frozenset(
    {"_name_or_path", "transformers_version", "architectures", "use_cache", "dtype", "torch_dtype"}
)
"""Settings that decide nothing here; the tensors' dtypes are compared as they are."""
PROBES = (2, 24), (3, 7)


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
    ours, theirs = _layers(dense), _layers(pruned)
    count = _in_common(dense, pruned, ours, theirs)
    if not count:
        yield 0
        return
    given: list[Any] = []

    def keep(_layer: Any, _input: Any, output: Any) -> None:
        given[:] = [output]

    def left_out(*_: Any, **__: Any) -> Any:
        return given[0]

    shape, other = PROBES
    alone = _states(pruned, shape)
    _states(pruned, other)  # what a layer hands on beside its output is then of these tokens
    hook = ours[count - 1].register_forward_hook(keep)
    try:
        for layer in theirs[:count]:
            layer.forward = left_out
        _states(dense, shape)
        if not torch.equal(_states(pruned, shape), alone):
            count = 0
            _put_back(theirs)
        yield count
    finally:
        _put_back(theirs)
        hook.remove()


def _put_back(layers: list[Any]) -> None:
    for layer in layers:
        vars(layer).pop("forward", None)


def _layers(model: Any) -> list[Any]:
    """Give the layers of a body, in the order in which they run; none where it has no list of them."""
    lists: list[Any] = [part for part in body(model).children() if isinstance(part, torch.nn.ModuleList)]
    return list(max(lists, key=len, default=()))


def _in_common(dense: Any, pruned: Any, ours: list[Any], theirs: list[Any]) -> int:
    """Count the layers from the bottom that are the same, where the models differ in their layers alone."""
    settings = [
        {key: value for key, value in model.config.to_dict().items() if key not in OF_DEPTH | OF_SAVING}
        | {"attention": getattr(model.config, "_attn_implementation", None)}
        for model in (dense, pruned)
    ]
    replaced = any("forward" in vars(layer) for layer in (*ours, *theirs))
    if settings[0] != settings[1] or replaced or {*map(id, ours)} & {*map(id, theirs)}:
        return 0
    inside = [
        {id(tensor) for layer in layers for tensor in _tensors(layer).values()} for layers in (ours, theirs)
    ]
    around = [
        {name: tensor for name, tensor in _tensors(body(model)).items() if id(tensor) not in of}
        for model, of in zip((dense, pruned), inside, strict=True)
    ]
    if not _equal(*around):
        return 0
    count = 0
    for one, other in zip(ours, theirs, strict=False):
        if not _equal(_tensors(one), _tensors(other)) or structure_hash(one) != structure_hash(other):
            break
        count += 1
    return count


def _tensors(module: Any) -> dict[str, Any]:
    return dict((*module.named_parameters(), *module.named_buffers()))


def _equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        type(held) is type(other[name])
        and not held.is_meta
        and (held.dtype, held.device, held.shape)
        == (other[name].dtype, other[name].device, other[name].shape)
        and torch.equal(held, other[name])
        for name, held in one.items()
    )


def _states(model: Any, shape: tuple[int, int]) -> torch.Tensor:
    """Give the last hidden states of a few rows of tokens."""
    ids = torch.randint(vocabulary_size(model), shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        states: torch.Tensor = body(model)(
            input_ids=ids.to(input_device(model)), use_cache=False
        ).last_hidden_state
    return states
