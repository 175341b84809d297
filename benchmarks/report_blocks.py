"""The blocks of README and docs that hold measured figures; :mod:`report_tables` puts them there.

A block is a function without arguments that returns Markdown, under its own name. It reads JSON of ``results/`` and
nothing else, so that the pages can be written and checked without the data and the models.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
BLOCKS: dict[str, Callable[[], str]] = {}
GIB, MIB = 2**30, 2**20


def block(write: Callable[[], str]) -> Callable[[], str]:
    BLOCKS[write.__name__] = write
    return write


@cache
def result(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
    return found


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(
        [line(head), "|" + "---|" * len(head), *(line(row) for row in rows)],
    )


def line(cells: Sequence[str]) -> str:
    # A bar would end the cell, in code too.
    return "".join(f"| {cell.replace('|', chr(92) + '|')} " if cell else "| " for cell in cells) + "|"


def power(value: float) -> str:
    """1.5e-7, not 1.5e-07."""
    return f"{value:.1e}".replace("e-0", "e-")


def span(values: Iterable[float], digits: int = 2) -> str:
    """The smallest to the largest."""
    held = list(values)
    return f"{min(held):.{digits}f} to {max(held):.{digits}f}"


def spread(found: Mapping[str, Any], digits: int = 2, mean: str = "mean") -> str:
    return f"{found[mean]:.{digits}f} ± {found['deviation']:.{digits}f}"


def percent(share: float) -> str:
    """One digit where the share needs it."""
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


def about(value: float) -> str:
    """Two digits of a number with many: 280,000."""
    return f"{float(f'{value:.1e}'):,.0f}"


@block
def figures() -> str:
    """docs/benchmarks.md: the table of speed, memory and exactness."""
    head = ("", "figure", "beside it")
    return table(
        head,
        [
            *_embedding(),
            *_losses(),
            *_sketches(),
            *_noise(),
            *_shape(),
            *_twins(),
            *_classifier(),
            *_cleaning(),
            *_compare(),
            *_page(),
        ],
    )


def _embedding() -> list[tuple[str, str, str]]:
    found, growth, plain = result("embedding"), result("embedding")["growth"], result("embedding")["plain"]
    million, ten = result("scale-1m"), result("scale-10m")
    of = million["settings"]
    ours, bare = million["arms"]["datapruner"], million["arms"]["faiss"]
    more = ten["arms"]["datapruner"]
    seconds = ours["seconds"]["median"]
    return [
        (
            f"embedding {found['rows']:,} mixture rows, MiniLM",
            f"{found['ours']['rows_a_second_median']} rows/s",
            f"plain `SentenceTransformer.encode` {plain['rows_a_second_median']} rows/s; "
            f"largest difference of a number {power(found['max_abs_difference'])}",
        ),
        (
            "the same rows again",
            f"{found['warm']['model_calls']} model calls",
            f"{growth['inserted']} rows added: {growth['rows_computed']} rows embedded, the others' bytes "
            + ("unmoved" if growth["old_rows_same_bytes"] else "moved"),
        ),
        (
            f"{of['rows']:,} x {of['dim']} vectors to a selection, k = {of['clusters']}",
            f"{seconds:.1f} s, peak {million['peak_to_array']['datapruner']:.2f} of the array",
            f"bare faiss training and assignment {bare['seconds']['median']:.1f} s, "
            f"peak {million['peak_to_array']['faiss']:.2f} of the array",
        ),
        (
            f"{ten['settings']['rows']:,} x {ten['settings']['dim']} {ten['settings']['dtype']} vectors from disk",
            f"{more['seconds']['median']:.0f} s, peak {more['peak_bytes']['median'] / GIB:.2f} GiB",
            f"{more['seconds']['median'] / seconds:.1f} times the time of {of['rows']:,}",
        ),
        (
            f"another budget over {of['rows']:,} rows",
            f"{ours['rebudget_seconds']['median']:.2f} s",
            "no model",
        ),
    ]


def _losses() -> list[tuple[str, str, str]]:
    found, donod = result("language_model"), result("language_model")["donod"]
    exact = result("language_model_accuracy")["accuracy"]["float64"]["relative_to_1_plus_loss_and_entropy"]
    rows = ("log_ppl", "entropy", "el2n", "grad_norm", "weight_dot", "weight_norm")
    ours, plain = found["ours"], found["plain"]
    return [
        (
            f"all losses of SmolLM2-135M over {found['rows']:,} mixture rows: NLL, entropy, EL2N, ‖G‖, ⟨W, G⟩",
            f"{ours['seconds_median']:.0f} s, {ours['rows_a_second_median']} rows/s, "
            f"body at {100 * found['body']['share_of_peak_median']:.0f} % of the GEMM peak",
            f"plain `model(**batch, labels=...)`, sorted batches of 8: {plain['seconds_median']:.0f} s for one loss",
        ),
        (
            f"DONOD of {donod['rows']} rows, and every other loss with it",
            f"{donod['ours']['seconds_median']:.0f} s",
            "a step on the output layer row by row, weights copied: "
            f"{donod['literal']['seconds_median']:.0f} s; by a leaf of its own: "
            f"{donod['naive']['seconds_median']:.0f} s",
        ),
        (
            "the same against float64, real rows",
            f"at most {power(max(exact[name] for name in rows))} of 1 + loss + entropy",
            "DONOD by autograd in float32: DON's ranking correlates "
            f"{donod['rank_correlation_naive_and_float64']['DON']:.2f} with the exact one, ours "
            f"{donod['rank_correlation_ours_and_float64']['DON']:.2f}",
        ),
    ]


def _sketches() -> list[tuple[str, str, str]]:
    found, cheap = result("sketches"), result("sketches_pass")
    deep, beside, width = found["arms"]["deep"], found["arms"]["bergson"], found["numbers_a_row"]
    return [
        (
            f"all losses of {cheap['rows']} mixture rows, with states and the output layer's sketch",
            f"{cheap['arms']['output']['seconds_median']:.0f} s, turn by turn "
            f"{' and '.join(f'{pair:.2f}' for pair in cheap['output_over_losses']['pairs'])} times the pass without",
            f"without {cheap['arms']['losses']['seconds_median']:.0f} s",
        ),
        (
            f"sketches of all layers' gradients, {found['rows']} mixture rows",
            f"{deep['seconds_median']:.0f} s, {found['deep_over_losses']['of_medians']:.1f} times the pass of losses; "
            f"{width['deep']:,} numbers a row",
            f"bergson {found['versions']['bergson']} {beside['seconds_median']:.0f} s; "
            f"{width['bergson']:,} numbers a row",
        ),
    ]


def _classifier() -> list[tuple[str, str, str]]:
    found = result("classifier")
    arms, best = found["arms"], found["best_pipeline"]
    way = best.removeprefix("pipeline, ").replace(", by", " a batch, by")
    return [
        (
            f"a classifier of MiniLM's shape over {found['rows']} mixture texts",
            f"{arms['datapruner']['rows_a_second_median']} rows/s",
            f"`pipeline`, the best of {len(arms) - 1} ways ({way}), {arms[best]['rows_a_second_median']} rows/s; "
            f"largest difference {power(found['largest_difference'])}",
        )
    ]


def _noise() -> list[tuple[str, str, str]]:
    def of(where: str, scorer: str) -> str:
        return ", ".join(f"{found[0]:.2f}" for found in result("noise")[where]["auroc"][scorer].values())

    def beside(where: str) -> str:
        return f"perplexity {of(where, 'perplexity')}; IFD, low kept {of(where, 'ifd, low kept')}"

    return [
        (
            "planted noise found, AUROC: swapped, shuffled, wrong final number",
            f"`response_noise` {of('mixture', 'response_noise')}",
            beside("mixture"),
        ),
        (
            "the same on sources that it was not designed on: swapped, shuffled",
            f"`response_noise` {of('unseen', 'response_noise')}",
            f"{beside('unseen')} ([all](benchmarks/noise.md))",
        ),
    ]


def _shape() -> list[tuple[str, str, str]]:
    fashion, found, step = result("fashion"), result("topology"), result("topology")["step"]
    kept = fashion["clean, 10%"]
    pca, umap = found["scale_pca"], found["scale_umap"]
    return [
        (
            f"Fashion-MNIST, 10 % of {fashion['pool']:,} rows kept, test accuracy, "
            f"{len(kept['entanglement']['each'])} seeds",
            f"`entanglement` {spread(kept['entanglement'], 1)}, `topoprune` {spread(kept['topoprune'], 1)}",
            f"random {spread(kept['random'], 1)}, D2 on EL2N {spread(kept['d2 on EL2N'], 1)}, "
            f"CCS on EL2N {spread(kept['ccs on EL2N'], 1)}, k-center {spread(kept['k_center'], 1)} "
            "([all](docs/topology.md))",
        ),
        (
            f"one step of persistent homology, H0 and H1, {step['points']:,} points",
            f"{step['ours']['seconds_median']:.2f} s",
            f"Delaunay and gudhi {step['delaunay_and_gudhi']['seconds_median']:.2f} s",
        ),
        (
            f"{pca['rows']:,} x {pca['dimensions']} vectors to a topological selection",
            f"{pca['minutes']:.1f} minutes (principal components), {umap['minutes']:.1f} (UMAP), "
            f"peak {max(pca['peak_rss_gib'], umap['peak_rss_gib']):.1f} GiB",
            "",
        ),
    ]


def _twins() -> list[tuple[str, str, str]]:
    twins, planted = result("twins"), result("planted_damage")
    ours, plain = twins["arms"]["twins, together"], twins["arms"]["plain, both models"]
    at = next(one for one in result("diffusion")["scale"] if one["rows"] == 52_000)
    dense = next(one for one in result("diffusion")["published"]["beyond"] if one["rows"] == 52_000)
    capabilities = len(planted["without_planting"]["damage"])
    return [
        (
            f"a dense and a pruned model over {twins['rows']} mixture rows: every divergence and loss",
            f"{ours['seconds_median']:.0f} s, peak growth {ours['peak_growth_mib']:.0f} MiB",
            f"plain `model(**batch, labels=...)` of both: {plain['seconds_median']:.0f} s, "
            f"{plain['peak_growth_mib']:,.0f} MiB",
        ),
        (
            f"damage planted in one of {capabilities} capabilities",
            f"ranked first, and selected most, in {planted['both']} of {planted['of']}",
            f"where nothing was planted: {planted['without_planting']['ranked_first']} of {planted['of']}",
        ),
        (
            f"spectral clusters of {at['rows']:,} x 384 vectors, neighbours included",
            f"{at['seconds_all']:.0f} s, peak growth {at['peak_growth_mib']} MiB",
            f"one dense matrix of the published algorithm: {dense['bytes_of_one_matrix'] / 1e9:.1f} GB",
        ),
        _healed(),
    ]


def _healed() -> tuple[str, str, str]:
    found = result("recovery")
    held: dict[str, dict[str, list[float]]] = {}
    for run in found["runs"].values():
        held.setdefault(run["arm"], {}).setdefault(run["pruning"], []).append(run["log_ppl"])
    prunings = list(held["not healed"])
    means = {
        arm: fmean(fmean(held[arm][pruning]) for pruning in prunings)
        for arm in ("not healed", "random", "paser")
    }
    return (
        f"loss after LoRA on {percent(found['share'])} of the supervised tokens, mean over {len(prunings)} prunings of "
        f"SmolLM2-135M (not healed {means['not healed']:.2f}, not pruned {fmean(held['not pruned']['dense']):.2f})",
        f"`paser` {means['paser']:.2f}",
        f"random {means['random']:.2f}; [what of it is the damage](docs/recovery.md#what-it-is-worth)",
    )


def _cleaning() -> list[tuple[str, str, str]]:
    found, leaks = result("duplicates")["duplicates"], result("duplicates")["decontamination"]["gsm8k"]
    near = next(one for one in found["near"] if (one["ngram"], one["threshold"]) == (3, 0.7))
    leak = next(one for one in leaks if (one["ngram"], one["share"]) == (5, 0.5))
    files = {one["file"]: one["rows"] for one in result("sources")["files"]}
    exact = found["planted_exact"]
    return [
        ("exact duplicates planted in real data", f"{exact * found['exact_recall']:.0f} of {exact}", ""),
        (
            "one-word changes planted in real data",
            f"{percent(near['recall'])} at the default",
            f"drops {near['collateral']} of {found['natural_rows_after_exact']:,} natural rows "
            "([what they are](benchmarks/duplicates.md))",
        ),
        (
            "gsm8k test questions leaked into the training set",
            f"verbatim {percent(leak['recall']['verbatim'])}, three words changed "
            f"{percent(leak['recall']['three words'])}",
            f"{leak['collateral']} of {files['gsm8k.train.jsonl']:,} natural rows dropped",
        ),
    ]


def _compare() -> list[tuple[str, str, str]]:
    """All scorers together, once that was measured."""
    if not (RESULTS / "compare.json").exists():
        return []
    found = result("compare")
    took = found["medians"]
    return [
        (
            f"comparing {len(found['scorers'])} scorers on {found['rows']} mixture rows, SmolLM2-135M and MiniLM",
            f"{took['together']:.0f} s",
            f"one after the other {took['one_by_one']:.0f} s; with the cache that they share "
            f"{took['one_by_one_one_cache']:.0f} s",
        )
    ]


def _page() -> list[tuple[str, str, str]]:
    """The report page at its largest, once it was measured."""
    if not (RESULTS / "report.json").exists():
        return []
    found = max(result("report")["sizes"], key=lambda one: one["rows"])
    shown = "answer_seconds" in found
    return [
        (
            f"the report page of {found['rows']:,} rows",
            f"written in {found['write_seconds']:.1f} s, {found['file_mb']:.1f} MB",
            f"in Chromium a search is answered after {found['answer_seconds']:.1f} s, all plots are drawn after "
            f"{found['all_plots_seconds']:.1f} s"
            if shown
            else "",
        )
    ]


@block
def report_page() -> str:
    """docs/benchmarks.md: the report page at every size."""
    if not (RESULTS / "report.json").exists():
        return "*Not measured yet.*"
    found = result("report")
    keys = {
        "write_seconds": "written, s",
        "file_mb": "MB",
        "peak_growth_mib": "peak growth, MiB",
        "table_seconds": "table shown, s",
        "answer_seconds": "search answered, s",
        "all_plots_seconds": "all plots drawn, s",
        "page_cpu_seconds": "processor time of the page, s",
    }
    rows = (
        [f"{one['rows']:,}", *(f"{one[key]:.1f}" if key in one else "" for key in keys)]
        for one in found["sizes"]
    )
    note = found["note"]
    return table(["rows", *keys.values()], rows) + (f"\n\nBeside it, {note}." if note else "")
