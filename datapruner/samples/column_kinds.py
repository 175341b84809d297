"""What a column may hold, as far as its type tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

TEXT, MESSAGE, TRUTH, NUMBER, IMAGE, MEDIA, OTHER = (
    "text",
    "message",
    "truth",
    "number",
    "image",
    "media",
    "other",
)
MESSAGES, TEXTS, NUMBERS, LISTS = "messages", "texts", "numbers", "lists"
UNTYPED = "untyped"
"""JSON, or nothing but nulls."""

SAID = frozenset({TEXT, MESSAGES, MESSAGE})
TEXT_KINDS = SAID | {TEXTS, LISTS, UNTYPED}
LISTED = frozenset({MESSAGES, TEXTS, LISTS, NUMBERS})


def kinds_of(dataset: Dataset) -> dict[str, str]:
    """Tell what each column holds, from its feature and its Arrow type."""
    features = dataset.features  # asked for once: each time, those of all columns are copied
    types = features.arrow_schema.types
    return {
        name: _kind_of(feature, kind) for (name, feature), kind in zip(features.items(), types, strict=True)
    }


def _kind_of(feature: Any, kind: pa.DataType) -> str:
    inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", feature)
    # By name: what `datasets` knows of depends on its version.
    if type(inner).__name__ in ("Image", "Audio", "Video", "Pdf", "Nifti", "Mesh"):
        return IMAGE if inner is feature and type(feature).__name__ == "Image" else MEDIA
    return _kind(kind)


def _kind(kind: pa.DataType) -> str:
    import pyarrow as pa
    import pyarrow.types as t

    if is_json(kind) or t.is_null(kind):
        return UNTYPED
    if isinstance(kind, pa.BaseExtensionType):
        return OTHER
    if t.is_string(kind) or t.is_large_string(kind) or getattr(t, "is_string_view", t.is_string)(kind):
        return TEXT
    if t.is_struct(kind):
        return MESSAGE
    if t.is_boolean(kind):
        return TRUTH
    if t.is_integer(kind) or t.is_floating(kind):
        return NUMBER
    if t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind):
        within = {MESSAGE: MESSAGES, UNTYPED: MESSAGES, TEXT: TEXTS, NUMBER: NUMBERS}
        return within.get(_kind(kind.value_type), LISTS)
    return OTHER


def is_json(kind: pa.DataType) -> bool:
    """Whether a type is Arrow's JSON, which is what ``Json()`` of `datasets` is stored as."""
    import pyarrow as pa

    # Arrow knows it since version 19.
    return isinstance(kind, pa.BaseExtensionType) and kind.extension_name == "arrow.json"
