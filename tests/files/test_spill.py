"""Arrays that grow: what is read is what was written, in memory or from a file."""

from __future__ import annotations

import tempfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapruner.errors import DataPrunerError
from datapruner.files.spill import Spill


@given(
    st.lists(st.lists(st.integers(0, 2**64 - 1), max_size=9), max_size=8),
    st.sampled_from([0, 40, 10_000]),
    st.lists(st.tuples(st.integers(0, 80), st.integers(0, 20)), max_size=5),
)
def test_it_is_an_array(blocks, most, runs):
    held = Spill(np.uint64, most)
    for block in blocks:
        held.append(np.array(block, np.uint64))
    whole = np.array([item for block in blocks for item in block], np.uint64)
    assert len(held) == len(whole)
    np.testing.assert_array_equal(held[:], whole)
    np.testing.assert_array_equal(np.concatenate([whole[:0], *held.blocks()]), whole)
    starts = np.array([min(start, len(whole)) for start, _ in runs], np.int64)
    sizes = np.array(
        [min(size, len(whole) - start) for start, (_, size) in zip(starts.tolist(), runs, strict=True)],
        np.int64,
    )
    wanted = [whole[start : start + size] for start, size in zip(starts, sizes, strict=True)]
    np.testing.assert_array_equal(held.take(starts, sizes), np.concatenate([whole[:0], *wanted]))


def test_a_full_disk_is_a_sentence(monkeypatch):
    def full(**_named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(DataPrunerError, match="No space left on device"):
        Spill(np.int64, 8).append(np.arange(9))
