"""The rules of cleaning themselves, without an index."""

from __future__ import annotations

WORDS = [f"w{i}" for i in range(400)]


def shingles(text, n):
    words = text.split()
    if not words:
        return set()
    if len(words) < n:
        return {tuple(words)}
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def jaccard(a, b):
    return len(a & b) / len(a | b) if a | b else 0.0


def corpus(rng, count, edits):
    """Random texts, and copies with a few words changed, anywhere."""
    texts = [" ".join(rng.choice(WORDS, rng.integers(3, 60))) for _ in range(count)]
    for _ in range(count):
        words = texts[rng.integers(len(texts))].split()
        for _ in range(rng.integers(0, edits)):
            words[rng.integers(len(words))] = str(rng.choice(WORDS))
        texts.insert(int(rng.integers(len(texts))), " ".join(words))
    return texts


def greedy(order, similar, protected):
    """The rule itself, without an index: {dropped row: kept row}."""
    kept, dropped = [], {}
    for j in order:
        scores = [(similar(i, j), -i) for i in kept]
        best = max(scores, default=(None, 0))
        if best[0] is not None and best[0] >= 0 and not protected[j]:
            dropped[j] = (-best[1], best[0])
        else:
            kept.append(j)
    return dropped
