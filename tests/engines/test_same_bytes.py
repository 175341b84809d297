"""Whoever computes rows, and whatever becomes of him, the result is that of one process."""

from __future__ import annotations

import itertools
import json
import logging
import threading

import pytest

import datapruner as dp
from datapruner.errors import DataPrunerError
from datapruner.measuring import pool
from tests.conftest import command
from tests.engines.in_threads import ROWS, InThreads, Thread, bytes_of, pruned
from tests.test_parts_of_a_run import tree

LONG = 103


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


@pytest.mark.faults
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


@pytest.mark.faults  # beside those of processes that are killed: each imports its libraries for seconds
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
