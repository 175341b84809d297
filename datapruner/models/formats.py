"""Models that no loader of ours reads: what they are, and the way in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from datapruner.errors import DataPrunerError
from datapruner.files.paths import exists
from datapruner.text import safe_text

IN_CODE = (
    "load it in a function of yours that returns (model, tokenizer) and give --pruned-model module:function "
    "--trust-code, or pass the pair itself from Python, model=(model, tokenizer)"
)
FILES = {
    ".gguf": "a GGUF file (llama.cpp), which transformers can dequantise: from_pretrained(folder, gguf_file=...)",
    ".ggml": "a GGML file (llama.cpp)",
    ".onnx": "an ONNX graph, whose output layer is no matrix that can be read",
    ".safetensors": "a file of tensors without a configuration",
    ".ckpt": "a checkpoint of a trainer",
    ".nemo": "a NeMo archive",
    ".engine": "a TensorRT engine",
    ".plan": "a TensorRT engine",
    ".msgpack": "a Flax checkpoint",
    ".h5": "a TensorFlow checkpoint",
    ".tflite": "a TensorFlow Lite graph",
    ".mlmodel": "a Core ML model",
    ".mlpackage": "a Core ML model",
    ".pte": "an ExecuTorch program",
}
STATES = (".pt", ".pth", ".bin", ".pkl")
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "moe_top_k", "moe_topk", "top_k_experts")


def refuse_file(name: str, path: Path) -> None:
    """Say what a file is that stands where a model's folder is expected.

    Raises
    ------
    DataPrunerError
        Always.
    """
    kind = FILES.get(path.suffix.lower())
    if path.suffix.lower() in STATES:
        kind = "a pickle, of tensors or of a whole model: only --pruned-model reads one, and of a whole model alone"
    told = f"is {kind}" if kind else "is a file, and a model is a folder with its config.json"
    raise DataPrunerError(
        f"'{safe_text(name, 200)}' {told}; give a folder in transformers' format, with its config.json, or {IN_CODE}"
    )


def refuse_folder(name: str, folder: Path) -> None:
    """Refuse a folder whose files transformers does not read, and experts that differ from layer to layer.

    Parameters
    ----------
    name : str
        What the user wrote.
    folder : Path
        Nothing is said where it has a ``config.json`` that is like others.

    Raises
    ------
    DataPrunerError
        The sentence names what it found, and the way in.
    """
    if not folder.is_dir():
        return
    if not exists(folder / "config.json"):
        for file in sorted(folder.iterdir()):
            suffix = file.suffix.lower()
            if suffix in FILES or suffix in STATES:
                kind = FILES.get(suffix, "a pickle of tensors or of a whole model")
                raise DataPrunerError(
                    f"'{safe_text(name, 200)}' has no config.json; {safe_text(file.name, 80)} in it is {kind}; give a "
                    f"folder that save_pretrained wrote, or {IN_CODE}"
                )
        return
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):  # the loading itself says what is wrong with it
        return
    if not isinstance(config, dict):
        return
    _refuse_unbuildable(name, config)


def refuse_config(name: str, config: dict[str, Any]) -> None:
    """Refuse a configuration that says a model cannot be loaded, or gives no token a probability.

    Raises
    ------
    DataPrunerError
        The model is quantised by what transformers does not read, a model of vectors, or a mixture of experts that
        differ from layer to layer or are fewer than answer each token.
    """
    _refuse_unbuildable(name, config)
    named = [str(one) for one in config.get("architectures") or []]
    if named and all(one.endswith(("Model", "Encoder")) and not one.endswith("LMHeadModel") for one in named):
        raise DataPrunerError(
            f"'{safe_text(name, 200)}' is a model of vectors without an output layer over the vocabulary (its "
            f"architecture is {safe_text(named[0], 60)}), so that it gives no token a probability, and has no losses "
            "and no divergences: give the language model it was made from, or use it as --embedder"
        )


def _refuse_unbuildable(name: str, config: dict[str, Any]) -> None:
    _refuse_quantised(name, config)
    text = config.get("text_config")
    for part in (config, text if isinstance(text, dict) else {}):
        _refuse_experts(name, part)


def quantised_by(config: Any) -> str | None:
    """Name the way in which a checkpoint is quantised already, or None; of a configuration or its JSON."""
    held = config if isinstance(config, dict) else vars(config)
    found = held.get("quantization_config")
    method = found.get("quant_method") if isinstance(found, dict) else getattr(found, "quant_method", None)
    if method is None:
        return "mlx" if isinstance(held.get("quantization"), dict) else None
    return str(getattr(method, "value", method)).lower()


def _refuse_quantised(name: str, config: dict[str, Any]) -> None:
    method = quantised_by(config)
    if method is None:
        return
    from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

    if not any(known == method or known.startswith(f"{method}_") for known in AUTO_QUANTIZER_MAPPING):
        raise DataPrunerError(
            f"'{safe_text(name, 200)}' is quantised by {safe_text(method, 40)}, which transformers does not read; give "
            f"the weights as they were before, or {IN_CODE}"
        )


def _refuse_experts(name: str, config: dict[str, Any]) -> None:
    experts = next((config[key] for key in EXPERTS if config.get(key) is not None), None)
    chosen = next((config[key] for key in CHOSEN if isinstance(config.get(key), int)), None)
    if isinstance(experts, list | dict):
        counts = experts.values() if isinstance(experts, dict) else experts
        raise DataPrunerError(
            f"the configuration of '{safe_text(name, 200)}' gives its layers different numbers of experts "
            f"({safe_text(', '.join(map(str, counts)), 60)}), and transformers builds one number for all; {IN_CODE}"
        )
    if isinstance(experts, int) and chosen is not None and 0 < experts < chosen:
        raise DataPrunerError(
            f"the configuration of '{safe_text(name, 200)}' has {experts} experts, and {chosen} of them are to answer "
            f"each token: put at most {experts} into num_experts_per_tok in its config.json"
        )
