"""What do sketches of gradients cost beside the pass of losses, and how near do they come to the gradients?

- losses: ``measure_language_model`` on rows of the mixture, with an empty store; "output" is the same with
  ``pooled_state`` and ``output_sketch``. Both in turns, so that a slow minute of the machine hits both. Goal: at most
  1.10 times.
- deep: ``gradient_sketch`` of every linear layer on the same rows, in the same turns, told in multiples of the losses.
- bergson, where it is installed: the same rows' gradients of the same layers by its collector, 16 x 16 numbers a layer
  as its default is, in batches of its own making, with the numbers held in memory.
- nearness: cosines of all pairs of some rows by sketches of several dimensions and seeds, beside the exact ones of the
  output layer (by Gram matrices, from all residuals), and for the body beside tables of 64 x 64 numbers a layer.

    python benchmarks/sketches.py --rows 500 --repeats 3 --near-rows 60
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
import torch
from common import MIXTURE, RESULTS, in_turns, machine, ratio, sample_rows, summary, versions, write
from numpy.typing import NDArray

from datapruner.models import load_causal_lm
from datapruner.models.sizes import context_length
from datapruner.ranks import spearman
from datapruner.samples import load_samples
from datapruner.signals.language_model import LanguageModel, linear_layers, measure_language_model
from datapruner.signals.language_model.find_output_layer import body, find_output_layer
from datapruner.signals.language_model.gradients import measure_gradients
from datapruner.signals.language_model.sketch import GradientSketch, Sketch, Sketched
from datapruner.signals.language_model.token_statistics import output_statistics
from datapruner.signals.store import SignalStore

DIMENSION = 4096
DIMENSIONS = (1024, 2048, 4096, 8192)
SEEDS = (0, 1, 2)
NEIGHBOURS = 10
REFERENCE_SIDE = 64
BERGSON_SIDE = 16
GOAL = 1.10
ARMS = ("losses", "output", "deep", "bergson")
"""The pass of losses, the same with pooled states and the output layer's sketch, the pass with a way back."""
BESIDE = (("output", "losses"), ("deep", "losses"), ("bergson", "deep"))

Table = NDArray[np.float64]


def cosines(products: Table) -> Table:
    """Inner products of all pairs as cosines."""
    lengths = np.sqrt(np.diag(products))
    return products / lengths[:, None] / lengths


def nearness(found: Table, exact: Table) -> dict[str, float]:
    """How near cosines come: rank correlation over pairs, rows shared among the nearest, root mean square error."""
    above = np.triu_indices(len(exact), 1)

    def nearest(of: Table) -> NDArray[np.int64]:
        others = of - 2 * np.eye(len(of))
        return np.argsort(-others, axis=1)[:, :NEIGHBOURS]

    pairs = zip(nearest(found), nearest(exact), strict=True)
    return {
        "rank_correlation": float(spearman(found[above], exact[above])),
        "shared_of_nearest": float(np.mean([len(set(a) & set(b)) / NEIGHBOURS for a, b in pairs])),
        "error": float(np.sqrt(np.mean((found[above] - exact[above]) ** 2))),
    }


def over_seeds(sketches: Callable[[int], Table], exact: Table) -> dict[str, list[float]]:
    """The same for several seeds, each figure's values."""
    runs = []
    for seed in SEEDS:
        held = sketches(seed).astype(np.float64)
        runs.append(nearness(cosines(held @ held.T), exact))
    return {name: [round(run[name], 4) for run in runs] for name in runs[0]}


def output_nearness(feed: LanguageModel, samples: Any, rows: NDArray[np.int64]) -> dict[str, Any]:
    """Sketches of the output layer's gradient beside the gradients themselves."""
    layer = find_output_layer(feed.model)
    states, targets, lengths = [], [], []
    for row in feed.render(samples, rows):
        ids, at = torch.from_numpy(row.input_ids).long(), np.flatnonzero(row.supervised)
        with torch.inference_mode():
            states.append(body(feed.model)(input_ids=ids[None], use_cache=False).last_hidden_state[0, at - 1])
        targets.append(ids[at])
        lengths.append(len(at))
    hidden, wanted = torch.cat(states).clone(), torch.cat(targets)
    with torch.inference_mode():
        residuals = torch.softmax(hidden @ layer.weight.T, dim=1)
        residuals[torch.arange(len(wanted)), wanted] -= 1
        grams = (residuals @ residuals.T).double() * (hidden @ hidden.T).double()
        of = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(lengths))
        means = torch.zeros(len(rows), len(wanted), dtype=torch.float64)
        means[of, torch.arange(len(wanted))] = 1 / torch.tensor(lengths)[of].double()
        exact = cosines((means @ grams @ means.T).numpy())
        del residuals, grams

    def sketches(dimension: int, seed: int) -> Table:
        sketched = Sketched.of_output(Sketch(dimension, seed), *layer.weight.shape)
        found = output_statistics(layer, hidden, wanted, lengths, sketched=sketched).sketch
        assert found is not None
        return found

    out = {str(d): over_seeds(lambda seed, d=d: sketches(d, seed), exact) for d in DIMENSIONS}
    print({name: of["rank_correlation"] for name, of in out.items()}, file=sys.stderr)
    return {"tokens": len(wanted), "dimensions": out}


