from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from datapruner.errors import DataPrunerError
from datapruner.models import load_causal_lm, offline
from datapruner.models.loading import (
    DEFAULT_TOKENIZER,
    config_hash,
    first_line,
    load_tokenizer,
    resolve_model,
    tokenizer_hash,
    weights_hash,
)


@pytest.fixture
def llama(tiny_llama, tmp_path):
    return shutil.copytree(tiny_llama, tmp_path / "llama")


def change_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_causal_lm_is_loaded_for_evaluation_and_without_gradients(llama):
    model, tokenizer = load_causal_lm(str(llama))
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert next(model.parameters()).dtype == torch.float32
    assert tokenizer.decode(tokenizer("a plain text")["input_ids"]) == "a plain text"
    half, _ = load_causal_lm(str(llama), dtype="bfloat16")
    assert next(half.parameters()).dtype == torch.bfloat16


def test_a_checkpoint_that_lacks_a_tensor_is_refused(llama):
    change_tensors(llama, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(DataPrunerError, match=r"missing keys .*layers\.1\.mlp\.up_proj\.weight"):
        load_causal_lm(str(llama))


def test_a_checkpoint_with_a_tensor_too_many_is_refused(llama):
    change_tensors(llama, lambda tensors: tensors.update({"model.layers.7.extra.weight": torch.zeros(3)}))
    with pytest.raises(DataPrunerError, match=r"unexpected keys .*layers\.7"):
        load_causal_lm(str(llama))


def test_a_checkpoint_with_another_shape_is_refused(llama):
    def reshape(tensors):
        tensors["model.norm.weight"] = torch.ones(31)

    change_tensors(llama, reshape)
    with pytest.raises(DataPrunerError, match=r"cannot be loaded|mismatched keys"):
        load_causal_lm(str(llama))


def test_many_wrong_tensors_are_summed_up(llama):
    def rename(tensors):
        for key in list(tensors):
            if "mlp" in key:
                tensors.pop(key)

    change_tensors(llama, rename)
    with pytest.raises(DataPrunerError, match=r"and others$"):
        load_causal_lm(str(llama))


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"\0" * 64])
def test_damaged_files_end_with_a_sentence(llama, file, content):
    (llama / file).write_bytes(content)
    with pytest.raises(DataPrunerError, match="cannot be loaded"):
        load_causal_lm(str(llama))


def test_remote_code_is_never_run(llama):
    described = json.loads((llama / "config.json").read_text())
    described["model_type"] = "mine"
    described["auto_map"] = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    (llama / "config.json").write_text(json.dumps(described))
    marker = llama / "ran"
    (llama / "code.py").write_text(
        f"open({str(marker)!r}, 'w').close()\nclass Config: pass\nclass Model: pass\n"
    )
    with pytest.raises(DataPrunerError, match="cannot be loaded"):
        load_causal_lm(str(llama))
    assert not marker.exists()


@pytest.mark.parametrize("name", ["nonsense", "./nowhere", "/no/where", "~/nowhere-at-all"])
def test_a_name_that_is_nothing_ends_with_a_sentence(name):
    with pytest.raises(DataPrunerError, match="there is no model"):
        resolve_model(name)


def test_a_near_miss_is_guessed():
    with pytest.raises(DataPrunerError, match="minilm"):
        resolve_model("minilmm")


def test_a_hub_name_stays_and_cannot_be_had_offline(tmp_path):
    assert resolve_model("org/name") == "org/name"
    with pytest.raises(DataPrunerError, match="cannot be loaded"):
        load_causal_lm("org/name-that-is-not-here")
    with pytest.raises(DataPrunerError, match="cannot be loaded"):
        load_tokenizer("org/name-that-is-not-here")


def test_weights_hash_tells_names_types_shapes_and_values_apart():
    def module(**parameters):
        made = torch.nn.Module()
        for name, value in parameters.items():
            made.register_buffer(name, value)
        return weights_hash(made)

    base = module(a=torch.zeros(2, 3))
    assert base == module(a=torch.zeros(3, 2).T)
    others = [
        module(b=torch.zeros(2, 3)),
        module(a=torch.zeros(3, 2)),
        module(a=torch.zeros(2, 3, dtype=torch.int32)),
        module(a=torch.full((2, 3), 1e-30)),
        module(a=torch.zeros(2, 3), b=torch.zeros(1)),
        module(a=torch.zeros(2, 3, dtype=torch.bfloat16)),
    ]
    assert len({base, *others}) == 7
    assert module(a=torch.tensor(1.0)) != module(a=torch.tensor(2.0))


def test_tokenizer_hash_holds_the_vocabulary_and_the_template(llama, tiny_llama):
    tokenizer = load_tokenizer(str(llama))
    before = tokenizer_hash(tokenizer)
    assert before == tokenizer_hash(load_tokenizer(str(tiny_llama)))
    tokenizer("a b c", truncation=True, max_length=2)
    assert tokenizer_hash(tokenizer) == before
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    assert tokenizer_hash(tokenizer) != before
    other = load_tokenizer(str(llama))
    other.add_tokens(["a-new-token"])
    assert tokenizer_hash(other) != before


def test_config_hash_leaves_out_what_does_not_matter():
    from transformers import LlamaConfig

    base = config_hash(LlamaConfig(rope_theta=10000.0))
    named = LlamaConfig(rope_theta=10000.0)
    named._name_or_path = "/some/where"
    assert config_hash(named) == base
    assert config_hash(LlamaConfig(num_attention_heads=16)) != base
    assert config_hash(LlamaConfig(rms_norm_eps=1e-3)) != base


def test_first_line():
    assert first_line(ValueError("\n one \n two")) == "one"
    assert first_line(ValueError()) == "ValueError"


def test_the_default_tokenizer_has_a_chat_template():
    if not offline.is_installed(DEFAULT_TOKENIZER):
        pytest.skip("the bundled model smollm2-135m-q4 is not installed: make install")
    tokenizer = load_tokenizer()
    shown = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert "hi" in shown


def test_heavy_libraries_load_only_when_needed():
    code = (
        "import sys, datapruner.signals.embedding, datapruner.signals.plan, datapruner.models; "
        "print([m for m in ('torch', 'transformers', 'sentence_transformers', 'faiss', 'umap') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
