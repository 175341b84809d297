"""The blocks of docs and benchmarks/*.md that hold measured figures; see :mod:`report_blocks`."""

from __future__ import annotations

from statistics import fmean, stdev
from typing import Any

from report_blocks import block, percent, power, result, span, spread, table


@block
def target() -> str:
    """docs/filter.md: rows like a target's."""
    found = result("target")
    math = fmean(
        one["precision"] for one in found["runs"] if one["default"] and one["scorer"] == "feature_mapping"
    )
    two = found["targets_of_two_kinds"]
    mapped, cosine = (fmean(one[name] for one in two) for name in ("feature_mapping", "cosine to mean"))
    return (
        f"With the questions of gsm8k as the target, {100 * math:.0f} % of the first 800 rows of a mixture of seven "
        f"capabilities are math, as {100 * found['random']['expected']:.0f} % of all rows are. For targets of two "
        f"kinds, {100 * mapped:.0f} % of the first rows are of these two; ranked by the cosine with the target's "
        f"mean, {100 * cosine:.0f} % ([`benchmarks/target.py`](benchmarks/target.py)). What you test on later must "
        "not be the target."
    )


@block
def target_of_one_kind() -> str:
    """docs/methods.md: where the mean of the target does."""
    found = result("target")
    runs = [one for one in found["runs"] if one["scorer"] == "feature_mapping"]
    usual = fmean(one["precision"] for one in runs if one["default"])
    others = [
        fmean(one["precision"] for one in runs if one["n_clusters"] == clusters)
        for clusters in {one["n_clusters"] for one in runs if not one["default"]}
    ]
    two = found["targets_of_two_kinds"]
    mapped, cosine = (fmean(one[name] for one in two) for name in ("feature_mapping", "cosine to mean"))
    return (
        "- A target of one kind needs no groups: the cosine with its mean finds gsm8k's likes as well "
        f"({100 * found['cosine_to_the_mean_of_the_target']:.0f} % against {100 * usual:.0f} % of the first 800 rows "
        f"by `feature_mapping`, {span((100 * one for one in others), 0)} % with other numbers of clusters). Where a "
        f"target is of two kinds the mean lies between them, and finds {100 * cosine:.0f} % where the mappings find "
        f"{100 * mapped:.0f} % ([`benchmarks/target.py`](benchmarks/target.py))."
    )


@block
def noise_mixture() -> str:
    return noise(result("noise")["mixture"])


@block
def noise_unseen() -> str:
    return noise(result("noise")["unseen"])


def noise(found: dict[str, Any]) -> str:
    """AUROC of every scorer on planted noise, and what the quadrants hold."""
    kinds = list(found["noisy"])
    inside = found["quadrants_at_the_medians"]
    columns = list(inside["Q1"])
    return "\n\n".join(
        [
            f"{found['rows']} rows ({', '.join(f'{name} {count}' for name, count in found['of'].items())}); noisy: "
            f"{', '.join(f'{count} {of}' for of, count in found['noisy'].items())}. AUROC of dropping the noisy, "
            "with 95 % bootstrap intervals; 0.5 is chance.",
            table(
                ["scorer", *kinds],
                (
                    [label, *("{:.3f} ({:.3f} to {:.3f})".format(*of[kind]) for kind in kinds)]
                    for label, of in found["auroc"].items()
                ),
            ),
            "What the quadrants hold, at the medians of error and uncertainty:",
            table(
                ["", *columns], ([name, *(str(of[one]) for one in columns)] for name, of in inside.items())
            ),
        ]
    )


