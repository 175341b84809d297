"""The pass of a dense and a pruned model gives what a plain loop over both gives, together or in turn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset
from scipy.spatial.distance import jensenshannon

import datapruner as dp
from datapruner.errors import DataPrunerError
from datapruner.models import load_causal_lm
from datapruner.samples import load_samples
from datapruner.signals.language_model import LanguageModel, measure_language_model
from datapruner.signals.language_model.forward import Pass
from datapruner.signals.language_model.twins import measure_twins
from datapruner.signals.store import SignalStore
from tests.conftest import rotated_head, save_tiny_llama

N = 40


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    return save_tiny_llama(tmp_path_factory.mktemp("dense"))


@pytest.fixture(scope="module")
def pruned(dense, tmp_path_factory):
    """Half of every matrix of the body removed by magnitude."""
    model, tokenizer = load_causal_lm(str(dense))
    with torch.no_grad():
        for module in model.model.modules():
            if isinstance(module, torch.nn.Linear):
                weight = module.weight
                weight[weight.abs() < weight.abs().median()] = 0
    folder = tmp_path_factory.mktemp("pruned")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(0)
    words = ["the sum", "of two", "sorts", "a list", "why", "Zoë", "three is five"]

    def text(most):
        return " ".join(rng.choice(words, size=rng.integers(1, most)))

    rows = []
    for _ in range(N):
        messages = [{"role": "user", "content": text(9)}, {"role": "assistant", "content": text(12)}]
        if rng.random() < 0.3:
            messages += [{"role": "user", "content": text(5)}, {"role": "assistant", "content": text(5)}]
        rows.append({"messages": messages})
    return load_samples(Dataset.from_list(rows))


def reader(folder):
    model, tokenizer = load_causal_lm(str(folder))
    return LanguageModel(model, tokenizer, max_length=256)


def measured(samples, dense, pruned, cache, **options):
    store = cache if isinstance(cache, SignalStore) else SignalStore(cache)
    return measure_twins(
        samples, np.arange(len(samples)), dense, lambda: pruned, store, progress=False, **options
    )


def plain_loop(samples, dense, pruned):
    """Two Hugging Face models, a row at a time, all in float64."""
    out = []
    rows = np.arange(len(samples))
    for rendered in dense.render(samples, rows):
        ids = torch.from_numpy(rendered.input_ids)[None].long()
        targets = np.flatnonzero(rendered.supervised)
        with torch.no_grad():
            p, q = (
                torch.softmax(one.model(input_ids=ids).logits[0, targets - 1].double(), -1).numpy()
                for one in (dense, pruned)
            )
        at = (np.arange(len(targets)), rendered.input_ids[targets])
        out.append((jensenshannon(p, q, axis=1) ** 2, -np.log(p[at]), -np.log(q[at])))
    return out


@pytest.mark.parametrize("packing", [True, False])
def test_rows_equal_a_plain_loop(samples, dense, pruned, tmp_path, packing):
    first, second = (replace(reader(folder), packing=packing) for folder in (dense, pruned))
    found = measured(samples, first, second, tmp_path)
    for row, (jsd, nll, pruned_nll) in enumerate(plain_loop(samples, first, second)):
        np.testing.assert_allclose(found["token_jsd"][row], jsd, atol=1e-6)
        np.testing.assert_allclose(found["token_nll"][row], nll, atol=1e-4)
        np.testing.assert_allclose(found["pruned_token_nll"][row], pruned_nll, atol=1e-4)
        assert found["jsd"][row] == pytest.approx(jsd.mean(), abs=1e-6)
        assert found["log_ppl"][row] == pytest.approx(nll.mean(), abs=1e-5)
        assert found["pruned_log_ppl"][row] == pytest.approx(pruned_nll.mean(), abs=1e-5)


def widened(model, rows):
    """The model with rows of padding below its output layer and its embeddings, which no token uses."""
    model.resize_token_embeddings(rows, mean_resizing=False)
    with torch.no_grad():
        torch.nn.init.normal_(model.lm_head.weight[-7:], std=3.0)
    return model


@pytest.mark.parametrize("in_turn", [False, True])
@pytest.mark.parametrize("padded", ["dense", "pruned"])
def test_padded_vocabularies_are_compared_on_the_tokens_there_are(
    samples, dense, pruned, tmp_path, padded, in_turn, caplog
):
    first, second = reader(dense), reader(pruned)
    expected = plain_loop(samples, first, second)
    wide = first if padded == "dense" else second
    widened(wide.model, len(wide.tokenizer) + 13)
    found = measured(samples, first, second, tmp_path, in_turn=in_turn)
    assert f"compared on the {len(wide.tokenizer)} that the tokenizer uses" in caplog.text
    for row, (jsd, nll, pruned_nll) in enumerate(expected):
        np.testing.assert_allclose(found["token_jsd"][row], jsd, atol=1e-6)
        np.testing.assert_allclose(found["token_nll"][row], nll, atol=1e-4)
        np.testing.assert_allclose(found["pruned_token_nll"][row], pruned_nll, atol=1e-4)


def test_a_wrapped_output_layer_gives_the_numbers_of_a_plain_one(samples, dense, pruned, tmp_path):
    first, second = reader(dense), reader(pruned)
    expected = measured(samples, first, second, tmp_path / "plain", gradients=True)
    for one in (first, second):
        one.model.lm_head = rotated_head(one.model.lm_head)
    found = measured(samples, first, second, tmp_path / "wrapped", gradients=True)
    for row, (jsd, nll, _) in enumerate(plain_loop(samples, first, second)):
        np.testing.assert_allclose(found["token_jsd"][row], jsd, atol=1e-6)
        np.testing.assert_allclose(found["token_nll"][row], nll, atol=1e-4)
    for name in ("jsd", "log_ppl", "pruned_log_ppl", "grad_norm", "weight_dot", "el2n", "weight_norm"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("packing", [True, False])
def test_in_turn_gives_the_same_numbers(samples, dense, pruned, tmp_path, packing):
    readers = [replace(reader(folder), packing=packing) for folder in (dense, pruned)]
    together = measured(samples, *readers, tmp_path / "a", gradients=True)
    in_turn = measured(samples, *readers, tmp_path / "b", gradients=True, in_turn=True)
    assert together.keys() == in_turn.keys()
    for name, held in together.items():
        other = in_turn[name]
        values = [one.values if hasattr(one, "offsets") else one for one in (held, other)]
        np.testing.assert_array_equal(*values, err_msg=name)


def test_in_turn_gives_the_dense_model_s_memory_back(samples, dense, pruned, tmp_path):
    first = reader(dense)
    alive = []

    def open_pruned():
        alive.append([tensor.is_meta for tensor in first.model.parameters()])
        return reader(pruned)

    measure_twins(
        samples,
        np.arange(N),
        first,
        open_pruned,
        SignalStore(tmp_path),
        in_turn=True,
        release=True,
        progress=False,
    )
    assert all(alive[0])


def test_the_dense_model_s_signals_are_those_of_its_own_pass(samples, dense, pruned, tmp_path):
    first, second = reader(dense), reader(pruned)
    found = measured(samples, first, second, tmp_path, gradients=True)
    alone = measure_language_model(
        samples, np.arange(N), first, SignalStore(tmp_path / "own"), progress=False
    )
    for name, held in alone.items():
        other = found[name]
        values = [one.values if hasattr(one, "offsets") else one for one in (held, other)]
        np.testing.assert_allclose(*values, rtol=1e-6, atol=1e-7, err_msg=name)


def test_a_twin_of_itself_is_not_damaged(samples, dense, tmp_path):
    one = reader(dense)
    found = measured(samples, one, reader(dense), tmp_path, agreement=True)
    assert (found["jsd"] == 0).all()
    np.testing.assert_allclose(found["gradient_dot"], found["grad_norm"] ** 2, rtol=1e-4)
    np.testing.assert_allclose(found["pruned_grad_norm"], found["grad_norm"], rtol=1e-4)


def test_models_of_other_widths_and_depths_are_twins(samples, dense, tmp_path):
    from transformers import LlamaForCausalLM

    first = reader(dense)
    config = first.model.config.__class__(
        **{
            **first.model.config.to_dict(),
            "hidden_size": 24,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
        }
        | {"num_key_value_heads": 1, "head_dim": 12}
    )
    torch.manual_seed(0)
    second = replace(first, model=LlamaForCausalLM(config).eval())
    found = measured(samples, first, second, tmp_path)
    for row, (jsd, _, _) in enumerate(plain_loop(samples, first, second)):
        np.testing.assert_allclose(found["token_jsd"][row], jsd, atol=1e-6)
    with pytest.raises(DataPrunerError, match="32 and 24"):
        measured(samples, first, second, tmp_path / "c", agreement=True)


def test_a_stopped_pass_goes_on_and_gives_the_same_bytes(samples, dense, pruned, tmp_path, monkeypatch):
    readers = [replace(reader(folder), batch_tokens=128) for folder in (dense, pruned)]
    whole = measured(samples, *readers, tmp_path / "whole", head_positions=50)
    own, calls = Pass.run_batch, [0]

    def failing(self, batch, waiting):
        calls[0] += 1
        if calls[0] == 5:
            raise KeyboardInterrupt
        return own(self, batch, waiting)

    with monkeypatch.context() as patch:
        patch.setattr(Pass, "run_batch", failing)
        with pytest.raises(KeyboardInterrupt):
            measured(samples, *readers, SignalStore(tmp_path / "killed", flush_rows=2), head_positions=50)
    again = measured(samples, *readers, tmp_path / "killed", head_positions=50)
    assert whole["token_jsd"].values.tobytes() == again["token_jsd"].values.tobytes()
    assert whole["jsd"].tobytes() == again["jsd"].tobytes()


def test_states_that_do_not_fit_on_the_disk_are_refused(samples, dense, pruned, tmp_path, monkeypatch):
    import shutil

    monkeypatch.setattr(
        "datapruner.signals.language_model.room.shutil.disk_usage",
        lambda folder: shutil._ntuple_diskusage(10, 10, 100),
    )
    with pytest.raises(DataPrunerError, match="DATAPRUNER_CACHE"):
        measured(samples, reader(dense), reader(pruned), tmp_path, in_turn=True, num_supervised=1000)


def test_logits_that_are_no_numbers_name_the_row(samples, dense, pruned, tmp_path):
    broken = reader(pruned)
    with torch.no_grad():
        broken.model.model.embed_tokens.weight[50:] = torch.nan
    with pytest.raises(DataPrunerError, match=r"(no finite loss for row \d|not numbers)"):
        measured(samples, reader(dense), broken, tmp_path)


def rows_of(samples):
    return samples.dataset.to_list()


def test_one_pass_serves_the_twins_and_the_losses(samples, dense, pruned, tmp_path, monkeypatch):
    runs = []
    own = Pass.compute

    def counted(self, places):
        runs.append((self.what, len(places)))
        return own(self, places)

    monkeypatch.setattr(Pass, "compute", counted)
    options = {"model": str(dense), "cache": tmp_path, "progress": False}
    vectors = np.random.default_rng(0).normal(size=(N, 8)).astype(np.float32)
    dp.score(
        rows_of(samples),
        scorers=["paser", "donod", "el2n", "ifd"],
        pruned_model=str(pruned),
        embeddings=vectors,
        **options,
    )
    assert sorted(runs) == [("response", N), ("twins", N)]
    dp.score(rows_of(samples), scorers="paser", pruned_model=str(pruned), embeddings=vectors, **options)
    assert len(runs) == 3  # without gradients: another record


def test_divergences_measured_before_need_no_model(samples, dense, pruned, tmp_path):
    vectors = np.random.default_rng(0).normal(size=(N, 8)).astype(np.float32)
    options = {"embeddings": vectors, "cache": tmp_path, "progress": False, "keep": 0.3, "scorer": "paser"}
    whole = dp.prune(rows_of(samples), model=str(dense), pruned_model=str(pruned), **options)
    jsd = whole.scores.rankings["paser"].columns["jsd"]
    np.save(tmp_path / "jsd.npy", jsd)
    given = dp.prune(rows_of(samples), divergences=str(tmp_path / "jsd.npy"), tokenizer=str(dense), **options)
    # Tokens are counted with the model's tokenizer, cut at another length: no row is that long.
    assert given.kept.tolist() == whole.kept.tolist()
    assert dp.prune(rows_of(samples), divergences=jsd, tokenizer=str(dense), **options).kept.tolist() == (
        whole.kept.tolist()
    )
