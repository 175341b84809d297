"""What does the one forward pass cost, next to a plain loss of transformers and to DONOD done naively?

- ours: ``measure_language_model``, from Samples to all signals: tokenising, keys, packs, an empty store.
- plain: ``model(input_ids, attention_mask, labels)`` on the same rows, rendered, sorted by length and padded in
  batches of 8 beforehand: one loss a batch, and nothing else.
- naive DONOD, on a few rows: forward, the gradient of an untied output layer's weights by autograd, a step, two
  norms; and literally, an optimiser stepping on the model's own layer, whose weights are copied before.

The arms run in one process, in turns, so that a slow minute of the machine hits all. Beside them: where ours spends
its time, and how near the model's body comes to the fastest matrix product that torch manages in the same run.

    python benchmarks/language_model.py --rows 1000 --donod-rows 40 --repeats 3
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
import torch
from common import MIXTURE, RESULTS, Timed, in_turns, machine, ratio, sample_rows, summary, versions, write

from datapruner.models import known, load_causal_lm
from datapruner.models.sizes import context_length
from datapruner.ranks import spearman
from datapruner.samples import Rendered, load_samples
from datapruner.samples.rendering import token_counts
from datapruner.samples.samples import Samples
from datapruner.scorers.donod import weight_delta
from datapruner.signals import Ragged
from datapruner.signals.language_model import (
    LanguageModel,
    feeding,
    find_output_layer,
    forward,
    measure_language_model,
    token_statistics,
)
from datapruner.signals.language_model.attention import Pack, packed_attention
from datapruner.signals.language_model.find_output_layer import body
from datapruner.signals.language_model.sequences import Sequences as RowSequences
from datapruner.signals.store import SignalStore

SEED = 0
PLAIN_BATCH = 8
STEP_SIZE = 1e-3
PARTS = {
    "run_packed": "body",
    "output_statistics": "output layer",
    "find_output_layer": "proof of the output layer",
    "template_prefix": "proof of packing",
    "packs_exactly": "proof of packing",
    "model_identity": "hash of the weights",
}
"""Functions of the pass that are timed, beside tokenising; what is left of the time is the rest."""
HOMES = (forward, feeding, find_output_layer, token_statistics, known)
"""Where they are looked up when the pass calls them."""
SQUARES = (512, 1024, 2048, 4096)
GEMM_SECONDS, GEMM_TIMES = 0.3, 5
"""A product is repeated at least so long and so often, and its fastest time counts."""
PROFILED_PACKS = 6
GOALS = {"ours_over_plain": 0.85, "naive_over_ours": 4.0, "body_share_of_peak": 0.7}


class Parts:
    """Seconds of the pass by part. What a part calls counts as the part's, so that none overlap."""

    def __init__(self) -> None:
        self.runs: list[dict[str, float]] = []
        self.packs: list[Pack] = []
        """Those of the last run."""
        self._inside = threading.local()

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Time one run of the pass."""
        self.runs.append(defaultdict(float))
        self.packs = []
        with ExitStack() as stack:
            for name, part in PARTS.items():
                home = next(place for place in HOMES if hasattr(place, name))
                stack.enter_context(mock.patch.object(home, name, self._timing(part, getattr(home, name))))
            items = self._timing("tokenising", RowSequences.of)
            stack.enter_context(mock.patch.object(RowSequences, "of", items))
            yield

    def _timing(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            if getattr(self._inside, "now", False):
                return function(*args, **options)
            if part == "body":
                self.packs.append(fresh(args[1]))
            self._inside.now, start = True, time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                self.runs[-1][part] += time.perf_counter() - start
                self._inside.now = False

        return run

    def summary(self, runs: Sequence[Timed]) -> dict[str, dict[str, float]]:
        """Median seconds of every part, and its median share of a run."""
        for spent, (seconds, _, _) in zip(self.runs, runs, strict=True):
            spent["rest"] = seconds - sum(spent.values())
        return {
            part: {
                "seconds": round(statistics.median(spent[part] for spent in self.runs), 3),
                "share": round(
                    statistics.median(
                        spent[part] / run[0] for spent, run in zip(self.runs, runs, strict=True)
                    ),
                    4,
                ),
            }
            for part in ["tokenising", *dict.fromkeys(PARTS.values()), "rest"]
        }


def fresh(pack: Pack) -> Pack:
    """The same pack without what attention has kept in it."""
    return Pack(pack.ids, pack.positions, pack.segments, pack.prefix)


def everything(measured: dict[str, Any]) -> bytes:
    """All signals' bytes, one after the other."""
    arrays = [value.values if isinstance(value, Ragged) else value for value in measured.values()]
    return b"".join(np.asarray(array).tobytes() for array in arrays)


