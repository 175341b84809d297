"""Load a pruned model beside the dense one that it came from, in every form that pruning tools leave."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from datapruner.errors import DataPrunerError
from datapruner.files.paths import exists, expanded, is_file
from datapruner.models.checkpoints import (
    checkpoint_files,
    checkpoint_shapes,
    folded,
    masked_tensors,
    model_file,
    refuse_experts,
    refuse_tied,
    refuse_widths,
)
from datapruner.models.checks import check_model
from datapruner.models.foreign import FUNCTION, PICKLES, Pair, from_function, from_pickle, settled
from datapruner.models.keeping import kept
from datapruner.models.loading import load_causal_lm, load_causal_model
from datapruner.models.names import TOKENIZER_FILES, adapter_folder
from datapruner.models.options import Quantize, check_options, default_device
from datapruner.models.quiet import quiet_loading
from datapruner.models.sizes import predicted_tokens
from datapruner.models.tokenizers import load_tokenizer
from datapruner.text import safe_text

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


@kept
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
        model, tokenizer = from_pickle(name, path, trust_code)
    elif named is not None and not exists(path):
        model, tokenizer = from_function(name, named[1], named[2], trust_code)
    elif path.suffix in PICKLES and not exists(path):
        raise DataPrunerError(f"there is no file '{name}'")
    else:
        return _from_checkpoint(name, dtype, device, device_map, quantize)
    if device_map is not None or quantize is not None:
        option = "device_map" if device_map is not None else "quantize"
        raise DataPrunerError(
            f"{option} is for checkpoints, and '{name}' is none; leave it out, or load the model that way in a function"
        )
    model = settled(name, model, dtype, device or default_device())
    check_model(name, model, quantised=False)
    return model, tokenizer


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
    if dense_tokenizer is not None and pruned_tokenizer is not None:
        check_same_tokens(dense_tokenizer, pruned_tokenizer, "the dense and the pruned model", way_out)
    return shared


def check_same_tokens(
    one: PreTrainedTokenizerBase,
    other: PreTrainedTokenizerBase,
    whose: str,
    way_out: str,
    *,
    more: bool = False,
) -> None:
    """Refuse two tokenizers in which a token has not the same id; templates and limits may differ.

    Parameters
    ----------
    one, other : PreTrainedTokenizerBase
    whose, way_out : str
        Words of the sentence: which two models' they are, and what to do.
    more : bool
        The other one may have tokens that the first has not.
    """
    ids, others = one.get_vocab(), other.get_vocab()
    named = ids.keys() if more else ids.keys() | others.keys()
    if differing := sorted(token for token in named if ids.get(token) != others.get(token)):
        token = differing[0]
        raise DataPrunerError(
            f"the tokenizers of {whose} differ in {len(differing):,} tokens ('{safe_text(token, 40)}' has the id "
            f"{ids.get(token)} in one, {others.get(token)} in the other); {way_out}"
        )


def _from_checkpoint(
    name: str, dtype: str, device: str | None, device_map: str | None, quantize: Quantize | None
) -> Pair:
    """Load a folder or hub name, with masks multiplied in where they lie apart."""
    if adapter_folder(name) is not None:
        return load_causal_lm(name, dtype=dtype, device=device, device_map=device_map, quantize=quantize)
    files = checkpoint_files(name)
    shapes = checkpoint_shapes(files)
    refuse_experts(name, shapes)
    masked = masked_tensors(name, shapes)
    try:
        model = load_causal_model(
            name,
            dtype=dtype,
            device=device,
            device_map=device_map,
            quantize=quantize,
            state=folded(files, masked) if masked else None,
        )
    except DataPrunerError as error:
        refuse_widths(name, {key.removesuffix("_orig"): shape for key, shape in shapes.items()}, error)
        raise
    if masked:
        refuse_tied(name, model, masked)
        logger.warning(
            "'%s' was saved by torch.nn.utils.prune with its masks apart, and the masks (%d) were multiplied into the "
            "weights; next time, call prune.remove on every pruned layer before save_pretrained",
            safe_text(name),
            len(masked),
        )
    has_tokenizer = any(model_file(name, file) is not None for file in TOKENIZER_FILES)
    return model, load_tokenizer(name) if has_tokenizer else None
