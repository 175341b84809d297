"""Which measurements a run makes, and in what order."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datapruner.errors import DataPrunerError
from datapruner.recipe import Recipe
from datapruner.signals import plan as module
from datapruner.signals.measurement import Cost, Given, Measurement
from datapruner.signals.plan import in_order, known_signals, make_plan
from tests.conftest import examples

ROW = {"source": "x", "scorers": [{"name": "random"}], "on_empty": "keep"}


def recipe(**fields):
    return Recipe(**{**ROW, **fields})


def one(name, needs=(), price=0.0):
    """Make a measurement that gives a signal of its name."""
    body = {
        "name": name,
        "gives": (Given(name, "a test's"),),
        "needs": frozenset(needs),
        "cost": Cost(price),
        "measure": lambda self, run, wanted: {},
    }
    return type(name, (Measurement,), body)()


@settings(max_examples=examples(150), deadline=None)
@given(
    st.integers(1, 5).flatmap(
        lambda n: st.tuples(
            st.just(n),
            st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=2 * n),
            st.lists(st.integers(0, 2), min_size=n, max_size=n),
        )
    )
)
def test_the_order_is_that_of_brute_force(graph):
    n, edges, prices = graph
    needs = {number: {str(a) for a, b in edges if b == number} for number in range(n)}
    made = {str(number): one(str(number), needs[number], prices[number]) for number in range(n)}

    def holds(order):
        return all(order.index(need) < order.index(name) for name in order for need in made[name].needs)

    sorted_out = [order for order in permutations(made) if holds(order)]
    if not sorted_out:
        with pytest.raises(DataPrunerError, match="need each other in a circle"):
            in_order(made, made)
        return
    best = min(sorted_out, key=lambda order: [(made[name].cost.seconds, name) for name in order])
    assert [found.name for found in in_order(made, made)] == list(best)


def test_what_needs_each_other_is_named():
    circle = {"a": one("a", ["b"]), "b": one("b", ["a"]), "c": one("c")}
    with pytest.raises(DataPrunerError, match=r"in a circle: a, b$"):
        in_order(circle, circle)


def names(signals, **fields):
    return make_plan(recipe(**fields), {"the scorer 'x'": frozenset(signals)}).names


def test_nothing_is_measured_that_nobody_reads():
    assert names([]) == []
    assert names(["column:a", "column:b"]) == ["columns"]
    assert names(["neighbours"]) == ["embedding", "shape"]
    assert names(["num_tokens"]) == ["tokens"]
    assert names([], count_tokens=True) == ["tokens"]


def test_one_pass_serves_all_who_read_it():
    model, pair = {"model": "m"}, {"model": "m", "pruned_model": "p"}
    assert names(["log_ppl", "token_nll"], **model) == ["tokens", "losses"]
    assert names(["response_log_ppl", "log_ppl"], **model) == ["tokens", "losses", "responses"]
    assert names(["number_surprise"], **model) == ["tokens", "losses", "number_surprise"]
    assert names(["jsd", "log_ppl"], **pair) == ["tokens", "twins"]
    assert names(["jsd", "number_surprise"], **pair) == ["tokens", "twins", "number_surprise"]
    assert names(["jsd", "response_log_ppl"], **pair) == ["tokens", "responses", "twins"]
    assert names(["jsd"], divergences="d.npy") == ["divergences"]
    assert names(["jsd", "log_ppl"], divergences="d.npy", **model) == ["divergences", "tokens", "losses"]


def test_only_what_is_read_of_a_pass_is_wanted():
    plan = make_plan(recipe(model="m"), {"a": frozenset({"el2n"}), "b": frozenset({"log_ppl"})})
    assert {step.measurement.name: step.wanted for step in plan.steps}["losses"] == {"el2n", "log_ppl"}


def test_what_cleaning_reads_comes_first():
    cleaning = {"a step": frozenset({"neighbours"})}
    plan = make_plan(recipe(), {"the scorer 'x'": frozenset({"text", "label"})}, cleaning=cleaning)
    assert plan.names[: plan.first] == ["embedding", "shape"]
    assert sorted(plan.names[plan.first :]) == ["label", "text"]


def test_a_tokenizer_of_its_own_is_asked_only_where_somebody_counts():
    assert names(["log_ppl"], model="m", tokenizer="t") == ["losses"]


@pytest.mark.parametrize(
    ("signals", "fields", "said"),
    [
        (
            {"embeding"},
            {},
            r"the scorer 'x' needs a signal 'embeding'; there are .*\. Did you mean 'embedding'\?",
        ),
        ({"log_ppl"}, {}, "the scorer 'x' reads a language model's losses: name the model"),
        ({"number_surprise"}, {}, "the scorer 'x' reads a language model's losses"),
        ({"jsd"}, {"model": "m"}, "compares a pruned model with the dense one: pass pruned_model="),
        ({"jsd"}, {"pruned_model": "p"}, "compares a pruned model with the dense one: pass model="),
        ({"jsd"}, {"model": "m", "pruned_model": "p", "divergences": "d"}, "measured or given"),
        ({"jsd", "token_jsd"}, {"divergences": "d"}, "reads token_jsd too"),
        ({"log_ppl"}, {"model": "m", "pruned_model": "p"}, "pruned_model= is given, and no scorer"),
        (set(), {"divergences": "d"}, "divergences= is given, and no scorer"),
        ({"target_embedding"}, {}, "the scorer 'x' looks for the rows nearest to a target set"),
        (set(), {"target_split": "t"}, "target_split= is given, and no scorer of this run reads a target"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_the_plan_alone(signals, fields, said):
    with pytest.raises(DataPrunerError, match=said):
        names(signals, **fields)


def test_signals_of_plug_ins_are_no_built_in_ones(monkeypatch):
    monkeypatch.setattr(module, "available", lambda kind: {"mine": "there"})
    find = module.find_class
    own = {"mine": type(one("embedding"))}
    monkeypatch.setattr(
        module, "find_class", lambda kind, name, base: own.get(name) or find(kind, name, base)
    )
    with pytest.raises(DataPrunerError, match="gives a signal 'embedding', which is built in"):
        names(["something"])
    assert names(["embedding"]) == ["embedding"]  # a plug-in is looked at only where it is needed


def test_every_signal_says_what_it_is():
    known = known_signals()
    assert {"embedding", "log_ppl", "jsd", "neighbours", "num_tokens", "column:"} <= known.keys()
    for name, what in known.items():
        assert what.name == name
        assert what.what
        assert what.dtype in ("float64", "float32", "int64", "str")
    assert known["token_nll"].described().endswith("(ragged), nats")
