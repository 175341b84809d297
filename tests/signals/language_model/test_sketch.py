"""Sketches of gradients against the gradients themselves, row by row with autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datapruner.errors import DataPrunerError
from datapruner.ranks import spearman
from datapruner.recipe import Recipe
from datapruner.samples import load_samples
from datapruner.signals.language_model import LanguageModel, measure_language_model
from datapruner.signals.language_model import sketch as module
from datapruner.signals.language_model.find_output_layer import find_output_layer
from datapruner.signals.language_model.sketch import Sketch, Sketched, projection, signs
from datapruner.signals.language_model.token_statistics import output_statistics
from datapruner.signals.store import SignalStore
from tests.signals.language_model.test_language_model import MIXED, backend, make_model, tokenizer
from tests.signals.language_model.test_output_layer import KINDS, some_layer, some_rows

pytestmark = pytest.mark.usefixtures("one_thread")
fixtures = (backend, tokenizer)

LENGTHS = [3, 1, 7, 30]
OF_64 = Sketch(64)


def exact_gradients(layer, hidden, targets, lengths):
    """Each row's gradient of its mean loss by the output layer's weight, by autograd; float64 (rows, V d)."""
    weight = layer.weight.double().clone().requires_grad_()
    logits = layer.scale * (hidden.double() @ weight.T + (0 if layer.bias is None else layer.bias.double()))
    if layer.softcap is not None:
        logits = layer.softcap * torch.tanh(logits / layer.softcap)
    nll = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    return np.stack(
        [
            torch.autograd.grad(part.mean(), weight, retain_graph=True)[0].reshape(-1).numpy()
            for part in nll.split(lengths)
        ]
    )


def sketches(layer, hidden, targets, lengths, dimension, seed=0, sides=(512, 1024), **options):
    sketched = Sketched(Sketch(dimension, seed), *layer.weight.shape, sides=sides)
    return output_statistics(layer, hidden, targets, lengths, sketched=sketched, **options).sketch


@pytest.mark.parametrize("budget", [256 << 20, 1 << 12])
@pytest.mark.parametrize("kind", KINDS)
def test_without_projection_a_sketch_is_the_gradient(kind, budget):
    layer = some_layer(**KINDS[kind])
    hidden, targets = some_rows(layer, LENGTHS)
    found = sketches(layer, hidden, targets, LENGTHS, None, byte_budget=budget)
    exact = exact_gradients(layer, hidden, targets, LENGTHS)
    np.testing.assert_allclose(found, exact, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found @ found.T, exact @ exact.T, rtol=1e-9)


def assert_unbiased(found, exact):
    """Inner products of sketches under many seeds, shape (seeds, rows, rows), lie around the gradients' own."""
    above = np.triu_indices(exact.shape[-1])
    found, exact = found[:, *above], exact[above]
    errors = np.abs(found.mean(axis=0) - exact) / (found.std(axis=0, ddof=1) / np.sqrt(len(found)))
    assert errors.max() < 3, errors


@pytest.mark.parametrize(("kind", "dense"), [("all", module.DENSE), ("plain", 0)])
def test_inner_products_are_unbiased(kind, dense, monkeypatch):
    monkeypatch.setattr(module, "DENSE", dense)
    layer = some_layer(**KINDS[kind])
    hidden, targets = some_rows(layer, LENGTHS)
    found = [sketches(layer, hidden, targets, LENGTHS, 36, seed, sides=(12, 9)) for seed in range(50)]
    exact = exact_gradients(layer, hidden, targets, LENGTHS)
    assert found[0].shape == (len(LENGTHS), 36)
    assert_unbiased(np.stack([one @ one.T for one in found]), exact @ exact.T)


