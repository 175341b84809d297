"""Load tokenizers and causal language models by alias, path or hub name; strictly, and never remote code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from datapruner.errors import DataPrunerError
from datapruner.models import offline
from datapruner.models.adapters import with_adapter
from datapruner.models.checks import causal_config, check_model, refuse_keys, refuse_masks
from datapruner.models.formats import IN_CODE, quantised_by
from datapruner.models.keeping import kept
from datapruner.models.names import base_and_adapter, first_line, resolve_model
from datapruner.models.options import Quantize, check_options, default_device, quantization, torch_dtype
from datapruner.models.quiet import quiet_loading
from datapruner.models.tokenizers import load_tokenizer
from datapruner.models.untrusted import check_weights

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@kept
@quiet_loading()
def load_causal_lm(
    name: str,
    *,
    dtype: str = "float32",
    device: str | None = None,
    device_map: str | None = None,
    quantize: Quantize | None = None,
    adapter: str | None = None,
    merge: bool = True,
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
    merge : bool
        Or left beside them, where its own layers are looked at.

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
        name,
        dtype=dtype,
        device=device,
        device_map=device_map,
        quantize=quantize,
        adapter=adapter,
        merge=merge,
    )
    return model, load_tokenizer(name, adapter)


@kept
@quiet_loading()
def load_causal_model(
    name: str,
    *,
    dtype: str = "float32",
    device: str | None = None,
    device_map: str | None = None,
    quantize: Quantize | None = None,
    adapter: str | None = None,
    merge: bool = True,
    state: dict[str, torch.Tensor] | None = None,
) -> PreTrainedModel:
    """Load a model as :func:`load_causal_lm` does, without its tokenizer.

    Parameters
    ----------
    name, dtype, device, device_map, quantize, adapter, merge
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
    options: dict[str, Any] = {"dtype": torch_dtype(dtype, config, on_cuda=device.startswith("cuda"))}
    if quantize is not None:
        options["quantization_config"] = quantization(base, config, quantize, dtype)
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
    refuse_masks(base, info)
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        refuse_keys(base, key, info[key])
    if "device_map" not in options:
        model = model.to(device)
    if folder is not None:
        model = with_adapter(model, folder, merge=merge and quantize is None)
    model = model.eval().requires_grad_(False)
    check_model(name, model, quantised=quantize is not None)
    return model
