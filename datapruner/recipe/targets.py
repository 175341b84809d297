"""Targets: sets of rows whose likes are looked for, one a task, and what is said of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from datapruner.errors import DataPrunerError
from datapruner.files.paths import exists, expanded
from datapruner.text import did_you_mean, safe_repr, safe_text

if TYPE_CHECKING:
    from datapruner.recipe.options import Target

ONLY = "target"
"""What the task is called where there is but one, and it has no name."""
OF_A_TASK = ("target_split", "target_columns", "target_embeddings", "target_share")
"""Fields that may say something of every task apart."""


class Task(NamedTuple):
    """A task: where its rows are, and how they are read.

    Attributes
    ----------
    name : str
    source : str
    split, columns, embeddings
        As of a source; None where nothing is said.
    share : float
        How its part of the rows is to that of the others.
    key : str
        What its content is noted under.
    called : str
        In a sentence.
    """

    name: str
    source: str
    split: str | None
    columns: dict[str, str] | None
    embeddings: str | None
    share: float
    key: str
    called: str


def named_targets(given: Any) -> Any:
    """Read what is given as target: a source, several, or a task's name with each.

    Parameters
    ----------
    given : str, list of str, mapping or anything
        Each text may be ``task=source``. What is none of these is left as it is, for whoever refuses it.

    Returns
    -------
    str or dict of str to str or anything
        A single source without a name stays a text.
    """
    if isinstance(given, Path):
        given = str(given)
    if isinstance(given, Mapping):
        if not given:
            raise DataPrunerError("--target names no set; leave it out, or name one: math=dev.jsonl")
        if nested := next((name for name, of in given.items() if isinstance(of, Mapping)), None):
            raise DataPrunerError(
                f"--target: the task '{safe_text(str(nested), 60)}' names its source alone; what else is said of it "
                "stands under its name in --target-split, --target-columns, --target-embeddings and --target-share"
            )
        return {str(name): str(of) if isinstance(of, Path) else of for name, of in given.items()}
    listed = list(given) if isinstance(given, list | tuple) else [given]
    listed = [str(one) if isinstance(one, Path) else one for one in listed]
    if isinstance(given, list | tuple) and not listed:
        raise DataPrunerError("--target names no set; leave it out, or name one: math=dev.jsonl")
    if not all(isinstance(one, str) for one in listed):
        return given
    pairs = [_split(one) for one in listed]
    if len(pairs) == 1 and pairs[0][0] is None:
        return pairs[0][1]
    out: dict[str, str] = {}
    for name, source in pairs:
        own = _stem(source) if name is None else name
        if own in out:
            raise DataPrunerError(
                f"two targets are called '{safe_text(own, 60)}'; give each a name of its own: "
                f"--target {safe_text(own, 60)}2={safe_text(source, 100)}"
            )
        out[own] = source
    return out


def _split(text: str) -> tuple[str | None, str]:
    """Take the name off ``task=source``; a path may have a = too."""
    name, equals, source = text.partition("=")
    if (
        not equals
        or not name
        or not source
        or any(mark in name for mark in "/\\.*?[:@")
        or exists(expanded(Path(text)))
    ):
        return None, text
    return name, source


def _stem(source: str) -> str:
    """Make a name of a source: of a path or a hub name the last part, without what follows a dot, a colon or an @."""
    last = source.rstrip("/\\").replace("\\", "/").rpartition("/")[2]
    for mark in ".:@":
        last = last.partition(mark)[0] or last
    return last or source


def each_source(value: Any, make: Callable[[str], str]) -> Any:
    """Rewrite what a field names: one thing, several, or one for every task."""
    if isinstance(value, str):
        return make(value)
    if isinstance(value, Mapping):
        return {name: each_source(of, make) for name, of in value.items()}
    return [each_source(of, make) for of in value] if isinstance(value, list) else value


def sources_in(value: Any) -> list[str]:
    """Give all that a field names."""
    if isinstance(value, list):
        return list(value)
    return [value] if isinstance(value, str) else list(value.values()) if isinstance(value, Mapping) else []


def check_tasks(of: Target) -> None:
    """Refuse what is said of tasks that are not there, and shares that are none.

    Raises
    ------
    DataPrunerError
    """
    names = set(of.target) if isinstance(of.target, dict) else set()
    for field in OF_A_TASK:
        option = f"--{field.replace('_', '-')}"
        said = getattr(of, field)
        apart = isinstance(said, dict) and (
            field != "target_columns" or any(isinstance(one, dict) for one in said.values())
        )
        if not apart:
            continue
        if field == "target_columns" and not all(isinstance(one, dict) for one in said.values()):
            raise DataPrunerError(
                f"{option} says something of all tasks and something of one; write --target-columns "
                "TASK:ROLE=COLUMN for each"
            )
        if unknown := [name for name in said if name not in names]:
            there = ", ".join(sorted(names)) or "no task: name one with --target TASK=SOURCE"
            raise DataPrunerError(
                f"{option} names a task '{safe_text(str(unknown[0]), 60)}', and there is {safe_text(there, 200)}."
                f"{did_you_mean(str(unknown[0]), sorted(names))}"
            )
    shares = of.target_share or {}
    for name, share in shares.items():
        if not (math.isfinite(share) and share >= 0):
            raise DataPrunerError(
                f"--target-share {safe_text(str(name), 60)}={safe_repr(share, 40)}: a share is 0 or more, and counts "
                "beside those of the other tasks"
            )
    if names and all(shares.get(name, 1) == 0 for name in names):
        raise DataPrunerError(
            "--target-share gives every task 0; a task that is to choose rows needs a share above 0"
        )


def tasks_of(of: Target) -> list[Task]:
    """Give the tasks of a recipe in their order; none where no target is named."""
    if of.target is None:
        return []
    named = of.target if isinstance(of.target, dict) else {ONLY: of.target}
    alone = not isinstance(of.target, dict)

    def own(field: str, name: str) -> Any:
        said = getattr(of, field)
        if not isinstance(said, dict):
            return said
        if field == "target_columns" and not any(isinstance(one, dict) for one in said.values()):
            return said
        return said.get(name)

    return [
        Task(
            name,
            str(source),
            own("target_split", name),
            own("target_columns", name),
            own("target_embeddings", name),
            float((of.target_share or {}).get(name, 1)),
            "target" if alone else f"target {name}",
            "the target" if alone else f"the target '{safe_text(name, 60)}'",
        )
        for name, source in named.items()
    ]
