"""Workers, the run and its cluster are killed in every phase: the next run gives the same bytes, and nobody is left."""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.test_parts_of_a_run import tree

ROWS = 400
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


@pytest.fixture(scope="module")
def kills():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        yield importlib.import_module("engine_kills")


@pytest.fixture
def story(kills, line, tiny_sentence_transformer, tmp_path):
    """The same rows, with all that may be killed: rows embedded, read by a model, cleaned, clustered and written."""
    words = [*line[3:5], "--model", line[line.index("--model") + 1], *kills.OPTIONS]
    words += [
        "--embedder",
        str(tiny_sentence_transformer.parent / "bert"),
        "--without",
        "copies",
        "--without",
        "rules",
    ]
    return kills.Story(tmp_path, words, random.Random(0))


def found_by(story):
    """What must be the same, and gone, after all kills; and what they cost."""
    assert story.different == story.left == story.outlived == set()
    said = [file.read_text() for file in story.work.glob("watched/*/said")]
    assert not any("Traceback" in text for text in said)
    cost = {kill.what: [] for kill in story.kills}
    for kill in story.kills:
        cost[kill.what].append(kill.rows_twice)
    return said, cost


@pytest.mark.faults
def test_workers_that_are_killed_change_no_byte(story):
    story.kill_workers(5)
    said, cost = found_by(story)
    assert max(cost["worker"]) <= story.block
    assert {kill.phase for kill in story.kills} == {"cleaning", "embedding", "language model"}
    assert (
        sum(text.count("a worker is lost and is started again: it was ended by signal 9") for text in said)
        > 0
    )


@pytest.mark.faults
def test_a_run_that_is_killed_leaves_no_worker_and_the_next_goes_on(story, kills):
    story.kill_runs(5, (signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
    said, cost = found_by(story)
    assert max(cost["run"]) <= 2 * story.block
    assert [kill.phase for kill in story.kills] == kills.CHAIN
    assert [kill.code for kill in story.kills] == [-9, 143, 130, -9, 143]
    assert sum("the same command goes on from there" in text for text in said) == 3


@pytest.mark.faults
def test_a_cluster_that_loses_its_head_costs_what_was_in_flight(story):
    pytest.importorskip("ray")
    story.kill_heads(1)
    _, cost = found_by(story)
    assert max(cost["head"]) <= 2 * story.block


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
