"""Time and memory for programs of somebody else's: chat templates, configurations, tokenizers.

What runs in Python is stopped in this process. What a library in Rust or C does without end is tried out in a child
with limits first, where the system has forks (Linux).
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import select
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from datapruner.errors import DataPrunerError
from datapruner.text import safe_text

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

SECONDS = 7.0
BYTES = 1 << 30
CHILD_BYTES = 2 << 30
"""Beyond what the process has already; a child loads a tokenizer, whose tables may be large."""
OURS = (__file__, contextlib.__file__)
PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096

_memory = threading.Lock()
_inside: list[tuple[int, int] | None] = []
"""An entry for every block under way, in whichever thread; the first holds the process's limits as they were."""


class _Late(BaseException):  # no Exception, which programs and libraries catch
    pass


@contextmanager
def bounded(what: str, seconds: float = SECONDS) -> Iterator[None]:
    """Stop Python code after a while, or where it wants too much memory.

    Time is watched in the main thread of systems with alarms, unless somebody else has set one; memory on Linux.

    Parameters
    ----------
    what : str
        What is running, for the sentence: ``the chat template``.
    seconds : float, optional

    Raises
    ------
    DataPrunerError
        It took longer, or memory did not suffice.
    """
    late = False

    def ring(_: int, frame: FrameType | None) -> None:
        nonlocal late
        late = True
        # A last long step in C ends on the way out, where nobody would catch it.
        if frame is None or frame.f_code.co_filename not in OURS:
            raise _Late

    main = threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer")
    timed = main and signal.getitimer(signal.ITIMER_REAL)[0] == 0
    before = signal.signal(signal.SIGALRM, ring) if timed else None
    with _memory:  # the limit is the process's: whoever comes first sets it, and the last one lifts it
        _inside.append(None if _inside else _limit(BYTES))
    try:
        if timed:
            signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
        if late:
            raise _Late
    except _Late:
        raise DataPrunerError(f"{what} takes longer than {seconds:g} s, and may be without end") from None
    except MemoryError:
        raise DataPrunerError(f"{what} takes more than {BYTES >> 30} GB of memory") from None
    finally:
        if timed:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        with _memory:
            first = _inside[0]
            _inside.pop()
            if first is not None and not _inside:
                resource.setrlimit(resource.RLIMIT_DATA, first)


def _limit(more: int) -> tuple[int, int] | None:
    """Let this process have so many bytes more than it has; give the limits before, None where there are none."""
    if sys.platform != "linux":
        return None
    try:
        handle = os.open("/proc/self/statm", os.O_RDONLY)  # for every row: nothing slower
        data = int(os.read(handle, 200).split()[5]) * PAGE
        os.close(handle)
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = data + more
        if any(limit != resource.RLIM_INFINITY and limit < wanted for limit in (soft, hard)):
            return None
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
    except (OSError, ValueError, IndexError):
        return None
    return soft, hard


def asked(tokenizer: Any, texts: list[str], **options: Any) -> Any:
    """Give a tokenizer's answer; what it cannot read is a sentence, whatever its library raises.

    Raises
    ------
    DataPrunerError
        It raised anything.
    """
    try:
        return tokenizer(texts, **options)
    except Exception as error:
        reason = safe_text(str(error), 120)
        raise DataPrunerError(
            f"the tokenizer cannot read a text, or what the chat template makes of it ({reason}); is it whole?"
        ) from error


def tried(what: str, run: Callable[[], None], seconds: float = SECONDS) -> None:
    """Run something in a child with limits, and refuse it where it dies of them; elsewhere than on Linux, nothing.

    What it raises, it will raise here too, and is passed over.

    Parameters
    ----------
    what : str
        For the sentence: ``the tokenizer 'x'``.
    run : callable
        Its libraries are imported already; it uses no GPU.
    seconds : float, optional
        Of processor time.

    Raises
    ------
    DataPrunerError
        It takes too long, too much memory, or breaks the process.
    """
    if sys.platform != "linux":
        return
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads, of which the child uses none
        child = os.fork()
    if child == 0:
        _in_child(writing, run, seconds)
    os.close(writing)
    try:
        said = _said(reading, 3 * seconds)
    finally:
        os.close(reading)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        _, status, used = os.wait4(child, 0)
    if said == b"ok":
        return
    if said is None:
        if used.ru_utime < seconds / 5:  # it waited for what a fork lacks
            return
        said, status = b"", signal.SIGXCPU
    if said:
        raise DataPrunerError(f"{what} cannot be used: {safe_text(said.decode(errors='replace'), 200)}")
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if number == signal.SIGXCPU:
        raise DataPrunerError(
            f"{what} takes longer than {seconds:g} s for a short text, and may be without end"
        )
    raise DataPrunerError(
        f"{what} cannot be used: a library breaks on it, or wants more than {CHILD_BYTES >> 30} GB"
    )


def confine() -> None:
    """Give this process, which is a fork, its own signals, no terminal, no dumps, and a limit of memory."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, 0)
    faulthandler.disable()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads are the parent's
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _limit(CHILD_BYTES)


def _said(reading: int, seconds: float) -> bytes | None:
    """Read what a child says before it ends; None where it does neither."""
    until, said = time.monotonic() + seconds, b""
    while (left := until - time.monotonic()) > 0:
        if not select.select([reading], [], [], left)[0]:
            break
        part = os.read(reading, 4096)
        said += part
        if not part:
            return said
    return None


def _in_child(writing: int, run: Callable[[], None], seconds: float) -> None:
    """Run, say how it went, and leave without what a process does at its end."""
    said = b"ok"
    try:
        confine()
        used = sum(os.times()[:2])
        limit = int(used + seconds) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
        run()
    except MemoryError:
        said = f"it takes more than {CHILD_BYTES >> 30} GB of memory".encode()
    except BaseException as error:
        if type(error).__name__ == "PanicException":
            said = f"its library gives up on it ({error})".encode(errors="replace")
    with suppress(BaseException):
        os.write(writing, said[:4000])
    os._exit(0)
