"""Load a pruned model beside the dense one that it came from, in every form that pruning tools leave."""

from __future__ import annotations

import importlib
import logging
import re
import sys
import types
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datapruner.errors import DataPrunerError
from datapruner.models.checks import causal_config, check_model
from datapruner.models.formats import refuse_file
from datapruner.models.loading import load_causal_lm, load_causal_model
from datapruner.models.names import TOKENIZER_FILES, adapter_folder, first_line, resolve_model
from datapruner.models.options import Quantize, check_options, default_device
from datapruner.models.quiet import quiet_loading
from datapruner.models.sizes import predicted_tokens
from datapruner.models.tokenizers import load_tokenizer
from datapruner.models.untrusted import check_pickle
from datapruner.paths import exists, expanded, is_file
from datapruner.text import did_you_mean, safe_text

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

FUNCTION = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*)")
PICKLES = (".pt", ".pth", ".bin", ".pkl")
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

Pair = tuple["PreTrainedModel", "PreTrainedTokenizerBase | None"]


@quiet_loading()
def load_pruned_lm(
    name: str,
    *,
    dtype: str = "float32",
    device: str | None = None,
    device_map: str | None = None,
    quantize: Quantize | None = None,
    trust_code: bool = False,
) -> Pair:
    """Load a pruned causal language model in evaluation mode, every tensor of its checkpoint matched.

    Parameters
    ----------
    name : str
        One of these:

        - an alias, folder or hub name, of a model or a LoRA adapter, as :func:`load_causal_lm` takes it;
        - a folder or hub name saved by ``torch.nn.utils.prune`` without ``remove``: the masks are multiplied in;
        - ``module:function``, which returns (model, tokenizer or None): for layers of different widths and what
          else a configuration cannot describe. The model may be a ``PeftModel`` and its output layer a module of its
          own, as long as it maps last hidden states linearly. The current folder is searched first. Needs
          ``trust_code``;
        - a file .pt, .pth, .bin or .pkl in which ``torch.save`` left a whole model, a pair of model and tokenizer, or
          a dict of ``model`` and ``tokenizer`` (Torch-Pruning, LLM-Pruner). Needs ``trust_code``.
    dtype : {"auto", "float32", "bfloat16", "float16", "float64"}
        As for :func:`load_causal_lm`; buffers that are not saved (rotary frequencies) stay as they are.
    device : str, optional
        Default: CUDA where there is one, else the CPU.
    device_map, quantize : str, optional
        As for :func:`load_causal_lm`; not for a model that a function or a pickle gives.
    trust_code : bool
        Run the code that ``module:function`` names, or that unpickling runs.

    Returns
    -------
    model, tokenizer
        The model without gradients, on its device; None where it came without a tokenizer.

    Raises
    ------
    DataPrunerError
        The model cannot be had, would run code that is not trusted, or does not fit its configuration; the
        sentence says what to do.
    """
    check_options(dtype, device, device_map, quantize)
    path = expanded(Path(name))
    named = FUNCTION.fullmatch(name)
    if is_file(path):
        model, tokenizer = _from_pickle(name, path, trust_code)
    elif named is not None and not exists(path):
        model, tokenizer = _from_function(name, named[1], named[2], trust_code)
    elif path.suffix in PICKLES and not exists(path):
        raise DataPrunerError(f"there is no file '{name}'")
    else:
        return _from_checkpoint(name, dtype, device, device_map, quantize)
    if device_map is not None or quantize is not None:
        option = "device_map" if device_map is not None else "quantize"
        raise DataPrunerError(
            f"{option} is for checkpoints, and '{name}' is none; leave it out, or load the model that way in a function"
        )
    model = _settled(name, model, dtype, device or default_device())
    check_model(name, model, quantised=False)
    return model, tokenizer


def runs_code(name: str) -> bool:
    """Whether a name stands for a function or a pickle: a model that its weights and settings do not describe."""
    path = expanded(Path(name))
    return is_file(path) or (FUNCTION.fullmatch(name) is not None and not exists(path))


