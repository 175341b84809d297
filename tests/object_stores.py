"""Object stores of the tests: S3 on loopback, and faults at any call of one."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from datapruner.files import objects

CALLS = ("find", "info", "cat_file", "pipe_file", "put_file", "cp_file", "rm_file")
"""What the package asks of a file system."""
KINDS = ("overloaded", "slow", "cut before", "cut after")
READ_SECONDS = 1.0
"""After which an answer is slow; an undisturbed one may take nearly as long on a machine that has much to do."""


class Faulty:
    """A file system that fails at its n-th call; counts its calls.

    An answer is lost, or never given: the call has, or has not, had its effect.
    """

    def __init__(self, real: Any, at: int = -1, kind: str = "", lasting: bool = False) -> None:
        self.real, self.at, self.kind, self.lasting = real, at, kind, lasting
        self.calls, self.counting = 0, threading.Lock()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.real, name)
        return self._failing(found) if name in CALLS else found

    def _failing(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def failing(*given: Any, **more: Any) -> Any:
            with self.counting:
                number = self.calls
                self.calls += 1
            if number != self.at and not (self.lasting and number > self.at >= 0):
                return call(*given, **more)
            if self.kind == "killed":
                raise KeyboardInterrupt
            if self.kind == "overloaded":
                raise OSError(errno.EBUSY, "Please reduce your request rate")
            if self.kind == "slow":
                raise TimeoutError
            if self.kind == "cut after":
                call(*given, **more)
            raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")

        return failing


class FaultyServer:
    """An application in front of another, which spoils its n-th answer; counts them.

    What was asked slowly takes effect all the same, after whoever asked has gone on: ``settled`` is set once it has.
    """

    def __init__(self, app: Callable[..., Any]) -> None:
        self.app, self.counting = app, threading.Lock()
        self.settled = threading.Event()
        self.settled.set()
        self.set()

    def set(self, at: int = -1, kind: str = "", seconds: float = 0.0) -> None:
        self.at, self.kind, self.seconds, self.calls = at, kind, seconds, 0

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterator[bytes] | list[bytes]:
        with self.counting:
            number, kind = self.calls, self.kind
            self.calls += 1
        if number != self.at:
            return self.app(environ, start)
        if kind == "overloaded":
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            body = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
            start("503 Slow Down", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
            return [body]
        if kind == "slow":
            self.settled.clear()
            time.sleep(self.seconds)
            try:
                return self.app(environ, start)
            finally:
                self.settled.set()
        if kind == "cut after":
            list(self.app(environ, lambda *_: None))
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        raise ConnectionAbortedError


def spoiled(
    server: FaultyServer, monkeypatch: Any, every: int, kinds: int, *folders: str
) -> Iterator[tuple[int, str]]:
    """Have every so many of the answers spoiled that a story just asked for, in so many ways, which take turns.

    Its folders are empty each time, or a listing would take longer than the one before.
    """
    monkeypatch.setattr(objects, "READ_SECONDS", READ_SECONDS)
    monkeypatch.setattr(objects, "_opened", {})
    for number in range(2, server.calls, every):
        for turn in range(kinds):
            kind = KINDS[(number // every + turn) % len(KINDS)]
            server.set()
            for folder in folders:
                objects.file_system("s3").rm(folder, recursive=True)
            server.set(number, kind, seconds=1.5 * READ_SECONDS)
            yield number, kind
            server.settled.wait()  # or what comes late would fall into the next one


@contextmanager
def s3_server() -> Iterator[FaultyServer]:
    """Serve S3 on a free port of loopback, and point the clients of this process and its children there."""
    import s3fs
    from moto.moto_api._internal.models import moto_api_backend
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, *_: object) -> None:
            pass

    app = FaultyServer(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    given = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "an-access-key-of-tests",
        "AWS_SECRET_ACCESS_KEY": "a-secret-key-of-tests",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    objects._opened.clear()
    try:
        moto_api_backend.reset()  # what an earlier server of this process held
        s3fs.S3FileSystem(skip_instance_cache=True).mkdir("bucket")
        yield app
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        objects._opened.clear()
        server.shutdown()
        serving.join()
        server.server_close()
