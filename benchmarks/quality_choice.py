"""What each arm of the quality benchmark keeps, and what its scoring costs."""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from common import timed, write
from finetune import MAX_LENGTH

from datapruner.ranks import average_ranks
from datapruner.scorers import Ranking, Scorer, make_scorer

PARTS: dict[str, frozenset[str]] = {
    "tokens": frozenset({"num_supervised_tokens"}),
    "embedding": frozenset({"embedding"}),
    "losses": frozenset({"log_ppl", "entropy", "el2n", "grad_norm", "weight_dot", "number_surprise"}),
    "responses": frozenset({"response_log_ppl"}),
    "shape": frozenset({"neighbours", "manifold"}),
}
"""What is measured together: tokens are counted, one embedding pass, two of the language model, UMAP and its graph."""


@dataclass(frozen=True)
class CleanedFirst(Scorer):
    """Random rows, of those that `response_noise` does not put last."""

    drop: float = 0.4
    name: ClassVar[str] = "cleaned_first"
    needs: ClassVar[frozenset[str]] = make_scorer("response_noise").requires

    def _score(self, signals: Any) -> Ranking:
        ranks = average_ranks(make_scorer("response_noise").score(signals).values) / signals.num_rows
        values = np.random.default_rng(signals.seed).random(signals.num_rows)
        return Ranking(values - (ranks <= self.drop))


@dataclass(frozen=True)
class Arm:
    scorer: Scorer
    dedup: bool = False
    per_group: str | None = None

    @property
    def parts(self) -> list[str]:
        """Tokens are counted by every part."""
        own = self.scorer.requires - PARTS["tokens"] or PARTS["tokens"]
        return [part for part, signals in PARTS.items() if own & signals]


def arm(name: str, *, dedup: bool = False, per_group: str | None = None, **parameters: Any) -> Arm:
    return Arm(make_scorer(name, parameters), dedup, per_group)


MAIN = {
    "random": arm("random"),
    "response_noise": arm("response_noise"),
    "ifd, low kept": arm("ifd", keep="low"),
    "mid_perplexity": arm("mid_perplexity"),
    "concept_complexity, dedup first": arm("concept_complexity", dedup=True),
    "el2n": arm("el2n"),
    "donod, shrink": arm("donod", don="shrink"),
    "donod, grow": arm("donod", don="grow"),
    "qtuning, whole rows": arm("qtuning", token_keep=1.0),
    "ifd": arm("ifd"),
    "prototypes": arm("prototypes"),
    "length": arm("length"),
    "stratified": arm("stratified"),
}
REMEDIES = {
    "dedup, cleaned, then random": Arm(CleanedFirst(), dedup=True),
    "response_noise, dedup first": arm("response_noise", dedup=True),
    "response_noise in each capability": arm("response_noise", per_group="capability"),
    "random in each capability": arm("random", per_group="capability"),
    "response_noise + concept_complexity": arm("combined", scorers=["response_noise", "concept_complexity"]),
}
OTHERS = {
    "perplexity": arm("perplexity"),
    "el2n, low kept": arm("el2n", keep="low"),
    "grad_norm": arm("grad_norm"),
    "donod, shrink, length corrected": arm("donod", don="shrink", length_correction=True),
    "donod, grow, length corrected": arm("donod", don="grow", length_correction=True),
    "superfiltering": arm("ifd", variant="superfiltering"),
    "k_center": arm("k_center"),
    "d2": arm("d2"),
    "entanglement": arm("entanglement"),
}
ARMS = {**MAIN, **REMEDIES, **OTHERS}
WHOLE = ("clean full", "full")
"""Arms that choose nothing."""
PRESETS = {
    "main": ["random", "clean full", *list(MAIN)[1:], "full"],
    "remedies": ["random", *REMEDIES],
    "others": ["random", *OTHERS],
}


