from __future__ import annotations

import copy
import importlib
import json
import logging
import pickle
import shutil
import sys
from pathlib import Path

import pytest
import torch
from conftest import byte_tokenizer, save_tiny_llama
from safetensors.torch import load_file, save_file
from torch.nn.utils import prune

from datapruner.errors import DataPrunerError
from datapruner.models import load_causal_lm
from datapruner.models.checkpoints import refuse_tied
from datapruner.models.identity import model_identity
from datapruner.models.loading import load_causal_model
from datapruner.models.tokenizers import load_tokenizer
from datapruner.models.twins import check_twins, load_pruned_lm

IDS = torch.tensor([[5, 9, 40, 200, 7, 3, 88], [1, 2, 3, 4, 5, 6, 7]])


@pytest.fixture
def llama(tiny_llama, tmp_path):
    return shutil.copytree(tiny_llama, tmp_path / "llama")


def plain(folder):
    """The model as transformers loads it, apart from datapruner."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def logits(model):
    with torch.inference_mode():
        return model(input_ids=IDS, use_cache=False).logits


def masked(folder):
    """A model with torch's masks on every linear layer of its body."""
    model = plain(folder)
    for module in model.model.modules():
        if isinstance(module, torch.nn.Linear):
            prune.l1_unstructured(module, "weight", amount=0.5)
    return model


def change_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def settled(model):
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    return model


# A checkpoint with masks


def save_single(model, folder):
    model.save_pretrained(folder)


def save_shards(model, folder):
    model.save_pretrained(folder, max_shard_size="60KB")
    assert (folder / "model.safetensors.index.json").exists()


def save_bin(model, folder):
    folder.mkdir()
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")


def save_bin_shards(model, folder):
    folder.mkdir()
    model.config.save_pretrained(folder)
    state = list(model.state_dict().items())
    names = [f"pytorch_model-0000{number}-of-00002.bin" for number in (1, 2)]
    # Masks and weights may lie in different files.
    for name, part in zip(names, (state[::2], state[1::2]), strict=True):
        torch.save(dict(part), folder / name)
    index = {key: names[place % 2] for place, (key, _) in enumerate(state)}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


@pytest.mark.parametrize("save", [save_single, save_shards, save_bin, save_bin_shards])
def test_masks_are_folded_exactly(llama, tmp_path, caplog, save):
    model = masked(llama)
    save(model, tmp_path / "masked")
    with caplog.at_level(logging.WARNING, "datapruner"):
        loaded, tokenizer = load_pruned_lm(str(tmp_path / "masked"), device="cpu")
    assert torch.equal(logits(settled(loaded)), logits(model))
    assert tokenizer is None
    (record,) = caplog.records
    assert "the masks (14) were multiplied into the weights" in record.message
    assert "prune.remove" in record.message


def test_a_folded_model_is_the_one_that_remove_would_have_saved(llama, tmp_path):
    model = masked(llama)
    model.save_pretrained(tmp_path / "masked")
    for module in model.model.modules():
        if isinstance(module, torch.nn.Linear):
            prune.remove(module, "weight")
    model.save_pretrained(tmp_path / "removed")
    folded, removed = (
        load_pruned_lm(str(tmp_path / name), device="cpu")[0] for name in ("masked", "removed")
    )
    assert model_identity(folded) == model_identity(removed)
    for key, tensor in removed.state_dict().items():
        assert torch.equal(folded.state_dict()[key], tensor), key


def test_folding_keeps_to_the_dtype(llama, tmp_path):
    masked(llama).save_pretrained(tmp_path / "masked")
    half, _ = load_pruned_lm(str(tmp_path / "masked"), dtype="bfloat16", device="cpu")
    whole, _ = load_pruned_lm(str(tmp_path / "masked"), device="cpu")
    for key, tensor in whole.state_dict().items():
        assert torch.equal(half.state_dict()[key], tensor.to(torch.bfloat16)), key


