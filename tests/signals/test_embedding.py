from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import datapruner as dp
from datapruner.errors import DataPrunerError
from datapruner.models.embedders import load_image_embedder, load_text_embedder
from datapruner.models.encoders import TokenEmbedder
from datapruner.signals import embedding as module
from datapruner.signals.embedding import embed_and_tell, embed_images, embed_texts
from datapruner.signals.encoded import TEXTS_PER_CALL, embed_with_encoder
from datapruner.signals.given_vectors import check_embeddings, column_embeddings, read_embeddings
from datapruner.signals.shapes import bucket_length, canonical_shape
from datapruner.signals.store import SignalStore
from datapruner.signals.store.claims import Claims
from tests.conftest import command, without_progress


def some_texts(count, *, seed=0, longest=120):
    rng = np.random.default_rng(seed)
    alphabet = list("abcdefghij klmnop qrstu vwxyz.,?é你")
    return ["".join(rng.choice(alphabet, int(rng.integers(0, longest)))) + f" {row}" for row in range(count)]


@pytest.fixture(scope="module")
def tiny(tiny_sentence_transformer):
    return load_text_embedder(str(tiny_sentence_transformer))


class Counting:
    """Wraps an embedder's forward pass."""

    def __init__(self, embedder):
        from dataclasses import replace

        self.shapes: list[tuple[int, int]] = []
        self.masks: list[np.ndarray] = []

        def forward(ids, mask):
            self.shapes.append(ids.shape)
            self.masks.append(mask)
            return embedder.forward(ids, mask)

        self.embedder = replace(embedder, forward=forward)


# --- shapes -------------------------------------------------------------------------------------------------


@given(st.integers(0, 200_000))
def test_a_bucket_holds_its_row_with_little_padding(tokens):
    length = bucket_length(tokens)
    assert length >= max(tokens, 1)
    assert length <= bucket_length(tokens + 1)
    assert length % 8 == 0
    assert bucket_length(length) == length
    if tokens > 64:
        assert length - tokens < tokens / 8
    else:
        assert length - tokens <= 8


def test_there_are_few_buckets():
    assert len({bucket_length(tokens) for tokens in range(1, 8193)}) == 16 + 6 * 8


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_a_shape_is_full_or_every_row_of_it_has_padding(tokens, limit):
    tokens = min(tokens, limit)
    length, full = canonical_shape(tokens, limit)
    assert tokens <= length <= limit
    assert full == (tokens == limit)
    assert full or length > tokens


