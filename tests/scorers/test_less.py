"""Whole runs over a warm-up's checkpoints, against LESS written down with peft, autograd and torch's own AdamW."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch
import yaml

import datapruner as dp
from datapruner.models import loading
from datapruner.samples import load_samples
from datapruner.scorers import NearestTarget, Perplexity
from datapruner.signals.language_model import LanguageModel
from tests.conftest import command, save_tiny_llama
from tests.scorers.test_nearest_target import published

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

GRADIENT = NearestTarget(representation="gradient")
WORDS = ["ship", "sail", "wave", "salt", "harbour", "flour", "oven", "yeast", "crust", "dough"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Rows, a target, and what transformers' trainer leaves of a short training of an adapter on some of the rows."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

    made, rng = tmp_path_factory.mktemp("less"), np.random.default_rng(0)

    def write(name, count):
        rows = [
            {"prompt": f"{' '.join(rng.choice(WORDS, 3))}?", "completion": " ".join(rng.choice(WORDS, 4))}
            for _ in range(count)
        ]
        (made / name).write_text("".join(json.dumps(one) + "\n" for one in rows))

    write("rows.jsonl", 8)
    write("target.jsonl", 3)
    base = save_tiny_llama(made / "base")
    rows = list(
        LanguageModel(None, AutoTokenizer.from_pretrained(base), 256).render(
            load_samples(str(made / "rows.jsonl")), np.arange(4)
        )
    )
    data = [{"input_ids": row.input_ids.tolist(), "labels": row.input_ids.tolist()} for row in rows]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
        model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
        Trainer(
            model,
            TrainingArguments(
                str(made / "warm"),
                per_device_train_batch_size=1,
                num_train_epochs=2,
                learning_rate=1e-2,
                save_strategy="epoch",
                logging_steps=1,
                report_to=[],
                use_cpu=True,
                disable_tqdm=True,
            ),
            train_dataset=data,
        ).train()
    return made


def less(folder, checkpoints, *, adam=True):
    """The influence of every row on every row of the target, by a loop over rows; float64 (n, m)."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    sets = [load_samples(str(folder / name)) for name in ("rows.jsonl", "target.jsonl")]
    rows, target = (
        list(LanguageModel(None, tokenizer, 256).render(one, np.arange(len(one)))) for one in sets
    )
    influence, total = np.zeros((len(rows), len(target))), 0.0
    for before, checkpoint in pairwise([None, *checkpoints]):
        base = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float64)
        model = peft.PeftModel.from_pretrained(
            base, checkpoint, is_trainable=True, autocast_adapter_dtype=False
        )
        weights = [weight.double() for weight in model.parameters() if weight.requires_grad]

        def gradient(row, model=model):
            ids = torch.from_numpy(row.input_ids).long()[None]
            model.zero_grad()
            model.eval()(
                input_ids=ids, labels=torch.where(torch.from_numpy(row.supervised), ids, -100)
            ).loss.backward()
            return [one.grad.clone() for one in model.parameters() if one.requires_grad]

        def step(grads, weights=weights, checkpoint=checkpoint):
            alone = [torch.zeros_like(weight, requires_grad=True) for weight in weights]
            adam = torch.optim.AdamW([{"params": alone}, {"params": []}], foreach=False)
            state = torch.load(checkpoint / "optimizer.pt", weights_only=True)
            for group in state["param_groups"]:
                group |= {"lr": 1.0, "weight_decay": 0.0, "fused": None}
            adam.load_state_dict(state)
            for one, grad in zip(alone, grads, strict=True):
                one.grad = grad
            adam.step()
            return [-one.detach() for one in alone]

        def unit(parts):
            vector = torch.cat([part.reshape(-1) for part in parts]).numpy()
            return vector / np.linalg.norm(vector)

        log = json.loads((checkpoint / "trainer_state.json").read_text())
        since = (
            0 if before is None else json.loads((before / "trainer_state.json").read_text())["global_step"]
        )
        rate = np.mean([one["learning_rate"] for one in log["log_history"] if one["step"] > since])
        own = np.stack([unit(step(gradient(row)) if adam else gradient(row)) for row in rows])
        influence += rate * own @ np.stack([unit(gradient(row)) for row in target]).T
        total += rate
    return influence / total


