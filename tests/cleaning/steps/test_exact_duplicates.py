"""Exact duplicates against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapruner.cleaning.steps.exact import exact_duplicates
from datapruner.errors import DataPrunerError
from datapruner.matching import match_form


class TestExact:
    def test_what_does_not_matter_is_chosen(self):
        texts = [
            "Hello  Wörld",
            "other",
            "Hello\nWörld ",
            "Hello  Wo\u0308rld",
            "HELLO, wörld!",
            "Hello  Wörld",
        ]
        for match, rows in (("exact", [5]), ("text", [2, 3, 5]), ("loose", [2, 3, 4, 5])):
            vetoes = exact_duplicates(texts, np.arange(6), match=match)
            assert vetoes.rows.tolist() == rows
            assert set(vetoes.others.tolist()) == {0}
            assert vetoes.reasons()[0] == "exact duplicate of row 0"

    def test_forms_that_differ_in_meaning_stay(self):
        texts = ["What is 52?", "What is 5²?", "What is 5₂?", "½", "1⁄2", "x", "ｘ", "𝐱", "ℝ", "R"]
        assert len(exact_duplicates(texts, np.arange(len(texts)))) == 0

    @given(
        st.lists(st.sampled_from(["a", "A ", "b", "", "é", "e\u0301", "²", "2", "\udfff"]), max_size=30),
        st.integers(0, 2**30 - 1),
        st.integers(1, 3),
    )
    def test_equals_a_dictionary_of_texts(self, texts, mask, step):
        rows = np.arange(len(texts)) * step
        protected = np.zeros(100, dtype=bool)
        protected[rows] = [bool(mask >> i & 1) for i in range(len(texts))]
        keeper = {}
        for text, row in zip(map(match_form, texts), rows.tolist(), strict=True):
            if protected[row] and not protected[keeper.setdefault(text, row)]:
                keeper[text] = row
            keeper.setdefault(text, row)
        expected = [
            (row, keeper[text])
            for text, row in zip(map(match_form, texts), rows.tolist(), strict=True)
            if keeper[text] != row and not protected[row]
        ]
        vetoes = exact_duplicates(texts, rows, protected)
        assert list(zip(vetoes.rows.tolist(), vetoes.others.tolist(), strict=True)) == expected

    def test_rows_are_source_positions(self):
        vetoes = exact_duplicates(iter(["a", "b", "a"]), [4, 7, 19])
        assert (vetoes.rows.tolist(), vetoes.others.tolist()) == ([19], [4])

    def test_protected_rows_win_and_all_stay(self):
        protected = np.array([False, False, True, False, True])
        vetoes = exact_duplicates(["a"] * 5, np.arange(5), protected)
        assert vetoes.rows.tolist() == [0, 1, 3]
        assert vetoes.others.tolist() == [2, 2, 2]

    @given(st.lists(st.sampled_from(["a", "A ", "b", "", "ß", "ss", "\ud800"]), max_size=20))
    def test_one_row_of_each_text_stays(self, texts):
        vetoes = exact_duplicates(texts, np.arange(len(texts)), match="loose")
        plain = [" ".join(text.casefold().split()) for text in texts]
        assert vetoes.rows.tolist() == [i for i, text in enumerate(plain) if text in plain[:i]]
        assert vetoes.others.tolist() == [plain.index(plain[i]) for i in vetoes.rows]

    @pytest.mark.parametrize("texts", [["a"], ["a", "b", "c"]])
    def test_one_text_a_row(self, texts):
        with pytest.raises(DataPrunerError, match="texts"):
            exact_duplicates(texts, [0, 1])

    def test_names_the_row_without_text(self):
        with pytest.raises(DataPrunerError, match="Row 9 holds NoneType"):
            exact_duplicates(["a", None], [3, 9])

    def test_rows_must_ascend(self):
        with pytest.raises(DataPrunerError, match="ascending"):
            exact_duplicates(["a", "b"], [1, 0])

    def test_mask_must_cover_the_rows(self):
        with pytest.raises(DataPrunerError, match="none for row 5"):
            exact_duplicates(["a"], [5], np.zeros(5, dtype=bool))