def labelled(row: Rendered) -> tuple[torch.Tensor, torch.Tensor]:
    """A row's ids and labels as transformers' loss takes them."""
    ids = torch.from_numpy(row.input_ids).long()
    return ids, torch.where(torch.from_numpy(row.supervised), ids, -100)


def plain_batches(rendered: Sequence[Rendered]) -> list[dict[str, torch.Tensor]]:
    """Rows sorted by length and padded in batches."""
    rows = sorted((labelled(row) for row in rendered), key=lambda row: -len(row[0]))
    batches = []
    for start in range(0, len(rows), PLAIN_BATCH):
        part = rows[start : start + PLAIN_BATCH]
        shape = len(part), len(part[0][0])
        ids, mask, labels = torch.zeros(shape).long(), torch.zeros(shape).long(), torch.full(shape, -100)
        for number, (of, targets) in enumerate(part):
            ids[number, : len(of)], mask[number, : len(of)], labels[number, : len(of)] = of, 1, targets
        batches.append({"input_ids": ids, "attention_mask": mask, "labels": labels})
    return batches


class Gemm:
    """The fastest float32 matrix products of this run: squares, and those of the model's body."""

    def __init__(self, model: Any, tokens: int) -> None:
        linear = [module for module in body(model).modules() if isinstance(module, torch.nn.Linear)]
        self.shapes = Counter((tokens, *reversed(module.weight.shape)) for module in linear)
        self.parameters = sum(module.weight.numel() for module in linear)
        self.best = dict.fromkeys([*((n, n, n) for n in SQUARES), *self.shapes], 0.0)

    def measure(self) -> None:
        """One more round; the best of all rounds counts."""
        for n, k, m in self.best:
            left, right, out = torch.randn(n, k), torch.randn(m, k), torch.empty(n, m)
            fastest, times, begun = float("inf"), 0, time.perf_counter()
            while times < GEMM_TIMES or time.perf_counter() - begun < GEMM_SECONDS:
                start = time.perf_counter()
                torch.mm(left, right.T, out=out)
                fastest, times = min(fastest, time.perf_counter() - start), times + 1
            self.best[n, k, m] = max(self.best[n, k, m], 2 * n * k * m / fastest)

    @property
    def peak(self) -> float:
        return max(self.best.values())

    def summary(self) -> dict[str, Any]:
        work = {shape: 2 * np.prod(shape) * times for shape, times in self.shapes.items()}
        attainable = sum(work.values()) / sum(work[shape] / self.best[shape] for shape in work)
        return {
            "gflops": {"x".join(map(str, shape)): round(of / 1e9, 1) for shape, of in self.best.items()},
            "peak_gflops": round(self.peak / 1e9, 1),
            "body_at_each_shapes_best_share_of_peak": round(float(attainable) / self.peak, 3),
        }


def profile(feed: LanguageModel, packs: Sequence[Pack], gemm: Gemm) -> dict[str, Any]:
    """What the body spends on matrix products, on a few packs."""
    with packed_attention(feed.model), torch.inference_mode():
        forward.run_packed(feed, fresh(packs[0]))
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            for pack in packs:
                forward.run_packed(feed, fresh(pack))
    spent = Counter({event.key: event.self_cpu_time_total / 1e6 for event in profiler.key_averages()})
    products = spent["aten::mm"] + spent["aten::addmm"]
    work = 2 * gemm.parameters * sum(len(pack.ids) for pack in packs)
    return {
        "packs": len(packs),
        "share_in_matrix_products": round(products / spent.total(), 3),
        "matrix_products_share_of_peak": round(work / products / gemm.peak, 3),
        "shares": {name: round(of / spent.total(), 3) for name, of in spent.most_common(8)},
    }


def efficiency(feed: LanguageModel, parts: Parts, gemm: Gemm, useful: int) -> dict[str, Any]:
    """How much of the machine the body uses. ``useful`` tokens are the rows', shared prefixes counted for each."""
    packs = parts.packs
    ran = sum(len(pack.ids) for pack in packs)
    own = sum(segment.length for pack in packs for segment in pack.segments)
    shares = [2 * gemm.parameters * ran / spent["body"] / gemm.peak for spent in parts.runs]
    places = np.unique(np.linspace(0, len(packs) - 1, PROFILED_PACKS).round().astype(int))
    return {
        "parameters_in_linear_layers": gemm.parameters,
        "packs": len(packs),
        "tokens_run": ran,
        "tokens_of_rows": useful,
        "share_of_filling": round(1 - own / ran, 4),
        "saved_by_the_shared_prefix": useful - own,
        "share_of_peak": [round(share, 3) for share in shares],
        "share_of_peak_median": round(statistics.median(shares), 3),
        "profile": profile(feed, [packs[place] for place in places], gemm),
    }


