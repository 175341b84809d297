"""Does every layout go the whole way? Each train file, and generated ones, from source to dataset and back.

For every file: prune at keep 0.3 with MiniLM through the command line; load the result with
`datasets.load_dataset`; compare rows, columns and order with the source read by `json`; run its recipe and
compare bytes; select at 0.1 from saved scores and compare with a fresh run. Then the gsm8k result trains
SmolLM2-135M for two steps in trl's SFTTrainer.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import pyarrow.parquet as pq
from datasets import load_dataset

ROOT = Path(__file__).parent


def generated(mixture: list[dict], folder: Path, count: int) -> list[Path]:
    """ShareGPT, alpaca with `output`, and preference files made from rows of the mixture."""
    pairs = [
        (row["messages"][0]["content"], row["messages"][-1]["content"])
        for row in mixture
        if len(row["messages"]) == 2
    ][:count]
    layouts = {
        "sharegpt": [
            {
                "conversations": [{"from": "human", "value": ask}, {"from": "gpt", "value": say}],
                "source": number,
            }
            for number, (ask, say) in enumerate(pairs)
        ],
        "alpaca": [{"instruction": ask, "input": "", "output": say} for ask, say in pairs],
        "preference": [
            {"prompt": ask, "chosen": say, "rejected": pairs[number - 1][1]}
            for number, (ask, say) in enumerate(pairs)
        ],
    }
    files = []
    for name, rows in layouts.items():
        files.append(folder / f"{name}.train.jsonl")
        files[-1].write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return files


def run(*arguments: object) -> None:
    command = [sys.executable, "-m", "datapruner", *map(str, arguments), "--quiet"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(f"{' '.join(map(str, arguments))}: exit {ran.returncode}\n{ran.stderr}")


def same_data(first: Path, second: Path) -> bool:
    names = sorted(path.name for path in (first / "data").iterdir())
    return names == sorted(path.name for path in (second / "data").iterdir()) and all(
        filecmp.cmp(first / "data" / name, second / "data" / name, shallow=False) for name in names
    )


def without_nulls(row: dict) -> dict:
    """JSON rows may lack a key that other rows have; Arrow holds it as null."""
    return {key: value for key, value in row.items() if value is not None}


def check(file: Path, work: Path) -> dict[str, object]:
    start = time.monotonic()
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
    out = work / file.stem
    run("prune", file, "--keep", "0.3", "-o", out)
    first = time.monotonic() - start
    read = load_dataset(str(out), split="train", cache_dir=str(work / "hf"))
    table = pq.read_table(out / "selection.parquet").to_pydict()
    kept = [index for index, is_kept in zip(table["index"], table["kept"], strict=True) if is_kept]
    run("run", out / "recipe.yaml", "-o", work / f"{file.stem}.again")
    run("score", file, "-o", work / f"{file.stem}.scores")
    run("select", work / f"{file.stem}.scores", "--keep", "0.1", "-o", work / f"{file.stem}.selected")
    run("prune", file, "--keep", "0.1", "-o", work / f"{file.stem}.fresh")
    return {
        "file": file.name,
        "rows": len(rows),
        "kept": len(read),
        "rows_as_asked": len(read) == int(0.3 * len(rows) + 0.5),
        "equal_to_source": [without_nulls(row) for row in read] == [without_nulls(rows[row]) for row in kept],
        "columns": sorted(read.column_names) == sorted({key for row in rows for key in row}),
        "reason_for_every_row": len(table["reason"]) == len(rows) and all(table["reason"]),
        "recipe_same_bytes": same_data(out, work / f"{file.stem}.again"),
        "select_equals_fresh": same_data(work / f"{file.stem}.selected", work / f"{file.stem}.fresh"),
        "seconds": round(first, 1),
    }


def train_two_steps(file: Path) -> dict[str, object]:
    from trl import SFTConfig, SFTTrainer

    import datapruner as dp
    from datapruner.models import load_causal_lm

    selection = dp.prune(file, keep=0.3, progress=False)
    model, tokenizer = load_causal_lm("smollm2-135m-q4")
    model.requires_grad_(True)
    with tempfile.TemporaryDirectory() as work:
        options = SFTConfig(
            output_dir=work, max_steps=2, per_device_train_batch_size=2, logging_steps=1, report_to=[], bf16=False,
            use_cpu=True, save_strategy="no", max_length=512, disable_tqdm=True,
        )  # fmt: skip
        trainer = SFTTrainer(
            model, options, train_dataset=selection.conversation(), processing_class=tokenizer
        )
        trainer.train()
    losses = [round(entry["loss"], 4) for entry in trainer.state.log_history if "loss" in entry]
    return {"file": file.name, "rows": len(selection), "steps": trainer.state.global_step, "losses": losses}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent.parent / "shared" / "data" / "sft")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "sources.json")
    parser.add_argument("--generated", type=int, default=800)
    options = parser.parse_args()
    files = sorted(options.data.glob("*.train.jsonl"))
    if not files:
        raise SystemExit(f"no *.train.jsonl in {options.data}; name the folder with --data")
    with tempfile.TemporaryDirectory() as work:
        mixture = [
            json.loads(line) for line in (options.data / "mixture.train.jsonl").read_text().splitlines()
        ]
        results = []
        for file in [*files, *generated(mixture, Path(work), options.generated)]:
            results.append(check(file, Path(work)))
            print(results[-1], flush=True)
    training = train_two_steps(options.data / "gsm8k.train.jsonl")
    print(training)
    good = all(value is True for row in results for value in row.values() if isinstance(value, bool))
    names = ("datapruner", "datasets", "torch", "transformers", "trl")
    options.out.write_text(
        json.dumps(
            {
                "machine": {"cores": os.cpu_count(), "processor": platform.machine()},
                "versions": {name: version(name) for name in names},
                "all_hold": good,
                "files": results,
                "training": training,
            },
            indent=1,
        )
        + "\n"
    )
    print("all hold" if good else "SOME DO NOT HOLD")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
