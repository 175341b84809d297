"""The tables of `worth.py`: differences to random in nats a token, with intervals over runs and held-out rows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from common import write
from moderated import moderated
from numpy.typing import NDArray
from scipy.stats import norm, t

BOOTSTRAPS = 1000
LEVEL, POWER = 0.95, 0.8
WEIGHTS = ("token", "capability")
"""Nats a token over all held-out rows, and the mean over capabilities of the same."""

Losses = NDArray[np.float64]


class Results:
    """All runs of a file: what each lost on every held-out row."""

    def __init__(self, done: Mapping[str, Any]) -> None:
        self.tokens = np.asarray(done["held_out"]["tokens"], dtype=np.float64)
        self.names, self.groups = np.unique(done["held_out"]["capability"], return_inverse=True)
        self.sets = {of: np.flatnonzero(np.isin(self.names, own)) for of, own in done["sets"].items()}
        """Set -> the capabilities that it has, of which it is judged."""
        self.runs: dict[tuple[str, str, float], dict[str, Losses]] = {}
        self.moderated: dict[tuple[str, float], dict[str, list[tuple[float, float]]]] = {}
        for key, run in done["runs"].items():
            of, arm, budget, sample, seed = key.split("/")
            losses = np.asarray(run["losses"], dtype=np.float64)
            self.runs.setdefault((of, arm, float(budget)), {})[f"{sample}/{seed}"] = losses

    def means(self, of: str, losses: Losses) -> NDArray[np.float64]:
        """Both weightings of one vector of losses: (2,)."""
        sums, tokens = (np.bincount(self.groups, of_all)[self.sets[of]] for of_all in (losses, self.tokens))
        return np.array([sums.sum() / tokens.sum(), (sums / tokens).mean()])

    @cached_property
    def draws(self) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """For every capability its held-out rows, and how often each draw has them: (draws, rows)."""
        rng = np.random.default_rng(1)
        members = [np.flatnonzero(self.groups == group) for group in range(len(self.names))]
        return [
            (rows, rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), BOOTSTRAPS).astype(float))
            for rows in members
        ]

    def drawn(self, of: str, held: Losses) -> NDArray[np.float64]:
        """Both weightings of some runs' losses under all draws of held-out rows: (2, runs, draws)."""
        own = [self.draws[group] for group in self.sets[of]]
        sums = np.stack([held[:, rows] @ often.T for rows, often in own])
        tokens = np.stack([self.tokens[rows] @ often.T for rows, often in own])
        return np.stack([sums.sum(axis=0) / tokens.sum(axis=0), (sums / tokens[:, None]).mean(axis=0)])

    def level(self, of: str, arm: str, budget: float) -> NDArray[np.float64]:
        """The mean over an arm's runs of both weightings."""
        return np.asarray(self.values(of, arm, budget).mean(axis=0))

    def values(self, of: str, arm: str, budget: float) -> NDArray[np.float64]:
        """Both weightings of every run of an arm: (runs, 2)."""
        return np.stack([self.means(of, losses) for losses in self.runs[of, arm, budget].values()])

    def variances(self, of: str, budget: float) -> dict[str, list[tuple[float, float]]]:
        """Arm -> for both weightings the moderated variance of one run, and its degrees of freedom."""
        held = {arm: self.values(*key) for key in self.runs if key[::2] == (of, budget) for arm in [key[1]]}
        arms = [arm for arm, values in held.items() if len(values) > 1]
        if not arms:
            return {}
        freedom = np.array([len(held[arm]) - 1.0 for arm in arms])
        found = [
            moderated(np.array([held[arm][:, place].var(ddof=1) for arm in arms]), freedom)
            for place in range(len(WEIGHTS))
        ]
        return {arm: [(float(of[0][at]), float(of[1][at])) for of in found] for at, arm in enumerate(arms)}

    def difference(self, of: str, arm: str, base: str, budget: float) -> Any:
        """The mean of an arm's runs minus that of another's: {weighting: {...}}, nats a token.

        Its variance has three parts: that of the arm's runs (another sample, another draw, another training), that of
        the base's, and that of the held-out rows, by a bootstrap of them inside capabilities. Arms of few runs say
        little of their own variance, so each is moderated by those of all arms of the table. Degrees of freedom are
        Welch and Satterthwaite's. Seeds and samples are not paired: other rows are trained on, and in no table did
        runs of one seed or sample go up and down together.
        """
        if (of, budget) not in self.moderated:
            self.moderated[of, budget] = self.variances(of, budget)
        variances = self.moderated[of, budget]
        if arm not in variances or base not in variances:
            return None
        held = [np.mean([*self.runs[of, one, budget].values()], axis=0) for one in (arm, base)]
        mean = self.means(of, held[0]) - self.means(of, held[1])
        rows = self.drawn(of, (held[0] - held[1])[None]).var(axis=-1, ddof=1)[:, 0]
        counts = [len(self.runs[of, one, budget]) for one in (arm, base)]
        out = {}
        for place, weight in enumerate(WEIGHTS):
            parts = [(float(rows[place]), len(self.tokens) - 1.0)]
            for one, n in zip((arm, base), counts, strict=True):
                variance, degrees = variances[one][place]
                parts.append((variance / n, degrees))
            total = sum(part for part, _ in parts)
            freedom = total**2 / sum(part**2 / degrees for part, degrees in parts)
            spread = math.sqrt(total)
            out[weight] = {
                "difference": float(mean[place]),
                "half": float(t.ppf((1 + LEVEL) / 2, freedom) * spread),
                "p": float(2 * t.sf(abs(mean[place]) / max(spread, 1e-12), freedom)),
                "spread": spread,
                "freedom": float(freedom),
                "runs": counts[0],
            }
        return out


