"""Load tokenizers and causal language models by alias, path or hub name; strictly, and never remote code."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import sys
import warnings
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from datapruner.errors import DataPrunerError
from datapruner.extras import how_to_install
from datapruner.models import offline
from datapruner.models.formats import IN_CODE, quantised_by, refuse_config, refuse_file, refuse_folder
from datapruner.models.quiet import quiet_loading
from datapruner.models.untrusted import check_files, check_patterns, check_weights, try_tokenizer
from datapruner.paths import exists, expanded
from datapruner.text import did_you_mean, safe_text

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DEFAULT_TOKENIZER = "smollm2-135m-q4"
# The bundled model and the hub's float model have one tokenizer, so counts agree wherever it comes from.
HUB_TOKENIZER = "HuggingFaceTB/SmolLM2-135M-Instruct"

Quantize = Literal["4bit", "8bit"]
DTYPES = ("auto", "float32", "bfloat16", "float16", "float64")
DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
# What configurations call the longest input; a sliding window is none.
POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "seq_length")
LONGEST = 2048
"""Rows are cut here where nobody says otherwise."""
ADAPTER = "adapter_config.json"
ADAPTER_FILES = [ADAPTER, "adapter_model.*", "*token*", "vocab.*", "merges.txt", "chat_template*"]
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def resolve_model(name: str, *, verify: bool = True) -> str:
    """Turn an alias or a path into what ``from_pretrained`` takes; a hub name stays as it is.

    A folder's files are checked for what they may make a library do: :mod:`datapruner.models.untrusted`.
    """
    if name in offline.MODELS:
        return str(offline.model_folder(name, verify=verify))
    if exists(folder := expanded(Path(name))):
        if not folder.is_dir():
            refuse_file(name, folder)
        check_files(name, folder)
        return str(folder)
    if "/" not in name or name.startswith((".", "/", "~")):
        raise DataPrunerError(
            f"there is no model '{name}': it is neither a folder, nor a hub name (org/name), nor one of "
            f"{', '.join(offline.MODELS)}.{did_you_mean(name, offline.MODELS)}"
        )
    return name


@quiet_loading()
def load_tokenizer(name: str = DEFAULT_TOKENIZER, adapter: str | None = None) -> PreTrainedTokenizerBase:
    """Load a tokenizer.

    Parameters
    ----------
    name : str
        Alias, folder or hub name; of an adapter without a tokenizer, its base's is taken.
    adapter : str, optional
        An adapter of the model ``name``, whose tokenizer is taken where it has one.

    Raises
    ------
    DataPrunerError
        It cannot be had; the sentence says why.
    """
    from transformers import AutoTokenizer

    on_top = None if adapter is None else adapter_folder(adapter)
    if on_top is not None and _has_tokenizer(on_top):
        name = str(on_top)
    if name == DEFAULT_TOKENIZER and not offline.is_installed(name):
        name = HUB_TOKENIZER
    resolved = resolve_model(name, verify=False)
    folder = adapter_folder(name)
    if folder is not None and not _has_tokenizer(folder):
        resolved = resolve_model(_base_of(name, folder), verify=False)

    def load() -> PreTrainedTokenizerBase:
        return AutoTokenizer.from_pretrained(resolved, trust_remote_code=False)

    if name not in (*offline.MODELS, HUB_TOKENIZER):
        try_tokenizer(f"the tokenizer '{name}'", load)
    try:
        return load()
    except Exception as error:
        if name == HUB_TOKENIZER:
            raise DataPrunerError(
                "tokens are counted with SmolLM2's tokenizer, which is not installed and cannot be had from the hub: "
                "run `make install` in a clone of datapruner, or pass --tokenizer"
            ) from error
        raise DataPrunerError(f"the tokenizer '{name}' cannot be loaded: {first_line(error)}") from error


@quiet_loading()
def load_causal_lm(
    name: str,
    *,
    dtype: str = "float32",
    device: str | None = None,
    device_map: str | None = None,
    quantize: Quantize | None = None,
    adapter: str | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model in evaluation mode, refusing any checkpoint whose keys do not all match.

    Parameters
    ----------
    name : str
        Alias, folder or hub name; of a model, or of a LoRA adapter, whose base is then loaded too. A relative
        base in an adapter's ``adapter_config.json`` counts from the adapter's folder.
    dtype : {"auto", "float32", "bfloat16", "float16", "float64"}
        ``auto`` is float32, on CUDA the checkpoint's own (bfloat16 where it names none).
    device : str, optional
        ``cpu``, ``cuda``, ``cuda:1``, ``mps``. Default: CUDA where there is one, else the CPU.
    device_map : {"auto", "balanced", "balanced_low_0", "sequential"}, optional
        Spread the model over several GPUs instead; it must fit on them.
    quantize : {"4bit", "8bit"}, optional
        Quantise with bitsandbytes (4 bits: nf4, twice); the output layer is left as it is, since exact
        statistics need it.
    adapter : str, optional
        A LoRA adapter for the model ``name``. An adapter is merged into the weights, unless these are quantised.

    Returns
    -------
    model, tokenizer
        The model without gradients, on its device; the adapter's tokenizer where it has one.

    Raises
    ------
    DataPrunerError
        The model cannot be had, is no causal language model, or its checkpoint lacks, adds or reshapes tensors
        (transformers would fill them with random weights and only warn); an option does not fit this machine.
    """
    model = load_causal_model(
        name, dtype=dtype, device=device, device_map=device_map, quantize=quantize, adapter=adapter
    )
    return model, load_tokenizer(name, adapter)


