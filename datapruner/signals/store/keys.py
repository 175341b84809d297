"""Keys of rows: what was fed to the model, and everything else that decides the result."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xxhash
from numpy.typing import NDArray

KEY_BYTES = 16

Keys = NDArray[np.bytes_]
"""Dtype S16: fixed-width bytes compare exactly (padding is part of the value) and numpy can sort them."""


@dataclass(frozen=True)
class Kind:
    """Records of one kind, as they are asked for.

    Attributes
    ----------
    keys : ndarray of S16, shape (n,)
        From :func:`row_keys`.
    context : mapping
        The context of the keys; names the subfolder, together with the width.
    width : int, optional
        Numbers a record; None where that differs.
    """

    keys: Keys
    context: Mapping[str, object]
    width: int | None = None

    @cached_property
    def name(self) -> str:
        """What their copy in the dataset's order is called."""
        return xxhash.xxh3_128_hexdigest(self.keys.tobytes())


def row_keys(contents: Iterable[bytes], context: Mapping[str, object]) -> Keys:
    """Hash each row's content together with the context into a 16-byte key.

    Parameters
    ----------
    contents : iterable of bytes
        What is fed to the model for each row.
    context : mapping
        Everything else that decides the result; must be JSON.

    Returns
    -------
    ndarray of S16, shape (n,)
    """
    seed = xxhash.xxh3_64_intdigest(canonical(context))
    digests = b"".join(xxhash.xxh3_128_digest(content, seed=seed) for content in contents)
    return np.frombuffer(digests, dtype=f"S{KEY_BYTES}")


def canonical(context: Mapping[str, object]) -> bytes:
    """Give a context as bytes that do not depend on the order in which it was put together."""
    return json.dumps(context, sort_keys=True).encode()