def test_masks_on_biases_are_folded_too(tmp_path, tiny_llama):
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=320, n_positions=64, n_embd=32, n_layer=2, n_head=4)).eval()
    for block in model.transformer.h:
        torch.nn.init.normal_(block.mlp.c_fc.bias)
        for name in ("weight", "bias"):
            prune.random_unstructured(block.mlp.c_fc, name, amount=0.3)
    model.save_pretrained(tmp_path / "gpt2")
    load_tokenizer(str(tiny_llama)).save_pretrained(tmp_path / "gpt2")
    loaded, tokenizer = load_pruned_lm(str(tmp_path / "gpt2"), device="cpu")
    assert torch.equal(logits(loaded), logits(model))
    assert tokenizer is not None


def test_as_a_plain_model_masks_are_refused(llama, tmp_path):
    masked(llama).save_pretrained(tmp_path / "masked")
    with pytest.raises(DataPrunerError, match=r"with masks apart.*pruned_model=.*prune\.remove"):
        load_causal_lm(str(tmp_path / "masked"), device="cpu")


def lacks_mask(tensors):
    tensors.pop("model.layers.1.mlp.up_proj.weight_mask")


def lacks_original(tensors):
    tensors.pop("model.layers.1.mlp.up_proj.weight_orig")


def other_shape(tensors):
    tensors["model.layers.1.mlp.up_proj.weight_mask"] = torch.ones(64, 31)


def both(tensors):
    tensors["model.layers.1.mlp.up_proj.weight"] = torch.ones(64, 32)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lacks_mask, r"it has model\.layers\.1\.mlp\.up_proj\.weight_orig and no .*weight_mask"),
        (lacks_original, r"it has model\.layers\.1\.mlp\.up_proj\.weight_mask and no .*weight_orig"),
        (other_shape, r"weight_orig is 64 x 32 and .*weight_mask 64 x 31"),
        (both, r"it has both .*up_proj\.weight and .*up_proj\.weight_orig"),
    ],
)
def test_masks_that_do_not_fit_are_refused(llama, tmp_path, change, problem):
    masked(llama).save_pretrained(tmp_path / "masked")
    change_tensors(tmp_path / "masked", change)
    with pytest.raises(DataPrunerError, match=problem):
        load_pruned_lm(str(tmp_path / "masked"), device="cpu")


def test_a_mask_on_one_of_two_tied_layers_is_kept_or_refused(llama, tmp_path):
    described = json.loads((llama / "config.json").read_text())
    (llama / "config.json").write_text(json.dumps(described | {"tie_word_embeddings": True}))
    change_tensors(llama, lambda tensors: tensors.pop("lm_head.weight"))
    model = plain(llama)
    prune.l1_unstructured(model.lm_head, "weight", amount=0.5)
    save_bin(model, tmp_path / "tied")
    try:  # versions of transformers tie the two again, or leave them apart
        loaded, _ = load_pruned_lm(str(tmp_path / "tied"), device="cpu")
        assert torch.equal(logits(loaded), logits(model))
    except DataPrunerError as error:
        assert "ties together" in str(error)  # noqa: PT017
    with pytest.raises(DataPrunerError, match="ties together: set tie_word_embeddings to false"):
        refuse_tied("tied", plain(llama), ["lm_head.weight"])
    refuse_tied("tied", plain(llama), ["model.layers.0.mlp.up_proj.weight"])


def test_a_folded_checkpoint_is_held_to_every_key(llama, tmp_path):
    masked(llama).save_pretrained(tmp_path / "masked")
    change_tensors(tmp_path / "masked", lambda tensors: tensors.pop("model.norm.weight"))
    with pytest.raises(DataPrunerError, match=r"missing keys model\.norm\.weight"):
        load_pruned_lm(str(tmp_path / "masked"), device="cpu")


# Folders


def test_a_plain_folder_with_and_without_a_tokenizer(llama, tmp_path):
    loaded, tokenizer = load_pruned_lm(str(llama), device="cpu")
    assert torch.equal(logits(settled(loaded)), logits(plain(llama)))
    assert tokenizer.get_vocab() == load_tokenizer(str(llama)).get_vocab()
    plain(llama).save_pretrained(tmp_path / "bare")
    assert load_pruned_lm(str(tmp_path / "bare"), device="cpu")[1] is None