def holm(values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values."""
    out = [0.0] * len(values)
    worst = 0.0
    for rank, place in enumerate(np.argsort(values, kind="stable").tolist()):
        worst = max(worst, min(1.0, (len(values) - rank) * values[place]))
        out[place] = worst
    return out


def detectable(spread: float, freedom: float) -> float:
    """The smallest difference that is found with a power of 80 % at 5 %, two-sided."""
    return float((t.ppf((1 + LEVEL) / 2, freedom) + norm.ppf(POWER)) * spread)


def share_of_tokens(results: Results, of: str, level: float, place: int) -> float:
    """The budget at which random reaches a loss, interpolated in the logarithm of the budget; nan outside."""
    budgets = sorted(budget for held, arm, budget in results.runs if held == of and arm == "random")
    losses = [results.level(of, "random", budget)[place] for budget in budgets]
    if len(budgets) < 2 or not min(losses) <= level <= max(losses):
        return float("nan")
    order = np.argsort(losses)
    return float(np.exp(np.interp(level, np.array(losses)[order], np.log(budgets)[order])))


def tables(done: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For every set and budget: random's losses, and each arm's difference from it, in both weightings."""
    results = Results(done)
    out = []
    for of, budget in sorted({(of, budget) for of, _, budget in results.runs}):
        if (of, "random", budget) not in results.runs:
            continue
        level = results.level(of, "random", budget)
        found = {
            arm: one
            for held, arm, spent in sorted(results.runs)
            if (held, spent) == (of, budget)
            and arm != "random"
            and (one := results.difference(of, arm, "random", budget)) is not None
        }
        for place, weight in enumerate(WEIGHTS):
            adjusted = holm([one[weight]["p"] for one in found.values()])
            gap = found.get("oracle", {}).get(weight, {}).get("difference", 0.0)
            for one, value in zip((one[weight] for one in found.values()), adjusted, strict=True):
                one["holm"] = value
                one["seen_from"] = detectable(one["spread"], one["freedom"])
                one["gap_closed"] = one["difference"] / gap if gap < 0 else None
                share = share_of_tokens(results, of, level[place] + one["difference"], place)
                one["random_needs"] = None if math.isnan(share) else share
        out.append(
            {
                "set": of,
                "budget": budget,
                "capabilities": len(results.sets[of]),
                "random": dict(zip(WEIGHTS, map(float, level), strict=True)),
                "runs": len(results.runs[of, "random", budget]),
                "arms": found,
            }
        )
    return out


def report(done: Mapping[str, Any]) -> str:
    """All tables as text."""
    lines: list[str] = []
    for one in tables(done):
        level, found = one["random"], one["arms"]
        lines.append(
            f"\n{one['set']}, {one['budget']:.0%} of the supervised tokens; random: {level['token']:.4f} nats a token, "
            f"{level['capability']:.4f} by capability, {one['runs']} runs"
        )
        for weight in WEIGHTS if found else ():
            lines.append(f"  by {weight}")
            for arm in sorted(found, key=lambda arm: found[arm][weight]["difference"]):
                of = found[arm][weight]
                closed, needs = of["gap_closed"], of["random_needs"]
                lines.append(
                    f"    {arm:28s} {of['difference']:+.4f} ± {of['half']:.4f}  Holm {of['holm']:.4f}  "
                    f"seen from {of['seen_from']:.4f}"
                    + ("" if closed is None else f"  {closed:5.0%} of the gap")
                    + ("" if needs is None else f"  random needs {needs:.0%}")
                )
    return "\n".join(lines)


def saved(done: Mapping[str, Any], out: Path) -> None:
    """Write what the pages are made of, and beside it every run's losses, so that others can weight them anew."""
    keys = sorted(done["runs"])
    runs = [done["runs"][key] for key in keys]
    first = runs[0]
    found = {
        "tables": tables(done),
        "settings": {name: first[name] for name in ("depth", "rate")},
        "held_out": {"rows": len(done["held_out"]["tokens"]), "tokens": sum(done["held_out"]["tokens"])},
        "costs": done.get("costs", {}),
        "machine": done["machine"],
        "versions": done["versions"],
        "seconds": {
            f"{budget:g}": round(float(np.median([run["training"] + run["judging"] for run in of])), 1)
            for budget, of in _by_budget(keys, runs)
        },
    }
    write(out, found)
    np.savez_compressed(
        out.with_name(f"{out.stem}-losses.npz"),
        runs=np.array(keys),
        # Half floats: a row's loss to a two-thousandth, their mean far nearer.
        losses=np.array([run["losses"] for run in runs]).astype(np.float16),
        tokens=np.array(done["held_out"]["tokens"]),
        capability=np.array(done["held_out"]["capability"]),
    )


def restored(found: Path) -> dict[str, Any]:
    """Give the runs that `saved` wrote, so that others can be added to them where the folder of the runs is gone."""
    table = json.loads(found.read_text("utf-8"))
    held = np.load(found.with_name(f"{found.stem}-losses.npz"))
    seconds = {float(budget): of for budget, of in table["seconds"].items()}
    runs = {
        key: {
            **table["settings"],
            "training": seconds[float(key.split("/")[2])],
            "judging": 0.0,
            "losses": losses.astype(np.float64).round(3).tolist(),
        }
        for key, losses in zip(held["runs"].tolist(), held["losses"], strict=True)
    }
    return {"runs": runs, "costs": table["costs"]}


def _by_budget(keys: Sequence[str], runs: Sequence[Any]) -> Iterator[tuple[float, list[Any]]]:
    budgets = [float(key.split("/")[2]) for key in keys]
    for budget in sorted(set(budgets)):
        yield budget, [run for run, of in zip(runs, budgets, strict=True) if of == budget]
