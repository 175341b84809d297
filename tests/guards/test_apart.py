"""What cannot be interrupted runs in a child, is ended there, and says the same as here."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import pytest

from datapruner.errors import DataPrunerError
from datapruner.guards.apart import Apart, Raised
from datapruner.samples.template_cost import stops
from datapruner.samples.templates import Template
from tests.conftest import byte_tokenizer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks")
TALK = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
START = "{% set ns = namespace(t=(1,), u=(1,), x=9) %}"
SIXTY = "{% for i in range(60) %}"
# Each holds itself 2^60 times over; C walks through all of it without looking up.
ENDLESS = {
    "a key": START + SIXTY + "{% set ns.t = (ns.t, ns.t) %}{% endfor %}{% if ns.t in {} %}{% endif %}",
    "a comparison": START
    + SIXTY
    + "{% set ns.t = [ns.t, ns.t] %}{% set ns.u = [ns.u, ns.u] %}{% endfor %}{% if ns.t == ns.u %}{% endif %}",
    "slices": START
    + SIXTY
    + "{% set ns.t = (ns.t|slice(1)|list) + (ns.t|slice(1)|list) %}{% set ns.u = (ns.u|slice(1)|list) + "
    "(ns.u|slice(1)|list) %}{% endfor %}{% if ns.t == ns.u %}{% endif %}",
    "a macro's rest": START
    + "{% macro m() %}{% set ns.t = varargs %}{% endmacro %}"
    + SIXTY
    + "{{ m(ns.t, ns.t) }}{% endfor %}{% if ns.t in {} %}{% endif %}",
    "keys of one value": START
    + SIXTY
    + "{% set ns.t = {}.fromkeys('ab', ns.t) %}{% set ns.u = {}.fromkeys('ab', ns.u) %}{% endfor %}"
    "{% if ns.t == ns.u %}{% endif %}",
    "products": START + SIXTY + "{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "a power": "{% if 9 ** (9 ** 9) %}{% endif %}",
    "a power that is folded": "{{ (3 ** (9 ** 10)) % 7 }}",
    "texts": "{{ ('a' * 10**8 * 10**3)|length }}",
}


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer(["</s>"], eos_token="</s>")


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_template_that_no_alarm_reaches_is_ended(tokenizer, monkeypatch, kind):
    assert not stops(ENDLESS[kind])
    monkeypatch.setattr(Apart.__init__, "__defaults__", (0.3,))
    start = time.monotonic()
    with pytest.raises(DataPrunerError, match=r"takes longer than 0\.3 s|takes more than 2 GB"):
        Template(tokenizer, ENDLESS[kind]).render(TALK)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    "text",
    [
        "{% for m in [messages[0], messages[1]] %}{{ m.role ~ m.content }}{% endfor %}",
        "{{ messages|map('upper')|list|length }}{{ {'a': messages}|tojson }}",
        "{{ '-' * 5 }}{% for m in messages|batch(2) %}{{ m|length }}{% endfor %}",
    ],
)
def test_apart_says_what_it_says_here(tokenizer, text):
    assert not stops(text)
    template = Template(tokenizer, text)
    wanted = tokenizer.apply_chat_template(TALK, chat_template=text, tokenize=False)
    said: list[str] = []
    threads = [threading.Thread(target=lambda: said.append(template.render(TALK))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == [wanted] * 4


def test_what_a_program_raises_is_told_and_the_next_call_is_answered():
    def run(value: int) -> str:
        return str(1 // value)

    apart = Apart("it", run)
    with pytest.raises(Raised, match="by zero"):
        apart(0)
    child = apart._child[0].pid
    assert apart(1) == "1"
    os.kill(child, signal.SIGKILL)
    with pytest.raises(DataPrunerError, match="it breaks its process"):
        apart(1)
    assert apart(1) == "1"
    child = apart._child[0].pid
    assert child != os.getpid()
    apart.end()
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_marks_of_answers_cost_nothing():
    assert stops(
        "{% for m in messages %}{{ m.content|trim }}{% endfor %}{% break %}{% set x = ['a', 'b'] %}{{ (1, 2) }}"
    )
    assert not stops("{% if %}")
    assert not stops("{{ messages|map(name)|list }}")
    assert not stops("{{ messages|map('slice', 1)|list }}")
    assert not stops("{{ messages[0]['fromkeys']('ab', 1) }}")


def test_without_forks_an_alarm_ends_what_it_reaches(tokenizer, monkeypatch):
    loops = "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}"
    text = "{{ messages|map('slice', 1)|list|length }}" + loops
    assert not stops(text)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(Apart.__init__, "__defaults__", (0.3,))
    start = time.monotonic()
    with pytest.raises(DataPrunerError, match=r"the chat template takes longer than 0\.3 s"):
        Template(tokenizer, text).render(TALK)
    assert time.monotonic() - start < 5