@pytest.mark.parametrize("kind", ["missing", "unexpected"])
def test_a_plain_folder_is_held_to_every_key(llama, kind):
    def change(tensors):
        if kind == "missing":
            tensors.pop("model.layers.0.mlp.up_proj.weight")
        else:
            tensors["model.layers.5.mlp.up_proj.weight"] = torch.ones(2)

    change_tensors(llama, change)
    with pytest.raises(DataPrunerError, match=f"{kind} keys"):
        load_pruned_lm(str(llama), device="cpu")


def test_an_adapter_takes_its_base_and_its_tokenizer(llama, tmp_path):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    adapted = peft.get_peft_model(plain(llama), config).eval()
    adapted.save_pretrained(tmp_path / "lora")
    described = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    described["base_model_name_or_path"] = "../llama"
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps(described))
    loaded, tokenizer = load_pruned_lm(str(tmp_path / "lora"), device="cpu")
    torch.testing.assert_close(logits(settled(loaded)), logits(adapted), atol=1e-5, rtol=1e-4)
    assert tokenizer is not None


@pytest.mark.parametrize("content", [b"", b"{", b"\0" * 64])
@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_damaged_files_end_with_a_sentence(llama, file, content):
    (llama / file).write_bytes(content)
    with pytest.raises(DataPrunerError, match="cannot be loaded"):
        load_pruned_lm(str(llama), device="cpu")