@block
def fashion() -> str:
    found = result("fashion")
    settings = ("clean, 10%", "clean, 30%", "noise, 10%", "mlp, 10%")
    kept = found["clean, 10%"]
    ours, chance = kept["entanglement"], kept["random"]
    error = stdev(ours["each"]) / len(ours["each"]) ** 0.5
    apart = {name: kept[name]["mean"] - ours["mean"] for name in ("d2 on EL2N", "ccs on EL2N")}
    moved = kept["topoprune"]["mean"] - chance["mean"]
    return "\n\n".join(
        [
            f"Test accuracy of a small network trained on what each method keeps of {found['pool']:,} rows, "
            f"{found['steps']} steps for every arm, mean and deviation over {len(ours['each'])} seeds.",
            table(
                ["", "10 %", "30 %", "10 %, noise of one deviation", "10 %, other architecture"],
                ([arm, *(spread(found[setting][arm]) for setting in settings)] for arm in kept),
            ),
            f"At 10 % `entanglement` is {ours['mean'] - chance['mean']:.1f} above random; beside it D2 on EL2N has "
            f"{apart['d2 on EL2N']:+.1f} and CCS on EL2N {apart['ccs on EL2N']:+.1f}, with a standard error of "
            f"{error:.1f}. `topoprune`, our reconstruction, has {moved:+.1f} over random at 10 %, through the same "
            "selector.",
        ]
    )


@block
def fashion_ablation() -> str:
    found = result("fashion")["ablation on validation, 10 %"]
    return table(
        ["validation, 10 %", "accuracy", "seeds"],
        (
            [name, spread(found[name]), str(len(found[name]["each"]))]
            for name in sorted(found, key=lambda name: (name != "default", name.startswith("displacement")))
        ),
    )


@block
def fashion_parts() -> str:
    found = result("fashion")["ablation on validation, 10 %"]
    through, messages, both = (
        found[name]["mean"] for name in ("EL2N through coverage", "d2 on entanglement", "d2 on EL2N")
    )
    return (
        f"No part alone explains D2's lead: EL2N through our selector has {through:.2f}, D2's messages on entanglement "
        f"{messages:.2f}, both together {both:.2f}. The seeds do not tell these apart; what can be told is that all "
        f"of them lie {min(through, messages, both) - found['random']['mean']:.1f} or more above random, and that "
        "displacement, the bifiltration and pure coverage do not."
    )


@block
def coverage_text() -> str:
    found = result("coverage_text")["results"]
    rows = [
        [
            arm,
            spread(one, mean="accuracy"),
            f"{100 * one['smallest_share']:.0f} %, {100 * one['largest_share']:.0f} %",
        ]
        for arm, one in found.items()
        if isinstance(one, dict)
    ]
    head = ["", "accuracy of the probe", "smallest and largest share of a capability"]
    return table(head, [*rows, ["all rows", f"{found['all rows']:.2f}", ""]])


@block
def topology_cost() -> str:
    found = result("topology")
    step, chain, pca, umap = found["step"], found["chain"], found["scale_pca"], found["scale_umap"]

    def took(arm: str) -> str:
        return f"{step[arm]['seconds_median']:.2f} s"

    def stage(one: dict[str, Any], name: str) -> str:
        return f"{one['stages'][name]['seconds']:.0f} s"

    return (
        f"One step with H0 and H1 at {step['points']:,} points takes {took('ours')}, "
        f"{step['ours_over_delaunay_and_gudhi']['of_medians']:.2f} times scipy's Delaunay with gudhi's persistence "
        f"({took('delaunay_and_gudhi')}) and {step['ours_over_gudhi']['of_medians']:.2f} times gudhi's own alpha "
        f"complex; Delaunay alone takes {took('delaunay')}, H0 alone {took('ours_h0')}. Everything after the manifold "
        f"for {chain['points']:,} points in {chain['groups']} groups: {chain['ours']['seconds_median']:.1f} s, a chain "
        f"over gudhi's alpha complexes {chain['chain']['seconds_median']:.1f} s, "
        f"{chain['chain_over_ours']['of_medians']:.1f} times as long, the same displacements to "
        f"{power(chain['largest_difference_of_displacement'])}. {pca['rows']:,} x {pca['dimensions']} from vectors to "
        f"a selection: {pca['minutes']:.1f} minutes with principal components and {umap['minutes']:.1f} with UMAP "
        f"(neighbours {stage(pca, 'neighbours')}, UMAP {stage(umap, 'manifold, umap')}, clusters and topology "
        f"{stage(pca, 'clusters and topology')} and {stage(umap, 'clusters and topology')}), peak "
        f"{max(pca['peak_rss_gib'], umap['peak_rss_gib']):.1f} GiB."
    )


