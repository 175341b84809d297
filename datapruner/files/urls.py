"""Addresses such as ``s3://bucket/prefix``, and texts that may quote one: no secret of theirs is shown."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from datapruner.errors import DataPrunerError
from datapruner.text import safe_text

PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "memory": "",
}
"""Protocols of object stores, and what speaks them."""
MASK = "***"
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://[^\s\"'<>]+", re.IGNORECASE)
_SECRET = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL|CONNECTION_STRING", re.IGNORECASE)
_LEAST_SECRET = 8
"""Shorter values of the environment are words, not secrets."""


def is_url(name: object) -> bool:
    """Whether a name is the address of something on an object store."""
    return isinstance(name, str) and name.partition("://")[0] in PACKAGES and "://" in name


def masked(url: str) -> str:
    """Give an address without what may be a secret: a password, and all behind a question mark."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if ":" in user:
        user = MASK
    query = f"?{MASK}" if parts.query else ""
    return f"{parts.scheme}://{user}{at}{host}{parts.path}{query}"


def without_secrets(text: str) -> str:
    """Mask the addresses in a text, and the values of the environment that are called a key, secret or token."""
    text = _ADDRESS.sub(lambda found: masked(found[0]), text)
    for name, value in os.environ.items():
        if len(value) >= _LEAST_SECRET and _SECRET.search(name) and "://" not in value:
            text = text.replace(value, MASK)
    return text


def check_url(url: str) -> None:
    """Refuse an address that carries credentials, or names no place.

    Raises
    ------
    DataPrunerError
        It does; the message does not repeat them.
    """
    parts = urlsplit(url)
    if ":" in parts.netloc.rpartition("@")[0] or parts.query or parts.fragment:
        raise DataPrunerError(
            f"{safe_text(masked(url))} carries a password or a query: credentials are read from the environment or a "
            "profile only, never from an address"
        )
    if not parts.netloc:
        raise DataPrunerError(f"{safe_text(url)} names no bucket: write {parts.scheme}://bucket/prefix")
