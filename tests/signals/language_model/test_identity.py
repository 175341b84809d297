"""Models that answer differently never share a record, however equal their weights and settings are."""

from __future__ import annotations

import copy
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from datapruner.models import load_causal_lm
from datapruner.models.identity import model_identity, structure_hash, tokenizer_hash
from datapruner.models.twins import load_pruned_lm
from datapruner.samples import load_samples
from datapruner.signals.encoded import embed_with_encoder
from datapruner.signals.language_model import LanguageModel, measure_language_model
from datapruner.signals.language_model.twins import measure_twins
from datapruner.signals.store import SignalStore

ROWS = [
    {
        "messages": [
            {"role": "user", "content": f"what is {n} ?"},
            {"role": "assistant", "content": "a list " * n},
        ]
    }
    for n in range(1, 7)
]


@pytest.fixture(scope="module")
def pair(tiny_llama):
    return load_causal_lm(str(tiny_llama))


def fed(model, tokenizer):
    return LanguageModel(model, tokenizer, max_length=256, batch_tokens=128)


def numbers(model, tokenizer, folder):
    samples = load_samples(ROWS)
    return measure_language_model(
        samples, np.arange(len(samples)), fed(model, tokenizer), SignalStore(folder), progress=False
    )


def divergence(dense, other, tokenizer, folder):
    samples = load_samples(ROWS)
    return measure_twins(
        samples,
        np.arange(len(samples)),
        fed(dense, tokenizer),
        lambda: fed(other, tokenizer),
        SignalStore(folder),
        progress=False,
    )


def same(one, other):
    return all(
        np.array_equal(getattr(one[k], "values", one[k]), getattr(other[k], "values", other[k])) for k in one
    )


def mask_in_a_hook(model):
    keep = torch.ones(64)
    keep[::3] = 0
    model.model.layers[0].mlp.act_fn.register_forward_hook(lambda module, given, out: out * keep)


def mask_before_a_module(model):
    keep = torch.ones(32)
    keep[::3] = 0
    model.model.layers[1].mlp.register_forward_pre_hook(lambda module, given: (given[0] * keep,))


