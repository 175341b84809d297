"""How a source's layout is found: what the user said first, names and types of columns second."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from datapruner.errors import DataPrunerError
from datapruner.samples.column_kinds import IMAGE, MEDIA, MESSAGES, NUMBERS, TEXT, UNTYPED, kinds_of
from datapruner.samples.layouts import LAYOUTS, ROLE_NAMES, check_roles, takes
from datapruner.samples.sample import Layout, column_list
from datapruner.text import did_you_mean, safe_text

if TYPE_CHECKING:
    from datasets import Dataset


def detect_layout(
    dataset: Dataset,
    *,
    columns: dict[str, str] | None = None,
    layout: str | None = None,
    embeddings_given: bool = False,
) -> Layout:
    """Find the layout of a dataset, from what the user said first, from names and types of columns second."""
    names = list(dataset.column_names)
    mapping = dict(columns or {})
    check_roles(mapping)
    for role, column in mapping.items():
        if column not in names:
            raise DataPrunerError(
                f"There is no column '{safe_text(column, 60)}' for the role"
                f" '{role}'.{did_you_mean(column, names)}"
                f" The columns are {column_list(names)}."
            )
    if layout is not None and layout not in LAYOUTS:
        raise DataPrunerError(
            f"There is no layout '{safe_text(layout, 60)}'.{did_you_mean(layout, LAYOUTS)}"
            f" The layouts are {', '.join(LAYOUTS)}."
        )
    kinds = kinds_of(dataset)
    tried = list(LAYOUTS) if layout is None else [layout]
    if layout is None and "image" in mapping and set(mapping) <= {"image", "label"}:
        tried.insert(0, "image")  # who names the image alone means the image
    for name in tried:
        found = _fit(name, kinds, mapping, by_name_only=layout is not None)
        if found is not None:
            if name == "embedding" and kinds[found["embedding"]] != NUMBERS:
                shown = safe_text(found["embedding"], 60)
                raise DataPrunerError(
                    f"The column '{shown}' holds no lists of numbers; map embedding to one that does."
                )
            return _layout(name, found, kinds)
    if embeddings_given and not mapping and layout in (None, "embedding"):
        return Layout("embedding", {})
    raise DataPrunerError(_nothing_fits(names, mapping, layout, _misfits(dataset, kinds)))


def other_layouts(dataset: Dataset) -> Iterator[tuple[str, list[str]]]:
    """Give the layouts of texts that a dataset's columns fit, and the columns that each needs."""
    kinds = kinds_of(dataset)
    for name, roles in LAYOUTS.items():
        found = _fit(name, kinds, {}, by_name_only=False) if roles.text else None
        if found is not None:
            yield name, [found[role] for role in roles.needs]


def _layout(name: str, found: dict[str, str], kinds: dict[str, str]) -> Layout:
    """Add the columns that are images or sounds by their type, whatever they are called."""
    roles = LAYOUTS[name]
    if not roles.text:
        return Layout(name, found, tuple(role for role in found if role == "label"))
    beside = [role for role in found if role not in roles.spoken]
    for column, kind in kinds.items():
        if kind in (IMAGE, MEDIA) and column not in found.values():
            role = column if column not in roles.meant else f"media {column}"
            found[role] = column
            beside.append(role)
    return Layout(name, found, tuple(beside), found[roles.answers or roles.needs[0]])


def _fit(
    name: str, kinds: dict[str, str], mapping: dict[str, str], *, by_name_only: bool
) -> dict[str, str] | None:
    """Return the layout's role -> column map, or None when the layout does not fit."""
    roles = LAYOUTS[name]
    meant = roles.meant
    given = {meant[role]: column for role, column in mapping.items() if role in meant}
    if len(given) < len(mapping):  # a role that it has not, or two that are one here
        return None
    found: dict[str, str] = {}
    for role in roles.roles:
        taken = {*given.values(), *found.values()}
        called = [role, *(other for other, meaning in roles.others.items() if meaning == role)]
        column = given.get(role) or next(
            (
                column
                for column in called
                if column in kinds
                and column not in taken
                and ((by_name_only and role in roles.needs) or takes(name, role, kinds[column]))
            ),
            None,
        )
        if column is not None:
            found[role] = column
        elif role in roles.needs:
            return None
    return found


def _misfits(dataset: Dataset, kinds: dict[str, str]) -> str:
    """Say of the columns that are called as text what they hold instead."""
    types = dataset.features.arrow_schema
    called = {name for roles in LAYOUTS.values() if roles.text for name in (*roles.roles, *roles.others)}
    odd = [
        f"'{safe_text(name, 60)}' holds {safe_text(str(types.field(name).type), 80)}"
        for name, kind in kinds.items()
        if name in called and kind not in (TEXT, MESSAGES, UNTYPED, IMAGE, MEDIA)
    ]
    return f"; {' and '.join(odd[:5])} where a text is needed" if odd else ""


def _nothing_fits(names: list[str], mapping: dict[str, str], layout: str | None, misfits: str) -> str:
    """Return the error message with the mapping to pass."""
    shown = f"its columns are {column_list(names)}{misfits}"
    nearest = [name for name, roles in LAYOUTS.items() if mapping and set(mapping) <= {*roles.meant}]
    if layout is not None or nearest:
        name = layout or nearest[0]
        needed = LAYOUTS[name].needs
        example = ",".join(f"{role}=COLUMN" for role in needed)
        return (
            f"The layout '{name}' needs the roles {', '.join(needed)}, and {shown}; pass --columns={example}."
        )
    if mapping:
        return (
            f"No layout has the roles {', '.join(mapping)}, and {shown}; pass the roles of one layout,"
            f" e.g. --columns=question=COLUMN,answer=COLUMN or --columns=text=COLUMN."
        )
    return (
        f"No text, conversation, image or embedding column was found: {shown}. Say which columns to read, e.g. "
        f"--columns=question=COLUMN,answer=COLUMN or --columns=text=COLUMN (roles: {', '.join(ROLE_NAMES)})."
    )
