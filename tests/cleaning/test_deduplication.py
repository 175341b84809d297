"""The three duplicate steps against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datapruner.cleaning import minhash
from datapruner.cleaning.crowd import Crowd
from datapruner.cleaning.grams import hashed_ngrams
from datapruner.cleaning.reasons import Reason
from datapruner.cleaning.rows import text_blocks
from datapruner.cleaning.steps import near
from datapruner.cleaning.steps.exact import exact_duplicates
from datapruner.cleaning.steps.near import near_duplicates
from datapruner.cleaning.steps.semantic import semantic_duplicates
from datapruner.cleaning.vetoes import Vetoes
from datapruner.errors import DataPrunerError
from datapruner.matching import match_form

WORDS = [f"w{i}" for i in range(400)]


def shingles(text, n):
    words = text.split()
    if not words:
        return set()
    if len(words) < n:
        return {tuple(words)}
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def jaccard(a, b):
    return len(a & b) / len(a | b) if a | b else 0.0


def corpus(rng, count, edits):
    """Random texts, and copies with a few words changed, anywhere."""
    texts = [" ".join(rng.choice(WORDS, rng.integers(3, 60))) for _ in range(count)]
    for _ in range(count):
        words = texts[rng.integers(len(texts))].split()
        for _ in range(rng.integers(0, edits)):
            words[rng.integers(len(words))] = str(rng.choice(WORDS))
        texts.insert(int(rng.integers(len(texts))), " ".join(words))
    return texts


def greedy(order, similar, protected):
    """The rule itself, without an index: {dropped row: kept row}."""
    kept, dropped = [], {}
    for j in order:
        scores = [(similar(i, j), -i) for i in kept]
        best = max(scores, default=(None, 0))
        if best[0] is not None and best[0] >= 0 and not protected[j]:
            dropped[j] = (-best[1], best[0])
        else:
            kept.append(j)
    return dropped


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
        crowd = Crowd.build(hashes, starts, rows, threshold)
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
        closest = near.closest
        monkeypatch.setattr(
            near,
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


def semantic_truth(vectors, assignment, centroids, rows, *, eps, keep_rule, protected):
    """SemDeDup with full similarity matrices."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
    centres = centroids / np.linalg.norm(centroids, axis=1, keepdims=True)
    dropped = {}
    for c in range(len(centroids)):
        members = [i for i in rows if assignment[i] == c]
        distance = {i: 1 - float((unit[i] * centres[c]).sum()) for i in members}
        members.sort(key=lambda i: (not protected[i], -distance[i], i))
        earlier = []
        for j in members:
            cosine = unit[earlier] @ unit[j] if earlier else np.array([-9.0])
            if cosine.max() > 1 - eps and not protected[j]:
                dropped[j] = (
                    cosine.max(),
                    [earlier[i] for i in np.flatnonzero(cosine > cosine.max() - 1e-6)],
                )
                if keep_rule == "kept":
                    continue
            earlier.append(j)
    return dropped


