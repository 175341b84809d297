"""Addresses of object stores: which are taken, what of them may be said, and calls that are tried again.

An address is taken only where it is written out with a known scheme (``s3://bucket/rows.jsonl``), and by whoever
asked for an address: names inside of data never reach this file.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from datapruner.errors import DataPrunerError
from datapruner.extras import how_to_install
from datapruner.text import safe_text

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

logger = logging.getLogger(__name__)

Given = TypeVar("Given")

LIBRARIES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs"}
"""Scheme -> the library that reads it."""
SCHEMES = frozenset({*LIBRARIES, "memory"})
_URL = re.compile(rf"(?:{'|'.join(sorted(SCHEMES))})://")
_SECRET = re.compile(r"(?<=://)[^/@\s]*:[^/@\s]*@|(?<=[?&])[^\s'\"]+")
TRIES = 6
FIRST = 0.1
"""Seconds before the second try; each wait is twice the one before."""
FINAL = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
"""Errors that another try does not mend."""
_PASSING = re.compile(
    r"Connect|Timeout|Disconnect|Payload|ServerError|SlowDown|HTTPClient|IncompleteRead|HttpError|ServiceRequest"
)
"""In the names of errors that are no `OSError`, of whichever library; what it raises is on no list."""


def is_url(name: str) -> bool:
    """Whether a name is an address of an object store."""
    return _URL.match(name) is not None


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
    if not parts.netloc and parts.scheme != "memory":
        raise DataPrunerError(f"{label_of(url)} names no bucket; write {parts.scheme}://BUCKET/PATH")
    return url


def opened_store(url: str) -> tuple[AbstractFileSystem, str]:
    """Give the file system of an address and the path in it.

    Raises
    ------
    DataPrunerError
        The address holds a secret, or the library that reads it is not installed.
    """
    import fsspec

    scheme = urlsplit(check_url(url)).scheme
    try:
        files, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        library = LIBRARIES.get(scheme, scheme)
        way = how_to_install(library) if library == "s3fs" else f"pip install {library}"
        raise DataPrunerError(f"{label_of(url)} needs {library}: {way}") from error
    except Exception as error:  # whatever the library raises where its settings are wrong
        raise unreachable(url, error) from error
    return files, path


def patiently(call: Callable[[], Given], url: str) -> Given:
    """Carry out a call to an object store, and again, later each time, where its error may pass.

    Raises
    ------
    FileNotFoundError
        Nothing is there.
    DataPrunerError
        Any other error that does not pass, in a sentence.
    """
    for number in range(TRIES):
        try:
            return call()
        except FileNotFoundError:
            raise
        except Exception as error:
            if number + 1 == TRIES or not passes(error):
                raise unreachable(url, error) from error
            logger.info("%s: %s, tried again", label_of(url), type(error).__name__)
            time.sleep(FIRST * 2**number)
    raise AssertionError


def passes(error: BaseException) -> bool:
    """Whether an error may be gone at another try."""
    if isinstance(error, FINAL):
        return False
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__) is not None and len(chain) < 5:
        chain.append(cause)
    return isinstance(error, OSError) or any(_PASSING.search(type(one).__name__) for one in chain)


def unreachable(url: str, error: Any) -> DataPrunerError:
    """Say in a sentence what an object store's library raised; secrets are left out."""
    reason = safe_text(masked(" ".join(str(error).split())), 160) or type(error).__name__
    return DataPrunerError(
        f"{label_of(url)} cannot be reached ({reason}); check its name, the network, and the credentials"
    )