def naive_step(
    model: Any, weight: torch.Tensor, norm: torch.Tensor, row: tuple[torch.Tensor, torch.Tensor]
) -> tuple[float, float, torch.Tensor]:
    """DON, NOD and the gradient of one row, by taking the step. ``weight`` is an untied leaf that wants gradients."""
    ids, labels = row
    out = torch.func.functional_call(
        model,
        {"lm_head.weight": weight},
        kwargs={"input_ids": ids[None], "labels": labels[None], "use_cache": False},
        tie_weights=False,
    )
    (gradient,) = torch.autograd.grad(out.loss, weight)
    with torch.no_grad():
        stepped = weight - STEP_SIZE * gradient
        return (stepped.norm() - norm).item(), (stepped - weight).norm().item(), gradient


def literal_step(model: Any, row: tuple[torch.Tensor, torch.Tensor]) -> tuple[float, float]:
    """DON and NOD of one row as one would first write it: an optimiser steps on the model's own output layer.

    Where the layer is tied to the embeddings, as SmolLM2's is, the gradient runs back through the whole body.
    """
    ids, labels = row
    weight = model.get_output_embeddings().weight
    before = weight.detach().clone()
    weight.requires_grad_(True)
    optimiser = torch.optim.SGD([weight], lr=STEP_SIZE)
    model(input_ids=ids[None], labels=labels[None], use_cache=False).loss.backward()
    optimiser.step()
    weight.grad = None
    weight.requires_grad_(False)
    out = (weight.norm() - before.norm()).item(), (weight - before).norm().item()
    weight.copy_(before)
    return out


def donod(
    feed: LanguageModel, samples: Samples, rows: np.ndarray, repeats: int, folder: Path
) -> dict[str, Any]:
    """Seconds a row of DONOD done naively and of ours on the same rows, and how far each is from float64."""
    model = feed.model
    weight = model.get_output_embeddings().weight.detach().clone().requires_grad_()
    norm = weight.detach().norm()
    inputs = [labelled(row) for row in feed.render(samples, rows)]

    def ours(repeat: int) -> dict[str, Any]:
        return measure_language_model(samples, rows, feed, SignalStore(folder / f"d{repeat}"), progress=False)

    def naive(repeat: int) -> list[tuple[float, float]]:
        return [naive_step(model, weight, norm, row)[:2] for row in inputs]

    naive_step(model, weight, norm, inputs[0])

    def literal(repeat: int) -> list[tuple[float, float]]:
        return [literal_step(model, row) for row in inputs]

    arms = in_turns({"ours": ours, "naive": naive, "literal": literal}, repeats)

    theirs = np.array(arms["naive"][0][1])
    measured = arms["ours"][0][1]
    mine = np.column_stack(
        weight_delta(*(measured[name] for name in ("weight_dot", "grad_norm", "weight_norm")), STEP_SIZE)
    )
    exact = np.array([exact_step(model, weight, norm, row) for row in inputs])
    # DON may be near zero where loss and entropy are equal: its error is told by what its two terms are.
    terms = STEP_SIZE * (measured["log_ppl"] + measured["entropy"]) / measured["weight_norm"]
    scales = {"DON": terms, "NOD": exact[:, 1]}

    def errors(of: np.ndarray, reference: np.ndarray) -> dict[str, dict[str, float]]:
        away = {
            name: np.abs(of[:, number] - reference[:, number]) for number, name in enumerate(("DON", "NOD"))
        }
        return {
            name: {
                "largest": float(away[name].max()),
                "relative_largest": float((away[name] / scales[name]).max()),
                "relative_median": float(np.median(away[name] / scales[name])),
            }
            for name in away
        }

    return {
        "rows": len(rows),
        "step_size": STEP_SIZE,
        **{arm: summary(runs, len(rows)) for arm, runs in arms.items()},
        "naive_over_ours": ratio(arms["naive"], arms["ours"]),
        "literal_over_ours": ratio(arms["literal"], arms["ours"]),
        "median_size": {
            name: float(np.median(np.abs(exact[:, number]))) for number, name in enumerate(scales)
        },
        "naive_to_ours": errors(theirs, mine),
        "naive_to_float64": errors(theirs, exact),
        "ours_to_float64": errors(mine, exact),
        "rank_correlation_naive_and_float64": {
            name: round(spearman(theirs[:, number], exact[:, number]), 4)
            for number, name in enumerate(scales)
        },
        "rank_correlation_ours_and_float64": {
            name: round(spearman(mine[:, number], exact[:, number]), 4) for number, name in enumerate(scales)
        },
    }


