"""Every built-in part passes the contract suite, with its defaults and with other parameters."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from datapruner.cleaning.step import CleaningStep
from datapruner.parts import CLEANING, MEASUREMENTS, SCORERS, SELECTORS, built_in, find, make
from datapruner.scorers import make_scorer
from datapruner.selection.selectors import make_selector
from datapruner.testing import (
    MEASUREMENT_CHECKS,
    check_cleaning_step,
    example_rows,
    example_signals,
    parametrize_with_checks,
)
from datapruner.testing.measurement_checks import Measured

VARIANTS = [
    ("concept_complexity", {"keep": "easy", "n_clusters": 3}),
    ("concept_complexity", {"keep": "random", "temperature": 0.1, "n_clusters": 3}),
    ("prototypes", {"keep": "easy", "balance": 0.0, "n_clusters": 4}),
    ("length", {"shortest": True}),
    ("stratified", {"n_clusters": 3}),
    ("auto", {"power": 0.0, "n_clusters": 3}),
    ("auto", {"power": 1.0, "within": "kind"}),
    ("donod", {"step_size": 1e-3, "weights": [0.7, 0.3]}),
    ("donod", {"don": "grow"}),
    ("donod", {"step_size": 10.0, "normalization": "minmax", "length_correction": True}),
    ("perplexity", {"keep": "high"}),
    ("el2n", {"keep": "low"}),
    ("grad_norm", {"keep": "low"}),
    ("ifd", {"variant": "superfiltering", "drop_above_one": False}),
    ("ifd", {"keep": "low"}),
    ("response_noise", {"numbers": False, "n_clusters": 3}),
    ("combined", {"by": "mean_rank", "within": "kind", "min_group": 20}),
    ("combined", {"by": "topsis", "within": "column:kind", "scorers": ["donod", "ifd", "length"]}),
    ("combined", {"by": "topsis", "scorers": ["ifd", {"name": "ifd", "parameters": {"keep": "low"}}]}),
    ("combined", {"within": "cluster", "n_clusters": 3, "scorers": ["el2n", "prototypes"]}),
    ("combined", {"scorers": ["random", "perplexity", "combined"]}),
    (
        "d2",
        {"scorer": {"name": "el2n", "parameters": {"keep": "low"}}, "n_neighbors": 3, "gamma_reverse": 0.1},
    ),
    ("k_center", {"centres": 20}),
    ("classifier", {"label": "toxic", "keep": "low"}),
    ("classifier", {"expected": True}),
    ("judge", {"prompt": "{row}?", "grades": ["a", "b"], "chat": False, "keep": "low"}),
    ("combined", {"scorers": ["judge", {"name": "judge", "parameters": {"prompt": "complexity"}}]}),
    ("best_of_prompt", {"m": 3, "window": 16}),
    ("preference_margin", {"keep": "small"}),
    ("preference_margin", {"keep": "middling", "label": "good"}),
    ("preference_margin", {"reward": "implicit"}),
    ("excess_loss", {"over": "row", "token_keep": 0.3}),
    ("excess_loss", {"token_keep": 1.0}),
    ("feature_mapping", {"within": "cluster", "n_clusters": 3}),
    ("label_mapping", {"within": "kind", "train_rows": 50}),
    ("nearest_target", {"representation": "embedding", "selection": "doubly_greedy"}),
    ("nearest_target", {"selection": "mean"}),
    ("nearest_target", {"representation": "sketch"}),
    ("nearest_target", {"representation": "gradient"}),
    ("paser", {"n_clusters": 3, "target": True, "budget": "degradation_size"}),
    ("paser", {"n_clusters": 3, "budget": "token_degradation"}),
    ("paser", {"within": "kind", "degradation": "gradient", "efficiency": "typical", "weights": {"1": 0.0}}),
    (
        "paser",
        {
            "within": "cluster",
            "n_clusters": 3,
            "degradation": "loss",
            "efficiency": "loss_per_cost",
            "concepts": 0,
        },
    ),
    ("paser", {"n_clusters": 4, "efficiency": "random", "budget": "uniform"}),
]
SELECTOR_VARIANTS = [
    ("group_quota", {"projection": "proportional"}),
    ("group_quota", {"floor_share": 0.5}),
    ("power_allocation", {"power": 0.0}),
    ("topk", {"balance": 0.5}),
    ("ccs", {"beta": 0.0, "strata": 7}),
    ("ccs", {"beta": 0.9, "strata": 3}),
    ("message_passing", {"gamma_reverse": 0.0}),
    ("novel", {"threshold": 0.3}),
    ("top_tokens", {"token_keep": 0.05, "balance": 0.5}),
    ("top_tokens", {"over": "row"}),
]


@cache
def drawn():
    signals = example_signals()
    codes = np.random.default_rng(0).choice(4, size=signals.num_rows, p=[0.5, 0.3, 0.15, 0.05])
    return replace(signals, measured={**signals.measured, "column:kind": codes})


def signals_and_a_column():
    """Anew for every check: a copy costs less than drawing it."""
    return copy.deepcopy(drawn())


@parametrize_with_checks(
    [make_scorer(*case) for case in [*((name, {}) for name in built_in(SCORERS)), *VARIANTS]],
    signals=signals_and_a_column,
)
def test_scorers(part, check):
    check(part)


@parametrize_with_checks(
    [make_selector(*case) for case in [*((name, {}) for name in built_in(SELECTORS)), *SELECTOR_VARIANTS]]
)
def test_selectors(part, check):
    check(part)


@parametrize_with_checks(
    [find(MEASUREMENTS, name)() for name in ("label", "text", "tokens", "shape", "columns")],
    fields={"manifold": "pca", "n_neighbors": 5},
)
def test_measurements_without_a_model(part, check):
    check(part)


@pytest.mark.parametrize("name", built_in(MEASUREMENTS))
def test_measurements_describe_themselves(name):
    MEASUREMENT_CHECKS["measurement_describes_itself"](find(MEASUREMENTS, name)(), Measured())


NUMBERS = np.random.default_rng(1)
NEEDED_BY_CLEANING = {
    "embedding": np.repeat(NUMBERS.normal(size=(15, 8)), 3, axis=0).astype(np.float32),
    "unread": np.arange(45) % 7 == 0,
    "supervised_as_fed": np.where(np.arange(45) % 5 == 0, 0, 9),
    "cut_as_fed": np.arange(45) % 2 == 0,
}


@parametrize_with_checks(
    [
        make(CLEANING, CleaningStep, name, {"never_keep": {"listed": [1, 5]}}.get(name))
        for name in built_in(CLEANING)
        if name not in ("contaminated", "against")  # which read a file: below
    ],
    needed=NEEDED_BY_CLEANING,
)
def test_cleaning_steps(part, check):
    check(part)


def test_the_step_that_reads_a_test_set(tmp_path):
    rows = example_rows()
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:9]))
    step = make(CLEANING, CleaningStep, "contaminated", {"source": str(tmp_path / "test.jsonl"), "ngram": 2})
    check_cleaning_step(step, rows)


def test_the_step_that_reads_an_earlier_set(tmp_path):
    rows = example_rows()
    (tmp_path / "held.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:9]))
    held = str(tmp_path / "held.jsonl")
    step = make(CLEANING, CleaningStep, "against", {"sources": (held,), "names": (held,), "ngram": 2})
    check_cleaning_step(step, rows)
