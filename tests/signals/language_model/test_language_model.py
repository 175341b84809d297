from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from conftest import CHAT_TEMPLATE, byte_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from datapruner import progress
from datapruner.errors import DataPrunerError
from datapruner.samples import load_samples
from datapruner.samples.rendering import render
from datapruner.signals.failing import RowsFailedError
from datapruner.signals.language_model import (
    LanguageModel,
    feeding,
    forward,
    measure_language_model,
    number_surprise,
    token_statistics,
)
from datapruner.signals.language_model.batches import Item, fill_packs, padded_shape
from datapruner.signals.store import SignalStore
from datapruner.signals.store.claims import Claims
from datapruner.signals.store.shards import Shelf

pytestmark = pytest.mark.usefixtures("one_thread")

SYSTEM = "{% if messages[0]['role'] != 'system' %}<|system|>You are kind and brief.</s>{% endif %}"
SPECIALS = ["<pad>", "</s>", "<|user|>", "<|assistant|>", "<|system|>", "<s>"]
SIZES = {
    "vocab_size": 320,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
GROUPED = {**SIZES, "num_key_value_heads": 2}
GPT2 = {
    "vocab_size": 320,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 512,
    "initializer_range": 0.3,
}
FAMILIES = {
    "llama": GROUPED,
    "mistral": {**GROUPED, "sliding_window": 7},
    "qwen2": GROUPED,
    "qwen3": {**GROUPED, "head_dim": 4},
    "gemma2": {
        **GROUPED,
        "head_dim": 4,
        "sliding_window": 7,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
        "query_pre_attn_scalar": 8,
    },
    "gemma3_text": {
        **GROUPED,
        "head_dim": 4,
        "sliding_window": 7,
        "query_pre_attn_scalar": 8,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "gpt2": GPT2,
    "gpt_neox": SIZES,
    "phi": GROUPED,
    "phi3": GROUPED,
    "olmo2": GROUPED,
    "smollm3": {**GROUPED, "no_rope_layers": [1, 0]},
    "granite": {
        **GROUPED,
        "logits_scaling": 3.0,
        "residual_multiplier": 0.5,
        "embedding_multiplier": 2.0,
        "attention_multiplier": 0.3,
    },
    "cohere": {**GROUPED, "logit_scale": 0.25},
    "cohere2": {**GROUPED, "logit_scale": 0.25, "sliding_window": 7},
}
HEADS = {"hidden_size": 64, "intermediate_size": 128}


def make_model(family="llama", dtype=torch.float32, seed=0, **changes):
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(family, **{**FAMILIES.get(family, SIZES), **changes})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config).to(dtype).eval()


@pytest.fixture(scope="module")
def backend():
    return byte_tokenizer(SPECIALS, pad_token="<pad>", eos_token="</s>")


@pytest.fixture
def tokenizer(backend):
    """With a default system text, which all rows without one share."""
    backend.chat_template = SYSTEM + CHAT_TEMPLATE
    return backend


@pytest.fixture
def bare(backend):
    backend.chat_template = CHAT_TEMPLATE
    return backend


@pytest.fixture
def llama():
    return make_model(**HEADS)


def chat(*turns):
    roles = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    return {"messages": [{"role": roles[turn[0]], "content": turn[1:]} for turn in turns]}


def some_rows(count, *, seed=0, longest=60):
    rng = np.random.default_rng(seed)
    alphabet = list("abcdefghij klmnop qrstu vwxyz.,?é你")

    def text():
        return "".join(rng.choice(alphabet, int(rng.integers(1, longest))))

    return [chat(f"u{text()} {row}", f"a{text()}") for row in range(count)]


MIXED = [
    chat("uwhat is two ?", "afour"),
    chat("u", "a"),
    chat("sbe good", "uwrite a function", "athe sum of two"),
    chat("uasked: why?", "aZoë 你好", "uand then", "a" + "sorts a list " * 3, "ubye"),
    chat("u" + "the sum of " * 9, "a" + "write a function that " * 7),
    chat("uthe sum", "a" + "xyz " * 30),
    chat("uq", "ar"),
    chat("uwhat is two ?", "afour"),
]


def measure(rows, model, tokenizer, folder, *, what="row", chosen=None, **options):
    samples = load_samples(rows)
    chosen = np.arange(len(samples)) if chosen is None else np.asarray(chosen)
    feed = {"max_length": 256, "batch_tokens": 128, **options}
    given = {
        name: feed.pop(name)
        for name in ("progress", "num_tokens", "window_rows", "head_positions", "pools")
        if name in feed
    }
    store = folder if isinstance(folder, SignalStore) else SignalStore(folder)
    return measure_language_model(
        samples,
        chosen,
        LanguageModel(model, tokenizer, **feed),
        store,
        what=what,
        **{"progress": False, **given},
    )


@pytest.fixture
def forwards(monkeypatch):
    """Rows of every batch that runs through the model."""
    seen = []
    own = forward.Pass.run_batch

    def counted(self, batch, waiting):
        seen.append([(int(self.rows[item.place]), item.part) for item in batch])
        return own(self, batch, waiting)

    monkeypatch.setattr(forward.Pass, "run_batch", counted)
    return seen


@contextmanager
def exact_softmax():
    """Eager attention takes its softmax in float32, whatever the model's dtype.

    Beyond a window that lies in padding it gives NaN there for a model in float64.
    """
    own = torch.nn.functional.softmax

    def softmax(values, dim=None, dtype=None, **more):
        wide = torch.float64 if values.dtype == torch.float64 else dtype
        return own(values, dim=dim, dtype=wide, **more)

    torch.nn.functional.softmax = softmax
    try:
        yield
    finally:
        torch.nn.functional.softmax = own


def alone(model, ids, targets):
    """What the model itself says of one row, through its own forward and backward pass."""
    given = torch.from_numpy(ids)[None].long()
    out = model(input_ids=given, attention_mask=torch.ones_like(given), use_cache=False)
    logits = out.logits[0, targets - 1].double()
    wanted = given[0, targets]
    log_p = torch.log_softmax(logits, -1)
    nll, p = -log_p[torch.arange(len(wanted)), wanted], log_p.exp()
    weight = model.get_output_embeddings().weight
    gradient = torch.autograd.grad(nll.mean(), weight)[0]
    tied = weight is model.get_input_embeddings().weight
    return {
        "token_nll": nll.detach().numpy(),
        "token_entropy": -(p * log_p).sum(-1).detach().numpy(),
        "log_ppl": nll.mean().item(),
        "entropy": -(p * log_p).sum(-1).mean().item(),
        "el2n": (p - torch.nn.functional.one_hot(wanted, p.shape[1])).norm(dim=1).mean().item(),
        **(
            {}
            if tied
            else {"grad_norm": gradient.norm().item(), "weight_dot": (gradient * weight).sum().item()}
        ),
    }


def assert_alone(found, row, expected, tolerance):
    for name, value in expected.items():
        if name.startswith("token"):
            np.testing.assert_allclose(found[name][row], value, rtol=max(tolerance, 7e-8), atol=tolerance)
        else:
            np.testing.assert_allclose(found[name][row], value, rtol=tolerance, atol=tolerance, err_msg=name)


# --- one pass says what the model says of each row ----------------------------------------------------------


@pytest.mark.parametrize("template", ["shared", "none"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_in_a_batch_is_the_row_alone(family, template, backend, tmp_path, caplog):
    """In packs and in padded batches."""
    caplog.set_level(logging.INFO, "datapruner")
    backend.chat_template = (SYSTEM if template == "shared" else "") + CHAT_TEMPLATE
    model = make_model(family, torch.float64)
    with exact_softmax():
        ways = [
            measure(MIXED, model, backend, tmp_path / str(packing), packing=packing)
            for packing in (True, False)
        ]
    assert "cannot be packed" not in caplog.text
    prefix = feeding.template_prefix(LanguageModel(model, backend, 256, batch_tokens=128))
    assert (len(prefix) > 4) == (template == "shared")
    with exact_softmax():
        for row, sample in enumerate(load_samples(MIXED)):
            rendered = render(sample, backend, max_length=256)
            targets = np.flatnonzero(rendered.supervised)
            expected = alone(model, rendered.input_ids, targets)
            for found in ways:
                assert_alone(found, row, expected, 1e-9)
    labels = torch.from_numpy(np.where(rendered.supervised, rendered.input_ids, -100))[None].long()
    own = model(torch.from_numpy(rendered.input_ids)[None].long(), labels=labels).loss
    weight = model.get_output_embeddings().weight
    for found in ways:
        assert found["log_ppl"][-1] == pytest.approx(own.item(), rel=1e-5)  # transformers takes it in float32
        np.testing.assert_allclose(found["weight_norm"], weight.norm().item(), rtol=1e-12)
        assert found["log_ppl"].dtype == np.float64
        assert found["token_nll"].values.dtype == np.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_other_dtypes(dtype, tokenizer, tmp_path, caplog):
    caplog.set_level(logging.INFO, "datapruner")
    model = make_model(dtype=dtype, initializer_range=0.1, **HEADS)
    found = measure(MIXED, model, tokenizer, tmp_path)
    assert "cannot be packed" not in caplog.text
    for row, sample in enumerate(load_samples(MIXED)):
        rendered = render(sample, tokenizer, max_length=256)
        expected = alone(model, rendered.input_ids, np.flatnonzero(rendered.supervised))
        tolerance = 1e-5 if dtype == torch.float32 else 0.05
        assert_alone(found, row, {"log_ppl": expected["log_ppl"], "el2n": expected["el2n"]}, tolerance)


STATEFUL = {
    "mamba": {"hidden_size": 16, "num_hidden_layers": 2, "vocab_size": 320, "state_size": 4},
    "jamba": {
        **GROUPED,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "num_experts": 2,
        "mamba_d_state": 4,
        "mamba_dt_rank": 4,
    },
    "falcon": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 320},
    "bloom": {"hidden_size": 16, "n_layer": 2, "n_head": 4, "vocab_size": 320, "initializer_range": 0.3},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", STATEFUL)
def test_a_model_that_cannot_be_packed_runs_in_padded_batches(family, dtype, tokenizer, tmp_path, caplog):
    caplog.set_level(logging.INFO, "datapruner")
    model = make_model(family, dtype, **STATEFUL[family])
    found = measure(MIXED, model, tokenizer, tmp_path)
    assert "run in padded batches" in caplog.text
    for row, sample in enumerate(load_samples(MIXED)):
        rendered = render(sample, tokenizer, max_length=256)
        expected = alone(model, rendered.input_ids, np.flatnonzero(rendered.supervised))
        # Half precision: as near as the library's own padding comes.
        tolerance = 1e-4 if dtype == torch.float32 else 0.1
        assert_alone(found, row, {"log_ppl": expected["log_ppl"], "el2n": expected["el2n"]}, tolerance)


def test_half_precision_does_not_hide_that_packing_fails(tokenizer):
    model = make_model("llama", torch.bfloat16, **HEADS)
    feed = LanguageModel(model, tokenizer, 256)
    prefix = feeding.template_prefix(feed)
    assert feeding.packs_exactly(feed, prefix)
    own = feeding.packed_attention
    with pytest.MonkeyPatch.context() as patch:
        # Rows do not see the prefix then.
        patch.setattr(feeding, "packed_attention", lambda model: own(model, on=False))
        assert not feeding.packs_exactly(feed, prefix)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        # The window is in the mask alone, and attention is not told of it.
        ("doge", {**GROUPED, "sliding_window": 40}),
        # Positions of all rows are those of the longest.
        (
            "phi3",
            {
                **GROUPED,
                "original_max_position_embeddings": 40,
                "rope_parameters": {
                    "rope_type": "longrope",
                    "rope_theta": 1e4,
                    "short_factor": [1.0, 1.0],
                    "long_factor": [2.0, 7.0],
                    "original_max_position_embeddings": 40,
                },
            },
        ),
        (
            "llama",
            {
                "max_position_embeddings": 40,
                "rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4},
            },
        ),
    ],
)
def test_what_shows_in_long_rows_only_is_found_out(family, changes, tokenizer):
    model = make_model(family, torch.float32, **changes)
    feed = LanguageModel(model, tokenizer, max_length=200)
    prefix = feeding.template_prefix(feed)
    assert not feeding.packs_exactly(feed, prefix)
    short = LanguageModel(model, tokenizer, max_length=40)
    assert feeding.packs_exactly(short, feeding.template_prefix(short))


def test_a_window_longer_than_the_probe_is_kept(tokenizer, tmp_path):
    model = make_model("mistral", torch.float64, sliding_window=40)
    feed = LanguageModel(model, tokenizer, max_length=256)
    assert feeding.telling_length(feed) > 40
    found = measure(MIXED, model, tokenizer, tmp_path)
    for row, sample in enumerate(load_samples(MIXED)):
        rendered = render(sample, tokenizer)
        expected = alone(model, rendered.input_ids, np.flatnonzero(rendered.supervised))
        assert_alone(found, row, expected, 1e-9)
    assert max(len(render(sample, tokenizer).input_ids) for sample in load_samples(MIXED)) > 80


def test_an_eager_softmax_in_float32_does_not_count_as_a_difference(tokenizer):
    model = make_model("gemma2", torch.float64)
    feed = LanguageModel(model, tokenizer, 256)
    assert feeding.packs_exactly(feed, feeding.template_prefix(feed))


# --- a row's bits -------------------------------------------------------------------------------------------

NAMES = ("log_ppl", "entropy", "el2n", "grad_norm", "weight_dot", "token_nll", "token_entropy")
RESPONSE_NAMES = ("response_log_ppl", "response_token_nll")


def same_bits(found, rows, other, others):
    names = NAMES if "log_ppl" in found else RESPONSE_NAMES
    return all(
        np.asarray(found[name][row]).tobytes() == np.asarray(other[name][place]).tobytes()
        for name in names
        for row, place in zip(rows, others, strict=True)
    )


@contextmanager
def threads(number):
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("what", ["row", "response"])
@pytest.mark.parametrize("packing", [True, False])
def test_bits_do_not_depend_on_company_place_or_number(what, packing, llama, tokenizer, tmp_path):
    rows = some_rows(24) + MIXED
    options = {"packing": packing, "batch_tokens": 256, "what": what}
    whole = measure(rows, llama, tokenizer, tmp_path / "a", **options)
    order = np.random.default_rng(0).permutation(len(rows))
    shuffled = measure([rows[row] for row in order], llama, tokenizer, tmp_path / "b", **options)
    assert same_bits(shuffled, range(len(rows)), whole, order)
    for number, chosen in enumerate(([0], [7], range(12), range(1, 32, 3), [28, 29, 31])):
        some = measure(rows, llama, tokenizer, tmp_path / f"c{number}", chosen=list(chosen), **options)
        assert same_bits(some, range(len(chosen)), whole, chosen)
    # A dataset grows in the same store.
    store = SignalStore(tmp_path / "d")
    measure(rows[:11], llama, tokenizer, store, **options)
    grown = measure(rows, llama, tokenizer, store, **options)
    assert store.computed < len(rows) - 10
    assert same_bits(grown, range(len(rows)), whole, range(len(rows)))


@pytest.mark.parametrize(
    ("number", "batch_tokens", "packing"),
    [(2, 1000, True), (3, 1024, True), (6, 700, True), (7, 1024, True), (3, 333, False), (7, 1024, False)],
)
def test_bits_do_not_depend_on_place_with_any_number_of_threads(
    number, batch_tokens, packing, tokenizer, tmp_path
):
    """Torch shares an elementwise operation over its threads, and ends each share with other instructions."""
    model = make_model(**{**HEADS, "intermediate_size": 512, "num_hidden_layers": 1})
    rows = some_rows(40, longest=30)
    options = {"packing": packing, "batch_tokens": batch_tokens}
    with threads(number):
        whole = measure(rows, model, tokenizer, tmp_path / "a", **options)
        for shift, chosen in enumerate((range(0, 40, 2), range(5, 40, 7))):
            some = measure(rows, model, tokenizer, tmp_path / f"b{shift}", chosen=list(chosen), **options)
            assert same_bits(some, range(len(chosen)), whole, chosen)


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("what", ["row", "response"])
def test_bits_do_not_depend_on_windows(what, packing, llama, tokenizer, tmp_path):
    rows = some_rows(18) + MIXED
    options = {"packing": packing, "what": what}
    whole = measure(rows, llama, tokenizer, tmp_path / "a", **options)
    for number, (window, positions) in enumerate(((7, 4096), (8192, 1), (1, 50), (16, 129))):
        sizes = {"window_rows": window, "head_positions": positions}
        cut = measure(rows, llama, tokenizer, tmp_path / f"b{number}", **options, **sizes)
        assert same_bits(cut, range(len(rows)), whole, range(len(rows)))


@pytest.mark.parametrize("what", ["row", "response"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_run_goes_on(error, what, llama, tokenizer, tmp_path, monkeypatch, forwards):
    rows = some_rows(30)
    options = {"batch_tokens": 128, "what": what, "head_positions": 1}
    whole = measure(rows, llama, tokenizer, SignalStore(tmp_path / "a", flush_rows=1), **options)
    total = len(forwards)
    own = forward.Pass.run_batch
    left = [total // 2]

    def failing(self, batch, waiting):
        left[0] -= 1
        if left[0] < 0:
            raise error("on purpose")
        return own(self, batch, waiting)

    monkeypatch.setattr(forward.Pass, "run_batch", failing)
    store = SignalStore(tmp_path / "b", flush_rows=1)
    with pytest.raises((error, RowsFailedError), match="on purpose"):
        measure(rows, llama, tokenizer, store, **options)
    left[0] = 10**6
    forwards.clear()
    resumed = measure(rows, llama, tokenizer, store, **options)
    assert 0 < store.computed < 30
    assert len(forwards) < total
    assert same_bits(resumed, range(len(rows)), whole, range(len(rows)))


def test_a_row_is_computed_once_whoever_asks(llama, tokenizer, tmp_path, forwards):
    rows = [*MIXED, *MIXED, chat("unew", "aone")]
    store = SignalStore(tmp_path)
    found = measure(rows, llama, tokenizer, store)
    assert store.computed == 8  # MIXED holds one row twice
    seen = [row for batch in forwards for row, _ in batch]
    assert len(seen) == len(set(seen)) == 8
    forwards.clear()
    again = measure(rows, llama, tokenizer, store)
    some = measure(rows, llama, tokenizer, store, chosen=[3, 9, 16])
    assert forwards == []
    everyone = range(len(rows))
    assert same_bits(again, everyone, found, everyone)
    assert same_bits(some, range(3), found, [3, 9, 16])
    assert same_bits(found, range(8), found, range(8, 16))
    for changed in ({"max_length": 255}, {"last_turn_only": True}, {"packing": False}, {"batch_tokens": 256}):
        measure(rows, llama, tokenizer, store, **changed)
        assert store.computed == 8
    measure(rows, make_model(seed=1, **HEADS), tokenizer, store)
    assert store.computed == 8
    tokenizer.chat_template = CHAT_TEMPLATE
    measure(rows, llama, tokenizer, store)
    assert store.computed == 8


def test_no_rows(llama, tokenizer, tmp_path, forwards):
    for what in ("row", "response"):
        found = measure(MIXED, llama, tokenizer, tmp_path, what=what, chosen=[])
        assert {len(values) for values in found.values()} == {0}
    assert forwards == []


# --- batches ------------------------------------------------------------------------------------------------


def item(number, length, targets=(1,)):
    return Item(number, np.arange(length, dtype=np.int32), np.array(targets))


@settings(deadline=None)
@given(st.lists(st.integers(1, 60), max_size=60), st.integers(1, 40))
def test_every_sequence_is_in_one_pack_that_has_room(lengths, room):
    items = [item(number, length) for number, length in enumerate(lengths)]
    packs = list(fill_packs(lengths, items, room))
    assert sorted(held.place for pack in packs for held in pack) == list(range(len(items)))
    for pack in packs:
        used = sum(len(held.ids) for held in pack)
        assert pack
        assert used <= room or len(pack) == 1
    # No two packs with room could have been one.
    used = sorted(sum(len(held.ids) for held in pack) for pack in packs)
    assert len(used) < 2 or used[0] + used[1] > room
    assert packs == list(fill_packs(lengths, items, room))


def test_a_pack_is_as_long_as_any_other(llama, tokenizer, tmp_path, monkeypatch):
    lengths = []
    own = forward.run_packed

    def run(feed, pack):
        lengths.append((len(pack.ids), max(segment.length for segment in pack.segments)))
        return own(feed, pack)

    monkeypatch.setattr(forward, "run_packed", run)
    measure(some_rows(40), llama, tokenizer, tmp_path, batch_tokens=128)
    assert {length for length, longest in lengths if longest <= 100} == {128}
    assert len(lengths) > 5


def of_length(tokens, tokenizer, *, system=True):
    """A row of so many tokens."""
    turns = ["uhi", "a"] if system else ["s", "uhi", "a"]
    short = len(render(next(iter(load_samples([chat(*turns)]))), tokenizer).input_ids)
    row = chat(*turns[:-1], "a" + "Q" * (tokens - short))
    assert len(render(next(iter(load_samples([row]))), tokenizer).input_ids) == tokens
    return row


@pytest.mark.parametrize("packing", [True, False])
def test_rows_of_awkward_lengths(packing, tokenizer, tmp_path):
    model = make_model("llama", torch.float64, **HEADS)
    rows = [of_length(tokens, tokenizer) for tokens in (33, 63, 64, 65, 66, 127, 128, 129, 199, 200, 201)]
    # Shorter than what the template puts before the others.
    rows += [of_length(tokens, tokenizer, system=False) for tokens in (10, 11, 12, 64, 65)]
    found = measure(rows, model, tokenizer, tmp_path, packing=packing, batch_tokens=64, max_length=200)
    for row, sample in enumerate(load_samples(rows)):
        rendered = render(sample, tokenizer, max_length=200)
        expected = alone(model, rendered.input_ids, np.flatnonzero(rendered.supervised))
        assert_alone(found, row, expected, 1e-9)
    one = measure(rows, model, tokenizer, tmp_path / "one", packing=packing, batch_tokens=1, max_length=200)
    for name in NAMES[:5]:
        np.testing.assert_allclose(one[name], found[name], rtol=1e-9)


def test_a_row_cut_inside_the_prefix_or_right_behind_it(tokenizer, tmp_path):
    """A first target is predicted by the prefix's last token, or lies in it."""
    backend = byte_tokenizer(SPECIALS, pad_token="<pad>", eos_token="</s>")
    # The assistant's turn follows what all rows share without a token of the user's.
    backend.chat_template = (
        "<|system|>You are kind.</s>{% for message in messages %}{% if message['role'] == 'assistant' %}"
        "<|assistant|>{% generation %}{{ message['content'] }}</s>{% endgeneration %}{% endif %}{% endfor %}"
    )
    model = make_model("llama", torch.float64)
    rows = [chat("ux", f"a{text}") for text in ("0", "0 is a number", "Why", "Why?", "write a list", "Zoë")]
    feed = LanguageModel(model, backend, 256, batch_tokens=128)
    taken = len(feeding.template_prefix(feed))
    assert taken > 10
    found = measure(rows, model, backend, tmp_path)
    for row, sample in enumerate(load_samples(rows)):
        rendered = render(sample, backend)
        targets = np.flatnonzero(rendered.supervised)
        assert targets[0] == taken
        assert_alone(found, row, alone(model, rendered.input_ids, targets), 1e-9)


@pytest.mark.parametrize("what", ["row", "response"])
def test_packing_batches_and_threads_move_the_last_digits_only(what, llama, tokenizer, tmp_path):
    rows = some_rows(15, longest=150) + MIXED
    ways = [(packing, tokens, 1) for packing in (True, False) for tokens in (64, 333, 4096)]
    ways += [(True, 1024, 2)]
    expected = measure(rows, llama, tokenizer, tmp_path / "a", what=what)
    for place, (packing, batch_tokens, number) in enumerate(ways):
        with threads(number):
            options = {"packing": packing, "batch_tokens": batch_tokens, "what": what}
            found = measure(rows, llama, tokenizer, tmp_path / str(place), **options)
        for name in NAMES if what == "row" else RESPONSE_NAMES:
            one, other = (getattr(values, "values", values) for values in (found[name], expected[name]))
            np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-5, err_msg=name)


def test_memory_of_a_pass_is_a_window(llama, tokenizer, tmp_path, monkeypatch):
    passes, most = [], []
    own = forward.Pass.__init__
    finish = forward.Pass.finish

    def init(self, *given, **options):
        own(self, *given, **options)
        passes.append(self)

    def watched(self, waiting, clock):
        most.append(len(self.parts) + len(self.found))
        assert waiting.positions < 40 + 200
        return finish(self, waiting, clock)

    monkeypatch.setattr(forward.Pass, "__init__", init)
    monkeypatch.setattr(forward.Pass, "finish", watched)
    for what in ("row", "response"):
        sizes = {"window_rows": 5, "head_positions": 40}
        measure(some_rows(40) + MIXED, llama, tokenizer, tmp_path, what=what, **sizes)
    assert max(most) <= 2 * 5
    assert [(run.parts, run.found) for run in passes] == [({}, {})] * 2


# --- the responses alone ------------------------------------------------------------------------------------


def turns_of(row):
    return [turn["content"] for turn in row["messages"] if turn["role"] == "assistant"]


def check_responses(rows, model, tokenizer, folder, sequences):
    """Compare with the model's own losses of (ids, number of targets at the end) for every turn."""
    for packing in (True, False):
        found = measure(rows, model, tokenizer, folder, what="response", packing=packing)
        given = measure(rows, model, tokenizer, folder, packing=packing)
        assert found.keys() == {"response_log_ppl", "response_token_nll"}
        np.testing.assert_array_equal(found["response_token_nll"].lengths, given["token_nll"].lengths)
        for row, sample in enumerate(load_samples(rows)):
            rendered = render(sample, tokenizer, max_length=256)
            wanted = rendered.input_ids[rendered.supervised]
            turns = sequences(rows[row])
            assert np.concatenate([ids[-count:] for ids, count in turns]).tolist() == wanted.tolist()
            nll = np.concatenate(
                [
                    alone(model, ids, np.arange(len(ids) - count, len(ids)))["token_nll"]
                    for ids, count in turns
                ]
            )
            np.testing.assert_allclose(found["response_token_nll"][row], nll, rtol=7e-8, atol=1e-9)
            assert found["response_log_ppl"][row] == pytest.approx(nll.mean(), rel=1e-9)


def test_a_response_alone_is_its_header_and_its_turn(tokenizer, tmp_path):
    model = make_model("llama", torch.float64)

    def sequences(row):
        def one(text):
            header, turn = tokenizer("<|assistant|>")["input_ids"], tokenizer(text + "</s>")["input_ids"]
            return np.array(header + turn, np.int32), len(turn)

        return [one(text) for text in turns_of(row)]

    rows = [*MIXED, chat("ua", "ab", "uc", "ad", "ue", "a" + "f" * 150, "ug", "ah")]
    check_responses(rows, model, tokenizer, tmp_path, sequences)


def test_a_response_alone_begins_with_the_start_token_where_its_row_does(tmp_path):
    tokenizer = byte_tokenizer(SPECIALS, pad_token="<pad>", eos_token="</s>", bos_token="<s>")
    tokenizer.chat_template = "<s>" + SYSTEM + CHAT_TEMPLATE
    model = make_model("llama", torch.float64)

    def sequences(row):
        def one(text):
            ids = tokenizer("<s><|assistant|>" + text + "</s>")["input_ids"]
            return np.array(ids, np.int32), len(ids) - 2

        return [one(text) for text in turns_of(row)]

    check_responses(MIXED, model, tokenizer, tmp_path, sequences)


def test_a_template_without_a_generation_prompt(tmp_path):
    """The header is supervised then, and an end token predicts its first token."""
    tokenizer = byte_tokenizer(SPECIALS, pad_token="<pad>", eos_token="</s>")
    tokenizer.chat_template = CHAT_TEMPLATE.split("{% if add_generation_prompt")[0]
    model = make_model("llama", torch.float64)

    def sequences(row):
        def one(text):
            ids = tokenizer("</s><|assistant|>" + text + "</s>")["input_ids"]
            return np.array(ids, np.int32), len(ids) - 1

        return [one(text) for text in turns_of(row)]

    check_responses(MIXED, model, tokenizer, tmp_path, sequences)


def test_an_end_token_that_the_model_does_not_know_opens_nothing(tmp_path, tokenizer):
    tokenizer = byte_tokenizer(SPECIALS, pad_token="<pad>")
    tokenizer.add_special_tokens({"eos_token": "<|end|>"})
    tokenizer.chat_template = CHAT_TEMPLATE.split("{% if add_generation_prompt")[0].replace("</s>", "")
    model = make_model("llama", vocab_size=len(tokenizer) - 1)
    found = measure(MIXED, model, tokenizer, tmp_path, what="response")
    assert np.isfinite(found["response_log_ppl"]).all()


def test_an_answer_that_is_its_rows_first_token_alone(tmp_path):
    """Nothing predicts it, so it has no loss; the row's other turns have."""
    tokenizer = byte_tokenizer(SPECIALS, pad_token="<pad>", eos_token="</s>")
    tokenizer.chat_template = (
        "{% for message in messages %}{% if message['role'] == 'assistant' %}{% generation %}"
        "{{ message['content'] }}{% endgeneration %}{% else %}<|user|>{{ message['content'] }}</s>{% endif %}"
        "{% endfor %}"
    )
    model = make_model("llama", torch.float64)
    rows = [chat("aQ", "uwhy", "athe list", "uand", "aZ"), chat("uwhy", "aQ")]
    found = measure(rows, model, tokenizer, tmp_path)
    responses = measure(rows, model, tokenizer, tmp_path, what="response")
    np.testing.assert_array_equal(responses["response_token_nll"].lengths, found["token_nll"].lengths)
    rendered = render(next(iter(load_samples(rows))), tokenizer)
    assert len(found["token_nll"][0]) == rendered.supervised.sum()


def test_rows_of_many_turns_come_when_their_last_turn_does(tokenizer, llama, tmp_path, monkeypatch):
    """Output layers that complete no row write no shard of nothing, which would look damaged."""
    rows = [
        chat("ua", "a" + "x" * 80, "ub", "a" + "y" * (70 - number), "uc", f"az{number}")
        for number in range(4)
    ]
    batches = []
    own = forward.Pass.compute

    def compute(self, places):
        for batch in own(self, places):
            batches.append(batch[0].tolist())
            yield batch

    monkeypatch.setattr(forward.Pass, "compute", compute)
    store = SignalStore(tmp_path, flush_seconds=0.0)
    measure(rows, llama, tokenizer, store, what="response", batch_tokens=64, head_positions=1)
    assert all(batches)
    assert sorted(place for batch in batches for place in batch) == [0, 1, 2, 3]
    measure([*rows, MIXED[0]], llama, tokenizer, store, what="response", batch_tokens=64)
    assert store.computed == 1


# --- what goes wrong ----------------------------------------------------------------------------------------


def test_a_tokenizer_of_another_model(tokenizer, tmp_path):
    ids = [render(sample, tokenizer).input_ids.max() for sample in load_samples(MIXED)]
    small = make_model("llama", vocab_size=int(max(ids)))
    row = int(np.argmax(ids))
    with pytest.raises(
        DataPrunerError, match=rf"^row {row} holds the token id {max(ids)}, but the model knows"
    ):
        measure(MIXED, small, tokenizer, tmp_path, window_rows=2)


def test_not_a_number_is_named_by_its_row(tokenizer, tmp_path):
    model = make_model()
    with torch.no_grad():
        model.get_input_embeddings().weight[tokenizer("Q")["input_ids"][0]] = float("nan")
    rows = some_rows(20)
    rows[13] = chat("uwhat", "athe Q sum")
    for packing in (True, False):
        with pytest.raises(
            DataPrunerError, match=r"^the model gives no finite loss for row 13: its logits hold NaN"
        ):
            measure(rows, model, tokenizer, tmp_path, packing=packing)
    rows[13] = chat("uwhat", "athe sum")
    assert np.isfinite(measure(rows, model, tokenizer, tmp_path)["log_ppl"]).all()
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    with pytest.raises(DataPrunerError, match="logits that are not numbers"):
        measure(rows, model, tokenizer, tmp_path)


def test_rows_without_targets_and_texts_without_prompts(llama, tokenizer, tmp_path):
    rows = [*MIXED, chat("uwhat is two ?")]
    with pytest.raises(DataPrunerError, match=r"^row 8 has no supervised token"):
        measure(rows, llama, tokenizer, tmp_path)
    texts = [{"text": "the sum of two and three"}, {"text": "write a function"}]
    assert len(measure(texts, llama, tokenizer, tmp_path)["log_ppl"]) == 2
    with pytest.raises(DataPrunerError, match=r"^row 1 is plain text without a prompt"):
        measure(texts, llama, tokenizer, tmp_path, what="response", chosen=[1])


def test_models_that_are_none(tokenizer, tmp_path):
    from transformers import AutoModel

    model = make_model()
    with pytest.raises(DataPrunerError, match="has no output layer"):
        measure(MIXED, AutoModel.from_config(model.config), tokenizer, tmp_path)
    away = make_model()
    away.model.layers[1].to("meta")
    with pytest.raises(DataPrunerError, match=r"cannot be checked|without offloading"):
        measure(MIXED, away, tokenizer, tmp_path)
    with torch.device("meta"), pytest.raises(DataPrunerError):
        measure(MIXED, make_model(), tokenizer, tmp_path)


@contextmanager
def little_memory(tokens, error):
    """A machine on which a forward pass over more tokens fails."""
    packed, padded = forward.run_packed, forward.run_padded

    def run_packed(feed, pack):
        if len(pack.ids) > tokens:
            raise error
        return packed(feed, pack)

    def run_padded(feed, batch):
        length, rows = padded_shape(batch, feed)
        if length * rows > tokens:
            raise error
        return padded(feed, batch)

    with pytest.MonkeyPatch.context() as patch:
        for module in (feeding, forward):
            patch.setattr(module, "run_packed", run_packed)
        patch.setattr(forward, "run_padded", run_padded)
        yield


CANNOT = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA"), MemoryError(), RuntimeError(CANNOT)])
@pytest.mark.parametrize("packing", [True, False])
def test_batches_are_halved_until_they_fit(packing, error, llama, tokenizer, tmp_path, caplog):
    rows = some_rows(30)
    options = {"packing": packing}
    with little_memory(300, error):
        found = measure(rows, llama, tokenizer, tmp_path / "a", batch_tokens=1024, **options)
    assert caplog.text.count("the batch is halved") == 2
    expected = measure(rows, llama, tokenizer, tmp_path / "b", batch_tokens=256, **options)
    assert same_bits(found, range(len(rows)), expected, range(len(rows)))


@pytest.mark.parametrize("packing", [True, False])
def test_a_row_that_is_shorter_than_the_smallest_batch_it_fails_in(packing, llama, tokenizer, tmp_path):
    """One row of 300 tokens in a pack of 1024, or beside a dummy: it fits once the batch is its own length."""
    rows = [of_length(290, tokenizer)]
    with little_memory(330, torch.OutOfMemoryError("CUDA")):
        found = measure(rows, llama, tokenizer, tmp_path, batch_tokens=1024, packing=packing, max_length=500)
    assert np.isfinite(found["log_ppl"]).all()


@pytest.mark.parametrize("packing", [True, False])
def test_memory_for_less_than_one_row(packing, llama, tokenizer, tmp_path):
    rows = [*some_rows(10), of_length(380, tokenizer)]
    message = (
        r"^memory does not suffice for row 10 \(380 tokens\) alone: .*max_length=, dtype='bfloat16', "
        r"quantize='4bit', or another device=$"
    )
    with little_memory(300, torch.OutOfMemoryError("CUDA")), pytest.raises(DataPrunerError, match=message):
        measure(rows, llama, tokenizer, tmp_path, batch_tokens=1024, packing=packing, max_length=500)
    with little_memory(10, torch.OutOfMemoryError("CUDA")), pytest.raises(DataPrunerError, match="row 10 "):
        measure(rows, llama, tokenizer, tmp_path, batch_tokens=1024, packing=packing, max_length=500)


def test_memory_that_runs_out_in_the_output_layer(llama, tokenizer, tmp_path, monkeypatch, caplog):
    own, left = token_statistics.output_statistics, [1]

    def output_statistics(*given, **options):
        left[0] -= 1
        if left[0] >= 0:
            raise torch.OutOfMemoryError("CUDA")
        return own(*given, **options)

    monkeypatch.setattr(token_statistics, "output_statistics", output_statistics)
    found = measure(MIXED, llama, tokenizer, tmp_path / "a", batch_tokens=512)
    assert caplog.text.count("the batch is halved") == 1
    assert np.isfinite(found["log_ppl"]).all()
    left[0] = 10**6
    with pytest.raises(DataPrunerError, match="memory does not suffice for row"):
        measure(MIXED, llama, tokenizer, tmp_path / "b", batch_tokens=512)


def test_other_errors_are_not_taken_for_missing_memory(llama, tokenizer, tmp_path):
    broken = RuntimeError("mat1 and mat2 shapes")
    with little_memory(10, broken), pytest.raises(RowsFailedError, match="shapes") as error:
        measure(MIXED, llama, tokenizer, tmp_path)
    assert error.value.__cause__ is broken


@pytest.mark.parametrize("window", [0, 2])
def test_what_goes_wrong_while_tokenising_comes_out(window, llama, tokenizer, tmp_path, monkeypatch):
    rows = some_rows(12)
    rows[3 * window + 1]["messages"][1]["role"] = "assistant"
    own = LanguageModel.render

    def rendering(self, samples, numbers):
        for number, rendered in zip(numbers.tolist(), own(self, samples, numbers), strict=True):
            if number == 3 * window + 1:
                raise DataPrunerError(f"row {number} cannot be rendered")
            yield rendered

    monkeypatch.setattr(LanguageModel, "render", rendering)
    before = threading.active_count()
    with pytest.raises(DataPrunerError, match=f"^row {3 * window + 1} cannot be rendered"):
        measure(rows, llama, tokenizer, tmp_path, window_rows=3)
    assert threading.active_count() == before


@pytest.mark.parametrize("what", ["row", "response"])
def test_a_pass_that_ends_early_to_share_its_rows_gives_the_same_bits(
    what, llama, tokenizer, tmp_path, monkeypatch
):
    """As if another run waited for the rest after every batch."""
    rows, options = some_rows(20), {"batch_tokens": 128, "what": what, "head_positions": 1}
    whole = measure(rows, llama, tokenizer, SignalStore(tmp_path / "a"), **options)
    ended = []
    monkeypatch.setattr(Claims, "came", lambda _, rows: (ended.append(rows), True)[1])
    store = SignalStore(tmp_path / "b")
    shared = measure(rows, llama, tokenizer, store, **options)
    assert sum(ended) == store.computed == 20
    assert len(ended) > 3
    assert same_bits(shared, range(20), whole, range(20))


def test_an_interrupt_does_not_wait_for_the_next_window(llama, tokenizer, tmp_path, monkeypatch):
    own = LanguageModel.render

    def slowly(self, samples, numbers):
        for rendered in own(self, samples, numbers):
            if numbers[0]:
                time.sleep(0.5)
            yield rendered

    def interrupted(self, batch, waiting):
        raise KeyboardInterrupt

    monkeypatch.setattr(LanguageModel, "render", slowly)
    monkeypatch.setattr(forward.Pass, "run_batch", interrupted)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        measure(some_rows(40), llama, tokenizer, tmp_path, window_rows=20)
    assert time.monotonic() - start < 5
    assert not any("ThreadPoolExecutor" in thread.name for thread in threading.enumerate())


# --- the user's model ---------------------------------------------------------------------------------------


def state_of(model):
    return {
        "modes": [module.training for module in model.modules()],
        "gradients": [parameter.requires_grad for parameter in model.parameters()],
        "kept": [parameter.grad for parameter in model.parameters()],
        "attention": model.config._attn_implementation,
        "use_cache": model.config.use_cache,
        "weights": [parameter.detach().clone() for parameter in model.parameters()],
        "buffers": [buffer.is_inference() for buffer in model.buffers()],
    }


def assert_same_state(model, before):
    now = state_of(model)
    assert all(map(torch.equal, now.pop("weights"), before["weights"]))
    assert now == {name: value for name, value in before.items() if name != "weights"}


@pytest.mark.parametrize("packing", [True, False])
def test_a_model_in_training_is_evaluated_and_goes_on_training(packing, tokenizer, tmp_path):
    dropout = {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5}
    model = make_model("gpt2", **dropout)
    expected = measure(MIXED, model, tokenizer, tmp_path / "a", packing=packing)
    model.train()
    model.transformer.h[0].eval()
    model.transformer.wte.weight.requires_grad_(False)
    old, new = "gradient_checkpointing_enable", "activation_checkpointing_enable"
    getattr(model, new if hasattr(model, new) else old)()
    before = state_of(model)
    for what in ("row", "response"):
        found = measure(MIXED, model, tokenizer, tmp_path / "b", packing=packing, what=what)
        assert_same_state(model, before)
        if what == "row":
            assert same_bits(found, range(8), expected, range(8))
    model(input_ids=torch.arange(6)[None], labels=torch.arange(6)[None]).loss.backward()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["model", "store", "tokenizer"])
def test_a_model_is_as_it_was_also_after_an_exception(where, error, llama, tokenizer, tmp_path, monkeypatch):
    def fail(*given, **options):
        raise error("on purpose")

    llama.train()
    before = state_of(llama)
    if where == "model":
        monkeypatch.setattr(token_statistics, "output_statistics", fail)
    elif where == "store":
        monkeypatch.setattr(Shelf, "write_shard", fail)
    else:
        monkeypatch.setattr(LanguageModel, "render", fail)
    kept = None
    try:
        measure(some_rows(20), llama, tokenizer, SignalStore(tmp_path, flush_rows=1), head_positions=1)
    except error as caught:
        kept = caught  # as a notebook does: its traceback holds the frames
    assert kept is not None
    assert_same_state(llama, before)
    assert llama(input_ids=torch.arange(6)[None]).logits.isfinite().all()


def test_a_model_of_few_positions(tokenizer, tmp_path):
    model = make_model("gpt2", torch.float64, n_positions=24)
    rows = [chat("sx", "ua", f"a{text}") for text in ("b", "Q" * 7, "write")]
    for packing in (True, False):
        found = measure(rows, model, tokenizer, tmp_path, packing=packing, max_length=24)
        for row, sample in enumerate(load_samples(rows)):
            rendered = render(sample, tokenizer, max_length=24)
            expected = alone(model, rendered.input_ids, np.flatnonzero(rendered.supervised))
            assert_alone(found, row, expected, 1e-9)
    short = make_model("gpt2", n_positions=12)
    assert feeding.packs_exactly(LanguageModel(short, tokenizer, 12), np.empty(0, np.int32))


def test_adapters_are_part_of_the_model(tokenizer, tmp_path):
    peft = pytest.importorskip("peft")
    model = make_model("llama", torch.float64)
    plain = measure(MIXED, model, tokenizer, tmp_path)
    adapted = peft.get_peft_model(
        model, peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    ).double()
    before = state_of(adapted)
    found = measure(MIXED, adapted, tokenizer, tmp_path)
    assert_same_state(adapted, before)
    assert (found["log_ppl"] != plain["log_ppl"]).all()
    adapted.eval()
    for row, sample in enumerate(load_samples(MIXED)):
        rendered = render(sample, tokenizer)
        with torch.enable_grad():
            adapted.get_output_embeddings().weight.requires_grad_(True)
            expected = alone(adapted, rendered.input_ids, np.flatnonzero(rendered.supervised))
        assert_alone(found, row, expected, 1e-9)


# --- the clock ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["row", "response"])
def test_a_long_pass_tells_how_long(what, llama, tokenizer, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "LONG", 0.0)
    rows = some_rows(30)
    tokens = np.array([len(render(sample, tokenizer).input_ids) for sample in load_samples(rows)])
    options = {"what": what, "num_tokens": tokens, "progress": True}
    measure(rows, llama, tokenizer, tmp_path / "a", **options)
    said = capsys.readouterr()
    assert said.out == ""
    name = {"row": "language model", "response": "responses alone"}[what]
    assert said.err.count(f"{name}, 30 rows, {tokens.sum():,} tokens: about 1 min, at ") == 1
    measure(rows, llama, tokenizer, tmp_path / "b", **{**options, "progress": False})
    measure(rows, llama, tokenizer, tmp_path / "a", **options)
    monkeypatch.setattr(progress, "LONG", 3600.0)
    measure(rows, llama, tokenizer, tmp_path / "c", **options)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("what", ["row", "response"])
def test_the_bar_ends_where_it_should(what, counted, llama, tokenizer, tmp_path, monkeypatch):
    bars = []
    own = progress.Clock.__exit__

    def leave(self, *given):
        bars.append((self.bar.n, self.bar.total))
        own(self, *given)

    monkeypatch.setattr(progress.Clock, "__exit__", leave)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    rows = some_rows(10) + MIXED[:-1]
    tokens = np.array([len(render(sample, tokenizer).input_ids) for sample in load_samples(rows)])
    shown = {"progress": True, "num_tokens": tokens if counted else None}
    measure(rows, llama, tokenizer, tmp_path, what=what, head_positions=30, **shown)
    total = int(tokens.sum()) if counted and what == "row" else len(rows)
    assert bars == [(total, total)]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(61, "1 min"), (3600, "60 min"), (7140, "119 min"), (7200, "2.0 h"), (90000, "25.0 h")],
)
def test_durations(seconds, said):
    assert progress.duration(seconds) == said


