"""Clusters and coverage by what a language model makes of rows: the same as of these vectors when they are given."""

from __future__ import annotations

import json

import numpy as np
import pytest

import datapruner as dp
from datapruner.models import load_causal_lm
from datapruner.samples import load_samples
from datapruner.signals.language_model import LanguageModel, measure_language_model
from datapruner.signals.language_model.gradients import measure_gradients
from datapruner.signals.language_model.sketch import GradientSketch, Sketch
from datapruner.signals.store import SignalStore
from tests.conftest import command, save_tiny_llama

WORDS = ["ship", "sail", "wave", "salt", "harbour", "flour", "oven", "yeast", "crust", "dough"]
SCORERS = ["k_center", "d2", "prototypes"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made, rng = tmp_path_factory.mktemp("vectors"), np.random.default_rng(0)
    rows = [
        {"prompt": " ".join(rng.choice(WORDS, 3)), "completion": " ".join(rng.choice(WORDS, 4)), "n": number}
        for number in range(24)
    ]
    (made / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    save_tiny_llama(made / "lm")
    return made


@pytest.fixture(scope="module")
def vectors(folder):
    """What each choice stands for, by the functions that measure it."""
    samples, every = load_samples(str(folder / "rows.jsonl")), np.arange(24)
    reader = LanguageModel(*load_causal_lm(str(folder / "lm")), 512)
    store = SignalStore(folder / "apart")
    plain = measure_language_model(
        samples, every, reader, store, pools=True, sketch=Sketch(64), progress=False
    )
    gradient = measure_gradients(samples, every, reader, store, GradientSketch(64), progress=False)
    return {"state": plain["pooled_state"], "sketch": plain["output_sketch"], "gradient": gradient}


def options(folder, vectors):
    sketched = {} if vectors == "state" else {"sketch_dimension": 64}
    return {
        "vectors": vectors,
        "model": str(folder / "lm"),
        "cache": folder / "cache",
        "progress": False,
    } | sketched


@pytest.mark.parametrize("which", ["state", "sketch", "gradient"])
def test_they_are_the_vectors_of_the_model(which, folder, vectors):
    source = str(folder / "rows.jsonl")
    found = dp.score(source, scorers=SCORERS, **options(folder, which))
    given = np.array(vectors[which])
    expected = dp.score(source, scorers=SCORERS, embeddings=given, cache=folder / "cache", progress=False)
    for name in SCORERS:
        values = expected.rankings[name].values
        np.testing.assert_allclose(found.rankings[name].values, values, rtol=1e-3, atol=1e-4)
        assert np.ptp(values) > 0.1


def test_the_command_line_and_the_recipe(folder, monkeypatch):
    line = [
        "prune",
        folder / "rows.jsonl",
        "--scorer",
        "k_center",
        "--keep",
        "6",
        "--cache",
        folder / "cache",
    ]
    line += [
        "--vectors",
        "gradient",
        "--sketch-dimension",
        "64",
        "--model",
        folder / "lm",
        "-o",
        folder / "out",
    ]
    assert command(monkeypatch, *line) == 0
    again = ["run", folder / "out/recipe.yaml", "-o", folder / "again", "--cache", folder / "cache"]
    assert command(monkeypatch, *again) == 0
    kept = [dp.load_samples(str(folder / name / "data")).column("n") for name in ("out", "again")]
    asked = options(folder, "gradient")
    chosen = dp.prune(str(folder / "rows.jsonl"), scorer="k_center", keep=6, **asked).indices
    assert list(kept[0]) == list(kept[1]) == chosen.tolist()


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (
            {"model": None},
            "the scorer 'k_center' reads a language model's gradients.*vectors='embedding' does without",
        ),
        (
            {"embedder": "lm"},
            "vectors='gradient' takes a language model's vectors, and embedder= names others",
        ),
        (
            {"embeddings": np.eye(24, dtype=np.float32)},
            "a language model's vectors, and embeddings= names others",
        ),
        ({"scorers": "perplexity"}, "vectors= is given, and nothing in this run reads it"),
        (
            {"scorers": "feature_mapping", "target": "rows.jsonl"},
            "compares rows with the target's by an embedder.s vectors.*nearest_target with representation=gradient",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(folder, asked, sentence, monkeypatch):
    monkeypatch.chdir(folder)
    given = {"scorers": "k_center", **options(folder, "gradient"), **asked}
    if given["scorers"] == "perplexity":
        del given["sketch_dimension"]
    with pytest.raises(dp.DataPrunerError, match=sentence):
        dp.score("rows.jsonl", **given)