def measured(arguments: Any, name: str, signals: frozenset[str], dedup: bool = False) -> Any:
    """Signals of a set; what was measured before comes from the cache."""
    from datapruner.measuring.arguments import requested
    from datapruner.measuring.measure import measure

    @dataclass(frozen=True)
    class Everything(Scorer):
        name: ClassVar[str] = "everything"
        needs: ClassVar[frozenset[str]] = signals

        def _score(self, signals: Any) -> Ranking:
            return Ranking(np.zeros(signals.num_rows))

    return measure(
        requested(
            str(arguments.folder / f"{name}.jsonl"),
            scorers=Everything(),
            model=arguments.model,
            max_length=MAX_LENGTH,
            cache=arguments.folder / "cache" / name,  # sets share rows, and a cost is of all of them
            dedup=dedup,
            count_tokens=True,
        )
    )


def cost(arguments: Any, name: str, part: str) -> dict[str, float]:
    """Seconds and peak memory of a part, models loaded; called in a process of its own."""
    seconds, _, memory = timed(lambda: measured(arguments, name, PARTS[part]))
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(time.process_time(), 1),
        "peak_mib": round(memory.peak / 2**20),
    }


def choose(arguments: Any, name: str, arms: Sequence[str]) -> dict[str, Any]:
    """What every arm keeps, by budget and seed, and what that cost; kept in a file."""
    file = arguments.folder / f"{name}.selections.json"
    fresh = {"settings": arguments.settings, "parts": {}, "costs": {}, "kept": {}}
    held: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.exists() else fresh
    if held["settings"] != arguments.settings:
        raise SystemExit(f"{file} was made with other settings; name another --folder")
    wanted = {(one, share): seeds_of(arguments, one) for one in arms for share in map(str, arguments.budgets)}
    missing = dict.fromkeys(
        one
        for (one, share), seeds in wanted.items()
        if one in ARMS and len(held["kept"].get(one, {}).get(share, [])) < seeds
    )
    for part in PARTS:
        if part not in held["parts"] and any(part in ARMS[one].parts for one in missing):
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
                held["parts"][part] = alone.submit(cost, arguments, name, part).result()
            print(f"{name}, {part}: {held['parts'][part]}", file=sys.stderr, flush=True)
            write(file, held)
    for dedup in (False, True):
        of = [one for one in missing if ARMS[one].dedup == dedup]
        if of:
            found = measured(
                arguments, name, frozenset().union(*(ARMS[o].scorer.requires for o in of)), dedup
            )
            held["tokens"] = found.tokens["num_supervised_tokens"].tolist()
            for one in of:
                held["kept"][one], held["costs"][one] = select(arguments, found, one, held["parts"])
            write(file, held)
    return held


def select(
    arguments: Any, found: Any, one: str, parts: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """An arm's rows by budget and seed, and the seconds and memory of one seed: its parts, ranked and selected."""
    from datapruner.running import rank

    start = time.perf_counter()
    kept: dict[str, list[list[int]]] = {str(share): [] for share in arguments.budgets}
    seeds = seeds_of(arguments, one)
    for seed in range(seeds):
        recipe = found.recipe.model_copy(update={"seed": seed})
        seeded = found._replace(signals=replace(found.signals, seed=seed), recipe=recipe)
        scores = rank(seeded, [ARMS[one].scorer])
        for share in arguments.budgets:
            budget = round(share * int(found.tokens["num_supervised_tokens"].sum()))
            selection = scores.select(keep_tokens=budget, per_group=ARMS[one].per_group)
            kept[str(share)].append(selection.indices.tolist())
    own = (time.perf_counter() - start) / seeds
    costs = [parts[part] for part in ARMS[one].parts]
    return kept, {
        "seconds": round(sum(part["seconds"] for part in costs) + own, 1),
        "peak_mib": max(part["peak_mib"] for part in costs),
    }


def seeds_of(arguments: Any, arm: str) -> int:
    return int(arguments.random_seeds if arm == "random" else arguments.seeds)
