"""What became of all rows, counted: one shape for results in memory and on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from datapruner.html_tables import block, table
from datapruner.reasons import KEPT, RANKED, Reason, reason_of
from datapruner.results.tally import WIDE, Tally
from datapruner.results.tally import lines as told
from datapruner.text import safe_text

MOST_GROUPS = 10
"""Groups that a notebook shows."""


@dataclass(frozen=True)
class Summary:
    """What became of the rows, counted.

    Attributes
    ----------
    rows : int
        Of the source.
    causes : dict
        Cause -> rows: ``kept`` (``ranked`` where nothing has been chosen yet), every cleaning step's, and
        ``over_budget``. They add up to ``rows``.
    groups : dict
        Value of the budget's column -> (kept, of how many, ``rows`` or ``supervised tokens``); for a token budget
        without groups one entry, ``budget``: what of it was spent.
    scorers : tuple of str
    selector, budget : str
        Empty where nothing has been chosen yet.
    reasons : dict
        Cause -> the words for it; those that are built in are known without.
    counted : dict
        What cleaning counted and did not drop (personal data, secrets): words -> rows.
    parts : tuple of Tally
        What each part of the default recipe did, where that ran.
    """

    rows: int
    causes: dict[str, int]
    groups: dict[str, tuple[int, int, str]] = field(default_factory=dict)
    scorers: tuple[str, ...] = ()
    selector: str = ""
    budget: str = ""
    reasons: Mapping[str, Reason] = field(default_factory=dict, repr=False, compare=False)
    counted: Mapping[str, int] = field(default_factory=dict)
    parts: tuple[Tally, ...] = ()

    @property
    def kept(self) -> int:
        """The kept rows; those that were ranked where nothing has been chosen yet."""
        return self.causes.get(KEPT, self.causes.get(RANKED, 0))

    @property
    def dropped(self) -> int:
        """All other rows."""
        return self.rows - self.kept

    def words(self) -> dict[str, int]:
        """Count rows by what became of them, in words."""
        out: dict[str, int] = {}
        for cause, count in self.causes.items():
            label = (self.reasons.get(cause) or reason_of(cause)).label
            out[label if label not in out else f"{label} ({safe_text(cause, 60)})"] = count
        return out

    def lines(self, most_groups: int = 40, width: int = WIDE) -> list[str]:
        """Give the table that the command line prints; of so many groups at most, in so many columns where it can.

        By cause; of the default recipe, by its parts.
        """
        lines = [
            f"{count:>10,}  {100 * count / max(self.rows, 1):5.1f} %  {words}"
            for words, count in self.words().items()
        ]
        if self.parts:
            lines = [*lines[:1], *told(self.parts, width)]
        lines += [f"{count:>10,}  counted, not dropped: {words}" for words, count in self.counted.items()]
        groups = list(self.groups.items())
        for name, (kept, whole, unit) in groups[:most_groups]:
            lines.append(f"{kept:>10,}  of {whole:,} {unit}  {safe_text(name, 60)}")
        if len(groups) > most_groups:
            more = len(groups) - most_groups
            lines.append(f"{'':>10}  and {more:,} more groups: README.md of the result has them")
        return lines

    def __str__(self) -> str:
        """Give these lines."""
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        """Show it in a notebook."""
        return block(self.html_tables())

    def html_tables(self) -> list[str]:
        """Give the counts by cause, by part of the default recipe and by group; no text for what there is not."""
        counts = [
            [f"{count:,}", f"{100 * count / max(self.rows, 1):.1f} %", words]
            for words, count in self.words().items()
        ]
        counts += [
            [f"{count:,}", "", f"counted, not dropped: {words}"] for words, count in self.counted.items()
        ]
        parts = [list(one.cells()) for one in self.parts]
        return [
            table(counts, head=False, right=2),
            table(parts, head=False, left=4) if parts else "",
            self._groups_table(),
        ]

    def _groups_table(self) -> str:
        if not self.groups:
            return ""
        groups = list(self.groups.items())
        unit = groups[0][1][2]
        shown = [
            [safe_text(name, 60), f"{kept:,}", f"{whole:,}", f"{100 * kept / max(whole, 1):.1f} %"]
            for name, (kept, whole, _) in groups[:MOST_GROUPS]
        ]
        if len(groups) > MOST_GROUPS:
            shown.append([f"and {len(groups) - MOST_GROUPS:,} more", "", "", ""])
        return table([["group", "kept", f"of {unit}", ""], *shown], caption="by group", left=1)