def checkpoints(folder):
    return [folder / "warm" / f"checkpoint-{step}" for step in (4, 8)]


def options(folder, **more):
    return {
        "model": str(folder / "base"),
        "target": str(folder / "target.jsonl"),
        "dtype": "float64",
        "sketch_dimension": 0,
        "cache": folder / "cache",
        "progress": False,
        **more,
    }


def similarity(table, scores):
    """What the table says of the row of the target that chose each row."""
    return table[np.arange(len(table)), scores.rankings["nearest_target"].columns["query"]]


def test_it_is_less(folder):
    table = less(folder, checkpoints(folder))
    asked = options(folder, sketch_checkpoints=folder / "warm")
    scores = dp.score(str(folder / "rows.jsonl"), scorers=GRADIENT, **asked)
    found = scores.rankings["nearest_target"]
    np.testing.assert_allclose(
        found.columns["target_similarity"], similarity(table, scores), rtol=1e-5, atol=1e-6
    )
    order = np.argsort(-found.values)
    queries = found.columns["query"][order].tolist()
    assert list(zip(order.tolist(), queries, strict=True)) == published(table.tolist())
    plain = less(folder, checkpoints(folder)[:1], adam=False)
    asked |= {"sketch_checkpoints": [str(checkpoints(folder)[0])], "sketch_moments": "none"}
    scores = dp.score(str(folder / "rows.jsonl"), scorers=GRADIENT, **asked)
    found = scores.rankings["nearest_target"].columns["target_similarity"]
    np.testing.assert_allclose(found, similarity(plain, scores), rtol=1e-5, atol=1e-6)
    assert np.abs(plain - table).max() > 0.05


def test_an_adapter_as_the_model(folder):
    """The adapter's own layers, its moments, and all layers of the merged model."""
    one = checkpoints(folder)[1]
    table = less(folder, [one])
    asked = options(folder, model=str(one), sketch_layers="lora", sketch_lengths="own", sketch_moments="adam")
    shutil.copytree(
        folder / "base", one, dirs_exist_ok=True, ignore=lambda *_: ["config.json", "model.safetensors"]
    )
    scores = dp.score(str(folder / "rows.jsonl"), scorers=GRADIENT, **asked)
    found = scores.rankings["nearest_target"].columns["target_similarity"]
    np.testing.assert_allclose(found, similarity(table, scores), rtol=1e-5, atol=1e-6)
    beside = options(
        folder, adapter=str(one), sketch_layers="lora", sketch_lengths="own", sketch_moments="adam"
    )
    again = dp.score(str(folder / "rows.jsonl"), scorers=GRADIENT, **beside).rankings["nearest_target"]
    assert again.columns["target_similarity"].tolist() == found.tolist()
    whole = dp.score(
        str(folder / "rows.jsonl"), scorers=GRADIENT, **options(folder, model=str(one), sketch_dimension=64)
    )
    assert whole.rankings["nearest_target"].columns["target_similarity"].max() <= 1


