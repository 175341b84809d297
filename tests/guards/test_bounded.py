"""Programs of somebody else's end, or are ended, and leave the process as it was."""

from __future__ import annotations

import operator
import os
import re
import signal
import sys
import time
from contextlib import suppress

import pytest

from datapruner.errors import DataPrunerError
from datapruner.guards.bounded import bounded, tried
from datapruner.samples.templates import Template
from tests.conftest import byte_tokenizer

linux = pytest.mark.skipif(sys.platform != "linux", reason="limits")
alarms = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="alarms")
NESTED = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
TALK = [{"role": "user", "content": "a"}]


def limits() -> object:
    import resource

    return (
        resource.getrlimit(resource.RLIMIT_DATA),
        signal.getitimer(signal.ITIMER_REAL),
        signal.getsignal(signal.SIGALRM),
    )


def no_end() -> None:
    while True:
        with suppress(Exception):  # a program that catches what it can
            time.sleep(0.001)


@alarms
@pytest.mark.parametrize(
    "run", [no_end, lambda: re.match(r"(a+)+$", "a" * 60 + "!")], ids=["loop", "regular expression"]
)
def test_code_without_end_is_ended(run):
    before = limits()
    with pytest.raises(DataPrunerError, match=r"it takes longer than 0\.2 s"), bounded("it", 0.2):
        run()
    assert limits() == before


@alarms
def test_a_last_step_that_takes_too_long_is_told_as_well():
    """The alarm is heard only as the block is left, outside of where it would be caught."""
    for _ in range(3):
        with pytest.raises(DataPrunerError, match="it takes longer"), bounded("it", 0.02):
            sum(range(5_000_000))


@linux
@pytest.mark.parametrize(
    "make", [lambda: operator.mod("%10000000000d", 1), lambda: [0] * 10**10], ids=["format", "list"]
)
def test_memory_without_end_is_not_had(make):
    before = limits()
    with pytest.raises(DataPrunerError, match="it takes more than 1 GB"), bounded("it"):
        make()
    assert limits() == before


def test_what_ends_is_left_alone():
    with bounded("it"):
        one = 1
    with pytest.raises(ZeroDivisionError), bounded("it"):
        one // 0


@alarms
def test_an_alarm_of_somebody_else_stays():
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 100)
    try:
        with bounded("it", 0.01):
            time.sleep(0.05)
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 90
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class PanicException(BaseException):  # pyo3's is made like this
    pass


def panic() -> None:
    raise PanicException("index out of range")


def busy() -> None:
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    while True:
        pass


@linux
@pytest.mark.parametrize(
    ("run", "said"),
    [
        (panic, "gives up on it .index out of range"),
        (busy, "takes longer than 1 s"),
        (os.abort, "breaks on it"),
        (lambda: bytearray(10**11), "takes more than 2 GB"),
    ],
    ids=["panic", "time", "abort", "memory"],
)
def test_what_breaks_a_process_breaks_a_child(run, said):
    with pytest.raises(DataPrunerError, match=f"^the tokenizer .*{said}"):
        tried("the tokenizer", run, 1)


@linux
@pytest.mark.parametrize("run", [lambda: None, lambda: 1 // 0, lambda: sys.exit(3), lambda: print("x")])
def test_what_ends_in_any_other_way_is_for_the_parent_to_see(run, capfd, monkeypatch):
    fork, children = os.fork, []
    monkeypatch.setattr(os, "fork", lambda: children.append(fork()) or children[-1])
    tried("the tokenizer", run)
    assert capfd.readouterr().out == ""
    with pytest.raises(ChildProcessError):  # it is not left
        os.waitpid(children[0], os.WNOHANG)


@linux
def test_a_child_that_waits_for_ever_tells_nothing():
    tried("the tokenizer", lambda: time.sleep(100), 0.1)


# --- chat templates -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer(["</s>"], eos_token="</s>")


@alarms
@pytest.mark.parametrize("ask", [lambda t: t.render(TALK), lambda t: t.header, lambda t: t.knows("tool")])
def test_a_template_without_end_is_ended_by_a_sentence(tokenizer, monkeypatch, ask):
    monkeypatch.setattr(bounded.__wrapped__, "__defaults__", (0.3,))
    start = time.monotonic()
    with pytest.raises(DataPrunerError, match="the chat template takes longer"):
        ask(Template(tokenizer, NESTED))
    assert time.monotonic() - start < 2


@linux
@pytest.mark.parametrize(
    "text",
    [
        "{{ '%10000000000d' % 1 }}",
        "{{ 'x' * 10000000000 }}",
        pytest.param("{{ '%300000000d' % 1 }}", marks=pytest.mark.slow),
    ],
)
def test_a_template_that_makes_too_much_is_ended_by_a_sentence(tokenizer, text):
    with pytest.raises(DataPrunerError, match=r"the chat template (?:takes more than|makes 300,000,000)"):
        Template(tokenizer, text).render(TALK)
