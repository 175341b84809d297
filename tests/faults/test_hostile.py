"""Hostile input of every kind; a file of its own, so that it runs beside the crash test."""

from __future__ import annotations

import sys

import pytest

from tests.faults.telling import told_by

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="forks, /proc and limits are Linux's"),
]

KINDS = {
    "JSON": 50, "CSV": 17, "packed": 20, "pipes, devices and links": 23, "media": 17, "Parquet": 60, "Arrow": 57,
    "arrays": 29, "models": 50, "tokenizers": 18, "templates": 16, "adapters": 10, "recipes": 45, "saved": 48,
    "caches": 16, "arguments and outputs": 45,
}  # fmt: skip


# Every third case by default, for the two minutes that the faults have; all of them in `make test-all`.
@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_what_is_hostile_ends_soon_in_little_memory_with_a_result_or_a_sentence(tmp_path, every):
    told = told_by("corpus", f"--every={every}", DATAPRUNER_CACHE=str(tmp_path))
    assert set(told["cases"]) == set(KINDS)
    for kind, least in KINDS.items():
        assert told["cases"][kind] >= least // every, kind
    assert told["ran"] == sum(told["cases"].values())
    # A harness in which nothing runs, or nothing is refused, would pass.
    assert told["codes"]["0"] > 50 // every
    assert told["codes"]["2"] > 200 // every
    assert told["violations"] == []
