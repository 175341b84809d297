"""Keys of rows: what was fed to the model, and everything else that decides the result."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import numpy as np
import xxhash
from numpy.typing import NDArray

KEY_BYTES = 16

Keys = NDArray[np.bytes_]
"""Dtype S16: fixed-width bytes compare exactly (padding is part of the value) and numpy can sort them."""


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
