"""What no loader of ours reads is named in one sentence, with the way in."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from transformers import AutoModel

from datapruner.errors import DataPrunerError
from datapruner.models import load_causal_lm
from datapruner.models.twins import load_pruned_lm

LOADERS = [load_causal_lm, load_pruned_lm]


def described(folder, **changed):
    held = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(held | changed))
    return str(folder)


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("model-q4.gguf", r"is a GGUF file \(llama.cpp\)"),
        ("model.onnx", "is an ONNX graph"),
        ("model.safetensors", "is a file of tensors without a configuration"),
        ("rank0.engine", "is a TensorRT engine"),
        ("flax_model.msgpack", "is a Flax checkpoint"),
        ("tf_model.h5", "is a TensorFlow checkpoint"),
        ("last.ckpt", "is a checkpoint of a trainer"),
    ],
)
def test_a_format_without_a_loader_is_named(tmp_path, load, file, kind):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / file).write_bytes(b"\0" * 16)
    for name in (tmp_path / "model", tmp_path / "model" / file):
        with pytest.raises(DataPrunerError, match=f"{kind}.*module:function"):
            load(str(name))


def test_tensors_without_a_model_are_named(tmp_path):
    (tmp_path / "model").mkdir()
    torch.save({"weight": torch.zeros(2)}, tmp_path / "model" / "state.pt")
    for load in LOADERS:
        with pytest.raises(DataPrunerError, match=r"state.pt in it is a pickle.*module:function"):
            load(str(tmp_path / "model"))
    with pytest.raises(DataPrunerError, match=r"only .*pruned.model.* reads one.*module:function"):
        load_causal_lm(str(tmp_path / "model" / "state.pt"))
    with pytest.raises(DataPrunerError, match=r"holds tensors and no model.*module:function"):
        load_pruned_lm(str(tmp_path / "model" / "state.pt"))


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            {"quantization_config": {"quant_method": "exl2", "bits": 4.0}},
            "quantised by exl2, which transformers does",
        ),
        (
            {"quantization": {"group_size": 64, "bits": 4}},
            "quantised by mlx, which transformers does not read",
        ),
        (
            {"quantization_config": {"quant_method": "aqlm", "nbits_per_codebook": 16}},
            "cannot be loaded: .*aqlm.*quantised by aqlm: install that",
        ),
    ],
)
def test_quantised_weights_without_their_library_are_told(tiny_llama, tmp_path, load, changed, sentence):
    folder = described(shutil.copytree(tiny_llama, tmp_path / "model"), **changed)
    with pytest.raises(DataPrunerError, match=f"{sentence}.*module:function"):
        load(folder, device="cpu")


@pytest.mark.parametrize("load", LOADERS)
def test_a_model_of_vectors_is_refused(tiny_llama, tmp_path, load):
    """A tied one would load, with its embeddings for an output layer, and nobody would notice."""
    body = AutoModel.from_pretrained(tiny_llama)
    body.config.tie_word_embeddings = True
    body.save_pretrained(tmp_path / "body")
    with pytest.raises(DataPrunerError, match=r"without an output layer.*LlamaModel.*embedder"):
        load(str(tmp_path / "body"), device="cpu")


def test_a_function_may_not_give_a_model_of_vectors(tiny_llama, tmp_path):
    torch.save(AutoModel.from_pretrained(tiny_llama), tmp_path / "body.pt")
    with pytest.raises(
        DataPrunerError, match=r"gives a LlamaModel for a model.*output layer over the vocabulary"
    ):
        load_pruned_lm(str(tmp_path / "body.pt"), device="cpu", trust_code=True)


def test_architectures_that_predict_tokens_are_taken(tiny_llama, tmp_path):
    saved = shutil.copytree(tiny_llama, tmp_path / "model")
    for named in (None, ["LlamaForCausalLM"], ["GPT2LMHeadModel"], ["LlamaModel", "LlamaForCausalLM"]):
        load_causal_lm(described(saved, architectures=named), device="cpu")
