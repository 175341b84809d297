"""The blocks of docs/recovery.md; see :mod:`report_blocks`."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from finetune import interval
from report_blocks import block, percent, power, result, span, table

EVEN = "random inside, uniform"
"""Every cluster has the same share of the budget, and its rows are drawn."""


@block
def recovery_cost() -> str:
    """The pass, planted damage, clusters, concepts."""
    twins, planted, found = result("twins"), result("planted_damage"), result("diffusion")
    arms = twins["arms"]
    together, turn, plain = (
        arms[name] for name in ("twins, together", "twins, in turn", "plain, both models")
    )
    at = {one["k"]: one for one in found["mixture"]["adjusted_rand_index"]}
    scale = {one["rows"]: one for one in found["scale"]}
    run = found["dense"]["runs"][0]
    clusters = "agreement_with_capability_7_clusters"
    dense = next(one for one in found["published"]["beyond"] if one["rows"] == 52_000)
    concepts, first = result("concepts")["precision"], result("concepts")["by_place_in_the_row"]["1"]
    return "\n".join(
        [
            f"- **The pass.** {twins['rows']} mixture rows, medians of {len(together['seconds'])} runs in turns: both "
            f"models together {together['seconds_median']:.0f} s, in turn {turn['seconds_median']:.0f} s, plain "
            f"`model(**batch, labels=...)` of both {plain['seconds_median']:.0f} s: "
            f"{twins['together_over_plain']['of_medians']:.2f} and {twins['in_turn_over_plain']['of_medians']:.2f} of "
            f"it. Memory grows by {together['peak_growth_mib']:.0f} and {turn['peak_growth_mib']:.0f} MiB, plain by "
            f"{plain['peak_growth_mib']:,.0f}. Largest difference of together and in turn: "
            f"{twins['largest_difference_of_a_row']:g}.",
            "- **Damage that was planted** (the MLP neurons most active on one capability switched off, "
            f"{planted['of']} plantings, {planted['rows_a_capability']} rows a capability): `damage` ranks it first in "
            f"{planted['ranked_first']} of {planted['of']}, and `paser` keeps the largest share of its rows in "
            f"{planted['selected_most']} of {planted['of']}. Beside it, a pair that differs by noise in all weights: "
            f"{planted['without_planting']['ranked_first']} of {planted['of']}, as one capability must be first.",
            f"- **Clusters.** {found['mixture']['rows']:,} mixture rows, adjusted Rand index against the capability, "
            f"{len(found['seeds'])} seeds: at K = 7 {span(at[7]['nmf'])} (spherical k-means "
            f"{span(at[7]['spherical_kmeans'])}), at K = 24 {span(at[24]['nmf'])} ({span(at[24]['spherical_kmeans'])}"
            "). The bootstrap chooses the upper end of its range on the mixture: agreement rises towards fine "
            "clusters, so that it is a reason for many clusters and none for just so many. The leading eigenpairs are "
            "those of the same operator by LAPACK (largest subspace angle "
            f"{power(run['same_operator']['largest_angle_degrees'])} degrees); those of the dense kernel without a "
            f"graph are others ({run['full_kernel']['largest_angle_degrees']:.0f} degrees), whose clusters follow the "
            f"capabilities less ({span(run['full_kernel'][clusters]['time 1'])} against "
            f"{span(run['same_operator'][clusters]['time 1'])} at time 1). 52,000 x 384 vectors take "
            f"{scale[52_000]['seconds_all']:.0f} s and {scale[52_000]['peak_growth_mib']} MiB with their neighbours, "
            f"200,000 {scale[200_000]['seconds_all']:.0f} s, 1,000,000 "
            f"{scale[1_000_000]['seconds_all'] / 60:.0f} minutes and "
            f"{scale[1_000_000]['peak_growth_mib'] / 1024:.1f} GiB; one dense matrix of the published algorithm takes "
            f"{dense['bytes_of_one_matrix'] / 1e9:.1f} GB at 52,000 rows.",
            f"- **Concepts.** {concepts['concepts']} concepts of {result('concepts')['rows_judged']} rows, judged one "
            f"by one by a language model and not by a person: {100 * concepts['precision']:.0f} % are a topic, an "
            f"entity or a term ({span((100 * one for one in concepts['interval']), 0)}); the first of each row "
            f"{100 * first['precision']:.0f} %.",
        ]
    )


@block
def recovery() -> str:
    """What healing on chosen rows is worth, over however many seeds there are."""
    found, amounts = result("recovery"), result("prunings")["amounts"]
    blocks = result("prunings")["models"]["dense"]["blocks"]
    labels = {
        "magnitude": f"magnitude, {percent(amounts['magnitude'])}",
        "wanda24": f"{amounts['wanda24']} by Wanda",
        "width": f"width of the MLP, {percent(amounts['width'])}",
        "depth": f"{blocks * amounts['depth']:.0f} of {blocks} blocks",
    }
    held: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for run in found["runs"].values():
        held.setdefault(run["pruning"], {}).setdefault(run["arm"], []).append(run)
    dense = fmean(run["log_ppl"] for run in held.pop("dense")["not pruned"])
    prunings = [name for name in labels if name in held]
    first = ("not healed", "random", "paser")
    arms = [*first, *(arm for arm in held[prunings[0]] if arm not in first)]
    names = sorted(held[prunings[0]]["random"][0]["by_capability"])

    def told(runs: Sequence[dict[str, Any]]) -> str:
        values = [run["log_ppl"] for run in runs]
        return f"{fmean(values):.2f}" + (f" ± {interval(values):.2f}" if len(values) > 1 else "")

    def by(pruning: str, arm: str, name: str) -> float:
        return fmean(run["by_capability"][name] for run in held[pruning][arm])

    def everywhere(sign: int) -> str:
        of = [n for n in names if all(sign * (by(p, "random", n) - by(p, "paser", n)) > 0 for p in prunings)]
        return ", ".join(of) or "none"

    def rows(arm: str) -> str:
        counts = sorted({run["rows"] for pruning in prunings for run in held[pruning][arm]})
        return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"

    gaps, apart = [], 0
    for pruning in prunings:
        ours, theirs = ([run["log_ppl"] for run in held[pruning][arm]] for arm in ("paser", "random"))
        gaps.append(fmean(theirs) - fmean(ours))
        apart += len(ours) > 1 and gaps[-1] > interval(ours) + interval(theirs)
    seeds = min(len(held[pruning]["paser"]) for pruning in prunings)
    longest = found["longest_held_out"]
    return "\n\n".join(
        [
            "**Recovery**, "
            + (f"{seeds} seeds. " if seeds > 1 else "one seed so far, so that nothing is claimed yet. ")
            + f"{percent(found['share'])} of the mixture's supervised tokens, {found['batch_tokens']} of them a step "
            f"of LoRA, up to {found['held_out_a_capability']} held-out rows a capability"
            + (f" of at most {longest} characters" if longest else "")
            + f"; loss as the mean over {len(names)} capabilities, nats a token (dense model, not "
            f"trained on the mixture: {dense:.2f}), with its "
            "95 % t-interval over seeds:",
            table(
                ["pruned by", *arms],
                (
                    [labels[p], *(told(held[p][arm]) if arm in held[p] else "" for arm in arms)]
                    for p in prunings
                ),
            ),
            "By capability, healed on random rows → on PASER's:",
            table(
                ["", *(labels[pruning] for pruning in prunings)],
                (
                    [name, *(f"{by(p, 'random', name):.2f} → {by(p, 'paser', name):.2f}" for p in prunings)]
                    for name in names
                ),
            ),
            f"PASER's mean is the lower one in {sum(gap > 0 for gap in gaps)} of {len(gaps)}, and the intervals lie "
            f"apart in {apart}; random's loss less PASER's is {span(gaps)}. "
            f"Lower in every pruning: {everywhere(1)}. **Higher in every pruning: {everywhere(-1)}.** "
            f"A budget in tokens that is shared by damage buys short rows: {rows('paser')} of "
            f"them, where random has {rows('random')}.",
            *(ablation(labels[pruning], held[pruning]) for pruning in prunings if EVEN in held[pruning]),
        ]
    )


def ablation(pruning: str, arms: dict[str, list[dict[str, Any]]]) -> str:
    """What of the difference is PASER's own, over the seeds that all arms of a pruning have."""
    told = {
        "random": "random rows",
        "paser": "PASER",
        EVEN: "random rows of every cluster, as many tokens of each",
        "paser in each capability": "PASER with `--per-group capability`",
    }
    seeds = min(len(arms[arm]) for arm in told)
    means = {arm: fmean(run["log_ppl"] for run in arms[arm][:seeds]) for arm in told}
    worst = {
        name: {arm: fmean(run["by_capability"][name] for run in arms[arm][:seeds]) for arm in told}
        for name in ("math", "roleplay")
    }
    even, fair, play = means[EVEN], worst["math"], worst["roleplay"]
    return (
        f"**What of it is the damage?** {pruning}, {seeds} seed{'s' * (seeds > 1)}: "
        + ", ".join(f"{told[arm]} {mean:.2f}" for arm, mean in means.items())
        + ". "
        + (
            "Spreading the tokens over the clusters does all of it, and where the damage lies adds nothing here. "
            if even <= means["paser"]
            else f"Spreading the tokens over the clusters does {means['random'] - even:.2f} of it. "
        )
        + f"A share for each capability keeps math ({fair['random']:.2f} with random rows, {fair['paser']:.2f} with "
        f"PASER, {fair['paser in each capability']:.2f} with PASER in each capability) and roleplay "
        f"({', '.join(f'{play[arm]:.2f}' for arm in ('random', 'paser', 'paser in each capability'))})."
    )


