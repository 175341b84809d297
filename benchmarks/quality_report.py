"""The tables of the quality benchmark."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from finetune import interval, load

Runs = list[dict[str, Any]]
Losses = dict[str, list[float]]
"""By arm, one number a seed."""

LEGEND = """\
- **Rows** that the steps are drawn from; **noise**, its share of their supervised tokens; **copies**, the share of \
the rows that repeat another; **steps** of the optimiser, one a row at most.
- **Loss** in nats: a row's is the mean of its tokens, a capability's the mean of its held-out rows, and capabilities \
are weighted by their supervised tokens or equally. The second is ruled by those whose answers have few tokens; the \
first was added for that reason, after the first runs on two cores. ± half of the 95 % t-interval over seeds, which \
move LoRA's start, the order of the rows, and what is drawn by lot; not over other rows. Arms of five seeds, \
the random ones apart, got the last two after the first three had been looked at.
- **Against random** with Welch's 95 % interval. `*`: the two intervals themselves are apart. `=`: not above clean \
full's interval, as good or better so far as that tells; the wider it is, the easier.
- **Holm's correction** of Welch's test at 5 %, over all arms of a table but random.
- **Smallest difference that could be found**: four times in five by a test at 5 %, (t(0.975) + t(0.8)) s \
sqrt(1/n + 1/m) with n + m - 2 degrees of freedom and the arms' pooled deviation over seeds s; then by `*`, which asks \
for more.
- **Scoring**: of all the set's rows, models loaded; without a GPU, by one thread."""
"""What the tables' words mean."""


def report(out: Path) -> str:
    """Tables by set and budget."""
    done = load(out)
    held, layers = done["settings"]["held_out"], done["settings"]["layers"]
    trained = "all layers" if layers is None else f"the upper {layers} layers"
    lines = [LEGEND, f"- **Training**: LoRA on {trained}; {held:,} held-out rows a set."]
    for name in dict.fromkeys(one["set"] for one in done["runs"].values()):
        of = [one for one in done["runs"].values() if one["set"] == name]
        tokens = done["sets"][name]["held_out_tokens"]
        for one in of:
            one["loss"] = token_loss(one, tokens)
        untrained = next(one for one in of if one["arm"] == "not trained")
        for budget in sorted({one["budget"] for one in of} - {0}, reverse=True):
            arms: dict[str, Runs] = defaultdict(list)
            for one in of:
                if one["budget"] == budget:
                    arms[one["arm"]].append(one)
            arms = dict(sorted(arms.items(), key=lambda item: mean(item[1], "loss")))
            lines += ["", f"### {name}, {budget:.0%} of the supervised tokens", ""]
            lines += [*main_table(arms, done["sets"][name]["costs"]), "", notes(arms, untrained), ""]
            lines += capability_table(arms, untrained)
    return "\n".join(lines).strip()


def main_table(arms: dict[str, Runs], costs: dict[str, Any]) -> list[str]:
    kinds = ["loss", "log_ppl"] if len(next(iter(arms.values()))[0]["by_capability"]) > 1 else ["loss"]
    losses = {kind: losses_of(arms, kind) for kind in kinds}
    answers = any("exact_match" in one for runs in arms.values() for one in runs)
    heads = ["arm", "seeds", "rows", "noise", "copies", "steps", "loss, by tokens", "against random"]
    heads += ["mean over capabilities", "against random"] * (len(kinds) - 1)
    heads += ["scoring, s", "peak, MiB", *["exact match"] * answers]
    lines = table_head(heads)
    for name, runs in arms.items():
        cost = costs.get(name, {})
        cells = [
            name,
            str(len(runs)),
            f"{mean(runs, 'rows'):.0f}",
            *(f"{mean(runs, key):.0%}" if key in runs[0] else "0%" for key in ("noise_of_tokens", "copies")),
            f"{mean(runs, 'steps'):.0f}",
            *(cell for kind in kinds for cell in compared(name, losses[kind])),
            *(f"{cost[key]:.0f}" if key in cost else "" for key in ("seconds", "peak_mib")),
        ]
        lines.append(row_of([*cells, answered(runs)] if answers else cells))
    return lines


def losses_of(arms: dict[str, Runs], kind: str) -> Losses:
    return {name: [one[kind] for one in runs] for name, runs in arms.items()}


def token_loss(run: dict[str, Any], tokens: dict[str, int]) -> float:
    """A run's mean over capabilities, weighted by their supervised tokens."""
    return float(sum(tokens[key] * loss for key, loss in run["by_capability"].items()) / sum(tokens.values()))


def apart(values: Sequence[float], base: Sequence[float]) -> bool:
    """Whether the 95 % intervals of two means lie apart; not where one has no interval."""
    return bool(abs(np.mean(values) - np.mean(base)) > interval(values) + interval(base))


def compared(name: str, losses: Losses) -> list[str]:
    """An arm's mean loss with its interval, and its difference from random's with its own."""
    values, base, clean = losses[name], losses.get("random", []), losses.get("clean full", [])
    half = interval(values)
    shown = f"{np.mean(values):.3f}" + ("" if math.isnan(half) else f" ± {half:.3f}")
    if name != "clean full" and len(clean) > 1 and np.mean(values) <= np.mean(clean) + interval(clean):
        shown += " ="
    if name == "random" or min(len(values), len(base)) < 2:
        return [shown, ""]
    gap, of_gap = difference(values, base)
    return [shown, f"{gap:+.3f} ± {of_gap:.3f}" + " *" * apart(values, base)]


