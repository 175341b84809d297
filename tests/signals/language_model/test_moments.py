"""Gradients as an optimiser's next step makes them, against torch's own Adam taking that step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from datapruner.errors import DataPrunerError
from datapruner.models.optimizers import Moments, load_moments
from datapruner.samples import load_samples
from datapruner.signals.language_model import LanguageModel, linear_layers
from datapruner.signals.language_model.find_output_layer import body, find_output_layer
from datapruner.signals.language_model.gradients import measure_gradients, state_derivatives
from datapruner.signals.language_model.linear_layers import Watched, find_linear_layers
from datapruner.signals.language_model.sketch import GradientSketch
from datapruner.signals.store import SignalStore
from tests.signals.language_model.test_gradient_sketch import exact_gradients, with_double_norms
from tests.signals.language_model.test_language_model import MIXED, backend, make_model, tokenizer
from tests.signals.language_model.test_sketch import assert_unbiased

pytestmark = pytest.mark.usefixtures("one_thread")
fixtures = (backend, tokenizer)
SOME = MIXED[:4]


def with_adapter(model):
    peft = pytest.importorskip("peft")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = peft.LoraConfig(r=3, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
        return peft.get_peft_model(model, config, autocast_adapter_dtype=False).get_base_model()


def trained(model, tokenizer, file, *, which, kind=torch.optim.AdamW, groups=1, steps=3):
    """Train it for a few steps, and leave the optimiser's state behind; of two groups vectors are the second."""
    weights = [one for name, one in model.named_parameters() if which == "all" or "lora" in name]
    for one in model.parameters():
        one.requires_grad_(any(one is weight for weight in weights))
    parts = (
        [weights]
        if groups == 1
        else [[one for one in weights if (one.ndim > 1) == wide] for wide in (True, False)]
    )
    optimizer = kind([{"params": part} for part in parts], lr=1e-2)
    rows = list(LanguageModel(model, tokenizer, 256).render(load_samples(SOME), np.arange(len(SOME))))
    for step in range(steps):
        ids = torch.from_numpy(rows[step % len(rows)].input_ids).long()[None]
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.save(optimizer.state_dict(), file)
    return optimizer


def next_steps(model, layers, file, gradients):
    """What torch's own Adam subtracts from the layers' weights, for each row's gradient of them; float64."""
    state = torch.load(file, weights_only=True)
    weights = [one for one in model.parameters() if one.requires_grad]
    weights.sort(key=lambda one: one.ndim < 2)
    order = [one for group in state["param_groups"] for one in group["params"]]
    numbers = {id(weight): number for weight, number in zip(weights, order, strict=True)}
    sizes = [layer.module.weight.numel() for layer in layers]
    out = []
    for row in gradients:
        moved = []
        for layer, part in zip(layers, np.split(row, np.cumsum(sizes)[:-1]), strict=True):
            weight, turned = layer.module.weight, type(layer.module).__name__ == "Conv1D"
            gradient = torch.from_numpy(part).reshape(weight.T.shape if turned else weight.shape)
            alone = torch.zeros_like(weight, requires_grad=True)
            alone.grad = (gradient.T if turned else gradient).clone().to(weight)
            adam = torch.optim.Adam([alone], lr=1.0)
            held = {name: value.clone() for name, value in state["state"][numbers[id(weight)]].items()}
            adam.load_state_dict({**adam.state_dict(), "state": {0: held}})
            adam.step()
            step = -alone.detach()
            moved.append((step.T if turned else step).reshape(-1).double().numpy())
        out.append(np.concatenate(moved))
    return np.stack(out)


def run(model, tokenizer, folder, sketch, moments, **options):
    reader = LanguageModel(model, tokenizer, **{"max_length": 256, "batch_tokens": 128, **options})
    rows, every = load_samples(SOME), np.arange(len(SOME), dtype=np.int64)
    return measure_gradients(
        rows, every, reader, SignalStore(folder), sketch, moments=moments, progress=False
    )


@pytest.mark.parametrize(
    ("family", "which", "groups"), [("llama", "all", 2), ("llama", "lora", 1), ("gpt2", "all", 2)]
)
def test_without_projection_a_sketch_is_the_step_that_adam_takes(family, which, groups, tokenizer, tmp_path):
    model = with_double_norms(make_model(family, dtype=torch.float64))
    if which == "lora":
        model = with_adapter(model)
    file = tmp_path / "optimizer.pt"
    trained(model, tokenizer, file, which=which, groups=groups)
    layers = find_linear_layers(model, which)
    exact = next_steps(model, layers, file, exact_gradients(model, tokenizer, SOME, which))
    moments, sketch = Moments("warm", file, "1"), GradientSketch(None, layers=which, alike=False)
    found = run(model, tokenizer, tmp_path / "a", sketch, moments, packing=family == "llama")
    np.testing.assert_allclose(found, exact, rtol=1e-6, atol=1e-6 * np.abs(exact).max())
    plain = run(model, tokenizer, tmp_path / "a", sketch, None, packing=family == "llama")
    assert np.abs(plain - found).max() > 0.1


