from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from datapruner.errors import DataPrunerError
from datapruner.models.embedders import load_image_embedder, load_text_embedder
from datapruner.models.encoders import Encoder
from datapruner.signals.embedding import embed_texts
from datapruner.signals.store import SignalStore

TEXTS = [
    "a",
    "the sum of two and three is five",
    "",
    "Zoë: 你好 " * 30,
    "write a function that sorts a list " * 3,
]


def copied(folder, target):
    shutil.copytree(folder, target)
    return target


def edit_config(folder, **changed):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    return folder


def edit_tensors(folder, change):
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})
    return folder


def test_encoder_is_any_object_with_encode():
    class Mine:
        def encode(self, texts):
            return texts

    assert isinstance(Mine(), Encoder)
    assert not isinstance(object(), Encoder)


# --- language models ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_a_language_model_pools_like_transformers_row_by_row(tiny_llama, tmp_path, pooling):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()
    embedder = load_text_embedder(str(tiny_llama), pooling=pooling, max_length=100)
    vectors = embed_texts(TEXTS, embedder, SignalStore(tmp_path), progress=False)
    for row, text in enumerate(TEXTS):
        ids = tokenizer(text)["input_ids"][:100] or [tokenizer.eos_token_id]
        with torch.inference_mode():
            hidden = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0]
        direct = hidden.mean(0) if pooling == "mean" else hidden[-1]
        np.testing.assert_allclose(vectors[row], direct.numpy(), atol=1e-5)
    assert np.abs(vectors[0] - vectors[1]).max() > 0.01


def test_a_language_models_bits_do_not_depend_on_company(tiny_llama, tmp_path):
    embedder = load_text_embedder(str(tiny_llama), max_length=100)
    texts = [f"{'word ' * (row % 29)}{row}" for row in range(80)]
    together = embed_texts(texts, embedder, SignalStore(tmp_path / "a"), progress=False)
    for row in (0, 3, 28, 57, 79):
        alone = embed_texts([texts[row]], embedder, SignalStore(tmp_path / f"{row}"), progress=False)
        assert alone.tobytes() == together[row : row + 1].tobytes()


def test_auto_is_the_mean_for_a_language_model_and_pooling_is_part_of_the_identity(tiny_llama):
    auto, mean, last = (load_text_embedder(str(tiny_llama), pooling=p) for p in ("auto", "mean", "last"))
    assert auto.context == mean.context != last.context
    assert auto.width == 32
    assert auto.max_length == 1024


# --- identity -----------------------------------------------------------------------------------------------


def test_using_an_embedder_does_not_change_its_identity(tiny_sentence_transformer):
    from datapruner.models.identity import tokenizer_hash

    first = load_text_embedder(str(tiny_sentence_transformer))
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_sentence_transformer)
    before = tokenizer_hash(tokenizer)
    tokenizer(TEXTS, truncation=True, max_length=9, padding=True)
    assert tokenizer_hash(tokenizer) == before
    assert load_text_embedder(str(tiny_sentence_transformer)).context == first.context


def test_the_same_tensors_under_another_configuration_are_another_model(tiny_sentence_transformer, tmp_path):
    other = edit_config(copied(tiny_sentence_transformer, tmp_path / "other"), hidden_act="relu")
    one, two = load_text_embedder(str(tiny_sentence_transformer)), load_text_embedder(str(other))
    assert one.context["model"] == two.context["model"]
    assert one.context != two.context
    ids = np.arange(8).reshape(1, 8)
    assert (one.forward(ids, np.ones_like(ids)) != two.forward(ids, np.ones_like(ids))).any()


def test_a_copy_of_a_folder_is_the_same_model(tiny_sentence_transformer, tmp_path):
    other = copied(tiny_sentence_transformer, tmp_path / "elsewhere")
    assert (
        load_text_embedder(str(other)).context == load_text_embedder(str(tiny_sentence_transformer)).context
    )


# --- checkpoints that do not fit ----------------------------------------------------------------------------


def test_a_missing_pooler_neither_harms_nor_changes_the_identity(tiny_sentence_transformer, tmp_path):
    whole = load_text_embedder(str(tiny_sentence_transformer))
    folder = edit_tensors(
        copied(tiny_sentence_transformer, tmp_path / "st"),
        lambda tensors: {key: value for key, value in tensors.items() if "pooler" not in key},
    )
    one, two = load_text_embedder(str(folder)), load_text_embedder(str(folder))
    assert one.context == two.context
    ids = np.arange(8).reshape(1, 8)
    np.testing.assert_array_equal(one.forward(ids, np.ones_like(ids)), whole.forward(ids, np.ones_like(ids)))


