"""A row's pooled state beside a plain loop over the model's own hidden states, and what it costs beside losses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_language_model import MIXED, SYSTEM, chat, make_model, measure, some_rows

from datapruner.errors import DataPrunerError
from datapruner.samples import load_samples
from datapruner.samples.rendering import render
from datapruner.signals.language_model import forward
from datapruner.signals.store import SignalStore
from tests.conftest import CHAT_TEMPLATE, byte_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tokenizer():
    made = byte_tokenizer(
        ["<pad>", "</s>", "<|user|>", "<|assistant|>", "<|system|>"], pad_token="<pad>", eos_token="</s>"
    )
    made.chat_template = SYSTEM + CHAT_TEMPLATE
    return made


def in_loops(model, tokenizer, rows, max_length=256):
    """v = sum t h_t / sum t over all tokens, from the hidden states that the model gives of a row alone."""
    out = []
    for sample in load_samples(rows):
        ids = torch.from_numpy(render(sample, tokenizer, max_length=max_length).input_ids)[None].long()
        with torch.no_grad():
            states = (
                model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states[-1][0].double()
            )
        total, weights = torch.zeros(states.shape[1], dtype=torch.float64), 0
        for t, state in enumerate(states, 1):
            total += t * state
            weights += t
        v = total / weights
        out.append((v / v.norm()).numpy())
    return np.array(out)


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("batch_tokens", [64, 128, 1024])
def test_it_is_the_weighted_mean_of_the_model_s_own_states(packing, dtype, batch_tokens, tokenizer, tmp_path):
    model = make_model("llama", dtype)
    found = measure(
        MIXED, model, tokenizer, tmp_path, what="pooled", packing=packing, batch_tokens=batch_tokens
    )
    assert set(found) == {"pooled_state"}
    vectors = found["pooled_state"]
    assert (vectors.dtype, vectors.shape) == (np.float32, (len(MIXED), 16))
    expected = in_loops(model, tokenizer, MIXED)
    apart = np.linalg.norm(vectors - expected, axis=1)
    assert apart.max() < (1e-7 if dtype == torch.float64 else 1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    assert np.array_equal(vectors[0], vectors[-1])  # the same row


def test_a_row_that_is_cut_ends_where_the_model_stops_reading(tokenizer, tmp_path):
    model = make_model("llama", torch.float64)
    rows = [chat("uwhy ?", "a" + "so it is " * 40), MIXED[0]]
    found = measure(rows, model, tokenizer, tmp_path, what="pooled", max_length=60)["pooled_state"]
    assert np.abs(found - in_loops(model, tokenizer, rows, 60)).max() < 1e-7
    assert np.abs(found - in_loops(model, tokenizer, rows)).max() > 1e-3


@pytest.fixture
def passes(monkeypatch):
    """What each pass measures, and of how many rows."""
    seen = []
    own = forward.Pass.compute

    def counted(self, places):
        seen.append((self.what, self.pools, len(places)))
        return own(self, places)

    monkeypatch.setattr(forward.Pass, "compute", counted)
    return seen


def test_it_costs_no_pass_beside_losses_and_changes_none_of_their_bits(tokenizer, tmp_path, passes):
    model, rows = make_model(), some_rows(30)
    alone = measure(rows, model, tokenizer, tmp_path / "a", what="pooled")
    losses = measure(rows, model, tokenizer, tmp_path / "b")
    del passes[:]
    store = SignalStore(tmp_path / "c")
    both = measure(rows, model, tokenizer, store, pools=True, head_positions=50)
    assert passes == [("row", True, 30)]
    assert np.array_equal(both["pooled_state"], alone["pooled_state"])
    for name in losses:
        own, other = (getattr(found[name], "values", found[name]) for found in (losses, both))
        assert own.tobytes() == other.tobytes(), name
    again = measure(rows, model, tokenizer, store, pools=True)
    assert len(passes) == 1
    assert np.array_equal(again["pooled_state"], alone["pooled_state"])


def test_what_is_stored_is_not_run_again(tokenizer, tmp_path, passes):
    model, rows, store = make_model(), some_rows(20), SignalStore(tmp_path)
    measure(rows, model, tokenizer, store, chosen=range(12))
    measure(rows, model, tokenizer, store, what="pooled", chosen=range(4))
    both = measure(rows, model, tokenizer, store, pools=True)
    # Losses of the last eight with their states, and then the states alone of those whose losses were there.
    assert passes == [("row", False, 12), ("pooled", True, 4), ("row", True, 8), ("pooled", True, 8)]
    assert np.abs(both["pooled_state"] - in_loops(model, tokenizer, rows)).max() < 1e-6


def test_states_that_are_no_numbers_are_refused(tokenizer, tmp_path):
    model = make_model()
    with torch.no_grad():
        model.get_input_embeddings().weight[tokenizer("z")["input_ids"][0]] = torch.nan
    rows = [MIXED[0], chat("uwhy ?", "azzz")]
    with pytest.raises(DataPrunerError, match="no finite state for row 1;"):
        measure(rows, model, tokenizer, tmp_path, what="pooled")
