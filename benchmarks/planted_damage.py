"""Does `damage` find what was broken, and does PASER choose it? Damage is planted where it is known.

For a capability, the MLP neurons of SmolLM2-135M that are more active on its answers than elsewhere are switched off.
Ten plantings: every capability, and three again with other neurons. Beside them the same on a pair whose second model
differs by small noise in all weights, so that nothing was planted.

    python benchmarks/planted_damage.py
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
from common import MIXTURE, RESULTS, machine, versions, write

EACH = 16
CALIBRATION = 8
"""Rows a capability that are measured, and others whose activations say which neurons are its own."""
KEEP = 0.2
NOISE = 0.002


def drawn(seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows that are measured, and rows that calibrate."""
    by: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in MIXTURE.open(encoding="utf-8"):
        row = json.loads(line)
        by[row["capability"]].append(row)
    rng = np.random.default_rng(seed)
    measured, calibration = [], []
    for name in sorted(by):
        picked = rng.choice(len(by[name]), EACH + CALIBRATION, replace=False)
        measured += [by[name][place] for place in picked[:EACH]]
        calibration += [by[name][place] for place in picked[EACH:]]
    return measured, calibration


def activations(model: Any, tokenizer: Any, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean size of every MLP neuron's activation at the answers of each capability; (layers, neurons)."""
    import torch
    from datasets import Dataset

    from datapruner.samples import load_samples
    from datapruner.signals.language_model import LanguageModel

    held: list[Any] = []
    hooks = [
        layer.mlp.down_proj.register_forward_pre_hook(lambda _, given: held.append(given[0][0].abs()))
        for layer in model.model.layers
    ]
    sums: dict[str, Any] = {}
    counts: dict[str, int] = defaultdict(int)
    samples = load_samples(Dataset.from_list(rows))
    reader = LanguageModel(model, tokenizer, 512)
    with torch.inference_mode():
        for row, rendered in zip(rows, reader.render(samples, np.arange(len(rows))), strict=True):
            held.clear()
            model(input_ids=torch.from_numpy(rendered.input_ids)[None].long(), use_cache=False)
            at = torch.from_numpy(np.flatnonzero(rendered.supervised) - 1)
            found = torch.stack([one[at].mean(0) for one in held])
            name = row["capability"]
            sums[name] = sums.get(name, 0) + found
            counts[name] += 1
    for hook in hooks:
        hook.remove()
    return {name: total / counts[name] for name, total in sums.items()}


def planted(model: Any, active: dict[str, Any], capability: str, share: float) -> Any:
    """Switch off the neurons that are most active on a capability beside the most active elsewhere."""
    import torch

    out = copy.deepcopy(model)
    others = torch.stack([one for name, one in active.items() if name != capability])
    own = active[capability]
    contrast = (own - others.amax(0)) / (own + others.mean(0) + 1e-6)
    with torch.no_grad():
        for layer, of in zip(out.model.layers, contrast, strict=True):
            worst = of.topk(round(share * len(of))).indices
            layer.mlp.down_proj.weight[:, worst] = 0
    return out


def noisy(model: Any) -> Any:
    import torch

    out = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in out.model.layers:
            for parameter in layer.parameters():
                parameter.add_(NOISE * torch.randn(parameter.shape, generator=generator))
    return out


def ranking(rows: list[dict[str, Any]], pair: tuple[Any, Any], tokenizer: Any, cache: str) -> dict[str, Any]:
    """The capabilities by damage, and the share of each one's rows that PASER keeps."""
    import datapruner as dp

    options = {
        "model": (pair[0], tokenizer),
        "pruned_model": (pair[1], tokenizer),
        "cache": cache,
        "max_length": 512,
        "progress": False,
        "twins": "in_turn",  # the dense model's states serve all plantings
    }
    found = dp.damage(rows, by="capability", **options)
    selection = dp.prune(rows, scorer="paser", keep=KEEP, **options)
    names = np.array([row["capability"] for row in rows])
    share = {name: float(selection.kept[names == name].mean()) for name in sorted(set(names.tolist()))}
    return {
        "damage": {group.name: round(group.jsd, 5) for group in found.by("capability")},
        "interval": {
            group.name: [round(group.jsd_low, 5), round(group.jsd_high, 5)]
            for group in found.by("capability")
        },
        "selected": {name: round(one, 4) for name, one in share.items()},
    }


def first(table: dict[str, float]) -> str:
    return max(table, key=lambda name: table[name])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--share", type=float, default=0.04, help="of the MLP neurons that are switched off")
    parser.add_argument("--out", type=Path, default=RESULTS / "planted_damage.json")
    arguments = parser.parse_args()
    from datapruner.models import load_causal_lm

    model, tokenizer = load_causal_lm("smollm2-135m-q4", device="cpu")
    rows, calibration = drawn(0)
    active = activations(model, tokenizer, calibration)
    again = activations(model, tokenizer, drawn(1)[1])
    names = sorted(active)
    plantings = [(name, active) for name in names] + [(name, again) for name in names[:3]]
    results = []
    with tempfile.TemporaryDirectory() as cache:
        plain = ranking(rows, (model, noisy(model)), tokenizer, cache)
        print(f"nothing planted: {plain['damage']}", file=sys.stderr, flush=True)
        for name, of in plantings:
            found = ranking(rows, (model, planted(model, of, name, arguments.share)), tokenizer, cache)
            results.append({"planted": name, **found})
            print(
                f"{name}: most damaged {first(found['damage'])}, most selected {first(found['selected'])}; "
                f"{found['damage']} {found['selected']}",
                file=sys.stderr,
                flush=True,
            )
    ranked = sum(first(one["damage"]) == one["planted"] for one in results)
    selected = sum(first(one["selected"]) == one["planted"] for one in results)
    both = sum(first(one["damage"]) == first(one["selected"]) == one["planted"] for one in results)
    chance = [sum(first(plain[of]) == one["planted"] for one in results) for of in ("damage", "selected")]
    result = {
        **machine(),
        "versions": versions("torch", "transformers", "datapruner"),
        "rows_a_capability": EACH,
        "share_of_neurons": arguments.share,
        "keep": KEEP,
        "ranked_first": ranked,
        "selected_most": selected,
        "both": both,
        "of": len(results),
        "without_planting": {"ranked_first": chance[0], "selected_most": chance[1], **plain},
        "plantings": results,
    }
    write(arguments.out, result)
    print(
        f"the planted capability is ranked first in {ranked} of {len(results)}, its rows are selected most in "
        f"{selected}, both in {both}; where nothing was planted in {chance[0]} and {chance[1]}"
    )


if __name__ == "__main__":
    main()
