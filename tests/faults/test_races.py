"""Whole runs of the command line into one new folder at the same time, ten rounds."""

from __future__ import annotations

import sys

import pytest

from tests.faults.telling import told_by

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="runs are forked"),
]


def test_of_runs_at_once_one_wins_and_what_others_put_there_stays(tmp_path):
    assert told_by("races", tmp_path, 10) == {"rounds": 10, "violations": []}