def test_a_damaged_index_ends_with_a_sentence(llama, tmp_path):
    save_shards(masked(llama), tmp_path / "shards")
    (tmp_path / "shards" / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(DataPrunerError, match="cannot be loaded"):
        load_pruned_lm(str(tmp_path / "shards"), device="cpu")


def test_names_of_nothing_end_with_a_sentence(tmp_path):
    with pytest.raises(DataPrunerError, match="there is no model"):
        load_pruned_lm("nonsense")
    with pytest.raises(DataPrunerError, match="cannot be loaded"):
        load_pruned_lm("org/name-that-is-not-here")
    with pytest.raises(DataPrunerError, match="there is no file"):
        load_pruned_lm(str(tmp_path / "model.pt"))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(DataPrunerError, match="is a file of tensors without a configuration"):
        load_pruned_lm(str(tmp_path / "model.safetensors"))


# Layers of different widths

LOADER = '''
"""Load a LLaMA whose layers have different widths: build it, put each layer's own width in, match every key."""

from pathlib import Path

from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaMLP

FOLDER = Path(__file__).parent / "uneven"


def load():
    config = LlamaConfig.from_pretrained(FOLDER)
    state = load_file(FOLDER / "model.safetensors")
    model = LlamaForCausalLM(config)
    for number, layer in enumerate(model.model.layers):
        width = state[f"model.layers.{number}.mlp.gate_proj.weight"].shape[0]
        own = LlamaConfig(**config.to_dict() | {"intermediate_size": width})
        layer.mlp = LlamaMLP(own)
    model.load_state_dict(state, strict=True)
    return model, AutoTokenizer.from_pretrained(FOLDER)


def alone():
    return load()[0]


def without():
    return load()[0], None


def swapped():
    return load()[::-1]


def texts():
    return load()[0], "a tokenizer"


def body():
    return load()[0].model, None


def fails():
    raise KeyError("mlp")


value = 3
'''


def narrow(mlp, kept):
    """Keep some neurons of an MLP."""
    for layer, dim in ((mlp.gate_proj, 0), (mlp.up_proj, 0), (mlp.down_proj, 1)):
        layer.weight = torch.nn.Parameter(layer.weight.detach().index_select(dim, kept))
    mlp.gate_proj.out_features = mlp.up_proj.out_features = mlp.down_proj.in_features = len(kept)


@pytest.fixture
def uneven(llama, tmp_path, monkeypatch):
    """A folder whose two layers keep 64 and 40 neurons, the model that it was, and a module that loads it."""
    model = plain(llama)
    narrow(model.model.layers[1].mlp, torch.arange(0, 40))
    folder = tmp_path / "uneven"
    model.save_pretrained(folder)
    load_tokenizer(str(llama)).save_pretrained(folder)
    name = f"loader_{abs(hash(tmp_path))}"  # a module is imported once in a process
    (tmp_path / f"{name}.py").write_text(LOADER)
    monkeypatch.chdir(tmp_path)
    return folder, model, name


def test_layers_of_different_widths_name_the_layer_and_the_way_out(uneven):
    folder, _, _ = uneven
    with pytest.raises(
        DataPrunerError,
        match=r"layer 1 is different: model\.layers\.1\.mlp\.\w+_proj\.weight is "
        r"(40 x 32, not 64 x 32|32 x 40, not 32 x 64); give pruned_model='module:function' with trust_code=True",
    ):
        load_pruned_lm(str(folder), device="cpu")


def test_layers_of_different_numbers_of_heads_are_told_too(llama, tmp_path):
    change_tensors(
        llama, lambda tensors: tensors.update({"model.layers.0.self_attn.q_proj.weight": torch.ones(16, 32)})
    )
    with pytest.raises(
        DataPrunerError, match=r"layer 0 is different: .*q_proj\.weight is 16 x 32, not 32 x 32"
    ):
        load_pruned_lm(str(llama), device="cpu")


def test_layers_of_different_widths_with_masks_are_told_too(uneven, tmp_path):
    _, model, _ = uneven
    prune.l1_unstructured(model.model.layers[1].mlp.up_proj, "weight", amount=0.5)
    model.save_pretrained(tmp_path / "both")
    with pytest.raises(DataPrunerError, match="layer 1 is different"):
        load_pruned_lm(str(tmp_path / "both"), device="cpu")


def test_even_layers_under_another_configuration_are_told(llama, tmp_path):
    model = plain(llama)
    for layer in model.model.layers:
        narrow(layer.mlp, torch.arange(48))
    model.save_pretrained(tmp_path / "even")
    with pytest.raises(DataPrunerError, match=r"put the pruned sizes into its config\.json"):
        load_pruned_lm(str(tmp_path / "even"), device="cpu")
    described = json.loads((tmp_path / "even" / "config.json").read_text())
    (tmp_path / "even" / "config.json").write_text(json.dumps(described | {"intermediate_size": 48}))
    loaded, _ = load_pruned_lm(str(tmp_path / "even"), device="cpu")
    assert torch.equal(logits(loaded), logits(model))


def test_a_function_loads_layers_of_different_widths(uneven):
    _, model, module = uneven
    loaded, tokenizer = load_pruned_lm(f"{module}:load", device="cpu", trust_code=True)
    assert torch.equal(logits(settled(loaded)), logits(model))
    assert tokenizer is not None
    assert [layer.mlp.up_proj.weight.shape[0] for layer in loaded.model.layers] == [64, 40]
    assert load_pruned_lm(f"{module}:without", device="cpu", trust_code=True)[1] is None


def test_a_function_s_model_takes_the_dtype_that_was_asked_for(uneven):
    _, model, module = uneven
    half, _ = load_pruned_lm(f"{module}:load", dtype="bfloat16", device="cpu", trust_code=True)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    assert half.model.rotary_emb.inv_freq.dtype == torch.float32
    torch.testing.assert_close(logits(half).float(), logits(model), atol=1.0, rtol=0.1)


def test_code_is_run_only_where_it_is_trusted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("sly.py").write_text("open('ran', 'w').close()\ndef load(): pass\n")
    with pytest.raises(DataPrunerError, match=r"would run code of the module sly; pass trust_code=True"):
        load_pruned_lm("sly:load")
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        ("alone", r"must return \(model, tokenizer\).*; it returns a LlamaForCausalLM"),
        ("swapped", r"gives a \w+ for a model; it must be a causal language model"),
        ("texts", "gives a str for a tokenizer"),
        ("body", "gives a LlamaModel for a model"),
        ("fails", "raises KeyError: 'mlp'"),
        ("laod", "has no function laod. Did you mean 'load'?"),
        ("value", "has no function value"),
    ],
)
def test_a_function_that_gives_no_pair_is_told(uneven, function, problem):
    with pytest.raises(DataPrunerError, match=problem):
        load_pruned_lm(f"{uneven[2]}:{function}", device="cpu", trust_code=True)


