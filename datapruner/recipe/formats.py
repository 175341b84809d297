"""What a recipe that was saved by an earlier version meant, in today's words."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from datapruner.errors import DataPrunerError
from datapruner.text import safe_text

logger = logging.getLogger(__name__)

HEADER = "# datapruner run recipe.yaml\n"
FORMAT = 3
"""Of the recipes that are saved; those with the header and without a number are of format 1."""
DEFAULT_UNTIL_2 = "concept_complexity"
"""What a recipe of format 2 or earlier meant that names no scorer."""

TEMPLATES_UNTIL_2 = (
    "n-grams that many training rows share counted in full against leaks, and runs so: decontaminate_templates=test; "
    "today's default is both"
)


class Change(NamedTuple):
    """A scorer's parameter whose default is another by now.

    Attributes
    ----------
    last : int
        The last format that had the old default.
    scorer, parameter, value : str
        What it was.
    said : str
        How a warning goes on that begins with "the recipe was saved when".
    """

    last: int
    scorer: str
    parameter: str
    value: str
    said: str


CHANGES = (
    Change(
        1,
        "donod",
        "don",
        "grow",
        "donod kept what lets the weights' norm grow, and runs so: don=grow; today's default is don=shrink",
    ),
    Change(
        2,
        "topoprune",
        "value",
        "entanglement",
        "topoprune scored by entanglement unless told not to, and runs so: value=entanglement; today's default is "
        "value=displacement, and the scorer entanglement has the other one",
    ),
)


def as_of_today(given: dict[Any, Any], text: str) -> dict[Any, Any]:
    """Take the format's number off a recipe, and say for it what its version did without saying so.

    A recipe written by hand has no number and no header: it means what the documentation of today says.

    Parameters
    ----------
    given : dict
        What the file holds.
    text : str
        The file.

    Raises
    ------
    DataPrunerError
        A later version saved it.
    """
    given = dict(given)
    number = given.pop("recipe_format", 1 if text.startswith(HEADER) else FORMAT)
    if number not in range(1, FORMAT + 1):
        raise DataPrunerError(
            f"the recipe has recipe_format {safe_text(repr(number), 40)}, and this version reads them up to {FORMAT}; "
            "install a later datapruner"
        )
    if number < 3 and "scorers" not in given:
        given["scorers"] = [{"name": DEFAULT_UNTIL_2}]
    tested = ("decontaminate", "decontaminate_split")
    if number < 3 and any(given.get(name) is not None for name in tested):
        given.setdefault("decontaminate_templates", "test")
        logger.warning("the recipe was saved when %s", TEMPLATES_UNTIL_2)
    for change in CHANGES:
        scorers = given.get("scorers")
        if number <= change.last and isinstance(scorers, list):
            given["scorers"] = [_as_it_was(scorer, change) for scorer in scorers]
            if given["scorers"] != scorers:
                logger.warning("the recipe was saved when %s", change.said)
    return given


def _as_it_was(scorer: Any, change: Change) -> Any:
    """Give a scorer, also inside of another, what its default was."""
    method = {"name": scorer} if isinstance(scorer, str) else scorer
    if not isinstance(method, dict) or not isinstance(held := method.get("parameters") or {}, dict):
        return scorer
    now = dict(held)
    if method.get("name") == change.scorer:
        now.setdefault(change.parameter, change.value)
    if method.get("name") == "combined" and isinstance(held.get("scorers"), list):
        now["scorers"] = [_as_it_was(part, change) for part in held["scorers"]]
    if method.get("name") == "d2" and "scorer" in held:
        now["scorer"] = _as_it_was(held["scorer"], change)
    return scorer if now == held else {**method, "parameters": now}
