"""What is printed of a result."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from datapruner.cli.terminal import is_styled, rendered, width
from datapruner.files.remote import path_said

if TYPE_CHECKING:
    from datapruner.cleaning.pairs import Pair
    from datapruner.results.summary import Summary
    from datapruner.samples.samples import Samples
    from datapruner.scores import Selection


BAR = 20
"""Columns of a bar that stands for all."""
ROOMY = 100
"""Columns of a terminal from which a part of the default recipe is told in full."""
MOST_GROUPS = 40
"""Groups of a budget that a summary lists."""


def summarise(selection: Selection, out: Path, quiet: bool, *, report: bool, pairs: int = 0) -> None:
    """Say what was kept, why the others were not, and what to be careful with."""
    if quiet:
        return
    from datapruner.outputs.facets import find_labels
    from datapruner.outputs.warnings import warning_words
    from datapruner.samples.sample import column_list
    from datapruner.text import safe_text

    typer.echo(counts(selection.summary))
    read = {*selection.scores.recipe.strings(), selection.budget.per_group}
    if left := [name for name in selection.scores.samples.unread if name not in read]:
        typer.echo(f"{'':>10}  not read: {column_list(left)}")
    for pair in selection.pairs(pairs) if pairs else ():
        typer.echo(f"\n{_pair_lines(pair, selection.scores.samples)}")
    for sentence in warning_words(selection, find_labels([selection])):
        typer.echo(f"\n{sentence}")  # its names are harmless already
    shown = safe_text(path_said(out))
    split = selection.scores.samples.split
    typer.echo(
        f'\n{shown}\n  load_dataset("{shown}", split="{safe_text(split)}")\n  datapruner explain {shown} --row 0'
        + page(out) * report
    )


def counts(summary: Summary) -> str:
    """Write what became of the rows: a table with bars on a terminal, else the same lines as ever."""
    if not is_styled():
        return "\n".join(summary.lines(MOST_GROUPS, width()))
    from rich.table import Table

    from datapruner.text import safe_text

    def bar(count: int, whole: int) -> str:
        block = "█" if "utf" in (sys.stdout.encoding or "").lower() else "#"
        return block * round(BAR * count / max(whole, 1))

    causes = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    groups = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    parts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for table in (causes, groups):
        table.add_column(justify="right")
        table.add_column(justify="right")
        table.add_column(width=BAR)
        table.add_column(overflow="fold")
    listed_causes = list(summary.words().items())
    for number, (words, count) in enumerate(listed_causes[:1] if summary.parts else listed_causes):
        share = f"{100 * count / max(summary.rows, 1):.1f} %"
        causes.add_row(
            f"{count:,}", share, bar(count, summary.rows), words, style="bold green" if number == 0 else ""
        )
    for words, count in summary.counted.items():
        causes.add_row(f"{count:,}", "", "", f"counted, not dropped: {words}")
    for part, did, switch, said in (one.cells() for one in summary.parts):
        parts.add_row(part, did, switch, *[said] * (width() >= ROOMY))
    listed = list(summary.groups.items())
    for name, (kept, whole, unit) in listed[:MOST_GROUPS]:
        groups.add_row(f"{kept:,}", f"of {whole:,}", bar(kept, whole), f"{unit}  {safe_text(name, 60)}")
    if more := len(listed) - len(listed[:MOST_GROUPS]):
        groups.add_row("", "", "", f"and {more:,} more groups: README.md of the result has them")
    return rendered(causes, *[parts] * bool(summary.parts), *[groups] * bool(listed))


def _pair_lines(pair: Pair, samples: Samples) -> str:
    """Show a dropped row above what it was dropped for, from a little before the place where they part."""
    from datapruner.cleaning.telling import parted, referred
    from datapruner.text import safe_text

    same = pair.text == pair.other_text or not pair.other_text
    rows = (pair.text, pair.other_text) if same else parted(pair.text, pair.other_text)
    other = referred(samples, pair.refers_to, pair.other)
    return (
        f"{pair.cause.replace('_', ' ')}, {pair.measure:.2f}\n"
        f"  {samples.row_words(pair.row)}: {safe_text(rows[0], 100)}\n  {other}: {safe_text(rows[1], 100)}"
    )


def page(out: Path) -> str:
    """Give the line that says which page to look at."""
    from datapruner.text import safe_text

    there = path_said(out / "report.html")
    return f"\n  look at {safe_text(there)}"