def test_a_module_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    with pytest.raises(
        DataPrunerError, match=r"No module named 'not_here_at_all' \(looked for in the current folder"
    ):
        load_pruned_lm("not_here_at_all:load", trust_code=True)
    assert sys.path == before


@pytest.mark.parametrize(
    ("option", "problem"), [({"dtype": "float23"}, "no dtype"), ({"device": "tpu:9"}, "no device")]
)
def test_options_that_cannot_be_had(llama, option, problem):
    with pytest.raises(DataPrunerError, match=problem):
        load_pruned_lm(str(llama), **option)


def test_a_device_map_is_for_checkpoints(uneven):
    pytest.importorskip("accelerate")
    with pytest.raises(DataPrunerError, match="device_map is for checkpoints"):
        load_pruned_lm(f"{uneven[2]}:load", device_map="auto", trust_code=True)


# Pickles


def test_a_whole_model_in_a_pickle(uneven, tmp_path):
    _, model, _ = uneven
    torch.save(model, tmp_path / "whole.pth")
    loaded, tokenizer = load_pruned_lm(str(tmp_path / "whole.pth"), device="cpu", trust_code=True)
    assert torch.equal(logits(settled(loaded)), logits(model))
    assert tokenizer is None


def test_a_model_with_its_tokenizer_in_a_pickle(uneven, llama, tmp_path):
    _, model, _ = uneven
    torch.save({"model": model.half(), "tokenizer": load_tokenizer(str(llama))}, tmp_path / "pair.bin")
    loaded, tokenizer = load_pruned_lm(str(tmp_path / "pair.bin"), device="cpu", trust_code=True)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert tokenizer.get_vocab() == load_tokenizer(str(llama)).get_vocab()


@pytest.mark.parametrize("kind", [tuple, list])
def test_a_pair_in_a_pickle(uneven, llama, tmp_path, kind):
    _, model, _ = uneven
    torch.save(kind((model, load_tokenizer(str(llama)))), tmp_path / "pair.pt")
    loaded, tokenizer = load_pruned_lm(str(tmp_path / "pair.pt"), device="cpu", trust_code=True)
    assert torch.equal(logits(loaded), logits(model))
    assert tokenizer.get_vocab() == load_tokenizer(str(llama)).get_vocab()


def test_a_peft_model_is_taken_and_keeps_its_adapter(llama, tmp_path):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "lm_head"], init_lora_weights=False)
    adapted = peft.get_peft_model(plain(llama), config).eval()
    expected = logits(adapted)
    assert not torch.allclose(expected, logits(plain(llama)))
    torch.save((adapted, None), tmp_path / "adapted.pt")
    loaded, _ = load_pruned_lm(str(tmp_path / "adapted.pt"), device="cpu", trust_code=True)
    torch.testing.assert_close(logits(settled(loaded)), expected)
    prompts = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    torch.save(peft.get_peft_model(plain(llama), prompts), tmp_path / "prompts.pt")
    with pytest.raises(DataPrunerError, match=r"PROMPT_TUNING, which puts tokens before every text"):
        load_pruned_lm(str(tmp_path / "prompts.pt"), device="cpu", trust_code=True)