def test_a_batch_is_padded_in_every_row_or_in_none(tiny, cache):
    """Transformers drops the mask of a batch without padding, and with it may choose another kernel."""
    counting = Counting(tiny)
    texts = some_texts(150)
    embed_texts(texts, counting.embedder, SignalStore(), progress=False)
    lengths = [len(ids) for ids in tiny.tokenize(texts)]
    assert tiny.max_length in lengths
    assert any(length % 8 == 0 and length < tiny.max_length for length in lengths)
    for mask in counting.masks:
        whole = mask.all(axis=1)
        assert whole.all() or not whole.any()
    for rows, length in counting.shapes:
        assert rows == max(1, module.TOKENS_PER_BATCH["cpu"] // length)
        assert length <= tiny.max_length


# --- a row's bits -------------------------------------------------------------------------------------------


def each_alone(texts, embedder, folder):
    return np.concatenate(
        [
            embed_texts([text], embedder, SignalStore(folder / str(row)), progress=False)
            for row, text in enumerate(texts)
        ]
    )


def test_bits_do_not_depend_on_company_place_or_number(tiny, tmp_path):
    texts = some_texts(90)
    together = np.asarray(embed_texts(texts, tiny, SignalStore(tmp_path / "a"), progress=False))
    order = np.random.default_rng(3).permutation(len(texts))
    shuffled = embed_texts([texts[row] for row in order], tiny, SignalStore(tmp_path / "b"), progress=False)
    assert shuffled.tobytes() == together[order].tobytes()
    crowd = some_texts(300, seed=9)
    crowded = embed_texts(
        crowd[:150] + texts + crowd[150:], tiny, SignalStore(tmp_path / "c"), progress=False
    )
    assert crowded[150:240].tobytes() == together.tobytes()
    assert each_alone(texts[:30], tiny, tmp_path / "d").tobytes() == together[:30].tobytes()


def test_growth_and_resume_give_the_bits_of_one_run(tiny, tmp_path, monkeypatch):
    texts = some_texts(120)
    whole = np.asarray(embed_texts(texts, tiny, SignalStore(tmp_path / "whole"), progress=False))
    store = SignalStore(tmp_path / "grown")
    rng = np.random.default_rng(4)
    known: set[str] = set()
    for size in (1, 7, 40, 90, 120):
        rows = np.sort(rng.choice(120, size, replace=False))
        new = {texts[row] for row in rows} - known
        part = embed_texts([texts[row] for row in rows], tiny, store, progress=False)
        assert store.computed == len(new)
        assert part.tobytes() == whole[rows].tobytes()
        known |= new


def test_a_run_that_ends_early_to_share_its_rows_gives_the_same_bits(tiny, tmp_path, monkeypatch):
    texts = some_texts(30)
    whole = embed_texts(texts, tiny, SignalStore(tmp_path / "a"), progress=False)
    monkeypatch.setattr(Claims, "came", lambda *_: True)  # after every batch
    store = SignalStore(tmp_path / "b")
    np.testing.assert_array_equal(embed_texts(texts, tiny, store, progress=False), whole)
    assert store.computed == 30


def test_bits_are_the_same_whatever_the_window(tiny, tmp_path, monkeypatch):
    texts = some_texts(100)
    whole = np.asarray(embed_texts(texts, tiny, SignalStore(tmp_path / "a"), progress=False))
    monkeypatch.setattr(module, "WINDOW_ROWS", 7)
    assert embed_texts(texts, tiny, SignalStore(tmp_path / "b"), progress=False).tobytes() == whole.tobytes()


def test_agrees_with_sentence_transformers(tiny, tiny_sentence_transformer, tmp_path):
    from sentence_transformers import SentenceTransformer

    texts = [*some_texts(60, longest=200), "", "   ", "\n", "x" * 3000]
    theirs = SentenceTransformer(str(tiny_sentence_transformer), device="cpu").encode(
        texts, show_progress_bar=False
    )
    ours = embed_texts(texts, tiny, SignalStore(tmp_path), progress=False)
    fits = fitting(texts, tiny)
    assert not fits.all()
    np.testing.assert_allclose(ours[fits], theirs[fits], atol=1e-5)
    assert np.abs(theirs[0] - theirs[1]).max() > 0.01  # the model does tell texts apart


def fitting(texts, embedder):
    """The others are cut at both ends here, at one by sentence-transformers."""
    return np.array([len(ids) <= embedder.max_length for ids in embedder.whole(texts)])


@pytest.mark.parametrize("length", [16, 17])
def test_a_long_text_is_read_at_both_ends(tiny_sentence_transformer, tmp_path, length):
    embedder = load_text_embedder(str(tiny_sentence_transformer), max_length=length)
    texts = ["one way to say it, " * 9 + "yes", "one way to say it, " * 9 + "no", "short"]
    whole = embedder.whole(texts)
    cut = embedder.tokenize(texts)
    tail = length // 2
    assert [len(ids) for ids in cut] == [length, length, len(whole[2])]
    assert cut[0] == whole[0][: length - tail] + whole[0][-tail:]
    assert cut[2] == whole[2]
    vectors, reading = embed_and_tell(texts, embedder, SignalStore(tmp_path), progress=False)
    assert reading[:, 0].tolist() == [len(ids) for ids in whole]
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-4


def letters(unknown_id=1):
    """An embedder that knows ASCII, and gives as a vector how often each of eight letters is there."""

    def forward(ids, mask):
        return np.stack([((ids % 8 == place) * mask).sum(1) for place in range(8)], axis=1).astype(np.float32)

    def whole(texts):
        return [[2, *(ord(sign) if sign.isascii() else 1 for sign in text), 3] for text in texts]

    return TokenEmbedder({"model": "letters", "max_length": 40}, 8, whole, forward, 0, 40, "cpu", unknown_id)


def test_what_is_unknown_is_counted_and_kept_with_the_vector(tmp_path):
    texts = ["abc", "ห้อง", "aห้", "", "abc" * 30]
    store = SignalStore(tmp_path)
    vectors, reading = embed_and_tell(texts, letters(), store, progress=False)
    assert reading.tolist() == [[5, 0, 5], [6, 4, 6], [5, 2, 5], [2, 0, 2], [92, 0, 40]]
    assert vectors.shape == (5, 8)
    again = embed_and_tell(texts[::-1], letters(), store, progress=False)
    assert store.computed == 0
    assert again[1].tolist() == reading.tolist()[::-1]
    np.testing.assert_array_equal(again[0], vectors[::-1])
    assert not embed_and_tell(texts, letters(None), SignalStore(), progress=False)[1][:, 1].any()


def test_rows_that_the_embedder_cannot_read_are_told_and_stay(monkeypatch, tmp_path, caplog):
    from datapruner.signals import vectors

    monkeypatch.setattr(vectors, "load_text_embedder", lambda *names, **how: letters())
    rows = [{"text": text} for text in ("ห้องสมุด", "แม่น้ำใส", "word " * 20, *["read me"] * 12)]
    for _ in range(2):
        caplog.clear()
        selection = dp.prune(
            rows,
            scorer="random",
            keep=1.0,
            dedup=["semantic"],
            cache=tmp_path,
            embedder=str(tmp_path),
            semantic_eps=0.1,
        )
        assert selection.kept[:3].all()
        assert not selection.kept.all()
        assert [text.split(":")[1][:40] for text in caplog.messages[:2]] == [
            " 1 of 15 rows are longer than the 40 tok",
            " 2 of 15 rows are in a script that the e",
        ]
        assert "up to 61 % of a row; embedder_max_length= sets the limit" in caplog.messages[0]
        assert "(row 0: 8 of 10 tokens unknown)" in caplog.messages[1]


def mixture(shared_data: Path, rows: int) -> list[str]:
    with (shared_data / "sft" / "mixture.train.jsonl").open(encoding="utf-8") as lines:
        taken = [json.loads(next(lines)) for _ in range(rows)]
    return ["\n".join(turn["content"] for turn in row["messages"]) for row in taken]


def test_minilm_bits_survive_growth_on_real_rows(minilm, shared_data, tmp_path):
    texts = sorted(mixture(shared_data, 400), key=len)[:15]  # short ones: seconds
    whole = np.asarray(embed_texts(texts, minilm, SignalStore(tmp_path / "a"), progress=False))
    store = SignalStore(tmp_path / "b")
    embed_texts(texts[::3], minilm, store, progress=False)
    grown = embed_texts(texts, minilm, store, progress=False)
    assert grown.tobytes() == whole.tobytes()


@pytest.mark.slow
def test_minilm_bits_on_200_real_rows(minilm, shared_data, tmp_path):
    from sentence_transformers import SentenceTransformer

    from datapruner.models import offline

    texts = mixture(shared_data, 200)
    whole = np.asarray(embed_texts(texts, minilm, SignalStore(tmp_path / "a"), progress=False))
    store = SignalStore(tmp_path / "b")
    for part in (texts[:37], texts[::5], texts[150:], texts):
        grown = embed_texts(part, minilm, store, progress=False)
    assert grown.tobytes() == whole.tobytes()
    order = np.random.default_rng(0).permutation(200)
    shuffled = embed_texts([texts[row] for row in order], minilm, SignalStore(tmp_path / "c"), progress=False)
    assert shuffled.tobytes() == whole[order].tobytes()
    assert each_alone(texts[:20], minilm, tmp_path / "d").tobytes() == whole[:20].tobytes()
    plain = SentenceTransformer(str(offline.model_folder("minilm")), device="cpu")
    fits = fitting(texts, minilm)
    np.testing.assert_allclose(plain.encode(texts, show_progress_bar=False)[fits], whole[fits], atol=1e-5)


def test_what_decides_a_vector_decides_its_place_in_the_cache(tiny, tiny_sentence_transformer, cache):
    texts = some_texts(10)
    store = SignalStore()
    embed_texts(texts, tiny, store, progress=False)
    embed_texts(texts, load_text_embedder(str(tiny_sentence_transformer)), store, progress=False)
    assert store.computed == 0
    shorter = load_text_embedder(str(tiny_sentence_transformer), max_length=16)
    cut = embed_texts(texts, shorter, store, progress=False)
    assert store.computed == 10
    assert max(len(ids) for ids in shorter.tokenize(texts)) == 16
    assert cut.shape == (10, 32)


def test_progress_is_silent_without_a_terminal(tiny, cache, capfd):
    embed_texts(some_texts(20), tiny, SignalStore(), progress=True)
    assert capfd.readouterr() == ("", "")


# --- objects with encode ------------------------------------------------------------------------------------


class Letters:
    """Counts letters; remembers what it was asked."""

    def __init__(self, identity=None, width=26):
        self.asked: list[list[str]] = []
        self.width = width
        if identity is not None:
            self.identity = identity

    def encode(self, texts):
        self.asked.append(list(texts))
        return [[float(text.count(chr(97 + letter))) for letter in range(self.width)] for text in texts]


def test_an_encoder_without_identity_is_not_cached(cache):
    texts = some_texts(300)
    encoder = Letters()
    expected = np.array(Letters().encode(texts), dtype=np.float32)
    for _ in range(2):
        np.testing.assert_array_equal(
            embed_with_encoder(texts, encoder, SignalStore(), progress=False), expected
        )
    assert sum(len(call) for call in encoder.asked) >= 600
    assert max(len(call) for call in encoder.asked) == TEXTS_PER_CALL
    assert not cache.exists()


def test_an_encoder_with_identity_is_cached_under_it(cache):
    texts = some_texts(300)
    expected = np.array(Letters().encode(texts), dtype=np.float32)
    store = SignalStore()
    embed_with_encoder(texts, Letters("letters 1"), store, progress=False)
    assert store.computed == 300
    again = Letters("letters 1")
    np.testing.assert_array_equal(embed_with_encoder(texts, again, store, progress=False), expected)
    assert store.computed == 0
    assert sum(map(len, again.asked)) == 2  # fixed texts, to learn its width and whether it was corrected
    assert not set(texts) & {text for call in again.asked for text in call}
    embed_with_encoder(texts, Letters("letters 2"), store, progress=False)
    assert store.computed == 300
    embed_with_encoder([*texts, "new"], Letters("letters 1"), store, progress=False)
    assert store.computed == 1


def test_a_sentence_transformer_as_an_object(tiny, tiny_sentence_transformer, cache):
    import torch
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(tiny_sentence_transformer), device="cpu")
    texts = [text for text in some_texts(20) if fitting([text], tiny).all()]
    by_name = embed_texts(texts, tiny, SignalStore(), progress=False)
    np.testing.assert_allclose(
        embed_with_encoder(texts, model, SignalStore(), progress=False), by_name, atol=1e-5
    )

    class Tensors:
        def encode(self, texts):
            return model.encode(texts, convert_to_tensor=True).to(torch.bfloat16).requires_grad_()

    np.testing.assert_allclose(
        embed_with_encoder(texts, Tensors(), SignalStore(), progress=False), by_name, atol=0.01
    )


