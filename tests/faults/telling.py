"""Programs of these tests in processes of their own, which print what they found as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def told_by(program: str, *words: object, **environment: str) -> dict:
    """Run `python -m tests.faults.PROGRAM`, with one thread, to its end."""
    ran = subprocess.run(
        [sys.executable, "-m", f"tests.faults.{program}", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    print(ran.stdout)
    return json.loads(ran.stdout)