@pytest.mark.parametrize(
    "lost", ["encoder.layer.1.attention.output.dense.weight", "embeddings.LayerNorm.weight"]
)
def test_a_sentence_transformer_that_lacks_tensors_is_refused(tiny_sentence_transformer, tmp_path, lost):
    folder = edit_tensors(
        copied(tiny_sentence_transformer, tmp_path / "st"),
        lambda tensors: {key: value for key, value in tensors.items() if key != lost},
    )
    with pytest.raises(DataPrunerError, match=f"missing keys {lost}"):
        load_text_embedder(str(folder))


def test_an_embedder_that_does_not_pool_ends_with_a_sentence(tiny_sentence_transformer, tmp_path):
    folder = copied(tiny_sentence_transformer, tmp_path / "st")
    listed = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(listed[:1]))
    with pytest.raises(DataPrunerError, match="its modules do not pool"):
        load_text_embedder(str(folder))


def test_damaged_files_end_with_a_sentence(tiny_sentence_transformer, tiny_vit, tmp_path):
    folder = copied(tiny_sentence_transformer, tmp_path / "st")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(DataPrunerError, match="cannot be loaded"):
        load_text_embedder(str(folder))
    (folder / "config.json").write_text("{")
    with pytest.raises(DataPrunerError, match="cannot be loaded"):
        load_text_embedder(str(folder))
    image = copied(tiny_vit, tmp_path / "vit")
    (image / "model.safetensors").write_bytes(b"x")
    with pytest.raises(DataPrunerError, match="cannot be loaded"):
        load_image_embedder(str(image))


def test_an_image_model_that_lacks_tensors_is_refused(tiny_vit, tmp_path):
    folder = edit_tensors(
        copied(tiny_vit, tmp_path / "vit"),
        lambda tensors: {key: value for key, value in tensors.items() if key != "layernorm.weight"},
    )
    with pytest.raises(DataPrunerError, match=r"missing keys layernorm\.weight"):
        load_image_embedder(str(folder))


def test_an_image_model_without_a_pooler_has_one_identity(tiny_vit):
    assert load_image_embedder(str(tiny_vit)).context == load_image_embedder(str(tiny_vit)).context


def test_a_limit_between_two_buckets_never_passes_the_models_positions(tmp_path):
    from conftest import save_tiny_sentence_transformer

    folder = save_tiny_sentence_transformer(tmp_path, positions=77)
    embedder = load_text_embedder(str(folder))
    assert embedder.max_length == 77
    texts = ["x y z " * count for count in range(40)]
    vectors = embed_texts(texts, embedder, SignalStore(tmp_path / "cache"), progress=False)
    assert 77 in {len(ids) for ids in embedder.tokenize(texts)}
    assert any(72 < len(ids) < 77 for ids in embedder.tokenize(texts))
    assert np.isfinite(vectors).all()


def test_a_default_prompt_is_part_of_the_text_and_of_the_identity(tiny_sentence_transformer, tmp_path):
    from sentence_transformers import SentenceTransformer

    folder = copied(tiny_sentence_transformer, tmp_path / "st")
    path = folder / "config_sentence_transformers.json"
    described = json.loads(path.read_text())
    path.write_text(
        json.dumps({**described, "prompts": {"passage": "passage: "}, "default_prompt_name": "passage"})
    )
    embedder = load_text_embedder(str(folder))
    assert embedder.context["prefix"] == "passage: "
    ours = embed_texts(TEXTS, embedder, SignalStore(tmp_path / "cache"), progress=False)
    theirs = SentenceTransformer(str(folder), device="cpu").encode(TEXTS, show_progress_bar=False)
    fits = np.array([len(ids) <= embedder.max_length for ids in embedder.whole(TEXTS)])
    assert fits.sum() >= 4
    np.testing.assert_allclose(ours[fits], theirs[fits], atol=1e-5)
    pooling = folder / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({**json.loads(pooling.read_text()), "include_prompt": False}))
    with pytest.raises(DataPrunerError, match="pools without its prompt"):
        load_text_embedder(str(folder))
