"""A classifier is loaded, or taken as an object, and becomes a reading of rows and one padded forward pass."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError
from datapruner.models.checks import read_config, refuse_keys
from datapruner.models.classifiers.outputs import Outputs
from datapruner.models.classifiers.reading import TYPE_BIT, Numbered, Reads, read_rows
from datapruner.models.encoders import TokenEmbedder
from datapruner.models.formats import refuse_folder
from datapruner.models.identity import evaluation, model_identity, tokenizer_hash
from datapruner.models.keeping import kept
from datapruner.models.names import ADAPTER, first_line, resolve_model
from datapruner.models.options import check_options, default_device, torch_dtype
from datapruner.models.quiet import quiet_loading
from datapruner.models.sizes import LONGEST, input_device, positions
from datapruner.models.tokenizers import load_tokenizer
from datapruner.models.untrusted import check_weights
from datapruner.text import safe_text

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def classifier_config(name: str) -> Any:
    """Read a classifier's configuration, and refuse what has no classification head; no weights are read.

    Raises
    ------
    DataPrunerError
        It is no sequence classifier, or cannot be had; the sentence says why.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    folder = Path(resolve_model(name, verify=False))
    refuse_folder(name, folder)
    if (folder / ADAPTER).exists():
        raise DataPrunerError(
            f"the classifier '{safe_text(name, 200)}' is an adapter; merge it into its base "
            "(merge_and_unload) and give the folder that save_pretrained wrote"
        )
    config = read_config(name, "classifier")
    named = [str(one) for one in getattr(config, "architectures", None) or []]
    kind = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(config), None)
    if kind is None or (named and not any("SequenceClassification" in one for one in named)):
        raise _headless(name, named[0] if named else str(config.model_type))
    return config


@kept
@quiet_loading()
def load_classifier(
    name: str,
    *,
    reads: Reads = "auto",
    max_length: int | None = None,
    dtype: str = "auto",
    device: str | None = None,
    device_map: str | None = None,
) -> TokenEmbedder:
    """Load a sequence classifier by path or hub name, refusing any checkpoint that lacks a tensor.

    Parameters
    ----------
    name : str
    reads : {"auto", "chat", "text", "pair", "prompt", "response"}
        What it is given of a row.
    max_length : int, optional
        Longer rows lose their middle. Default: the model's own limit, at most 2048.
    dtype, device, device_map
        As for :func:`datapruner.models.load_causal_lm`.

    Returns
    -------
    TokenEmbedder
        Numbered rows -> their tokens -> logits, float32 of shape (rows, outputs).

    Raises
    ------
    DataPrunerError
        It is no sequence classifier, its checkpoint lacks tensors, or it cannot be had.
    """
    from transformers import AutoModelForSequenceClassification

    check_options(dtype, device, device_map, None)
    device = device or default_device()
    config = classifier_config(name)
    folder = resolve_model(name)
    check_weights(name, Path(folder), lambda: AutoModelForSequenceClassification.from_config(config))
    options: dict[str, Any] = {"dtype": torch_dtype(dtype, config, on_cuda=device.startswith("cuda"))}
    if device_map is not None:
        options["device_map"] = device_map
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            folder, trust_remote_code=False, output_loading_info=True, **options
        )
    except Exception as error:
        raise DataPrunerError(f"the classifier '{name}' cannot be loaded: {first_line(error)}") from error
    missing = sorted(map(str, info["missing_keys"]))
    if missing and not any(key.startswith(f"{model.base_model_prefix}.") for key in missing):
        raise _headless(name, f"it lacks {missing[0]}")
    for key in ("missing_keys", "mismatched_keys"):
        refuse_keys(name, key, info[key])
    if device_map is None:
        model = model.to(device)
    return opened_classifier(
        name, model.eval().requires_grad_(False), load_tokenizer(name), reads=reads, max_length=max_length
    )


