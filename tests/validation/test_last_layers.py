"""Training the last layers alone: the same numbers as when everything runs, and the layers below run once a row."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datapruner.errors import DataPrunerError
from datapruner.validation import last_layers as tested
from datapruner.validation.last_layers import last_layers, running_below_once
from datapruner.validation.training import adapter, judged, train
from tests.conftest import go_on_beside_the_output
from tests.validation.token_rows import rendered

pytest.importorskip("peft", reason="validate trains a LoRA adapter")

LAYERS, VOCABULARY = 4, 60


def made(family):
    """A random model of four layers, whose dropout is off: it would be drawn anew where less runs."""
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if family == "gpt2":
        off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        sizes = {"n_embd": 32, "n_layer": LAYERS, "n_head": 4, **off}
    sizes |= {
        "mixtral": {"num_local_experts": 3},
        "gemma2": {"head_dim": 8, "sliding_window": 8},
        "opt": {"dropout": 0.0},
    }.get(family, {})
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, vocab_size=VOCABULARY, **sizes)
    return AutoModelForCausalLM.from_config(config).eval()


def some_rows(seed, count=12):
    return rendered(np.random.default_rng(seed), VOCABULARY, count, 30)


def keys(rows):
    return {row.key for row in rows}


def learnt(model, count, rows, target):
    """What a target loses before and after two trainings of the last layers."""
    out = [judged(model, target)]
    for seed in range(2):
        with adapter(model, 4, seed, last_layers(model, count)) as wrapped:
            train(wrapped, rows, 4, 1e-2, seed)
            out.append(judged(wrapped, target))
    return np.array(out)


def counted(model):
    """Count the rows that a model's first layer, and its last, sees from now on."""
    layers = tested.layers_of(model)
    seen = {0: 0, len(layers) - 1: 0}
    for place in seen:
        norm = next(part for name, part in layers[place].named_children() if "norm" in name or "ln" in name)

        def count(_part, given, place=place):
            seen[place] += len(given[0])

        norm.register_forward_pre_hook(count)
    return seen


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "opt", "qwen3"])
def test_nothing_changes_but_what_runs(family, one_thread):
    rows, target = some_rows(0), some_rows(1, 9)
    wanted = learnt(made(family), 1, rows, target)
    model = made(family)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with running_below_once(model, 1, keys((*rows, *target))) as held:
        assert held
        found = learnt(model, 1, rows, target)
    np.testing.assert_allclose(found, wanted, rtol=2e-5)
    assert abs(found[1:] - found[0]).min() > 1e-3  # something was learnt
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any("forward" in vars(part) for part in model.modules())
    np.testing.assert_allclose(judged(model, target), wanted[0], rtol=2e-5)


def test_the_layers_below_run_once_a_row(one_thread):
    rows, target = some_rows(0), some_rows(1, 9)
    model = made("llama")
    seen = counted(model)
    with running_below_once(model, 2, keys((*rows, *target))):
        start = dict(seen)
        learnt(model, 2, rows, target)
    first, last = (seen[place] - start[place] for place in (0, LAYERS - 1))
    assert first == 12 + 9
    assert last == 2 * 12 + 3 * 9


@pytest.mark.parametrize("why", ["come once", "no room"])
def test_what_is_not_held_runs_each_time(why, one_thread, monkeypatch):
    rows, target = some_rows(0), some_rows(1, 9)
    wanted = learnt(made("llama"), 2, rows, target)
    model = made("llama")
    seen = counted(model)
    if why == "no room":
        monkeypatch.setattr(tested, "HELD_BYTES", 4 * 32 * sum(len(row.input_ids) for row in target))
    with running_below_once(model, 2, keys((*target, *rows)) if why == "no room" else keys(target)):
        start = seen[0]
        found = learnt(model, 2, rows, target)
    assert seen[0] - start == 2 * 12 + 9
    np.testing.assert_allclose(found, wanted, rtol=2e-5)


def test_only_the_last_layers_learn(one_thread):
    model = made("llama")
    with adapter(model, 4, 0, last_layers(model, 1)) as wrapped:
        learning = [name for name, weight in wrapped.named_parameters() if weight.requires_grad]
    assert len(learning) == 2 * 7
    assert all("layers.3." in name for name in learning)
    with adapter(model, 4, 0) as wrapped:
        assert sum(weight.requires_grad for weight in wrapped.parameters()) == LAYERS * 2 * 7