@quiet_loading()
def load_causal_model(
    name: str,
    *,
    dtype: str = "float32",
    device: str | None = None,
    device_map: str | None = None,
    quantize: Quantize | None = None,
    adapter: str | None = None,
    state: dict[str, torch.Tensor] | None = None,
) -> PreTrainedModel:
    """Load a model as :func:`load_causal_lm` does, without its tokenizer.

    Parameters
    ----------
    name, dtype, device, device_map, quantize, adapter
        As for :func:`load_causal_lm`.
    state : dict of str to tensor, optional
        Taken in place of the checkpoint's tensors; the keys are held to the model's just as strictly.
    """
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    check_options(dtype, device, device_map, quantize)
    device = device or default_device()
    base, folder = base_and_adapter(name, adapter)
    config = causal_config(base)
    if base not in offline.MODELS and state is None:
        check_weights(base, Path(resolve_model(base)), lambda: AutoModelForCausalLM.from_config(config))
    options: dict[str, Any] = {"dtype": _torch_dtype(dtype, config, on_cuda=device.startswith("cuda"))}
    if quantize is not None:
        options["quantization_config"] = _quantization(base, config, quantize, dtype)
    if device_map is not None or quantize is not None:
        options["device_map"] = device_map or {"": device}
    try:
        if state is None:
            model, info = AutoModelForCausalLM.from_pretrained(
                resolve_model(base), trust_remote_code=False, output_loading_info=True, **options
            )
        else:
            kind = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
            model, info = kind.from_pretrained(
                None, config=config, state_dict=state, output_loading_info=True, **options
            )
    except (
        Exception
    ) as error:  # a damaged file, a library that lacks, shapes that differ: each has its own type
        way = quantised_by(config)
        hint = (
            ""
            if way is None
            else f"; it is quantised by {way}: install that, give its weights as they were, or {IN_CODE}"
        )
        raise DataPrunerError(f"the model '{base}' cannot be loaded: {first_line(error)}{hint}") from error
    _refuse_masks(base, info)
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        refuse_keys(base, key, info[key])
    if "device_map" not in options:
        model = model.to(device)
    if folder is not None:
        model = _with_adapter(model, folder, merge=quantize is None)
    model = model.eval().requires_grad_(False)
    check_model(name, model, quantised=quantize is not None)
    return model


def _has_tokenizer(folder: Path) -> bool:
    return any(exists(folder / file) for file in TOKENIZER_FILES)


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


def refuse_keys(name: str, kind: str, keys: Iterable[object]) -> None:
    """Raise where a checkpoint's tensors are not the model's; ``kind`` is transformers' word for how."""
    if named := sorted(map(str, keys)):
        raise DataPrunerError(
            f"the checkpoint of '{name}' does not fit its configuration: {kind.replace('_', ' ')} "
            f"{', '.join(named[:3])}{' and others' if len(named) > 3 else ''}"
        )