def cloud(rng, n, k, d=16):
    centroids = rng.normal(size=(k, d)).astype(np.float32)
    assignment = rng.integers(0, k, n)
    vectors = centroids[assignment] + rng.normal(scale=0.25, size=(n, d)).astype(np.float32)
    # Copies, exact and scaled: ties in distance and cosines of one.
    for _ in range(n // 10):
        i, j = rng.integers(0, n, 2)
        vectors[i], assignment[i] = vectors[j] * rng.choice([1, 4]), assignment[j]
    return vectors.astype(np.float32), assignment, centroids


class TestSemantic:
    @pytest.mark.parametrize("keep_rule", ["kept", "any"])
    @pytest.mark.parametrize("block_size", [2048, 33])
    def test_equals_brute_force(self, keep_rule, block_size):
        rng = np.random.default_rng(2)
        vectors, assignment, centroids = cloud(rng, 5000, 12)
        assignment[rng.random(5000) < 0.02] = -1
        rows = np.flatnonzero(rng.random(5000) < 0.95)
        protected = rng.random(5000) < 0.03
        truth = semantic_truth(
            vectors, assignment, centroids, rows, eps=0.1, keep_rule=keep_rule, protected=protected
        )
        vetoes = semantic_duplicates(
            vectors, assignment, centroids, rows,
            eps=0.1, keep_rule=keep_rule, block_size=block_size, protected=protected,
        )  # fmt: skip
        assert len(truth) > 500
        assert vetoes.rows.tolist() == sorted(truth)
        for row, other, measure in zip(vetoes.rows, vetoes.others, vetoes.measures, strict=True):
            assert measure == pytest.approx(truth[row][0], abs=1e-6)
            assert other in truth[row][1]

    def test_a_chain_does_not_vanish_under_the_default(self):
        angles = np.radians([40, 30, 20, 10])
        vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        arguments = (vectors, np.zeros(4, dtype=int), np.array([[1.0, 0.0]]), np.arange(4))
        eps = 1 - np.cos(np.radians(12))
        assert semantic_duplicates(*arguments, eps=eps).rows.tolist() == [1, 3]
        assert semantic_duplicates(*arguments, eps=eps, keep_rule="any").rows.tolist() == [1, 2, 3]

    def test_of_equal_vectors_the_first_row_stays(self):
        vectors = np.tile(np.random.default_rng(0).normal(size=7), (50, 1)).astype(np.float16)
        vetoes = semantic_duplicates(
            vectors, np.zeros(50, dtype=int), vectors[:1], np.arange(50), block_size=8
        )
        assert vetoes.rows.tolist() == list(range(1, 50))
        assert set(vetoes.others.tolist()) == {0}

    def test_reads_a_memmap_and_keeps_clusters_apart(self, tmp_path):
        vectors, assignment, centroids = cloud(np.random.default_rng(4), 300, 5)
        np.save(tmp_path / "e.npy", vectors)
        mapped = np.load(tmp_path / "e.npy", mmap_mode="r")
        rows = np.arange(300)
        vetoes = semantic_duplicates(mapped, assignment, centroids, rows, eps=0.1)
        direct = semantic_duplicates(vectors, assignment, centroids, rows, eps=0.1)
        assert len(vetoes) > 10
        assert vetoes.rows.tolist() == direct.rows.tolist()
        assert (assignment[vetoes.rows] == assignment[vetoes.others]).all()
        assert np.array_equal(vectors, mapped)  # the input is not scaled in place

    def test_zero_vectors_and_rows_without_cluster_stay(self):
        vectors = np.array([[0, 0], [0, 0], [1, 0], [1, 0]], dtype=np.float32)
        assert len(semantic_duplicates(vectors, [0, 0, -1, -1], np.ones((1, 2)), np.arange(4))) == 0

    def test_not_a_number_names_the_row(self):
        vectors = np.ones((3, 2))
        vectors[2, 1] = np.nan
        with pytest.raises(DataPrunerError, match="row 2 is not finite"):
            semantic_duplicates(vectors, np.zeros(3, dtype=int), np.ones((1, 2)), np.arange(3))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"eps": 0}, "eps"),
            ({"keep_rule": "best"}, "keep_rule"),
            ({"block_size": 0}, "block_size"),
            ({"assignment": [0, 0]}, "needs one of both"),
            ({"assignment": [0, 0, 3]}, "Cluster 3 has no centroid"),
            ({"rows": [0, 5]}, "needs one of both"),
        ],
    )
    def test_wrong_arguments(self, change, message):
        arguments = {
            "embeddings": np.ones((3, 2)),
            "assignment": [0] * 3,
            "centroids": np.ones((1, 2)),
            "rows": [0, 1, 2],
        }
        with pytest.raises(DataPrunerError, match=message):
            semantic_duplicates(**(arguments | change))
