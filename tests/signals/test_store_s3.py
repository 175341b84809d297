"""The store on S3 itself, which a server on loopback speaks: conditional puts, cut connections, dead processes."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xxhash

from datapruner.errors import DataPrunerError
from datapruner.files import objects, retrying
from datapruner.signals.store import SignalStore, finding, leases, object_leases, row_keys, shards
from tests.object_stores import s3_server, spoiled

pytest.importorskip("moto")
pytest.importorskip("s3fs")

CONTEXT = {"signal": "test"}
WIDTH = 3


@pytest.fixture(scope="module")
def server():
    for name in ("botocore", "aiobotocore", "werkzeug"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with s3_server() as app:
        yield app


@pytest.fixture
def url(server, request, tmp_path, monkeypatch):
    """A prefix of its own, from a machine that knows nothing of it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "machine"))
    monkeypatch.setattr(retrying, "PAUSE_SECONDS", (0.001, 0.01))
    monkeypatch.setattr(object_leases, "PAUSE_SECONDS", (0.001, 0.01))
    server.set()
    yield f"s3://bucket/{xxhash.xxh3_64_hexdigest(request.node.name.encode())}"
    server.set()


def values(rows) -> np.ndarray:
    return (np.asarray(rows)[:, None] * 10 + np.arange(WIDTH)).astype(np.float32)


def fetch(root, rows, pause: float = 0.0) -> list[int]:
    """Fetch rows, hold them to what they must be, and give those that were computed."""
    rows, computed = np.asarray(rows), []

    def compute(positions):
        for some in np.array_split(positions, -(-len(positions) // 5)):
            computed.extend(rows[some].tolist())
            yield some, values(rows[some])
            time.sleep(pause)

    keys = row_keys((f"row {row}".encode() for row in rows), CONTEXT)
    got = SignalStore(root, flush_rows=10).fetch(keys, CONTEXT, WIDTH, compute)
    np.testing.assert_array_equal(got, values(rows))
    return computed


def two_sets(url: str) -> dict[str, bytes]:
    """Fetch two sets that overlap; give the shards."""
    fetch(url, range(30))
    fetch(url, range(15, 45))
    tree = objects.ObjectFolder(url).tree()
    return {name: file.parent.read(name) for name, file in tree.items() if name.endswith(".shard2")}


def leases_left(url: str) -> list[str]:
    """Give the leases that nobody removed.

    Not a lock of which the removal was spoiled: whoever wants it next takes it over, as below.
    """
    tree = objects.ObjectFolder(url).tree()
    return [name for name in tree if "/claims/" in name and not name.endswith(object_leases.LOCK)]


def test_its_shards_are_those_of_a_folder(url, tmp_path, monkeypatch):
    there = two_sets(url)
    assert leases_left(url) == []
    fetch(tmp_path / "local", range(30))
    fetch(tmp_path / "local", range(15, 45))
    local = tmp_path / "local"
    assert there == {str(path.relative_to(local)): path.read_bytes() for path in local.rglob("*.shard2")}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
    assert fetch(url, range(45)) == []


def test_a_put_under_a_condition_is_one(url):
    folder = objects.ObjectFolder(url)
    folder.create("lock", b"first")
    with pytest.raises(FileExistsError):
        folder.create("lock", b"second")
    assert folder.read("lock") == b"first"
    folder.put_bytes("empty", b"")
    assert folder.read("empty") == folder.read("lock", 7, 9) == b""
    assert folder.discard("lock")
    assert folder.discard("lock")
    with pytest.raises(FileNotFoundError):
        folder.read("lock")
    with pytest.raises(DataPrunerError, match="s3://elsewhere/x cannot be written: there is no such bucket"):
        objects.ObjectFolder("s3://elsewhere/x").put_bytes("a", b"")


def test_large_files_are_put_in_parts_and_read_by_ranges(url, tmp_path, monkeypatch):
    monkeypatch.setattr(finding, "LEAST_SHARDS", 1)
    for name in ("PUT_BYTES", "WHOLE_BYTES", "HEAD_BYTES"):
        monkeypatch.setattr(objects, name, 64)
    there = two_sets(url)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
    assert fetch(url, range(45)) == []
    for name in ("PUT_BYTES", "WHOLE_BYTES", "HEAD_BYTES"):
        monkeypatch.setattr(objects, name, 1 << 20)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a third"))
    assert two_sets(f"{url}/whole") == there


def test_a_forked_child_has_a_client_of_its_own(url):
    folder = objects.ObjectFolder(url)
    folder.put_bytes("parents", b"1")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(30)  # where it hangs
            folder.put_bytes("childs", b"2")
            code = set(folder.tree()) != {"parents", "childs"}
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert folder.read("childs") == b"2"


def test_what_a_user_set_for_the_client_stays(url, monkeypatch):
    import fsspec

    monkeypatch.setitem(
        fsspec.config.conf, "s3", {"config_kwargs": {"read_timeout": 5, "retries": {"mode": "x"}}}
    )
    monkeypatch.setattr(objects, "_opened", {})
    given = objects.file_system("s3").config_kwargs
    assert given == {
        "connect_timeout": objects.CONNECT_SECONDS,
        "read_timeout": 5,
        "retries": {"total_max_attempts": 1},
    }


@pytest.mark.faults
def test_every_answer_may_be_spoiled(server, url, tmp_path, monkeypatch):
    monkeypatch.setattr(finding, "LEAST_SHARDS", 1)
    monkeypatch.setattr(object_leases, "LOCK_SECONDS", 0.2)
    logging.disable(logging.CRITICAL)
    try:
        server.set()
        wanted, points = two_sets(url), 0
        for number, kind in spoiled(server, monkeypatch, 1, 2, url):
            shards.BARRED.clear()
            monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"machine {number} {kind}"))
            assert two_sets(url) == wanted, (number, kind)
            points += server.calls > number  # on a slow machine one more or less is asked
            server.settled.wait()
            if kind == "slow" and leases_left(url):  # put once more after it was removed: gone with its time
                with monkeypatch.context() as later:
                    later.setattr(leases, "LEASE_SECONDS", -60.0)
                    fetch(url, range(45, 50))
            assert leases_left(url) == [], (number, kind)
        assert points >= 100
    finally:
        logging.disable(logging.NOTSET)