def deep_nearness(feed: LanguageModel, samples: Any, rows: NDArray[np.int64]) -> dict[str, Any]:
    """Sketches of the body's gradients beside far larger ones."""

    def sketches(dimension: int, seed: int) -> Table:
        with tempfile.TemporaryDirectory() as folder:
            sketch = GradientSketch(dimension, seed)
            found = measure_gradients(samples, rows, feed, SignalStore(Path(folder)), sketch, progress=False)
            return np.array(found, dtype=np.float64)

    with mock.patch.object(linear_layers, "BODY_SIDE", REFERENCE_SIDE):
        large = sketches(1 << 30, len(SEEDS))  # nothing is shortened
    exact = cosines(large @ large.T)
    out = {str(d): over_seeds(lambda seed, d=d: sketches(d, seed), exact) for d in DIMENSIONS}
    print({name: of["rank_correlation"] for name, of in out.items()}, file=sys.stderr)
    reference = f"{REFERENCE_SIDE} x {REFERENCE_SIDE} a layer, {large.shape[1]:,} numbers"
    return {"reference": reference, "dimensions": out}


def by_bergson(feed: LanguageModel, samples: Any, rows: NDArray[np.int64]) -> Callable[[], Any]:
    """The same gradients by the package that is made for them; its rows are tokenised before the clock starts."""
    from bergson import CollectorComputer, GradientProcessor, IndexConfig, InMemoryCollector
    from bergson.data import allocate_batches
    from datasets import Dataset

    found = list(feed.render(samples, rows))
    data = Dataset.from_dict(
        {
            "input_ids": [row.input_ids.tolist() for row in found],
            "labels": [np.where(row.supervised, row.input_ids, -100).tolist() for row in found],
            "length": [len(row.input_ids) for row in found],
        }
    )
    folder = tempfile.mkdtemp()
    config = IndexConfig(run_path=f"{folder}/run", projection_dim=BERGSON_SIDE, loss_reduction="mean")
    config.partial_run_path.mkdir()  # it keeps the rows' losses there
    batches = allocate_batches(data["length"], config.token_batch_size)

    first = next(weight for name, weight in feed.model.named_parameters() if "layernorm" in name)

    def collect() -> Any:
        first.requires_grad_(True)  # a small weight: there is a graph from below the first layer on
        collector = InMemoryCollector(
            model=feed.model.base_model,
            data=data,
            cfg=config,
            processor=GradientProcessor(projection_dim=BERGSON_SIDE),
        )
        computer = CollectorComputer(
            model=feed.model, data=data, collector=collector, batches=batches, cfg=config
        )
        computer.run_with_collector_hooks(desc="gradients")
        feed.model.requires_grad_(False)
        first.grad = None
        return len(data), sum(of.shape[1] for of in collector.gradients.values())

    return collect


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="smollm2-135m-q4")
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--near-rows", type=int, default=60, help="0 leaves the nearness out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--output", type=Path, default=RESULTS / "sketches.json")
    arguments = parser.parse_args()
    samples = load_samples(str(MIXTURE))
    rows = sample_rows(samples, arguments.rows, arguments.seed)
    model, tokenizer = load_causal_lm(arguments.model, dtype="float32")
    feed = LanguageModel(model, tokenizer, min(2048, context_length(model, tokenizer) or 2048))

    def losses(sketch: Sketch | None) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            return measure_language_model(
                samples,
                rows,
                feed,
                SignalStore(Path(folder)),
                sketch=sketch,
                pools=sketch is not None,
                progress=False,
            )["log_ppl"]

    def deep() -> Any:
        with tempfile.TemporaryDirectory() as folder:
            sketch = GradientSketch(DIMENSION)
            return measure_gradients(
                samples, rows, feed, SignalStore(Path(folder)), sketch, progress=False
            ).shape

    arms = {
        "losses": lambda _: losses(None),
        "output": lambda _: losses(Sketch(DIMENSION)),
        "deep": lambda _: deep(),
    }
    if "bergson" in arguments.arms and find_spec("bergson"):
        beside = by_bergson(feed, samples, rows)
        arms["bergson"] = lambda _: beside()
    runs = in_turns({arm: arms[arm] for arm in arguments.arms if arm in arms}, arguments.repeats)
    result: dict[str, Any] = {
        "model": arguments.model,
        "rows": arguments.rows,
        "seed": arguments.seed,
        "dimension": DIMENSION,
        "goal": GOAL,
        "arms": {arm: summary(of, arguments.rows) for arm, of in runs.items()},
        **{
            f"{arm}_over_{other}": ratio(runs[arm], runs[other])
            for arm, other in BESIDE
            if arm in runs and other in runs
        },
        "numbers_a_row": {arm: of[0][1][1] for arm, of in runs.items() if arm in ("deep", "bergson")},
        "machine": machine(threads=torch.get_num_threads()),
        "versions": versions("torch", "transformers", "numpy", "bergson"),
    }
    print({name: result.get(f"{name[0]}_over_{name[1]}") for name in BESIDE}, file=sys.stderr)
    if arguments.near_rows:
        some = sample_rows(samples, arguments.near_rows, arguments.seed)
        result["output_nearness"] = output_nearness(feed, samples, some)
        result["deep_nearness"] = deep_nearness(feed, samples, some)
    write(arguments.output, result)


if __name__ == "__main__":
    main()
