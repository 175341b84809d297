"""Arrow's JSON values, which ``Json()`` columns of `datasets` are stored as, read as what they stand for."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from datapruner.samples.column_kinds import is_json

if TYPE_CHECKING:
    import pyarrow as pa

    Decode = Callable[[Any], Any]

SAID = ("content", "value", "text")
"""Fields of a message that hold a text, or parts of one."""

PARTS = frozenset(
    {"text", "image", "image_url", "audio", "audio_url", "video", "video_url", "file"}
    | {"input_text", "input_image", "input_audio"}
)


def decoder(kind: pa.DataType, *, text: bool) -> Decode | None:
    """Return what decodes a column's values as ``to_pylist`` gives them; None where nothing is encoded.

    Parameters
    ----------
    kind
        The column's Arrow type.
    text
        Whether a text is wanted. `datasets` stores a text that is JSON itself as it is, so that ``42`` may have
        been a number or the text: where a text is wanted it stays one, and so does an object, but not messages
        or the parts of a message.
    """
    import pyarrow.types as t

    if is_json(kind):
        return lambda value: value if value is None else _decoded(value, text)
    if t.is_struct(kind):
        inner = {
            field.name: found
            for field in kind
            if (found := decoder(field.type, text=field.name in SAID)) is not None
        }
        return _within(inner) if inner else None
    if t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind):
        each = decoder(kind.value_type, text=text)
        return (
            None if each is None else lambda value: value if value is None else [each(item) for item in value]
        )
    return None


def _within(inner: dict[str, Decode]) -> Decode:
    def decode(value: Any) -> Any:
        if value is None:
            return None
        return value | {name: each(value[name]) for name, each in inner.items()}

    return decode


def _decoded(value: str, text: bool) -> Any:
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return found if not text or isinstance(found, str) or _is_said(found) else value


def _is_said(value: Any) -> bool:
    """Whether this is messages, or the parts of one, texts among them."""
    items = value if isinstance(value, list) else [value]
    odd = [item for item in items if not isinstance(item, str)]
    return bool(odd) and all(
        isinstance(item, dict) and ("role" in item or "from" in item or str(item.get("type")) in PARTS)
        for item in odd
    )
