"""What the checks work on: signals, rankings with the state that selectors read, portions of a budget."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Floats, Ints
from datapruner.ragged import Ragged, offsets_of
from datapruner.ranking import Ranking
from datapruner.selection.budget_rows import Portion
from datapruner.selection.selectors.message_passing import DISTANCES, NEIGHBOURS
from datapruner.selection.tokens import TOKEN_VALUES
from datapruner.signals import (
    OF_TARGET,
    TARGET,
    TARGET_GRADIENT,
    TARGET_SHARE,
    TARGET_SKETCH,
    TARGET_STATE,
    TARGET_TASK,
    Signals,
)
from datapruner.signals.measurement import OPEN, Given
from datapruner.signals.plan import measurements


def example_signals(n: int = 120, *, seed: int = 0, more: Mapping[str, Any] | None = None) -> Signals:
    """Make every known signal for ``n`` rows: three uneven clusters of 16-dimensional vectors, and texts.

    What is not told below of a built-in measurement is drawn as it is announced.

    Parameters
    ----------
    n : int
    seed : int
    more : mapping, optional
        Signals that a plug-in measures: name -> array, ragged array or list of n rows.

    Returns
    -------
    Signals
    """
    rng = np.random.default_rng(seed)
    cluster = rng.choice(3, size=n, p=[0.6, 0.3, 0.1])
    centres = rng.normal(size=(3, 16))
    embedding = (centres[cluster] + 0.3 * rng.normal(size=(n, 16))).astype(np.float32)
    supervised = rng.integers(1, 200, size=n)
    offsets = np.concatenate([[0], np.cumsum(supervised)]).astype(np.int64)
    of = np.repeat(np.arange(n), supervised)

    def mean(values: NDArray[Any]) -> Floats:
        return np.bincount(of, values.astype(np.float64), n) / supervised

    level = rng.normal(size=(3, n))
    nll = np.exp(0.5 * level[0][of] + rng.normal(size=len(of))).astype(np.float32)
    alone = (nll * np.exp(0.3 * level[1][of] + 0.2)).astype(np.float32)
    entropy = np.exp(0.4 * level[2][of] + 0.5 * rng.normal(size=len(of))).astype(np.float32)
    near, twin = (np.random.default_rng([seed, number]) for number in (1, 2))
    token_jsd = (np.log(2) * twin.beta(1 + cluster[of], 6)).astype(np.float32)
    pruned_nll = (nll * np.exp(twin.normal(0.3, 0.2, size=len(of)))).astype(np.float32)
    better = np.random.default_rng([seed, 3]).normal(-0.2, 0.2, size=len(of))
    reference = (nll * np.exp(better)).astype(np.float32)
    norms = 3 * mean(nll) / np.sqrt(supervised)
    target = embedding[near.permutation(n)[: max(12, n // 8)]]
    words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]
    told = {
        "embedding": embedding,
        TARGET: (target + 0.2 * near.normal(size=target.shape)).astype(np.float32),
        "pooled_state": np.tanh(embedding),
        TARGET_STATE: np.tanh(target),
        "output_sketch": np.sin(embedding),
        TARGET_SKETCH: np.sin(target),
        "gradient_sketch": np.arctan(embedding),
        "pruned_gradient_sketch": np.arctan(embedding + 0.3),
        TARGET_GRADIENT: np.arctan(target),
        TARGET_TASK: (["first"] * 7 + ["second"] * len(target))[: len(target)],
        TARGET_SHARE: np.repeat([2.0, 1.0], [min(7, len(target)), max(0, len(target) - 7)]),
        "neighbours": _neighbours(embedding),
        "manifold": (embedding[:, :2] + 0.1 * embedding[:, 2:4]).astype(np.float64),
        "label": rng.integers(0, 3, size=n),
        "num_tokens": supervised + rng.integers(1, 300, size=n),
        "num_supervised_tokens": supervised,
        "text": [f"{' '.join(rng.choice(words, size=6))} {row}" for row in range(n)],
        "log_ppl": mean(nll),
        "entropy": mean(entropy),
        "el2n": mean(np.sqrt(-np.expm1(-nll))),
        "grad_norm": norms,
        "weight_dot": mean(nll) - mean(entropy),
        "weight_norm": np.full(n, 40.0),
        "token_nll": Ragged(nll, offsets),
        "token_entropy": Ragged(entropy, offsets),
        "number_surprise": np.where(rng.random(n) < 0.3, 0.0, rng.normal(size=n)),
        "jsd": mean(token_jsd),
        "token_jsd": Ragged(token_jsd, offsets),
        "pruned_log_ppl": mean(pruned_nll),
        "pruned_token_nll": Ragged(pruned_nll, offsets),
        "pruned_grad_norm": 1.5 * norms,
        "gradient_dot": 1.5 * norms**2 * twin.uniform(-0.2, 1, size=n),
        "reference_log_ppl": mean(reference),
        "reference_token_nll": Ragged(reference, offsets),
        "response_log_ppl": mean(alone),
        "response_token_nll": Ragged(alone, offsets),
    }
    drawn = {
        given.name: _drawn(given, supervised, seed)
        for one in measurements()
        for given in one.gives
        if given.name not in told and not given.name.endswith(OPEN)
    }
    return Signals(n, {**drawn, **told, **(more or {})}, seed)


def with_asked(signals: Signals, asked: Iterable[str]) -> Signals:
    """Draw what is asked for by a name with something behind it, such as ``class:toxic``, and is not there yet."""
    opened = [given for one in measurements() for given in one.gives if given.name.endswith(OPEN)]
    supervised = np.ones(signals.num_rows, dtype=np.int64)
    more = {
        name: _drawn(replace(given, name=name), supervised, signals.seed)
        for name in sorted(set(asked) - signals.measured.keys())
        for given in opened
        if given.covers(name)
    }
    return replace(signals, measured={**signals.measured, **more}) if more else signals


def _drawn(given: Given, supervised: Ints, seed: int) -> Any:
    """Draw a signal of which no more is known than what its measurement announces."""
    n = len(supervised)
    rng = np.random.default_rng([seed, *given.name.encode()])

    def numbers(shape: int | tuple[int, ...]) -> NDArray[Any]:
        if np.dtype(given.dtype).kind in "iu":
            return rng.integers(0, n, size=shape).astype(given.dtype)
        return rng.normal(size=shape).astype(given.dtype)

    if given.shape == "text":
        return [f"{given.name} {number}" for number in rng.permutation(n)]
    if given.shape == "token":
        return Ragged(numbers(int(supervised.sum())), offsets_of(supervised))
    if given.shape == "row":
        return numbers(n)
    return numbers((max(12, n // 8), 16) if given.shape == "other set" else (n, 8))


def example_rows(n: int = 40, *, seed: int = 0) -> list[dict[str, str]]:
    """Make ``n`` different rows of prompts and responses, long and short, of several scripts."""
    drawn = np.random.default_rng(seed)
    words = ["alpha", "Beta", "gamma,", "delta!", "3.5", "naïve", "Straße", "ждать", "東京", "🙂", "x = y;"]

    def text(most: int) -> str:
        return " ".join(drawn.choice(words, size=int(drawn.integers(1, most))))

    return [{"prompt": f"{text(8)} {row}?", "response": text(30), "kind": words[row % 3]} for row in range(n)]


def random_ranking(seed: int) -> tuple[Ranking, Ints]:
    """Draw a ranking full of ties, with groups and what selectors read, and its rows' supervised tokens."""
    rng = np.random.default_rng(seed)
    n, k = int(rng.integers(2, 200)), int(rng.integers(1, 9))
    # Rounded, so that ties are common.
    values = np.round(rng.normal(size=n), int(rng.integers(0, 4)))
    groups, weights = rng.integers(0, k, size=n), rng.random(k) * (rng.random(k) < 0.8) + 1e-9
    tokens = rng.integers(1, 50, size=n)
    return Ranking(values, groups, weights, *plane(np.round(rng.gamma(2, size=n), 2), tokens)), tokens


