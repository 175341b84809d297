"""PASER's damage by gradients of all linear layers: two tiny models, their gradients one by one, and plain loops."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import datapruner as dp
from datapruner.models import load_causal_lm
from datapruner.samples import load_samples
from datapruner.scorers import Paser
from datapruner.signals.language_model import LanguageModel
from datapruner.signals.language_model.gradients import measure_gradients
from datapruner.signals.language_model.sketch import GradientSketch
from datapruner.signals.store import SignalStore
from tests.conftest import save_tiny_llama

WORDS = ["ship", "sail", "wave", "salt", "harbour", "flour", "oven", "yeast", "crust", "dough"]
LAYERS = Paser(within="skill", degradation="layers", concepts=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Rows of three skills, a model, the same with the smallest half of its weights at zero, and a narrower one."""
    from transformers import AutoModelForCausalLM

    made, rng = tmp_path_factory.mktemp("paser"), np.random.default_rng(0)
    rows = [
        {
            "prompt": " ".join(rng.choice(WORDS, 3)),
            "completion": " ".join(rng.choice(WORDS, 4)),
            "skill": skill,
        }
        for skill in "aabbbccccc"
    ]
    (made / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    model = AutoModelForCausalLM.from_pretrained(save_tiny_llama(made / "dense"))
    with torch.no_grad():
        for layer in model.model.layers:
            for weight in layer.parameters():
                if weight.ndim == 2:
                    weight[weight.abs() < weight.abs().median()] = 0
    model.save_pretrained(save_tiny_llama(made / "pruned"))
    for layer in model.model.layers:
        for name in ("gate_proj", "up_proj"):
            narrow = getattr(layer.mlp, name)
            narrow.weight, narrow.out_features = torch.nn.Parameter(narrow.weight[:32].clone()), 32
        layer.mlp.down_proj.weight = torch.nn.Parameter(layer.mlp.down_proj.weight[:, :32].clone())
    model.config.intermediate_size = 32
    model.save_pretrained(save_tiny_llama(made / "narrow"))
    return made


def run(folder, **options):
    asked = {"model": str(folder / "dense"), "pruned_model": str(folder / "pruned"), "sketch_dimension": 0}
    asked |= {"cache": folder / "cache", "progress": False}
    return dp.score(str(folder / "rows.jsonl"), scorers=LAYERS, **(asked | options)).rankings["paser"]


def test_damage_is_one_less_the_correlation_over_all_layers(folder):
    samples, every = load_samples(str(folder / "rows.jsonl")), np.arange(10)
    sketch, store = GradientSketch(None), SignalStore(folder / "apart")
    dense, pruned = (
        measure_gradients(
            samples,
            every,
            LanguageModel(*load_causal_lm(str(folder / name)), 512),
            store,
            sketch,
            progress=False,
        ).astype(np.float64)
        for name in ("dense", "pruned")
    )
    found, expected = run(folder), []
    for rows in ([0, 1], [2, 3, 4], [5, 6, 7, 8, 9]):
        dot = sum(float(dense[row] @ pruned[row]) for row in rows)
        sizes = [sum(float(of[row] @ of[row]) for row in rows) for of in (dense, pruned)]
        expected.append(1 - dot / np.sqrt(sizes[0] * sizes[1]))
    np.testing.assert_allclose(found.group_weights, expected, rtol=1e-4)
    assert min(expected) > 0.01
    same = run(folder, pruned_model=str(folder / "dense"))
    assert same.columns["degradation"].max() < 1e-6


def test_other_layers_and_other_gradients_are_refused(folder):
    with pytest.raises(dp.DataPrunerError, match="linear layers are not those of the dense one"):
        run(folder, pruned_model=str(folder / "narrow"))
    with pytest.raises(dp.DataPrunerError, match="pruned_model="):
        run(folder, pruned_model=None)
    with pytest.raises(dp.DataPrunerError, match="as they are; leave sketch_checkpoints= out"):
        run(folder, sketch_checkpoints=[str(folder / "dense")])
    with pytest.raises(dp.DataPrunerError, match="degradation=layers compares rows"):
        Paser(degradation="layers", budget="token_degradation")
