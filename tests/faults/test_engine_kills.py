"""Workers and the run itself are killed at random moments: the next run gives the same bytes, and nobody is left."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from tests.test_parts_of_a_run import tree

ROWS = 400
KILLS = 4
PATIENCE = 10.0


@pytest.fixture(scope="module")
def line(tmp_path_factory, tiny_llama):
    """A run of two workers, that takes some seconds to compute."""
    folder = tmp_path_factory.mktemp("kills")
    rng = np.random.default_rng(0)
    words = ["red", "green", "blue", "seven", "twelve", "walks", "sleeps", "never", "often"]
    rows = [
        {name: " ".join(rng.choice(words, rng.integers(9, 60)).tolist()) for name in ("prompt", "completion")}
        for _ in range(ROWS)
    ]
    source = folder / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["prune", source, "--scorer", "ifd", "--keep", "0.5", "--model", tiny_llama, "-q", "--overwrite"]
    return [sys.executable, "-m", "datapruner", *map(str, words)]


def begun(line, folder, *more):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [*line, "--cache", str(folder / "cache"), "--out", str(folder / "out"), *more]
    return subprocess.Popen(
        words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def ended(process):
    said = process.communicate(timeout=300)[1]
    return process.returncode, said


def workers(process):
    try:
        found = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [one for one in found if _is_worker(one)]


def _is_worker(one):
    try:
        return any("datapruner.measuring.worker" in word or "ray::Served" in word for word in one.cmdline())
    except psutil.Error:
        return False


def first_workers(process):
    while process.poll() is None:
        if found := workers(process):
            return found
        time.sleep(0.02)
    raise AssertionError(ended(process))


def left(found, seconds=PATIENCE):
    _, alive = psutil.wait_procs(set(found), timeout=seconds)
    return [one.cmdline() for one in alive]


@pytest.fixture(scope="module")
def whole(line, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert ended(begun(line, folder))[0] == 0
    return tree(folder / "out")


@pytest.mark.faults
def test_workers_that_are_killed_change_no_byte(line, whole, tmp_path):
    rng = random.Random(0)
    process = begun(line, tmp_path, "--workers", "2")
    first_workers(process)
    for _ in range(KILLS):
        time.sleep(rng.uniform(0.5, 6))
        if found := workers(process):
            rng.choice(found).kill()
    code, said = ended(process)
    assert code == 0, said
    assert "a worker is lost" in said
    assert "signal 9" in said
    assert tree(tmp_path / "out") == whole


@pytest.mark.faults
def test_a_run_that_is_killed_leaves_no_worker_and_the_next_goes_on(line, whole, tmp_path):
    rng = random.Random(1)
    for number, how in enumerate((signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGKILL)):
        # With nothing measured, or there would be no workers; as deep, since a recipe has paths as seen from it.
        folder = tmp_path.with_name(f"{tmp_path.name}-{number}")
        folder.mkdir()
        process = begun(line, folder, "--workers", "2")
        found = first_workers(process)
        time.sleep(rng.uniform(0, 6))
        found = workers(process) or found
        process.send_signal(how)
        code, said = ended(process)
        assert left(found) == []
        assert code in (-9, 143, 130, 0), said  # 0: it was done before
        if code in (143, 130):
            assert "the same command goes on from there" in said
            assert "Traceback" not in said
        code, said = ended(begun(line, folder))
        assert code == 0, said
        assert tree(folder / "out") == whole
        assert not list(folder.rglob("*.lease"))


@pytest.mark.faults
def test_nobody_of_a_cluster_outlives_its_run(line, whole, tmp_path):
    pytest.importorskip("ray")
    for how in (signal.SIGTERM, signal.SIGKILL):
        process = begun(line, tmp_path, "--workers", "2", "--engine", "ray")
        found = first_workers(process)
        time.sleep(3)
        if how == signal.SIGTERM:  # after SIGKILL two agents of Ray's own take a minute
            found += psutil.Process(process.pid).children(recursive=True)
        process.send_signal(how)
        code, said = ended(process)
        assert code in (0, 143, -9), said
        assert left(found, 3 * PATIENCE) == []
    process = begun(line, tmp_path, "--workers", "2", "--engine", "ray")
    while process.poll() is None and not workers(process):
        time.sleep(0.05)
    for one in workers(process)[:1]:
        one.kill()
    code, said = ended(process)
    assert code == 0, said
    assert tree(tmp_path / "out") == whole
