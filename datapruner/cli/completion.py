"""What a shell completes an option with."""

from __future__ import annotations

from collections.abc import Callable

from datapruner.recipe.option import Declared, values_of


def completion(one: Declared) -> Callable[[str], list[str]]:
    """Give what typer asks for the values of an option that begin like a word; given none, a shell completes files."""

    def begun(incomplete: str) -> list[str]:
        return [name for name in names(one) if name.startswith(incomplete)]

    return begun


def names(one: Declared) -> list[str]:
    """Give the names that an option may have as its value: parts, bundled models, or the values of its type."""
    from datapruner.parts import KINDS, available

    if one.option.complete in KINDS:
        return list(available(KINDS[one.option.complete]))
    if one.option.complete == "models":
        from datapruner.models.offline import MODELS

        return list(MODELS)
    return list(values_of(one.type))