def plane(log_ppl: Floats, tokens: Ints) -> tuple[dict[str, Any], dict[str, Any]]:
    """Give columns and state that scorers leave for their selectors: of a language model's pass, a walk, a graph."""
    token_nll = Ragged(np.repeat(log_ppl, tokens), offsets_of(tokens))
    walk = np.random.default_rng(len(log_ppl)).permutation(len(log_ppl))
    vectors = np.random.default_rng(len(log_ppl)).integers(0, 3, size=(len(log_ppl), 4)).astype(np.float32)
    chosen = {"task": np.array(["first", "second"])[walk % 2], "query": walk % 5 - 1, "choice": walk // 5 + 1}
    columns = {"log_ppl": log_ppl, "entropy": np.sqrt(log_ppl[::-1]), "walk_place": walk}
    return {**columns, **chosen}, {
        "token_nll": token_nll,
        TOKEN_VALUES: Ragged(np.round(np.sin(np.arange(len(token_nll.values))), 1), token_nll.offsets),
        "embedding": vectors,
        **_graph(len(log_ppl)),
    }


def _graph(n: int) -> dict[str, Ragged]:
    """Give the state that D2 leaves, for random neighbours: each edge stands at both of its ends."""
    rng = np.random.default_rng(n)
    low, high = np.divmod(np.unique(rng.integers(0, n * n, size=3 * n)), n)
    low, high = low[low < high], high[low < high]
    own, other = np.concatenate([low, high]), np.concatenate([high, low])
    apart = np.tile(np.round(rng.random(len(low)), 1), 2).astype(np.float32)
    order, offsets = np.lexsort((other, own)), offsets_of(np.bincount(own, minlength=n))
    return {NEIGHBOURS: Ragged(other[order], offsets), DISTANCES: Ragged(apart[order], offsets)}


def portion(n: int, costs: Ints, budget: int) -> Portion:
    """Make one portion of all rows; its unit is rows where each costs 1."""
    return Portion(np.arange(n), costs, budget, "", "rows" if (costs == 1).all() else "tokens")


def reordered(signals: Signals, rows: Ints) -> Signals:
    """Give the signals of some rows, in their order; a row may come several times."""

    def taken(value: Any) -> Any:
        if isinstance(value, Ragged):
            return value.take(rows)
        return value[rows] if isinstance(value, np.ndarray) else [value[row] for row in rows.tolist()]

    measured = {
        name: value if name in OF_TARGET else taken(value) for name, value in signals.measured.items()
    }
    if "neighbours" in measured:  # positions among the rows
        measured["neighbours"] = _neighbours(measured["embedding"])
    return Signals(len(rows), measured, signals.seed)


def _neighbours(embedding: NDArray[np.float32]) -> Ints:
    from datapruner.geometry.neighbours import neighbour_table

    return neighbour_table(embedding, 8).indices


def rng() -> np.random.Generator:
    """Make the generator that every selector is given here."""
    return np.random.default_rng(0)