def _refuse_masks(name: str, info: dict[str, Any]) -> None:
    """Raise where weights lie beside masks instead of multiplied: transformers would fill them at random."""
    missing = set(info["missing_keys"])
    if masked := sorted(key for key in missing if f"{key}_orig" in info["unexpected_keys"]):
        raise DataPrunerError(
            f"the checkpoint of '{name}' was saved by torch.nn.utils.prune with masks apart, hence the missing keys "
            f"{masked[0]} and so on: give it as --pruned-model, which folds the masks in, or call "
            "prune.remove on every pruned layer before save_pretrained"
        )


def default_device() -> str:
    """CUDA where there is one, else the CPU."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def likely_device() -> str:
    """Guess :func:`default_device` without torch: a CUDA build of it, and a driver that counts a device."""
    try:
        if metadata.version("torch").endswith("+cpu") or sys.platform == "darwin":
            return "cpu"
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        count = ctypes.c_int(0)
        found = (
            driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
        )
    except (OSError, AttributeError, metadata.PackageNotFoundError):
        return "cpu"
    return "cuda" if found else "cpu"


def check_options(dtype: str, device: str | None, device_map: str | None, quantize: str | None) -> None:
    """Raise where an option is unknown, or is not to be had on this machine."""
    import torch

    if dtype not in DTYPES:
        raise DataPrunerError(
            f"there is no dtype '{dtype}'; there are {', '.join(DTYPES)}.{did_you_mean(dtype, DTYPES)}"
        )
    if device is not None and device_map is not None:
        raise DataPrunerError("device and device_map exclude each other; give one of them")
    if device is not None:
        _check_device(device)
    if device_map is not None and device_map not in DEVICE_MAPS:
        raise DataPrunerError(
            f"there is no device_map '{device_map}'; there are {', '.join(DEVICE_MAPS)}, and device for one device"
        )
    if device_map is not None and importlib.util.find_spec("accelerate") is None:
        raise DataPrunerError(f"device_map needs accelerate: {how_to_install('accelerate')}, or give device")
    if quantize is None:
        return
    if quantize not in ("4bit", "8bit"):
        raise DataPrunerError(f"there is no quantize '{quantize}'; there are 4bit and 8bit")
    for library in ("bitsandbytes", "accelerate"):
        if importlib.util.find_spec(library) is None:
            raise DataPrunerError(
                f"quantize='{quantize}' needs {library}: {how_to_install(library)}, or leave quantize out"
            )
    if not torch.cuda.is_available() or not (device or "cuda").startswith("cuda"):
        raise DataPrunerError(
            f"quantize='{quantize}' needs a CUDA device, and there is none"
            if device is None or device.startswith("cuda")
            else f"quantize='{quantize}' needs a CUDA device, not '{device}'"
        )


def _check_device(device: str) -> None:
    import torch

    try:
        found = torch.device(device)
    except RuntimeError:
        found = torch.device("meta")
    if found.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count <= (found.index or 0):
            raise DataPrunerError(f"there is no device '{device}' here: there are {count} CUDA devices")
    elif found.type == "mps" and not torch.backends.mps.is_available():
        raise DataPrunerError(
            "there is no device 'mps' here: torch cannot use Apple's GPU; give device='cpu'"
        )
    elif found.type not in ("cpu", "cuda", "mps"):
        raise DataPrunerError(
            f"there is no device '{device}'; there are cpu, cuda, cuda:1 and so on, and mps"
        )


def causal_config(name: str) -> Any:
    """Read a model's configuration, and refuse what is no causal language model."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    refuse_folder(name, Path(resolve_model(name, verify=False)))
    try:
        config = AutoConfig.from_pretrained(resolve_model(name, verify=False), trust_remote_code=False)
    except DataPrunerError:
        raise
    except Exception as error:
        raise DataPrunerError(f"the model '{name}' cannot be loaded: {first_line(error)}") from error
    if getattr(config, "is_encoder_decoder", False) or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise DataPrunerError(
            f"'{name}' is no causal language model: its type is {config.model_type}; give a model that predicts "
            "the next token"
        )
    refuse_config(name, config.to_dict())
    return config


