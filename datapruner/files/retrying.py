"""Calls to a store on the network, made again where they fail for a moment; what it raises carries no secrets."""

from __future__ import annotations

import errno
import logging
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

logger = logging.getLogger(__name__)

Given = TypeVar("Given")

TRIES = 8
PAUSE_SECONDS = 0.25, 10.0
"""Before the second try at most, and before any: it doubles, and a random part of it is waited."""
MASK = "***"
_PASSING = (408, 425, 429)
_CUT = re.compile(
    r"Connect|Timeout|Disconnect|Payload|HTTPClient|IncompleteRead|ParserError|Service(Request|Response)"
)
"""In the names of what the clients raise where a connection is cut: their packages need not be there."""
_FINAL = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
_NEVER = (errno.ENOSYS, errno.EINVAL, errno.ENOSPC, errno.EROFS, errno.ENAMETOOLONG)
_SECRET = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL|CONNECTION_STRING", re.IGNORECASE)
_LEAST_SECRET = 8
"""Shorter values of the environment are words, not secrets."""


def retried(call: Callable[[], Given], what: str) -> Given:
    """Call, and again, later each time, where that fails for a moment; the last error is raised as it is.

    Parameters
    ----------
    call : callable
    what : str
        The store, for the log.
    """
    for number in range(TRIES):
        try:
            return call()
        except Exception as error:
            if number + 1 == TRIES or not passes(error):
                raise
            logger.info("%s: %s, tried again", what, type(error).__name__)
        time.sleep(random.random() * min(PAUSE_SECONDS[0] * 2**number, PAUSE_SECONDS[1]))  # noqa: S311
    raise AssertionError


def passes(error: BaseException) -> bool:
    """Whether an error may be gone at another try: an overloaded server, a timeout, a cut connection."""
    if isinstance(error, _FINAL):
        return False
    if isinstance(error, (TimeoutError, ConnectionError)):
        return True
    status = status_of(error)
    if status is not None:
        return status in _PASSING or (status >= 500 and status != 501)
    if isinstance(error, OSError):
        return error.errno not in _NEVER
    return any(_CUT.search(type(cause).__name__) for cause in _causes(error))


def status_of(error: BaseException) -> int | None:
    """Give the HTTP status that a client's error carries, in the place where each client has it."""
    for cause in _causes(error):
        answer = getattr(cause, "response", None)
        told = answer.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(answer, dict) else None
        for status in (told, *(getattr(cause, name, None) for name in ("status_code", "status", "code"))):
            if isinstance(status, int) and 100 <= status < 600:
                return status
    return None


def without_secrets(text: str) -> str:
    """Mask values of the environment whose name calls them a key, a secret or a token."""
    for name, value in os.environ.items():
        if len(value) >= _LEAST_SECRET and _SECRET.search(name):
            text = text.replace(value, MASK)
    return text


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    for _ in range(8):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__
