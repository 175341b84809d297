"""What lies in a pruned model's checkpoint: its files, its tensors' shapes, masks apart and layers of odd sizes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from datapruner.errors import DataPrunerError
from datapruner.models.checks import causal_config
from datapruner.models.names import resolve_model
from datapruner.models.untrusted import check_pickle

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

# In the order in which transformers looks for them.
CHECKPOINTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)

EXPERT = re.compile(r"\.(\d+)\.(?:\w+\.)*?experts\.(?:(\d+)\.|(?:gate_up_proj|down_proj)$)")

LAYER = re.compile(r"(.*?\.)(\d+)(\..*)")

OWN_FUNCTION = (
    "give --pruned-model=module:function with --trust-code, a function that builds the model as it was pruned and "
    "returns (model, tokenizer)"
)


def model_file(name: str, file: str) -> Path | None:
    """Find one file of a model, fetched from the hub if need be."""
    from transformers.utils import cached_file

    try:
        path = cached_file(
            resolve_model(name, verify=False), file, _raise_exceptions_for_missing_entries=False
        )
    except OSError:  # what it is that cannot be had, the model's own loading says
        return None
    return None if path is None else Path(path)


def checkpoint_files(name: str) -> list[Path]:
    """Find the files that hold a model's tensors; the same as transformers takes."""
    import json

    found = next(
        (path for path in (model_file(name, file) for file in CHECKPOINTS) if path is not None), None
    )
    if found is None or found.suffix != ".json":
        return [] if found is None else [found]
    try:
        shards = sorted(set(json.loads(found.read_text("utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # the model's own loading says so
        return []
    return [path for path in (model_file(name, str(shard)) for shard in shards) if path is not None]


def checkpoint_shapes(files: list[Path]) -> dict[str, tuple[int, ...]]:
    """Read the names and shapes of a checkpoint's tensors, without their contents."""
    import torch
    from safetensors import safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    try:
        for file in files:
            if file.suffix == ".safetensors":
                with safe_open(file, "pt") as opened:
                    shapes |= {key: tuple(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118
            else:
                check_pickle(str(file), file)
                tensors = torch.load(file, map_location="meta", weights_only=True)
                shapes |= {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    except Exception:  # a damaged file: the model's own loading says so
        return {}
    return shapes


def masked_tensors(name: str, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Name the parameters that lie apart as X_orig and X_mask; raise where one of the two is not there."""
    originals = {key.removesuffix("_orig") for key in shapes if key.endswith("_orig")}
    masks = {key.removesuffix("_mask") for key in shapes if key.endswith("_mask")}
    masks = {key for key in masks if key in originals or key.endswith((".weight", ".bias"))}
    for key in sorted(originals | masks):
        original, mask = shapes.get(f"{key}_orig"), shapes.get(f"{key}_mask")
        if original is None or mask is None:
            there, lacking = ("mask", "orig") if original is None else ("orig", "mask")
            problem = f"it has {key}_{there} and no {key}_{lacking}"
        elif original != mask:
            problem = f"{key}_orig is {_times(original)} and {key}_mask {_times(mask)}"
        elif key in shapes:
            problem = f"it has both {key} and {key}_orig"
        else:
            continue
        raise DataPrunerError(
            f"the masks in the checkpoint of '{name}' do not fit its weights: {problem}; call prune.remove on every "
            "pruned layer of the model and save it again"
        )
    return sorted(originals)


def folded(files: list[Path], masked: list[str]) -> dict[str, torch.Tensor]:
    """Read a checkpoint, and multiply its masks in as torch.nn.utils.prune does in every pass."""
    import torch
    from safetensors.torch import load_file

    state: dict[str, torch.Tensor] = {}
    for file in files:
        if file.suffix == ".safetensors":
            state |= load_file(file)
        else:
            check_pickle(str(file), file)
            state |= torch.load(file, map_location="cpu", weights_only=True)
    for key in masked:
        original, mask = state.pop(f"{key}_orig"), state.pop(f"{key}_mask")
        state[key] = mask.to(original.dtype) * original
    return state


def refuse_tied(name: str, model: PreTrainedModel, masked: list[str]) -> None:
    """Raise where a mask was for one of two layers that are tied again: one of the two weights is lost.

    Transformers 5 unties layers whose checkpoint has two different weights; 4 did not.
    """
    first, last = model.get_input_embeddings(), model.get_output_embeddings()
    pruned = {model.get_submodule(key.rpartition(".")[0]) for key in masked}
    if first.weight is last.weight and {first, last} & pruned:
        raise DataPrunerError(
            f"'{name}' has a mask on its output layer or its embeddings, which its configuration ties together: set "
            "tie_word_embeddings to false and clone the weight before pruning, or prune the other layers only"
        )


def refuse_widths(name: str, shapes: Mapping[str, tuple[int, ...]], error: DataPrunerError) -> None:
    """Raise a clearer sentence than the loading's where layers have other shapes than the configuration says."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            state = AutoModelForCausalLM.from_config(causal_config(name)).state_dict()
    except Exception:  # no model comes of this configuration, and the error at hand says so
        return
    wanted = {key: tuple(tensor.shape) for key, tensor in state.items()}
    differing = [key for key in wanted if key in shapes and shapes[key] != wanted[key]]
    if not differing:
        return
    for key in differing:
        layer = LAYER.fullmatch(key)
        if layer is None:
            continue
        before, number, after = layer.groups()
        same = re.compile(re.escape(before) + r"\d+" + re.escape(after))
        if len({shape for other, shape in shapes.items() if same.fullmatch(other)}) > 1:
            raise DataPrunerError(
                f"the configuration of '{name}' describes layers of one shape, and layer {number} is different: {key} "
                f"is {_times(shapes[key])}, not {_times(wanted[key])}; {OWN_FUNCTION}"
            ) from error
    key = differing[0]
    raise DataPrunerError(
        f"the configuration of '{name}' is not that of its tensors: {key} is {_times(shapes[key])}, not "
        f"{_times(wanted[key])}; put the pruned sizes into its config.json, or {OWN_FUNCTION}"
    ) from error


def refuse_experts(name: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise where layers have different numbers of experts, of which a configuration has one for all."""
    found: dict[int, set[int]] = {}
    for key, shape in shapes.items():
        if one := EXPERT.search(key):
            numbers = [int(one[2])] if one[2] is not None else range(shape[0])
            found.setdefault(int(one[1]), set()).update(numbers)
    counts = {layer: len(numbers) for layer, numbers in sorted(found.items())}
    if len(set(counts.values())) > 1:
        first = next(iter(counts))
        other = next(layer for layer in counts if counts[layer] != counts[first])
        raise DataPrunerError(
            f"the layers of '{name}' have different numbers of experts, {counts[first]} in layer {first} and "
            f"{counts[other]} in layer {other}, and a configuration has one number for all; {OWN_FUNCTION}"
        )


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