class Fixed:
    def __init__(self, answer):
        self.answer = answer

    def encode(self, texts):
        return self.answer(texts)


@pytest.mark.parametrize(
    "answer",
    [
        lambda texts: np.zeros(len(texts)),
        lambda texts: np.zeros((len(texts) + 1, 4)),
        lambda texts: np.zeros((len(texts), 4 if len(texts) == 1 else 5)),
        lambda texts: [[1.0] * (3 + row) for row in range(len(texts) + 1)],
        lambda texts: [["a", "b"] for _ in texts],
        lambda texts: None,
    ],
)
@pytest.mark.parametrize("identity", [None, "it"])
def test_an_encoder_that_breaks_its_word_is_refused(cache, answer, identity):
    encoder = Fixed(answer)
    if identity:
        encoder.identity = identity
    with pytest.raises(DataPrunerError):
        embed_with_encoder(["a", "b", "c"], encoder, SignalStore(), progress=False)


# --- given vectors ------------------------------------------------------------------------------------------

VECTORS = np.arange(12, dtype=np.float32).reshape(4, 3)


def test_npy_is_mapped(tmp_path):
    np.save(tmp_path / "e.npy", VECTORS)
    found = read_embeddings(tmp_path / "e.npy", 4)
    assert isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, VECTORS)


