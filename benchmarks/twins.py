"""What the pass of a dense and a pruned model costs beside plain forward passes of both, in the same run.

python benchmarks/twins.py --pruned prunings/wanda24
python benchmarks/twins.py --pruned prunings/depth --out benchmarks/results/twins_depth.json
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
from common import MIXTURE, RESULTS, in_turns, machine, ratio, sample_rows, summary, versions, write

BATCH = 8


def plain(model: Any, rendered: list[Any]) -> list[float]:
    """`model(**batch, labels=...)` over sorted, padded batches."""
    import torch

    order = sorted(range(len(rendered)), key=lambda place: -len(rendered[place].input_ids))
    losses = []
    with torch.inference_mode():
        for start in range(0, len(order), BATCH):
            batch = [rendered[place] for place in order[start : start + BATCH]]
            longest = max(len(one.input_ids) for one in batch)
            ids, mask = (torch.zeros(len(batch), longest, dtype=torch.long) for _ in range(2))
            labels = torch.full_like(ids, -100)
            for number, one in enumerate(batch):
                row, of = torch.from_numpy(one.input_ids).long(), torch.from_numpy(one.supervised)
                ids[number, : len(row)], mask[number, : len(row)] = row, 1
                labels[number, : len(row)][of] = row[of]
            losses.append(
                float(model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss)
            )
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pruned", required=True)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "twins.json")
    arguments = parser.parse_args()
    from datapruner.models import load_causal_lm, load_pruned_lm
    from datapruner.samples import load_samples
    from datapruner.signals.language_model import LanguageModel, common_layers
    from datapruner.signals.language_model.twins import measure_twins
    from datapruner.signals.store import SignalStore

    samples = load_samples(str(MIXTURE))
    rows = sample_rows(samples, arguments.rows, 0)
    model, tokenizer = load_causal_lm("smollm2-135m-q4", device="cpu")
    pruned, _ = load_pruned_lm(arguments.pruned, device="cpu")
    dense = LanguageModel(model, tokenizer, 1024)
    twin = LanguageModel(pruned, None, 1024)
    rendered = list(dense.render(samples, rows))
    found: dict[str, Any] = {}

    def ours(name: str, in_turn: bool = False) -> None:
        with tempfile.TemporaryDirectory() as cache:
            found[name] = measure_twins(
                samples, rows, dense, lambda: twin, SignalStore(Path(cache)), in_turn=in_turn, progress=False
            )["jsd"]

    def whole() -> None:
        with mock.patch.object(common_layers, "running_once", return_value=contextlib.nullcontext(0)):
            ours("whole")

    arms: dict[str, Any] = {
        "twins, together": lambda _: ours("together"),
        "twins, in turn": lambda _: ours("in turn", in_turn=True),
        "plain, both models": lambda _: [plain(one, rendered) for one in (model, pruned)],
    }
    with common_layers.running_once(model, pruned) as common:
        if common:
            arms["twins, every layer of both"] = lambda _: whole()
    runs = in_turns(arms, arguments.repeats)
    result = {
        **machine(),
        "versions": versions("torch", "transformers", "datapruner"),
        "rows": arguments.rows,
        "tokens": int(sum(len(one.input_ids) for one in rendered)),
        "supervised_tokens": int(sum(one.supervised.sum() for one in rendered)),
        "arms": {arm: summary(held, arguments.rows) for arm, held in runs.items()},
        "together_over_plain": ratio(runs["twins, together"], runs["plain, both models"]),
        "in_turn_over_plain": ratio(runs["twins, in turn"], runs["plain, both models"]),
        "largest_difference_of_a_row": float(np.abs(found["together"] - found["in turn"]).max()),
        "layers_in_common": common,
    }
    if common:
        every = "twins, every layer of both"
        result["together_over_every_layer"] = ratio(runs["twins, together"], runs[every])
        result["same_bytes"] = found["together"].tobytes() == found["whole"].tobytes()
    write(arguments.out, result)
    for name, held in result.items():
        if name not in ("arms", "versions"):
            print(name, held)


if __name__ == "__main__":
    main()
