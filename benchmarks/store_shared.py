"""Eight processes over overlapping rows and one store: how many rows are computed twice, and are they right?

Each process fetches its own draw of the rows; a row takes a fixed time (it sleeps, as if it waited for its own GPU).
With ``--kills`` a random process is ended with SIGKILL every second or so and started again, and what it had computed
since its last shard counts as computed twice.

    python benchmarks/store_shared.py --rows 20000 --kills 10
    python benchmarks/store_shared.py --rows 20000 --store s3

On S3, which a server on loopback speaks, a dead process's lease is in force for ``--lease`` seconds: there, only age
tells; its requests are counted.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

CONTEXT = {"signal": "benchmark"}
WIDTH = 4
BATCH = 16


def values(rows: np.ndarray) -> np.ndarray:
    """Give what a row's values must be."""
    return (rows[:, None] + np.arange(WIDTH)).astype(np.float32)


def work(
    root: str | Path, log: Path, number: int, rows: int, share: float, pause: float, lease: float
) -> None:
    """Fetch a draw of the rows, hold them to what they must be, and log what was computed."""
    from datapruner.signals.store import SignalStore, claims, leases, row_keys

    claims.SHARE_SECONDS = 2.0  # the whole takes a minute, not a day
    leases.LEASE_SECONDS = lease
    drawn = np.random.default_rng(number).choice(rows, int(share * rows), replace=False)

    def compute(positions: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        with log.open("a") as file:
            for start in range(0, len(positions), BATCH):
                some = positions[start : start + BATCH]
                time.sleep(pause * len(some))
                file.write(" ".join(map(str, drawn[some].tolist())) + "\n")
                file.flush()
                yield some, values(drawn[some])

    store = SignalStore(root, flush_seconds=1.0)
    found = store.fetch(
        row_keys((f"row {row}".encode() for row in drawn.tolist()), CONTEXT), CONTEXT, WIDTH, compute
    )
    if not np.array_equal(found, values(drawn)):
        raise SystemExit("wrong rows")


@contextmanager
def s3() -> Iterator[Counter[str]]:
    """Serve S3 on loopback to this process and its children; count the requests."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, *_: object) -> None:
            pass

    app, requests = DomainDispatcherApplication(create_backend_app), Counter[str]()

    def counted(environ: dict[str, Any], start: Any) -> Any:
        listing = "list-type" in environ["QUERY_STRING"]
        requests["LIST" if listing else environ["REQUEST_METHOD"]] += 1
        return app(environ, start)

    server = make_server("127.0.0.1", 0, counted, threaded=True, request_handler=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "benchmark",
        "AWS_SECRET_ACCESS_KEY": "benchmark",
        "AWS_DEFAULT_REGION": "us-east-1",
        "DATAPRUNER_CACHE_KEY": "benchmark",
    }
    import s3fs

    s3fs.S3FileSystem().mkdir("bucket")
    requests.clear()
    yield requests
    server.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--share", type=float, default=0.7, help="of the rows, that each process draws")
    parser.add_argument("--pause", type=float, default=0.01, help="seconds a row")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--store", choices=("folder", "s3"), default="folder")
    parser.add_argument(
        "--lease", type=float, default=10.0, help="seconds that a dead one's lease is in force"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work is not None:
        log = given.folder / f"log-{given.work}-{os.getpid()}"
        os.environ["XDG_CACHE_HOME"] = str(given.folder / f"machine-{given.work}")
        root = "s3://bucket/cache" if given.store == "s3" else given.folder / "cache"
        work(root, log, given.work, given.rows, given.share, given.pause, given.lease)
        return
    if given.store == "s3":
        with s3() as requests:
            measure(given, requests)
    else:
        measure(given, Counter())


def measure(given: argparse.Namespace, requests: Counter[str]) -> None:
    """Run the processes to their end, and print what they did."""
    folder = Path(tempfile.mkdtemp(prefix="shared-"))
    rng = random.Random(given.seed)

    def begun(number: int) -> subprocess.Popen[bytes]:
        same = ["--rows", given.rows, "--share", given.share, "--pause", given.pause, "--folder", folder]
        same += ["--store", given.store, "--lease", given.lease]
        return subprocess.Popen([sys.executable, __file__, "--work", str(number), *map(str, same)])

    running: dict[int, subprocess.Popen[bytes]] = {}
    try:
        start = time.perf_counter()
        running |= {number: begun(number) for number in range(given.processes)}
        kills = 0
        while running:
            time.sleep(0.2)
            for number, process in list(running.items()):
                if process.poll() is not None:
                    if process.returncode:
                        raise SystemExit(f"process {number} ended with {process.returncode}")
                    del running[number]
            if running and kills < given.kills and rng.random() < 0.2:
                number = rng.choice(sorted(running))
                running[number].send_signal(signal.SIGKILL)
                running[number].wait()
                running[number] = begun(number)
                kills += 1
        seconds = time.perf_counter() - start
        logs = {path.name: path.read_text().split() for path in folder.glob("log-*")}
        every = [row for rows in logs.values() for row in rows]
        print(
            json.dumps(
                {
                    "distinct rows": len(set(every)),
                    "computed": len(every),
                    "computed twice": f"{len(every) / len(set(every)) - 1:.2%}",
                    "kills": kills,
                    "seconds": round(seconds, 1),
                    "ideal seconds": round(len(set(every)) * given.pause / given.processes, 1),
                    "leases left": left(given, folder),
                    "requests": dict(sorted(requests.items())),
                }
            )
        )
    finally:
        for process in running.values():
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def left(given: argparse.Namespace, folder: Path) -> int:
    """Count the leases that nobody gave up."""
    if given.store == "folder":
        return len(list(folder.rglob("*.lease")))
    from datapruner.files.objects import ObjectFolder

    return sum(name.endswith(".lease") for name in ObjectFolder.of("s3://bucket/cache").tree())


if __name__ == "__main__":
    main()
