"""What a row is besides what is said to the model: the rejected answer as text, all else by its content's hash."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

PIECE = 1 << 20
TEXTS = ("rejected",)
"""Roles beside the conversation that hold what somebody said: compared as texts are, not by their bytes."""


def said(role: str, value: Any) -> Iterator[tuple[str, str]]:
    """Give the texts of an answer that was not chosen (a text, messages, several of them), each with its place.

    Keys without a value are left out: Arrow gives every message every key.
    """
    if isinstance(value, dict):
        for key in sorted(value):
            yield from said(f"{role}.{key}", value[key])
    elif isinstance(value, list):
        yield f"{role}.length", str(len(value))
        for place, item in enumerate(value):
            yield from said(f"{role}.{place}", item)
    elif value is not None:
        yield role, value if isinstance(value, str) else repr(value)


def digest(values: Mapping[str, Any], opened: Collection[str] = ()) -> bytes:
    """Hash columns' values by their roles, whatever the columns' order: xxh3, 16 bytes.

    Images, sounds and films are what their bytes say: of ``{"bytes": ..., "path": ...}`` the path counts only where
    there are no bytes, and there the file's content where it can be read, else the path itself. Pictures of equal
    pixels in different files are different.

    Parameters
    ----------
    values
        By role.
    opened
        Roles whose paths may be opened: of any other, a path is but a text.
    """
    import xxhash

    whole = xxhash.xxh3_128()
    for role in sorted(values):
        _feed(whole, role)
        _feed(whole, values[role], role in opened)
    return whole.digest()


def _feed(whole: Any, value: Any, opened: bool = False) -> None:
    """Feed one value, led by its kind and length, so that no value can imitate two."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, dict) and {"bytes", "path"} == value.keys():
        value = _content(value, opened)
    if isinstance(value, Path):
        _feed_file(whole, value)
    elif isinstance(value, bytes):
        whole.update(b"b%d:" % len(value))
        whole.update(value)
    elif isinstance(value, str):
        encoded = value.encode("utf-8", "surrogatepass")
        whole.update(b"s%d:" % len(encoded))
        whole.update(encoded)
    elif isinstance(value, dict):
        kept = sorted(key for key, item in value.items() if item is not None)
        whole.update(b"d%d:" % len(kept))
        for key in kept:
            _feed(whole, str(key))
            _feed(whole, value[key], opened)
    elif isinstance(value, (list, tuple)):
        whole.update(b"l%d:" % len(value))
        for item in value:
            _feed(whole, item, opened)
    else:
        named = f"{type(value).__name__} {value!r}".encode()
        whole.update(b"v%d:" % len(named))
        whole.update(named)


def _content(value: dict[str, Any], opened: bool) -> Any:
    """Give the bytes of a picture or sound, or the file that they are in, or what is known of it."""
    if value["bytes"] is not None or not isinstance(value["path"], str):
        return value["bytes"]
    if not opened:
        return value["path"]
    try:
        path = Path(value["path"])
        return path if path.is_file() else value["path"]
    except (OSError, ValueError):  # no name that a file could have
        return value["path"]


def _feed_file(whole: Any, path: Path) -> None:
    try:
        with path.open("rb") as file:
            whole.update(b"b%d:" % path.stat().st_size)
            while piece := file.read(PIECE):
                whole.update(piece)
    except OSError:
        _feed(whole, str(path))
