"""A few cases of the fuzzer, so that it goes on working; `make fuzz` for an hour of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="forks, /proc and limits are Linux's"),
]


def test_mutated_runs_are_done_or_refused_in_a_sentence(tmp_path):
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.faults.fuzz",
            "--seed",
            "0",
            "--cases",
            "25",
            "--keep",
            tmp_path / "kept",
        ],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    told = json.loads(ran.stdout)
    assert told["cases"] == 25
    # Some must succeed, and some must be refused, or nothing is tried.
    assert told["codes"]["0"] >= 5
    assert told["codes"]["2"] >= 5
    assert told["loaded and compared"] >= 1
