"""What the default recipe did, part by part: a line each, with a count and the way to leave the part out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from datapruner.cleaning.steps.no_answer import NO_ANSWER
from datapruner.cleaning.steps.no_supervised_tokens import NO_TOKENS
from datapruner.errors import in_words
from datapruner.parts import CLEANING, built_in, find
from datapruner.reasons import KEPT, OVER_BUDGET, RANKED, Reason, reason_of
from datapruner.recipe.auto import ALL_THAT_IS_LEFT, COPIES, LEAKS, NOISE, OF_A_MODEL, RULES, SHARES, STEPS
from datapruner.samples.labels import NONE
from datapruner.text import safe_text

if TYPE_CHECKING:
    from datapruner.recipe import Method, Recipe

OTHERS = "others"
"""What was dropped by no part: rows without an answer, rows on a list, steps of plug-ins."""
EMPTY = frozenset({NO_ANSWER.code, NO_TOKENS.code})
MOST = 5
"""Causes that a line names; the card has all."""
WIDE = 120
"""Columns of a line, where nothing says how many there are."""


@dataclass(frozen=True)
class Tally:
    """A part of the default recipe, and what it did.

    Attributes
    ----------
    part : str
        ``leaks``, ``copies``, ``rules``, ``noise``, ``shares``; ``others`` for what none of them dropped.
    count : int, optional
        Rows that it dropped; None where it did not run, or has not yet.
    rows : int
        Of the source.
    idle : str
        Why there is no count.
    switch : str
        The option that leaves the part out, or brings it in; as :func:`datapruner.errors.in_words` reads it.
    said : str
        What else there is to say of it.
    """

    part: str
    count: int | None
    rows: int
    idle: str = ""
    switch: str = ""
    said: str = ""

    def cells(self) -> tuple[str, str, str, str]:
        """Give what it says in four cells, in the reader's words: the part, what it did, the option, and the rest."""
        did = self.idle if self.count is None else f"{self.count:,} of {self.rows:,} rows out"
        return self.part, did, in_words(self.switch), in_words(self.said)


def tallied(
    recipe: Recipe,
    causes: Mapping[str, int],
    rows: int,
    *,
    reasons: Mapping[str, Reason] | None = None,
    clusters: int | None = None,
    values: Sequence[str] = (),
    waiting: Collection[str] = (),
) -> tuple[Tally, ...]:
    """Count what each part of the default recipe dropped; nothing where another recipe ran.

    Parameters
    ----------
    recipe : Recipe
    causes : mapping
        As of :class:`datapruner.results.summary.Summary`.
    rows : int
        Of the source.
    reasons : mapping, optional
        Cause -> the words for it, of those that are not built in.
    clusters : int, optional
        That shared the budget.
    values : sequence of str
        Of the budget's column.
    waiting : collection of str
        Cleaning steps that have not run, since nothing is measured yet.
    """
    if not recipe.tells_parts:
        return ()
    of_part = {part: _codes(part) for part in STEPS}
    ours = frozenset().union(*of_part.values(), {KEPT, RANKED, OVER_BUDGET})
    words = reasons or {}

    def counted(codes: Collection[str], *, named: bool = False) -> tuple[int, str]:
        found = sorted(((causes[code], code) for code in causes if code in codes), key=lambda one: -one[0])
        told = [
            f"{count:,} {code.replace('_', ' ') if named else _called(words.get(code) or reason_of(code), count)}"
            for count, code in found
            if count
        ]
        more = [f"{len(told) - MOST} more kinds"] if len(told) > MOST + 1 else told[MOST:]
        return sum(count for count, _ in found), ", ".join([*told[:MOST], *more])

    out = []
    for part in (LEAKS, COPIES, RULES, NOISE):
        off = _idle(recipe, part)
        if off is not None:
            out.append(Tally(part, None, rows, *off))
        elif not waiting or not _steps(recipe, part) & {*waiting}:
            count, said = counted(of_part[part], named=part == RULES)  # each has a name to leave it out by
            told = [_test_set(recipe)] if part == LEAKS else [said]
            if part == NOISE and _sees_more(recipe):
                told.append("more is seen with --model=MODEL")
            out.append(Tally(part, count, rows, "", f"--without={part}", "; ".join(filter(None, told))))
        else:
            out.append(Tally(part, None, rows, "known once the rows are measured", f"--without={part}"))
    out.append(_shares(recipe, causes, rows, clusters, values))
    others = causes.keys() - ours
    if (found := counted(others))[0]:
        switch = "--on-empty=keep" if others <= EMPTY else ""
        out.append(Tally(OTHERS, found[0], rows, "", switch, found[1]))
    return tuple(out)


def lines(tallies: Sequence[Tally], width: int = WIDE) -> list[str]:
    """Write a line each, the last cell shortened where a line would be wider than so many columns."""
    cells = [one.cells() for one in tallies]
    widths = [max((len(row[place]) for row in cells), default=0) for place in range(3)]
    counts = max((len(one.cells()[1]) for one in tallies if one.count is not None), default=0)
    out = []
    for one, (part, did, switch, said) in zip(tallies, cells, strict=True):
        done = did if one.count is None else did.rjust(counts)
        start = f"{part:<{widths[0]}}  {done:<{widths[1]}}  {switch:<{widths[2]}}"
        out.append(f"{start}  {shortened(said, width - len(start) - 2)}".rstrip())
    return out