def exact_step(
    model: Any, weight: torch.Tensor, norm: torch.Tensor, row: tuple[torch.Tensor, torch.Tensor]
) -> tuple[float, float]:
    """DON and NOD from the same float32 gradient, but stepped and measured in float64."""
    gradient = naive_step(model, weight, norm, row)[2].double()
    before = weight.detach().double()
    change = -STEP_SIZE * gradient
    difference = (2 * (before * change).sum() + change.square().sum()).item()
    start, end = before.norm().item(), (before + change).norm().item()
    return difference / (start + end), change.norm().item()


def measure(rows: int, donod_rows: int, repeats: int, threads: int | None, name: str) -> dict[str, Any]:
    if threads:
        torch.set_num_threads(threads)
    model, tokenizer = load_causal_lm(name, dtype="float32", device="cpu")
    feed = LanguageModel(model, tokenizer, context_length(model, tokenizer))
    samples = load_samples(str(MIXTURE))
    chosen = sample_rows(samples, rows, SEED)
    rendered = list(feed.render(samples, chosen))
    batches = plain_batches(rendered)
    start = time.perf_counter()
    counts = token_counts(samples, tokenizer, chosen, max_length=feed.max_length)
    counting = time.perf_counter() - start
    gemm, parts = Gemm(model, feed.tokens_a_batch), Parts()

    with tempfile.TemporaryDirectory() as of:
        folder = Path(of)

        def ours(repeat: int) -> dict[str, Any]:
            with parts.noted():
                return measure_language_model(
                    samples,
                    chosen,
                    feed,
                    SignalStore(folder / f"{repeat}"),
                    num_tokens=counts.tokens,
                    progress=False,
                )

        def plain(repeat: int) -> list[float]:
            with torch.no_grad():
                return [model(**batch, use_cache=False).loss.item() for batch in batches]

        measure_language_model(samples, chosen[:16], feed, SignalStore(folder / "warm-up"), progress=False)
        with torch.no_grad():
            model(**batches[-1], use_cache=False)
        gemm.measure()
        arms = in_turns({"ours": ours, "plain": plain}, repeats, gemm.measure)
        measured = arms["ours"][0][1]
        tokens = [int((batch["labels"] >= 0).sum()) for batch in batches]
        losses = [np.average(run[1], weights=tokens) for run in arms["plain"]]
        result: dict[str, Any] = {
            "rows": rows,
            "tokens": int(counts.tokens.sum()),
            "supervised_tokens": int(counts.supervised.sum()),
            "plain_tokens_with_padding": sum(batch["input_ids"].numel() for batch in batches),
            "repeats": repeats,
            "seed": SEED,
            "model": name,
            "goals": GOALS,
            **{arm: summary(runs, rows) for arm, runs in arms.items()},
            "ours_over_plain": ratio(arms["ours"], arms["plain"]),
            "repeats_give_the_same_bytes": len({everything(run[1]) for run in arms["ours"]}) == 1,
            "mean_loss": float(measured["token_nll"].values.mean(dtype=np.float64)),
            "mean_loss_of_plain": float(losses[0]),
            "parts": parts.summary(arms["ours"]),
            "counting_tokens_beforehand_seconds": round(counting, 3),
            "body": efficiency(feed, parts, gemm, int(counts.tokens.sum())),
        }
        result["gemm"] = gemm.summary()
        result["donod"] = donod(feed, samples, sample_rows(samples, donod_rows, SEED + 1), repeats, folder)
    result["machine"] = machine(torch_threads=torch.get_num_threads())
    result["versions"] = versions("datapruner", "torch", "transformers", "tokenizers", "numpy")
    return result


def verdict(value: float, goal: float, *, most: bool) -> str:
    met = value <= goal if most else value >= goal
    return f"goal {'at most' if most else 'at least'} {goal:g}: {'met' if met else 'MISSED'}"


