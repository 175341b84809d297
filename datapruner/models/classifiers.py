"""Sequence classifiers and reward models: a few numbers a row, from a text, a pair or a conversation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError
from datapruner.models.checks import refuse_keys
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

    from datapruner.samples.sample import Sample

TYPE_BIT = 32
"""A token's type (which text of a pair it is of) travels above its number."""
Reads = Literal["auto", "chat", "text", "pair", "prompt", "response"]
Numbered = tuple[int, "Sample"]
"""A row's position in the source, for messages, and the row."""


@dataclass(frozen=True)
class Outputs:
    """What a classifier's outputs are.

    Attributes
    ----------
    names : tuple of str
        Of the outputs, in their order.
    kind : {"single", "classes", "labels", "numbers"}
        One number, as a reward model gives; classes that exclude each other (softmax); labels of which each may hold
        (sigmoid); several numbers.
    """

    names: tuple[str, ...]
    kind: Literal["single", "classes", "labels", "numbers"]

    @classmethod
    def of(cls, config: Any) -> Outputs:
        """Read them off a configuration; ``problem_type`` says what several are, and classes where it says nothing."""
        count = int(config.num_labels)
        names = tuple(str((config.id2label or {}).get(place, f"LABEL_{place}")) for place in range(count))
        problem = getattr(config, "problem_type", None)
        if count == 1:
            return cls(names, "single")
        if problem == "multi_label_classification":
            return cls(names, "labels")
        return cls(names, "numbers" if problem == "regression" else "classes")

    @classmethod
    def noted(cls, context: dict[str, Any]) -> Outputs:
        """Take what a classifier's context says of them."""
        names, kind = context["outputs"]
        return cls(tuple(names), kind)

    def told(self) -> str:
        """Name them in a sentence."""
        shown = ", ".join(safe_text(name, 40) for name in self.names[:20])
        return shown + (f" and {len(self.names) - 20} more" if len(self.names) > 20 else "")

    def place(self, label: str, name: str) -> int:
        """Find an output by its name.

        Raises
        ------
        DataPrunerError
            There is none, or the classifier has no classes.
        """
        if self.kind == "single":
            raise DataPrunerError(
                f"the classifier '{safe_text(name, 200)}' has one output and no classes; leave label out"
            )
        if label not in self.names:
            from datapruner.text import did_you_mean

            raise DataPrunerError(
                f"the classifier '{safe_text(name, 200)}' has no class '{safe_text(label, 60)}'."
                f"{did_you_mean(label, self.names)} It has {self.told()}"
            )
        return self.names.index(label)

    def values(self, logits: NDArray[np.float32], place: int) -> NDArray[np.float64]:
        """Give the probability of a class or of a label, or an output that is a number itself; shape (n,)."""
        held = logits.astype(np.float64)
        if self.kind == "classes":
            return self._softmax(held)[:, place]
        if self.kind == "labels":
            return np.asarray(0.5 * (1 + np.tanh(held[:, place] / 2)))
        return np.array(held[:, place])

    def expected(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """Give the expected class: its number, or what its name says where all names are numbers; shape (n,)."""
        return np.asarray(self._softmax(logits.astype(np.float64)) @ self.grades())

    def grades(self) -> NDArray[np.float64]:
        """Give the number that each class stands for."""
        try:
            return np.array([float(name) for name in self.names])
        except ValueError:
            return np.arange(len(self.names), dtype=np.float64)

    @staticmethod
    def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def classifier_config(name: str) -> Any:
    """Read a classifier's configuration, and refuse what has no classification head; no weights are read.

    Raises
    ------
    DataPrunerError
        It is no sequence classifier, or cannot be had; the sentence says why.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    folder = Path(resolve_model(name, verify=False))
    refuse_folder(name, folder)
    if (folder / ADAPTER).exists():
        raise DataPrunerError(
            f"the classifier '{safe_text(name, 200)}' is an adapter; merge it into its base "
            "(merge_and_unload) and give the folder that save_pretrained wrote"
        )
    try:
        config = AutoConfig.from_pretrained(resolve_model(name, verify=False), trust_remote_code=False)
    except DataPrunerError:
        raise
    except Exception as error:
        raise DataPrunerError(f"the classifier '{name}' cannot be loaded: {first_line(error)}") from error
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


def read_rows(
    rows: Sequence[Numbered],
    tokenizer: PreTrainedTokenizerBase,
    reads: Reads,
    *,
    typed: bool = False,
    templates: dict[str, Any] | None = None,
) -> list[list[int]]:
    """Tokenise rows as a classifier reads them.

    Parameters
    ----------
    rows : sequence of (int, Sample)
    tokenizer
    reads : {"auto", "chat", "text", "pair", "prompt", "response"}
        ``chat`` is the tokenizer's chat template over the whole row, without a generation prompt; a row that is plain
        text is read as text.
    typed : bool
        The model tells the two texts of a pair apart by types of tokens.
    templates : dict, optional
        Chat templates that were looked at before; new ones are put there.

    Returns
    -------
    list of list of int
        Token ids; of the second text of a pair with the type above :data:`TYPE_BIT`.

    Raises
    ------
    DataPrunerError
        The template does not take a row, or there is none and ``reads`` is ``chat``.
    """
    from datapruner.guards.bounded import asked
    from datapruner.samples.masking import Batch

    def tokens(texts: list[str], *more: list[str], special: bool = True) -> Any:
        return asked(
            tokenizer,
            texts,
            **({"text_pair": more[0]} if more else {}),
            add_special_tokens=special,
            truncation=False,
            padding=False,
            return_attention_mask=False,
            # Of a pair, as the tokenizer itself does: not all give types where a model could tell them.
            **({} if more else {"return_token_type_ids": False}),
            verbose=False,
        )

    if reads == "pair":
        sides = [[sample.part(side) for _, sample in rows] for side in ("prompt", "response")]
        read = tokens(*sides)
        if not typed or "token_type_ids" not in read:
            return [list(ids) for ids in read["input_ids"]]
        return [
            [token | kind << TYPE_BIT for token, kind in zip(ids, kinds, strict=True)]
            for ids, kinds in zip(read["input_ids"], read["token_type_ids"], strict=True)
        ]
    chats: dict[int, str] = {}
    if reads in ("auto", "chat"):
        held = {} if templates is None else templates
        numbers = [row for row, _ in rows]
        batch = Batch([sample for _, sample in rows], tokenizer, numbers, held, last_turn_only=False)
        found = ((place, batch.rendered(place)) for place in range(len(rows)))
        chats = {place: text for place, text in found if text is not None}
        if reads == "chat" and not chats and not all(sample.plain for _, sample in rows):
            raise DataPrunerError(
                "the classifier's tokenizer has no chat template; pass --classifier-reads text or pair"
            )
    side: Any = "both" if reads in ("auto", "chat") else {"text": "both"}.get(reads, reads)
    plain = [place for place in range(len(rows)) if place not in chats]
    out: dict[int, list[int]] = {}
    for places, texts, special in (
        (list(chats), list(chats.values()), False),
        (plain, [rows[place][1].part(side) for place in plain], True),
    ):
        if places:
            out |= dict(zip(places, map(list, tokens(texts, special=special)["input_ids"]), strict=True))
    return [out[place] for place in range(len(rows))]


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
