"""The dataset card: what ``load_dataset`` needs, and what a reader wants to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from datapruner.files.remote import masked
from datapruner.outputs.tokens import IGNORED
from datapruner.ranking import DRAW
from datapruner.text import safe_text

if TYPE_CHECKING:
    from datapruner.results.scored import Scored
    from datapruner.results.selected import Selected
    from datapruner.samples.origins import Origin


def dataset_card(
    selection: Selected,
    format: str,
    digest: str,
    configurations: Sequence[tuple[list[str], dict[str, Any]]] = (),
    content: str | None = None,
) -> str:
    """Write the card: front matter that makes ``load_dataset`` give exactly the rows, then counts and scores.

    Parameters
    ----------
    selection : Selected
    format : str
        Of the data files.
    digest : str
        Of their content. `datasets` caches a local folder under its last name and the front matter alone, so
        without it a second result called ``out``, or an overwritten one, would be read as the first.
    configurations : sequence of (splits, what is said of them)
        The splits that have the same columns, the selection's own first, with what `datasets` needs to read them
        (``features``, builder options); all splits are alike by default.
    content : str, optional
        The hash of the source's content.
    """
    samples = selection.scores.samples
    front: dict[str, object] = {"tags": ["datapruner"]}
    named: dict[str, tuple[list[str], dict[str, Any]]] = {}
    if format != "arrow":
        groups = configurations or [([samples.split, *samples.others], {})]
        named = {
            _config_name(splits, first=not place): group
            for place, group in enumerate(groups)
            for splits in [group[0]]
        }
        front["configs"] = [
            {
                "config_name": name,
                "description": f"rows {digest}",
                "data_files": [
                    {"split": split, "path": f"data/{split}-00000-of-00001.{format}"} for split in splits
                ],
                **{option: value for option, value in said.items() if option != "features"},
            }
            for name, (splits, said) in named.items()
        ]
        features = {name: said["features"] for name, (_, said) in named.items() if "features" in said}
        if features:
            front["dataset_info"] = [
                {"config_name": name, "features": listed} for name, listed in features.items()
            ]
    source = _code(source_name(selection.scores)) + (
        f" at revision {_code(samples.revision)}" if samples.revision else ""
    )
    if content is not None:
        source += f" (content {_code(content)})"
    reader = (
        f'load_from_disk("THIS_FOLDER/data")["{samples.split}"]'
        if format == "arrow"
        else 'load_dataset("THIS_FOLDER")'
    )
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False).strip(),
        "---",
        "",
        "# Pruned dataset",
        "",
        f"{len(selection):,} of {len(selection.kept):,} rows of {source}, split {_code(samples.split)}, chosen by "
        f"datapruner with the scorer `{selection.scorer}` and the selector "
        f"`{selection.selector.name}` for a budget of {_code(selection.budget.describe())}.",
        "",
        f"Read it with `{reader}`. All original columns are there, in source order. `selection.parquet` has every "
        f"source row with its score and the reason why it was kept or dropped; {_again(selection.recipe.in_memory)}.",
        "",
        *_apart(named),
        *_tokens(selection),
        "| rows | |",
        "|---|---:|",
        *(f"| {words} | {count:,} |" for words, count in selection.summary.words().items()),
        *(f"| counted, not dropped: {words} | {count:,} |" for words, count in selection.counted.items()),
        *_origins(selection),
        *_shares(selection),
        "",
        *_scores(selection),
    ]
    return "\n".join(lines)


def _apart(named: Mapping[str, tuple[list[str], dict[str, Any]]]) -> list[str]:
    """Say how splits with other columns are read."""
    others = {name: splits for name, (splits, _) in named.items() if name != "default"}
    if not others:
        return []
    shown = "; ".join(
        f'{", ".join(map(_code, splits))} with `load_dataset("THIS_FOLDER", {name!r})`'
        for name, splits in others.items()
    )
    return [f"Splits with other columns or types are configurations of their own: {shown}.", ""]


def _config_name(splits: list[str], *, first: bool) -> str:
    """Name a configuration: the first one is what is read without a name."""
    if first:
        return "default"
    return splits[0] if splits[0] != "default" else "default_split"


def _tokens(selection: Selected) -> list[str]:
    """Say what was pruned inside rows, and how to train on it."""
    stay = selection.supervised_tokens_kept
    if stay is None or selection.token_masks is None:
        return []
    masks = selection.token_masks
    gone = int((~masks.values).sum())
    return [
        f"Tokens were pruned in {int((masks.lengths > 0).sum()):,} of the kept rows; {int(stay.sum()):,} of the "
        f"{int(stay.sum()) + gone:,} supervised tokens stay in the loss. `input_ids` has every row whole, as the model "
        f"reads it, and `labels` has {IGNORED} for what is not supervised or was pruned. `SFTTrainer` trains on these "
        "two columns as they are; give it `SFTConfig(max_length=None)`, or it cuts rows at 1,024 tokens.",
        "",
    ]


def _shares(selection: Selected) -> list[str]:
    shares = selection.shares()
    if not shares:
        return []
    head = _code(selection.budget.per_group) if selection.budget.per_group else ""
    return [
        "",
        f"| {head} | kept | of | |",
        "|---|---:|---:|---|",
        *(
            f"| {_code(name)} | {kept:,} | {whole:,} | {unit} |"
            for name, (kept, whole, unit) in shares.items()
        ),
    ]


def _scores(selection: Selected) -> list[str]:
    """Show the scores, unless they were drawn: then there is nothing to see in them."""
    if selection.measure.name == DRAW:
        return []
    return ["## Scores", "", "```", *histogram(selection), "```", ""]


def histogram(selection: Selected) -> list[str]:
    """Draw the scores as lines of text: all rows, and the kept ones darker."""
    measure, kept = selection.measure, selection.kept
    values = selection.values if measure.high else 0.0 - selection.values
    finite = np.isfinite(values)
    edges = np.histogram_bin_edges(values[finite], bins=12)
    whole = np.histogram(values[finite], edges)[0]
    ours = np.histogram(values[finite & kept], edges)[0]
    scale = 50 / max(int(whole.max()), 1)
    name = "score" if measure.high else measure.name
    out = [f"{f'{name} from':>12}  kept █  dropped ░"]
    for low, rows, taken in zip(edges[:-1], whole.tolist(), ours.tolist(), strict=True):
        dark = round(taken * scale)
        out.append(f"{low:12.5g}  {'█' * dark}{'░' * (round(rows * scale) - dark)} {taken:,} of {rows:,}")
    return out


def source_name(scores: Scored) -> str:
    """Name a source without the path of the machine it lay on, and a hub dataset without its revision."""
    samples = scores.samples
    if samples.origins:
        return ", ".join(origin.name for origin in samples.origins)
    path = scores.recipe.path("source")
    if path is not None:
        return Path(path).name
    return masked(samples.source.removesuffix(f"@{samples.revision}"))


def _origins(selection: Selected) -> list[str]:
    """Tell of several sources what was kept of each."""
    samples = selection.scores.samples
    if not samples.origins:
        return []
    codes, _ = samples.origin_rows
    kept = np.bincount(codes[selection.kept], minlength=len(samples.origins))
    column = _code(str(samples.source_column))
    ways: dict[str, str] = {}
    for name, layout in samples.layouts:
        ways[name] = (f"{ways[name]}, " if name in ways else " | ") + _code(layout.name)
    return [
        "",
        f"| {column} | read from{' | read as' * bool(ways)} | kept | of |",
        f"|---|---|{'---|' * bool(ways)}---:|---:|",
        *(
            f"| {_code(origin.name)} | {_code(_place(origin, selection))}{ways.get(origin.name, '')} | {count:,} | "
            f"{origin.rows:,} |"
            for origin, count in zip(samples.origins, kept.tolist(), strict=True)
        ),
    ]


def _place(origin: Origin, selection: Selected) -> str:
    """Say where a source is from, without the path of the machine that it lay on."""
    path = selection.scores.recipe.names_path("source", origin.source)
    named = Path(origin.source).name if path else masked(origin.source)
    split = "" if origin.split == selection.scores.samples.split else f", split {origin.split}"
    at = f" at revision {origin.revision}" if origin.revision and "@" not in origin.source else ""
    return f"{named}{at}{split}"


def _again(in_memory: list[str]) -> str:
    """Say how the result is made again."""
    if not in_memory:
        return "`datapruner run recipe.yaml` makes the same bytes again"
    held = ", ".join(_code(name) for name in in_memory)
    return (
        f"`recipe.yaml` has the arguments, but not what was in memory ({held}), which `datapruner.prune` needs "
        "again"
    )


def _code(text: str) -> str:
    """Set a name as code; a backtick or a newline in it must not end the code or the table."""
    return f"`{safe_text(text, 200).replace('`', chr(39)).replace('|', '/')}`"
