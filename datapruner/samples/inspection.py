"""What was found in a source, and how its rows will be read."""

from __future__ import annotations

import html
from dataclasses import dataclass, field

import numpy as np

from datapruner.files.mapped import blocks
from datapruner.matching import match_form
from datapruner.samples.sample import Sample, column_list
from datapruner.samples.samples import Samples
from datapruner.samples.transcripts import TOLD
from datapruner.samples.unread import overlooked, unseen
from datapruner.text import safe_text

PERCENTILES = (5, 50, 95, 100)
HEADINGS = ("p5", "p50", "p95", "max")


@dataclass(frozen=True)
class Inspection:
    """The findings of ``inspect_samples``.

    Parameters
    ----------
    source, split, revision
        What was read.
    rows
        The number of rows.
    columns
        Every column and its type.
    layout
        The layout's name, and in ``roles`` which column plays which role.
    other_splits
        The other splits and their rows.
    examples
        The first rows as they will be read.
    lengths
        ``"prompt characters"``, ``"prompt words"``, ``"response characters"``, ``"response words"``: the 5th,
        50th and 95th percentile and the maximum over the rows.
    nulls
        For each column, the rows without a value.
    empty_responses
        Rows whose answer says nothing.
    exact_duplicates
        Rows that repeat an earlier row in all that the layout gives meaning to, but for white space.
    unread
        The columns that nothing reads.
    notes
        What should not be overlooked, a sentence each.
    layouts
        Of sources that are read in layouts of their own: each one's name, and its layout with the columns.
    """

    source: str
    split: str
    revision: str | None
    rows: int
    columns: dict[str, str]
    layout: str
    roles: dict[str, str]
    other_splits: dict[str, int]
    nulls: dict[str, int]
    examples: list[Sample] = field(default_factory=list)
    lengths: dict[str, tuple[int, ...]] = field(default_factory=dict)
    empty_responses: int = 0
    exact_duplicates: int = 0
    unread: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    layouts: list[tuple[str, str]] = field(default_factory=list)

    def __str__(self) -> str:
        """Give the findings as `datapruner inspect` prints them."""
        return render_text(self)

    def _repr_html_(self) -> str:
        """Show the same in a notebook."""
        return f"<pre>{html.escape(render_text(self))}</pre>"


def inspect_samples(samples: Samples, *, examples: int = 3) -> Inspection:
    """Read every row once and report what is there.

    Parameters
    ----------
    samples
        The source's rows.
    examples
        How many of the first rows to keep as examples.
    """
    import xxhash

    total = len(samples)
    shown: list[Sample] = []
    lengths: dict[str, np.ndarray] = {}
    empty, seen = 0, set()
    if samples.layout.has_text:
        parts = [(part, unit) for part in ("prompt", "response") for unit in ("characters", "words")]
        lengths = {f"{part} {unit}": np.zeros(total, dtype=np.int64) for part, unit in parts}
        for row, sample in enumerate(samples):
            if row < examples:
                shown.append(sample)
            prompt, response = sample.part("prompt"), sample.part("response")
            for part, text in (("prompt", prompt), ("response", response)):
                lengths[f"{part} characters"][row] = len(text)
                lengths[f"{part} words"][row] = len(text.split())
            empty += sample.unanswered
            # Sixteen bytes a row, whatever the row's length.
            seen.add(xxhash.xxh3_128_digest(match_form(sample.key()).encode("utf-8", "surrogatepass")))
    return Inspection(
        source=samples.source,
        split=samples.split,
        revision=samples.revision,
        rows=total,
        columns={field.name: str(field.type) for field in samples.dataset.features.arrow_schema},
        layout=samples.layout.name,
        roles=dict(samples.layout.columns),
        other_splits={name: len(dataset) for name, dataset in samples.others.items()},
        nulls=_nulls(samples),
        examples=shown,
        lengths={name: _percentiles(values) for name, values in lengths.items()},
        empty_responses=empty,
        exact_duplicates=total - len(seen) if lengths else 0,
        unread=samples.unread,
        notes=[
            text
            for text in (
                unseen(samples),
                *map(str, overlooked(samples)),
                TOLD if samples.layout.transcripts else "",
            )
            if text
        ],
        layouts=[(name, layout.told) for name, layout in samples.layouts],
    )


def _percentiles(values: np.ndarray) -> tuple[int, ...]:
    """Return percentiles that are lengths of real rows."""
    return tuple(int(value) for value in np.percentile(values, PERCENTILES, method="inverted_cdf"))


