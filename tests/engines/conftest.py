"""Rows, what one process makes of them, and blocks so small that workers have several."""

from __future__ import annotations

import json

import numpy as np
import pytest

from datapruner.measuring import pool
from tests.engines.in_threads import ROWS, bytes_of, pruned


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Conversations, one of them twice, one without an answer."""
    rng = np.random.default_rng(0)
    words = ["red", "green", "blue", "seven", "twelve", "walks", "sleeps", "never", "often"]
    rows = [
        {name: " ".join(rng.choice(words, rng.integers(3, 12)).tolist()) for name in ("prompt", "completion")}
        for _ in range(ROWS)
    ]
    rows[40] = rows[7]
    rows[11]["completion"] = ""
    path = tmp_path_factory.mktemp("source") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def whole(source, tiny_llama, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return bytes_of(pruned(source, tiny_llama, folder / "cache"), folder / "out")


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(pool, "BLOCK_ROWS", (8, 64))
    monkeypatch.setattr(pool, "BATCHES", 0)