@pytest.mark.parametrize("kind", ["list", "large_list", "fixed", "columns", "integers", "chunks"])
def test_parquet(tmp_path, kind):
    rows = VECTORS.tolist()
    types = {
        "list": pa.list_(pa.float32()),
        "large_list": pa.large_list(pa.float64()),
        "fixed": pa.list_(pa.float32(), 3),
    }
    if kind == "columns":
        table = pa.table({f"d{column}": VECTORS[:, column] for column in range(3)})
    elif kind == "integers":
        table = pa.table({"e": pa.array(VECTORS.astype(int).tolist())})
    elif kind == "chunks":
        table = pa.table({"e": pa.chunked_array([pa.array(rows[:1]), pa.array(rows[1:])])})
    else:
        table = pa.table({"e": pa.array(rows, type=types[kind])})
    pq.write_table(table, tmp_path / "e.parquet", row_group_size=2)
    found = read_embeddings(tmp_path / "e.parquet", 4)
    np.testing.assert_array_equal(found, VECTORS)
    assert found.dtype.kind == "f"


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.large_list(pa.float32())])
@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([[1, 2], [3, 4], [5]], "row 2: a vector of length 1, where row 0 has length 2"),
        ([[1, 2], None, [5, 6]], "row 1: no vector"),
        ([None, [1, 2]], "row 0: no vector"),
        ([[1, 2], [], [3, 4]], "row 1: a vector of length 0"),
        ([[1, 2], [3, None]], "row 1: a number is missing"),
    ],
)
def test_a_ragged_or_null_row_is_named(kind, rows, said):
    with pytest.raises(DataPrunerError, match=said):
        column_embeddings(pa.array(rows, type=kind), "column 'e'")


