from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datapruner.signals.language_model.attention import NAME, Pack, Segment, attend, packed_attention

HEADS, WIDTH = 4, 16


def laid_out(lengths, prefix=0, filling=0):
    segments = [Segment(0, prefix)] if prefix else []
    start = prefix
    for length in lengths:
        segments.append(Segment(start, length))
        start += length
    total = start + filling
    return Pack(np.zeros(total, np.int64), np.zeros(total, np.int64), segments, prefix)


def inputs(total, key_heads=HEADS, dtype=torch.float64, value_width=WIDTH):
    generator = torch.Generator().manual_seed(total)
    return (
        torch.randn(1, heads, total, width, generator=generator, dtype=dtype)
        for heads, width in ((HEADS, WIDTH), (key_heads, WIDTH), (key_heads, value_width))
    )


def by_hand(query, key, value, pack, scaling=None, window=None, softcap=None):
    """Attention as a loop over queries: each sees the prefix, and its own segment up to itself."""
    repeats = query.shape[1] // key.shape[1]
    out = torch.zeros(query.shape[2], query.shape[1], value.shape[3], dtype=torch.float64)
    for segment in pack.segments:
        before = list(range(pack.prefix)) if segment.start else []
        for offset in range(segment.length):
            seen = [*before, *range(segment.start, segment.start + offset + 1)]
            seen = seen[-window:] if window is not None else seen
            for head in range(query.shape[1]):
                k, v = (part[0, head // repeats, seen].double() for part in (key, value))
                logits = k @ query[0, head, segment.start + offset].double()
                logits *= WIDTH**-0.5 if scaling is None else scaling
                logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
                out[segment.start + offset, head] = torch.softmax(logits, 0) @ v
    return out[None]


def attended(pack, *tensors, **options):
    with pack.active():
        out, weights = attend(None, *tensors, **options)
    assert weights is None
    return out


@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("window", [None, 1, 3, 1000])
@pytest.mark.parametrize("prefix", [0, 1, 5])
@pytest.mark.parametrize("key_heads", [HEADS, 2, 1])
def test_every_token_sees_the_prefix_and_what_is_before_it_in_its_row(key_heads, prefix, window, softcap):
    pack = laid_out([4, 1, 7, 4], prefix, filling=3)
    tensors = tuple(inputs(len(pack.ids), key_heads, value_width=5))
    out = attended(pack, *tensors, scaling=0.3, sliding_window=window, softcap=softcap)
    expected = by_hand(*tensors, pack, 0.3, window, softcap)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    assert not out[0, -3:].any()


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=6),
    st.integers(0, 6),
    st.none() | st.integers(1, 12),
    st.none() | st.floats(0.5, 5),
    st.integers(0, 4),
)
def test_any_layout(lengths, prefix, window, softcap, filling):
    pack = laid_out(lengths, prefix, filling)
    tensors = tuple(inputs(len(pack.ids), 2))
    out = attended(pack, *tensors, sliding_window=window, softcap=softcap)
    torch.testing.assert_close(out, by_hand(*tensors, pack, None, window, softcap), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_dtypes_are_kept(dtype, softcap):
    pack = laid_out([3, 8], 2)
    tensors = tuple(inputs(len(pack.ids), 2, dtype))
    out = attended(pack, *tensors, softcap=softcap)
    assert out.dtype == dtype
    expected = by_hand(*tensors, pack, softcap=softcap)
    tolerance = 1e-6 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("prefix", [0, 6])
def test_a_row_has_the_same_bits_in_any_company(prefix, softcap, threads):
    """Heads of eight numbers, which no real model has, would not: MKL multiplies those as their address lies."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        rng = np.random.default_rng(0)
        tensors = tuple(inputs(prefix + 64, 2, torch.float32))
        expected = None
        for others in ([], [9], [9, 9, 3], [9] * 20, [3, 200, 1]):
            pack = laid_out([*others, 9], prefix, filling=int(rng.integers(0, 30)))
            start = pack.segments[-1].start
            laid = [torch.randn(1, part.shape[1], len(pack.ids), WIDTH) for part in tensors]
            for target, source in zip(laid, tensors, strict=True):
                target[:, :, :prefix] = source[:, :, :prefix]
                target[:, :, start : start + 9] = source[:, :, prefix : prefix + 9]
            out = attended(pack, *laid, softcap=softcap)[0, start : start + 9]
            expected = out if expected is None else expected
            assert torch.equal(out, expected)
    finally:
        torch.set_num_threads(before)


def test_infinity_in_a_row_stays_in_it():
    pack = laid_out([4, 4, 4], 2)
    query, key, value = inputs(len(pack.ids))
    clean = attended(pack, query, key, value)
    value[:, :, 7] = float("nan")
    out = attended(pack, query, key, value)
    assert out[0, 7:10].isnan().all()
    kept = [*range(6), *range(10, 14)]
    assert torch.equal(out[0, kept], clean[0, kept])


def test_layout_is_worked_out_once_a_pack():
    pack = laid_out([3, 5, 3], 2)
    device = torch.device("cpu")
    assert pack.groups(device) is pack.groups(device)
    assert pack.mask(2, 3, None, device) is pack.mask(2, 3, None, device)
    assert {(before, tuple(places.shape)) for before, places in pack.groups(device)} == {
        (0, (1, 2)),
        (2, (2, 3)),
        (2, (1, 5)),
    }


# --- a model's own attention --------------------------------------------------------------------------------


def tiny(family="llama", **more):
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 50}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes, **more)).eval()


@pytest.mark.parametrize("own", ["eager", "sdpa"])
def test_the_model_gets_its_attention_back(own):
    model = tiny(intermediate_size=32)
    model.set_attn_implementation(own)
    ids = torch.arange(6)[None]
    before = model(ids).logits
    for on in (True, False):
        with packed_attention(model, on=on):
            assert model.config._attn_implementation == (NAME if on else own)
        assert model.config._attn_implementation == own
    with pytest.raises(RuntimeError, match="on purpose"), packed_attention(model):
        raise RuntimeError("on purpose")
    assert model.config._attn_implementation == own
    assert torch.equal(model(ids).logits, before)


def test_parts_with_an_attention_of_their_own_get_it_back():
    model = tiny(intermediate_size=32)
    part = tiny(intermediate_size=32)
    part.set_attn_implementation("eager")
    model.part = part
    with packed_attention(model):
        assert part.config._attn_implementation == NAME
    assert model.config._attn_implementation == "sdpa"
    assert part.config._attn_implementation == "eager"


@pytest.mark.parametrize("family", ["bloom", "falcon"])
def test_a_model_whose_attention_cannot_be_replaced_is_left_alone(family, caplog):
    model = tiny(family)
    before = copy.deepcopy(model.config.to_dict())
    with pytest.raises(NotImplementedError, match="cannot be replaced"), packed_attention(model):
        raise AssertionError("never comes here")
    assert model.config.to_dict() == before
    assert not caplog.records


def test_a_model_of_an_older_transformers_is_refused():
    """It has no setter; packing is then given up, see `_packs_exactly`."""
    model = SimpleNamespace(modules=list, config=SimpleNamespace())
    with pytest.raises(AttributeError), packed_attention(model):
        raise AssertionError("never comes here")
