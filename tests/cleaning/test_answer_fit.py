"""How answers fit their prompts is the same in every process."""

from __future__ import annotations

import os
import subprocess
import sys

FOUND = """
import hashlib
import numpy as np
from datapruner.cleaning.answer_fit import answer_fit

rng = np.random.default_rng(0)
texts = [[" ".join(f"w{n}" for n in rng.integers(0, 300, 20)) for _ in range(60)] for _ in range(2)]
vectors = rng.normal(size=(2, 60, 8)).astype(np.float32)
fit = answer_fit(*texts, *vectors, np.zeros(60, np.int64), np.zeros(60, np.int64))
print(hashlib.sha256(fit.own.tobytes() + fit.decoys.tobytes()).hexdigest())
"""


def test_the_order_of_a_set_moves_no_digit():
    found = {
        subprocess.run(
            [sys.executable, "-c", FOUND],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(found) == 1
