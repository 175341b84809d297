"""The blocks of benchmarks/noise.md on cleaning steps: what is found without a language model, and what one adds."""

from __future__ import annotations

from typing import Any

from report_blocks import block, result, table


@block
def noise_unfit() -> str:
    """benchmarks/noise.md: what is found without a language model."""
    found = result("noise_unfit")
    unseen, beside = found["unseen"], result("noise")["unseen"]["auroc"]
    kinds = list(unseen["noisy"])
    names = {"match": "answer and prompt", "order": "order of words"}
    scores = {
        **{names.get(name, name): of for name, of in unseen["auroc"].items()},
        "`response_noise`, with a language model": beside["response_noise"],
        "same, numbers off": beside["response_noise, numbers off"],
    }
    planted = ("broken: swapped", "broken: shuffled", "broken: number", "one word", "broken: cut off")

    def of(held: dict[str, Any], kind: str) -> str:
        caught, there = held["recall"].get(kind, (0, 0))
        return f"{caught} of {there}" if there else ""

    return "\n\n".join(
        [
            f"{unseen['rows']} rows, as above, noisy: "
            f"{', '.join(f'{count} {kind}' for kind, count in unseen['noisy'].items())}. AUROC of dropping the noisy:",
            table(
                ["score", *kinds],
                (
                    [label, *("{:.3f} ({:.3f} to {:.3f})".format(*held[kind]) for kind in kinds)]
                    for label, held in scores.items()
                ),
            ),
            f"What the step drops at fdr = {found['fdr']}, by what was planted:",
            table(
                ["set", "rows", *(kind.removeprefix("broken: ") for kind in planted), "good rows dropped"],
                (
                    [
                        name,
                        f"{held['rows']:,}",
                        *(of(held, kind) for kind in planted),
                        f"{held['good'][0]} of {held['good'][1]:,} ({100 * held['good'][0] / held['good'][1]:.2f} %)",
                    ]
                    for name, held in found["sets"].items()
                ),
            ),
        ]
    )


LABELS = {
    "gain": "a: mean gain of the prompt",
    "t": "a: same, as a t statistic over tokens",
    "ifd": "a: IFD, low kept",
    **{f"first {count}": f"a: gain of the first {count} tokens" for count in (2, 4, 8, 16)},
    "loss": "loss",
    "over entropy": "loss over entropy, by the square root of the length",
    "end": "loss of the token that ends the answer",
    "end over loss": "same, over the mean loss",
    "number": "surprise of the last number",
}


def auroc_table(held: dict[str, dict[str, float | None]]) -> str:
    kinds = list(next(iter(held.values())))
    return table(
        ["score", *(kind.removeprefix("broken: ") for kind in kinds)],
        (
            [
                LABELS.get(name, f"e: {name}"),
                *("" if of[kind] is None else f"{of[kind]:.3f}" for kind in kinds),
            ]
            for name, of in held.items()
        ),
    )


@block
def noise_model() -> str:
    """benchmarks/noise.md: what was tried with a language model, and what its step drops."""
    found = result("noise_model")
    messy, twice, step = found["messy"], found["twice"], found["unfinished"]
    good = sum(count for kind, count in messy["rows"].items() if kind in ("", "leaked"))
    dropped, there = step["dropped"], step["there"]
    by = ", ".join(f"{count} {name}" for name, count in step["good_by_capability"].items())
    return "\n\n".join(
        [
            f"The messy set, its {sum(messy['rows'].values()) - good} rows that no rule finds and {good} good ones, "
            "AUROC of dropping the noisy:",
            auroc_table(messy["auroc"]),
            f"Sources named before, {found['named']['rows']} rows, each whole and with each noise:",
            auroc_table(found["named"]["auroc"]),
            f"Rows read several times, {twice['rows'][0]} swapped and {twice['rows'][1]} good ones, AUROC: "
            + "; ".join(f"{name} {value:.3f}" for name, value in twice["auroc"].items())
            + ".",
            f"`unfinished_answer` at fdr = {step['fdr']}, {step['rows']:,} rows: it drops {sum(dropped.values())}, "
            + ", ".join(
                f"{dropped.get(kind, 0)} of {count} {kind.removeprefix('broken: ')}"
                for kind, count in there.items()
            )
            + f", and {step['good'][0]} of {step['good'][1]:,} good ones{f' ({by})' if by else ''}.",
        ]
    )
