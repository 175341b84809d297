"""Calls to a store on the network, made again where they fail for a moment."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from datapruner.errors import DataPrunerError
from datapruner.files.urls import without_secrets
from datapruner.text import safe_text

T = TypeVar("T")

ATTEMPTS = 8
PAUSE_SECONDS = 0.25, 20.0
"""Before the second attempt at most, and before any: it doubles, and a random part of it is waited."""
_PASSING = (408, 425, 429)
_CUT = {
    "ClientError",  # aiohttp's; botocore's carries a status
    "ConnectionError",
    "HTTPClientError",
    "IncompleteRead",
    "ResponseParserError",
    "ServiceRequestError",
    "ServiceResponseError",
    "TransportError",
}
"""Names of what the clients raise where a connection is cut: their packages need not be there."""
_LASTING = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
_NEVER = (None, errno.ENOSYS, errno.EINVAL, errno.ENOSPC, errno.EROFS, errno.ENAMETOOLONG)


def retried(what: str, call: Callable[[], T]) -> T:
    """Call, and again where it fails for a moment, after pauses that double.

    Parameters
    ----------
    what : str
        The store, for the message.
    call : callable

    Returns
    -------
    What ``call`` returns.

    Raises
    ------
    DataPrunerError
        It failed every time; what does not pass by waiting is raised as it is.
    """
    for attempt in range(ATTEMPTS):
        try:
            return call()
        except Exception as error:
            if not is_passing(error):
                raise
            if attempt == ATTEMPTS - 1:
                raise DataPrunerError(
                    f"{what} does not answer ({ATTEMPTS} attempts): {reason_of(error)}; what was computed is kept as "
                    "far as it was written, and the same command goes on from there"
                ) from None
        time.sleep(random.random() * min(PAUSE_SECONDS[0] * 2**attempt, PAUSE_SECONDS[1]))  # noqa: S311
    raise AssertionError


def is_passing(error: Exception) -> bool:
    """Whether an error may be gone with the next attempt: an overloaded server, a timeout, a cut connection."""
    if isinstance(error, (TimeoutError, ConnectionError)):
        return True
    status = status_of(error)
    if status is not None:
        return status in _PASSING or (status >= 500 and status != 501)
    if isinstance(error, OSError) and not isinstance(error, _LASTING) and error.errno not in _NEVER:
        return True
    return any(kind.__name__ in _CUT for cause in _causes(error) for kind in type(cause).__mro__)


def status_of(error: BaseException) -> int | None:
    """Give the HTTP status that a client's error carries, in the place where each client has it."""
    for cause in _causes(error):
        answer = getattr(cause, "response", None)
        told = answer.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(answer, dict) else None
        for status in (told, *(getattr(cause, name, None) for name in ("status_code", "status", "code"))):
            if isinstance(status, int) and 100 <= status < 600:
                return status
    return None


def reason_of(error: BaseException) -> str:
    """Say what failed, in one line without secrets."""
    said = without_secrets(str(error)).strip() or "no reason given"
    return safe_text(f"{type(error).__name__}: {said}", 200)


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    for _ in range(8):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__ or cause.__context__
