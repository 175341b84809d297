"""Names that people try first, and what they are to call instead of names that are not there."""

from __future__ import annotations

from datapruner.text import did_you_mean

INSTEAD = {
    "load_dataset": "load_samples",
    "read": "load_samples",
    "open": "load",
    "rank": "score",
    "filter": "prune",
    "curate": "prune",
    "sample": "prune",
    "subset": "prune",
    "dedup": "prune(..., dedup=True)",
    "deduplicate": "prune(..., dedup=True)",
    "decontaminate": "prune(..., decontaminate=TEST_SET)",
    "why": "explain",
    "diff": "compare",
    "heal": "prune(..., scorer='paser')",
    "recover": "prune(..., scorer='paser')",
    "push": "push_to_hub",
    "report": "prune(...).report(FILE)",
}
"""What is not there under this name, and what does it."""


def missing(name: str, known: list[str]) -> str:
    """Say that there is no such name in the package, and what to call."""
    said = f"module 'datapruner' has no attribute {name!r}"
    if name.startswith("__"):
        return said  # Python's own look-ups
    if name in INSTEAD:
        return f"{said}; call datapruner.{INSTEAD[name]}"
    return f"{said}{'.' if (near := did_you_mean(name, known)) else ''}{near}"
