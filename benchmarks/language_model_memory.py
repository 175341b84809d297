"""How much memory do the exact statistics take beside the model, and does it grow with the rows?

With a vocabulary of 152,000 the logits of a row of 4,096 tokens would be 2.3 GiB, and a loss keeps several of them.

- layer: ``output_statistics`` alone, on random states of one row, all of it supervised.
- body: the body of a Qwen2 of two layers, with random weights, on one row. Nothing else.
- pass: ``measure_language_model`` on that row, with the store, the tokenizer and the proofs beforehand.

Each runs in a fresh process; its figure is the peak of the resident memory above where it stood once weights,
inputs and libraries were loaded. What the pass takes above its body is what the statistics cost.

    python benchmarks/language_model_memory.py
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
from common import RESULTS, PeakMemory, machine, timed, versions, write

SEED = 0
VOCABULARY, WIDTH = 152_000, 896
LENGTHS = (256, 512, 1024, 2048, 4096)
GOAL_MIB = 1024
BUDGET = 256 << 20
"""The default of `output_statistics`."""


def run_layer(lengths: list[int]) -> tuple[float, PeakMemory]:
    """The output layer's statistics alone."""
    import torch

    from datapruner.signals.language_model.output_layer import OutputLayer
    from datapruner.signals.language_model.token_statistics import output_statistics

    def inputs(vocabulary: int, sizes: list[int]) -> tuple[Any, Any, Any]:
        # Of the size that trained models have: states of norm sqrt(d), logits of a few nats.
        layer = OutputLayer(torch.randn(vocabulary, WIDTH).mul_(3 / WIDTH**0.5))
        return layer, torch.randn(sum(sizes), WIDTH), torch.randint(vocabulary, (sum(sizes),))

    torch.manual_seed(SEED)
    output_statistics(*inputs(1000, [200]), [200])
    layer, states, targets = inputs(VOCABULARY, lengths)
    seconds, found, memory = timed(lambda: output_statistics(layer, states, targets, lengths))
    assert torch.isfinite(found.nll).all()
    assert np.isfinite(found.grad_norm).all()
    return seconds, memory


