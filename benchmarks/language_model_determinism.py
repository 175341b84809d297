"""How far do the language model's scores move with batches, packing and threads, with kills, and from float64?

1. Variants: the same rows with other batches, without packing, with other threads. Largest difference of every
   signal, and by how many rows each scorer's selection differs; such rows should lie at its threshold.
2. Kills: ``datapruner prune --scorer donod`` is ended with SIGKILL at random moments and resumed until it is done,
   with a cache of its own. Every file is compared with that of an undisturbed run.
3. Accuracy: the pass in float32 against the same model in float64 with the formulas as they are written, the
   gradient as a whole matrix, and IFD against two losses of transformers. Transformers' norms compute in float32
   whatever the model's dtype; a second reference has norms in float64 too.

    python benchmarks/language_model_determinism.py --rows 300 --kills 5 --accuracy-rows 40
"""

from __future__ import annotations

import argparse
import copy
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MethodType
from typing import Any
from unittest import mock

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
import torch
from common import MIXTURE, RESULTS, machine, sample_rows, versions, write
from resume import Run, contents, different, kill_in, shards

import datapruner as dp
from datapruner.models import load_causal_lm
from datapruner.models.sizes import context_length
from datapruner.samples import Rendered, load_samples
from datapruner.samples.rendering import responses
from datapruner.selection.quadrants import triage
from datapruner.signals import Ragged
from datapruner.signals.language_model import LanguageModel, forward, measure_language_model, token_statistics
from datapruner.signals.language_model.find_output_layer import body
from datapruner.signals.store import SignalStore

SEED = 0
KEEP = 0.3
TOLERANCE = 1e-4
"""Within which scores agree, and a row lies at a selection's threshold."""
ERROR_GOAL = 1e-5
"""Largest error of a row's statistic, relative to 1 + loss + entropy."""
CONFIDENT = 1e-6
"""A token is confident where 1 - p_y is below."""
MODEL = "smollm2-135m-q4"
SCORERS = ("donod", "qtuning", "perplexity", "mid_perplexity", "el2n", "grad_norm", "ifd")
VARIANTS: dict[str, dict[str, Any]] = {
    "batch_tokens 512": {"batch_tokens": 512},
    "batch_tokens 1024": {"batch_tokens": 1024},
    "batch_tokens 2048": {"batch_tokens": 2048},
    "packing off": {"packing": False},
    "1 thread": {"threads": 1},
    "2 threads": {"threads": 2},
}

Measured = dict[str, Any]


def write_sample(path: Path, rows: int) -> None:
    """A seeded choice of the mixture's distinct rows, as they stand in its file."""
    lines = MIXTURE.read_text("utf-8").split("\n")
    chosen = sample_rows(load_samples(str(MIXTURE)), rows, SEED)
    path.write_text("".join(lines[row] + "\n" for row in chosen), "utf-8")


# Variants


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_variant(
    source: Path, feed: LanguageModel, cache: Path, options: dict[str, Any]
) -> tuple[Any, Measured, float]:
    """Score with all scorers through the public verb, then read every signal from the store."""
    options = dict(options)
    with torch_threads(options.pop("threads", None)):
        start = time.perf_counter()
        scores = dp.score(
            str(source),
            scorers=list(SCORERS),
            model=(feed.model, feed.tokenizer),
            cache=cache,
            progress=False,
            **options,
        )
        seconds = time.perf_counter() - start
        samples, store, measured = load_samples(str(source)), SignalStore(cache), {}
        for what in ("row", "response"):
            measured |= measure_language_model(
                samples,
                np.arange(len(samples)),
                replace(feed, **options),
                store,
                what=what,
                progress=False,
            )
            if store.computed:
                raise SystemExit(f"{store.computed} rows were not in the store that the scores came from")
    return scores, measured, seconds


def flat(value: Any) -> np.ndarray:
    return np.asarray(value.values if isinstance(value, Ragged) else value, dtype=np.float64)