def show(result: dict[str, Any]) -> str:
    lines = [
        f"{result['rows']} rows, {result['tokens']:,} tokens, {result['supervised_tokens']:,} supervised; "
        f"{result['repeats']} repeats in turns",
        f"{'':>12} {'median s':>9} {'min':>8} {'max':>8} {'rows/s':>8} {'peak MiB':>9} {'grown MiB':>10}",
    ]
    donod_of, of_body, gemm = result["donod"], result["body"], result["gemm"]
    table = [("ours", result["ours"]), ("plain", result["plain"])]
    table += [
        ("ours, DONOD", donod_of["ours"]),
        ("naive DONOD", donod_of["naive"]),
        ("literal DONOD", donod_of["literal"]),
    ]
    for label, of in table:
        lines.append(
            f"{label:>12} {of['seconds_median']:9.2f} {of['seconds_min']:8.2f} {of['seconds_max']:8.2f} "
            f"{of['rows_a_second_median']:8.1f} {of['peak_rss_mib']:9.0f} {of['peak_growth_mib']:10.0f}"
        )
    of_plain, of_naive = result["ours_over_plain"], donod_of["naive_over_ours"]
    lines += [
        f"time of ours / plain: {of_plain['of_medians']:.3f} ({min(of_plain['pairs']):.3f} to "
        f"{max(of_plain['pairs']):.3f}); {verdict(of_plain['of_medians'], GOALS['ours_over_plain'], most=True)}",
        f"mean loss {result['mean_loss']:.6f}, plain {result['mean_loss_of_plain']:.6f}; "
        f"repeats give the same bytes: {result['repeats_give_the_same_bytes']}",
        "parts of ours: "
        + ", ".join(
            f"{part} {of['seconds']:.2f} s ({100 * of['share']:.1f} %)"
            for part, of in result["parts"].items()
        )
        + f"; counting tokens beforehand takes {result['counting_tokens_beforehand_seconds']:.2f} s more",
        f"fastest product: {gemm['peak_gflops']:.0f} GFLOP/s; the body's shapes allow "
        f"{100 * gemm['body_at_each_shapes_best_share_of_peak']:.0f} % of it",
        f"body: {of_body['tokens_run']:,} tokens in {of_body['packs']} packs, "
        f"{100 * of_body['share_of_filling']:.1f} % filling, {of_body['saved_by_the_shared_prefix']:,} saved by the "
        f"prefix; {100 * of_body['share_of_peak_median']:.1f} % of the peak; "
        + verdict(of_body["share_of_peak_median"], GOALS["body_share_of_peak"], most=False),
        f"profile of {of_body['profile']['packs']} packs: matrix products take "
        f"{100 * of_body['profile']['share_in_matrix_products']:.1f} % at "
        f"{100 * of_body['profile']['matrix_products_share_of_peak']:.1f} % of the peak; "
        + ", ".join(f"{name} {100 * of:.1f} %" for name, of in of_body["profile"]["shares"].items()),
        f"naive DONOD / ours a row, {donod_of['rows']} rows: {of_naive['of_medians']:.2f} "
        f"({min(of_naive['pairs']):.2f} to {max(of_naive['pairs']):.2f}); "
        + verdict(of_naive["of_medians"], GOALS["naive_over_ours"], most=False),
        "literal DONOD (an optimiser on the tied layer, backward through the body) / ours: "
        f"{donod_of['literal_over_ours']['of_medians']:.2f}; "
        + verdict(donod_of["literal_over_ours"]["of_medians"], GOALS["naive_over_ours"], most=False),
    ]
    for what, label in (
        ("naive_to_ours", "naive to ours"),
        ("naive_to_float64", "naive to float64"),
        ("ours_to_float64", "ours to float64"),
    ):
        lines.append(
            f"{label:>17}: "
            + "; ".join(
                f"{name} off by at most {of['largest']:.1e}, relatively {of['relative_largest']:.1e} "
                f"(median {of['relative_median']:.1e})"
                for name, of in donod_of[what].items()
            )
        )
    lines.append(
        f"rank correlation with float64: naive {donod_of['rank_correlation_naive_and_float64']}, "
        f"ours {donod_of['rank_correlation_ours_and_float64']}"
    )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--donod-rows", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=None, help="torch threads; default: torch's own")
    parser.add_argument("--model", default="smollm2-135m-q4")
    parser.add_argument("--output", type=Path, default=RESULTS / "language_model.json")
    arguments = parser.parse_args()
    result = measure(
        arguments.rows, arguments.donod_rows, arguments.repeats, arguments.threads, arguments.model
    )
    print(show(result))
    write(arguments.output, result)
    same_loss = abs(result["mean_loss"] - result["mean_loss_of_plain"]) < 1e-4
    return 0 if same_loss and result["repeats_give_the_same_bytes"] else 1


if __name__ == "__main__":
    sys.exit(main())
