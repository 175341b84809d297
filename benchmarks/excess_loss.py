"""Tokens of high excess loss beside all tokens, random ones and whole rows, at equal supervised tokens a step.

A reference is made of the model itself, by training on rows that are trusted (or one is named). Every arm then trains
the model on the pool for as many steps, each over as many tokens in the loss; what is compared is the loss on rows
that nobody trained on.

    python benchmarks/excess_loss.py --rows pool.jsonl --trusted clean.jsonl --held-out test.jsonl
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
from common import RESULTS, machine, versions, write
from finetune import MAX_LENGTH, Row, fine_tune, interval, mean_losses, rendered

ARMS = ("all tokens", "random tokens", "excess tokens", "excess tokens of each row", "excess rows")


def masked(data: Sequence[Row], masks: Sequence[Any]) -> list[Row]:
    """Rows with what stays of their supervised tokens; an empty mask leaves all of them."""
    out = []
    for row, mask in zip(data, masks, strict=True):
        supervised = row.supervised.copy()
        if len(mask):
            supervised[np.flatnonzero(supervised)[~mask]] = False
        out.append(row._replace(supervised=supervised))
    return out


def at_random(data: Sequence[Row], share: float, seed: int) -> list[Row]:
    """Rows with a random share of all their supervised tokens."""
    lengths = [int(row.supervised.sum()) for row in data]
    stay = np.zeros(sum(lengths), dtype=np.bool_)
    drawn = np.random.default_rng(seed).permutation(len(stay))
    stay[drawn[: round(share * len(stay))]] = True
    return masked(data, np.split(stay, np.cumsum(lengths)[:-1]))


def plan(data: Sequence[Row], steps: int, tokens: int, seed: int) -> list[list[int]]:
    """Batches of rows in random order, round after round, each of as many tokens in the loss, to the row.

    A step has at least one row, so that `tokens` should be more than any row has.
    """
    counts = np.array([int(row.supervised.sum()) for row in data])
    drawn = np.random.default_rng(seed)
    order: list[int] = []
    out, spent = [], 0
    for step in range(steps):
        batch: list[int] = []
        # Against the sum so far, so that what one batch has too much the next has less.
        while not batch or spent < tokens * (step + 1):
            if not order:
                order = [int(place) for place in drawn.permutation(len(data)) if counts[place]]
            batch.append(order.pop())
            spent += int(counts[batch[-1]])
        out.append(batch)
    return out


def make_reference(arguments: argparse.Namespace, folder: Path, device: str) -> str:
    """Train the model on what is trusted, merge what it learnt, and save it."""
    from datapruner.models import load_causal_lm

    model, tokenizer = load_causal_lm(arguments.model, device=device)
    data = rendered(arguments.trusted, tokenizer, range(count_lines(arguments.trusted)))
    batches = plan(data, arguments.reference_steps, arguments.tokens, seed=1)
    fine_tune(
        model, data, batches, seed=1, rate=arguments.rate, device=device
    ).merge_and_unload().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def count_lines(file: Path) -> int:
    with file.open(encoding="utf-8") as lines:
        return sum(1 for _ in lines)


def arms_of(
    arguments: argparse.Namespace, reference: str, data: Sequence[Row], cache: Path
) -> dict[str, Any]:
    """Give each arm's rows, by seed where they are drawn."""
    import datapruner as dp
    from datapruner.scorers.excess_loss import ExcessLoss

    def chosen(scorer: ExcessLoss, **budget: Any) -> Any:
        told = {
            "model": arguments.model,
            "reference_model": reference,
            "cache": cache,
            "max_length": MAX_LENGTH,
            "progress": False,
        }
        return dp.prune(str(arguments.rows), scorer=scorer, **told, **budget)

    share = arguments.share
    tokens = chosen(ExcessLoss(token_keep=share), keep=1.0)
    of_rows = chosen(ExcessLoss(token_keep=share, over="row"), keep=1.0)
    rows = chosen(ExcessLoss(token_keep=1.0), keep=share)

    def of(selection: Any) -> list[Row]:
        masks = selection.token_masks
        kept = [data[row] for row in selection.indices]
        return kept if masks is None else masked(kept, [masks[int(row)] for row in selection.indices])

    excess, of_each, best = of(tokens), of(of_rows), of(rows)
    return {
        "all tokens": lambda seed: list(data),
        "random tokens": lambda seed: at_random(data, share, seed),
        "excess tokens": lambda seed: excess,
        "excess tokens of each row": lambda seed: of_each,
        "excess rows": lambda seed: best,
    }


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    from datapruner.models import load_causal_lm

    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as place:
        reference = arguments.reference or make_reference(arguments, Path(place) / "reference", device)
        model, tokenizer = load_causal_lm(arguments.model, device=device)
        data = rendered(arguments.rows, tokenizer, range(count_lines(arguments.rows)))
        judges = rendered(arguments.held_out, tokenizer, range(count_lines(arguments.held_out)))
        losses = {"untrained": [float(np.mean(mean_losses(model, judges, device)))]}
        losses["reference"] = [
            float(np.mean(mean_losses(load_causal_lm(reference, device=device)[0], judges, device)))
        ]
        arms, tokens = arms_of(arguments, reference, data, Path(place) / "cache"), {}
        for seed in range(arguments.seeds):
            for arm in ARMS:
                own = arms[arm](seed)
                batches = plan(own, arguments.steps, arguments.tokens, seed)
                fresh, _ = load_causal_lm(arguments.model, device=device)
                trained = fine_tune(fresh, own, batches, seed=seed, rate=arguments.rate, device=device)
                losses.setdefault(arm, []).append(float(np.mean(mean_losses(trained, judges, device))))
                tokens[arm] = sum(int(own[row].supervised.sum()) for batch in batches for row in batch)
                print(f"{arm}, seed {seed}: {losses[arm][-1]:.4f}", flush=True)
    return {
        "arms": {
            arm: {
                "loss": round(float(np.mean(found)), 5),
                "interval": interval(found) if len(found) > 1 else None,
                "seeds": found,
            }
            for arm, found in losses.items()
        },
        "tokens_in_the_loss": tokens,
        "settings": {
            name: value.name if isinstance(value, Path) else value for name, value in vars(arguments).items()
        },
        "machine": machine(torch_threads=torch.get_num_threads()),
        "versions": versions("torch", "transformers", "peft", "datasets"),
    }


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=Path, required=True, help="the pool")
    parser.add_argument("--trusted", type=Path, help="what the reference is trained on")
    parser.add_argument("--held-out", type=Path, required=True, help="whose loss is compared")
    parser.add_argument("--model", default="smollm2-135m-q4")
    parser.add_argument("--reference", help="a model that is there already, in place of --trusted")
    parser.add_argument("--share", type=float, default=0.6, help="of the tokens, or of the rows")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--reference-steps", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=2000, help="in the loss, a step")
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS / "excess_loss.json")
    arguments = parser.parse_args(words)
    if (arguments.trusted is None) == (arguments.reference is None):
        parser.error("give --trusted, or --reference")
    result = run(arguments)
    write(arguments.output, result)
    for arm, found in result["arms"].items():
        print(f"{arm:28}{found['loss']:.4f}  {', '.join(f'{loss:.4f}' for loss in found['seeds'])}")
    return result


if __name__ == "__main__":
    main()