def opened_classifier(
    name: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    reads: Reads = "auto",
    max_length: int | None = None,
    probe: bool = False,
) -> TokenEmbedder:
    """Take a classifier that is in memory apart into reading rows and one padded forward pass.

    Parameters
    ----------
    name : str
        For messages.
    model, tokenizer
        Of transformers.
    reads, max_length
        As for :func:`load_classifier`.
    probe : bool
        What it answers to fixed tokens is part of its identity: of a model that came as an object.
    """
    import torch

    outputs = Outputs.of(model.config)
    own = _longest(model, tokenizer)
    limit = min(length for length in (max_length, own, LONGEST if max_length is None else None) if length)
    known = int(model.get_input_embeddings().weight.shape[0])
    named = model.config.get_text_config().pad_token_id
    typed = int(getattr(model.config, "type_vocab_size", 0) or 0) > 1
    # A decoder's head finds a row's last token by the padding token of its configuration.
    pad = int(named if named is not None else tokenizer.pad_token_id or 0)

    templates: dict[str, Any] = {}

    def whole(rows: list[Numbered]) -> list[list[int]]:
        ids = [each or [pad] for each in read_rows(rows, tokenizer, reads, typed=typed, templates=templates)]
        highest = max((max(each) & ((1 << TYPE_BIT) - 1) for each in ids), default=0)
        if highest >= known:
            raise DataPrunerError(
                f"the tokenizer of the classifier '{safe_text(name, 200)}' gives the token {highest}, and the model "
                f"knows {known:,}: it is of another vocabulary"
            )
        return ids

    def forward(packed: Ints, mask: Ints) -> NDArray[np.float32]:
        device = input_device(model)
        ids = torch.from_numpy(packed & ((1 << TYPE_BIT) - 1)).to(device)
        given = {"input_ids": ids, "attention_mask": torch.from_numpy(mask).to(device)}
        if typed and (types := packed >> TYPE_BIT).any():
            given["token_type_ids"] = torch.from_numpy(types).to(device)
        with evaluation(model), torch.inference_mode():
            logits = _at_the_end(model, given) if named is None else None
            logits = model(**given).logits if logits is None else logits
        values: NDArray[np.float32] = logits.float().cpu().numpy()
        return values

    context: dict[str, object] = {
        "model": model_identity(model, probe=probe),
        "tokenizer": tokenizer_hash(tokenizer),
        "outputs": [list(outputs.names), outputs.kind],
        "reads": reads,
        "max_length": limit,
        "cut": "both ends",
        "dtype": str(next(model.parameters()).dtype),
    }
    try:  # two rows, one of them padded: some heads take one alone
        mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0]])
        shape = forward(np.where(mask, (pad + 1) % known, pad), mask).shape
    except Exception as error:
        raise DataPrunerError(f"the classifier '{name}' cannot be run: {first_line(error)}") from error
    if shape != (2, len(outputs.names)):
        raise DataPrunerError(
            f"the classifier '{name}' gives {shape[1:]} numbers a row, and its configuration names "
            f"{len(outputs.names)}"
        )
    return TokenEmbedder(context, len(outputs.names), whole, forward, pad, limit, input_device(model).type)


def _at_the_end(model: Any, given: dict[str, torch.Tensor]) -> torch.Tensor | None:
    """Give the head's answer at every row's last token, where no padding token says which it is.

    Transformers then refuses more than one row, of which it takes the last position. None: the model has no such head.
    """
    import torch

    head = getattr(model, "score", None)
    if head is None:
        return None
    states = model.base_model(**given, use_cache=False).last_hidden_state
    last = given["attention_mask"].sum(1) - 1
    found: torch.Tensor = head(
        states[torch.arange(len(states), device=states.device), last.to(states.device)]
    )
    return found


def _longest(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Give the longest row that a model reads; of positions that begin behind the padding token's, fewer."""
    import torch

    named = positions(model, tokenizer)
    table = getattr(model.config, "max_position_embeddings", None)
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding) and module.num_embeddings == table:
            own = module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
            return own if named is None else min(named, own)
    return named


def _headless(name: str, what: str) -> DataPrunerError:
    return DataPrunerError(
        f"'{safe_text(name, 200)}' is no sequence classifier ({safe_text(what, 80)}): it has no classification head; "
        "give a model that was trained with one, or take the scorer judge with --judge for a causal language model"
    )
