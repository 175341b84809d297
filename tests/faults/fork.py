"""Many runs of the command line from one warm process: each is a forked child, in which one call may go wrong.

Run with the shim preloaded (`LD_PRELOAD`), every call of the C library that changes a file counts; without a compiler,
those that Python announces to audit hooks, and `os.fsync`.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

KILL, ONCE, FULL = 1, 2, 3
TIMEOUT = 60.0


class Hook:
    """The shim's two functions for Python's own calls alone."""

    EVENTS = frozenset(
        {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.utime", "os.truncate", "fsync"}
    )

    def __init__(self) -> None:
        self.folder: str | None = None
        self.calls = 0
        sys.addaudithook(self.heard)
        real = os.fsync

        def fsync(handle: int) -> None:
            self.heard("fsync", (str(Path(f"/proc/self/fd/{handle}").readlink()),))
            real(handle)

        os.fsync = fsync

    def arm(self, folder: bytes, at: int, how: int, number: int) -> None:
        self.folder, self.at, self.how, self.number, self.calls = os.fsdecode(folder), at, how, number, 0

    def counted(self) -> int:
        return self.calls

    def heard(self, event: str, given: tuple[object, ...]) -> None:
        if self.folder is None or event not in self.EVENTS:
            return
        if event == "open" and not (
            isinstance(given[2], int) and given[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        ):
            return
        paths = [os.fsdecode(path) for path in given if isinstance(path, str | bytes)]
        if not any(str(Path(path).absolute()).startswith(self.folder) for path in paths):
            return
        self.calls += 1
        room = event not in ("os.remove", "os.rmdir")
        if self.how == KILL and self.calls == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        if (self.how == ONCE and self.calls == self.at) or (
            self.how == FULL and self.calls >= self.at and room
        ):
            raise OSError(self.number, os.strerror(self.number), paths[0])


def shim() -> object:
    """The preloaded functions, or their stand-in."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "counted"):
        return Hook()
    library.arm.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int, ctypes.c_int]
    library.counted.restype = ctypes.c_long
    return library


@dataclass
class Ran:
    code: int
    said: str
    calls: int = 0
    out: bytes = b""
    megabytes: float = 0.0
    """The most memory that the child, or one of its own, held at once."""
    seconds: float = 0.0
    """Of processor time, with its children's."""

    @property
    def rude(self) -> bool:
        """A traceback, or an exit code that is none of ours."""
        return "Traceback" in self.said or self.code not in (0, 2)


class Running:
    """A child at work."""

    def __init__(self, child: int, files: list[IO[bytes]], most: float) -> None:
        self.child, self.files, self.end = child, files, time.monotonic() + most

    def ended(self) -> Ran | None:
        """How it went; None while it runs."""
        child, status, used = os.wait4(self.child, os.WNOHANG)
        if child == 0:
            if time.monotonic() > self.end:
                os.kill(self.child, signal.SIGKILL)
            return None
        for file in self.files:
            file.seek(0)
        out, said, calls = (file.read() for file in self.files)
        for file in self.files:
            file.close()
        return Ran(
            os.waitstatus_to_exitcode(status),
            said.decode("utf-8", "replace"),
            int(calls or 0),
            out,
            used.ru_maxrss / 1024,
            used.ru_utime + used.ru_stime,
        )


class Forks:
    """Runs things in children of this process."""

    def __init__(self) -> None:
        self.shim = shim()
        self.runs = 0

    def run(
        self, action: Callable[[], None], folder: Path, at: int = 0, how: int = 0, number: int = errno.EIO
    ) -> Ran:
        """Run an action in a child; its exit code, what it said on standard error, and how many calls counted."""
        child = self.start(action, folder, at, how, number)
        while (ran := child.ended()) is None:
            time.sleep(0.002)
        return ran

    def start(
        self,
        action: Callable[[], None],
        folder: Path,
        at: int = 0,
        how: int = 0,
        number: int = errno.EIO,
        most: float = TIMEOUT,
    ) -> Running:
        """Let a child run an action, for so many seconds at most."""
        self.runs += 1
        sys.stdout.flush()
        out, said, calls = files = [tempfile.TemporaryFile() for _ in range(3)]  # noqa: SIM115
        child = os.fork()
        if child == 0:
            self._child(action, folder, at, how, number, out.fileno(), said.fileno(), calls.fileno())
        return Running(child, files, most)

    def _child(
        self,
        action: Callable[[], None],
        folder: Path,
        at: int,
        how: int,
        number: int,
        out: int,
        said: int,
        calls: int,
    ) -> None:
        code = 70
        try:
            redirect(out, said)
            self.shim.arm(os.fsencode(folder), at, how, number)
            code = done(action)
            os.write(calls, str(self.shim.counted()).encode())
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code & 0xFF)


def redirect(out: int, said: int) -> None:
    """Let this child write to files: what it prints, and what it says on standard error."""
    os.dup2(out, 1)
    os.dup2(said, 2)
    sys.stdout, sys.stderr = (os.fdopen(of, "w", encoding="utf-8", closefd=False) for of in (1, 2))


def done(action: Callable[[], None]) -> int:
    """Carry an action out, and give the exit code that Python would end with."""
    try:
        action()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        return 1
    return 0


def command(*words: object) -> Callable[[], None]:
    """The command line as an action."""

    def action() -> None:
        from datapruner.cli import main

        sys.argv = ["datapruner", *map(str, words)]
        main()

    return action


def tree(folder: Path) -> dict[str, str] | None:
    """What lies in a folder, by its digests; None where there is none."""
    if not folder.exists():
        return None
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
