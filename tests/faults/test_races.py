"""Whole runs of the command line into one new folder at the same time, ten rounds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="runs are forked"),
]
HERE = Path(__file__).parent


def test_of_runs_at_once_one_wins_and_what_others_put_there_stays(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-m", "tests.faults.races", tmp_path, "10"],
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    told = ran.stdout.split()
    print(ran.stdout)
    assert told == ["10", "rounds,", "0", "violations"]
