"""What a pruned model has in common with the dense one runs once, and gives the bits that running it twice gives."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from datasets import Dataset

from datapruner.samples import load_samples
from datapruner.signals.language_model import LanguageModel, common_layers
from datapruner.signals.language_model.common_layers import running_once
from datapruner.signals.language_model.twins import measure_twins
from datapruner.signals.store import SignalStore
from tests.conftest import CHAT_TEMPLATE, byte_tokenizer, go_on_beside_the_output

LAYERS = 4


@pytest.fixture(scope="module")
def tokenizer():
    made = byte_tokenizer(["<pad>", "</s>", "<|user|>", "<|assistant|>"], pad_token="<pad>", eos_token="</s>")
    made.chat_template = CHAT_TEMPLATE
    return made


def made(family, tokenizer):
    """A random model of four layers."""
    from transformers import Gemma2Config, GPT2Config, LlamaConfig, Qwen2Config

    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.3,
    }
    config = {
        "llama": lambda: LlamaConfig(**sizes),
        # Every other layer sees a window: what a layer is depends on its number.
        "qwen2": lambda: Qwen2Config(**sizes, use_sliding_window=True, sliding_window=8, max_window_layers=1),
        # Embeddings are scaled on their way into the first layer.
        "gemma2": lambda: Gemma2Config(**sizes, head_dim=8, sliding_window=8),
        "gpt2": lambda: GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=LAYERS, n_head=4),
    }[family]()
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval()


def without(model, gone):
    """A copy that lacks a layer."""
    out = copy.deepcopy(model)
    name = "h" if hasattr(out.base_model, "h") else "layers"
    kept = [layer for number, layer in enumerate(getattr(out.base_model, name)) if number != gone]
    setattr(out.base_model, name, torch.nn.ModuleList(kept))
    out.config.num_hidden_layers = LAYERS - 1
    if getattr(out.config, "layer_types", None):
        out.config.layer_types = [
            kind for number, kind in enumerate(out.config.layer_types) if number != gone
        ]
    for number, layer in enumerate(kept):
        attention = layer.attn if hasattr(layer, "attn") else layer.self_attn
        attention.layer_idx = number
    return out


def layers_of(model):
    return getattr(model.base_model, "h", None) or model.base_model.layers


def measured(dense, pruned, tokenizer, cache, *, packing):
    rng = np.random.default_rng(0)
    rows = [
        {
            "messages": [
                {"role": role, "content": "a b? " * int(rng.integers(1, 9))} for role in ("user", "assistant")
            ]
        }
        for _ in range(12)
    ]
    samples = load_samples(Dataset.from_list(rows))
    dense, pruned = (LanguageModel(one, tokenizer, 96, packing=packing) for one in (dense, pruned))
    return measure_twins(
        samples,
        np.arange(len(rows)),
        dense,
        lambda: pruned,
        SignalStore(cache),
        progress=False,
        gradients=True,
    )


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "gpt2"])
def test_the_numbers_are_those_of_two_whole_passes(family, packing, tokenizer, tmp_path, monkeypatch):
    dense = made(family, tokenizer)
    pruned = without(dense, 2)
    with running_once(dense, pruned) as count:
        assert count == 2
    once = measured(dense, pruned, tokenizer, tmp_path / "once", packing=packing)
    monkeypatch.setattr(common_layers, "running_once", lambda *_: nullcontext(0))
    twice = measured(dense, pruned, tokenizer, tmp_path / "twice", packing=packing)
    assert once.keys() == twice.keys()
    for name, held in once.items():
        one, other = (of.values if hasattr(of, "offsets") else of for of in (held, twice[name]))
        assert one.tobytes() == other.tobytes(), name
    assert once["jsd"].min() > 0


def test_what_kind_a_layer_is_counts_where_the_body_reads_it(tokenizer):
    dense = made("gemma2", tokenizer)
    pruned = without(dense, 2)
    pruned.config.layer_types = ["full_attention"] * 3
    with running_once(dense, pruned) as count:
        assert count == 0


def test_each_layer_in_common_computes_once_a_batch(tokenizer, tmp_path):
    dense = made("llama", tokenizer)
    pruned = without(dense, 2)
    calls = {"dense": 0, "pruned": 0, "after": 0}

    def counts(name):
        def hook(*_):
            calls[name] += 1

        return hook

    layers_of(dense)[0].mlp.register_forward_hook(counts("dense"))
    layers_of(pruned)[0].mlp.register_forward_hook(counts("pruned"))
    layers_of(pruned)[2].mlp.register_forward_hook(counts("after"))
    ids = torch.arange(10)[None]
    # Hooks with a count of their own are code that may do anything: such layers are another's.
    with running_once(dense, pruned) as count:
        assert count == 0
    calls.update(dict.fromkeys(calls, 0))
    for layer in (*layers_of(dense), *layers_of(pruned)):
        layer.mlp._forward_hooks.clear()
    with running_once(dense, pruned) as count, torch.inference_mode():
        assert count == 2
        for model, name in ((dense, "dense"), (pruned, "pruned")):
            layers_of(model)[0].mlp.register_forward_hook(counts(name))
        layers_of(pruned)[2].mlp.register_forward_hook(counts("after"))
        for _ in range(3):
            dense(input_ids=ids)
            pruned(input_ids=ids)
    assert calls == {"dense": 3, "pruned": 0, "after": 3}


def test_afterwards_both_models_are_as_they_were(tokenizer):
    dense = made("llama", tokenizer)
    pruned = without(dense, 2)
    ids = torch.arange(10)[None]
    with torch.inference_mode():
        before = [model(input_ids=ids).logits for model in (dense, pruned)]
        with pytest.raises(KeyboardInterrupt), running_once(dense, pruned):
            raise KeyboardInterrupt
        after = [model(input_ids=ids).logits for model in (pruned, dense)][::-1]
    assert all(map(torch.equal, before, after))
    assert not any("forward" in vars(layer) for layer in layers_of(pruned))
    assert not any(layer._forward_hooks for layer in layers_of(dense))


def change_embedding(dense, pruned):
    with torch.no_grad():
        pruned.model.embed_tokens.weight[7, 3] += 1e-6


def change_a_weight_of_the_first_layer(dense, pruned):
    with torch.no_grad():
        pruned.model.layers[0].mlp.up_proj.weight[0, 0] += 1e-6


def change_a_setting(dense, pruned):
    pruned.config.rms_norm_eps = 1e-3


def change_an_activation(dense, pruned):
    pruned.model.layers[0].mlp.act_fn = torch.nn.Tanh()


def mask_in_a_hook(dense, pruned):
    pruned.model.layers[0].register_forward_hook(lambda _layer, _input, output: output * 0.5)


def share_modules(dense, pruned):
    pruned.model.layers = torch.nn.ModuleList([dense.model.layers[0], *pruned.model.layers[1:]])


def go_on_beside_the_output_of_both(dense, pruned):
    for model in (dense, pruned):
        go_on_beside_the_output(model)


def silence_a_token_in_the_embedding(dense, pruned):
    class Silent(torch.nn.Embedding):
        def forward(self, ids):
            return super().forward(ids) * (ids != 7)[..., None]

    pruned.model.embed_tokens.__class__ = Silent


def change_an_embedding_that_the_last_layer_holds_too(dense, pruned):
    for model in (dense, pruned):
        model.model.layers[-1].held = model.model.embed_tokens
    change_embedding(dense, pruned)


def steer_both(dense, pruned):
    def steer(_layer, _input, output):
        return output + (torch.arange(output.shape[1])[:, None] > 8) * 0.5

    for model in (dense, pruned):
        for layer in model.model.layers:
            layer.register_forward_hook(steer)


def transpose_the_weights(dense, pruned):
    for layer in pruned.model.layers:
        weight = layer.mlp.up_proj.weight
        weight.data = weight.data.t().contiguous().t()


def hand_on_what_the_first_layer_must_make(dense, pruned):
    """A layer that is left out leaves nothing, and the last one asks for it: an error, and no numbers."""

    class First(type(dense.model.layers[0])):
        def forward(self, hidden_states, *given, **named):
            self.left.append(hidden_states)
            return super().forward(hidden_states, *given, **named)

    class Last(type(dense.model.layers[0])):
        def forward(self, hidden_states, *given, **named):
            return super().forward(hidden_states + 0 * self.left.pop(), *given, **named)

    for model in (dense, pruned):
        left = []
        model.model.layers[0].__class__, model.model.layers[-1].__class__ = First, Last
        for layer in model.model.layers:
            object.__setattr__(layer, "left", left)


@pytest.mark.parametrize(
    "change",
    [
        silence_a_token_in_the_embedding,
        change_an_embedding_that_the_last_layer_holds_too,
        steer_both,
        transpose_the_weights,
        hand_on_what_the_first_layer_must_make,
        change_embedding,
        change_a_weight_of_the_first_layer,
        change_a_setting,
        change_an_activation,
        mask_in_a_hook,
        share_modules,
        go_on_beside_the_output_of_both,
    ],
)
def test_models_that_are_not_the_same_there_run_whole(change, tokenizer):
    dense = made("llama", tokenizer)
    pruned = without(dense, 2)
    change(dense, pruned)
    ids = torch.arange(12)[None]
    with torch.inference_mode():
        expected = pruned(input_ids=ids).logits
        dense(input_ids=ids)  # whatever layers hold is then the same in both
        with running_once(dense, pruned) as count:
            assert count == 0
            dense(input_ids=ids[:, :5])
            assert torch.equal(pruned(input_ids=ids).logits, expected)