def check_twins(
    dense: PreTrainedModel,
    dense_tokenizer: PreTrainedTokenizerBase | None,
    pruned: PreTrainedModel,
    pruned_tokenizer: PreTrainedTokenizerBase | None,
) -> int:
    """Tell over how many tokens two models' next-token distributions can be compared; raise where they cannot.

    Parameters
    ----------
    dense, pruned : PreTrainedModel
        Depth, width and number of experts may differ, and output layers by rows of padding.
    dense_tokenizer, pruned_tokenizer : PreTrainedTokenizerBase or None
        Where there are both, each token must have one id in them.

    Returns
    -------
    int
        The first so many rows of both output layers: all of them where they have as many, else those of the tokens
        that the tokenizers use.

    Raises
    ------
    DataPrunerError
        The vocabularies differ.
    """
    sizes = [predicted_tokens(model) for model in (dense, pruned)]
    way_out = "give the dense model that the pruned one was made from, or prune with the vocabulary as it was"
    tokenizers = [one for one in (dense_tokenizer, pruned_tokenizer) if one is not None]
    shared = sizes[0]
    if sizes[0] != sizes[1]:
        # Rows beyond the tokenizers' ids are padding: no text has them, and one of the two may have none.
        shared = max(
            (max(one.get_vocab().values(), default=-1) + 1 for one in tokenizers), default=max(sizes)
        )
        if shared > min(sizes):
            raise DataPrunerError(
                f"the dense model predicts {sizes[0]:,} tokens and the pruned one {sizes[1]:,}, and the tokenizer "
                f"uses {shared:,} of them, so that they cannot be compared; {way_out}"
            )
        logger.warning(
            "the dense model predicts %s tokens and the pruned one %s: they are compared on the %s that the tokenizer "
            "uses, and both models' losses are among these",
            f"{sizes[0]:,}",
            f"{sizes[1]:,}",
            f"{shared:,}",
        )
    if len(tokenizers) < 2:
        return shared
    assert dense_tokenizer is not None
    assert pruned_tokenizer is not None
    one, other = dense_tokenizer.get_vocab(), pruned_tokenizer.get_vocab()
    if differing := sorted(
        token for token in one.keys() | other.keys() if one.get(token) != other.get(token)
    ):
        token = differing[0]
        raise DataPrunerError(
            f"the tokenizers of the dense and the pruned model differ in {len(differing):,} tokens ('"
            f"{safe_text(token, 40)}' has the id {one.get(token)} in one, {other.get(token)} in the other); {way_out}"
        )
    return shared


def _from_checkpoint(
    name: str, dtype: str, device: str | None, device_map: str | None, quantize: Quantize | None
) -> Pair:
    """Load a folder or hub name, with masks multiplied in where they lie apart."""
    if adapter_folder(name) is not None:
        return load_causal_lm(name, dtype=dtype, device=device, device_map=device_map, quantize=quantize)
    files = _checkpoint_files(name)
    shapes = _checkpoint_shapes(files)
    _refuse_experts(name, shapes)
    masked = _masked(name, shapes)
    try:
        model = load_causal_model(
            name,
            dtype=dtype,
            device=device,
            device_map=device_map,
            quantize=quantize,
            state=_folded(files, masked) if masked else None,
        )
    except DataPrunerError as error:
        _refuse_widths(name, {key.removesuffix("_orig"): shape for key, shape in shapes.items()}, error)
        raise
    if masked:
        _refuse_tied(name, model, masked)
        logger.warning(
            "'%s' was saved by torch.nn.utils.prune with its masks apart, and the masks (%d) were multiplied into the "
            "weights; next time, call prune.remove on every pruned layer before save_pretrained",
            safe_text(name),
            len(masked),
        )
    has_tokenizer = any(_file(name, file) is not None for file in TOKENIZER_FILES)
    return model, load_tokenizer(name) if has_tokenizer else None


def _file(name: str, file: str) -> Path | None:
    """Find one file of a model, fetched from the hub if need be."""
    from transformers.utils import cached_file

    try:
        path = cached_file(
            resolve_model(name, verify=False), file, _raise_exceptions_for_missing_entries=False
        )
    except OSError:  # what it is that cannot be had, the model's own loading says
        return None
    return None if path is None else Path(path)


