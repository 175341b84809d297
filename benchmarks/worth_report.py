"""The tables of `worth.py`: differences to random in nats a token, with intervals over held-out rows and over runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BOOTSTRAPS = 2000
LEVEL = 0.95
POWER = 0.8


def by_run(done: Mapping[str, Any], of: str, arm: str, budget: str) -> dict[str, NDArray[np.float64]]:
    """``sampleN/seedM`` -> the losses of all held-out rows."""
    found = {}
    for key, run in done["runs"].items():
        set_, name, spent, sample, seed = key.split("/")
        if (set_, name) == (of, arm) and (spent == budget or arm == "full"):
            found[f"{sample}/{seed}"] = np.asarray(run["losses"], dtype=np.float64)
    return found


def per_token(losses: NDArray[np.float64], tokens: NDArray[np.float64], rows: Any = slice(None)) -> Any:
    """Nats a token over some rows; losses [..., rows]."""
    return losses[..., rows].sum(axis=-1) / tokens[rows].sum()


def per_capability(
    losses: NDArray[np.float64], tokens: NDArray[np.float64], groups: NDArray[np.int64]
) -> Any:
    """The mean over capabilities of nats a token."""
    means = [per_token(losses, tokens, groups == group) for group in np.unique(groups)]
    return np.mean(means, axis=0)


def difference(
    arm: Mapping[str, NDArray[np.float64]],
    base: Mapping[str, NDArray[np.float64]],
    tokens: NDArray[np.float64],
    groups: NDArray[np.int64],
    seed: int = 0,
) -> dict[str, Any]:
    """An arm minus another at the same samples and seeds; a bootstrap over runs and, inside capabilities, over rows.

    Both levels are drawn together: the interval is for another training on another draw, judged on other rows.
    """
    runs = sorted(arm.keys() & base.keys())
    held = np.stack([arm[run] - base[run] for run in runs])
    rng = np.random.default_rng(seed)
    drawn = np.empty((BOOTSTRAPS, 2))
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    for at in range(BOOTSTRAPS):
        of_runs = held[rng.integers(len(runs), size=len(runs))].mean(axis=0)
        rows = np.concatenate([rng.choice(of, len(of)) for of in members])
        drawn[at] = _both(of_runs[rows], tokens[rows], groups[rows])
    mean = _both(held.mean(axis=0), tokens, groups)
    out: dict[str, Any] = {"runs": len(runs)}
    for name, place in (("token", 0), ("capability", 1)):
        values = drawn[:, place]
        low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        # Both tails, with the draws' own uncertainty: never 0.
        tail = min((values <= 0).sum(), (values >= 0).sum())
        out[name] = {
            "difference": float(mean[place]),
            "low": float(low),
            "high": float(high),
            "p": float(min(1.0, 2 * (tail + 1) / (BOOTSTRAPS + 1))),
            "spread": float(values.std(ddof=1)),
        }
    return out


def _both(
    losses: NDArray[np.float64], tokens: NDArray[np.float64], groups: NDArray[np.int64]
) -> tuple[float, float]:
    return float(per_token(losses, tokens)), float(per_capability(losses, tokens, groups))


def holm(values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values."""
    order = np.argsort(values, kind="stable")
    out = [0.0] * len(values)
    worst = 0.0
    for rank, place in enumerate(order.tolist()):
        worst = max(worst, min(1.0, (len(values) - rank) * values[place]))
        out[place] = worst
    return out


def detectable(spread: float, tests: int = 1) -> float:
    """The smallest difference found with a power of 80 % at 5 %, two-sided, Bonferroni's bound over the arms."""
    from scipy.stats import norm

    return float((norm.ppf(1 - (1 - LEVEL) / 2 / tests) + norm.ppf(POWER)) * spread)


def report(done: Mapping[str, Any], folder: Path) -> str:
    """All tables as text."""
    tokens = np.asarray(done["held_out"]["tokens"], dtype=np.float64)
    groups = np.unique(done["held_out"]["capability"], return_inverse=True)[1]
    cells: dict[tuple[str, str], list[str]] = defaultdict(list)
    for key in done["runs"]:
        of, arm, budget, *_ = key.split("/")
        if arm not in cells[of, budget]:
            cells[of, budget].append(arm)
    lines = []
    for (of, budget), arms in cells.items():
        base = by_run(done, of, "random", budget)
        if not base:
            continue
        held = np.stack(list(base.values()))
        lines.append(
            f"\n{of}, {float(budget):.0%} of the supervised tokens; random: {per_token(held, tokens).mean():.4f} nats a "
            f"token, {per_capability(held, tokens, groups).mean():.4f} by capability, {len(base)} runs"
        )
        others = [arm for arm in arms if arm != "random"]
        found = {arm: difference(by_run(done, of, arm, budget), base, tokens, groups) for arm in others}
        for name in ("token", "capability"):
            adjusted = dict(zip(others, holm([found[arm][name]["p"] for arm in others]), strict=True))
            lines.append(f"  by {name}")
            for arm in sorted(others, key=lambda arm: found[arm][name]["difference"]):
                one = found[arm][name]
                lines.append(
                    f"    {arm:24s} {one['difference']:+.4f}  [{one['low']:+.4f}, {one['high']:+.4f}]  "
                    f"p {one['p']:.4f}, Holm {adjusted[arm]:.4f}  detectable {detectable(one['spread'], len(others)):.4f}"
                )
    return "\n".join(lines)