@pytest.mark.parametrize("rows", [[[1, 2], None, [3, 4]], [None, [1, 2]], [[1, 2], [None, 4], [5, 6]]])
def test_a_null_row_of_fixed_size_is_named(rows):
    column = pa.array(rows, type=pa.list_(pa.float32(), 2))
    row = next(i for i, value in enumerate(rows) if value is None or None in value)
    with pytest.raises(DataPrunerError, match=f"row {row}: "):
        column_embeddings(column, "column 'e'")


def test_a_slice_of_a_column_is_read_where_it_lies():
    column = pa.array(VECTORS.tolist(), type=pa.list_(pa.float32(), 3))[1:3]
    np.testing.assert_array_equal(column_embeddings(column, "e"), VECTORS[1:3])


def test_a_column_of_words_is_refused():
    with pytest.raises(DataPrunerError, match="lists of numbers"):
        column_embeddings(pa.array(["a", "b"]), "column 'e'")
    with pytest.raises(DataPrunerError, match="numbers"):
        check_embeddings(column_embeddings(pa.array([["a"], ["b"]]), "column 'e'"), 2, "column 'e'")


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros(4), "one vector a row"),
        (np.zeros((4, 0)), "one vector a row"),
        (np.zeros((3, 2)), "3 vectors, but the dataset has 4"),
        (np.array([["a", "b"]] * 4), "not numbers"),
        (np.zeros((4, 2), dtype=complex), "not numbers"),
    ],
)
def test_vectors_of_another_shape_or_kind_are_refused(array, said):
    with pytest.raises(DataPrunerError, match=said):
        check_embeddings(array, 4, "it")


