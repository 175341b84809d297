"""Sketches of the body's gradients against the gradients themselves, row by row with autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datapruner.errors import DataPrunerError
from datapruner.samples import load_samples
from datapruner.signals.language_model import LanguageModel, forward, linear_layers
from datapruner.signals.language_model.find_output_layer import body, find_output_layer
from datapruner.signals.language_model.gradients import measure_gradients, state_derivatives
from datapruner.signals.language_model.linear_layers import Watched, find_linear_layers
from datapruner.signals.language_model.sketch import GradientSketch
from datapruner.signals.store import SignalStore
from tests.signals.language_model.test_language_model import (
    MIXED,
    backend,
    chat,
    little_memory,
    make_model,
    tokenizer,
)
from tests.signals.language_model.test_output_layer import KINDS, some_layer, some_rows
from tests.signals.language_model.test_sketch import assert_unbiased

pytestmark = pytest.mark.usefixtures("one_thread")
fixtures = (backend, tokenizer)

OF_ALL = GradientSketch(500, alike=False)
WHOLE = GradientSketch(None, alike=False)


def run(model, tokenizer, folder, sketch=OF_ALL, rows=MIXED, **options):
    samples = load_samples(rows)
    store = folder if isinstance(folder, SignalStore) else SignalStore(folder)
    reader = LanguageModel(model, tokenizer, **{"max_length": 256, "batch_tokens": 128, **options})
    every = np.arange(len(samples), dtype=np.int64)
    return measure_gradients(samples, every, reader, store, sketch, progress=False)


def exact_gradients(model, tokenizer, rows=MIXED, which="all"):
    """Every row's gradient by the weights of the body's linear layers, the row alone in its model; float64."""
    layers = find_linear_layers(model, which)
    weights = [layer.module.weight for layer in layers]
    before = [(weight, weight.requires_grad) for weight in model.parameters()]
    for weight in weights:
        weight.requires_grad_(True)
    out = []
    for row in LanguageModel(model, tokenizer, 256).render(load_samples(rows), np.arange(len(rows))):
        ids = torch.from_numpy(row.input_ids).long()[None]
        labels = torch.where(torch.from_numpy(row.supervised), ids[0], -100)
        logits = model(input_ids=ids).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits.double(), labels[1:])
        found = torch.autograd.grad(loss, weights)
        # GPT-2's layers hold their weights the other way round.
        turned = [
            one.T if type(layer.module).__name__ == "Conv1D" else one
            for one, layer in zip(found, layers, strict=True)
        ]
        out.append(torch.cat([one.reshape(-1).double() for one in turned]).numpy())
    for weight, needed in before:
        weight.requires_grad_(needed)
    return np.stack(out)


@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_by_states(kind):
    layer = some_layer(**KINDS[kind])
    hidden, targets = some_rows(layer, [150])
    states = hidden.clone().requires_grad_()
    logits = layer.scale * (states @ layer.weight.T + (0 if layer.bias is None else layer.bias))
    if layer.softcap is not None:
        logits = layer.softcap * torch.tanh(logits / layer.softcap)
    loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    (exact,) = torch.autograd.grad(loss, states)
    torch.testing.assert_close(state_derivatives(layer, hidden, targets), exact, rtol=1e-9, atol=1e-12)


def with_double_norms(model):
    """Llama's norms round to float32, whatever the model's type."""
    for module in list(model.modules()):
        for name, norm in module.named_children():
            if type(norm).__name__.endswith("RMSNorm"):
                whole = torch.nn.RMSNorm(len(norm.weight), eps=norm.variance_epsilon, dtype=torch.float64)
                whole.weight = norm.weight
                setattr(module, name, whole)
    return model


@pytest.mark.parametrize(
    ("family", "packing", "tolerance"),
    [("llama", True, 1e-9), ("gpt2", False, 1e-9), ("gemma2", True, 1e-5)],
)
def test_without_projection_a_sketch_is_the_gradient(
    family, packing, tolerance, tokenizer, tmp_path, monkeypatch
):
    model = make_model(family, dtype=torch.float64)
    if family == "llama":
        with_double_norms(model)
    held = {}

    class Kept(forward.Waiting):
        """Sees sketches before they are rounded to float32."""

        def __setattr__(self, name, value):
            super().__setattr__(name, value)
            if name == "states" and value:
                held.update({item.place: state for item, state in zip(self.items, value, strict=True)})

    monkeypatch.setattr(forward, "Waiting", Kept)
    found = run(model, tokenizer, tmp_path, WHOLE, packing=packing)
    exact = exact_gradients(model, tokenizer)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-6 * np.abs(exact).max())
    for place, sketch in held.items():
        size = np.abs(exact[place]).max()
        np.testing.assert_allclose(sketch, exact[place], rtol=tolerance, atol=tolerance * size)
        np.testing.assert_allclose(sketch @ sketch, exact[place] @ exact[place], rtol=tolerance)
    assert len(held) == 7  # of eight rows two are equal


def test_inner_products_are_unbiased(tokenizer, monkeypatch):
    monkeypatch.setattr(linear_layers, "BODY_SIDE", 5)
    model = make_model(dtype=torch.float64, num_hidden_layers=1)
    layers, rows, layer = find_linear_layers(model, "all"), MIXED[:3], find_output_layer(model)
    rendered = list(LanguageModel(model, tokenizer, 256).render(load_samples(rows), np.arange(3)))
    lengths, targets = (
        [len(row.input_ids) for row in rendered],
        [np.flatnonzero(row.supervised) for row in rendered],
    )
    ids = torch.zeros(3, max(lengths), dtype=torch.long)
    for number, row in enumerate(rendered):
        ids[number, : lengths[number]] = torch.from_numpy(row.input_ids)
    places = [
        slice(len(ids[0]) * number, len(ids[0]) * number + length) for number, length in enumerate(lengths)
    ]

    def sketched(sketch):
        watched = Watched(model, layers, sketch)
        with watched.watching():
            states = body(model)(input_ids=ids, use_cache=False).last_hidden_state
            back = torch.zeros_like(states)
            for number, of in enumerate(targets):
                back[number, of - 1] = state_derivatives(
                    layer, states.detach()[number, of - 1], ids[number, of]
                )
            return watched.back(states, back, places, [1 / len(of) for of in targets])

    found = [sketched(GradientSketch(63, seed, alike=False)) for seed in range(50)]
    exact = exact_gradients(model, tokenizer, rows)
    assert found[0].shape == (3, 63)
    assert_unbiased(np.stack([(one @ one.T).numpy() for one in found]), exact @ exact.T)


def test_layers_that_count_alike_have_length_one(tokenizer, tmp_path):
    model = make_model()
    own, alike = (run(model, tokenizer, tmp_path, sketch) for sketch in (WHOLE, GradientSketch(None)))
    ends = np.cumsum([layer.outputs * layer.inputs for layer in find_linear_layers(model, "all")])[:-1]
    for one, other in zip(np.split(own, ends, axis=1), np.split(alike, ends, axis=1), strict=True):
        np.testing.assert_allclose(
            other, one / np.linalg.norm(one, axis=1, keepdims=True), rtol=1e-4, atol=1e-6
        )


def test_place_company_and_batches_move_the_last_digits_only(tokenizer, tmp_path):
    model = make_model()
    found = run(model, tokenizer, tmp_path / "a")
    size = np.abs(found).max()
    order = [5, 2, 0, 7]
    some = run(model, tokenizer, tmp_path / "b", rows=[MIXED[row] for row in order])
    np.testing.assert_allclose(some, found[order], rtol=1e-4, atol=1e-5 * size)
    for number, options in enumerate(({"packing": False}, {"batch_tokens": 512})):
        other = run(model, tokenizer, tmp_path / f"c{number}", **options)
        np.testing.assert_allclose(other, found, rtol=1e-4, atol=1e-5 * size)
    again = run(model, tokenizer, store := SignalStore(tmp_path / "a"))
    assert store.computed == 0
    assert (again == found).all()


def test_a_model_is_left_as_it_was(tokenizer, tmp_path):
    model = make_model(attention_dropout=0.5).train()
    weight = model.model.layers[0].mlp.up_proj.weight
    model.model.norm.weight.requires_grad_(False)
    weight.grad = torch.ones_like(weight)
    found = run(model, tokenizer, tmp_path / "a")
    assert (run(model.eval(), tokenizer, tmp_path / "b") == found).all()  # without dropout
    assert (weight.grad == 1).all()
    assert [name for name, one in model.named_parameters() if not one.requires_grad] == ["model.norm.weight"]
    assert all(one.grad is None for one in model.parameters() if one is not weight)
    assert not any(module._forward_hooks for module in model.modules())


def test_layers_are_chosen_by_their_names():
    model = make_model()
    down = [layer.name for layer in find_linear_layers(model, "*.down_proj")]
    assert down == ["layers.0.mlp.down_proj", "layers.1.mlp.down_proj"]
    with pytest.raises(DataPrunerError, match=r"'\*\.dwn': its 14 layers are called layers\.0\.self_attn\.q"):
        find_linear_layers(model, "*.dwn")


def test_an_adapters_parameters(tokenizer, tmp_path):
    peft = pytest.importorskip("peft")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"], lora_dropout=0.5)
        model = peft.get_peft_model(make_model(dtype=torch.float64), config).get_base_model()
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight)
    model.eval()
    names = [layer.name for layer in find_linear_layers(model, "lora")]
    assert len(names) == 8
    assert all("lora" in name for name in names)
    exact = exact_gradients(model, tokenizer, MIXED[:3], "lora")
    found = run(model, tokenizer, tmp_path, GradientSketch(None, layers="lora", alike=False), MIXED[:3])
    np.testing.assert_allclose(found, exact, rtol=1e-6, atol=1e-6 * np.abs(exact).max())
    assert len(find_linear_layers(model, "all")) == 14


def test_a_layer_that_sees_some_tokens_is_left_out_and_told(caplog):
    model = make_model()
    mlp = model.model.layers[1].mlp
    whole = mlp.up_proj.forward
    mlp.up_proj.forward = lambda x: torch.cat([whole(x[:, :2]), whole(x[:, 2:])], 1)
    assert len(find_linear_layers(model, "all")) == 14  # whatever happens inside
    inner = mlp.forward
    mlp.forward = lambda x: torch.cat([inner(x[:, :2]), inner(x[:, 2:])], 1)
    assert len(find_linear_layers(model, "all")) == 11
    assert "3 of 14 linear layers do not read every token once" in caplog.text


def test_memory_that_runs_out_halves_the_batch(tokenizer, tmp_path, caplog):
    model = make_model()
    rows = MIXED * 2
    plain = run(model, tokenizer, tmp_path / "a", rows=rows, batch_tokens=256)
    with little_memory(200, torch.OutOfMemoryError("CUDA")):
        found = run(model, tokenizer, tmp_path / "b", rows=rows, batch_tokens=512)
    assert "the batch is halved" in caplog.text
    np.testing.assert_allclose(found, plain, rtol=1e-4, atol=1e-5 * np.abs(plain).max())


def test_not_a_number_is_named_by_its_row(tokenizer, tmp_path):
    model = make_model()
    with torch.no_grad():
        model.get_input_embeddings().weight[tokenizer("Q")["input_ids"][0]] = torch.nan
    rows = [*MIXED[:3], chat("uwhat", "athe Q sum"), *MIXED[4:]]
    with pytest.raises(DataPrunerError, match="no finite loss for row 3: its logits"):
        run(model, tokenizer, tmp_path, rows=rows)


def test_a_whole_gradient_that_is_too_large_is_refused():
    model = make_model(hidden_size=256, intermediate_size=4096)
    with pytest.raises(DataPrunerError, match="sketch_dimension"):
        Watched(model, find_linear_layers(model, "all"), WHOLE)
