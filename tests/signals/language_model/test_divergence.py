"""The divergence of two models' predictions equals scipy's on full float64 distributions, whatever the logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.special import log_softmax, softmax

from datapruner.signals.language_model.divergence import LN2, divergence_statistics, gradient_agreement
from datapruner.signals.language_model.output_layer import OutputLayer
from datapruner.signals.language_model.token_statistics import output_statistics

V = 1003
M = 150


def layer_of(d, *, seed, dtype=torch.float32, tokens=V, **more):
    rng = np.random.default_rng(seed)
    weight = torch.tensor(rng.normal(size=(tokens, d)), dtype=dtype)
    if more.pop("bias", False):
        more["bias"] = torch.tensor(rng.normal(size=tokens), dtype=dtype)
    return OutputLayer(weight, **more)


def full_logits(layer, states):
    logits = states.double().numpy() @ layer.weight.double().numpy().T
    if layer.bias is not None:
        logits = logits + layer.bias.double().numpy()
    logits = logits * layer.scale
    return logits if layer.softcap is None else layer.softcap * np.tanh(logits / layer.softcap)


def squared_distance(first, second):
    """By scipy, from the definition: the Jensen-Shannon distance's square, in nats."""
    p, q = softmax(first, axis=1), softmax(second, axis=1)
    with np.errstate(
        invalid="ignore"
    ):  # scipy takes the root of a rounding below zero for equal distributions
        return np.nan_to_num(jensenshannon(p, q, axis=1) ** 2)


def compared(layers, states, **options):
    targets = torch.arange(len(states[0])) % V
    return divergence_statistics(layers, states, targets, **options), targets