def _nulls(samples: Samples) -> dict[str, int]:
    """Count the rows without a value in each column; Arrow knows it without reading the values."""
    counts = dict.fromkeys(samples.dataset.column_names, 0)
    for _, table in blocks(samples.dataset, 10_000):
        for name in counts:
            counts[name] += table.column(name).null_count
    return counts


def render_text(inspection: Inspection, width: int = 100) -> str:
    """Return the findings as plain text for a terminal; the source's own text is made harmless.

    Parameters
    ----------
    inspection
        The findings.
    width
        The longest line in characters.
    """
    width = max(width, 40)
    found = inspection
    facts = [
        ("source", safe_text(found.source) + (f" @ {safe_text(found.revision)}" if found.revision else "")),
        ("split", f"{safe_text(found.split)}, {found.rows:,} rows"),
    ]
    if found.other_splits:
        others = ", ".join(f"{safe_text(name, 40)} ({rows:,})" for name, rows in found.other_splits.items())
        facts.append(("other splits", others))
    roles = ", ".join(f"{role} = {safe_text(column, 40)}" for role, column in found.roles.items())
    told = [f"{safe_text(name, 40)}: {layout}" for name, layout in found.layouts]
    facts += [("layout", one) for one in told or [found.layout + (f": {roles}" if roles else "")]]
    if found.unread:
        facts.append(("not read", column_list(found.unread)))
    if found.lengths:
        facts.append(("empty responses", f"{found.empty_responses:,}"))
        facts.append(("exact duplicates", f"{found.exact_duplicates:,}"))
    lines = [
        f"{'' if place else name:<18}{piece}"
        for name, value in facts
        for place, piece in enumerate(_fold(value, width - 18))
    ]

    for note in found.notes:
        lines += ["", *_fold(note, width)]
    lines += ["", *_table(("column", "type", "nulls"), _column_rows(found), "<<>", width)]
    if found.lengths:
        rows = [(name, *(f"{value:,}" for value in values)) for name, values in found.lengths.items()]
        lines += ["", *_table(("length", *HEADINGS), rows, "<>>>>", width)]
    for number, sample in enumerate(found.examples):
        lines += [
            "",
            f"row {number}" + (" (plain text)" if sample.plain else ""),
            *render_sample(sample, width),
        ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def render_sample(sample: Sample, width: int = 100, lines: int = 4) -> list[str]:
    """Return a row's turns as lines for a terminal, so many of each turn at most; its text is made harmless."""
    out = []
    for message in sample.messages:
        out += _wrapped("text" if sample.plain else message.role, message.text, max(width, 40), lines)
    for name, text in sample.beside or ():
        if name.partition(".")[0] == "rejected" and name.rpartition(".")[2] in (
            "rejected",
            "content",
            "value",
        ):
            out += _wrapped("rejected", text, max(width, 40), lines)
    if sample.tools:
        out.append(f"  {'tools':<11}{len(sample.tools)}")
    return out


def _column_rows(found: Inspection, most: int = 40) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        (safe_text(name, 30), safe_text(kind, 200), f"{found.nulls.get(name, 0):,}")
        for name, kind in list(found.columns.items())[:most]
    ]
    left = len(found.columns) - most
    return [*rows, (f"and {left} more", "", "")] if left > 0 else rows


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else line[: width - 1] + "…"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]], align: str, width: int) -> list[str]:
    """Align cells in columns; the widest column gives way where the line would be too long."""
    widths = [max(len(row[place]) for row in [head, *rows]) for place in range(len(head))]
    spare = width - 2 * (len(head) - 1)
    while sum(widths) > spare and max(widths) > 8:
        widest = widths.index(max(widths))
        widths[widest] = max(8, widths[widest] - (sum(widths) - spare))
    return [
        "  ".join(
            f"{_cut(cell, size):{side}{size}}" for cell, size, side in zip(row, widths, align, strict=True)
        )
        for row in [head, *rows]
    ]


def _wrapped(role: str, text: str, width: int, most: int) -> list[str]:
    """Return a turn's text beside its role, a few lines of it at most."""
    room = width - 13
    pieces = _fold(safe_text(text, room * most) or "(empty)", room)
    if len(pieces) > most:
        pieces = [*pieces[: most - 1], _cut(pieces[most - 1] + " …", room)]
    return [f"  {'' if place else role:<11}{piece}" for place, piece in enumerate(pieces)]


def _fold(text: str, room: int) -> list[str]:
    """Cut a text into lines, between words where the line is not left half empty."""
    pieces = []
    while len(text) > room:
        blank = text.rfind(" ", room // 2, room + 1)
        stop = blank if blank > 0 else room
        pieces.append(text[:stop])
        text = text[stop:].removeprefix(" ")
    return [*pieces, text]