def test_files_that_are_not_embeddings_are_refused(tmp_path):
    (tmp_path / "e.npy").write_bytes(b"not numpy")
    (tmp_path / "e.parquet").write_bytes(b"not parquet")
    (tmp_path / "e.csv").write_text("1,2")
    np.save(tmp_path / "o.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    pq.write_table(pa.table({"a": ["x"], "b": ["y"]}), tmp_path / "w.parquet")
    for name in ("e.npy", "e.parquet", "e.csv", "o.npy", "w.parquet", "none.npy"):
        with pytest.raises(DataPrunerError, match=name):
            read_embeddings(tmp_path / name, 1)
    cut = tmp_path / "cut.npy"
    np.save(cut, VECTORS)
    cut.write_bytes(cut.read_bytes()[:-8])
    with pytest.raises(DataPrunerError, match="cut"):
        read_embeddings(cut, 4)


def test_a_nan_in_given_vectors_is_named(tmp_path):
    import datapruner as dp

    vectors = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
    vectors[17, 2] = np.nan
    rows = [{"text": f"text {row}"} for row in range(30)]
    with pytest.raises(DataPrunerError, match="17"):
        dp.prune(rows, scorer="concept_complexity", keep=0.5, embeddings=vectors, progress=False)


# --- images -------------------------------------------------------------------------------------------------


def some_images(count, seed=0):
    from PIL import Image

    rng = np.random.default_rng(seed)
    sizes = [(16, 16), (20, 12), (9, 30)]
    return [
        Image.fromarray(rng.integers(0, 256, (*sizes[row % 3], 3), dtype=np.uint8)) for row in range(count)
    ]


@pytest.fixture(scope="module")
def vit(tiny_vit):
    pytest.importorskip("PIL")
    return load_image_embedder(str(tiny_vit))


def test_image_vectors_are_the_mean_of_the_last_states(vit, tiny_vit, tmp_path):
    import torch
    from transformers import ViTModel

    images = some_images(20)
    vectors = embed_images(images, vit, SignalStore(tmp_path), progress=False)
    model = ViTModel.from_pretrained(tiny_vit, add_pooling_layer=False).eval()
    for row in (0, 7, 19):
        resized = images[row].resize((16, 16), resample=2)
        pixels = torch.from_numpy(np.asarray(resized, dtype=np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
        with torch.inference_mode():
            direct = model(pixel_values=pixels).last_hidden_state.mean(1)[0].numpy()
        np.testing.assert_allclose(vectors[row], direct, atol=2e-4)


def test_images_are_cached_by_their_pixels(vit, tmp_path):
    images = some_images(20)
    store = SignalStore(tmp_path)
    first = embed_images(images, vit, store, progress=False)
    assert store.computed == 20
    copies = [image.copy() for image in images]
    again = embed_images(copies[::-1], vit, store, progress=False)
    assert store.computed == 0
    assert again[::-1].tobytes() == first.tobytes()
    changed = copies[4]
    changed.putpixel((1, 1), tuple(255 - value for value in changed.getpixel((1, 1))))
    grown = embed_images([images[0], changed, *images[1:], images[3]], vit, store, progress=False)
    assert store.computed == 1
    assert np.delete(grown, 1, axis=0)[:20].tobytes() == first.tobytes()
    assert grown[-1].tobytes() == first[3].tobytes()


def test_an_image_of_the_same_bytes_and_another_shape_is_another_image(vit, tmp_path):
    from PIL import Image

    pixels = np.arange(12 * 18 * 3, dtype=np.uint8)
    tall, wide = (Image.fromarray(pixels.reshape(*shape, 3)) for shape in ((18, 12), (12, 18)))
    store = SignalStore(tmp_path)
    embed_images([tall, wide], vit, store, progress=False)
    assert store.computed == 2


def test_a_dataset_of_images(tiny_vit, cache):
    import datasets

    import datapruner as dp

    images = some_images(24)
    rows = datasets.Dataset.from_dict({"image": images, "label": list(range(24))}).cast_column(
        "image", datasets.Image()
    )
    kept = dp.prune(rows, scorer="concept_complexity", keep=0.5, embedder=str(tiny_vit), progress=False)
    assert len(kept.dataset) == 12
    assert list((cache / "signals").glob("*/*.shard2"))
    with pytest.raises(DataPrunerError, match="image model"):
        dp.prune(rows, scorer="concept_complexity", keep=0.5, progress=False)


# --- the command line ---------------------------------------------------------------------------------------


# Torch, faiss and umap each bring threads of their own: a fork after they started can hang for ever.
FORKS_TOLD = (
    "import os; os.register_at_fork(before=lambda: os.write(2, b'forked')); "
    "from datapruner.cli import main; main()"
)


@pytest.mark.slow  # processes of their own that open everything; what damage does to a store: test_store.py
@pytest.mark.parametrize("scorer", ["prototypes", "concept_complexity"])
def test_a_damaged_shard_is_told_in_one_line_on_stderr(
    scorer, tiny_sentence_transformer, cache, tmp_path, monkeypatch, capfd
):
    """The first run in a process of its own, in which the vectors, and UMAP's places, are the same."""
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in some_texts(40)))
    line = ["prune", source, "--scorer", scorer, "--keep", 0.5, "--embedder", tiny_sentence_transformer, "-o"]

    def beside_progress(said):
        lines = without_progress(said).splitlines(keepends=True)
        return "".join(line for line in lines if "sets the limit" not in line)

    done = subprocess.run(
        [sys.executable, "-c", FORKS_TOLD, *map(str, [*line, tmp_path / "one"])],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert beside_progress(done.stderr) == ""
    (shard,) = cache.rglob("*.shard2")
    for path in [*cache.rglob("*.rows"), *cache.rglob("*.sum")]:
        path.unlink()
    raw = bytearray(shard.read_bytes())
    raw[len(raw) // 2] ^= 1
    shard.write_bytes(raw)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's; a program of its own has none
    assert command(monkeypatch, *line, tmp_path / "two") == 0
    said = beside_progress(capfd.readouterr().err)
    assert said.count("\n") == 1
    assert f"a stored shard is damaged ({shard.name}): its rows are computed again" in said
    for file in (tmp_path / "one").rglob("*"):
        if file.is_file():
            assert (
                file.read_bytes() == (tmp_path / "two" / file.relative_to(tmp_path / "one")).read_bytes()
            ), file.name
