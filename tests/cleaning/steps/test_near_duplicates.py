"""Near duplicates against brute force."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datapruner.cleaning import minhash, near_search
from datapruner.cleaning.crowd import Crowd
from datapruner.cleaning.grams import hashed_ngrams
from datapruner.cleaning.rows import text_blocks
from datapruner.cleaning.steps import near
from datapruner.cleaning.steps.near import near_duplicates
from datapruner.errors import DataPrunerError
from datapruner.files import spill
from datapruner.files.spill import Spill
from tests.cleaning.brute import WORDS, corpus, greedy, jaccard, shingles


class TestNear:
    @pytest.mark.parametrize("ngram", [1, 2, 3])
    def test_shingles_are_the_distinct_ngrams(self, ngram):
        texts = ["a b c a b c", "a", "a a", "", "b a", "x y z"]
        hashes, counts = hashed_ngrams([text.split() for text in texts], ngram)
        assert counts.tolist() == [len(shingles(text, ngram)) for text in texts]
        parts = [set(part.tolist()) for part in np.split(hashes, np.cumsum(counts)[:-1])]
        for i, first in enumerate(texts):
            for j, second in enumerate(texts):
                assert jaccard(parts[i], parts[j]) == jaccard(shingles(first, ngram), shingles(second, ngram))

    def test_short_rows_can_be_left_out(self):
        assert hashed_ngrams([["a"], ["a", "b"], []], 2, short_rows=False)[1].tolist() == [0, 1, 0]
        assert hashed_ngrams([], 2)[0].size == 0

    def test_signatures_are_those_of_datasketch(self):
        from datasketch import MinHash

        hashes, counts = hashed_ngrams([text.split() for text in corpus(np.random.default_rng(0), 10, 3)], 3)
        ours = minhash.signatures(hashes, counts, minhash.permutations_of(64, 5))
        for signature, part in zip(ours, np.split(hashes, np.cumsum(counts)[:-1]), strict=True):
            sketch = MinHash(num_perm=64, seed=5, scheme="affine32", hashfunc=int)
            sketch.update_batch((part >> np.uint64(32)).tolist())
            assert np.array_equal(sketch.hashvalues, signature)

    @pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.9, 1.0])
    def test_bands_find_a_pair_at_the_threshold(self, threshold):
        bands, values = minhash.bands_for(threshold, 128)
        assert bands * values <= 128
        assert 1 - (1 - threshold**values) ** bands >= 0.995
        longer = 128 // (values + 1)
        assert values == 128 or 1 - (1 - threshold ** (values + 1)) ** longer < 0.995

    @pytest.mark.parametrize(("threshold", "ngram"), [(0.7, 3), (0.5, 2), (0.9, 1)])
    def test_equals_the_rule_without_an_index(self, threshold, ngram):
        texts = corpus(np.random.default_rng(3), 150, 4)
        sets = [shingles(text, ngram) for text in texts]
        protected = np.random.default_rng(1).random(len(texts)) < 0.1
        order = sorted(range(len(texts)), key=lambda i: (not protected[i], i))
        # Scores below the threshold are pushed below zero: "not similar".
        truth = greedy(
            order, lambda i, j: s if (s := jaccard(sets[i], sets[j])) >= threshold else -1, protected
        )
        vetoes = near_duplicates(
            texts, np.arange(len(texts)), threshold=threshold, ngram=ngram, protected=protected
        )
        assert len(truth) > 20
        # Bands miss one pair in two hundred at the threshold itself; seeds are fixed, so this is no lottery.
        assert vetoes.rows.tolist() == sorted(truth)
        assert vetoes.others.tolist() == [truth[row][0] for row in sorted(truth)]
        assert vetoes.measures.tolist() == [truth[row][1] for row in sorted(truth)]

    def test_finds_nearly_all_pairs(self):
        texts = corpus(np.random.default_rng(8), 400, 6)
        sets = [shingles(text, 3) for text in texts]
        close = {(i, j) for j in range(len(sets)) for i in range(j) if jaccard(sets[i], sets[j]) >= 0.7}
        hashes, counts = hashed_ngrams([text.split() for text in texts], 3)
        bands, values = minhash.bands_for(0.7, 128)
        keys = minhash.band_keys(hashes, counts, minhash.permutations_of(128, 0)[:, : bands * values], bands)
        found = {(i, j) for i, j in close if (keys[i] == keys[j]).any()}
        assert len(close) > 200
        assert len(found) >= 0.98 * len(close)

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(st.lists(st.sampled_from("abcd"), max_size=8).map(" ".join), max_size=14),
        st.sampled_from([0.3, 0.5, 0.7, 1.0]),
        st.integers(0, 2**14 - 1),
    )
    def test_kept_first(self, texts, threshold, mask):
        protected = np.array([bool(mask >> i & 1) for i in range(len(texts))], dtype=bool)
        rows = np.arange(len(texts))
        vetoes = near_duplicates(texts, rows, threshold=threshold, ngram=2, protected=protected)
        kept = np.setdiff1d(rows, vetoes.rows)
        sets = [shingles(text, 2) for text in texts]
        assert not protected[vetoes.rows].any()
        assert np.isin(vetoes.others, kept).all()
        for row, other, measure in zip(vetoes.rows, vetoes.others, vetoes.measures, strict=True):
            assert other < row or protected[other]
            assert measure == jaccard(sets[row], sets[other]) >= threshold
        for text in {text for text in texts if text}:
            # Copies share every band: of equals one is left, or the protected ones.
            left = [i for i in kept if texts[i] == text]
            assert len(left) <= 1 or protected[left].all()

    def test_rounding_does_not_lose_a_pair_at_the_threshold(self):
        # 0.55 * 100 > 55 in floating point, but 55 / 100 >= 0.55.
        vetoes = near_duplicates(
            [" ".join(WORDS[:100]), " ".join(WORDS[:55])], [0, 1], threshold=0.55, ngram=1
        )
        assert vetoes.measures.tolist() == [0.55]

    @pytest.mark.parametrize("own", [5, 14, 16, 20, 25])
    def test_rows_of_one_template_equal_the_rule(self, monkeypatch, own):
        rng = np.random.default_rng(own)
        texts = [" ".join([*WORDS[:60], *rng.choice(WORDS, own + rng.integers(0, 3))]) for _ in range(120)]
        texts += corpus(rng, 60, 4)
        # Near-duplicates inside the crowd as well, some of them protected.
        texts += [text.replace(" w33 ", " ") for text in texts[:40]]
        protected = rng.random(len(texts)) < 0.1
        rows = np.arange(len(texts))
        sets = [shingles(text, 3) for text in texts]
        truth = greedy(
            sorted(rows.tolist(), key=lambda i: (not protected[i], i)),
            lambda i, j: s if (s := jaccard(sets[i], sets[j])) >= 0.7 else -1,
            protected,
        )
        monkeypatch.setattr(near, "CROWDED", 8)
        vetoes = near_duplicates(texts, rows, protected=protected)
        assert len(truth) > 40
        assert dict(zip(vetoes.rows.tolist(), vetoes.others.tolist(), strict=True)) == {
            row: other for row, (other, _) in truth.items()
        }

    @given(
        st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=12).map(" ".join), max_size=20),
        st.sampled_from([0.3, 0.5, 0.55, 0.7, 0.8, 1.0]),
    )
    def test_rare_shingles_lose_no_pair(self, texts, threshold):
        hashes, counts = hashed_ngrams([text.split() for text in texts], 1)
        starts = np.concatenate([[0], np.cumsum(counts)])
        rows = np.arange(0, len(texts), 1 if threshold < 0.6 else 2)
        shingles = Spill(np.uint64)
        shingles.append(hashes)
        crowd = Crowd.build(shingles, starts, rows, threshold)
        kept = np.ones(len(texts), dtype=bool)
        sets = [set(text.split()) for text in texts]
        for i in rows.tolist():
            close = {j for j in rows.tolist() if j != i and jaccard(sets[i], sets[j]) >= threshold}
            found = crowd.candidates(i, kept)
            assert close <= set(found) <= set(rows.tolist())
            assert len(found) <= crowd.work[i]

    @pytest.mark.parametrize("own", [20, 25])
    def test_a_template_is_not_compared_row_by_row(self, monkeypatch, own):
        rng = np.random.default_rng(2)
        words = [f"v{i}" for i in range(5000)]
        texts = [" ".join([*WORDS[: 90 - own], *rng.choice(words, own)]) for _ in range(600)]
        compared = []
        closest = near_search.closest
        monkeypatch.setattr(
            near_search,
            "closest",
            lambda i, found, *rest: compared.append(found.size) or closest(i, found, *rest),
        )
        assert len(near_duplicates(texts, np.arange(len(texts)))) == 0
        # 0.87 of the 180,000 pairs share a bucket.
        assert sum(compared) < 2 * len(texts)

    def test_reason(self):
        vetoes = near_duplicates(["a b c d e", "q", "a b c d e"], [2, 5, 8])
        assert vetoes.reasons() == ["near-duplicate of row 2 (Jaccard 1.00)"]

    def test_short_and_empty_texts(self):
        vetoes = near_duplicates(["hi", "", "HI ", "", "hi there"], np.arange(5))
        assert vetoes.rows.tolist() == [2]

    def test_scripts_without_spaces_are_cut_at_characters(self):
        text = "機械学習のためのデータを慎重に選び直して重複を取り除く"
        vetoes = near_duplicates([text, text[:-1] + "け", "別の文章がここに書かれている"], np.arange(3))
        assert vetoes.rows.tolist() == [1]

    def test_same_bytes_across_blocks(self, monkeypatch):
        texts = corpus(np.random.default_rng(5), 60, 4)
        whole = near_duplicates(texts, np.arange(len(texts)))
        monkeypatch.setattr(text_blocks, "__defaults__", (7,))
        parts = near_duplicates(iter(texts), np.arange(len(texts)))
        assert len(whole) > 10
        for name in ("rows", "others", "measures"):
            assert np.array_equal(getattr(whole, name), getattr(parts, name))

    @pytest.mark.parametrize("wrong", [{"threshold": 0}, {"threshold": 1.1}, {"ngram": 0}, {"num_perm": 0}])
    def test_wrong_settings(self, wrong):
        with pytest.raises(DataPrunerError, match="must"):
            near_duplicates(["a"], [0], **wrong)

    def test_no_rows(self):
        assert len(near_duplicates([], [])) == 0


class TestRareWords:
    """Likeness by what few rows have: ``rare``."""

    @staticmethod
    def texts(rng, requests=40, others=60):
        """Requests under one long description, copies of some of them, and other texts."""
        description = [str(word) for word in rng.choice(WORDS, 60)]
        made = [" ".join([*description, *rng.choice(WORDS, 9)]) for _ in range(requests)]
        made += [" ".join(rng.choice(WORDS, rng.integers(20, 60))) for _ in range(others)]
        copies = []
        for text in [*made[:5], *made[requests : requests + 20]]:
            words = text.split()
            words[-1 - int(rng.integers(5))] = "edited"
            copies.append(" ".join(words))
        return [*made, *copies]

    def test_requests_under_one_description_are_no_copies(self):
        texts = self.texts(np.random.default_rng(0))
        rows = np.arange(len(texts))
        assert len(near_duplicates(texts, rows).rows) > 55
        found = near_duplicates(texts, rows, rare=0.6)
        # What is found are copies, and of their own text. That five of them differ in a word of the request from the
        # requests that they copy is much of what they have of their own.
        assert set(zip(found.rows.tolist(), found.others.tolist(), strict=True)) >= {
            (105 + number, 40 + number) for number in range(20)
        }
        assert set(found.rows.tolist()) <= set(range(100, 125))

    @pytest.mark.parametrize("seed", range(4))
    def test_against_the_rule_by_brute_force(self, seed):
        rng = np.random.default_rng(seed)
        texts = self.texts(rng, 12, 15)
        texts = [texts[place] for place in rng.permutation(len(texts))]
        sets = [shingles(text, 3) for text in texts]
        held = Counter(shingle for one in sets for shingle in one)
        weight = {shingle: math.log(len(texts) / count) for shingle, count in held.items()}

        def alike(i, j, least):
            plain = jaccard(sets[i], sets[j])
            weighted = sum(map(weight.get, sets[i] & sets[j])) / sum(map(weight.get, sets[i] | sets[j]))
            return plain if plain >= 0.7 and weighted >= least else -1

        none = np.zeros(len(texts), dtype=bool)
        first = greedy(range(len(texts)), lambda i, j: alike(i, j, 0), none)
        wanted = {row: other for row, (other, _) in first.items() if alike(other, row, 0.6) >= 0}
        # The others once more, after the rows that were kept, which stay.
        kept = [row for row in range(len(texts)) if row not in first]
        weak = [row for row in first if row not in wanted]
        none[kept] = True
        second = greedy([*kept, *weak], lambda i, j: alike(i, j, 0.6), none)
        wanted |= {row: other for row, (other, _) in second.items()}
        assert weak
        found = near_duplicates(texts, np.arange(len(texts)), rare=0.6)
        assert dict(zip(found.rows.tolist(), found.others.tolist(), strict=True)) == wanted

    def test_copies_are_copies_however_many_there_are(self):
        rng = np.random.default_rng(0)
        one = " ".join(rng.choice(WORDS, 30))
        texts = [one] * 50 + [" ".join(rng.choice(WORDS, 30)) for _ in range(20)]
        assert near_duplicates(texts, np.arange(70), rare=0.6).rows.tolist() == list(range(1, 50))
        assert near_duplicates([one] * 9, np.arange(9), rare=0.6).rows.tolist() == list(range(1, 9))


@pytest.mark.parametrize("rare", [0.0, 0.6])
def test_a_search_that_spills_finds_the_same(monkeypatch, rare):
    rng = np.random.default_rng(3)
    base = [" ".join(map(str, rng.integers(0, 400, 30))) for _ in range(60)]
    template = " ".join(f"t{i}" for i in range(20))
    texts = [*base, *(f"{text} more" for text in base[::3]), *(f"{template} {i} {i % 7}" for i in range(150))]

    def found():
        return near_duplicates(texts, np.arange(len(texts)), whole=[f"{text} x" for text in texts], rare=rare)

    wanted = found()
    assert len(wanted) >= (20 if rare else 100)
    monkeypatch.setattr(spill, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(near, "IN_MEMORY_BYTES", 0)
    other = found()
    for name in ("rows", "others", "measures"):
        np.testing.assert_array_equal(getattr(wanted, name), getattr(other, name))