def test_a_wrapped_output_layer_is_loaded(llama, tmp_path, monkeypatch):
    (tmp_path / "armored.py").write_text(
        "from conftest import rotated_head\n"
        "from transformers import AutoModelForCausalLM\n\n\n"
        "def load():\n"
        f"    model = AutoModelForCausalLM.from_pretrained({str(llama)!r})\n"
        "    model.lm_head = rotated_head(model.lm_head)\n"
        "    return model, None\n"
    )
    monkeypatch.chdir(tmp_path)
    loaded, _ = load_pruned_lm("armored:load", device="cpu", trust_code=True)
    torch.testing.assert_close(logits(settled(loaded)), logits(plain(llama)), rtol=1e-4, atol=1e-4)
    dense, tokenizer = load_causal_lm(str(llama), device="cpu")
    assert check_twins(dense, tokenizer, loaded, None) == len(tokenizer)
    assert model_identity(loaded) != model_identity(dense)


def mixtral(folder, tokens, **changed):
    from transformers import MixtralConfig, MixtralForCausalLM

    sizes = {"vocab_size": tokens, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    config = MixtralConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, num_local_experts=4)
    MixtralForCausalLM(config).save_pretrained(folder)
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(described | changed))
    return folder


@pytest.mark.parametrize("load", [load_causal_model, load_pruned_lm])
@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"num_local_experts": [4, 3]}, r"different numbers of experts \(4, 3\).*module:function"),
        ({"num_local_experts": {"0": 4, "1": 3}}, r"different numbers of experts \(4, 3\)"),
        ({"num_experts_per_tok": 5}, r"has 4 experts, and 5 of them.*at most 4 into num_experts_per_tok"),
    ],
)
def test_experts_that_cannot_be_built_are_told(tmp_path, load, changed, sentence):
    with pytest.raises(DataPrunerError, match=sentence):
        load(str(mixtral(tmp_path / "model", 300, **changed)), device="cpu")


def test_layers_with_different_numbers_of_experts_are_told(tmp_path):
    folder = mixtral(tmp_path / "model", 300)
    tensors = load_file(folder / "model.safetensors")
    if any(".experts.3." in key for key in tensors):
        tensors = {
            key: tensor for key, tensor in tensors.items() if ".1." not in key or ".experts.3." not in key
        }
    else:
        for key, tensor in tensors.items():
            if ".1." in key and "experts" in key:
                tensors[key] = tensor[:3].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataPrunerError, match=r"4 in layer 0 and 3 in layer 1.*module:function"):
        load_pruned_lm(str(folder), device="cpu")


def test_a_pickle_with_masks_becomes_plain(llama, tmp_path):
    model = masked(llama)
    torch.save(model, tmp_path / "masked.pt")
    loaded, _ = load_pruned_lm(str(tmp_path / "masked.pt"), device="cpu", trust_code=True)
    assert torch.equal(logits(loaded), logits(model))
    assert loaded.state_dict().keys() == plain(llama).state_dict().keys()


class Sly:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (open, (str(self.marker), "w"))


