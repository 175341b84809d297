from __future__ import annotations

import math
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from datapruner.errors import DataPrunerError
from datapruner.models.foreign import without_peft
from datapruner.signals.language_model import output_layer as module
from datapruner.signals.language_model.find_output_layer import body, find_output_layer
from datapruner.signals.language_model.output_layer import OutputLayer
from datapruner.signals.language_model.token_statistics import output_statistics
from tests.conftest import rotated_head

pytestmark = pytest.mark.usefixtures("one_thread")

V, D = 37, 16
SIZES = {
    "vocab_size": V,
    "hidden_size": D,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
HEADS = {"head_dim": 8, "query_pre_attn_scalar": 8, "layer_types": ["full_attention"]}
GPT2 = {"vocab_size": V, "n_embd": D, "n_layer": 1, "n_head": 2, "n_positions": 64, "bos_token_id": 1}
# Name of the configuration's and the model's class, and what makes logits more than W h.
FAMILIES = {
    "llama": ("Llama", {}),
    "mistral": ("Mistral", {}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {"head_dim": 8}),
    "gemma2": ("Gemma2", HEADS | {"final_logit_softcapping": 1.5}),
    "gemma2, uncapped": ("Gemma2", HEADS | {"final_logit_softcapping": None}),
    "gemma3_text": ("Gemma3", HEADS | {"final_logit_softcapping": 2.5}),
    "gpt2": ("GPT2", {}),
    "gpt_neox": ("GPTNeoX", {}),
    "phi": ("Phi", {}),
    "phi3": ("Phi3", {}),
    "olmo": ("Olmo", {}),
    "olmo2": ("Olmo2", {}),
    "smollm3": ("SmolLM3", {}),
    "granite": ("Granite", {"logits_scaling": 3.0}),
    "cohere": ("Cohere", {"logit_scale": 0.4}),
    "cohere2": ("Cohere2", {"logit_scale": 1.7, "layer_types": ["full_attention"], "head_dim": 8}),
}


def model_class(name):
    return getattr(transformers, "GPT2LMHeadModel" if name == "GPT2" else f"{name}ForCausalLM")


def tiny_model(family, *, tied=False, dtype=torch.float64, seed=0):
    """A random model with logits of order 1, and a random bias where the family has one."""
    name, more = FAMILIES[family]
    config_name = "Gemma3TextConfig" if name == "Gemma3" else f"{name}Config"
    sizes = GPT2 if name == "GPT2" else SIZES
    config = getattr(transformers, config_name)(**sizes, **more, tie_word_embeddings=tied)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = model_class(name)(config).to(dtype).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


def some_rows(layer, lengths, *, seed=0, dtype=torch.float64, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(sum(lengths), layer.weight.shape[1], generator=generator, dtype=torch.float64)
    targets = torch.randint(len(layer.weight), (sum(lengths),), generator=generator)
    return (hidden * scale).to(dtype), targets


def some_layer(vocabulary=V, d=D, *, bias=False, scale=1.0, softcap=None, dtype=torch.float64, seed=1):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(vocabulary, d, generator=generator, dtype=torch.float64).to(dtype)
    offset = torch.randn(vocabulary, generator=generator, dtype=torch.float64).to(dtype) if bias else None
    return OutputLayer(weight, offset, scale, softcap)


KINDS = {
    "plain": {},
    "bias and scale": {"bias": True, "scale": 0.7},
    "soft-capped": {"softcap": 3.0},
    "all": {"bias": True, "scale": 1.3, "softcap": 4.0},
}


def by_autograd(layer, hidden, targets, lengths):
    """The statistics by their definitions, in float64."""
    weight = layer.weight.double().clone().requires_grad_()
    logits = layer.scale * (hidden.double() @ weight.T + (0 if layer.bias is None else layer.bias.double()))
    if layer.softcap is not None:
        logits = layer.softcap * torch.tanh(logits / layer.softcap)
    log_p = logits.log_softmax(-1)
    nll = -log_p.gather(1, targets[:, None])[:, 0]
    entropy = -(log_p.exp() * log_p).sum(-1)
    el2n = (log_p.exp() - torch.nn.functional.one_hot(targets, len(weight))).norm(dim=-1)
    gradients = [
        torch.autograd.grad(part.mean(), weight, retain_graph=True)[0] for part in nll.split(lengths)
    ]
    return SimpleNamespace(
        nll=nll.detach(),
        entropy=entropy.detach(),
        el2n=el2n.detach(),
        grad_norm=np.array([gradient.norm().item() for gradient in gradients]),
        weight_dot=np.array([(weight * gradient).sum().item() for gradient in gradients]),
    )


def assert_close(found, expected, **tolerance):
    for name in ("nll", "entropy", "el2n"):
        a, b = getattr(found, name), getattr(expected, name)
        torch.testing.assert_close(
            a.double(), b.double(), **tolerance, msg=lambda said, name=name: f"{name}: {said}"
        )
    for name in ("grad_norm", "weight_dot"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), **tolerance, err_msg=name)


def same_bits(a, b):
    return all(
        np.asarray(getattr(a, name)).tobytes() == np.asarray(getattr(b, name)).tobytes()
        for name in ("nll", "entropy", "el2n", "grad_norm", "weight_dot")
    )


# --- the families -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_against_autograd_and_a_step_taken(family, tied):
    if tied and family == "phi":
        pytest.skip("phi is never tied")
    model = tiny_model(family, tied=tied)
    weight = model.get_output_embeddings().weight
    assert (weight is model.get_input_embeddings().weight) == tied
    layer = find_output_layer(model)
    assert (layer.bias is not None) == (family == "phi")
    ids = torch.randint(V, (3, 9), generator=torch.Generator().manual_seed(1))
    starts, lengths = (2, 0, 5), [6, 8, 3]

    found = SimpleNamespace(hidden=[], targets=[], nll=[], entropy=[], el2n=[], grad_norm=[], weight_dot=[])
    don, nod, eta = [], [], 0.05
    # Through the model's own code, with the output path's gradient only.
    handle = body(model).register_forward_hook(
        lambda _module, _inputs, output: output.__setitem__(
            "last_hidden_state", output.last_hidden_state.detach()
        )
    )
    for row, start in enumerate(starts):
        at = slice(start, start + lengths[row])
        targets = ids[row, start + 1 : start + 1 + lengths[row]]
        logits = model(ids[row : row + 1]).logits[0, at]
        with torch.no_grad():
            found.hidden.append(body(model)(ids[row : row + 1]).last_hidden_state[0, at])
        found.targets.append(targets)
        log_p = logits.log_softmax(-1)
        nll = -log_p.gather(1, targets[:, None])[:, 0]
        found.nll.append(nll.detach())
        found.entropy.append(-(log_p.exp() * log_p).sum(-1).detach())
        found.el2n.append((log_p.exp() - torch.nn.functional.one_hot(targets, V)).norm(dim=-1).detach())
        model.zero_grad()
        nll.mean().backward()
        gradient, before = weight.grad.clone(), weight.detach().clone()
        found.grad_norm.append(gradient.norm().item())
        found.weight_dot.append((before * gradient).sum().item())
        torch.optim.SGD([weight], lr=eta).step()
        don.append((weight.norm() - before.norm()).item())
        nod.append((weight - before).norm().item())
        with torch.no_grad():
            weight.copy_(before)
    handle.remove()

    expected = SimpleNamespace(
        **{
            name: torch.cat(parts) if isinstance(parts[0], torch.Tensor) else np.array(parts)
            for name, parts in vars(found).items()
        }
    )
    for budget in (256 << 20, 5 * 8 * V):
        ours = output_statistics(layer, expected.hidden, expected.targets, lengths, byte_budget=budget)
        assert ours.nll.dtype == torch.float64
        assert_close(ours, expected, rtol=1e-9, atol=1e-12)
        norm = layer.norm()
        change = -2 * eta * ours.weight_dot + eta**2 * ours.grad_norm**2
        moved = np.sqrt(norm**2 + change)
        np.testing.assert_allclose(change / (moved + norm), don, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(eta * ours.grad_norm, nod, rtol=1e-9)
    if layer.bias is None and layer.softcap is None:
        nll, entropy = (
            np.array([part.mean() for part in it.split(lengths)]) for it in (ours.nll, ours.entropy)
        )
        np.testing.assert_allclose(ours.weight_dot, nll - entropy, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_probe_knows_each_family_in_each_dtype(family, dtype):
    layer = find_output_layer(tiny_model(family, dtype=dtype))
    assert layer.weight.dtype == dtype


def test_what_is_read_from_the_configuration():
    assert find_output_layer(tiny_model("granite")).scale == pytest.approx(1 / 3)
    assert find_output_layer(tiny_model("cohere")).scale == 0.4
    assert find_output_layer(tiny_model("gemma3_text")).softcap == 2.5
    model = tiny_model("llama")
    layer = find_output_layer(model)
    assert (layer.scale, layer.softcap, layer.bias) == (1.0, None, None)
    assert layer.weight.data_ptr() == model.lm_head.weight.data_ptr()
    assert not layer.weight.requires_grad


class WithTanh(transformers.LlamaForCausalLM):
    def forward(self, *args, **kwargs):
        out = super().forward(*args, **kwargs)
        out.logits = out.logits * torch.tanh(out.logits.abs())
        return out


class ByFive(transformers.LlamaForCausalLM):
    def forward(self, *args, **kwargs):
        out = super().forward(*args, **kwargs)
        out.logits = out.logits[..., :5]
        return out


def unknown(kind, dtype=torch.float64):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**SIZES, initializer_range=0.3)
    config.model_type = "xyz"
    return kind(config).to(dtype).eval()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_an_unknown_family_is_known_by_its_logits(dtype):
    assert find_output_layer(unknown(transformers.LlamaForCausalLM, dtype)).scale == 1.0
    for kind in (WithTanh, ByFive):
        with pytest.raises(DataPrunerError, match="the family 'xyz' changes its logits in a way"):
            find_output_layer(unknown(kind, dtype))


@pytest.mark.parametrize("family", ["gemma2", "granite", "cohere2"])
def test_a_family_under_another_name_is_refused(family):
    model = tiny_model(family, dtype=torch.bfloat16)
    model.config.model_type = "xyz"
    with pytest.raises(DataPrunerError, match="xyz"):
        find_output_layer(model)


def test_models_without_a_plain_output_layer_are_refused():
    with pytest.raises(DataPrunerError, match=r"LlamaModel has no output layer.*AutoModelForCausalLM"):
        find_output_layer(tiny_model("llama").model)
    with pytest.raises(DataPrunerError, match="no output layer"):
        find_output_layer(torch.nn.Linear(2, 2))

    class Packed(torch.nn.Linear):
        def __init__(self, *sizes):
            super().__init__(*sizes)
            self.register_buffer("packed", torch.zeros(D, V, dtype=torch.int8))

    model = tiny_model("llama")
    model.lm_head = Packed(D, V).double()
    with pytest.raises(DataPrunerError, match=r"no plain linear layer in memory \(Packed\)"):
        find_output_layer(model)
    model.lm_head = torch.nn.Linear(D, V, bias=False, device="meta")
    with pytest.raises(DataPrunerError, match="offloaded"):
        find_output_layer(model)


@pytest.mark.parametrize("family", ["llama", "phi", "gemma2", "granite"])
def test_a_wrapped_output_layer_is_its_matrix(family):
    """Phi's layer has a bias, Gemma's logits are capped and Granite's scaled."""
    model = tiny_model(family, dtype=torch.float64)
    plain = find_output_layer(model)
    ids = torch.arange(8)[None]
    before = model(input_ids=ids).logits
    model.lm_head = rotated_head(model.lm_head)
    torch.testing.assert_close(model(input_ids=ids).logits, before)
    found = find_output_layer(model)
    torch.testing.assert_close(found.weight, plain.weight, rtol=0, atol=1e-13)
    assert (found.bias is None) == (plain.bias is None)
    if plain.bias is not None:
        torch.testing.assert_close(found.bias, plain.bias, rtol=0, atol=1e-13)
    assert (found.scale, found.softcap) == (plain.scale, plain.softcap)


def test_an_adapter_on_the_output_layer_is_part_of_its_matrix():
    peft = pytest.importorskip("peft")
    model = tiny_model("llama", dtype=torch.float64)
    config = peft.LoraConfig(
        r=2, target_modules=["lm_head", "q_proj"], init_lora_weights=False, lora_dropout=0.5
    )
    adapted = peft.get_peft_model(model, config, autocast_adapter_dtype=False).double().eval()
    inner = without_peft("mine", adapted)
    layer = find_output_layer(inner)
    states = torch.randn(5, D, dtype=torch.float64)
    torch.testing.assert_close(states @ layer.weight.T, inner.lm_head(states))
    assert not torch.allclose(layer.weight, inner.lm_head.base_layer.weight)


def test_an_output_layer_that_is_no_matrix_is_refused():
    model = tiny_model("llama", dtype=torch.float64)
    head = model.lm_head
    model.lm_head = rotated_head(head, bend=1e-6)
    with pytest.raises(DataPrunerError, match=r"\(Rotated\) does not map last hidden states linearly"):
        find_output_layer(model)
    model.lm_head = torch.nn.Sequential(
        torch.nn.Linear(D, D), torch.nn.ReLU(), torch.nn.Linear(D, V)
    ).double()
    with pytest.raises(DataPrunerError, match="does not map last hidden states linearly"):
        find_output_layer(model)
    model.lm_head = torch.nn.Sequential(torch.nn.Linear(D + 1, V)).double()
    with pytest.raises(DataPrunerError, match="cannot be asked for its matrix"):
        find_output_layer(model)


def test_models_of_another_kind_are_refused():
    bert = transformers.BertConfig(**{**SIZES, "initializer_range": 0.5})
    with pytest.raises(DataPrunerError, match="family 'bert'"):
        find_output_layer(transformers.BertForMaskedLM(bert).eval())
    t5 = transformers.T5Config(
        vocab_size=V, d_model=D, d_kv=8, d_ff=24, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    with pytest.raises(DataPrunerError, match="family 't5'"):
        find_output_layer(transformers.T5ForConditionalGeneration(t5).eval())


def test_logits_that_are_no_numbers_are_refused():
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.norm.weight[3] = math.nan
    with pytest.raises(DataPrunerError, match="not numbers"):
        find_output_layer(model)


def test_adapters():
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    inside = peft.get_peft_model(
        tiny_model("llama"), peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
    )
    layer = find_output_layer(inside.double().eval())
    ids = torch.arange(8)[None]
    with torch.no_grad():
        logits = inside(ids).logits
        torch.testing.assert_close(body(inside)(ids).last_hidden_state @ layer.weight.T, logits)
    config = peft.LoraConfig(target_modules=["lm_head"], init_lora_weights=False)
    outside = peft.get_peft_model(tiny_model("llama"), config).double().eval()
    layer = find_output_layer(outside)
    with torch.no_grad():
        logits = outside(ids).logits
        torch.testing.assert_close(body(outside)(ids).last_hidden_state @ layer.weight.T, logits)


def test_the_body_where_transformers_names_no_decoder():
    assert body(SimpleNamespace(base_model="inner")) == "inner"
    model = tiny_model("gpt2")
    assert body(model) is model.transformer


def test_a_model_in_training_is_left_in_its_mode():
    model = tiny_model("gpt2").train()
    model.transformer.h[0].mlp.eval()
    before = [it.training for it in model.modules()]
    state = torch.get_rng_state()
    find_output_layer(model)
    assert [it.training for it in model.modules()] == before
    assert torch.equal(torch.get_rng_state(), state)


# --- tiles --------------------------------------------------------------------------------------------------

LENGTHS = [3, 1, 40, 16, 15, 2, 31, 1]  # with d = 16, on both sides of T = d


@pytest.mark.parametrize("vectors", [0, 1, 3, 7, 20, 45, 64, 1000])
@pytest.mark.parametrize("kind", KINDS)
def test_any_budget_gives_the_same(kind, vectors, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_BYTES", 5 * D * 8)
    layer = some_layer(**KINDS[kind])
    hidden, targets = some_rows(layer, LENGTHS)
    ours = output_statistics(layer, hidden, targets, LENGTHS, byte_budget=vectors * V * 8)
    assert_close(ours, by_autograd(layer, hidden, targets, LENGTHS), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [12, 50])
def test_a_long_row_by_chunks_of_the_vocabulary(kind, length):
    layer = some_layer(vocabulary=1001, **KINDS[kind])
    hidden, targets = some_rows(layer, [length])
    whole = output_statistics(layer, hidden, targets, [length])
    for vectors in (2, 5):
        ours = output_statistics(layer, hidden, targets, [length], byte_budget=vectors * 1001 * 8)
        assert_close(ours, whole, rtol=1e-11, atol=1e-14)


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=8),
    cuts=st.sets(st.integers(1, 7)),
    tile=st.integers(1, 70),
    vectors=st.integers(2, 200),
    kind=st.sampled_from(list(KINDS)),
)
def test_any_split_of_rows_and_tiles_gives_the_same(lengths, cuts, tile, vectors, kind):
    layer = some_layer(**KINDS[kind])
    hidden, targets = some_rows(layer, lengths)
    whole = output_statistics(layer, hidden, targets, lengths)
    budget = vectors * V * 8
    bounds = [0, *sorted(cut for cut in cuts if cut < len(lengths)), len(lengths)]
    parts = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "TILE", tile)
        for first, last in pairwise(bounds):
            of = slice(sum(lengths[:first]), sum(lengths[:last]))
            parts.append(
                output_statistics(layer, hidden[of], targets[of], lengths[first:last], byte_budget=budget)
            )
    joined = SimpleNamespace(
        **{name: torch.cat([getattr(it, name) for it in parts]) for name in ("nll", "entropy", "el2n")},
        **{name: np.concatenate([getattr(it, name) for it in parts]) for name in ("grad_norm", "weight_dot")},
    )
    assert_close(joined, whole, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("budget", [256 << 20, 1003 * 4 * 60])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_row_has_the_same_bits_alone_and_in_company(kind, budget, threads):
    torch.set_num_threads(threads)
    layer = some_layer(vocabulary=1003, d=24, dtype=torch.float32, **KINDS[kind])
    lengths = [5, 70, 1, 33, 128, 2, 64, 200, 17]
    hidden, targets = some_rows(layer, lengths, dtype=torch.float32)
    whole = output_statistics(layer, hidden, targets, lengths, byte_budget=budget)
    start = 0
    for row, length in enumerate(lengths):
        of = slice(start, start + length)
        alone = output_statistics(layer, hidden[of], targets[of], [length], byte_budget=budget)
        part = SimpleNamespace(
            nll=whole.nll[of],
            entropy=whole.entropy[of],
            el2n=whole.el2n[of],
            grad_norm=whole.grad_norm[row : row + 1],
            weight_dot=whole.weight_dot[row : row + 1],
        )
        assert same_bits(alone, part), row
        start += length


def test_without_gradients():
    layer = some_layer(bias=True)
    hidden, targets = some_rows(layer, LENGTHS)
    whole = output_statistics(layer, hidden, targets, LENGTHS)
    ours = output_statistics(layer, hidden, targets, LENGTHS, gradients=False)
    assert torch.equal(ours.nll, whole.nll)
    assert torch.equal(ours.entropy, whole.entropy)
    assert len(ours.el2n) == len(ours.grad_norm) == len(ours.weight_dot) == 0


def test_no_rows_and_wrong_lengths():
    layer = some_layer()
    empty = torch.zeros(0, D, dtype=torch.float64)
    ours = output_statistics(layer, empty, torch.zeros(0, dtype=torch.int64), [])
    assert len(ours.nll) == len(ours.el2n) == len(ours.grad_norm) == len(ours.weight_dot) == 0
    hidden, targets = some_rows(layer, [4])
    for lengths in ([3], [4, 0], [5]):
        with pytest.raises(ValueError, match="lengths"):
            output_statistics(layer, hidden, targets, lengths)


def test_what_is_given_is_left_alone():
    layer = some_layer(**KINDS["all"])
    hidden, targets = some_rows(layer, LENGTHS)
    copies = hidden.clone(), targets.clone(), layer.weight.clone(), layer.bias.clone()
    ours = output_statistics(layer, hidden.requires_grad_(), targets, LENGTHS)
    assert all(map(torch.equal, (hidden, targets, layer.weight, layer.bias), copies))
    assert not ours.nll.requires_grad


class Largest(TorchDispatchMode):
    """The most bytes of any tensor that an operation gives."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for it in out if isinstance(out, tuple | list) else [out]:
            if isinstance(it, torch.Tensor):
                self.bytes = max(self.bytes, it.untyped_storage().nbytes())
        return out


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("d", [8, 128])
def test_memory_stays_under_the_budget_whatever_the_rows(softcap, gradients, d, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_BYTES", 1 << 18)
    weight = some_layer(vocabulary=2001, d=d, dtype=torch.float32).weight.to(torch.bfloat16)
    layer = OutputLayer(weight, None, 1.0, softcap)
    lengths = [100, 2, 20, 5]
    hidden, targets = some_rows(layer, lengths, dtype=torch.bfloat16, scale=d**-0.5)
    budget = 1 << 19  # the logits of the first row are 800 kB
    given = max(it.untyped_storage().nbytes() for it in (weight, hidden))
    with Largest() as largest:
        ours = output_statistics(layer, hidden, targets, lengths, byte_budget=budget, gradients=gradients)
    assert largest.bytes <= max(budget, given)
    assert ours.nll.isfinite().all()
    if gradients:
        whole = by_autograd(layer, hidden.float(), targets, lengths)
        assert_close(ours, whole, rtol=2e-5, atol=2e-6)


# --- precision ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_float32(kind):
    layer = some_layer(vocabulary=3001, d=64, dtype=torch.float32, **KINDS[kind])
    lengths = [70, 20, 90]
    hidden, targets = some_rows(layer, lengths, dtype=torch.float32, scale=0.5)
    ours = output_statistics(layer, hidden, targets, lengths)
    assert ours.nll.dtype == ours.entropy.dtype == ours.el2n.dtype == torch.float32
    assert ours.grad_norm.dtype == ours.weight_dot.dtype == np.float64
    assert_close(ours, by_autograd(layer, hidden, targets, lengths), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_weights_are_used_as_float32(kind, dtype):
    layer = some_layer(vocabulary=501, d=32, dtype=dtype, **KINDS[kind])
    bias = None if layer.bias is None else layer.bias.float()
    upcast = OutputLayer(layer.weight.float(), bias, layer.scale, layer.softcap)
    hidden, targets = some_rows(layer, LENGTHS, dtype=dtype)
    ours = output_statistics(layer, hidden, targets, LENGTHS)
    assert same_bits(ours, output_statistics(upcast, hidden.float(), targets, LENGTHS))
    with torch.autocast("cpu", torch.bfloat16):
        assert same_bits(ours, output_statistics(layer, hidden, targets, LENGTHS))


def confident_rows(gaps, vocabulary=4001):
    """Logits that float32 holds exactly: the target's is ``gap`` above the best of the others."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randint(-640, 1, (vocabulary, len(gaps)), generator=generator) / 64.0
    weight[7] = torch.tensor(gaps)
    weight[11] = 0.0
    layer = OutputLayer(weight.float())
    return layer, torch.eye(len(gaps)), torch.full((len(gaps),), 7)


def test_confident_tokens_in_float32():
    gaps = [0.0, 5.0, 16.0, 20.0, 22.5, 25.0, 40.0, 60.0, 75.0]
    layer, hidden, targets = confident_rows(gaps)
    lengths = [1] * len(gaps)
    exact = OutputLayer(layer.weight.double())
    expected = output_statistics(exact, hidden.double(), targets, lengths)
    # Float64 itself cancels in the plain way where 1 - p_y < 1e-16.
    plain = by_autograd(exact, hidden, targets, lengths)
    torch.testing.assert_close(expected.nll[:6], plain.nll[:6], rtol=1e-5, atol=0)
    torch.testing.assert_close(expected.el2n[:6], plain.el2n[:6], rtol=1e-5, atol=0)
    torch.testing.assert_close(expected.entropy[:6], plain.entropy[:6], rtol=1e-5, atol=0)
    assert (expected.nll[3:] < 1e-5).all()
    assert (expected.nll > 0).all()
    assert_close(output_statistics(layer, hidden, targets, lengths), expected, rtol=3e-6, atol=0)
    long = output_statistics(layer, hidden, targets, lengths, byte_budget=4 * 4001)
    np.testing.assert_allclose(long.grad_norm, expected.grad_norm, rtol=3e-6)


def test_confident_and_wrong():
    layer, hidden, _ = confident_rows([20.0, 30.0])
    ours = output_statistics(layer, hidden, torch.full((2,), 11), [1, 1])
    expected = output_statistics(
        OutputLayer(layer.weight.double()), hidden.double(), torch.full((2,), 11), [1, 1]
    )
    for name in ("nll", "el2n", "grad_norm", "weight_dot"):
        np.testing.assert_allclose(
            np.asarray(getattr(ours, name)), np.asarray(getattr(expected, name)), rtol=3e-6
        )
    torch.testing.assert_close(ours.entropy.double(), expected.entropy, rtol=0, atol=3e-7)


def test_a_saturated_soft_cap():
    layer = some_layer(softcap=2.0, dtype=torch.float32)
    hidden, targets = some_rows(layer, [6, 6], dtype=torch.float32, scale=5.0)
    assert_close(
        output_statistics(layer, hidden, targets, [6, 6]),
        by_autograd(layer, hidden, targets, [6, 6]),
        rtol=1e-4,
        atol=1e-7,
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("vectors", [5, 10_000])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_states_that_are_no_numbers_spoil_their_row_only(kind, vectors, bad):
    layer = some_layer(**KINDS[kind])
    lengths = [4, 3, 20]
    hidden, targets = some_rows(layer, lengths)
    good = output_statistics(layer, hidden, targets, lengths, byte_budget=vectors * V * 8)
    hidden[5, 2] = bad
    ours = output_statistics(layer, hidden, targets, lengths, byte_budget=vectors * V * 8)
    assert ours.nll.isnan().nonzero().tolist() == ours.entropy.isnan().nonzero().tolist() == [[5]]
    assert np.isnan(ours.grad_norm).tolist() == [False, True, False]
    others = torch.arange(27) != 5
    assert torch.equal(ours.nll[others], good.nll[others])
    assert ours.grad_norm[[0, 2]].tobytes() == good.grad_norm[[0, 2]].tobytes()


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("token", [3, 4])
def test_an_infinite_logit_is_seen_in_the_loss(bad, token):
    layer = some_layer(bias=True)
    layer.bias[3] = bad
    hidden, _ = some_rows(layer, [2])
    for gradients in (True, False):
        ours = output_statistics(layer, hidden, torch.tensor([token, token]), [2], gradients=gradients)
        assert ours.nll.isnan().all()
        assert ours.entropy.isnan().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_norm_is_summed_in_float64_and_leaves_the_weight_alone(dtype):
    layer = OutputLayer(torch.randn(4000, 128, generator=torch.Generator().manual_seed(0)).to(dtype))
    before = layer.weight.clone()
    assert layer.norm() == pytest.approx(np.linalg.norm(before.double().numpy()), rel=1e-13)
    assert torch.equal(layer.weight, before)