def thresholds(name: str, ranking: Any, kept: np.ndarray) -> list[tuple[np.ndarray, list[float]]]:
    """What a selection is decided by: columns, each with the values at which it cuts."""
    if name == "mid_perplexity":
        middle = ranking.columns["log_ppl"][kept]
        return [(ranking.columns["log_ppl"], [float(middle.min()), float(middle.max())])]
    if name == "qtuning":
        log_ppl, entropy = ranking.columns["log_ppl"], ranking.columns["entropy"]
        order, quadrants, gaps = triage(log_ppl, entropy, int(kept.sum()), fill="log_ppl")
        cut = float(gaps[order[int(kept.sum()) - 1]])
        return [(log_ppl, [*quadrants.log_ppl]), (entropy, [*quadrants.entropy]), (gaps, [cut])]
    return [(ranking.values, [float(ranking.values[kept].min())])]


def compare_selections(name: str, one: Any, other: Any) -> dict[str, Any]:
    """By which rows two selections differ, and how far from a threshold these lie, in either run."""
    chosen = [scores.select(name, keep=KEEP) for scores in (one, other)]
    rows = np.flatnonzero(chosen[0].kept != chosen[1].kept)
    far = np.full(len(rows), np.inf)
    for scores, selection in zip((one, other), chosen, strict=True):
        for values, cuts in thresholds(name, scores.rankings[name], selection.kept):
            for cut in cuts:
                far = np.minimum(far, np.abs(values[rows] - cut))
    found = {
        "largest_difference_of_a_value": float(
            np.abs(one.rankings[name].values - other.rankings[name].values).max()
        ),
        "kept": int(chosen[0].kept.sum()),
        "rows_that_differ": len(rows),
        "farthest_from_a_threshold": float(far.max(initial=0.0)),
        "all_at_a_threshold": bool((far <= TOLERANCE).all()),
    }
    masks = [selection.token_masks for selection in chosen]
    if all(mask is not None for mask in masks):
        both = np.flatnonzero(chosen[0].kept & chosen[1].kept)
        found["rows_whose_token_masks_differ"] = sum(
            masks[0][row].tobytes() != masks[1][row].tobytes() for row in both
        )
    return found


def variants(source: Path, feed: LanguageModel, work: Path) -> dict[str, Any]:
    base, signals, seconds = run_variant(source, feed, work / "default", {})
    print(f"{'default':>18}: {seconds:7.1f} s", file=sys.stderr)
    result: dict[str, Any] = {"default_seconds": round(seconds, 1), "keep": KEEP, "tolerance": TOLERANCE}
    for number, (variant, options) in enumerate(VARIANTS.items()):
        scores, measured, seconds = run_variant(source, feed, work / f"variant{number}", options)
        print(f"{variant:>18}: {seconds:7.1f} s", file=sys.stderr)
        result[variant] = {
            "seconds": round(seconds, 1),
            "largest_differences": {
                name: float(np.abs(flat(signals[name]) - flat(measured[name])).max()) for name in signals
            },
            "selections": {name: compare_selections(name, base, scores) for name in SCORERS},
        }
    return result


# Kills


def kills(source: Path, work: Path, count: int) -> dict[str, Any]:
    rng = random.Random(SEED)
    options = ["--scorer", "donod", "--model", MODEL, "--keep", str(KEEP), "--seed", "0", "--quiet"]
    for arm in ("undisturbed", "killed"):
        (work / arm).mkdir()

    def start(arm: str) -> Run:
        return Run(source, work / arm / "cache", work / arm / "out", options)

    first = start("undisturbed")
    first.wait()
    whole = first.seconds
    print(f"undisturbed: {whole:.1f} s", file=sys.stderr)
    cache, out, undisturbed = work / "killed" / "cache", work / "killed" / "out", work / "undisturbed" / "out"
    attempts: list[dict[str, Any]] = []
    completions: list[list[str]] = []

    def note(seconds: float, killed: bool) -> None:
        attempts.append(
            {"seconds": round(seconds, 2), "rows_stored": sum(shards(cache).values()), "killed": killed}
        )
        print(f"{len(attempts):3} {attempts[-1]}", file=sys.stderr)
        if not killed:
            completions.append(different(undisturbed, out))

    while sum(attempt["killed"] for attempt in attempts) < count:
        # Of the whole time, so that some kills come before anything is stored and some at the very end.
        attempt = kill_in(start("killed"), "start", rng.uniform(0, whole))
        note(attempt.seconds, attempt.killed)
        if not attempt.killed:
            shutil.rmtree(cache)
    last = start("killed")
    last.wait()
    note(last.seconds, killed=False)
    return {
        "undisturbed_seconds": round(whole, 2),
        "kills": count,
        "kills_with_rows_stored": sum(
            attempt["killed"] and attempt["rows_stored"] > 0 for attempt in attempts
        ),
        "attempts": attempts,
        "completions": len(completions),
        "files_compared": sorted(contents(undisturbed)),
        "different_files": sorted({name for names in completions for name in names}),
        "leftover_temporary_files_in_the_cache": len(list(cache.rglob("*.tmp-*"))),
        "leftover_folders_beside_the_output": len(list((work / "killed").glob(".out.*"))),
    }


