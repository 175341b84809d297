"""Does the classifier keep the pace of transformers' own ``pipeline(..., batch_size=...)`` on the same rows?

Both arms read the same texts in one process, in turns, so that a slow minute of the machine hits both. The pipeline is
given the batch size that it does best with of those named, as the texts come and sorted by length.

    python benchmarks/classifier.py --model MODEL --rows 400 --repeats 3
"""

from __future__ import annotations

import argparse
import os
import tempfile
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


def measure(
    model: str | None, rows: int, repeats: int, batches: list[int], threads: int | None
) -> dict[str, Any]:
    import torch
    from transformers import pipeline

    import datapruner as dp
    from datapruner.scorers.classifier import Classifier

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

    def ours(repeat: int) -> list[float]:
        with tempfile.TemporaryDirectory() as cache:
            scores = dp.score(
                data,
                scorers=Classifier(),
                classifier=folder,
                classifier_max_length=longest,
                cache=cache,
                count_tokens=False,
                progress=False,
            )
        held: list[float] = scores.rankings["classifier"].values.tolist()
        return held

    arms: dict[str, Any] = {"datapruner": ours}
    for batch in batches:
        arms[f"pipeline, {batch}"] = lambda _, batch=batch: theirs(batch, by_length=False)
        arms[f"pipeline, {batch}, by length"] = lambda _, batch=batch: theirs(batch, by_length=True)
    runs = in_turns(arms, repeats)
    best = min(
        (name for name in runs if name != "datapruner"), key=lambda name: min(run[0] for run in runs[name])
    )
    tokens = [len(ids) for ids in called.tokenizer(some)["input_ids"]]
    whole = np.array(tokens) <= longest  # the pipeline cuts the end of the others
    apart = np.abs(np.array(runs["datapruner"][0][1]) - np.array(runs[best][0][1]))[whole]
    made.cleanup()
    return {
        "rows": rows,
        "tokens": int(sum(tokens)),
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
    print(result["best_pipeline"], result["seconds_over_best_pipeline"], result["largest_difference"])
