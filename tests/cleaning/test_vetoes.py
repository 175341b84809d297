"""What a step hands on."""

from __future__ import annotations

import numpy as np
import pytest

from datapruner.cleaning.vetoes import Vetoes
from datapruner.reasons import Reason


class TestVetoes:
    def test_reasons_name_the_other_row(self):
        vetoes = Vetoes(
            Reason("near_duplicate", "{other}: {measure:.2f}"),
            np.array([3, 5]),
            np.array([0, 1]),
            np.array([0.75, 1]),
        )
        assert vetoes.reasons() == ["0: 0.75", "1: 1.00"]
        assert len(vetoes) == 2
        assert vetoes.rows.dtype == np.int64
        assert vetoes.measures.dtype == np.float64

    @pytest.mark.parametrize(
        ("rows", "others"),
        [([1, 2], [0]), ([2, 1], [0, 0]), ([1, 1], [0, 0]), ([-1, 1], [0, 0]), ([[1]], [[0]])],
    )
    def test_refuses_arrays_that_do_not_belong_together(self, rows, others):
        with pytest.raises(ValueError, match="must be"):
            Vetoes(Reason("x"), np.array(rows), np.array(others), np.ones(np.shape(rows)))

    def test_arrays_are_copies_that_cannot_be_written(self):
        rows = np.array([1, 2])
        vetoes = Vetoes(Reason("x"), rows, rows, np.ones(2))
        rows[0] = 9
        assert vetoes.rows[0] == 1
        with pytest.raises(ValueError, match="read-only"):
            vetoes.rows[0] = 3