def test_a_pickle_is_opened_only_where_it_is_trusted(tmp_path):
    torch.save({"model": Sly(tmp_path / "ran")}, tmp_path / "sly.pt")
    (tmp_path / "ran").unlink(missing_ok=True)
    with pytest.raises(DataPrunerError, match=r"opening it runs the code.*trust_code=True.*save_pretrained"):
        load_pruned_lm(str(tmp_path / "sly.pt"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("trust_code", [False, True])
def test_a_file_of_tensors_alone_is_no_model(llama, tmp_path, trust_code):
    state = plain(llama).state_dict()
    for name, content in (("state.pt", state), ("nested.pth", {"model": state, "step": 3})):
        torch.save(content, tmp_path / name)
        with pytest.raises(DataPrunerError, match=r"holds tensors and no model: give a folder"):
            load_pruned_lm(str(tmp_path / name), trust_code=trust_code)


def test_a_pickle_of_something_else(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "linear.pt")
    with pytest.raises(DataPrunerError, match="gives a Linear for a model"):
        load_pruned_lm(str(tmp_path / "linear.pt"), trust_code=True)
    (tmp_path / "other.pkl").write_bytes(pickle.dumps("a text"))
    with pytest.raises(DataPrunerError, match=r"cannot be opened by torch\.load"):
        load_pruned_lm(str(tmp_path / "other.pkl"), trust_code=True)


# Twins


def test_twins_may_differ_in_depth_and_width(llama, uneven):
    dense, tokenizer = load_causal_lm(str(llama), device="cpu")
    _, model, _ = uneven
    check_twins(dense, tokenizer, model, None)
    check_twins(dense, tokenizer, model, load_tokenizer(str(llama)))
    model.model.layers = model.model.layers[:1]
    check_twins(dense, None, model, tokenizer)


def test_twins_of_different_vocabularies_are_refused(llama, tmp_path):
    dense, tokenizer = load_causal_lm(str(llama), device="cpu")
    pruned = load_causal_model(str(llama), device="cpu")
    assert check_twins(dense, tokenizer, pruned, None) == len(tokenizer)
    pruned.resize_token_embeddings(200)
    with pytest.raises(
        DataPrunerError,
        match=f"predicts {len(tokenizer)} tokens and the pruned one 200, and the tokenizer uses",
    ):
        check_twins(dense, tokenizer, pruned, None)
    with pytest.raises(DataPrunerError, match="so that they cannot be compared"):
        check_twins(dense, None, pruned, None)
    pruned.resize_token_embeddings(len(tokenizer) + 9)
    assert check_twins(dense, tokenizer, pruned, tokenizer) == len(tokenizer)
    assert check_twins(dense, None, pruned, tokenizer) == len(tokenizer)
    other = byte_tokenizer(["</s>", "<pad>", "<|user|>", "<|assistant|>"])
    with pytest.raises(
        DataPrunerError, match=r"differ in 2 tokens \('</s>' has the id 1 in one, 0 in the other\)"
    ):
        check_twins(dense, tokenizer, dense, other)


def test_a_mixture_of_experts_may_lose_experts(tmp_path):
    from transformers import MixtralConfig, MixtralForCausalLM

    save_tiny_llama(tmp_path / "tokenizer")
    tokenizer = load_tokenizer(str(tmp_path / "tokenizer"))
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    models = []
    for experts in (4, 3):
        config = MixtralConfig(
            **sizes, num_attention_heads=4, num_key_value_heads=2, num_local_experts=experts
        )
        model = MixtralForCausalLM(config).eval()
        model.save_pretrained(tmp_path / f"experts-{experts}")
        models.append(load_pruned_lm(str(tmp_path / f"experts-{experts}"), device="cpu")[0])
        torch.testing.assert_close(logits(models[-1]), logits(model))
    check_twins(models[0], tokenizer, models[1], None)


# The prunings of the benchmarks


@pytest.fixture(scope="module")
def prunings():
    folder = Path(__file__).resolve().parents[2] / "benchmarks"
    if not folder.is_dir():
        pytest.skip("the benchmarks are not beside the tests")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        return importlib.import_module("prunings")


ROWS = [
    [{"role": "user", "content": "why " * times}, {"role": "assistant", "content": f"since {times} is"}]
    for times in (1, 3, 2, 7, 5)
]


def test_the_four_prunings_load_by_path(prunings, llama, tmp_path):
    dense, tokenizer = load_causal_lm(str(llama), device="cpu")
    before = model_identity(dense)
    folders = prunings.write_prunings(tmp_path / "pruned", dense, tokenizer, ROWS, "cpu")
    assert model_identity(dense) == before
    assert folders.keys() == {"magnitude", "wanda24", "width", "depth"}
    encoded = prunings.encode(tokenizer, ROWS)
    for folder in folders.values():
        pruned, own = load_pruned_lm(str(folder), device="cpu")
        check_twins(dense, tokenizer, pruned, own)
        assert prunings.log_perplexity(pruned, encoded) != prunings.log_perplexity(dense, encoded)
    magnitude = load_pruned_lm(str(folders["magnitude"]), device="cpu")[0]
    for layer in prunings.linear_layers(magnitude):
        assert int((layer.weight == 0).sum()) == layer.weight.numel() // 2
    assert load_pruned_lm(str(folders["width"]), device="cpu")[0].config.intermediate_size == 48


def test_log_perplexity_is_that_of_the_answers(prunings, llama):
    dense, tokenizer = load_causal_lm(str(llama), device="cpu")
    encoded = prunings.encode(tokenizer, ROWS)
    losses = []
    for ids, start in encoded:
        with torch.inference_mode():
            found = torch.log_softmax(dense(input_ids=torch.tensor([ids])).logits[0].double(), -1)
        losses += [-float(found[place - 1, ids[place]]) for place in range(start, len(ids))]
    assert tokenizer.decode(encoded[0][0][encoded[0][1] :]) == "since 1 is</s>"
    assert prunings.log_perplexity(dense, encoded) == pytest.approx(sum(losses) / len(losses), rel=1e-5)


@pytest.mark.parametrize("place", [(0, "self_attn", "q_proj"), (1, "mlp", "down_proj")])
def test_wanda_keeps_the_best_two_of_four(prunings, llama, place):
    dense, tokenizer = load_causal_lm(str(llama), device="cpu")
    encoded = prunings.encode(tokenizer, ROWS)
    number, part, name = place
    layer = getattr(getattr(dense.model.layers[number], part), name)
    whole = layer.weight.clone()
    prunings.prune_wanda24(dense, encoded)
    inputs = []  # what comes to the layer, row by row and without padding, from what is pruned before it
    hook = layer.register_forward_pre_hook(lambda _, given: inputs.append(given[0][0]))
    for ids, _ in encoded:
        with torch.inference_mode():
            dense(input_ids=torch.tensor([ids]))
    hook.remove()
    norm = torch.cat(inputs).norm(dim=0)
    for row in range(whole.shape[0]):
        for first in range(0, whole.shape[1], 4):
            scores = [float(whole[row, first + step].abs() * norm[first + step]) for step in range(4)]
            best = set(sorted(range(4), key=lambda step: scores[step])[2:])
            assert {step for step in range(4) if layer.weight[row, first + step] != 0} == best


def test_width_is_the_same_with_torch_pruning_and_by_hand(prunings, llama, monkeypatch):
    pytest.importorskip("torch_pruning")
    dense, tokenizer = load_causal_lm(str(llama), device="cpu")
    encoded = prunings.encode(tokenizer, ROWS)
    by_tool = prunings.prune_width(copy.deepcopy(dense), encoded)
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    by_hand = prunings.prune_width(copy.deepcopy(dense), encoded)
    assert by_hand.model.layers[0].mlp.up_proj.weight.shape == (48, 32)
    assert by_tool.state_dict().keys() == by_hand.state_dict().keys()
    for key, tensor in by_hand.state_dict().items():
        assert torch.equal(by_tool.state_dict()[key], tensor), key


def test_depth_drops_what_changes_least(prunings, llama):
    dense, tokenizer = load_causal_lm(str(llama), device="cpu")
    encoded = prunings.encode(tokenizer, ROWS)
    changes = [[], []]
    for ids, _ in encoded:
        states = []
        hooks = [
            module.register_forward_pre_hook(lambda _, given, states=states: states.append(given[0][0]))
            for module in (*dense.model.layers, dense.model.norm)
        ]
        with torch.inference_mode():
            dense(input_ids=torch.tensor([ids]))
        for hook in hooks:
            hook.remove()
        for place in range(2):
            one, other = states[place].double(), states[place + 1].double()
            changes[place] += (1 - (one * other).sum(1) / one.norm(dim=1) / other.norm(dim=1)).tolist()
    means = [sum(change) / len(change) for change in changes]
    assert prunings.block_influence(dense, encoded) == pytest.approx(means, rel=1e-4)
    kept = dense.model.layers[means.index(max(means))]
    prunings.prune_depth(dense, encoded, 0.5)
    assert list(dense.model.layers) == [kept]
    assert dense.config.num_hidden_layers == 1
    assert kept.self_attn.layer_idx == 0
