from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from datapruner.errors import DataPrunerError
from datapruner.geometry.blocks import (
    Matrix,
    RowView,
    SideBySide,
    gather,
    iter_blocks,
    normalise_rows,
    release_pages,
    require_finite,
    require_matrix,
    source_rows,
)


@pytest.fixture
def stored(tmp_path):
    def make(dtype="float32", rows=1000, columns=7):
        path = tmp_path / f"{dtype}.npy"
        array = np.random.default_rng(0).standard_normal((rows, columns)).astype(dtype)
        np.save(path, array)
        return array, np.load(path, mmap_mode="r")

    return make


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_blocks_cover_every_row_once(stored, dtype):
    array, mapped = stored(dtype)
    for matrix in (array, mapped, np.asarray(mapped), np.asfortranarray(array), mapped[:]):
        assert isinstance(matrix, Matrix)
        parts = list(iter_blocks(matrix, block_bytes=4 * 7 * 64))
        assert [p[0] for p in parts] == list(range(0, 1000, 64))
        assert parts[-1][1] == 1000
        for _, _, block in parts:
            assert type(block) is np.ndarray
            assert block.dtype == np.float32
            assert block.flags.c_contiguous
            assert block.flags.writeable
            assert not np.shares_memory(block, array)
        np.testing.assert_array_equal(np.concatenate([p[2] for p in parts]), array.astype(np.float32))


def test_a_block_has_at_least_one_row(stored):
    assert len(list(iter_blocks(stored()[0], block_bytes=1))) == 1000


def test_row_view_and_gather(stored):
    array, mapped = stored("float16")
    rng = np.random.default_rng(1)
    for rows in (np.arange(0, 1000, 3), rng.permutation(1000)[:200], rng.integers(0, 1000, 300)):
        view = RowView(mapped, rows)
        assert isinstance(view, Matrix)
        assert view.shape == (len(rows), 7) == (len(view), view.matrix.shape[1])
        expected = array[rows].astype(np.float32)
        np.testing.assert_array_equal(gather(mapped, rows, block_bytes=2 * 7 * 50), expected)
        blocks = [b for _, _, b in iter_blocks(view, block_bytes=4 * 7 * 64)]
        np.testing.assert_array_equal(np.concatenate(blocks), expected)
        nested = RowView(view, np.array([5, 2]))
        np.testing.assert_array_equal(nested[:], array[rows[[5, 2]]])
        np.testing.assert_array_equal(gather(nested, np.array([1, 0])), expected[[2, 5]])
        assert source_rows(nested, np.array([0]))[1] == rows[5]
    assert gather(array, np.empty(0, np.int64)).shape == (0, 7)


def test_row_view_checks_its_rows(stored):
    with pytest.raises(DataPrunerError, match="Row 1000 is outside"):
        RowView(stored()[0], np.array([0, 1000]))
    with pytest.raises(DataPrunerError, match="Row -1 is outside"):
        RowView(stored()[0], np.array([0, -1]))
    with pytest.raises(DataPrunerError, match="flat list"):
        RowView(stored()[0], np.array([[0]]))


@pytest.mark.parametrize(
    "matrix", [np.ones(3), np.ones((0, 3)), np.ones((3, 0)), np.ones((3, 3), dtype=np.int64)]
)
def test_unusable_matrices(matrix):
    with pytest.raises(DataPrunerError, match="Embeddings must"):
        require_matrix(matrix)


def test_copy_on_write_maps_keep_their_changes(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.ones((100, 4), dtype=np.float32))
    mapped = np.load(path, mmap_mode="c")
    mapped[3] = 7
    release_pages(mapped)
    assert (mapped[3] == 7).all()
    shared = np.load(path, mmap_mode="r+")
    shared[3] = 7
    release_pages(shared)
    assert (shared[3] == 7).all()


def test_normalise_rows():
    block = np.array([[3, 4], [0, 1e-30], [3e30, 4e30], [-1, 0]], dtype=np.float32)
    norms = normalise_rows(block)
    np.testing.assert_allclose(norms, [5, 1e-30, 5e30, 1], rtol=1e-6)
    np.testing.assert_allclose(block, [[0.6, 0.8], [0, 1], [0.6, 0.8], [-1, 0]], rtol=1e-6)


@pytest.mark.parametrize(("value", "message"), [(0, "all zeros"), (np.nan, "NaN"), (np.inf, "infinity")])
def test_bad_rows_are_named_by_their_number_in_the_source(value, message):
    source = np.ones((20, 3))
    source[17] = value
    view = RowView(RowView(source, np.arange(10, 20)), np.array([1, 7]))
    block = next(iter_blocks(view))[2]
    with pytest.raises(DataPrunerError, match=rf"^Row 17 .*{message}"):
        normalise_rows(block.copy(), matrix=view)
    with pytest.raises(DataPrunerError, match=r"^Row 31 "):
        normalise_rows(block.copy(), 30)
    with pytest.raises(DataPrunerError, match=r"^Row 9 "):
        normalise_rows(block.copy(), np.array([4, 9]))
    if value != 0:
        with pytest.raises(DataPrunerError, match=rf"^Row 17 .*{message}"):
            require_finite(block, matrix=view)


def test_float64_beyond_float32_is_reported_not_warned(recwarn):
    block = next(iter_blocks(np.array([[1.0, 0.0], [1e300, 0.0]])))[2]
    with pytest.raises(DataPrunerError, match=r"^Row 1 .*as float32"):
        normalise_rows(block)
    assert not recwarn.list


def test_a_finite_row_whose_sum_overflows_is_finite():
    require_finite(np.full((2, 4), 3e38, dtype=np.float32))


MEASURE = """
import sys
import numpy as np
from datapruner.geometry.blocks import RowView, gather, iter_blocks

def resident():
    for line in open("/proc/self/status"):
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024

mapped = np.load(sys.argv[1], mmap_mode="r")
n = len(mapped)
step = 8 << 20
before = resident()
worst = 0.0
views = [mapped, np.asarray(mapped), RowView(mapped, np.arange(0, n, 2))]
for matrix in views:
    for _ in iter_blocks(matrix, block_bytes=step):
        worst = max(worst, resident() - before)
for rows in (np.arange(0, n, 50), np.random.default_rng(0).permutation(n)[: n // 50]):
    gather(mapped, rows, block_bytes=step)
    worst = max(worst, resident() - before)
print(worst)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_resident_memory_stays_bounded(tmp_path):
    path = tmp_path / "large.npy"
    np.save(path, np.ones((400_000, 128), dtype=np.float16))  # 98 MiB
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 50


def test_vectors_beside_each_other_have_the_weighted_sum_of_cosines():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(9, 4)).astype(np.float32), rng.normal(size=(9, 3)).astype(np.float32)
    both = SideBySide([one, RowView(other, np.arange(9))], [0.5**0.5, 0.3**0.5])
    unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (one, other)]
    expected = 0.5 * unit[0] @ unit[0].T + 0.3 * unit[1] @ unit[1].T
    np.testing.assert_allclose(np.asarray(both) @ both[:].T, expected, atol=1e-6)
    assert both.shape == (9, 7)
    blocks = np.concatenate([block for _, _, block in iter_blocks(both, block_bytes=100)])
    np.testing.assert_array_equal(blocks, both[:])
    some = np.array([7, 2, 2])
    np.testing.assert_array_equal(gather(RowView(both, np.arange(1, 9)), some), both[some + 1])
    other[5] = 0
    with pytest.raises(DataPrunerError, match="Row 5 of the embeddings is all zeros"):
        both[4:6]