def test_eleven_is_not_the_first(one_thread):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=12,
        num_attention_heads=2,
    )
    model = LlamaForCausalLM(config)
    with adapter(model, 4, 0, ["model.layers.1"]) as wrapped:
        learning = [name for name, weight in wrapped.named_parameters() if weight.requires_grad]
    assert {name.split("layers.")[1].split(".")[0] for name in learning} == {"1"}


def watch_a_layer(model):
    model.model.layers[0].register_forward_hook(lambda *_: None)


def say_more_than_states(model):
    class Saying(type(model.model.layers[0])):
        def forward(self, *given, **named):
            return super().forward(*given, **named), 1

    class Hearing(type(model.model.layers[0])):
        def forward(self, states, *given, **named):
            return super().forward(states[0], *given, **named)

    model.model.layers[-2].__class__, model.model.layers[-1].__class__ = Saying, Hearing


def embed_outside(model):
    """As some models of text and images do: their body sees no tokens."""

    class Embedding(type(model)):
        def forward(self, input_ids=None, inputs_embeds=None, **named):
            assert inputs_embeds is None
            return super().forward(inputs_embeds=self.get_input_embeddings()(input_ids), **named)

    model.__class__ = Embedding


@pytest.mark.parametrize(
    "change", [go_on_beside_the_output, watch_a_layer, say_more_than_states, embed_outside]
)
def test_a_model_that_is_more_than_its_layers_runs_whole(change, one_thread):
    rows, target = some_rows(0), some_rows(1, 9)
    models = made("llama"), made("llama")
    for model in models:
        change(model)
    wanted = learnt(models[0], 1, rows, target)
    with running_below_once(models[1], 1, keys((*rows, *target))) as held:
        assert not held
        np.testing.assert_allclose(learnt(models[1], 1, rows, target), wanted, rtol=1e-5)
    assert not any("forward" in vars(part) for part in models[1].modules())


def give_tuples(model):
    """As in transformers 4, and some families still: states, and nothing."""

    class Giving(type(model.model.layers[0])):
        def forward(self, states, *given, **named):
            return super().forward(states[0] if isinstance(states, tuple) else states, *given, **named), None

    class Norm(type(model.model.norm)):
        def forward(self, states):
            return super().forward(states[0])

    for layer in model.model.layers:
        layer.__class__ = Giving
    model.model.norm.__class__ = Norm


def checkpoint(model):
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
    model.enable_input_require_grads()


def nothing(model):
    """Leave it as it is."""


@pytest.mark.parametrize(
    ("family", "change"), [("llama", give_tuples), ("llama", checkpoint), ("mixtral", nothing)]
)
def test_nor_does_it_where_models_are_unusual(family, change, one_thread):
    rows, target = some_rows(0), some_rows(1, 9)
    models = made(family), made(family)
    for model in models:
        change(model)
    wanted = learnt(models[0], 1, rows, target)
    with running_below_once(models[1], 1, keys((*rows, *target))) as held:
        assert held
        found = learnt(models[1], 1, rows, target)
    np.testing.assert_allclose(found, wanted, rtol=2e-5)


def test_experts_below_do_not_learn(one_thread):
    model = made("mixtral")
    with adapter(model, 4, 0, last_layers(model, 1)) as wrapped:
        learning = [name for name, weight in wrapped.named_parameters() if weight.requires_grad]
    assert learning
    assert all("layers.3." in name for name in learning)


def test_each_module_keeps_its_mode_and_nothing_is_read_with_dropout(one_thread):
    model, rows = made("gpt2"), some_rows(0)
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.5
    wanted = judged(model, rows)
    model.train()
    model.transformer.h[0].eval()
    modes = [part.training for part in model.modules()]
    with running_below_once(model, 1, keys(rows)) as held:
        assert held
        np.testing.assert_allclose(judged(model, rows), wanted, rtol=2e-5)
    assert [part.training for part in model.modules()] == modes


def test_all_layers_leave_none_below():
    with running_below_once(made("llama"), LAYERS, set()) as held:
        assert not held


def test_more_layers_than_there_are():
    with pytest.raises(DataPrunerError, match="this model has 4 layers, and not the last 5"):
        last_layers(made("llama"), LAYERS + 1)
