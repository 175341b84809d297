"""Engines: whoever computes rows, and whatever becomes of him, the result is that of one process."""

from __future__ import annotations

import itertools
import json
import logging
import os
import signal
import threading
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest

import datapruner as dp
from datapruner.engines.base import Engine, Worker, WorkerLostError, make_engine
from datapruner.engines.local import Local, environment
from datapruner.engines.ray import Ray, check_reached, shared_out
from datapruner.errors import DataPrunerError
from datapruner.measuring import pool
from datapruner.measuring.worker import Service
from datapruner.testing import parametrize_with_checks
from datapruner.testing.suite import checks_of
from tests.conftest import command, run_command
from tests.test_parts_of_a_run import tree

ROWS = 90
LONG = 103


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Conversations, one of them twice, one without an answer."""
    rng = np.random.default_rng(0)
    words = ["red", "green", "blue", "seven", "twelve", "walks", "sleeps", "never", "often"]
    rows = [
        {name: " ".join(rng.choice(words, rng.integers(3, 12)).tolist()) for name in ("prompt", "completion")}
        for _ in range(ROWS)
    ]
    rows[40] = rows[7]
    rows[11]["completion"] = ""
    path = tmp_path_factory.mktemp("source") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


LIBRARIES = threading.Lock()
"""Transformers changes its own classes while it opens a model, and not for several threads."""


class Thread(Worker):
    """A worker in this process: its service, and what was said."""

    def __init__(self, engine: InThreads, number: int) -> None:
        self.engine, self.number, self.ended = engine, number, False
        self.service = Service()

    def ask(self, message):
        self.engine.said.append(message)
        if self.ended or self.engine.loses(self.number, message):
            raise WorkerLostError("it was ended by signal 9")
        with LIBRARIES:
            answer = self.service.ask(message)
        self.engine.said.append(answer)
        return answer

    def end(self):
        self.ended = True

    def log(self):
        return "Traceback\nthe last line\x1b[31m\n"


@dataclass
class InThreads(Engine):
    """Workers without processes; ``loses`` says which of them dies at which message."""

    name: ClassVar[str] = "in_threads"
    said: list = field(default_factory=list)
    loses: object = lambda number, message: False
    started: list = field(default_factory=list)
    closed: int = 0

    def start(self, number, device):
        self.started.append(number)
        return Thread(self, number)

    def close(self):
        self.closed += 1


def pruned(source, model, cache, engine="local", **more):
    return dp.prune(
        str(source),
        scorer="ifd",
        keep=0.5,
        model=str(model),
        dedup=True,
        on_empty="drop",
        cache=cache,
        progress=False,
        engine=engine,
        **more,
    )


def bytes_of(selection, folder):
    selection.save(folder)
    return tree(folder)


@pytest.fixture(scope="module")
def whole(source, tiny_llama, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return bytes_of(pruned(source, tiny_llama, folder / "cache"), folder / "out")


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(pool, "BLOCK_ROWS", (8, 64))
    monkeypatch.setattr(pool, "BATCHES", 0)


@pytest.mark.usefixtures("one_thread", "small_blocks")
def test_workers_compute_all_rows_and_give_the_bytes_of_one_process(
    source, tiny_llama, tmp_path, whole, monkeypatch
):
    from datapruner.signals.language_model.forward import Pass

    who = set()
    run_batch = Pass.run_batch

    def watched(self, *given, **more):
        who.add(threading.current_thread() is threading.main_thread())
        return run_batch(self, *given, **more)

    monkeypatch.setattr(Pass, "run_batch", watched)
    engine = InThreads(2)
    assert bytes_of(pruned(source, tiny_llama, tmp_path / "cache", engine), tmp_path / "out") == whole
    assert who == {False}
    assert sorted(engine.started) == [0, 1]
    assert engine.closed == 1
    # What crosses is a recipe, ranges and counts: no text of a row.
    text = json.loads(source.read_text().splitlines()[0])["prompt"]
    assert not any(text in one for one in engine.said)
    asked = [json.loads(one) for one in engine.said if '"measure"' in one]
    for name, rows in (("losses", set(range(ROWS)) - {11, 40}), (None, set(range(ROWS)))):
        ranges = [pair for one in asked if one["measure"] == name for pair in one["rows"]]
        covered = [row for first, last in ranges for row in range(first, last + 1)]
        assert len(covered) == len(set(covered))
        assert set(covered) == rows
    # With everything stored no worker is started.
    again = InThreads(2)
    assert bytes_of(pruned(source, tiny_llama, tmp_path / "cache", again), tmp_path / "again") == whole
    assert again.started == []


@pytest.mark.usefixtures("one_thread", "small_blocks")
@pytest.mark.parametrize("each", [4, 1])
def test_whatever_workers_are_lost_the_bytes_are_the_same(source, tiny_llama, tmp_path, whole, each, caplog):
    asked = itertools.count(1)
    engine = InThreads(2, loses=lambda number, message: next(asked) % each == 0)
    with caplog.at_level(logging.WARNING):
        assert bytes_of(pruned(source, tiny_llama, tmp_path / "cache", engine), tmp_path / "out") == whole
    assert len(engine.started) <= 2 * (pool.RESTARTS + 1)
    assert "it was ended by signal 9" in caplog.text
    assert "| the last line" in caplog.text
    assert "\x1b" not in caplog.text


@pytest.mark.usefixtures("one_thread", "small_blocks")
def test_a_worker_that_fails_is_told_once_and_others_do_its_rows(
    source, tiny_llama, tmp_path, whole, monkeypatch, caplog
):
    ask = Thread.ask

    def asked(self, message):
        return json.dumps({"error": "its disk is full"}) if self.number == 1 else ask(self, message)

    monkeypatch.setattr(Thread, "ask", asked)
    engine = InThreads(3)
    assert bytes_of(pruned(source, tiny_llama, tmp_path / "cache", engine), tmp_path / "out") == whole
    assert caplog.text.count("its disk is full") == 1
    assert sorted(engine.started) == [0, 1, 2]


@pytest.mark.usefixtures("one_thread", "small_blocks")
@pytest.mark.parametrize("on_error", ["stop", "drop"])
def test_rows_on_which_a_model_fails_end_as_in_one_process(
    source, tiny_llama, tmp_path, monkeypatch, on_error
):
    from datapruner.signals.language_model.forward import Pass

    run_batch = Pass.run_batch

    def fails(self, batch, waiting):
        if any(len(item.ids) > LONG for item in batch):
            raise RuntimeError("the model fails")
        return run_batch(self, batch, waiting)

    monkeypatch.setattr(Pass, "run_batch", fails)
    said = []
    for engine in ("local", InThreads(2)):
        folder = tmp_path / str(len(said))
        try:
            found = pruned(source, tiny_llama, folder / "cache", engine, on_error=on_error)
            said.append(bytes_of(found, folder / "out"))
        except DataPrunerError as error:
            said.append(str(error))
    assert said[0] == said[1]
    assert isinstance(said[0], dict if on_error == "drop" else str)
    assert on_error == "drop" or "fails on row" in said[0]


def test_a_part_of_a_run_has_workers_too(source, tiny_llama, tmp_path, whole):
    for number in (2, 1):
        engine = InThreads(2)
        done = dp.measure_part(
            str(source),
            f"{number}/2",
            scorers="ifd",
            model=str(tiny_llama),
            dedup=True,
            on_empty="drop",
            cache=tmp_path / "cache",
            progress=False,
            engine=engine,
        )
        assert engine.started
        assert done.computed["losses"] > ROWS / 3
    assert bytes_of(pruned(source, tiny_llama, tmp_path / "cache"), tmp_path / "out") == whole


def test_objects_are_refused(source, tiny_llama, tmp_path):
    with pytest.raises(DataPrunerError, match="'source' was given as an object"):
        dp.prune([{"text": "a"}] * 30, scorer="length", keep=3, workers=2, progress=False)
    from datapruner.models import load_causal_lm

    with pytest.raises(DataPrunerError, match="'model' was given as an object"):
        dp.score(str(source), scorers="ifd", model=load_causal_lm(str(tiny_llama)), workers=2, progress=False)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"engine": "local", "num_gpus": 1.0}, "num_gpus= is for engine='ray', and this run has engine='local'"),
        ({"engine": "local", "ray_address": "a:1"}, "ray_address= is for engine='ray'"),
        ({"engine": "rai"}, "no engine 'rai'. Did you mean 'ray'"),
        ({"engine": "local", "workers": 0}, "workers= is a whole number from 1 to 1,000, not 0"),
        ({"engine": "local", "workers": 1_000_000}, "workers= is a whole number from 1 to 1,000, not 1,000,000"),
        ({"engine": "local", "workers": "2"}, "valid integer"),
        ({"engine": "ray", "num_gpus": -1.0}, "num_gpus= is a number of at least 0"),
        ({"engine": Local(2), "workers": 3}, "workers= is for an engine that is named"),
        ({"engine": 7}, "an Engine object, not a int"),
    ],
)  # fmt: skip
def test_options_without_a_meaning_are_refused(given, said):
    with pytest.raises(DataPrunerError) as caught:
        make_engine(given["engine"], **{name: given[name] for name in given if name != "engine"})
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("nodes", "workers", "gpus", "shared"),
    [
        ([{"CPU": 8.0}], 2, None, (2, 4, 0)),
        ([{"CPU": 8.0}], None, None, (1, 8, 0)),
        ([{"CPU": 64.0, "GPU": 8.0}, {"CPU": 64.0, "GPU": 8.0}], None, None, (16, 8, 1)),
        ([{"CPU": 16.0, "GPU": 4.0}], None, 0.5, (8, 2, 0.5)),
        ([{"CPU": 16.0, "GPU": 4.0}], None, 0.0, (1, 16, 0)),
        ([{"CPU": 5.0}, {"CPU": 5.0}], 3, None, (3, 2, 0)),
        ([{"CPU": 2.0}], 4, None, (4, 0.5, 0)),
        ([{"CPU": 4.0}, {}], None, None, (2, 2, 0)),
    ],
)
def test_a_cluster_is_shared_out(nodes, workers, gpus, shared):
    count, cores, each = shared_out(nodes, workers, gpus)
    assert (count, cores, each) == shared
    if cores >= 1:  # all of them find room
        assert sum(int(node.get("CPU", 0) // cores) for node in nodes) >= count


def test_more_gpus_than_a_machine_has_are_refused():
    with pytest.raises(DataPrunerError, match="no machine of the cluster has 2 GPUs"):
        shared_out([{"CPU": 8.0, "GPU": 1.0}] * 2, 2, 2.0)


def test_workers_share_cores_and_gpus(monkeypatch):
    from datapruner.engines import local

    monkeypatch.setattr(local.os, "sched_getaffinity", lambda _: range(8), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "2")
    monkeypatch.setattr(local, "visible_gpus", lambda: ["5", "7"])
    made = [environment(number, 2, None) for number in range(3)]
    assert [one["CUDA_VISIBLE_DEVICES"] for one in made] == ["5", "7", "5"]
    assert {one["OMP_NUM_THREADS"] for one in made} == {"4"}
    assert {one["MKL_NUM_THREADS"] for one in made} == {"2"}
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert "CUDA_VISIBLE_DEVICES" not in environment(0, 2, "cpu")
    assert "CUDA_VISIBLE_DEVICES" not in environment(0, 2, "cuda:1")


@pytest.mark.usefixtures("one_thread")
def test_the_command_line_takes_processes_and_writes_nothing_of_them(
    source, tiny_llama, tmp_path, whole, monkeypatch
):
    line = ["prune", source, "--scorer", "ifd", "--keep", 0.5, "--model", tiny_llama, "--dedup", "-q"]
    line += ["--cache", tmp_path / "cache", "--out", tmp_path / "out", "--workers", 2]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert command(monkeypatch, *line) == 0
    assert tree(tmp_path / "out") == whole


@pytest.mark.slow
@parametrize_with_checks([Local(2)])
def test_processes_keep_the_contract(part, check, tiny_llama):
    check(part, tokenizer=tiny_llama)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(checks_of(Ray(2))))
def test_actors_keep_the_contract(name, tiny_llama):
    pytest.importorskip("ray")
    checks_of(Ray(2))[name](Ray(2), tokenizer=tiny_llama)


def test_the_checks_see_what_an_engine_breaks(tiny_llama, monkeypatch):
    checks = checks_of(InThreads(2))
    for check in checks.values():
        check(InThreads(2), tokenizer=tiny_llama)
    with pytest.raises(AssertionError, match="asks for no worker"):
        checks["engine_describes_itself"](Local(1))
    with pytest.raises(AssertionError, match="should have"):
        checks["engine_changes_no_row"](InThreads(2, loses=lambda *_: True), tokenizer=tiny_llama)
    monkeypatch.setattr(Thread, "end", lambda self: None)
    with pytest.raises(AssertionError, match="answers that was ended"):
        checks["engine_carries_messages"](InThreads(2))


@pytest.mark.slow
def test_an_actor_that_is_killed_is_lost():
    pytest.importorskip("ray")
    engine = Ray(1)
    assert engine.open("cache") == 1
    try:
        worker = engine.start(0, None)
        message = json.dumps({"job": {"version": "0", "limits": {}}})
        assert "install the same" in json.loads(worker.ask(message))["error"]
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerLostError):
            worker.ask(message)
        worker.end()
        again = engine.start(0, None)
        assert "install the same" in json.loads(again.ask(message))["error"]
        assert again.pid != worker.pid
        again.end()
    finally:
        engine.close()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_an_address_where_nobody_answers_is_refused_at_once(address):
    with pytest.raises(DataPrunerError, match="no Ray cluster answers at"):
        check_reached(address)


@pytest.mark.parametrize("verb", ["prune", "score", "clean", "compare", "damage", "run"])
def test_every_verb_that_measures_takes_an_engine(verb, source, tmp_path, monkeypatch, capfd):
    if verb == "run":
        source = tmp_path / "recipe.yaml"
        source.write_text("source: rows.jsonl\nscorers:\n- name: length\nkeep: 0.5\n")
    ran = run_command(
        monkeypatch, capfd, verb, source, "-o", tmp_path / "out", "--engine", "ray", "--num-gpus", -1
    )
    assert ran.code == 2
    assert "--num-gpus is a number of at least 0, not -1" in ran.err


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread", "small_blocks")
@pytest.mark.parametrize(
    ("scorer", "asks"),
    [
        (None, "embedder model"),
        ("concept_complexity", "embedder"),
        ("donod", "model"),
        ("qtuning", "model"),
        ("paser", "embedder model pruned_model"),
        ("nearest_target", "model target"),
    ],
)
def test_every_kind_of_measurement_gives_the_same_bytes(
    scorer, asks, source, tiny_llama, tiny_sentence_transformer, tmp_path
):
    from tests.conftest import save_tiny_llama

    given = {
        "embedder": str(tiny_sentence_transformer),
        "model": str(tiny_llama),
        "pruned_model": str(save_tiny_llama(tmp_path / "pruned", seed=1)),
        "target": str(tmp_path / "target.jsonl"),
    }
    lines = source.read_text().splitlines(keepends=True)
    (tmp_path / "target.jsonl").write_text("".join(lines[:8]))  # all with an answer
    options = {name: given[name] for name in asks.split()}
    found = []
    for engine in ("local", InThreads(2)):
        folder = tmp_path / str(len(found))
        chosen = dp.prune(
            str(source),
            scorer=scorer,
            keep=0.4,
            cache=folder / "cache",
            engine=engine,
            progress=False,
            **options,
        )
        found.append(bytes_of(chosen, folder / "out"))
    assert found[0] == found[1]
