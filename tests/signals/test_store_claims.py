"""Runs that compute rows of one context at the same time: each row once, whoever dies.

The runs are threads, each with a store of its own: a lock belongs to whoever opened the file, thread or process.
"""

from __future__ import annotations

import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from datapruner.files.cache import closing_digest
from datapruner.signals.store import SignalStore, claims, leases, row_keys
from datapruner.signals.store.claims import Claims
from datapruner.signals.store.index import halves
from datapruner.signals.store.shards import Shelf

CONTEXT = {"signal": "test"}
WIDTH = 2


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    monkeypatch.setattr(claims, "WAIT_SECONDS", (0.002, 0.01))
    monkeypatch.setattr(claims, "SHARE_SECONDS", 0.01)
    monkeypatch.setattr(claims, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(claims, "LEAST_ROWS", 4)


class Run:
    """Fetches rows, a few at a time, with a pause before each few; counts what it computed."""

    def __init__(self, root: Path, rows, pause: float = 0.0, before=None) -> None:
        self.root, self.rows, self.pause, self.before = root, np.asarray(rows), pause, before
        self.computed: list[int] = []
        self.calls = 0

    def compute(self, positions):
        self.calls += 1
        for some in np.array_split(positions, -(-len(positions) // 5)):
            if self.before is not None:
                self.before()
            time.sleep(self.pause)
            self.computed += self.rows[some].tolist()
            yield some, values(self.rows[some])

    def __call__(self, **options) -> Run:
        store = SignalStore(self.root, flush_rows=16)
        got = store.fetch(keys_of(self.rows), CONTEXT, WIDTH, self.compute, **options)
        np.testing.assert_array_equal(got, values(self.rows))
        assert store.computed == len(self.computed)
        return self


def values(rows) -> np.ndarray:
    return np.stack([rows, -np.asarray(rows)], axis=1).astype(np.float32)


def keys_of(rows) -> np.ndarray:
    return row_keys((f"row {row}".encode() for row in rows), CONTEXT)


def shelf(root: Path) -> Shelf:
    return Shelf.of(root / "signals", CONTEXT, WIDTH)


def leases_of(root: Path) -> list[Path]:
    return list(root.rglob("*.lease"))


def test_eight_runs_over_rows_that_overlap_compute_each_row_once(tmp_path):
    rng = np.random.default_rng(0)
    runs = [Run(tmp_path, rng.choice(500, 350, replace=False), pause=0.001) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for running in [pool.submit(run) for run in runs]:
            running.result()
    every = [row for run in runs for row in run.computed]
    assert len(every) == len(set(every)) == len(set(np.concatenate([run.rows for run in runs]).tolist()))
    assert sum(bool(run.computed) for run in runs) > 4  # and they share the work
    assert leases_of(tmp_path) == []


def test_who_comes_later_gets_a_share_of_what_is_left(tmp_path):
    begun = threading.Event()
    first = Run(tmp_path, range(600), pause=0.004, before=begun.set)
    second = Run(tmp_path, range(600), pause=0.004)
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(first)
        begun.wait(20)
        second()
        running.result()
    assert sorted(first.computed + second.computed) == list(range(600))
    assert len(second.computed) > 100


def test_what_another_run_finishes_between_a_look_and_a_claim_is_not_computed_again(tmp_path, monkeypatch):
    real = Claims.claim

    def late(held, keys):
        monkeypatch.setattr(Claims, "claim", real)
        assert len(Run(tmp_path, range(30))().computed) == 30
        return real(held, keys)

    monkeypatch.setattr(Claims, "claim", late)
    assert sorted(Run(tmp_path, range(50))().computed) == list(range(30, 50))


def test_runs_over_other_rows_neither_wait_nor_share(tmp_path):
    begun, end = threading.Event(), threading.Event()
    first = Run(tmp_path, range(50), before=lambda: (begun.set(), end.wait(20)))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(first)
        begun.wait(20)
        assert Run(tmp_path, range(50, 300))().calls == 1
        assert not running.done()
        end.set()
        running.result()
    assert first.calls == 1


def test_rows_of_which_one_costs_as_much_as_all_are_not_shared(tmp_path):
    begun = threading.Event()
    first = Run(tmp_path, range(200), pause=0.003, before=begun.set)
    second = Run(tmp_path, range(200))
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(first, whole=True)
        begun.wait(20)
        second(whole=True)
        running.result()
    assert (first.calls, second.calls) == (1, 0)


def test_what_a_run_gives_up_another_takes_over(tmp_path):
    begun, end = threading.Event(), threading.Event()

    def fails() -> None:
        begun.set()
        end.wait(20)
        raise KeyboardInterrupt

    second = Run(tmp_path, range(100))
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(Run(tmp_path, range(100), before=fails))
        begun.wait(20)
        waiting = pool.submit(second)
        while len(leases_of(tmp_path)) < 2:
            time.sleep(0.001)
        end.set()
        with pytest.raises(KeyboardInterrupt):
            running.result()
        waiting.result()
    assert len(second.computed) == 100
    assert leases_of(tmp_path) == []


def test_runs_that_need_each_others_rows_end(tmp_path):
    """Each computes rows of one context while it computes the other's."""
    other = {"signal": "other"}
    meet = threading.Barrier(2, timeout=20)

    def run(outer, inner):
        def compute(positions):
            meet.wait()
            SignalStore(tmp_path).fetch(keys_of(range(9)), inner, WIDTH, lambda at: iter([(at, values(at))]))
            yield positions, values(positions)

        got = SignalStore(tmp_path).fetch(keys_of(range(9)), outer, WIDTH, compute)
        np.testing.assert_array_equal(got, values(range(9)))

    with ThreadPoolExecutor(2) as pool:
        for running in [pool.submit(run, CONTEXT, other), pool.submit(run, other, CONTEXT)]:
            running.result(30)


def lay(root: Path, rows, machine: str, age: float, body: bytes | None = None) -> Path:
    """A lease of somebody who holds no lock."""
    held = shelf(root)
    held.prepare(CONTEXT)
    folder = held.folder / leases.FOLDER
    folder.mkdir(exist_ok=True)
    path = folder / "0123.lease"
    if body is None:
        body = json.dumps({"machine": machine, "waits": False}).encode() + b"\n"
        body += halves(keys_of(rows))[0].astype("<u8").tobytes()
    path.write_bytes(body + closing_digest(body))
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def test_of_this_machine_the_lock_decides_and_of_others_the_deadline(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(claims, "TELL_SECONDS", 0.02)
    path = lay(tmp_path, range(10), leases._machine(), 0)
    assert len(Run(tmp_path, range(20))().computed) == 20
    assert not path.exists()
    lay(tmp_path, range(100, 110), "another", leases.LEASE_SECONDS + 1)
    assert len(Run(tmp_path, range(100, 120))().computed) == 20
    assert not caplog.records
    monkeypatch.setattr(leases, "LEASE_SECONDS", 0.3)
    lay(tmp_path, range(200, 210), "another", 0)
    start = time.monotonic()
    run = Run(tmp_path, range(200, 220))()
    assert time.monotonic() - start > 0.2
    assert sorted(run.computed) == list(range(200, 220))
    assert set(run.computed[:10]) == set(range(210, 220))  # what is free comes first
    assert "another run computes 10 rows" in caplog.text


@pytest.mark.parametrize(
    "body", [b"", b"\n", b"[]\n", b'{"machine": 3}\n', b"{" * 100_000, b'{"waits": 1}\n\0']
)
def test_a_lease_that_says_nothing_is_none(tmp_path, body):
    path = lay(tmp_path, [], "", 0, body)
    assert len(Run(tmp_path, range(9))().computed) == 9
    assert not path.exists()


def test_what_is_no_lease_is_passed_over(tmp_path):
    path = lay(tmp_path, range(9), "another", 0)
    path.write_bytes(path.read_bytes()[:-1])
    os.mkfifo(path.with_name("pipe.lease"))
    path.with_name("folder.lease").mkdir()
    assert len(Run(tmp_path, range(9))().computed) == 9
    assert sorted(path.name for path in leases_of(tmp_path)) == ["folder.lease", "pipe.lease"]


def test_where_no_lease_can_be_written_everything_is_ours(tmp_path):
    held = shelf(tmp_path)
    held.prepare(CONTEXT)
    (held.folder / leases.FOLDER).write_text("somebody's")
    assert len(Run(tmp_path, range(9))().computed) == 9


def test_a_forked_child_does_not_hold_its_parents_lease(tmp_path):
    held = shelf(tmp_path)
    held.prepare(CONTEXT)
    keys = keys_of(range(5))
    with Claims(held) as mine:
        assert mine.claim(keys).all()
        theirs = Claims(held)
        (path,) = leases_of(tmp_path)
        assert [other.name for other in theirs.others()] == [path.name]
        (begun, beginning), (end, ending) = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            os.close(ending)
            os.write(beginning, b"x")
            os.read(end, 1)  # until the parent closes its side, or ends
            os._exit(0)
        try:
            os.read(begun, 1)
            mine.lease.laid.handle.close()  # as the end of the process does
            assert theirs.others() == []
        finally:
            os.close(ending)
            os.waitpid(child, 0)


def test_a_lease_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "LEASE_SECONDS", 0.2)
    seen = []

    def look() -> None:
        (path,) = leases_of(tmp_path)
        seen.append(time.time() - path.stat().st_mtime)

    Run(tmp_path, range(150), pause=0.02, before=look)()
    assert max(seen) < 0.2 < 0.02 * len(seen)