# Accuracy


@contextmanager
def tokens_kept(el2n: dict[int, np.ndarray]) -> Iterator[None]:
    """Keep EL2N of every token, of which the pass stores each row's mean."""
    statistics, head = token_statistics.output_statistics, forward.Pass.head
    last: list[torch.Tensor] = []

    def noted(*args: Any, **options: Any) -> Any:
        found = statistics(*args, **options)
        last[:] = [found.el2n]
        return found

    def split(self: Any, waiting: Any) -> Any:
        out = head(self, waiting)
        parts = torch.split(last[0], [len(item.targets) for item in waiting.items])
        el2n.update({item.place: of.numpy() for item, of in zip(waiting.items, parts, strict=True)})
        return out

    with (
        mock.patch.object(token_statistics, "output_statistics", noted),
        mock.patch.object(forward.Pass, "head", split),
    ):
        yield


def float64_norms(model: Any) -> Any:
    """A copy of a float64 model whose norms compute in float64 too."""

    def forward(self: Any, states: torch.Tensor) -> torch.Tensor:
        scale = torch.rsqrt(states.square().mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * (states * scale)

    model = copy.deepcopy(model)
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = MethodType(forward, module)
    return model


def by_formula(model: Any, row: Rendered) -> dict[str, Any]:
    """A row's statistics in the model's dtype, as they are defined."""
    targets = np.flatnonzero(row.supervised)
    ids = torch.from_numpy(row.input_ids).long()
    states = body(model)(input_ids=ids[None], use_cache=False).last_hidden_state[0, targets - 1]
    weight = model.get_output_embeddings().weight
    logits = states @ weight.T
    log_p, wanted = torch.log_softmax(logits, -1), ids[targets][:, None]
    residual = log_p.exp()
    nll, entropy = -log_p.gather(1, wanted)[:, 0], -(residual * log_p).sum(1)
    others = residual.scatter(1, wanted, 0.0)
    miss = others.sum(1)  # without cancellation
    residual = others.scatter(1, wanted, -miss[:, None])
    gradient = residual.T @ states / len(targets)
    el2n = residual.norm(dim=1)
    return {
        "log_ppl": nll.mean().item(),
        "entropy": entropy.mean().item(),
        "el2n": el2n.mean().item(),
        "grad_norm": gradient.norm().item(),
        "weight_dot": (weight * gradient).sum().item(),
        "weight_norm": weight.norm().item(),
        "token_nll": nll.numpy(),
        "token_entropy": entropy.numpy(),
        "token_el2n": el2n.numpy(),
        "token_miss": miss.numpy(),
    }


def errors(
    mine: Measured, el2n: dict[int, np.ndarray], reference: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """How far the pass is from a reference."""
    theirs = {name: [row[name] for row in reference] for name in reference[0]}
    wide = {name: np.concatenate(theirs[name]) for name in theirs if name.startswith("token_")}
    rows = {name: np.array(theirs[name]) for name in theirs if not name.startswith("token_")}
    level, token_level = rows["log_ppl"] + rows["entropy"], wide["token_nll"] + wide["token_entropy"]
    away = {name: np.abs(flat(mine[name]) - rows[name]) for name in rows}
    away |= {name: np.abs(flat(mine[name]) - wide[name]) for name in ("token_nll", "token_entropy")}
    of_tokens = np.abs(np.concatenate([el2n[place] for place in range(len(reference))]) - wide["token_el2n"])
    sure = wide["token_miss"] < CONFIDENT
    found: dict[str, Any] = {
        "relative_to_1_plus_loss_and_entropy": {
            name: float((of / (1 + (token_level if name.startswith("token_") else level))).max())
            for name, of in away.items()
        },
        "don_relative_to_loss_and_entropy": float((away["weight_dot"] / level).max()),
        "grad_norm_relative": float((away["grad_norm"] / rows["grad_norm"]).max()),
        "weight_norm_relative": float((away["weight_norm"] / rows["weight_norm"]).max()),
        "token_el2n_largest": float(of_tokens.max()),
        "confident_tokens": int(sure.sum()),
    }
    if sure.any():
        found |= {
            "confident_token_el2n_largest": float(of_tokens[sure].max()),
            "confident_token_el2n_relative": float((of_tokens / wide["token_el2n"])[sure].max()),
        }
    return found


def hugging_face_loss(model: Any, ids: np.ndarray, supervised: np.ndarray) -> tuple[float, int]:
    """The mean loss that transformers gives, and of how many tokens it is."""
    tokens = torch.from_numpy(ids).long()[None]
    labels = torch.where(torch.from_numpy(supervised)[None], tokens, -100)
    loss = model(input_ids=tokens, labels=labels, use_cache=False).loss
    return loss.item(), int(supervised[1:].sum())


def ifd_errors(feed: LanguageModel, mine: Measured, rendered: Sequence[Rendered]) -> dict[str, float]:
    """IFD against two calls of transformers for every row: with the prompt, and every turn alone."""
    given, alone = [], []
    for row in rendered:
        given.append(hugging_face_loss(feed.model, row.input_ids, row.supervised)[0])
        turns = [
            hugging_face_loss(feed.model, turn.input_ids, turn.supervised)
            for turn in responses(row, feed.tokenizer.bos_token_id)
        ]
        alone.append(np.average([loss for loss, _ in turns], weights=[count for _, count in turns]))
    of_given, of_alone = np.array(given), np.array(alone)
    ours = mine["log_ppl"] / mine["response_log_ppl"]
    return {
        "loss_largest": float(np.abs(mine["log_ppl"] - of_given).max()),
        "loss_of_the_response_alone_largest": float(np.abs(mine["response_log_ppl"] - of_alone).max()),
        "ifd_largest": float(np.abs(ours - of_given / of_alone).max()),
    }


def accuracy(feed: LanguageModel, rows: int, work: Path) -> dict[str, Any]:
    samples = load_samples(str(MIXTURE))
    chosen = sample_rows(samples, rows, SEED + 1)
    rendered = list(feed.render(samples, chosen))
    el2n: dict[int, np.ndarray] = {}
    store = SignalStore(work / "accuracy")
    with tokens_kept(el2n):
        mine = measure_language_model(samples, chosen, feed, store, progress=False)
    mine |= measure_language_model(samples, chosen, feed, store, what="response", progress=False)
    result: dict[str, Any] = {"rows": rows, "supervised_tokens": int(mine["token_nll"].offsets[-1])}
    with torch.inference_mode():
        result["ifd"] = ifd_errors(feed, mine, rendered)
        plain = copy.deepcopy(feed.model).double()
        for label, model in (("float64", plain), ("float64 with float64 norms", float64_norms(plain))):
            start = time.perf_counter()
            result[label] = errors(mine, el2n, [by_formula(model, row) for row in rendered])
            print(f"{label}: {time.perf_counter() - start:.1f} s", file=sys.stderr)
    return result


def show(result: dict[str, Any]) -> str:
    lines = []
    if of := result.get("variants"):
        names = list(of[next(iter(VARIANTS))]["largest_differences"])
        lines += [
            f"largest difference to the default, {result['rows']} rows",
            f"{'':>20} " + " ".join(VARIANTS),
        ]
        lines += [
            f"{name:>20} "
            + " ".join(
                f"{of[variant]['largest_differences'][name]:{len(variant)}.1e}" for variant in VARIANTS
            )
            for name in names
        ]
        lines.append(
            f"rows by which selections at {KEEP} differ; * where one lies farther than {TOLERANCE:g}"
        )
        for name in SCORERS:
            cells = []
            for variant in VARIANTS:
                found = of[variant]["selections"][name]
                text = f"{found['rows_that_differ']}{'' if found['all_at_a_threshold'] else '*'}"
                if found.get("rows_whose_token_masks_differ"):
                    text += f" ({found['rows_whose_token_masks_differ']} masks)"
                cells.append(f"{text:>{len(variant)}}")
            lines.append(f"{name:>20} " + " ".join(cells))
    if of := result.get("kills"):
        lines.append(
            f"{of['kills']} kills, {of['kills_with_rows_stored']} with rows stored, {of['completions']} completed, "
            f"{len(of['files_compared'])} files compared, different: {', '.join(of['different_files']) or 'none'}; "
            f"left behind: {of['leftover_temporary_files_in_the_cache']} files in the cache, "
            f"{of['leftover_folders_beside_the_output']} folders beside the output"
        )
        killed = [attempt for attempt in of["attempts"] if attempt["killed"]]
        lines.append(
            "killed after: "
            + ", ".join(f"{attempt['seconds']:.1f} s ({attempt['rows_stored']} rows)" for attempt in killed)
        )
    if of := result.get("accuracy"):
        lines.append(f"float32 against float64, {of['rows']} rows, {of['supervised_tokens']:,} tokens")
        for label in ("float64", "float64 with float64 norms"):
            found = of[label]
            relative = found["relative_to_1_plus_loss_and_entropy"]
            lines.append(
                f"{label}: relative to 1 + loss + entropy "
                + ", ".join(f"{name} {value:.1e}" for name, value in relative.items())
            )
            lines.append(
                "  "
                + ", ".join(
                    f"{name} {value:.1e}" if isinstance(value, float) else f"{name} {value}"
                    for name, value in found.items()
                    if not isinstance(value, dict)
                )
            )
        worst = {"rows": 0.0, "tokens": 0.0}
        for name, value in of["float64"]["relative_to_1_plus_loss_and_entropy"].items():
            of_what = "tokens" if name.startswith("token_") else "rows"
            worst[of_what] = max(worst[of_what], value)
        met = "met" if worst["rows"] <= ERROR_GOAL else "MISSED"
        lines.append(
            f"largest error of a row's statistic {worst['rows']:.1e}, goal {ERROR_GOAL:g}: {met}; of a token's "
            f"{worst['tokens']:.1e}"
        )
        lines.append("IFD: " + ", ".join(f"{name} {value:.1e}" for name, value in of["ifd"].items()))
    return "\n".join(lines)


def right(result: dict[str, Any]) -> bool:
    """Whether what is promised holds: the scores' tolerance, and the bytes after kills."""
    near = all(
        found["all_at_a_threshold"]
        for variant in VARIANTS
        for found in result.get("variants", {}).get(variant, {"selections": {}})["selections"].values()
    )
    return near and not result.get("kills", {}).get("different_files")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=300, help="of the variants and the killed runs")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--accuracy-rows", type=int, default=40)
    parser.add_argument("--only", choices=["variants", "kills", "accuracy"], help="one part alone")
    parser.add_argument("--output", type=Path, default=RESULTS / "language_model_determinism.json")
    arguments = parser.parse_args()
    wanted = [arguments.only] if arguments.only else ["variants", "kills", "accuracy"]
    result: dict[str, Any] = {"rows": arguments.rows, "seed": SEED, "model": MODEL}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        source = work / "rows.jsonl"
        write_sample(source, arguments.rows)
        if "kills" in wanted:
            result["kills"] = kills(source, work, arguments.kills)
        if {"variants", "accuracy"} & set(wanted):
            model, tokenizer = load_causal_lm(MODEL, dtype="float32", device="cpu")
            feed = LanguageModel(model, tokenizer, context_length(model, tokenizer))
            if "variants" in wanted:
                result["variants"] = variants(source, feed, work)
            if "accuracy" in wanted:
                result["accuracy"] = accuracy(feed, arguments.accuracy_rows, work)
    result["machine"] = machine(torch_threads=torch.get_num_threads())
    result["versions"] = versions("datapruner", "torch", "transformers", "tokenizers", "numpy")
    print(show(result))
    write(arguments.output, result)
    return 0 if right(result) else 1


if __name__ == "__main__":
    sys.exit(main())
