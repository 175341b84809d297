"""The default recipe, ``auto``: what is done where no scorer is named, written out before anything runs.

Five parts, each of which ``without`` leaves out by its name: leaks, copies, rules, noise, shares; where a target is
named, its rows choose in the place of the shares. What comes out is an ordinary recipe: whoever runs it, saves it or
tells of it needs to know nothing of this file. It is the one place where the default recipe is made, whichever way was
taken in: arguments, the command line, a recipe written by hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from datapruner.choices import AUTO_PARTS
from datapruner.errors import DataPrunerError
from datapruner.parameters import one_or_more
from datapruner.parts import CLEANING, built_in
from datapruner.text import did_you_mean, safe_repr

LEAKS, COPIES, RULES, NOISE, SHARES = AUTO_PARTS
STEPS: Mapping[str, tuple[str, ...]] = {
    LEAKS: ("contaminated",),
    COPIES: ("exact", "near", "semantic"),
    RULES: ("rules",),
    NOISE: ("unfit_answer", "unfinished_answer"),
}
"""Part -> the cleaning steps that are its own."""
OF_A_MODEL = frozenset({"unfinished_answer"})
"""Those that read a language model's losses, and so are left out without one."""
OF_AN_EMBEDDER = frozenset({"unfit_answer"})
"""Those that read vectors of prompts and of answers, and so are left out where vectors are given."""
DEDUP = ("exact", "near")
SCORER = "auto"
"""What shares the budget."""
NEAREST = "nearest_target"
"""What chooses instead where a target is named."""
SEMANTIC = "semantic"
"""What compares whole rows by their vectors."""
CLUSTERED, WHOLE = "prompt", "both"
"""What of a row is embedded to cluster it, and what of rows that are no prompts and answers."""
ALL_THAT_IS_LEFT = 1.0
"""The budget where none is named."""


def expanded(given: Mapping[str, Any], *, spends: bool = True) -> dict[str, Any]:
    """Write out the default recipe; what was said goes before what is default.

    Parameters
    ----------
    given : mapping
        What was said, by the names of a recipe's fields. ``cleaning`` may hold objects with a ``name``, and ``scorers``
        too, which are then what chooses in the place of the shares.
    spends : bool
        A budget is spent: all that cleaning leaves, where none is named.

    Returns
    -------
    dict
        The same with ``dedup``, ``cleaning``, ``scorers`` and ``without``, and a budget.

    Raises
    ------
    DataPrunerError
        ``without`` names no part, or one that other options ask for.
    """
    without = parts_without(given.get("without"))
    out = {**given, "without": without}
    asked_for = {LEAKS: ("decontaminate", "decontaminate_split"), COPIES: ("dedup",)}
    for part, fields in asked_for.items():
        if part in without and (field := next((name for name in fields if given.get(name)), None)):
            option = f"--{field.replace('_', '-')}"
            raise DataPrunerError(f"{option} asks for what --without={part} leaves out; give one of them")
    if given.get("dedup") is None:
        out["dedup"] = [] if COPIES in without else list(DEDUP)
        if out["dedup"]:
            # The same question about other numbers is another one, and so is what a template is filled in with.
            out |= {"near_numbers": True, "near_blanks": True}
    own = one_or_more(given.get("cleaning") or ())
    named = {_name_of(step) for step in own}
    for part in without:
        if step := next((step for step in STEPS.get(part, ()) if step in named), None):
            raise DataPrunerError(
                f"--cleaning={step} asks for what --without={part} leaves out; give one of them"
            )
    there = {*built_in(CLEANING)} - named - (OF_A_MODEL if given.get("model") is None else frozenset())
    vectors = given.get("embeddings") is not None or given.get("embedding_column") is not None
    there -= OF_AN_EMBEDDER if vectors else frozenset()
    added = [step for part in (RULES, NOISE) if part not in without for step in STEPS[part] if step in there]
    out["cleaning"] = [*added, *own]
    no_budget = not given.get("quotas") and all(given.get(name) is None for name in ("keep", "keep_tokens"))
    if not given.get("scorers"):
        seeks = given.get("target") is not None and SHARES not in without
        if seeks and spends and no_budget:
            raise DataPrunerError(
                "--target says what to look for, and nothing says how much of it to keep: give --keep or --keep-tokens"
            )
        out["scorers"] = [
            _nearest(given.get("model")) if seeks else _shares(given.get("per_group"), SHARES in without)
        ]
        whole = vectors or SEMANTIC in one_or_more(out["dedup"] or ())
        if given.get("embed") is None and out["scorers"] == [{"name": SCORER}] and not whole:
            # Read anyway for noise, and their clusters are no worse than those of whole rows.
            out["embed"] = CLUSTERED
    if spends and no_budget:
        out["keep"] = ALL_THAT_IS_LEFT
    return out


def parts_without(given: Any) -> list[str]:
    """Check the parts that are left out; in their order, each once."""
    listed = [] if given is None else one_or_more(given)
    for part in listed:
        if part not in AUTO_PARTS:
            near = did_you_mean(part, AUTO_PARTS) if isinstance(part, str) else ""
            raise DataPrunerError(
                f"--without takes {', '.join(AUTO_PARTS[:-1])} or {AUTO_PARTS[-1]}, not {safe_repr(part, 60)}.{near}"
            )
    return [part for part in AUTO_PARTS if part in listed]


def steps_of_part(cleaning: Sequence[str], part: str) -> list[str]:
    """Give the steps of a part that a recipe names under ``cleaning``."""
    return [step for step in STEPS[part] if step in cleaning]


def _shares(per_group: str | None, at_random: bool) -> dict[str, Any]:
    if at_random:
        return {"name": "random"}
    if per_group is None:
        return {"name": SCORER}
    return {"name": SCORER, "parameters": {"within": f"column:{per_group}"}}


def _nearest(model: Any) -> dict[str, Any]:
    """Look for the likes of a target: as the model sees them, and without one by the embedder's vectors."""
    return (
        {"name": NEAREST}
        if model is not None
        else {"name": NEAREST, "parameters": {"representation": "embedding"}}
    )


def _name_of(step: Any) -> Any:
    """Give the name of a step: that itself, the name with parameters, as a recipe has it, or an object."""
    if isinstance(step, Mapping):
        return step.get("name", next(iter(step), None))
    return step if isinstance(step, str) else getattr(step, "name", None)
