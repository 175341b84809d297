"""What ends a command is one sentence and an exit code."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tests.conftest import command, without_progress


def too_large() -> None:
    np.empty(2**50)


def arrow_too_large() -> None:
    raise pa.ArrowMemoryError("malloc of size 137438953472 failed")


def bytes_too_large() -> None:
    bytearray(2**62)


@pytest.mark.parametrize(
    ("asks", "said"),
    [
        (too_large, "there is not enough memory (8.00 PiB more were asked for); "),
        (arrow_too_large, "there is not enough memory; "),
        (bytes_too_large, "there is not enough memory; "),
    ],
)
def test_memory_that_runs_out_is_a_sentence(asks, said, tmp_path, monkeypatch, capsys):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "a"}\n')
    monkeypatch.setattr("datapruner.samples.inspect_samples", lambda *_a, **_k: asks())
    assert command(monkeypatch, "inspect", rows) == 2
    told = without_progress(capsys.readouterr().err)
    assert told.startswith(f"datapruner: {said}")
    assert told.count("\n") == 1
