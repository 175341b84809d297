"""The blocks of benchmarks/duplicates.md; see :mod:`report_blocks`."""

from __future__ import annotations

from report_blocks import about, block, percent, result, table


@block
def duplicates_exact() -> str:
    found = result("duplicates")["duplicates"]
    return f"Recall {percent(found['exact_recall'])}. About {about(found['exact_rows_per_second'])} rows a second."


@block
def duplicates_near() -> str:
    found = result("duplicates")["duplicates"]
    at = {(one["ngram"], one["threshold"]): one for one in found["near"]}
    grams, thresholds = ({place[n]: None for place in at} for n in (0, 1))

    def bold(text: object, yes: bool) -> str:
        return f"**{text}**" if yes else str(text)

    def cell(gram: int, threshold: float) -> str:
        one = at[gram, threshold]
        return bold(f"{percent(one['recall'])} / {one['collateral']}", (gram, threshold) == (3, 0.7))

    words = ", ".join(
        f"{one['from']} to {one['below'] - 1} words {percent(one['recall'])} ({one['planted']})"
        for one in found["near_recall_by_words"][:-1]
    )
    last = found["near_recall_by_words"][-1]
    return "\n\n".join(
        [
            table(
                ["threshold", *(bold(f"{gram} words", gram == 3) for gram in grams)],
                ([bold(one, one == 0.7), *(cell(gram, one) for gram in grams)] for one in thresholds),
            ),
            f"Recall at the default by length of the row, and how many were planted: {words}, {last['from']} words or "
            f"more {percent(last['recall'])} ({last['planted']}).",
            f"The bands found {percent(found['pairs_in_bands'])} of the {found['pairs_by_brute_force']:,} pairs that "
            "a brute-force sparse product finds at 0.7. Speed about "
            f"{about(found['near_rows_per_second'])} rows a second on this text.",
        ]
    )


@block
def duplicates_template() -> str:
    found = result("duplicates")["one_template"]
    at = {(one["common"], one["own"], one["rows"]): one["seconds"] for one in found}
    kinds, sizes = dict.fromkeys(key[:2] for key in at), dict.fromkeys(key[2] for key in at)
    return table(
        ["common + own words", *(f"{size:,} rows" for size in sizes)],
        (
            [
                f"{common} + {own} (Jaccard {common / (common + 2 * own):.1f})",
                *(f"{at[common, own, size]:.2g} s" for size in sizes),
            ]
            for common, own in kinds
        ),
    )


@block
def duplicates_semantic() -> str:
    return table(
        ["eps", "recall of one-word changes", "collateral", "of which left after the near step"],
        (
            [
                str(one["eps"]),
                percent(one["recall"]),
                f"{one['collateral']} ({percent(one['collateral_share'])})",
                str(one["collateral_after_near"]),
            ]
            for one in result("duplicates")["duplicates"]["semantic"]
        ),
    )


@block
def duplicates_leaks() -> str:
    found = result("duplicates")["decontamination"]
    at = {(one["ngram"], one["share"]): one for one in found["gsm8k"]}
    shown = [(4, 0.5), (5, 0.5), (5, 0.4), (6, 0.5), (8, 0.5), (13, 0.5)]
    heads = [f"{gram}-grams" + ("" if share == 0.5 else f", {share}") for gram, share in shown]
    heads[1] = f"**{heads[1]}**"
    edits = at[5, 0.5]["recall"]
    return "\n\n".join(
        [
            table(
                ["edit", *heads],
                [
                    *([edit, *(f"{at[place]['recall'][edit]:.2f}" for place in shown)] for edit in edits),
                    ["natural rows dropped", *(str(at[place]["collateral"]) for place in shown)],
                ],
            ),
            "Training rows dropped at the default from the other sets, test prompts against whole training rows: "
            + ", ".join(f"{one['set']} {one['dropped']} of {one['train']:,}" for one in found["other_sets"])
            + ".",
        ]
    )