def test_the_default_dimension_ranks_pairs_as_the_gradients_do():
    """Rows of six kinds that share most of their targets, and part of their states."""
    rng = np.random.default_rng(0)
    layer, lengths, kinds = some_layer(2000, 48), [5] * 36, np.repeat(rng.integers(6, size=36), 5)
    centres, likely = rng.normal(size=(6, 48)), rng.integers(2000, size=(6, 8))
    common, frequent = rng.normal(size=48), rng.integers(2000, size=12)
    hidden = torch.from_numpy(0.15 * (common + centres[kinds] + rng.normal(size=(180, 48))))
    own, others = likely[kinds, rng.integers(8, size=180)], frequent[rng.integers(12, size=180)]
    targets = torch.from_numpy(np.where(rng.random(180) < 0.7, others, own))
    exact = exact_gradients(layer, hidden, targets, lengths)
    pairs = np.triu_indices(36, 1)

    def cosines(of):
        unit = of / np.linalg.norm(of, axis=1, keepdims=True)
        return (unit @ unit.T)[pairs]

    dimension = Recipe.model_fields["sketch_dimension"].default
    for seed in range(2):
        found = sketches(layer, hidden, targets, lengths, dimension, seed)
        assert spearman(cosines(found), cosines(exact)) > 0.9


def test_a_larger_sketch_is_closer():
    layer = some_layer(700, 60)
    hidden, targets = some_rows(layer, LENGTHS)
    exact = exact_gradients(layer, hidden, targets, LENGTHS)

    def error(dimension):
        found = [sketches(layer, hidden, targets, LENGTHS, dimension, seed) for seed in range(10)]
        return np.sqrt(np.mean([(one @ one.T - exact @ exact.T) ** 2 for one in found]))

    assert error(3200) < 0.6 * error(200)  # a quarter of it, and what the sides add


@pytest.mark.parametrize("dense", [module.DENSE, 0])
def test_projections_keep_lengths_and_differ_by_seed_and_side(dense, monkeypatch):
    monkeypatch.setattr(module, "DENSE", dense)
    unit = torch.eye(1000)
    first, again, other, side = (
        projection(8, 1000, seed, name)(unit) for seed, name in ((0, "a"), (0, "a"), (1, "a"), (0, "b"))
    )
    torch.testing.assert_close((first**2).sum(1), torch.ones(1000))
    assert (first == again).all()
    assert (first != other).any(1).float().mean() > 0.4
    assert (first != side).any(1).float().mean() > 0.4
    if not dense:  # each number falls into one of the sums, and these are of as many
        assert ((first != 0).sum(0) == 125).all()
    assert projection(8, 8, 0, "a") is None
    assert projection(None, 8, 0, "a") is None


def test_the_projection_of_a_seed_stays_what_it_is(monkeypatch):
    """Stored sketches are compared with new ones, so that it may never change without the version in the key."""
    drawn = ["".join("+" if sign > 0 else "-" for sign in row) for row in signs((3, 8), 7, "outputs")]
    assert drawn == ["-+++++++", "-----++-", "+-++--++"]
    monkeypatch.setattr(module, "DENSE", 0)
    assert projection(3, 8, 7, "outputs")(torch.eye(8)).T.int().tolist() == [
        [0, 0, 0, 1, -1, 0, 1, 0],
        [0, 0, 1, 0, 0, 1, 0, 1],
        [1, 1, 0, 0, 0, 0, 0, 0],
    ]


def run(model, tokenizer, folder, rows=MIXED, chosen=None, sketch=OF_64, **options):
    samples = load_samples(rows)
    chosen = np.arange(len(samples)) if chosen is None else np.asarray(chosen)
    feed = {"max_length": 256, "batch_tokens": 128, **options}
    store = folder if isinstance(folder, SignalStore) else SignalStore(folder)
    reader = LanguageModel(model, tokenizer, **feed)
    return measure_language_model(samples, chosen, reader, store, sketch=sketch, progress=False)


