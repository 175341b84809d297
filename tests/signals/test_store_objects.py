"""The store on an object store: the same rows as on a disk, whatever call fails and whoever dies."""

from __future__ import annotations

import itertools
import logging
import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from datapruner.cli.keeping import carry_out
from datapruner.errors import DataPrunerError
from datapruner.files import cache, objects, retrying
from datapruner.signals.store import (
    SignalStore,
    claims,
    finding,
    index,
    leases,
    object_leases,
    row_keys,
    shards,
    store,
)
from datapruner.signals.store.claims import Claims
from datapruner.signals.store.index import halves
from datapruner.signals.store.leases import lease_bytes
from datapruner.signals.store.shard_format import joined
from datapruner.signals.store.shards import Shelf
from datapruner.signals.store.upkeep import survey
from tests.object_stores import KINDS, Faulty

CONTEXT = {"signal": "test"}
WIDTH = 3
URL = "memory://bucket/prefix"


@pytest.fixture(autouse=True)
def far(monkeypatch, tmp_path):
    """An empty store, and machines that know nothing of it."""
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
    monkeypatch.setattr(objects, "_opened", {})
    for name, value in (("ASIDE", {}), ("BARRED", set()), ("TOLD", set())):
        monkeypatch.setattr(shards, name, value)
    monkeypatch.setattr(store, "UNKEYED", set())
    monkeypatch.setattr(retrying, "PAUSE_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(object_leases, "PAUSE_SECONDS", (0.001, 0.01))
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    monkeypatch.setattr(claims, "WAIT_SECONDS", (0.002, 0.01))
    monkeypatch.setattr(claims, "SHARE_SECONDS", 0.01)
    monkeypatch.setattr(claims, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(claims, "LEAST_ROWS", 4)
    monkeypatch.delenv(cache.KEY, raising=False)
    monkeypatch.delenv("DATAPRUNER_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "machine"))


@pytest.fixture
def another_machine(monkeypatch, tmp_path):
    """Forget what lies on this machine."""
    numbers = itertools.count()
    return lambda: monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"machine {next(numbers)}"))


def keys_of(rows) -> np.ndarray:
    return row_keys((f"row {row}".encode() for row in rows), CONTEXT)


def values(rows) -> np.ndarray:
    return (np.asarray(rows)[:, None] * 10 + np.arange(WIDTH)).astype(np.float32)


def fetch(root, rows, *, pause: float = 0.0) -> list[int]:
    """Fetch rows, hold them to what they must be, and give those that were computed."""
    rows, computed = np.asarray(rows), []

    def compute(positions):
        for some in np.array_split(positions, -(-len(positions) // 5)):
            time.sleep(pause)
            computed.extend(rows[some].tolist())
            yield some, values(rows[some])

    got = SignalStore(root, flush_rows=10).fetch(keys_of(rows), CONTEXT, WIDTH, compute)
    np.testing.assert_array_equal(got, values(rows))
    return computed


def stored() -> dict[str, bytes]:
    return {name: file.getvalue() for name, file in MemoryFileSystem.store.items()}


def shelf() -> Shelf:
    store = SignalStore(URL)
    return Shelf.of(store.folder, CONTEXT, WIDTH, store.far)


def said(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_its_files_are_those_of_a_folder(tmp_path, another_machine, monkeypatch):
    monkeypatch.setattr(finding, "LEAST_SHARDS", 1)
    for root in (URL, tmp_path / "local"):
        assert len(fetch(root, range(40))) == 40
        assert fetch(root, range(20, 55)) == list(range(40, 55))
        assert fetch(root, range(40)) == []
    base = tmp_path / "local"
    local = {str(path.relative_to(base)): path.read_bytes() for path in base.rglob("*") if path.is_file()}
    there = {name.removeprefix("/bucket/prefix/"): data for name, data in stored().items()}
    copies = {name for name in local if Path(name).suffix in (".rows", ".sum")}
    assert there == {name: data for name, data in local.items() if name not in copies}
    assert {Path(name).suffix for name in there} == {".shard2", ".index", ".json"}
    machine = tmp_path / "machine" / "datapruner" / "stores"
    (beside,) = machine.iterdir()
    assert {str(path.relative_to(beside)) for path in beside.rglob("*") if path.is_file()} == copies
    another_machine()
    assert fetch(URL, range(55)) == []


def test_a_run_costs_so_many_requests(monkeypatch, another_machine):
    """As docs/object_stores.md has it: n shards that are computed, read elsewhere, and mapped."""
    calls = Faulty(MemoryFileSystem())
    monkeypatch.setattr(objects, "file_system", lambda protocol: calls)
    monkeypatch.setattr(claims, "SHARE_SECONDS", 1000.0)  # nobody looks whether others wait
    fetch(URL, range(40))
    shards = len(shelf().shards())
    assert calls.calls <= 8 + 3 * shards + 2
    calls.calls = 0
    assert fetch(URL, range(40)) == []
    assert calls.calls == 0
    another_machine()
    assert fetch(URL, range(40)) == []
    assert calls.calls == 1 + 2 * shards


def test_an_index_is_read_by_the_blocks_that_may_hold_a_row(another_machine, monkeypatch):
    monkeypatch.setattr(finding, "LEAST_SHARDS", 1)
    monkeypatch.setattr(index, "BLOCK_ENTRIES", 4)
    monkeypatch.setattr(objects, "HEAD_BYTES", 64)
    monkeypatch.setattr(objects, "WHOLE_BYTES", 64)
    fetch(URL, range(400))
    fetch(URL, [0])
    read, real = [], objects.ObjectFile.read

    def counted(file, begin, end):
        read.append((file.suffix, end - begin))
        return real(file, begin, end)

    monkeypatch.setattr(objects.ObjectFile, "read", counted)
    assert SignalStore(URL).missing(keys_of([7, 1000]), CONTEXT, WIDTH) == 1
    assert {suffix for suffix, _ in read} == {".index"}
    size = sum(file.size for file in shelf().files().values() if file.suffix == ".index")
    assert sum(length for _, length in read) < size
    another_machine()
    assert fetch(URL, range(100, 300)) == []  # by ranges of shards too


def test_ranges_that_lie_near_each_other_are_one_request():
    assert joined([(0, 1), (3, 4), (5, 6), (30, 31)], 2) == [(0, 6), (30, 31)]
    assert joined([], 2) == []


def test_a_damaged_file_is_said_and_its_rows_are_computed_again(another_machine, monkeypatch, caplog):
    fetch(URL, range(40))
    for place in (0.0, 0.4, 0.99):
        name = next(name for name in stored() if name.endswith(".shard2"))
        raw = bytearray(stored()[name])
        raw[int(place * len(raw))] ^= 16
        MemoryFileSystem().pipe_file(name, bytes(raw))
        another_machine()
        assert len(fetch(URL, range(40))) == 10
    for wrong in (b"", b"x" * 9):
        name = next(name for name in stored() if name.endswith(".shard2"))
        MemoryFileSystem().pipe_file(name, wrong)
        another_machine()
        assert len(fetch(URL, range(40))) == 10
    assert sum("damaged" in sentence for sentence in said(caplog)) == 5


def test_without_a_key_it_is_said_once_and_with_one_nothing_planted_is_taken(
    another_machine, monkeypatch, caplog
):
    fetch(URL, range(20))
    fetch(URL, range(30))
    (sentence,) = said(caplog)
    assert cache.KEY in sentence
    monkeypatch.setenv(cache.KEY, "mine")
    another_machine()
    assert len(fetch(URL, range(20))) == 20
    keyed = cache.keyed("signals")
    for name, data in stored().items():  # somebody without the key plants what would hold without it
        if "/signals/" in name:
            MemoryFileSystem().pipe_file(name.replace("/signals/", f"/{keyed}/"), data)
    for name in stored():
        if f"/{keyed}/" in name and name.replace(f"/{keyed}/", "/signals/") not in stored():
            MemoryFileSystem().rm_file(name)
    another_machine()
    assert len(fetch(URL, range(20))) == 20
    assert sum(cache.KEY in sentence for sentence in said(caplog)) == 1


def test_what_cannot_be_written_is_read_and_the_rest_computed(monkeypatch, caplog):
    fetch(URL, range(20))
    before = stored()

    def denied(*_, **__):
        raise PermissionError("Access Denied")

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", denied)
    assert fetch(URL, range(30)) == list(range(20, 30))
    assert fetch(URL, range(31)) == [30]
    assert sum("cannot be written" in sentence for sentence in said(caplog)) == 1
    assert stored() == before


def test_eight_runs_over_rows_that_overlap_compute_few_twice():
    rng = np.random.default_rng(0)
    every = [rng.choice(500, 350, replace=False) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        computed = [
            running.result() for running in [pool.submit(fetch, URL, rows, pause=0.003) for rows in every]
        ]
    distinct = set(np.concatenate(every).tolist())
    together = [row for rows in computed for row in rows]
    assert set(together) == distinct
    assert len(together) < 1.05 * len(distinct)
    assert sum(map(bool, computed)) > 4
    assert not [name for name in stored() if "/claims/" in name]


def lay(rows) -> str:
    """A lease of somebody who is gone."""
    folder = shelf().place.folder / leases.FOLDER
    folder.put_bytes("gone.lease", lease_bytes("", halves(keys_of(rows))[0], waits=False))
    return "gone.lease"


def test_a_lease_left_behind_is_taken_over_within_its_deadline(monkeypatch):
    monkeypatch.setattr(leases, "LEASE_SECONDS", 0.4)
    lay(range(10))
    start = time.monotonic()
    computed = fetch(URL, range(20))
    assert 0.3 < time.monotonic() - start < 20
    assert set(computed[:10]) == set(range(10, 20))  # what is free comes first
    assert not [name for name in stored() if "/claims/" in name]


def test_the_stores_clock_decides_not_ours(monkeypatch):
    """Its own is an hour ahead, or behind: a lease that was just put is in force all the same."""
    real = objects._moment
    for ahead in (3600, -3600):
        monkeypatch.setattr(objects, "_moment", lambda info, ahead=ahead: real(info) + ahead)
        lay(range(10))
        with Claims(shelf()) as mine:
            ours = mine.claim(keys_of(range(20)))
            assert (ours[:10].any(), ours[10:].any()) == (False, True)
        monkeypatch.setattr(leases, "LEASE_SECONDS", 0.0)
        with Claims(shelf()) as mine:
            assert mine.claim(keys_of(range(20))).all()
        monkeypatch.setattr(leases, "LEASE_SECONDS", 600.0)


def test_a_lock_left_behind_is_taken_over_within_its_deadline(monkeypatch):
    monkeypatch.setattr(object_leases, "LOCK_SECONDS", 0.3)
    folder = shelf().place.folder / leases.FOLDER
    folder.create(object_leases.LOCK, b"somebody who is gone")
    start = time.monotonic()
    assert len(fetch(URL, range(20))) == 20
    assert 0.25 < time.monotonic() - start < 20
    assert folder.tree() == {}


def test_one_lock_is_held_by_one():
    folder, inside, most = shelf().place.folder / leases.FOLDER, [], []

    def hold() -> None:
        for _ in range(5):
            with object_leases.ObjectLeases(folder).locked():
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.001)
                inside.pop()

    with ThreadPoolExecutor(4) as pool:
        for running in [pool.submit(hold) for _ in range(4)]:
            running.result(30)
    assert set(most) == {1}


@pytest.mark.parametrize("refusal", [NotImplementedError("no conditions"), TypeError("mode")])
def test_where_nothing_is_put_under_a_condition_rows_are_right_all_the_same(monkeypatch, refusal):
    real = MemoryFileSystem.pipe_file

    def unconditional(fs, path, value, mode="overwrite", **_):
        if mode == "create":
            raise refusal
        return real(fs, path, value)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", unconditional)
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(fetch, URL, range(60), pause=0.01) for _ in range(2)]
        assert {row for running in runs for row in running.result()} == set(range(60))


def test_a_lease_gives_signs_of_life(monkeypatch):
    monkeypatch.setattr(leases, "LEASE_SECONDS", 1.0)
    begun = threading.Event()
    real = object_leases.ObjectLeases.lay
    monkeypatch.setattr(
        object_leases.ObjectLeases, "lay", lambda *given, **more: (real(*given, **more), begun.set())[0]
    )
    monkeypatch.setattr(claims, "SHARE_SECONDS", 100.0)  # nobody gets a share
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(fetch, URL, range(200), pause=0.04)
        begun.wait(20)
        assert fetch(URL, range(200)) == []
        assert len(running.result()) == 200


def test_a_forked_child_leaves_its_parents_lease_and_does_not_hang():
    with Claims(shelf()) as mine:
        assert mine.claim(keys_of(range(5))).all()
        child = os.fork()
        if child == 0:
            try:
                mine.lease.laid.remove()
                mine.lease.laid.sign()
                objects.ObjectFolder(URL).tree()
            finally:
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert [name for name in stored() if name.endswith(".lease")]


# --- upkeep -------------------------------------------------------------------------------------------------


def test_the_upkeep_sees_both_sides(another_machine, monkeypatch, tmp_path):
    monkeypatch.setattr(finding, "LEAST_SHARDS", 1)
    fetch(URL, range(40))
    fetch(URL, [0])
    (held,) = survey(URL)
    assert (held.rows, held.context) == (40, CONTEXT)
    shown = carry_out("show", None, None, URL)
    assert shown.startswith(f"cache {URL}: ")
    assert re.search(r"\b40 .* test \(", shown)
    assert "0 files, 0 B removed" in carry_out("verify", None, None, URL)
    name = next(name for name in stored() if name.endswith(".shard2"))
    MemoryFileSystem().pipe_file(name, stored()[name][:-1] + b"x")
    assert "1 files" in carry_out("verify", None, None, URL)
    assert name not in stored()
    with Claims(held.shelf) as claim:
        assert claim.claim(keys_of([1000])).all()
        assert "being computed" in carry_out("show", None, None, URL)
        carry_out("prune", "1", None, URL)
        assert any(name.endswith(".shard2") for name in stored())
    carry_out("prune", "1", None, URL)
    assert stored() == {}
    assert survey(URL) == []


def test_the_variable_names_it(monkeypatch):
    monkeypatch.setenv("DATAPRUNER_CACHE", URL)
    assert SignalStore().far == objects.ObjectFolder(URL) / "signals"
    assert SignalStore().location == URL
    assert "0 B of signals" in carry_out("show", None, None, None)


# --- faults and secrets -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("s3://me:hunter22@bucket/x", r"s3://\*\*\*bucket/x holds a password"),
        ("s3://bucket/x?token=hunter22", r"s3://bucket/x\?\*\*\* holds a password or a signature"),
        ("s3:///x", "names no bucket"),
    ],
)
def test_an_address_with_a_secret_is_refused_without_repeating_it(url, sentence):
    with pytest.raises(DataPrunerError, match=sentence) as told:
        SignalStore(url)
    assert "hunter22" not in str(told.value)


@pytest.mark.parametrize(("protocol", "extra"), [("gs", "gs"), ("az", "az"), ("abfs", "az")])
def test_a_package_that_is_not_there_is_named_with_its_extra(protocol, extra, monkeypatch):
    import sys

    for name in ("gcsfs", "adlfs"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DataPrunerError, match=rf"pip install '\.\[{extra}\]'"):
        objects.ObjectFolder.of(f"{protocol}://bucket/x").tree()


def test_a_store_that_does_not_answer_ends_with_a_sentence_without_secrets(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter22hunter22")

    def fails(*_, **__):
        raise ConnectionResetError(
            104, "https://me:swordfish@host/bucket?X-Amz-Signature=abc hunter22hunter22"
        )

    monkeypatch.setattr(MemoryFileSystem, "find", fails)
    with pytest.raises(DataPrunerError, match=r"memory://bucket/prefix.* cannot be reached") as told:
        fetch(URL, range(5))
    assert "\n" not in str(told.value)
    for secret in ("swordfish", "abc", "hunter22"):
        assert secret not in str(told.value)


def two_sets(monkeypatch, faulty) -> None:
    """What the sweeps run: two sets that overlap, and the first again from another machine's view."""
    monkeypatch.setattr(objects, "file_system", lambda protocol: faulty)
    fetch(URL, range(40))
    fetch(URL, range(20, 60))


def clean(monkeypatch, another_machine) -> None:
    MemoryFileSystem.store.clear()
    shards.BARRED.clear()
    another_machine()


def sweep(monkeypatch, another_machine, every: int) -> int:
    monkeypatch.setattr(finding, "LEAST_SHARDS", 1)
    monkeypatch.setattr(object_leases, "LOCK_SECONDS", 0.05)
    logging.disable(logging.CRITICAL)
    try:
        counted = Faulty(MemoryFileSystem())
        two_sets(monkeypatch, counted)
        wanted, points = stored(), 0
        for number in range(0, counted.calls, every):
            for kind in KINDS:
                clean(monkeypatch, another_machine)
                two_sets(monkeypatch, Faulty(MemoryFileSystem(), number, kind))
                assert shards_of(stored()) == shards_of(wanted), (number, kind)
                points += 1
        return points
    finally:
        logging.disable(logging.NOTSET)


def shards_of(files: dict[str, bytes]) -> dict[str, bytes]:
    assert not [name for name in files if "/claims/" in name]
    return {name: data for name, data in files.items() if name.endswith(".shard2")}


def test_a_call_that_fails_once_changes_nothing(monkeypatch, another_machine):
    assert sweep(monkeypatch, another_machine, every=7) > 15


@pytest.mark.faults
def test_every_call_may_fail_once(monkeypatch, another_machine):
    assert sweep(monkeypatch, another_machine, every=1) >= 100


@pytest.mark.faults
def test_a_store_that_goes_away_at_any_call_leaves_what_the_next_run_goes_on_from(
    monkeypatch, another_machine
):
    monkeypatch.setattr(retrying, "TRIES", 2)
    monkeypatch.setattr(object_leases, "LOCK_SECONDS", 0.05)
    monkeypatch.setattr(leases, "LEASE_SECONDS", 0.05)
    logging.disable(logging.CRITICAL)
    try:
        counted = Faulty(MemoryFileSystem())
        two_sets(monkeypatch, counted)
        for number in range(counted.calls):
            clean(monkeypatch, another_machine)
            with suppress(DataPrunerError):
                two_sets(monkeypatch, Faulty(MemoryFileSystem(), number, "cut before", lasting=True))
            two_sets(monkeypatch, Faulty(MemoryFileSystem()))
    finally:
        logging.disable(logging.NOTSET)
