"""Four pruned versions of a small language model, for the examples and benchmarks of recovery.

Each is saved as its tool leaves it, read back by path, and put beside the dense model: log-perplexity of answers that
it has not seen, share of zeros, parameters left.

    python benchmarks/prunings.py --out prunings
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import random
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from common import MIXTURE, RESULTS, machine, versions, write
from torch.nn.utils import prune

SEED = 0
ROWS = 64
HELD_OUT = 40
LONGEST = 256
TAYLOR_ROWS = 16  # LLM-Pruner takes ten; a gradient costs three times a pass
MAGNITUDE = 0.5
WIDTH = 0.25
DEPTH = 0.2
PRUNINGS = ("magnitude", "wanda24", "width", "depth")

Row = list[dict[str, str]]
Encoded = tuple[list[int], int]


def read_rows(file: Path, count: int) -> list[Row]:
    """A seeded sample of a file's conversations; without the file, questions that reasoning_gym makes."""
    if file.exists():
        rows = [json.loads(line)["messages"] for line in file.open(encoding="utf-8")]
        rows = [row for row in rows if row[-1]["role"] == "assistant"]
        return random.Random(SEED).sample(rows, min(count, len(rows)))
    import reasoning_gym

    tasks = ["basic_arithmetic", "leg_counting", "letter_counting", "number_sorting"]
    # Another seed for each file, so that what is held out differs from what calibrates.
    seed = SEED + sum(file.name.encode())
    made = [reasoning_gym.create_dataset(task, size=-(-count // len(tasks)), seed=seed) for task in tasks]
    pairs = [(entry["question"], str(entry["answer"])) for data in made for entry in data]
    print(f"{file.name} is not here: {count} questions of reasoning_gym are taken", flush=True)
    return [
        [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        for question, answer in random.Random(SEED).sample(pairs, count)
    ]


def encode(tokenizer: Any, rows: list[Row], longest: int = LONGEST) -> list[Encoded]:
    """Token ids of a conversation, and where its last answer starts; cut on the left, so that answers stay."""
    encoded = []
    for row in rows:
        ids = tokenizer.apply_chat_template(row, return_dict=False)
        prompt = tokenizer.apply_chat_template(row[:-1], add_generation_prompt=True, return_dict=False)
        cut = max(0, len(ids) - longest)
        encoded.append((ids[cut:], max(1, len(prompt) - cut)))
    return encoded


def batches(encoded: list[Encoded], size: int, device: str) -> Iterator[tuple[Any, Any, Any]]:
    """Rows of like length, padded on the right: ids, what is a token, what is an answer's token; all [b, t]."""
    ordered = sorted(encoded, key=lambda row: len(row[0]))
    for first in range(0, len(ordered), size):
        part = ordered[first : first + size]
        ids = torch.zeros(len(part), max(len(row) for row, _ in part), dtype=torch.long)
        real, answer = (torch.zeros_like(ids, dtype=torch.bool) for _ in range(2))
        for place, (row, start) in enumerate(part):
            ids[place, : len(row)] = torch.tensor(row)
            real[place, : len(row)] = True
            answer[place, start : len(row)] = True
        yield ids.to(device), real.to(device), answer.to(device)


def answer_loss(model: Any, ids: Any, answer: Any) -> Any:
    """Summed negative log-likelihood of the answers' tokens, in nats; the output layer runs there alone."""
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    wanted = answer[:, 1:]
    logits = model.get_output_embeddings()(hidden[wanted]).float()
    return torch.nn.functional.cross_entropy(logits, ids[:, 1:][wanted], reduction="sum")


@torch.inference_mode()
def log_perplexity(model: Any, encoded: list[Encoded]) -> float:
    """Mean negative log-likelihood of an answer's token, in nats."""
    total = tokens = 0.0
    for ids, _, answer in batches(encoded, 8, str(model.device)):
        total += float(answer_loss(model, ids, answer))
        tokens += int(answer[:, 1:].sum())
    return total / tokens


def linear_layers(model: Any) -> list[torch.nn.Linear]:
    """The linear layers of the body, in the order in which they run."""
    return [module for module in model.base_model.modules() if isinstance(module, torch.nn.Linear)]


def prune_magnitude(model: Any, amount: float = MAGNITUDE) -> Any:
    """Mask the smallest weights of each linear layer; the masks stay apart, as torch leaves them."""
    for layer in linear_layers(model):
        prune.l1_unstructured(layer, "weight", amount=amount)
    return model


@torch.inference_mode()
def prune_wanda24(model: Any, encoded: list[Encoded]) -> Any:
    """Zero two of every four neighbouring weights by Wanda's criterion, |W| times its input's norm.

    Published (arXiv 2306.11695): the criterion, and that a layer sees what the pruned layers before it give. Ours: a
    layer is pruned in the moment before it runs, so that this holds inside a block too, and one pass over all rows
    at once is enough.
    """
    (ids, real, _) = next(batches(encoded, len(encoded), str(model.device)))

    def before(layer: torch.nn.Linear, given: tuple[Any, ...]) -> None:
        norm = given[0][real].float().norm(dim=0)
        groups = (layer.weight.float().abs() * norm).unflatten(1, (-1, 4))
        smallest = groups.topk(2, dim=2, largest=False).indices
        kept = torch.ones_like(groups, dtype=torch.bool).scatter_(2, smallest, value=False)
        layer.weight.mul_(kept.flatten(1))

    hooks = [layer.register_forward_pre_hook(before) for layer in linear_layers(model)]
    model.base_model(input_ids=ids, use_cache=False)
    for hook in hooks:
        hook.remove()
    return model


def prune_width(model: Any, encoded: list[Encoded], ratio: float = WIDTH) -> Any:
    """Remove the same share of neurons from every block's MLP, those with the smallest Taylor importance.

    The importance of a neuron is the sum of |weight x gradient| over its rows of gate and up and its column of down
    (Torch-Pruning's GroupTaylorImportance, as in LLM-Pruner). Heads stay: this model has three groups of them, and one
    of three is a step too long.
    """
    model.requires_grad_(True)
    tokens = sum(len(row) - start for row, start in encoded)
    for ids, _, answer in batches(encoded, 8, str(model.device)):
        (answer_loss(model, ids, answer) / tokens).backward()
    blocks = [block.mlp for block in model.base_model.layers]
    count = round(ratio * blocks[0].gate_proj.out_features)
    try:
        import torch_pruning
    except ImportError:
        print("torch_pruning is not installed: the same neurons are removed by hand", flush=True)
        for mlp in blocks:
            _narrow(mlp, count)
    else:
        _narrow_by_torch_pruning(torch_pruning, model, blocks, count)
    model.zero_grad(set_to_none=True)
    model.requires_grad_(False)
    model.config.intermediate_size -= count
    for mlp in blocks:
        mlp.intermediate_size = model.config.intermediate_size
    return model


def _narrow_by_torch_pruning(tp: Any, model: Any, blocks: list[Any], count: int) -> None:
    example = {"input_ids": torch.zeros(1, 8, dtype=torch.long, device=model.device), "use_cache": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the norms' weights, which no group here reaches
        graph = tp.DependencyGraph().build_dependency(model, example_inputs=example)
    importance = tp.importance.GroupTaylorImportance()
    for mlp in blocks:
        root = (mlp.gate_proj, tp.prune_linear_out_channels)
        scores = importance(graph.get_pruning_group(*root, list(range(mlp.gate_proj.out_features))))
        graph.get_pruning_group(*root, scores.argsort(stable=True)[:count].tolist()).prune()


def _narrow(mlp: Any, count: int) -> None:
    taylor = {
        name: (layer.weight * layer.weight.grad).abs()
        for name, layer in mlp.named_children()
        if _is_linear(layer)
    }
    scores = taylor["gate_proj"].sum(1) + taylor["up_proj"].sum(1) + taylor["down_proj"].sum(0)
    kept = scores.argsort(stable=True)[count:].sort().values
    for layer, dim in ((mlp.gate_proj, 0), (mlp.up_proj, 0), (mlp.down_proj, 1)):
        layer.weight = torch.nn.Parameter(layer.weight.detach().index_select(dim, kept))
    mlp.gate_proj.out_features = mlp.up_proj.out_features = mlp.down_proj.in_features = len(kept)


def _is_linear(layer: Any) -> bool:
    return isinstance(layer, torch.nn.Linear)


@torch.inference_mode()
def block_influence(model: Any, encoded: list[Encoded]) -> list[float]:
    """1 - cosine of the hidden state before and after each block, over all tokens (ShortGPT, arXiv 2403.03853)."""
    body = model.base_model
    sums, tokens = [0.0] * len(body.layers), 0
    seen: list[Any] = []
    hooks = [
        module.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
        for module in (*body.layers, body.norm)
    ]
    for ids, real, _ in batches(encoded, 8, str(model.device)):
        seen.clear()
        body(input_ids=ids, use_cache=False)
        for place in range(len(sums)):
            before, after = (seen[place + step][real].float() for step in (0, 1))
            sums[place] += float((1 - torch.cosine_similarity(before, after, dim=1)).sum())
        tokens += int(real.sum())
    for hook in hooks:
        hook.remove()
    return [total / tokens for total in sums]


def prune_depth(model: Any, encoded: list[Encoded], share: float = DEPTH) -> Any:
    """Drop the blocks that change the hidden state least."""
    influence = block_influence(model, encoded)
    count = max(1, round(share * len(influence)))
    dropped = sorted(range(len(influence)), key=lambda place: influence[place])[:count]
    print(
        "blocks dropped: " + ", ".join(f"{place} ({influence[place]:.3f})" for place in dropped), flush=True
    )
    body = model.base_model
    kept = [place for place in range(len(influence)) if place not in dropped]
    body.layers = torch.nn.ModuleList(body.layers[place] for place in kept)
    for place, block in enumerate(body.layers):
        block.self_attn.layer_idx = place
    model.config.num_hidden_layers = len(kept)
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = [model.config.layer_types[place] for place in kept]
    return model


def write_prunings(
    out: Path, model: Any, tokenizer: Any, rows: list[Row], device: str, only: Sequence[str] = PRUNINGS
) -> dict[str, Path]:
    """Prune a model four ways and save each with its tokenizer in a folder of its own; the model stays as it is.

    The folders of those that ``only`` leaves out are taken as they are, where they are.
    """
    encoded = encode(tokenizer, rows)
    ways = {
        "magnitude": prune_magnitude,
        "wanda24": lambda dense: prune_wanda24(dense, encoded),
        "width": lambda dense: prune_width(dense, encoded[:TAYLOR_ROWS]),
        "depth": lambda dense: prune_depth(dense, encoded),
    }
    for name in only:
        start = time.perf_counter()
        pruned = ways[name](copy.deepcopy(model).to(device))
        pruned.to("cpu").save_pretrained(out / name)
        tokenizer.save_pretrained(out / name)
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    return {name: out / name for name in PRUNINGS if (out / name).is_dir()}


def described(model: Any, held_out: list[Encoded]) -> dict[str, Any]:
    """What is left of a model, and what it says."""
    weights = [layer.weight for layer in linear_layers(model)]
    count = sum(weight.numel() for weight in weights)
    loss = log_perplexity(model, held_out)
    if not math.isfinite(loss):
        raise SystemExit("the log-perplexity of a pruned model is not finite")
    return {
        "log_perplexity": round(loss, 4),
        "parameters": model.num_parameters(),
        "body_zeros": round(sum(int((weight == 0).sum()) for weight in weights) / count, 4),
        "blocks": model.config.num_hidden_layers,
        "intermediate_size": model.config.intermediate_size,
    }


def main() -> None:
    from transformers.utils.logging import disable_progress_bar

    from datapruner.models.loading import load_causal_lm
    from datapruner.models.options import default_device
    from datapruner.models.twins import check_twins, load_pruned_lm

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="a folder; one is made in it for each pruning"
    )
    parser.add_argument("--model", default="smollm2-135m-q4")
    parser.add_argument("--calibration", type=Path, default=MIXTURE, help="jsonl with messages")
    parser.add_argument("--device", default=None)
    parser.add_argument("--only", nargs="+", choices=PRUNINGS, default=PRUNINGS, help="make these again")
    parser.add_argument("--json", type=Path, default=RESULTS / "prunings.json")
    given = parser.parse_args()
    disable_progress_bar()
    device = given.device or default_device()
    dense, tokenizer = load_causal_lm(given.model, device=device)
    rows = read_rows(given.calibration, ROWS)
    folders = write_prunings(given.out, dense, tokenizer, rows, device, given.only)
    held_out = encode(tokenizer, read_rows(MIXTURE.with_name("mixture.test.jsonl"), HELD_OUT))
    found = {"dense": described(dense, held_out)}
    for name, folder in folders.items():
        pruned, own = load_pruned_lm(str(folder), device=device)
        check_twins(dense, tokenizer, pruned, own)
        found[name] = described(pruned, held_out)
    print(f"{'':>10}  log-perplexity  worse by  parameters  zeros in the body  blocks  MLP")
    for name, one in found.items():
        worse = one["log_perplexity"] - found["dense"]["log_perplexity"]
        print(
            f"{name:>10}  {one['log_perplexity']:14.3f}  {worse:8.3f}  {one['parameters'] / 1e6:8.1f} M  "
            f"{one['body_zeros']:17.1%}  {one['blocks']:6}  {one['intermediate_size']:4}"
        )
    result = {
        "model": given.model,
        "rows": {
            "calibration": ROWS,
            "taylor": TAYLOR_ROWS,
            "held_out": HELD_OUT,
            "longest": LONGEST,
            "seed": SEED,
        },
        "amounts": {"magnitude": MAGNITUDE, "wanda24": "2:4", "width": WIDTH, "depth": DEPTH},
        "models": found,
        **machine(device=device, threads=torch.get_num_threads()),
        "versions": versions("torch", "transformers", "torch-pruning"),
    }
    write(given.json, result)


if __name__ == "__main__":
    main()
