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