def shortened(said: str, width: int) -> str:
    """Leave out of a list what goes beyond so many columns; nothing is left of it where even its first part does."""
    if len(said) <= width:
        return said
    cut = said[: max(width - 2, 0)].rpartition(", ")[0]
    return f"{cut}, …" if cut else ""


def _called(reason: Reason, count: int) -> str:
    return safe_text(reason.one if count == 1 else reason.many, 60)


@cache
def _codes(part: str) -> frozenset[str]:
    """Give the causes of a part's steps."""
    there = [find(CLEANING, step) for step in STEPS[part] if step in built_in(CLEANING)]
    return frozenset(reason.code for step in there for reason in step.reasons)


def _steps(recipe: Recipe, part: str) -> set[str]:
    """Give the steps of a part that a recipe has."""
    named = {*(method.name for method in recipe.cleaning), *recipe.dedup}
    if recipe.decontaminate is not None or recipe.decontaminate_split is not None:
        named |= {*STEPS[LEAKS]}
    return named & {*STEPS[part]}


def _idle(recipe: Recipe, part: str) -> tuple[str, str] | None:
    """Say why a part does not run, and what brings it in; None where it does."""
    if _steps(recipe, part):
        return None
    if part in (recipe.without or ()):
        return "left out", ""
    if part == LEAKS:
        return "no test set to look for", "--decontaminate=TEST_SET"
    if part == NOISE and recipe.has_embeddings:
        return "not looked for where vectors are given", ""
    return "nothing looks for them" if part == COPIES else "nothing looks for it", ""


def _test_set(recipe: Recipe) -> str:
    if recipe.decontaminate is None:
        return f"from the split {safe_text(str(recipe.decontaminate_split), 40)}"
    shown = recipe.decontaminate if recipe.path("decontaminate") is None else Path(recipe.decontaminate).name
    return f"from {safe_text(shown, 60)}"


def _sees_more(recipe: Recipe) -> bool:
    there = {step for step in STEPS[NOISE] if step in OF_A_MODEL and step in built_in(CLEANING)}
    return bool(there - {method.name for method in recipe.cleaning}) and not {"model"} & {*recipe.in_memory}


def _shares(
    recipe: Recipe, causes: Mapping[str, int], rows: int, clusters: int | None, values: Sequence[str]
) -> Tally:
    """Say what the budget dropped, and how it was shared."""
    if recipe.keep is None and recipe.keep_tokens is None:
        return Tally(SHARES, None, rows, "no budget yet", "--keep=0.3")
    method = _chooses(recipe)
    by = _by(method, recipe.per_group, clusters, values) + _as_said(recipe.group_share)
    if KEPT not in causes:
        return Tally(SHARES, None, rows, "known once rows are chosen", f"--without={SHARES}", by)
    count = causes.get(OVER_BUDGET, 0)
    if recipe.keep == ALL_THAT_IS_LEFT and not count:
        return Tally(SHARES, None, rows, "no budget: all others are kept", "--keep=0.3")
    switch = f"--without={SHARES}" if method.name == "auto" else ""
    return Tally(SHARES, count, rows, "", switch, by)


def _chooses(recipe: Recipe) -> Method:
    return next((one for one in recipe.scorers if one.name == recipe.scorer), recipe.scorers[0])


def _as_said(shares: Mapping[str, float]) -> str:
    """Name the groups whose share was given."""
    names = [safe_text(name, 40) for name in shares]
    return f", {', '.join(names[:3])}{' ...' * (len(names) > 3)} as said" if names else ""


def _by(method: Method, per_group: str | None, clusters: int | None, values: Sequence[str]) -> str:
    if method.name == "random":
        return "a plain random draw"
    if method.name != "auto":
        return f"chosen by {safe_text(method.name, 60)}"
    named = str(method.parameters.get("within", "cluster"))
    if named == f"column:{per_group}" and len(values) == 1:
        why = "is empty in every row" if values[0] == NONE else "is the same in every row"
        return f"a plain random draw, since {safe_text(named.removeprefix('column:'), 60)} {why}"
    if named == "cluster":
        over = "clusters" if clusters is None else f"{clusters:,} cluster{'s' * (clusters != 1)}"
    else:
        over = f"the values of {safe_text(named.removeprefix('column:'), 60)}"
    inside = ""
    if per_group is not None and named == "cluster":
        over, inside = f"the values of {safe_text(per_group, 60)}", ", and their clusters"
    power = float(method.parameters.get("power", _power()))
    if power == 0:
        return f"shared equally over {over}{inside}"
    return f"shared over {over}, {'in proportion to size' if power == 1 else f'by size^{power:g}'}{inside}"


@cache
def _power() -> float:
    from datapruner.scorers.auto import Auto

    return Auto().power