def test_the_command_line_and_the_recipe(folder, monkeypatch):
    out = folder / "out"
    words = ["--target", str(folder / "target.jsonl"), "--model", str(folder / "base"), "--dtype", "float64"]
    words += [
        "--sketch-checkpoints",
        str(checkpoints(folder)[1]),
        "--sketch-checkpoints",
        str(checkpoints(folder)[0]),
    ]
    words += ["--sketch-rates", "1", "--sketch-rates", "3", "--sketch-dimension", "0"]
    words += ["--scorer", "nearest_target", "--set", "representation=gradient", "--keep", "5"]
    line = ["prune", folder / "rows.jsonl", *words, "-o", out, "--cache", folder / "cache"]
    assert command(monkeypatch, *line) == 0
    recipe = yaml.safe_load((out / "recipe.yaml").read_text())
    assert recipe["sketch_checkpoints"] == ["../warm/checkpoint-8", "../warm/checkpoint-4"]
    assert recipe["sketch_rates"] == [1.0, 3.0]
    parts = [less(folder, [one]) for one in reversed(checkpoints(folder))]

    def closed(*_, **__):
        raise AssertionError("a warm run opens no model")

    monkeypatch.setattr(loading, "load_causal_model", closed)
    asked = options(folder, sketch_checkpoints=list(reversed(checkpoints(folder))), sketch_rates=[1, 3])
    scores = dp.score(str(folder / "rows.jsonl"), scorers=GRADIENT, **asked)
    found = scores.rankings["nearest_target"].columns["target_similarity"]
    table = parts[0] / 4 + 3 * parts[1] / 4
    np.testing.assert_allclose(found, similarity(table, scores), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (
            {"sketch_checkpoints": "nowhere"},
            "there is no folder 'nowhere'; sketch_checkpoints= takes the folders",
        ),
        (
            {"sketch_checkpoints": "cache"},
            "is no checkpoint: it has neither adapter_config.json, nor config.json",
        ),
        ({"sketch_checkpoints": ["warm", "warm/checkpoint-4"]}, "names a checkpoint twice"),
        ({"sketch_checkpoints": ["warm", "base"]}, "some .* are adapters and some are whole models"),
        ({"sketch_checkpoints": "warm", "sketch_rates": [1.0]}, "has 1 numbers, and there are 2 checkpoints"),
        (
            {"sketch_checkpoints": "warm", "sketch_rates": [0, 0]},
            "learning rates are 0, 0: none may be below 0",
        ),
        (
            {"sketch_checkpoints": "warm", "sketch_rates": [-1, 2]},
            "learning rates are -1, 2: none may be below 0",
        ),
        (
            {"sketch_checkpoints": "warm", "sketch_layers": "all"},
            "takes the model's own layers, and an adapter's",
        ),
        ({"sketch_checkpoints": ["bare", "warm/checkpoint-4"]}, "'.*bare' has no optimizer.pt"),
        (
            {"sketch_checkpoints": ["bare", "warm/checkpoint-4"], "sketch_moments": "none"},
            "the trainer_state.json of '.*bare' has no learning rate since .* counts with sketch_rates",
        ),
        ({"sketch_rates": [1.0]}, "sketch_rates= are of sketch_checkpoints=, and there are none"),
        ({"sketch_moments": "adam"}, "'.*base' has no optimizer.pt, the state of Adam"),
        ({"sketch_layers": "lora"}, "LlamaForCausalLM has no LoRA adapter whose layers"),
        ({"sketch_moments": "sgd"}, "'sgd' is no value for sketch_moments"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(folder, asked, sentence, monkeypatch):
    bare = folder / "bare"
    bare.mkdir(exist_ok=True)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(checkpoints(folder)[0] / name, bare)
    (folder / "cache").mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    with pytest.raises(dp.DataPrunerError, match=sentence):
        dp.score("rows.jsonl", scorers=GRADIENT, **options(folder, **asked))


@pytest.mark.parametrize(
    ("scorer", "asked", "named"),
    [
        (
            Perplexity(),
            {"sketch_dimension": 64},
            "sketch_dimension= is given, and nothing in this run reads it",
        ),
        (
            Perplexity(),
            {"sketch_checkpoints": "warm"},
            "sketch_checkpoints= is given.*of the signal gradient_sketch",
        ),
        (
            NearestTarget(representation="sketch"),
            {"sketch_layers": "all"},
            "sketch_layers= is given.*gradient_sketch",
        ),
        (NearestTarget(), {"sketch_seed": 1}, "sketch_seed= is given.*gradient_sketch"),
    ],
)
def test_options_that_nobody_reads_are_refused(folder, scorer, asked, named):
    given = {"model": str(folder / "base"), "progress": False, **asked}
    if isinstance(scorer, NearestTarget):
        given["target"] = str(folder / "target.jsonl")
    with pytest.raises(dp.DataPrunerError, match=named):
        dp.score(str(folder / "rows.jsonl"), scorers=scorer, **given)