def make_model() -> Any:
    """A Qwen2 of two layers with tied random weights."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(SEED)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=4864,
        num_hidden_layers=2,
        num_attention_heads=14,
        num_key_value_heads=2,
        max_position_embeddings=2 * max(LENGTHS),
        tie_word_embeddings=True,
    )
    model = Qwen2ForCausalLM(config).eval().requires_grad_(False)
    with torch.inference_mode():
        model.model(input_ids=torch.arange(8)[None], use_cache=False)
    return model


def run_body(lengths: list[int]) -> tuple[float, PeakMemory]:
    """The body alone, one row after the other, as the pass runs it."""
    import torch

    from datapruner.signals.language_model import LanguageModel, batches
    from datapruner.signals.language_model.attention import packed_attention

    feed = LanguageModel(make_model(), None, max(lengths))
    rng = np.random.default_rng(SEED)
    rows = [rng.integers(0, VOCABULARY, length).astype(np.int32) for length in lengths]
    items = [batches.Item(number, ids, np.arange(1, len(ids))) for number, ids in enumerate(rows)]

    def run() -> None:
        with packed_attention(feed.model), torch.inference_mode():
            for item in items:
                pack = batches.lay_out([item], np.empty(0, np.int32), feed.tokens_a_batch)
                batches.run_packed(feed, pack)

    seconds, _, memory = timed(run)
    return seconds, memory


def run_pass(lengths: list[int]) -> tuple[float, PeakMemory]:
    """The whole pass."""
    from datapruner.models.tokenizers import load_tokenizer
    from datapruner.samples import load_samples
    from datapruner.signals.language_model import LanguageModel, measure_language_model
    from datapruner.signals.store import SignalStore

    model, tokenizer = make_model(), load_tokenizer()
    samples = load_samples([{"text": text} for text in texts(tokenizer, lengths)])
    feed = LanguageModel(model, tokenizer, max(lengths))
    rows = np.arange(len(samples))
    list(feed.render(samples, rows))
    with tempfile.TemporaryDirectory() as name:
        store = SignalStore(Path(name))
        seconds, found, memory = timed(
            lambda: measure_language_model(samples, rows, feed, store, progress=False)
        )
    assert found["token_nll"].lengths.tolist() == [length - 1 for length in lengths]
    assert np.isfinite(found["grad_norm"]).all()
    return seconds, memory


def texts(tokenizer: Any, lengths: list[int]) -> list[str]:
    """Random texts that the tokenizer cuts into exactly as many tokens."""
    rng = np.random.default_rng(SEED)
    words = [word for word in tokenizer.convert_ids_to_tokens(range(1000, 9000)) if word.isascii()]
    words = [word for word in words if word.isalpha()]
    found = []
    for length in lengths:
        text = " ".join(rng.choice(words, 2 * length))
        ids = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        text = text[: ids["offset_mapping"][length - 1][1]]
        assert len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) == length
        found.append(text)
    return found


KINDS = {"layer": run_layer, "body": run_body, "pass": run_pass}


def child(kind: str, lengths: list[int]) -> dict[str, float]:
    """One measurement in a fresh process."""
    command = [sys.executable, __file__, "--child", kind, "--lengths", *map(str, lengths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{kind} of {lengths} failed:\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{kind:>6} {'+'.join(map(str, lengths)):>24}: {found['seconds']:7.2f} s, "
        f"{found['grown_mib']:7.1f} MiB grown of {found['peak_mib']:7.1f}",
        file=sys.stderr,
    )
    return found


def measure(lengths: list[int], repeats: int) -> dict[str, Any]:
    cases = {str(length): [length] for length in lengths} | {"all in one run": lengths}
    runs: dict[str, dict[str, list[dict[str, float]]]] = {
        case: {kind: [] for kind in KINDS} for case in cases
    }
    for _ in range(repeats):
        for case, of in cases.items():
            for kind in KINDS:
                runs[case][kind].append(child(kind, of))
    table = {}
    for case, of in cases.items():
        grown = {kind: [run["grown_mib"] for run in runs[case][kind]] for kind in KINDS}
        table[case] = {
            "tokens": sum(of),
            "logits_would_be_mib": round(max(of) * VOCABULARY * 4 / 2**20, 1),
            **{f"{kind}_mib": round(max(values), 1) for kind, values in grown.items()},
            "pass_above_body_mib": round(max(grown["pass"]) - max(grown["body"]), 1),
            "spread_mib": round(max(max(values) - min(values) for values in grown.values()), 1),
            "seconds": {kind: round(min(run["seconds"] for run in runs[case][kind]), 2) for kind in KINDS},
        }
    of_layer = {length: table[str(length)]["layer_mib"] for length in lengths}
    above = [figures["pass_above_body_mib"] for figures in table.values()]
    # Shorter rows need less than the budget, so that they do not show whether it holds.
    long = [length for length in lengths if length * VOCABULARY * 4 > BUDGET] or lengths
    more = of_layer[long[-1]] - of_layer[long[0]]
    return {
        "vocabulary": VOCABULARY,
        "width": WIDTH,
        "weight_mib": round(VOCABULARY * WIDTH * 4 / 2**20, 1),
        "lengths": lengths,
        "repeats": repeats,
        "seed": SEED,
        "grown_above_loaded_weights_and_inputs": table,
        "goal_mib": GOAL_MIB,
        "budget_mib": BUDGET >> 20,
        "largest_mib": max(*of_layer.values(), *above, table["all in one run"]["layer_mib"]),
        "growth_above_the_budget": {
            "from_tokens": long[0],
            "to_tokens": long[-1],
            "mib": round(more, 1),
            "kib_a_token": round(1024 * more / max(long[-1] - long[0], 1), 1),
        },
        "logits_kib_a_token": round(VOCABULARY * 4 / 1024, 1),
        "runs": runs,
        "machine": machine(),
        "versions": versions("datapruner", "torch", "transformers", "tokenizers", "numpy"),
    }


def show(result: dict[str, Any]) -> str:
    lines = [
        f"peak MiB above what was loaded; V = {VOCABULARY:,}, d = {WIDTH}, weights {result['weight_mib']:.0f} MiB",
        f"{'row':>16} {'logits':>8} {'layer':>8} {'body':>8} {'pass':>8} {'pass - body':>12} {'spread':>7} "
        f"{'s, layer':>9} {'s, pass':>9}",
    ]
    for case, of in result["grown_above_loaded_weights_and_inputs"].items():
        lines.append(
            f"{case:>16} {of['logits_would_be_mib']:8.0f} {of['layer_mib']:8.0f} {of['body_mib']:8.0f} "
            f"{of['pass_mib']:8.0f} {of['pass_above_body_mib']:12.0f} {of['spread_mib']:7.0f} "
            f"{of['seconds']['layer']:9.2f} {of['seconds']['pass']:9.2f}"
        )
    met = "met" if result["largest_mib"] < GOAL_MIB else "MISSED"
    growth = result["growth_above_the_budget"]
    lines += [
        f"largest of layer and pass - body: {result['largest_mib']:.0f} MiB, goal below {GOAL_MIB}: {met}",
        f"beyond the budget of {result['budget_mib']} MiB the layer grows by {growth['mib']:.0f} MiB from "
        f"{growth['from_tokens']} to {growth['to_tokens']} tokens, {growth['kib_a_token']:.0f} KiB a token; one "
        f"token's logits alone are {result['logits_kib_a_token']:.0f} KiB",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS))
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS / "language_model_memory.json")
    parser.add_argument("--child", choices=list(KINDS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        seconds, memory = KINDS[arguments.child](arguments.lengths)
        figures = {"seconds": seconds, "grown_mib": memory.grown / 2**20, "peak_mib": memory.peak / 2**20}
        print(json.dumps(figures))
        return 0
    result = measure(sorted(arguments.lengths), arguments.repeats)
    print(show(result))
    write(arguments.output, result)
    return 0 if result["largest_mib"] < GOAL_MIB else 1


if __name__ == "__main__":
    sys.exit(main())