# --- numbers ------------------------------------------------------------------------------------------------


def test_the_last_number_is_looked_at(llama, tokenizer, tmp_path):
    rows = [
        chat("u7 and 8?", "ait is 15, so 15 is the sum"),
        chat("u1", "ano number at all"),
        chat("u", "a3 then 42"),
        chat("u5", "a6", "uand", "awhat"),
    ]
    found = measure(rows, llama, tokenizer, tmp_path)
    feed = LanguageModel(llama, tokenizer, 256)
    out = number_surprise(load_samples(rows), np.arange(4), feed, found["token_nll"], found["token_entropy"])
    gaps = [found["token_nll"][row] - found["token_entropy"][row] for row in range(4)]
    assert out[1] == 0
    for row, last in ((0, "15"), (2, "42"), (3, "6")):
        text = tokenizer.batch_decode(
            [[id_] for id_ in render(next(iter(load_samples([rows[row]]))), tokenizer).input_ids]
        )
        mask = render(next(iter(load_samples([rows[row]]))), tokenizer).supervised
        pieces = [piece for piece, wanted in zip(text, mask, strict=True) if wanted]
        end = max(place for place, piece in enumerate(pieces) if any(c.isdigit() for c in piece))
        assert "".join(pieces[end + 1 - len(last) : end + 1]) == last
        assert out[row] == pytest.approx(gaps[row][end + 1 - len(last) : end + 1].max())
