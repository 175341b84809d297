"""Does the extractor keep the pace of plain ``SentenceTransformer.encode``, and what do a warm store and growth cost?

Both arms embed the same rows in one process, in turns, so that a slow minute of the machine hits both.

    python benchmarks/embedding.py --rows 2000 --repeats 5
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
from common import MIXTURE, RESULTS, in_turns, machine, ratio, summary, timed, versions, write

SEED = 0
NEW_ROWS = 100


def read_texts(path: Path, count: int) -> list[str]:
    """A seeded sample of the file's rows as the prune command reads them: question and answer together."""
    from datapruner.samples import load_samples

    texts = list(load_samples(str(path)).texts("both"))
    if count > len(texts):
        raise SystemExit(f"there are {len(texts)} rows, not {count}")
    order = np.random.default_rng(SEED).permutation(len(texts))
    distinct = list(dict.fromkeys(texts[row] for row in order))
    return distinct[:count]


def measure(rows: int, repeats: int, threads: int | None) -> dict[str, Any]:
    import torch
    from sentence_transformers import SentenceTransformer

    from datapruner.models.embedders import load_text_embedder
    from datapruner.models.offline import model_folder
    from datapruner.signals.embedding import embed_texts
    from datapruner.signals.store import SignalStore

    if threads:
        torch.set_num_threads(threads)
    texts = read_texts(MIXTURE, rows + NEW_ROWS)
    texts, new = texts[:rows], texts[rows:]
    calls = [0]
    loaded = load_text_embedder("minilm")

    def forward(ids: Any, mask: Any) -> Any:
        calls[0] += 1
        return loaded.forward(ids, mask)

    embedder = replace(loaded, forward=forward)
    plain = SentenceTransformer(str(model_folder("minilm")), device="cpu")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def ours(store: SignalStore, of: list[str]) -> Any:
            return embed_texts(of, embedder, store, progress=False)

        def theirs(repeat: int) -> Any:
            return plain.encode(texts, show_progress_bar=False)

        ours(SignalStore(folder / "warm-up"), texts[:64])
        plain.encode(texts[:64], show_progress_bar=False)
        arms = in_turns(
            {"ours": lambda repeat: ours(SignalStore(folder / f"{repeat}"), texts), "plain": theirs}, repeats
        )
        mine, other = np.asarray(arms["ours"][0][1]), arms["plain"][0][1]
        same = all(run[1].tobytes() == mine.tobytes() for run in arms["ours"])
        result: dict[str, Any] = {arm: summary(runs, rows) for arm, runs in arms.items()}
        result |= {
            "speed_of_ours_over_plain": ratio(arms["plain"], arms["ours"]),
            "max_abs_difference": float(np.abs(mine - other).max()),
            "repeats_give_the_same_bytes": same,
        }

        store = SignalStore(folder / "0")
        calls[0] = 0
        seconds, warm, _ = timed(lambda: ours(store, texts))
        result["warm"] = {
            "seconds": round(seconds, 3),
            "model_calls": calls[0],
            "rows_computed": store.computed,
            "same_bytes": warm.tobytes() == mine.tobytes(),
        }

        places = np.sort(np.random.default_rng(SEED).choice(rows + NEW_ROWS, NEW_ROWS, replace=False))
        is_new = np.zeros(rows + NEW_ROWS, dtype=bool)
        is_new[places] = True
        old_rows, new_rows = iter(texts), iter(new)
        grown = [next(new_rows) if fresh else next(old_rows) for fresh in is_new]
        calls[0] = 0
        seconds, after, _ = timed(lambda: ours(store, grown))
        result["growth"] = {
            "inserted": NEW_ROWS,
            "rows_computed": store.computed,
            "model_calls": calls[0],
            "seconds": round(seconds, 3),
            "old_rows_same_bytes": np.asarray(after)[~is_new].tobytes() == mine.tobytes(),
        }
    result["rows"], result["repeats"], result["seed"] = rows, repeats, SEED
    result["model"] = "minilm"
    result["machine"] = machine(torch_threads=torch.get_num_threads())
    result["versions"] = versions(
        "datapruner", "torch", "transformers", "sentence-transformers", "tokenizers", "numpy"
    )
    return result


def show(result: dict[str, Any]) -> str:
    lines = [f"{result['rows']} rows, {result['repeats']} repeats in turns"]
    lines.append(
        f"{'':>22} {'median s':>9} {'min':>8} {'max':>8} {'rows/s':>8} {'peak MiB':>9} {'grown MiB':>10}"
    )
    for arm, label in (("ours", "embed_texts"), ("plain", "encode, batch of 32")):
        of = result[arm]
        lines.append(
            f"{label:>22} {of['seconds_median']:9.2f} {of['seconds_min']:8.2f} {of['seconds_max']:8.2f} "
            f"{of['rows_a_second_median']:8.1f} {of['peak_rss_mib']:9.0f} {of['peak_growth_mib']:10.0f}"
        )
    ratio, warm, growth = result["speed_of_ours_over_plain"], result["warm"], result["growth"]
    lines += [
        f"speed of ours / plain: {ratio['of_medians']:.2f} ({min(ratio['pairs']):.2f} to {max(ratio['pairs']):.2f})",
        f"largest difference of a number: {result['max_abs_difference']:.1e}; "
        f"repeats give the same bytes: {result['repeats_give_the_same_bytes']}",
        f"warm store: {warm['seconds']:.2f} s, {warm['model_calls']} model calls, same bytes: {warm['same_bytes']}",
        f"{growth['inserted']} rows inserted: {growth['rows_computed']} rows computed in {growth['seconds']:.2f} s, "
        f"old rows' bytes equal: {growth['old_rows_same_bytes']}",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=None, help="torch threads; default: torch's own")
    parser.add_argument("--output", type=Path, default=RESULTS / "embedding.json")
    arguments = parser.parse_args()
    result = measure(arguments.rows, arguments.repeats, arguments.threads)
    print(show(result))
    write(arguments.output, result)
    kept = (
        result["repeats_give_the_same_bytes"]
        and result["warm"]["model_calls"] == 0
        and result["warm"]["same_bytes"]
        and result["growth"]["rows_computed"] == NEW_ROWS
        and result["growth"]["old_rows_same_bytes"]
    )
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