def answered(runs: Runs) -> str:
    """Exact match, where it is above what the commonest answer alone would get."""
    hits = [one["exact_match"] for one in runs if "exact_match" in one]
    if not hits:
        return ""
    shown, chance = f"{np.mean(hits):.1%}", runs[0]["chance"]
    if len(hits) < 2 or np.mean(hits) - interval(hits) <= chance:
        return f"{shown}, not above chance ({chance:.1%})"
    return f"{shown} ± {interval(hits):.1%}"


def notes(arms: dict[str, Runs], untrained: dict[str, Any]) -> str:
    kinds = {"by tokens": "loss", "mean over capabilities": "log_ppl"}
    if len(untrained["by_capability"]) == 1:
        kinds = {"by tokens": "loss"}
    losses = {name: losses_of(arms, kind) for name, kind in kinds.items()}
    parts = [
        f"Before training: {', '.join(f'{untrained[kind]:.3f} {name}' for name, kind in kinds.items())}."
    ]
    spread = {name: pooled(list(of.values())) for name, of in losses.items()}
    if not math.isnan(spread["by tokens"]):
        parts += [corrected(losses), smallest(spread)]
    return " ".join(parts)


def corrected(losses: dict[str, Losses]) -> str:
    """Which arms are better than random when the table is read as the many comparisons that it is."""
    told = []
    for name, of in losses.items():
        held, count = better(of)
        told.append(f"{name}, {', '.join(f'`{arm}`' for arm in held) if held else 'none'}")
    return f"Better than random with Holm's correction over {count} arms: {'; '.join(told)}."


def better(losses: Losses) -> tuple[list[str], int]:
    """Arms with a lower mean than random's after Holm's correction, and how many arms were tested."""
    from scipy.stats import ttest_ind

    base = losses.get("random", [])
    tested = {
        name: values
        for name, values in losses.items()
        if name != "random" and min(len(values), len(base)) > 1
    }
    chances = {name: ttest_ind(values, base, equal_var=False).pvalue for name, values in tested.items()}
    out = []
    for place, name in enumerate(sorted(chances, key=lambda name: chances[name])):
        if chances[name] * (len(chances) - place) > 0.05:
            break
        if np.mean(tested[name]) < np.mean(base):
            out.append(name)
    return out, len(tested)


def smallest(spread: dict[str, float]) -> str:
    """What the design could find, from the deviation over seeds of each loss."""
    found = [
        f"{name}, s = {s:.4f}, {detectable(s, 5, 3):.3f} (5 seeds against 3) or {detectable(s, 3, 3):.3f} (3 against "
        f"3), and for `*` {s * apart_from(5, 3):.3f} or {s * apart_from(3, 3):.3f}"
        for name, s in spread.items()
    ]
    return f"Smallest difference that could be found: {'; '.join(found)}."


def capability_table(arms: dict[str, Runs], untrained: dict[str, Any]) -> list[str]:
    """Loss by capability; nothing where there is only one."""
    names = sorted(untrained["by_capability"])
    lines = table_head(["loss by capability", *names])
    for name, runs in [("not trained", [untrained]), *arms.items()]:
        lines.append(
            row_of([name, *(f"{np.mean([one['by_capability'][of] for one in runs]):.3f}" for of in names)])
        )
    return lines if len(names) > 1 else []


def table_head(heads: Sequence[str]) -> list[str]:
    return [row_of(heads), "|" + "---|" * len(heads)]


def row_of(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def mean(runs: Runs, key: str) -> float:
    return float(np.mean([one[key] for one in runs]))


def difference(values: Sequence[float], base: Sequence[float]) -> tuple[float, float]:
    """Difference of two means, and half of its 95 % interval by Welch's t."""
    from scipy.stats import ttest_ind

    bounds = ttest_ind(values, base, equal_var=False).confidence_interval(0.95)
    return float(np.mean(values) - np.mean(base)), float(bounds.high - bounds.low) / 2


def pooled(groups: Sequence[Sequence[float]]) -> float:
    """Standard deviation over seeds, pooled over arms."""
    many = [group for group in groups if len(group) > 1]
    squares = sum(float(np.var(group, ddof=1)) * (len(group) - 1) for group in many)
    return math.sqrt(squares / sum(len(group) - 1 for group in many)) if many else math.nan


def detectable(spread: float, n: int, m: int) -> float:
    """Smallest true difference of two means that a two-sided t-test at 5 % finds with a power of 80 %."""
    from scipy.stats import t

    free = n + m - 2
    return float((t.ppf(0.975, free) + t.ppf(0.8, free)) * spread * math.sqrt(1 / n + 1 / m))


@cache
def apart_from(n: int, m: int) -> float:
    """Smallest true difference of two means, in deviations, at which :func:`apart` holds with a power of 80 %.

    The difference is normal and the two deviations over seeds are chi, all three independent: the chance that the
    first exceeds the sum of both half intervals, averaged over quantiles of the other two.
    """
    from scipy.optimize import brentq
    from scipy.stats import chi2, norm, t

    at = (np.arange(400) + 0.5) / 400
    halves = [
        t.ppf(0.975, count - 1) * np.sqrt(chi2.ppf(at, count - 1) / (count - 1) / count) for count in (n, m)
    ]
    scale = math.sqrt(1 / n + 1 / m)
    wanted = np.add.outer(*halves) / scale
    return float(brentq(lambda gap: norm.sf(wanted - gap / scale).mean() - 0.8, 0, 100))