@block
def recovery_tokens() -> str:
    """Budgets shared by damage a token, judged by both weightings."""
    found = result("recovery_tokens")
    tokens = found["held_out_tokens"]
    arms: dict[str, list[dict[str, Any]]] = {}
    for run in found["runs"].values():
        arms.setdefault(run["arm"], []).append(run)

    def by_token(run: dict[str, Any]) -> float:
        means = run["by_capability"]
        return sum(count * means[name] for name, count in tokens.items()) / sum(tokens.values())

    def cells(label: str, runs: Sequence[dict[str, Any]]) -> list[str]:
        of = [("log_ppl", [run["log_ppl"] for run in runs]), ("token", [by_token(run) for run in runs])]
        parts = [
            fmean(run["by_capability"][name] for run in runs)
            for name in ("math", "roleplay", "classification")
        ]
        return [
            label,
            f"{fmean(run['rows'] for run in runs):.0f}",
            *(
                f"{fmean(values):.2f} ({span(values)})" if len(values) > 1 else f"{values[0]:.2f}"
                for _, values in of
            ),
            *(f"{value:.2f}" for value in parts),
        ]

    labels = {
        "not healed": "not healed",
        "random": "random rows",
        "random inside, by tokens": "random rows of every cluster, tokens in proportion to its own",
        "paser": "PASER, the published budget (damage a row)",
        "paser by damage a token": "PASER, `budget=token_degradation`",
    }
    head = ("", "rows", "mean over capabilities", "by tokens", "math", "roleplay", "classification")
    return (
        f"**Budgets by damage a token.** 6 of 30 blocks, {found['pool_rows']:,} rows of the mixture, "
        f"{percent(found['share'])} of their supervised tokens, {len(arms['random'])} seeds (the spread in "
        "brackets); nats a token, by tokens each capability counts as its held-out tokens do:\n\n"
        + table(head, [cells(label, arms[arm]) for arm, label in labels.items()])
    )
