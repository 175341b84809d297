"""Which scorers a comparison runs: those that were named, or all that can."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from datapruner.errors import DataPrunerError
from datapruner.parameters import one_or_more
from datapruner.scorers import available_scorers, make_scorer
from datapruner.signals.plan import make_plan, readers_of, without_unread

if TYPE_CHECKING:
    from datapruner.measuring.request import Request
    from datapruner.samples.samples import Samples
    from datapruner.scorers.base import Scorer

UNRANKED = "unranked"
ALL = "all"
"""In the place of a scorer's name: all that there are; those that cannot run are left out with a reason."""

LeftOut = dict[str, str]


def scorers_of(given: Any) -> tuple[list[Scorer], LeftOut | None]:
    """Build the scorers that were named; where ``all`` is among them, all others too.

    Parameters
    ----------
    given : str, Scorer, or a sequence of them

    Returns
    -------
    list of Scorer
    dict, optional
        Where all were asked for: those that cannot be built without parameters -> why. Else None.
    """
    listed = one_or_more(given)
    named = [make_scorer(one) for one in listed if not (isinstance(one, str) and one == ALL)]
    if len(named) == len(listed):
        return named, None
    left_out: LeftOut = {}
    for name in available_scorers():
        if name in {scorer.name for scorer in named}:
            continue
        if name == UNRANKED:
            left_out[name] = f"the scorer '{name}' ranks nothing, so that there is nothing to compare"
            continue
        try:
            named.append(make_scorer(name))
        except (DataPrunerError, TypeError) as error:  # a plug-in's own parameter without a default
            left_out[name] = str(error)
    return named, left_out


def why_not(scorer: Scorer, request: Request, samples: Samples) -> str | None:
    """Say why a scorer cannot run with what is given, on these rows; None where it can, as far as is known.

    Parameters
    ----------
    scorer : Scorer
    request : Request
    samples : Samples
    """
    readers = readers_of([scorer], in_tokens=request.in_tokens)
    try:
        request.of(scorer).check_selectors()
        # What another scorer reads is not in this one's way.
        plan = make_plan(without_unread(request.recipe, scorer.requires), readers)
    except DataPrunerError as error:
        return str(error)
    of_text = scorer.requires & plan.of_text
    if of_text and not samples.layout.has_text:
        return (
            f"the scorer '{scorer.name}' reads {', '.join(sorted(of_text))}, and rows of the layout "
            f"'{samples.layout.name}' have no text"
        )
    if lost := [told for step in plan.steps if (told := step.measurement.lacks(samples)) is not None]:
        return f"the scorer '{scorer.name}' cannot run: {lost[0]}"
    missing = [column for column in plan.columns if column not in samples.dataset.column_names]
    return (
        f"the scorer '{scorer.name}' reads the column '{missing[0]}', which is not there" if missing else None
    )
