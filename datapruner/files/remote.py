"""Addresses of object stores: which are taken, what of them may be said, and calls that are tried again.

An address is taken only where it is written out with a known scheme (``s3://bucket/rows.jsonl``), and by whoever
asked for an address: names inside of data never reach this file.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from datapruner.errors import DataPrunerError
from datapruner.extras import how_to_install
from datapruner.files.retrying import without_secrets
from datapruner.text import safe_text

LIBRARIES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs"}
"""Scheme -> the library that reads it."""
SCHEMES = frozenset({*LIBRARIES, "memory"})
_URL = re.compile(rf"(?:{'|'.join(sorted(SCHEMES))})://")
_SHORTENED = re.compile(rf"({'|'.join(sorted(SCHEMES))}):/(?!/)")
_ANY = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_SECRET = re.compile(r"(?<=://)[^/@\s]*:[^/@\s]*@|(?<=[?&])[^\s'\"]+")


def is_url(name: str) -> bool:
    """Whether a name is an address of an object store."""
    return _URL.match(name) is not None


def address_of(path: str | Path) -> str | None:
    """Give the address that a path stands for, of which ``Path`` has left one slash; else None."""
    text = path if isinstance(path, str) else path.as_posix()
    if is_url(text):
        return text.rstrip("/")
    found = _SHORTENED.match(text)
    return f"{found[1]}://{text[found.end() :]}" if found else None


def refuse_other(name: str | Path) -> None:
    """Refuse what is written as an address and is none of an object store, before it is taken for a folder's name.

    Raises
    ------
    DataPrunerError
        It has a scheme that is not known.
    """
    text = name if isinstance(name, str) else name.as_posix()
    if _ANY.match(text) and address_of(text) is None:
        raise DataPrunerError(
            f"{label_of(text)} is no address that can be read or written (s3://, gs://, az://, abfs://); fetch what "
            "lies there, and give a path"
        )


def path_said(path: Path) -> str:
    """Give a path, or the address that it stands for, as it was written."""
    return address_of(path) or str(path)


def masked(text: str) -> str:
    """Leave the secrets of addresses out of a text: ``user:password@``, and what follows a ``?``."""
    return _SECRET.sub("***", text) if "://" in text else text


def label_of(url: str) -> str:
    """Give an address as it may be said."""
    return safe_text(masked(url), 200)


def check_url(url: str) -> str:
    """Give an address back, and refuse one that holds a secret, which a recipe would keep.

    Raises
    ------
    DataPrunerError
        It has a password, or a query.
    """
    parts = urlsplit(url)
    if ":" in parts.netloc.rpartition("@")[0] or parts.query:
        raise DataPrunerError(
            f"{label_of(url)} holds a password or a signature, which a recipe would keep; give credentials as the "
            "store's own library reads them (for S3 AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or a profile)"
        )
    if "::" in url:
        raise DataPrunerError(f"{label_of(url)} is an address within another; name one")
    if not parts.netloc and parts.scheme != "memory":
        raise DataPrunerError(f"{label_of(url)} names no bucket; write {parts.scheme}://BUCKET/PATH")
    return url


def not_installed(url: str) -> DataPrunerError:
    """Say which library an address needs, and the extra that brings it."""
    library = LIBRARIES[urlsplit(url).scheme]
    return DataPrunerError(f"{label_of(url)} needs {library}: {how_to_install(library)}")


def unreachable(url: str, error: BaseException) -> DataPrunerError:
    """Say in a sentence what an object store's library raised; secrets are left out."""
    return DataPrunerError(
        f"{label_of(url)} cannot be reached ({reason_of(error)}); check its name, the network, and the credentials"
    )


def reason_of(error: BaseException) -> str:
    """Give what an error says, in one line without secrets."""
    said = without_secrets(masked(" ".join(str(error).split())))
    return safe_text(said, 160) or type(error).__name__
