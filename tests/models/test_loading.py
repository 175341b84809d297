from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from datapruner.errors import DataPrunerError
from datapruner.models import load_causal_lm, offline
from datapruner.models.adapters import with_adapter
from datapruner.models.identity import config_hash, model_identity, tokenizer_hash, weights_hash
from datapruner.models.names import DEFAULT_TOKENIZER, first_line, resolve_model
from datapruner.models.sizes import context_length, vocabulary_size
from datapruner.models.tokenizers import load_tokenizer


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


IDS = torch.tensor([[7, 30, 4, 99, 12, 55]])


def logits(model):
    with torch.inference_mode():
        return model(input_ids=IDS.to(model.device), use_cache=False).logits


def saved(model, folder, tokenizer_of=None):
    model.save_pretrained(folder)
    if tokenizer_of is not None:
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(tokenizer_of / file, folder / file)
    return folder


def tiny_gpt2(**options):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    sizes = {"vocab_size": 320, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}
    return GPT2LMHeadModel(GPT2Config(**sizes, initializer_range=0.3, **options))


def make_adapter(base, folder, *, named=None, seed=0, **options):
    """An adapter that changes the outputs, as training leaves one; gives its logits too."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    described = {
        "r": 4,
        "lora_alpha": 16,
        "target_modules": ["q_proj", "down_proj"],
        "task_type": "CAUSAL_LM",
    }
    adapted = get_peft_model(model, LoraConfig(**(described | options)))
    torch.manual_seed(seed)
    for name, parameter in adapted.named_parameters():
        if parameter.requires_grad and "lora_A" not in name:
            parameter.data.normal_(0, 0.3)
    adapted.eval().save_pretrained(folder)
    if named is not None:
        change_adapter(folder, base_model_name_or_path=named)
    return logits(adapted)


def change_adapter(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def adapter(llama):
    expected = make_adapter(llama, llama.parent / "lora", named="../llama")
    return llama.parent / "lora", expected


def test_a_merged_adapter_gives_peft_s_logits(llama, adapter, monkeypatch, tmp_path_factory):
    folder, expected = adapter
    # The relative base counts from the adapter's folder, not from here.
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    base, _ = load_causal_lm(str(llama))
    model, tokenizer = load_causal_lm(str(folder))
    assert not torch.allclose(logits(base), expected, atol=1e-2)
    torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=1e-4)
    assert tokenizer("a b")["input_ids"] == load_tokenizer(str(llama))("a b")["input_ids"]
    named, _ = load_causal_lm(str(llama), adapter=str(folder))
    assert torch.equal(logits(named), logits(model))
    assert model.state_dict().keys() == base.state_dict().keys()
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model_identity(named) == model_identity(model) != model_identity(base)
    # Merged and saved, it is the same model.
    again, _ = load_causal_lm(str(saved(model, llama.parent / "merged", llama)))
    assert model_identity(again) == model_identity(model)


def test_an_adapter_in_place_gives_the_same_logits(llama, adapter):
    folder, expected = adapter
    base, _ = load_causal_lm(str(llama))
    before = model_identity(base)
    model = with_adapter(base, folder, merge=False).eval()
    assert type(model).__name__ == "LlamaForCausalLM"
    torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=1e-5)
    plain = type(model.get_output_embeddings())
    assert plain is torch.nn.Linear
    identity = model_identity(model)
    assert identity != before
    # Its strength is in no tensor.
    model.peft_config["default"].lora_alpha = 3
    assert model_identity(model) != identity


def test_an_adapter_of_the_output_layer_cannot_stay_beside_it(llama):
    folder = llama.parent / "lora"
    for options in ({"target_modules": ["lm_head"]}, {"modules_to_save": ["lm_head"]}):
        expected = make_adapter(llama, folder, **options)
        torch.testing.assert_close(
            logits(load_causal_lm(str(llama), adapter=str(folder))[0]), expected, atol=1e-4, rtol=1e-4
        )
        with pytest.raises(DataPrunerError, match="the adapter changes the output layer"):
            with_adapter(load_causal_lm(str(llama))[0], folder, merge=False)
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["embed_tokens"]},
        {"target_modules": ["embed_tokens", "q_proj"]},
        {"target_modules": ["lm_head"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    ],
)
def test_adapters_of_tied_models(llama, tmp_path, options):
    change_tensors(llama, lambda tensors: tensors.pop("lm_head.weight"))
    described = json.loads((llama / "config.json").read_text())
    (llama / "config.json").write_text(json.dumps(described | {"tie_word_embeddings": True}))
    expected = make_adapter(llama, tmp_path / "lora", **options)
    model, _ = load_causal_lm(str(llama), adapter=str(tmp_path / "lora"))
    torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=1e-4)


def test_an_adapter_may_have_its_own_tokenizer_and_name_a_missing_base(llama, adapter):
    folder, _ = adapter
    tokenizer = load_tokenizer(str(llama))
    tokenizer.chat_template = "mine"
    tokenizer.save_pretrained(folder)
    assert load_causal_lm(str(folder))[1].chat_template == "mine"
    assert load_causal_lm(str(llama), adapter=str(folder))[1].chat_template == "mine"
    assert load_tokenizer(str(folder)).chat_template == "mine"
    (folder / "tokenizer.json").unlink()
    assert load_tokenizer(str(folder)).chat_template != "mine"
    for named in ("./nowhere", "/no/where", "nonsense"):
        change_adapter(folder, base_model_name_or_path=named)
        with pytest.raises(
            DataPrunerError, match=r"the base of the adapter .* cannot be had.*as its adapter"
        ):
            load_causal_lm(str(folder))
    for named in (None, ""):
        change_adapter(folder, base_model_name_or_path=named)
        with pytest.raises(DataPrunerError, match="names no base model"):
            load_causal_lm(str(folder))
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(DataPrunerError, match="names no base model"):
        load_causal_lm(str(folder))


def change_adapter_tensors(folder, change):
    tensors = load_file(folder / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


KEY = "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop(KEY), r"missing keys .*layers\.1\.self_attn\.q_proj\.lora_B"),
        (
            lambda tensors: tensors.update({KEY.replace("layers.1", "layers.9"): torch.zeros(3)}),
            r"unexpected keys .*layers\.9",
        ),
        (
            lambda tensors: tensors.update({KEY.replace("q_proj", "o_proj"): torch.zeros(3)}),
            r"unexpected keys .*o_proj",
        ),
        (lambda tensors: tensors.update({KEY: torch.zeros(31, 4)}), r"cannot be loaded: .*size mismatch"),
        (lambda tensors: tensors.clear(), "missing keys .* and others"),
    ],
)
def test_an_adapter_whose_tensors_do_not_fit_is_refused(adapter, change, message):
    folder, _ = adapter
    change_adapter_tensors(folder, change)
    with pytest.raises(DataPrunerError, match=message):
        load_causal_lm(str(folder))


def test_a_saved_module_of_an_adapter_must_be_there(llama, tmp_path):
    make_adapter(llama, tmp_path / "lora", modules_to_save=["lm_head"])
    change_adapter_tensors(
        tmp_path / "lora", lambda tensors: [tensors.pop(key) for key in list(tensors) if "lm_head" in key]
    )
    with pytest.raises(DataPrunerError, match=r"(missing keys|cannot be loaded).*lm_head"):
        load_causal_lm(str(llama), adapter=str(tmp_path / "lora"))


def test_folders_that_are_no_adapter_or_too_much_of_one(llama, adapter, tmp_path, monkeypatch):
    folder, _ = adapter
    with pytest.raises(DataPrunerError, match=r"is no adapter: it has no adapter_config\.json"):
        load_causal_lm(str(llama), adapter=str(llama))
    with pytest.raises(DataPrunerError, match="is an adapter itself"):
        load_causal_lm(str(folder), adapter=str(folder))
    shutil.copytree(folder, tmp_path / "second")
    change_adapter(tmp_path / "second", base_model_name_or_path="../lora")
    with pytest.raises(DataPrunerError, match="is an adapter itself"):
        load_causal_lm(str(tmp_path / "second"))
    change_adapter(tmp_path / "second", base_model_name_or_path="../llama", peft_type="LOHA")
    with pytest.raises(DataPrunerError, match=r"second' (is of the type|cannot be loaded)"):
        load_causal_lm(str(tmp_path / "second"))
    shutil.copy(folder / "adapter_config.json", llama)
    with pytest.raises(DataPrunerError, match="holds a model and an adapter"):
        load_causal_lm(str(llama))
    (llama / "adapter_config.json").unlink()
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else found(name))
    with pytest.raises(DataPrunerError, match=r"needs peft: pip install '\.\[adapters\]'"):
        load_causal_lm(str(folder))


def test_adding_an_adapter_leaves_the_random_numbers_alone(adapter):
    state = torch.random.get_rng_state()
    load_causal_lm(str(adapter[0]))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_dtypes(llama):
    for dtype in ("float64", "float16", "bfloat16"):
        model, _ = load_causal_lm(str(llama), dtype=dtype)
        assert model.dtype == getattr(torch, dtype)
    saved(load_causal_lm(str(llama), dtype="bfloat16")[0], llama)
    model, _ = load_causal_lm(str(llama), dtype="auto", device="cpu")
    assert model.dtype == torch.float32
    with pytest.raises(DataPrunerError, match=r"there is no dtype 'bfloat'; .* Did you mean 'bfloat16'"):
        load_causal_lm(str(llama), dtype="bfloat")


def test_auto_takes_the_checkpoint_s_dtype_on_cuda():
    from transformers import LlamaConfig

    from datapruner.models.options import torch_dtype

    assert torch_dtype("auto", LlamaConfig(dtype="float16"), on_cuda=True) == torch.float16
    assert torch_dtype("auto", LlamaConfig(), on_cuda=True) == torch.bfloat16
    assert torch_dtype("auto", LlamaConfig(dtype="float16"), on_cuda=False) == torch.float32
    assert torch_dtype("float64", LlamaConfig(dtype="float16"), on_cuda=True) == torch.float64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "gpu"}, "there is no device 'gpu'; there are cpu"),
        ({"device": "meta"}, "there is no device 'meta'"),
        ({"device": "cuda"}, "there is no device 'cuda' here: there are 0 CUDA devices"),
        ({"device": "cuda:1"}, "there is no device 'cuda:1' here"),
        ({"device": "mps"}, "there is no device 'mps' here"),
        ({"device": "cpu", "device_map": "auto"}, "exclude each other"),
        ({"device_map": "everywhere"}, "there is no device_map 'everywhere'"),
        ({"quantize": "2bit"}, "there is no quantize '2bit'"),
        (
            {"quantize": "4bit"},
            r"needs bitsandbytes: pip install '\.\[quantize\]'|needs a CUDA device",
        ),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="what a machine without a GPU says")
def test_options_that_do_not_fit_this_machine(llama, options, message, monkeypatch):
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    with pytest.raises(DataPrunerError, match=message):
        load_causal_lm(str(llama / "not-even-looked-at"), **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="what a machine without a GPU says")
def test_libraries_that_options_need(llama, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: object() if name == "bitsandbytes" else found(name)
    )
    with pytest.raises(DataPrunerError, match="needs a CUDA device, and there is none"):
        load_causal_lm(str(llama), quantize="8bit")
    with pytest.raises(DataPrunerError, match="needs a CUDA device, not 'cpu'"):
        load_causal_lm(str(llama), quantize="8bit", device="cpu")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "accelerate" else found(name)
    )
    with pytest.raises(DataPrunerError, match="device_map needs accelerate"):
        load_causal_lm(str(llama), device_map="auto")


def test_device_map(llama):
    pytest.importorskip("accelerate")
    model, _ = load_causal_lm(str(llama), device_map="auto")
    base, _ = load_causal_lm(str(llama))
    assert torch.equal(logits(model), logits(base))
    assert model_identity(model) == model_identity(base)


def test_how_a_model_is_quantised(llama):
    from transformers import LlamaConfig

    from datapruner.models.options import quantization

    try:
        made = quantization("x", LlamaConfig(), "4bit", "auto")
    except Exception as error:
        pytest.skip(f"this transformers needs bitsandbytes for its configuration: {error}")
    assert (made.bnb_4bit_quant_type, made.bnb_4bit_use_double_quant) == ("nf4", True)
    assert made.bnb_4bit_compute_dtype == torch.bfloat16
    assert quantization("x", LlamaConfig(), "8bit", "auto").load_in_8bit
    with pytest.raises(DataPrunerError, match="quantised already"):
        quantization("x", LlamaConfig(quantization_config={"quant_method": "gptq"}), "4bit", "auto")


def test_transformers_leaves_the_output_layer_out_of_quantisation(llama):
    """What ``quantization`` relies on by naming no modules to skip."""
    base = pytest.importorskip("transformers.quantizers.base")
    if not hasattr(base, "get_keys_to_not_convert"):
        pytest.skip("another version of transformers")
    assert "lm_head" in base.get_keys_to_not_convert(load_causal_lm(str(llama))[0])


def test_tied_weights_may_be_left_out_of_a_checkpoint(llama, tmp_path):
    change_tensors(llama, lambda tensors: tensors.pop("lm_head.weight"))
    with pytest.raises(DataPrunerError, match=r"missing keys lm_head\.weight"):
        load_causal_lm(str(llama))
    described = json.loads((llama / "config.json").read_text())
    (llama / "config.json").write_text(json.dumps(described | {"tie_word_embeddings": True}))
    model, _ = load_causal_lm(str(llama))
    assert torch.equal(model.get_input_embeddings().weight, model.get_output_embeddings().weight)
    gpt2 = saved(tiny_gpt2(), tmp_path / "gpt2", llama)
    assert not any("lm_head" in key for key in load_file(gpt2 / "model.safetensors"))
    model, _ = load_causal_lm(str(gpt2))
    assert (vocabulary_size(model), context_length(model)) == (320, 64)


def test_pruned_weights_that_were_never_made_final_are_refused(llama):
    def mask(tensors):
        key = "model.layers.0.mlp.up_proj.weight"
        tensors[f"{key}_orig"] = tensors.pop(key)
        tensors[f"{key}_mask"] = torch.ones_like(tensors[f"{key}_orig"])

    change_tensors(llama, mask)
    with pytest.raises(DataPrunerError, match=r"missing keys .*up_proj\.weight"):
        load_causal_lm(str(llama))


def test_what_is_no_causal_language_model(tmp_path, tiny_llama, tiny_vit, tiny_sentence_transformer):
    from transformers import BertConfig, BertForMaskedLM, T5Config, T5ForConditionalGeneration

    with pytest.raises(DataPrunerError, match="is no causal language model: its type is vit"):
        load_causal_lm(str(tiny_vit))
    small = {"d_model": 16, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2, "vocab_size": 320}
    t5 = saved(T5ForConditionalGeneration(T5Config(**small)), tmp_path / "t5", tiny_llama)
    with pytest.raises(DataPrunerError, match="is no causal language model: its type is t5"):
        load_causal_lm(str(t5))
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
    for spread in (0.02, 0.3):  # transformers has a causal class for it, which is not causal
        bert = BertForMaskedLM(BertConfig(vocab_size=320, **sizes, initializer_range=spread))
        folder = saved(bert, tmp_path / f"bert-{spread}", tiny_llama)
        with pytest.raises(DataPrunerError, match="its tokens see those that follow"):
            load_causal_lm(str(folder))


def test_gpt2_with_an_adapter(tmp_path, tiny_llama):
    base = saved(tiny_gpt2(), tmp_path / "gpt2", tiny_llama)
    expected = make_adapter(base, tmp_path / "lora", target_modules=["c_attn"], bias="lora_only")
    model, _ = load_causal_lm(str(base), adapter=str(tmp_path / "lora"))
    torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=1e-4)
    change_adapter_tensors(
        tmp_path / "lora", lambda tensors: tensors.pop(next(key for key in tensors if key.endswith(".bias")))
    )
    with pytest.raises(DataPrunerError, match=r"missing keys .*bias"):
        load_causal_lm(str(base), adapter=str(tmp_path / "lora"))


def test_the_length_that_rows_are_cut_at(llama):
    model, tokenizer = load_causal_lm(str(llama))
    assert context_length(model) == context_length(model, tokenizer) == 512
    assert context_length(model, default=100) == 100
    tokenizer.model_max_length = 300
    assert context_length(model, tokenizer) == 300
    tokenizer.model_max_length = int(1e30)
    for settings in (
        {},
        {"max_position_embeddings": None},
        {"max_position_embeddings": 1_000_000, "sliding_window": 128},
        {"max_position_embeddings": -1, "n_positions": 0},
    ):
        text = SimpleNamespace(**settings)
        nested = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda text=text: text))
        assert context_length(nested, tokenizer) == 2048


def test_a_vocabulary_may_be_padded(llama):
    model, tokenizer = load_causal_lm(str(llama))
    assert vocabulary_size(model) == len(tokenizer)
    model.resize_token_embeddings(len(tokenizer) + 7)
    assert vocabulary_size(model) == len(tokenizer) + 7


def test_the_identity_of_a_model(llama, tmp_path):
    model, _ = load_causal_lm(str(llama))
    identity = model_identity(model)
    shutil.copytree(llama, tmp_path / "copy")
    assert model_identity(load_causal_lm(str(tmp_path / "copy"))[0]) == identity
    assert model_identity(load_causal_lm(str(llama), dtype="bfloat16")[0]) != identity
    model.config.rope_parameters = {"rope_type": "default", "rope_theta": 3.0}
    assert model_identity(model) != identity
    change_tensors(llama, lambda tensors: tensors["model.norm.weight"].add_(1e-6))
    assert model_identity(load_causal_lm(str(llama))[0]) != identity


def test_a_tokenizer_without_a_pad_token_is_fine(llama):
    described = json.loads((llama / "tokenizer_config.json").read_text())
    described.pop("pad_token")
    (llama / "tokenizer_config.json").write_text(json.dumps(described))
    _, tokenizer = load_causal_lm(str(llama))
    assert tokenizer.pad_token is None


def test_saved_scores_are_rendered_with_the_adapter_s_tokenizer(llama, adapter):
    from datapruner.recipe import Recipe
    from datapruner.samples import load_samples
    from datapruner.signals.models import renderer_of

    folder, _ = adapter
    own = load_tokenizer(str(llama))
    own.chat_template = own.chat_template.replace("</s>", " </s>")
    own.save_pretrained(folder)
    _, read = load_causal_lm(str(llama), adapter=str(folder), device="cpu")
    assert read.chat_template == own.chat_template
    renderer = renderer_of(Recipe(model=str(llama), adapter=str(folder), max_length=64))
    samples = load_samples([{"question": "why", "answer": "so"}])
    (row,) = renderer(samples, np.arange(1))
    turns = [{"role": "user", "content": "why"}, {"role": "assistant", "content": "so"}]
    assert row.input_ids.tolist() == read.apply_chat_template(turns, return_dict=False)
    assert row.input_ids.tolist() != load_tokenizer(str(llama)).apply_chat_template(turns, return_dict=False)
