"""The contract of engines: processes, actors and threads keep it, and the suite sees what breaks it."""

from __future__ import annotations

import json
import os
import signal

import pytest

from datapruner.engines.base import WorkerLostError
from datapruner.engines.local import Local
from datapruner.engines.ray import Ray
from datapruner.testing import parametrize_with_checks
from datapruner.testing.suite import checks_of
from tests.engines.in_threads import InThreads, Thread


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
