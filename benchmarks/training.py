"""Q-Tuning inside training: what choosing costs, and what a step costs beside a step on whole batches.

SmolLM2-135M on rows of the mixture, 25 % of the samples and 50 % of the tokens of each mini-batch, as published;
then the offline token-pruned dataset in a plain SFTTrainer, whose loss must count exactly the kept tokens.

    python benchmarks/training.py --steps 50
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
from common import MIXTURE, RESULTS, machine, versions, write

SEED = 0
MODEL = "smollm2-135m-q4"


def rows(count: int, longest: int) -> list[dict[str, Any]]:
    """A seeded sample as prompt and completion, so that only the answers are supervised."""
    import json

    from datapruner.models.tokenizers import load_tokenizer

    tokenizer = load_tokenizer(MODEL)
    found = []
    for line in MIXTURE.open(encoding="utf-8"):
        turns = json.loads(line)["messages"]
        if (
            len(turns) == 2
            and len(tokenizer(turns[0]["content"] + turns[1]["content"])["input_ids"]) < longest
        ):
            found.append({"prompt": turns[:1], "completion": turns[1:]})
    order = np.random.default_rng(SEED).permutation(len(found))[:count]
    return [found[place] for place in order]


def settings(folder: str, steps: int, batch: int) -> Any:
    from trl import SFTConfig

    return SFTConfig(
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=batch,
        learning_rate=1e-5,
        max_length=None,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        seed=SEED,
        gradient_checkpointing=False,
        bf16=False,
    )


def train(kind: type, data: Any, steps: int, batch: int, **more: Any) -> dict[str, Any]:
    """Train a fresh copy of the model and give the log's means."""
    from datapruner.models import load_causal_lm

    model, tokenizer = load_causal_lm(MODEL, device="cpu")
    model.requires_grad_(True)
    with tempfile.TemporaryDirectory() as folder:
        trainer = kind(
            model, args=settings(folder, steps, batch), train_dataset=data, processing_class=tokenizer, **more
        )
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    out = {"steps": len(logs), "seconds_a_step": round(seconds / len(logs), 3)}
    for name in ("qtuning_selection_share", "qtuning_rows_kept", "qtuning_tokens_kept"):
        if name in logs[0]:
            out[name] = round(float(np.mean([entry[name] for entry in logs])), 3)
    out["loss_first_5"] = round(float(np.mean([entry["loss"] for entry in logs[:5]])), 3)
    out["loss_last_5"] = round(float(np.mean([entry["loss"] for entry in logs[-5:]])), 3)
    return out


def main() -> None:
    import torch
    from datasets import Dataset, load_dataset
    from trl import SFTTrainer

    import datapruner as dp
    from datapruner.integrations.trl import QTuningTrainer

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--plain-steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--longest", type=int, default=256, help="tokens of a row")
    parser.add_argument("--output", type=Path, default=RESULTS / "training.json")
    arguments = parser.parse_args()
    found = rows(arguments.steps * arguments.batch, arguments.longest)
    data = Dataset.from_list(found)
    result: dict[str, Any] = {
        "qtuning": train(
            QTuningTrainer, data, arguments.steps, arguments.batch, sample_ratio=0.25, token_ratio=0.5
        ),
        "plain": train(SFTTrainer, data, arguments.plain_steps, arguments.batch),
    }
    with tempfile.TemporaryDirectory() as folder:
        part = data.select(range(min(80, len(data))))
        selection = dp.prune(part, scorer="qtuning", model=MODEL, keep=0.3, cache=folder, progress=False)
        selection.save(Path(folder) / "out")
        pruned = load_dataset(str(Path(folder) / "out"), split="train")
        counted = sum(label != -100 for row in pruned["labels"] for label in row)
        kept = selection.supervised_tokens_kept
        assert kept is not None
        whole = int(selection.scores.tokens["num_supervised_tokens"][selection.indices].sum())
        result["offline"] = {
            "rows": len(pruned),
            "supervised_tokens_of_these_rows": whole,
            "supervised_tokens_kept": int(kept.sum()),
            "labels_in_the_dataset": counted,
            **train(SFTTrainer, pruned, 2, 4),
        }
        assert counted == int(kept.sum())
    result["machine"] = machine(torch_threads=torch.get_num_threads())
    result["versions"] = versions("torch", "transformers", "trl", "datasets")
    result["settings"] = {"batch": arguments.batch, "longest": arguments.longest, "seed": SEED}
    write(arguments.output, result)
    for name, of in result.items():
        print(name, of)


if __name__ == "__main__":
    main()