@block
def training() -> str:
    """docs/benchmarks.md: Q-Tuning inside training."""
    found = result("training")
    ours, plain = found["qtuning"], found["plain"]
    return (
        f"Batches of {found['settings']['batch']} rows of at most {found['settings']['longest']} tokens, "
        f"{ours['steps']} steps: {ours['seconds_a_step']:.1f} s a step beside {plain['seconds_a_step']:.1f} s of "
        f"plain training on whole batches ({plain['steps']} steps). {percent(ours['qtuning_rows_kept'])} of the rows "
        f"and {percent(ours['qtuning_tokens_kept'])} of the supervised tokens get a gradient, and choosing them takes "
        f"{percent(ours['qtuning_selection_share'])} of the time. Speed only: what it is worth "
        "stands [above](#what-training-on-the-kept-rows-is-worth)."
    )


@block
def steadiness() -> str:
    """docs/benchmarks.md: kills and byte-identity, and the memory of long rows."""
    embedding, losses = result("resume"), result("language_model_kills")["kills"]
    memory = result("language_model_memory")
    longest = memory["grown_above_loaded_weights_and_inputs"]["4096"]

    def outcome(found: dict[str, Any]) -> str:
        differ = len(found["different_files"])
        return f"{differ} files differ" if differ else "the bytes of an undisturbed run"

    phases = ", ".join(f"{name} {count}" for name, count in embedding["kills_by_observed_phase"].items())
    return table(
        ("", "figure", "beside it"),
        [
            (
                f"embeddings of {embedding['rows']:,} rows, killed {embedding['kills']} times",
                outcome(embedding),
                f"kills by phase: {phases}",
            ),
            (
                f"a pass of losses, killed {losses['kills']} times",
                outcome(losses),
                f"{losses['leftover_temporary_files_in_the_cache']} temporary files left",
            ),
            (
                f"the exact statistics of a row of {longest['tokens']:,} tokens, vocabulary {memory['vocabulary']:,}",
                f"{longest['layer_mib']:.0f} MiB beside the model",
                f"its logits alone: {longest['logits_would_be_mib']:,.0f} MiB",
            ),
        ],
    )


def _minutes(of: dict[str, Any]) -> str:
    if "cpu_seconds" in of:
        return f"{of['cpu_seconds'] / 60:.0f} of CPU"
    return f"{of['seconds']['validate'] / 60:.0f}" if "seconds" in of else ""


@block
def validated() -> str:
    """docs/validate.md: what it says of selections of which it is known what they are worth."""
    cases = result("validated")["cases"]

    def row(name: str, of: dict[str, Any]) -> list[str]:
        gap, mean, last = of["gap"], of.get("mean_gap"), of["last_layers"]
        return [
            name,
            f"{of['kept']:,}",
            "all layers" if last is None else f"last {last}, at {of['rate']:g}",
            f"{of['target_rows']} ({of['target_tokens']:,} tokens)",
            f"{of['before']:.3f}",
            f"{of['loss']['random']:.3f}",
            f"{of['loss']['kept']:.3f}",
            f"{gap['mean']:+.4f} ± {gap['half']:.4f}",
            of["verdict"],
            f"{mean['mean']:+.4f} ± {mean['half']:.4f}" if mean else "",
            of["mean_verdict"] if mean else "",
            _minutes(of),
        ]

    one = next(iter(cases.values()))
    return "\n\n".join(
        [
            f"SmolLM2-135M beside the large table, *auto* (the default recipe), a tenth of the rows kept, "
            f"{one['runs']} runs of {one['rows']} rows ([`benchmarks/validated.py`](benchmarks/validated.py)); losses "
            "in nats a token:",
            table(
                [
                    "kept by, of",
                    "rows kept",
                    "trained",
                    "target rows",
                    "before",
                    "random",
                    "kept",
                    "lower by",
                    "it says",
                    "as the mean over capabilities",
                    "it says",
                    "minutes",
                ],
                [row(name, of) for name, of in cases.items()],
            ),
        ]
    )
