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

from datapruner.errors import DataPrunerError
from datapruner.samples import load_samples
from datapruner.samples.rendering import render
from datapruner.signals import language_model as module
from datapruner.signals.language_model import LanguageModel, measure_language_model, number_surprise
from datapruner.signals.store import SignalStore

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
GPT2 = {"vocab_size": 320, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 512, "initializer_range": 0.3}
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


@pytest.fixture(autouse=True)
def one_thread():
    """Threads would wait for each other longer than models so small run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
    given = {name: feed.pop(name) for name in ("progress", "num_tokens") if name in feed}
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
    own = module._Pass._forward

    def forward(self, batch, waiting):
        seen.append([(int(self.rows[item.place]), item.part) for item in batch])
        return own(self, batch, waiting)

    monkeypatch.setattr(module._Pass, "_forward", forward)
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
        **({} if tied else {"grad_norm": gradient.norm().item(), "weight_dot": (gradient * weight).sum().item()}),
    }


def assert_alone(found, row, expected, tolerance):
    for name, value in expected.items():
        if name.startswith("token"):
            np.testing.assert_allclose(found[name][row], value, rtol=max(tolerance, 7e-8), atol=tolerance)
        else:
            np.testing.assert_allclose(found[name][row], value, rtol=tolerance, atol=tolerance, err_msg=name)


# --- one pass says what the model says of each row ----------------------------------------------------------


@pytest.mark.parametrize("template", ["shared", "none"])
@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_in_a_batch_is_the_row_alone(family, packing, template, backend, tmp_path, caplog):
    caplog.set_level(logging.INFO, "datapruner")
    backend.chat_template = (SYSTEM if template == "shared" else "") + CHAT_TEMPLATE
    model = make_model(family, torch.float64)
    with exact_softmax():
        found = measure(MIXED, model, backend, tmp_path, packing=packing)
    assert "cannot be packed" not in caplog.text
    prefix = module._template_prefix(LanguageModel(model, backend, 256, batch_tokens=128))
    assert (len(prefix) > 4) == (template == "shared")
    with exact_softmax():
        for row, sample in enumerate(load_samples(MIXED)):
            rendered = render(sample, backend, max_length=256)
            targets = np.flatnonzero(rendered.supervised)
            expected = alone(model, rendered.input_ids, targets)
            assert_alone(found, row, expected, 1e-9)
    labels = torch.from_numpy(np.where(rendered.supervised, rendered.input_ids, -100))[None].long()
    own = model(torch.from_numpy(rendered.input_ids)[None].long(), labels=labels).loss
    assert found["log_ppl"][-1] == pytest.approx(own.item(), rel=1e-5)  # transformers takes it in float32
    weight = model.get_output_embeddings().weight
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