def test_inner_products_of_steps_with_gradients_are_unbiased(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(linear_layers, "BODY_SIDE", 5)
    model = with_adapter(make_model(dtype=torch.float64, num_hidden_layers=1))
    file = tmp_path / "optimizer.pt"
    trained(model, tokenizer, file, which="lora")
    layers, layer = find_linear_layers(model, "*lora_A*"), find_output_layer(model)
    (row,) = LanguageModel(model, tokenizer, 256).render(load_samples(SOME[:1]), np.arange(1))
    ids, targets = torch.from_numpy(row.input_ids).long()[None], np.flatnonzero(row.supervised)
    moments = load_moments("warm", file, model)

    def sketched(seed, moments):
        watched = Watched(model, layers, GradientSketch(31, seed, alike=False), moments)
        with watched.watching():
            states = body(model)(input_ids=ids, use_cache=False).last_hidden_state
            back = torch.zeros_like(states)
            back[0, targets - 1] = state_derivatives(layer, states.detach()[0, targets - 1], ids[0, targets])
            return watched.back(states, back, [slice(0, ids.shape[1])], [1 / len(targets)])[0]

    gradient = exact_gradients(model, tokenizer, SOME[:1], "*lora_A*")
    exact = np.concatenate([next_steps(model, layers, file, gradient), gradient])
    found = [torch.stack([sketched(seed, moments), sketched(seed, None)]) for seed in range(50)]
    assert_unbiased(np.stack([(one @ one.T).numpy() for one in found]), exact @ exact.T)


def test_steps_count_alike_and_are_kept_apart_from_gradients(tokenizer, tmp_path):
    model = with_adapter(make_model())
    for file in (first := tmp_path / "optimizer.pt", second := tmp_path / "later.pt"):
        trained(model, tokenizer, file, which="lora")
    sketch = GradientSketch(None, layers="lora")
    own = GradientSketch(None, layers="lora", alike=False)
    alike = run(model, tokenizer, tmp_path / "a", sketch, Moments("warm", second, "2"))
    found = run(model, tokenizer, tmp_path / "a", own, Moments("warm", second, "2"))
    ends = np.cumsum([layer.outputs * layer.inputs for layer in find_linear_layers(model, "lora")])[:-1]
    for one, other in zip(np.split(found, ends, axis=1), np.split(alike, ends, axis=1), strict=True):
        scaled = one / np.linalg.norm(one, axis=1, keepdims=True)
        np.testing.assert_allclose(other, scaled, rtol=1e-4, atol=1e-6)
    before = run(model, tokenizer, tmp_path / "a", own, Moments("warm", first, "1"))
    assert np.abs(before - found).max() > 0.01 * np.abs(found).max()
    assert (
        run(model, tokenizer, tmp_path / "a", own, Moments("warm", second, "1")) == before
    ).all()  # stored


def test_what_is_no_state_of_adam_for_this_model_is_refused(tokenizer, tmp_path):
    model, file = with_adapter(make_model()), tmp_path / "optimizer.pt"
    ending = "; pass sketch_moments='none' to compare plain gradients$"

    def refused(what, of=model):
        with pytest.raises(DataPrunerError, match=f"{what}.*{ending}"):
            load_moments("warm", file, of)

    refused("'warm' is not loaded: its optimizer.pt is no file of tensors")
    trained(model, tokenizer, file, which="lora", kind=torch.optim.SGD)
    refused("^the optimizer.pt of 'warm' is not the state of torch's Adam or AdamW")
    trained(model, tokenizer, file, which="lora")
    refused("is of 8 parameters in 1 groups, and 21 of the model were trained", of=make_model())
    other = with_adapter(make_model(hidden_size=24, num_attention_heads=2, num_key_value_heads=2))
    refused("is of other parameters: 3 x 16 numbers where .*lora_A.*has 3 x 24", of=other)
    torch.save({"state": Path}, file)
    refused("would import")


def test_layers_that_were_not_trained_have_no_moments(tokenizer, tmp_path):
    model = with_adapter(make_model())
    trained(model, tokenizer, tmp_path / "optimizer.pt", which="lora")
    moments = Moments("warm", tmp_path / "optimizer.pt", "1")
    with pytest.raises(
        DataPrunerError, match=r"no moments of the layer layers\.0\.self_attn\.q_proj.*sketch_layers"
    ):
        run(model, tokenizer, tmp_path, GradientSketch(64), moments)