@pytest.mark.parametrize("size", [0.0, 1e-3, 0.1, 1.0, 10.0, 1000.0], ids=str)
def test_equals_scipy_from_flat_to_peaked(size):
    rng = np.random.default_rng(0)
    layers = (layer_of(16, seed=1), layer_of(24, seed=2))
    states = tuple(torch.tensor(size * rng.normal(size=(M, d)), dtype=torch.float32) for d in (16, 24))
    found, targets = compared(layers, states)
    logits = [full_logits(layer, held) for layer, held in zip(layers, states, strict=True)]
    np.testing.assert_allclose(found.jsd.numpy(), squared_distance(*logits), atol=1e-6)
    assert ((found.jsd >= 0) & (found.jsd <= LN2)).all()
    for number, held in enumerate(logits):
        nll = -log_softmax(held, axis=1)[np.arange(M), targets.numpy()]
        np.testing.assert_allclose(found.nll[number].numpy(), nll, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("size", [1e-2, 1.0, 100.0], ids=str)
def test_equal_predictions_give_exactly_zero(size):
    layer = layer_of(16, seed=1)
    states = torch.tensor(size * np.random.default_rng(0).normal(size=(M, 16)), dtype=torch.float32)
    assert (compared((layer, layer), (states, states.clone()))[0].jsd == 0).all()


def test_near_predictions_keep_their_digits():
    rng = np.random.default_rng(0)
    layer = layer_of(16, seed=1)
    states = torch.tensor(rng.normal(size=(M, 16)), dtype=torch.float32)
    moved = states + 1e-3 * torch.tensor(rng.normal(size=(M, 16)), dtype=torch.float32)
    found = compared((layer, layer), (states, moved))[0].jsd.numpy()
    exact = squared_distance(full_logits(layer, states), full_logits(layer, moved))
    np.testing.assert_allclose(found, exact, rtol=2e-2, atol=2e-8)


def test_predictions_that_share_no_token_are_ln2_apart():
    weight = torch.eye(4)
    layer = OutputLayer(1000 * weight)
    states = (weight[[0, 1]], weight[[2, 1]])
    jsd = divergence_statistics((layer, layer), states, torch.tensor([0, 1])).jsd
    assert jsd[0] == pytest.approx(LN2, abs=1e-6)
    assert jsd[1] == 0


@pytest.mark.parametrize(
    "more",
    [{"bias": True}, {"scale": 0.3}, {"softcap": 5.0}, {"bias": True, "scale": 0.5, "softcap": 8.0}],
    ids=str,
)
def test_biases_scales_and_caps(more):
    rng = np.random.default_rng(0)
    layers = (layer_of(16, seed=1, **dict(more)), layer_of(12, seed=2, **dict(more)))
    states = tuple(torch.tensor(rng.normal(size=(M, d)), dtype=torch.float32) for d in (16, 12))
    found, targets = compared(layers, states)
    logits = [full_logits(layer, held) for layer, held in zip(layers, states, strict=True)]
    np.testing.assert_allclose(found.jsd.numpy(), squared_distance(*logits), atol=1e-6)
    for number, (layer, held) in enumerate(zip(layers, states, strict=True)):
        alone = output_statistics(layer, held, targets, [M], gradients=False)
        np.testing.assert_allclose(found.nll[number].numpy(), alone.nll.numpy(), rtol=1e-6)
        np.testing.assert_allclose(found.entropy[number].numpy(), alone.entropy.numpy(), rtol=1e-5, atol=1e-6)


def test_float64_is_exact():
    rng = np.random.default_rng(0)
    layers = (layer_of(16, seed=1, dtype=torch.float64), layer_of(24, seed=2, dtype=torch.float64))
    states = tuple(torch.tensor(0.3 * rng.normal(size=(M, d))) for d in (16, 24))
    logits = [full_logits(layer, held) for layer, held in zip(layers, states, strict=True)]
    found = compared(layers, states)[0].jsd.numpy()
    np.testing.assert_allclose(found, squared_distance(*logits), atol=1e-13)


def test_a_position_does_not_depend_on_its_company_or_the_budget():
    rng = np.random.default_rng(0)
    layers = (layer_of(16, seed=1), layer_of(24, seed=2))
    states = tuple(torch.tensor(rng.normal(size=(M, d)), dtype=torch.float32) for d in (16, 24))
    whole = compared(layers, states)[0].jsd
    alone = divergence_statistics(layers, tuple(held[77:78] for held in states), torch.tensor([77])).jsd
    assert alone[0] == whole[77]
    small = compared(layers, states, byte_budget=1)[0].jsd
    np.testing.assert_allclose(small.numpy(), whole.numpy(), atol=1e-7)


def test_infinite_states_are_seen():
    layer = layer_of(16, seed=1)
    states = torch.zeros(3, 16)
    broken = states.clone()
    broken[1, 0] = torch.inf
    found = divergence_statistics((layer, layer), (states, broken), torch.tensor([0, 1, 2]))
    assert found.nll[1].isnan().tolist() == [False, True, False]


@pytest.mark.parametrize(("budget", "tokens"), [(1, 61), (2 * 12 * 4 * 100, V), (128 << 20, V)])
def test_the_agreement_of_gradients_equals_autograd(budget, tokens):
    rng = np.random.default_rng(0)
    d, lengths = 8, [1, 5, 12]
    layers = tuple(
        layer_of(d, seed=seed, tokens=tokens, **more)
        for seed, more in ((1, {"bias": True}), (2, {"scale": 0.4}))
    )
    states = tuple(torch.tensor(rng.normal(size=(sum(lengths), d)), dtype=torch.float32) for _ in layers)
    targets = torch.tensor(rng.integers(0, tokens, sum(lengths)))
    found = gradient_agreement(layers, states, targets, lengths, byte_budget=budget)
    start = 0
    for row, length in enumerate(lengths):
        of = slice(start, start + length)
        start += length
        gradients = []
        for layer, held in zip(layers, states, strict=True):
            weight = layer.weight.double().requires_grad_()
            bias = 0 if layer.bias is None else layer.bias.double()
            logits = layer.scale * (held[of].double() @ weight.T + bias)
            torch.nn.functional.cross_entropy(logits, targets[of]).backward()
            gradients.append(weight.grad)
        first, second = gradients
        exact = [(first**2).sum(), (second**2).sum(), (first * second).sum()]
        np.testing.assert_allclose(found[row], [float(one) for one in exact], rtol=1e-4, atol=1e-6)


def test_layers_of_other_tokens_or_widths_are_no_pair():
    states = torch.zeros(1, 8)
    target = torch.tensor([0])
    with pytest.raises(ValueError, match="same tokens"):
        divergence_statistics(
            (OutputLayer(torch.zeros(4, 8)), OutputLayer(torch.zeros(5, 8))), (states, states), target
        )
    with pytest.raises(ValueError, match="one shape"):
        gradient_agreement(
            (OutputLayer(torch.zeros(4, 8)), OutputLayer(torch.zeros(4, 6))),
            (states, states[:, :6]),
            target,
            [1],
        )