def _torch_dtype(name: str, config: Any, *, on_cuda: bool) -> torch.dtype:
    import torch

    if name == "auto" and on_cuda:
        own = getattr(config, "dtype", None) or getattr(config.get_text_config(), "dtype", None)
        return own if isinstance(own, torch.dtype) else torch.bfloat16
    dtype: torch.dtype = getattr(torch, "float32" if name == "auto" else name)
    return dtype


def _quantization(name: str, config: Any, quantize: Quantize, dtype: str) -> Any:
    """Describe the quantisation; transformers leaves the output layer out where it is not told what to skip."""
    import torch
    from transformers import BitsAndBytesConfig

    if getattr(config, "quantization_config", None):
        raise DataPrunerError(f"the model '{name}' is quantised already; leave quantize out")
    if quantize == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if dtype == "auto" else getattr(torch, dtype),
    )


def base_and_adapter(name: str, adapter: str | None) -> tuple[str, Path | None]:
    """Tell a model's name and its adapter's folder apart."""
    folder = adapter_folder(name)
    if adapter is None:
        return (name, None) if folder is None else (_base_of(name, folder), folder)
    if folder is not None:
        raise DataPrunerError(
            f"'{name}' is an adapter itself, so it takes no other: merge the two, or give its base as the model"
        )
    folder = adapter_folder(adapter)
    if folder is None:
        raise DataPrunerError(f"'{adapter}' is no adapter: it has no {ADAPTER}")
    return name, folder


def adapter_folder(name: str) -> Path | None:
    """Return the folder of a LoRA adapter, fetched from the hub if need be; None for anything else."""
    if name in offline.MODELS:
        return None
    folder = Path(resolve_model(name, verify=False))
    if not folder.is_dir():
        from huggingface_hub import snapshot_download
        from transformers.utils import cached_file

        try:
            if cached_file(name, ADAPTER, _raise_exceptions_for_missing_entries=False) is None:
                return None
            folder = Path(snapshot_download(name, allow_patterns=ADAPTER_FILES))
        except Exception:  # what it is that cannot be had, the model's own loading says
            return None
    if not exists(folder / ADAPTER):
        return None
    if exists(folder / "config.json"):
        raise DataPrunerError(
            f"'{name}' holds a model and an adapter: move {ADAPTER} away, or give the adapter a folder of its own"
        )
    if importlib.util.find_spec("peft") is None:
        raise DataPrunerError(f"'{name}' is a LoRA adapter, which needs peft: {how_to_install('peft')}")
    return folder


def _base_of(name: str, folder: Path) -> str:
    """Return the model that an adapter was made for; a relative path counts from the adapter's folder."""
    try:
        base = json.loads((folder / ADAPTER).read_text("utf-8"))["base_model_name_or_path"]
        beside = folder / str(base)
        if not base:
            raise KeyError
    except (OSError, ValueError, KeyError, TypeError):
        raise DataPrunerError(
            f"the adapter '{name}' names no base model in {ADAPTER}; give the base as the model, and '{name}' as its "
            "adapter"
        ) from None
    if exists(beside) and beside.is_dir():
        base = str(beside)
    try:
        if str(base).startswith("."):
            raise DataPrunerError(f"there is no {beside}")
        nested = adapter_folder(base)
    except DataPrunerError as error:
        raise DataPrunerError(
            f"the base of the adapter '{name}' cannot be had: {error}; give the base as the model, and '{name}' as "
            "its adapter"
        ) from error
    if nested is not None:
        raise DataPrunerError(
            f"the base of the adapter '{name}' is an adapter itself ('{base}'); merge them first"
        )
    return str(base)


def _with_adapter(model: PreTrainedModel, folder: Path, *, merge: bool) -> PreTrainedModel:
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
            "the adapter changes the output layer, which exact statistics need as one matrix; leave quantize out, so "
            "that it is merged"
        )
    inner: PreTrainedModel = adapted.get_base_model()
    return inner


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


def first_line(error: BaseException) -> str:
    """Give an exception's first line, for one sentence to the user."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
