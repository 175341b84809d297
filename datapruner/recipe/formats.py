"""What a recipe that was saved by an earlier version meant, in today's words."""

from __future__ import annotations

import logging
from typing import Any

from datapruner.errors import DataPrunerError
from datapruner.text import safe_text

logger = logging.getLogger(__name__)

HEADER = "# datapruner run recipe.yaml\n"
FORMAT = 2
"""Of the recipes that are saved; those with the header and without a number are of format 1."""


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
    scorers = given.get("scorers")
    if number == 1 and isinstance(scorers, list):
        given["scorers"] = [_directed(scorer) for scorer in scorers]
        if given["scorers"] != scorers:
            logger.warning(
                "the recipe was saved when donod kept what lets the weights' norm grow, and runs so: don=grow; today's "
                "default is don=shrink"
            )
    return given


def _directed(scorer: Any) -> Any:
    """Give donod, also inside of combined, the direction that it had in format 1."""
    method = {"name": scorer} if isinstance(scorer, str) else scorer
    if not isinstance(method, dict) or not isinstance(held := method.get("parameters") or {}, dict):
        return scorer
    if method.get("name") == "donod" and "don" not in held:
        return {**method, "parameters": {**held, "don": "grow"}}
    if method.get("name") == "combined" and isinstance(held.get("scorers"), list):
        return {**method, "parameters": {**held, "scorers": [_directed(part) for part in held["scorers"]]}}
    return scorer