def buffer_that_is_not_saved(model):
    class Masked(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("keep", (torch.arange(64) % 4 > 0).float(), persistent=False)

        def forward(self, states):
            return torch.nn.functional.silu(states) * self.keep

    model.model.layers[0].mlp.act_fn = Masked()


def another_activation(model):
    model.model.layers[0].mlp.act_fn = torch.nn.GELU()


def another_constant_of_a_module(model):
    model.model.norm.variance_epsilon = 0.5


def patched_forward(model):
    own = model.model.layers[1].mlp.forward
    model.model.layers[1].mlp.forward = lambda states: 0.5 * own(states)


def quantised_in_its_forward(model, bits=2):
    class Rounded(torch.nn.Linear):
        def forward(self, states):
            scale = self.weight.abs().amax() / (2 ** (bits - 1))
            return torch.nn.functional.linear(states, (self.weight / scale).round() * scale)

    for layer in model.model.layers:
        layer.mlp.up_proj.__class__ = Rounded


def quantised_with_more_bits(model):
    quantised_in_its_forward(model, bits=3)


def left_out_layer(model):
    model.model.layers[0].self_attn.forward = lambda hidden_states, **_: (
        torch.zeros_like(hidden_states),
        None,
    )


KINDS = [
    mask_in_a_hook,
    mask_before_a_module,
    buffer_that_is_not_saved,
    another_activation,
    another_constant_of_a_module,
    patched_forward,
    quantised_in_its_forward,
    quantised_with_more_bits,
    left_out_layer,
]


@pytest.mark.parametrize("change", KINDS, ids=lambda change: change.__name__)
def test_equal_weights_and_another_forward(change, pair, tmp_path):
    """One cache for all: each model's numbers are those that a cache of its own would give."""
    model, tokenizer = pair
    other = copy.deepcopy(model)
    change(other)
    assert all(torch.equal(held, other.state_dict()[key]) for key, held in model.state_dict().items())
    before = numbers(model, tokenizer, tmp_path / "shared")
    shared = numbers(other, tokenizer, tmp_path / "shared")
    fresh = numbers(other, tokenizer, tmp_path / "fresh")
    assert same(shared, fresh)
    assert not same(shared, before)
    assert same(numbers(model, tokenizer, tmp_path / "shared"), before)

    divergence(model, copy.deepcopy(model), tokenizer, tmp_path / "shared")
    twins = divergence(model, other, tokenizer, tmp_path / "shared")
    assert twins["jsd"].min() > 0
    assert same(twins, divergence(model, other, tokenizer, tmp_path / "fresh"))


@pytest.mark.parametrize("change", KINDS, ids=lambda change: change.__name__)
def test_each_kind_has_one_identity_of_its_own(change, pair):
    model, _ = pair
    one, two = copy.deepcopy(model), copy.deepcopy(model)
    change(one)
    change(two)
    assert model_identity(one) == model_identity(two) != model_identity(model)
    # Found without an answer too, so that a case that the fixed tokens miss is not lost.
    assert structure_hash(one) == structure_hash(two) != structure_hash(model)


def test_a_model_is_the_same_after_it_has_run(pair):
    model, _ = pair
    before = model_identity(model)
    with torch.no_grad():
        model(input_ids=torch.arange(200)[None])
    assert model_identity(model) == before
    model.train()
    assert model_identity(model) == before
    assert model.training
    model.eval()


def test_what_a_hook_writes_down_is_no_part_of_a_model(pair):
    model, seen = copy.deepcopy(pair[0]), []
    model.model.norm.register_forward_hook(lambda module, given, out: seen.append(out.shape))
    before = model_identity(model)
    assert seen
    assert model_identity(model) == before


def test_code_that_the_fixed_tokens_do_not_meet(pair):
    """A hook for one token alone: its code and the number that it reads tell."""
    model, identities = pair[0], []
    for token in (7, 8, 7):
        other = copy.deepcopy(model)

        def masked(module, given, out, token=token):
            return out * (given[0] != token + 10_000)[..., None]

        other.model.embed_tokens.register_forward_hook(masked)
        identities.append(model_identity(other))
    assert identities[0] == identities[2] != identities[1]


def test_adapters_that_are_not_merged(pair, tmp_path):
    peft = pytest.importorskip("peft")
    model, tokenizer = copy.deepcopy(pair[0]), pair[1]
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj", "up_proj"]), "one")
    adapted.add_adapter("two", peft.LoraConfig(r=2, target_modules=["q_proj", "up_proj"]))
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in adapted.named_parameters():
            if "lora_" in name:
                tensor.copy_(torch.randn(tensor.shape, generator=rng))
    inner = adapted.get_base_model()

    def scaled():
        for module in inner.modules():
            if isinstance(getattr(module, "scaling", None), dict):
                module.scaling["two"] *= 2

    def disabled():
        adapted.base_model.disable_adapter_layers()

    held = []
    for step in (lambda: None, lambda: adapted.set_adapter("two"), scaled, disabled):
        step()
        held.append(numbers(inner, tokenizer, tmp_path / "shared"))
        assert same(held[-1], numbers(inner, tokenizer, tmp_path / f"fresh{len(held)}"))
    assert not any(same(one, other) for n, one in enumerate(held) for other in held[:n])


LOADER = """
import torch
from datapruner.models import load_causal_lm

class Block(torch.nn.Module):
    def forward(self, states):
        return torch.nn.functional.silu(states) * {factor}

def make():
    model, tokenizer = load_causal_lm({folder!r})
    model.model.layers[0].mlp.act_fn = Block()
    return model, tokenizer
"""


@pytest.mark.parametrize("form", ["function", "pickle"])
def test_code_that_was_corrected(form, pair, tiny_llama, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # where a pickle's classes are looked for
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    dense, tokenizer = pair
    for name, factor in (("shared", 1.0), ("shared", 0.5), ("fresh", 0.5)):
        (tmp_path / "own_loader.py").write_text(LOADER.format(factor=factor, folder=str(tiny_llama)))
        if form == "function":  # in one session, as in a notebook
            pruned, _ = load_pruned_lm("own_loader:make", trust_code=True)
        else:
            sys.modules.pop("own_loader", None)
            if not (tmp_path / "whole.pt").exists():
                torch.save(load_pruned_lm("own_loader:make", trust_code=True)[0], tmp_path / "whole.pt")
            pruned, _ = load_pruned_lm(str(tmp_path / "whole.pt"), trust_code=True)
        found = divergence(dense, pruned, tokenizer, tmp_path / name)
        if factor == 1.0:
            assert found["jsd"].max() < 1e-6
            continue
        assert found["jsd"].min() > 1e-6
        if name == "shared":
            shared = found
    sys.modules.pop("own_loader", None)
    assert same(shared, found)


def test_a_tokenizer_with_code_of_its_own(pair):
    tokenizer = pair[1]
    before = tokenizer_hash(tokenizer)

    class Other(type(tokenizer)):
        def __call__(self, *arguments, **options):
            return super().__call__(*arguments, **options)

    other = copy.deepcopy(tokenizer)
    assert tokenizer_hash(other) == before
    other.__class__ = Other
    assert tokenizer_hash(other) != before


def test_an_encoder_that_was_corrected(tmp_path):
    """The user's word for its identity is not all of it."""
    texts = ["one", "two, three", "four"]

    def encoder(factor):
        def encode(batch):
            return np.array([[len(text) * factor, text.count("o")] for text in batch], dtype=np.float32)

        return SimpleNamespace(encode=encode, identity="mine")

    store = SignalStore(tmp_path)
    first = np.array(embed_with_encoder(texts, encoder(1.0), store, progress=False))
    again = np.array(embed_with_encoder(texts, encoder(1.0), store, progress=False))
    assert store.computed == 0
    other = np.array(embed_with_encoder(texts, encoder(0.5), store, progress=False))
    assert np.array_equal(first, again)
    assert np.array_equal(other, encoder(0.5).encode(texts))
