"""Does the classifier keep the pace of transformers' own ``pipeline(..., batch_size=...)`` on the same rows?

Both arms read the same texts in one process, in turns, so that a slow minute of the machine hits both. The pipeline is
given the batch size that it does best with of those named, as the texts come and sorted by length. Both are open
before the clock starts. What each is fed is counted too, padding and dummies among it: with few rows ours runs half
empty batches, whose shape a row's bits depend on; ``--repeats 0`` counts alone.

    python benchmarks/classifier.py --model MODEL --rows 400 --repeats 3
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
from common import MIXTURE, RESULTS, in_turns, machine, ratio, summary, versions, write


def random_classifier(folder: Path, layers: int) -> Path:
    """A random head on a random body of MiniLM's shape, with MiniLM's tokenizer: speed asks for no more."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    from datapruner.models.offline import model_folder

    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=384,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=12,
        num_labels=1,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(model_folder("minilm"), model_max_length=512).save_pretrained(folder)
    return folder


def _parts(values: Any, size: int) -> list[Any]:
    return [values[start : start + size] for start in range(0, len(values), size)]


def measure(
    model: str | None, rows: int, repeats: int, batches: list[int], threads: int | None
) -> dict[str, Any]:
    import torch
    from transformers import pipeline

    import datapruner as dp
    from datapruner.models.classifiers.loading import load_classifier
    from datapruner.signals.embedding import read_and_tell
    from datapruner.signals.store import SignalStore

    if threads:
        torch.set_num_threads(threads)
    made = tempfile.TemporaryDirectory()
    folder = model or str(random_classifier(Path(made.name) / "model", 6))
    texts = list(dict.fromkeys(dp.load_samples(str(MIXTURE)).texts("both")))
    drawn = np.random.default_rng(0).choice(len(texts), rows, replace=False)
    some = [texts[row] for row in drawn.tolist()]
    data = [{"text": text} for text in some]
    called = pipeline("text-classification", model=folder, function_to_apply="none", top_k=None)
    longest = min(512, called.model.config.max_position_embeddings)

    def theirs(batch: int, *, by_length: bool) -> list[float]:
        order = sorted(range(rows), key=lambda row: len(some[row])) if by_length else range(rows)
        given = [some[row] for row in order]
        found = called(given, batch_size=batch, truncation=True, max_length=longest)
        out = np.empty(rows)
        out[list(order)] = [one[0]["score"] for one in found]
        return out.tolist()

    numbered = list(enumerate(dp.load_samples(data)))
    reader = load_classifier(folder, reads="text", max_length=longest)
    fed = [0]

    def ours(repeat: int, count: bool = False) -> list[float]:
        """What the measurement does once the model is open: tokenise, run, store; the pipeline is open too."""

        def counted(ids: Any, mask: Any) -> Any:
            fed[0] += ids.size
            return np.zeros((len(ids), reader.width), dtype=np.float32)

        with tempfile.TemporaryDirectory() as cache:
            values, _ = read_and_tell(
                lambda: (sample.fed().encode() for _, sample in numbered),
                lambda places: [numbered[place] for place in places.tolist()],
                replace(reader, forward=counted) if count else reader,
                SignalStore(Path(cache)),
                signal="benchmark",
                progress=False,
            )
            return [float(value) for value in values[:, 0]]

    ours(0, count=True)
    tokens = [len(ids) for ids in called.tokenizer(some)["input_ids"]]
    read = np.sort(np.minimum(tokens, longest))
    padded = {batch: sum(len(part) * int(part[-1]) for part in _parts(read, batch)) for batch in batches}
    counts = {
        "rows": rows,
        "tokens": int(read.sum()),
        "tokens_fed": {"datapruner": fed[0], "pipeline by length": padded},
    }
    if not repeats:
        return counts
    arms: dict[str, Any] = {"datapruner": ours}
    for batch in batches:
        arms[f"pipeline, {batch}"] = lambda _, batch=batch: theirs(batch, by_length=False)
        arms[f"pipeline, {batch}, by length"] = lambda _, batch=batch: theirs(batch, by_length=True)
    runs = in_turns(arms, repeats)
    best = min(
        (name for name in runs if name != "datapruner"), key=lambda name: min(run[0] for run in runs[name])
    )
    whole = np.array(tokens) <= longest  # the pipeline cuts the end of the others
    apart = np.abs(np.array(runs["datapruner"][0][1]) - np.array(runs[best][0][1]))[whole]
    made.cleanup()
    return {
        **counts,
        "arms": {name: summary(of, rows) for name, of in runs.items()},
        "best_pipeline": best,
        "seconds_over_best_pipeline": ratio(runs["datapruner"], runs[best]),
        "largest_difference": float(apart.max()),
        **machine(threads=torch.get_num_threads()),
        "versions": versions("torch", "transformers", "datapruner"),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a sequence classifier; default: a random one of MiniLM's shape")
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path, default=RESULTS / "classifier.json")
    given = parser.parse_args()
    result = measure(given.model, given.rows, given.repeats, given.batches, given.threads)
    write(given.out, result)
    print({name: result.get(name) for name in ("best_pipeline", "seconds_over_best_pipeline", "tokens_fed")})