def exact_of_rows(model, tokenizer, rows=MIXED):
    """Every row's gradient by the output layer, the row alone in its model."""
    layer = find_output_layer(model)
    feed = LanguageModel(model, tokenizer, 256)
    out = []
    for row in feed.render(load_samples(rows), np.arange(len(rows))):
        targets = np.flatnonzero(row.supervised)
        ids = torch.from_numpy(row.input_ids).long()
        with torch.no_grad():
            states = model.model(input_ids=ids[None]).last_hidden_state[0, targets - 1]
        out.append(exact_gradients(layer, states, ids[targets], [len(targets)])[0])
    return np.stack(out)


@pytest.mark.parametrize("packing", [True, False])
def test_the_pass_sketches_every_rows_gradient(packing, tokenizer, tmp_path):
    model = make_model(dtype=torch.float64)
    found = run(model, tokenizer, tmp_path, sketch=Sketch(None), packing=packing)
    exact = exact_of_rows(model, tokenizer)
    assert found["output_sketch"].dtype == np.float32
    np.testing.assert_allclose(found["output_sketch"], exact, rtol=1e-6, atol=1e-6 * np.abs(exact).max())
    norms = np.linalg.norm(found["output_sketch"], axis=1)
    np.testing.assert_allclose(norms, found["grad_norm"], rtol=1e-5)


def test_place_company_and_batches_move_the_last_digits_only(tokenizer, tmp_path):
    model = make_model()
    found = run(model, tokenizer, tmp_path / "a")["output_sketch"]
    order = [5, 2, 0, 7]
    some = run(model, tokenizer, tmp_path / "b", rows=[MIXED[row] for row in order])["output_sketch"]
    assert (some == found[order]).all()
    for number, options in enumerate(({"packing": False}, {"batch_tokens": 512})):
        other = run(model, tokenizer, tmp_path / f"c{number}", **options)["output_sketch"]
        np.testing.assert_allclose(other, found, rtol=1e-4, atol=1e-5 * np.abs(found).max())


def test_losses_are_the_same_beside_a_sketch_and_what_is_stored_is_found(tokenizer, tmp_path):
    model = make_model()
    store = SignalStore(tmp_path)
    plain = run(model, tokenizer, store, sketch=None, chosen=[0, 1, 2, 3])
    assert "output_sketch" not in plain
    both = run(model, tokenizer, store)
    assert store.computed == 7  # two of the eight rows are equal; the stored losses came without a sketch
    for name in ("log_ppl", "grad_norm"):
        assert (both[name][:4] == plain[name]).all()
    again = run(model, tokenizer, store)
    assert store.computed == 0
    assert (again["output_sketch"] == both["output_sketch"]).all()
    run(model, tokenizer, store, sketch=None)
    assert store.computed == 0
    other = run(model, tokenizer, store, sketch=Sketch(64, seed=1))
    assert store.computed == 7
    assert not np.allclose(other["output_sketch"], both["output_sketch"])
    assert (other["log_ppl"] == both["log_ppl"]).all()


def test_a_whole_gradient_that_is_too_large_is_refused():
    with pytest.raises(DataPrunerError, match="sketch_dimension"):
        Sketched.of_output(Sketch(None), 49152, 576)


def test_what_sketches_take_on_disk_is_told_and_refused_beforehand(tokenizer, tmp_path, monkeypatch):
    from types import SimpleNamespace

    import datapruner as dp

    asked = type("Asking", (dp.scorers.Length,), {"requires": frozenset({"output_sketch"})})()
    told = dp.plan(
        MIXED * 20, scorers=asked, model=(make_model(), tokenizer), cache=tmp_path, sketch_dimension=8192
    )
    (losses,) = (step for step in told.steps if step.name == "losses")
    assert losses.disk == 140 * 8192 * 4 * 2  # a row of each eight has no answer
    assert "9 MB on disk" in str(told)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(DataPrunerError, match=r"sketches take .* sketch_dimension"):
        run(make_model(), tokenizer, tmp_path)
