"""A warm-up for LESS: an adapter trained for some epochs on a random part of a set, with a checkpoint an epoch.

    python benchmarks/messy.py FOLDER
    python benchmarks/warm_up.py FOLDER          # writes FOLDER/warm-up/SET, which `aimed.py` and `layers.py` may read

Published (arXiv 2402.04333): 5 % of the rows, four epochs, LoRA on the attention of a model of 7B. Here on all linear
layers, since the model is small; trained by transformers' trainer, whose folders `--sketch-checkpoints` takes.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np

MODEL = "smollm2-135m-q4"
IGNORED = -100


def warm_up(source: Path, out: Path, asked: Any) -> None:
    """Train an adapter on a random part of a set's rows."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import Trainer, TrainingArguments

    from datapruner.models import load_causal_lm
    from datapruner.samples import load_samples
    from datapruner.signals.language_model import LanguageModel

    samples = load_samples(str(source))
    some = np.sort(
        np.random.default_rng(asked.seed).permutation(len(samples))[
            : max(1, round(asked.share * len(samples)))
        ]
    )
    model, tokenizer = load_causal_lm(asked.model)
    rows = [
        {
            "input_ids": row.input_ids.tolist(),
            "labels": np.where(row.supervised, row.input_ids, IGNORED).tolist(),
        }
        for row in LanguageModel(model, tokenizer, 1024).render(samples, some)
        if row.supervised[1:].any()
    ]
    torch.manual_seed(asked.seed)
    adapted = get_peft_model(
        model,
        LoraConfig(r=asked.rank, lora_alpha=4 * asked.rank, lora_dropout=0.1, target_modules="all-linear"),
    )
    Trainer(
        adapted,
        TrainingArguments(
            str(out),
            # One row after the other, since a batch of any lengths is mostly padding.
            per_device_train_batch_size=1,
            gradient_accumulation_steps=asked.batch,
            num_train_epochs=asked.epochs,
            learning_rate=asked.rate,
            warmup_steps=0.03,
            lr_scheduler_type="linear",
            save_strategy="epoch",
            logging_steps=1,
            report_to=[],
            seed=asked.seed,
            remove_unused_columns=False,
            disable_tqdm=True,
        ),
        train_dataset=rows,
    ).train()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--set", default="clean")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rate", type=float, default=2e-4)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    warm_up(asked.folder / f"{asked.set}.jsonl", asked.folder / "warm-up" / asked.set, asked)


if __name__ == "__main__":
    main()