DYING = """
import os, signal, sys, numpy as np
from datapruner.signals.store import SignalStore, object_leases
from tests.signals.test_store_s3 import fetch
def die(*_, **__):
    print("holds", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "the lock":
    object_leases.ObjectLeases.lay = die
else:
    from datapruner.signals.store.claims import Claims
    Claims.came = die
fetch(sys.argv[1], range(20))
"""


@pytest.mark.faults
@pytest.mark.parametrize("held", ["the lock", "a lease"])
def test_what_a_killed_process_held_is_taken_over_within_its_deadline(url, held, monkeypatch):
    monkeypatch.setattr(object_leases, "LOCK_SECONDS", 0.5)
    monkeypatch.setattr(leases, "LEASE_SECONDS", 2.0)
    root = Path(__file__).parents[2]
    ran = subprocess.run(
        [sys.executable, "-c", DYING, url, held],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (-signal.SIGKILL, "holds\n"), ran.stderr
    folder = next(iter(objects.ObjectFolder(url).tree())).rpartition("/")[2]
    assert folder == object_leases.LOCK if held == "the lock" else folder.endswith(leases.SUFFIX)
    start = time.monotonic()
    assert len(fetch(url, range(20))) == 20
    assert time.monotonic() - start < 30
    assert not [name for name in objects.ObjectFolder(url).tree() if "/claims/" in name]


def test_a_whole_run_over_it_gives_the_same_bytes_and_no_secret(url, tiny_llama, tmp_path, monkeypatch):
    import datapruner as dp

    rows = [{"instruction": f"Say {row}.", "output": f"{row} " * (1 + row % 5)} for row in range(24)]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    trees = []
    for name, where in (("disk", tmp_path / "disk cache"), ("s3", url), ("another", url)):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        chosen = dp.prune(
            str(source),
            scorer="ifd",
            model=str(tiny_llama),
            keep=0.5,
            cache=where,
            progress=False,
            max_length=60,
        )
        chosen.save(tmp_path / f"out {name}")
        out = tmp_path / f"out {name}"
        trees.append(
            {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
        )
    assert trees[0] == trees[1] == trees[2]
    for secret in (b"an-access-key-of-tests", b"a-secret-key-of-tests", b"s3://"):
        assert not [name for name, data in trees[1].items() if secret in data]
    assert any(name.endswith(".shard2") for name in objects.ObjectFolder(url).tree())
