"""A few cases of the fuzzer, so that it goes on working; `make fuzz` for an hour of them."""

from __future__ import annotations

import sys

import pytest

from tests.faults.telling import told_by

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="forks, /proc and limits are Linux's"),
]


def test_mutated_runs_are_done_or_refused_in_a_sentence(tmp_path):
    told = told_by(
        "fuzz",
        "--seed",
        0,
        "--cases",
        25,
        "--seconds",
        500,
        "--keep",
        tmp_path / "kept",
        TMPDIR=str(tmp_path),
    )
    assert told["cases"] == 25
    # Some must succeed, and some must be refused, or nothing is tried.
    assert told["codes"]["0"] >= 5
    assert told["codes"]["2"] >= 5
    assert told["loaded and compared"] >= 1