def _checkpoint_files(name: str) -> list[Path]:
    """Find the files that hold a model's tensors; the same as transformers takes."""
    import json

    found = next((path for path in (_file(name, file) for file in CHECKPOINTS) if path is not None), None)
    if found is None or found.suffix != ".json":
        return [] if found is None else [found]
    try:
        shards = sorted(set(json.loads(found.read_text("utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # the model's own loading says so
        return []
    return [path for path in (_file(name, str(shard)) for shard in shards) if path is not None]


def _checkpoint_shapes(files: list[Path]) -> dict[str, tuple[int, ...]]:
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


def _masked(name: str, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
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


def _folded(files: list[Path], masked: list[str]) -> dict[str, torch.Tensor]:
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


def _refuse_tied(name: str, model: PreTrainedModel, masked: list[str]) -> None:
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


def _refuse_widths(name: str, shapes: Mapping[str, tuple[int, ...]], error: DataPrunerError) -> None:
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


def _refuse_experts(name: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
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


def _from_function(name: str, module: str, function: str, trust_code: bool) -> Pair:
    """Call a function of the user's."""
    if not trust_code:
        raise DataPrunerError(
            f"'{name}' would run code of the module {module}; pass --trust-code where you trust it"
        )
    sys.path.insert(0, here := str(Path.cwd()))
    try:
        importlib.invalidate_caches()
        found = _imported(module)
        if not callable(getattr(found, function, None)):
            raise DataPrunerError(
                f"the module {module} has no function {function}.{did_you_mean(function, vars(found))}"
            )
        given = getattr(found, function)()
    except DataPrunerError:
        raise
    except Exception as error:
        where = " (looked for in the current folder, then on Python's path)"
        raise DataPrunerError(
            f"'{name}' raises {type(error).__name__}: {first_line(error)}"
            + where * isinstance(error, ModuleNotFoundError)
        ) from error
    finally:
        if here in sys.path:
            sys.path.remove(here)
    if not (isinstance(given, tuple) and len(given) == 2):
        raise DataPrunerError(
            f"'{name}' must return (model, tokenizer), the tokenizer may be None; it returns {_kind(given)}"
        )
    return checked_pair(name, *given)


_READ: dict[str, tuple[int, int]] = {}
"""The modules that were imported here, with the size and time of their files then."""


def _imported(name: str) -> types.ModuleType:
    """Import a module, anew where its file has been corrected since it was imported here."""
    known = sys.modules.get(name)
    module = importlib.import_module(name)
    stat = Path(str(getattr(module, "__file__", None) or __file__)).stat()
    now = (stat.st_size, stat.st_mtime_ns)
    if known is module and _READ.get(name, now) != now:
        module = importlib.reload(module)
    _READ[name] = now
    return module


def _from_pickle(name: str, path: Path, trust_code: bool) -> Pair:
    """Unpickle a whole model."""
    import torch

    if path.suffix not in PICKLES:
        refuse_file(name, path)
    load: Callable[..., Any] = torch.load
    try:  # what holds tensors alone opens without running code
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles that it was not made for; these fail below
            found = load(path, map_location="meta", weights_only=True)
    except Exception:
        if not trust_code:
            raise DataPrunerError(
                f"'{name}' is a pickle, and opening it runs the code that it holds; pass --trust-code "
                "where you trust it, or save the model with save_pretrained and give the folder"
            ) from None
        found = None
    if found is None:
        try:
            found = load(path, map_location="cpu", weights_only=False)
        except Exception as error:
            raise DataPrunerError(
                f"'{name}' cannot be opened by torch.load: {type(error).__name__}: {first_line(error)}"
            ) from error
    if isinstance(found, tuple | list) and len(found) == 2:
        return checked_pair(name, *found)
    if isinstance(found, Mapping) and isinstance(found.get("model"), torch.nn.Module):
        return checked_pair(name, found["model"], found.get("tokenizer"))
    if isinstance(found, Mapping):
        raise DataPrunerError(
            f"'{name}' holds tensors and no model: give a folder with them and their config.json (save_pretrained), or "
            f"{OWN_FUNCTION}"
        )
    return checked_pair(name, found, None)


def checked_pair(name: str, model: Any, tokenizer: Any = None) -> Pair:
    """Raise where what code gave is no model with its tokenizer."""
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    given, model = model, without_peft(name, model)
    if not isinstance(model, PreTrainedModel) or model.get_output_embeddings() is None:
        raise DataPrunerError(
            f"'{name}' gives {_kind(given)} for a model; it must be a causal language model of transformers, with an "
            "output layer over the vocabulary (a PeftModel is taken, another wrapper is not)"
        )
    if tokenizer is not None and not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise DataPrunerError(
            f"'{name}' gives {_kind(tokenizer)} for a tokenizer; it must be one of transformers, or None"
        )
    return model, tokenizer


def without_peft(name: str, model: Any) -> Any:
    """Take the model out of a ``PeftModel``: its adapters lie in its layers and work there in every pass."""
    if not type(model).__module__.startswith("peft."):
        return model
    kinds = {
        str(config.peft_type.value) for config in model.peft_config.values() if config.is_prompt_learning
    }
    if kinds:
        raise DataPrunerError(
            f"'{name}' gives a PeftModel of the type {', '.join(sorted(kinds))}, which puts tokens before every text; "
            "only adapters inside of layers (LoRA and its kin) are read"
        )
    return model.get_base_model()


def _kind(value: Any) -> str:
    kind = f"a {type(value).__name__}"
    return f"{kind} of {len(value)}" if isinstance(value, tuple | list) else kind


def _settled(name: str, model: PreTrainedModel, dtype: str, device: str) -> PreTrainedModel:
    """Make a model that code gave what the loading of a checkpoint gives."""
    import torch
    from torch.nn.utils import prune

    for module in model.modules():
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, prune.BasePruningMethod):  # hashes and gradients are of weights, not of parts
                prune.remove(module, hook._tensor_name)  # type: ignore[no-untyped-call]
    try:
        if dtype != "auto" or not device.startswith("cuda"):
            wanted = getattr(torch, "float32" if dtype == "auto" else dtype)
            # Not model.to(dtype): rotary frequencies are not saved, and transformers keeps them in float32.
            for tensor in model.state_dict(keep_vars=True).values():
                if tensor.is_floating_point():
                    tensor.data = tensor.data.to(wanted)
        model = model.to(device)
    except Exception as error:
        raise DataPrunerError(
            f"the model '{name}' cannot be put on {device} as {dtype}: {first_line(error)}"
        ) from error
    return model.eval().requires_grad_(False)
