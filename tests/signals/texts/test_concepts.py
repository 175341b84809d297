"""Concepts of texts: a brute force over all n-grams, the two ways of counting, and what must not break a reader."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from itertools import pairwise
from math import log2

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from datapruner.errors import DataPrunerError
from datapruner.signals.texts.concepts import FEW_ROWS, MAX_SHARE, extract, extract_concepts
from datapruner.signals.texts.corpus import read
from datapruner.signals.texts.ngrams import frequent_grams, frequent_words, likely_grams
from tests.conftest import examples

# Words that no list holds; one that may open a concept but not close it, and a stop word.
WORDS = ["zan", "zeb", "zic", "zod", "social", "the"]
ROWS = st.lists(st.lists(st.sampled_from([*WORDS, ","]), max_size=8).map(" ".join), max_size=14)
PARAMETERS = {"min_rows": st.integers(1, 3), "max_words": st.integers(1, 3), "per_row": st.integers(1, 4)}


def listed(found):
    return [found.names[ids].tolist() for ids in found.ids]


def table(found):
    return {
        name: (pytest.approx(value), rows)
        for name, value, rows in zip(found.names.tolist(), found.c_values, found.rows.tolist(), strict=True)
    }


def within(shorter, longer):
    return any(longer[at : at + len(shorter)] == shorter for at in range(len(longer) - len(shorter) + 1))


def brute_force(rows, min_rows, max_words, per_row):
    """All n-grams of all rows as tuples of words, C-value word for word."""
    grams = []
    for row in rows:
        pieces = [piece.split() for piece in row.replace("the", ",").split(",")]
        grams.append(
            {
                tuple(piece[at : at + length])
                for piece in pieces
                for length in range(1, max_words + 2)
                for at in range(len(piece) - length + 1)
            }
        )
    frequency = Counter(gram for row in grams for gram in row)
    ceiling = max(FEW_ROWS, MAX_SHARE * len(rows))
    candidates = {g: f for g, f in frequency.items() if min_rows <= f <= ceiling and g[-1] != "social"}
    value = {}
    for gram, rows_of in candidates.items():
        longer = [f for other, f in candidates.items() if len(other) > len(gram) and within(gram, other)]
        c_value = log2(len(gram) + 1) * (rows_of - (sum(longer) / len(longer) if longer else 0))
        if len(gram) <= max_words and c_value > 1e-9:
            value[gram] = c_value
    out = []
    for row in grams:
        held = [gram for gram in row if gram in value]
        outer = [g for g in held if not any(len(o) > len(g) and within(g, o) for o in held)]
        # Sums of the same numbers in another order may differ in the last digit; ties go by name.
        outer.sort(key=lambda gram: (-round(value[gram], 9), " ".join(gram)))
        out.append([" ".join(gram) for gram in outer[:per_row]])
    shown = {name for row in out for name in row}
    return out, {" ".join(g): (v, frequency[g]) for g, v in value.items() if " ".join(g) in shown}


@given(rows=ROWS, **PARAMETERS)
@settings(deadline=None, max_examples=examples(300))
def test_equals_a_brute_force_over_all_ngrams(rows, min_rows, max_words, per_row):
    found = extract_concepts(rows, min_rows=min_rows, max_words=max_words, per_row=per_row)
    names, values = brute_force(rows, min_rows, max_words, per_row)
    assert listed(found) == names
    assert values == table(found)


@given(rows=ROWS, seed=st.integers(0, 10), **PARAMETERS)
@settings(deadline=None)
def test_contract(rows, seed, min_rows, max_words, per_row):
    found = extract_concepts(iter(rows), min_rows=min_rows, max_words=max_words, per_row=per_row)
    assert len(found.ids) == len(rows)
    assert found.ids.values.dtype == found.rows.dtype == np.int64
    assert found.c_values.dtype == np.float64
    assert found.names.dtype.kind == "U"
    k = len(found.names)
    assert found.c_values.shape == found.rows.shape == (k,)
    assert np.unique(found.ids.values).tolist() == list(range(k))
    assert (found.rows >= min_rows).all()
    for ids in found.ids:
        assert len(ids) <= per_row
        assert (np.diff(ids) > 0).all()  # numbers ascend as C-values descend
    keys = list(zip(-found.c_values, found.names.tolist(), strict=True))
    assert all(one < other for one, other in pairwise(keys))
    # The order of the rows moves the rows of ids, and nothing else.
    order = np.random.default_rng(seed).permutation(len(rows))
    other = extract_concepts(
        [rows[row] for row in order], min_rows=min_rows, max_words=max_words, per_row=per_row
    )
    assert other.names.tolist() == found.names.tolist()
    assert other.c_values.tolist() == found.c_values.tolist()
    assert [other.ids[new].tolist() for new in range(len(rows))] == [found.ids[old].tolist() for old in order]


@pytest.mark.parametrize("buckets", [1, 7, 1 << 10])
def test_counting_hashes_first_changes_nothing(buckets):
    rng = np.random.default_rng(0)
    words = np.array([f"z{a}{b}" for a in "abcd" for b in "klmn"])
    rows = [" ".join(rng.choice(words, rng.integers(0, 30))) for _ in range(400)]
    corpus = read(rows)
    plain = extract(corpus, 3, 3, 5, None)
    assert (np.char.count(plain.names, " ") == 2).sum() > 10
    # Many blocks, and their counts merged.
    pruned = extract(corpus._replace(at_once=500), 3, 3, 5, buckets)
    assert listed(pruned) == listed(plain)
    assert table(pruned) == table(plain)


def test_crowded_hashes_are_a_small_part():
    rng = np.random.default_rng(1)
    words = np.array([f"zz{a}{b}{c}" for a in "abcdefgh" for b in "klmnopqr" for c in "aeiou"])
    corpus = read([" ".join(rng.choice(words, 40)) for _ in range(300)])
    level = frequent_words(corpus, 2)
    grams = np.full(len(corpus.words) + 1, -1, dtype=np.int32)
    grams[level.keys] = np.arange(len(level.keys))
    likely = likely_grams(corpus, grams[corpus.tokens], 2, 1 << 20)
    pairs = Counter(
        pair for row in range(300) for pair in set(pairwise(corpus.tokens[row * 41 : row * 41 + 40]))
    )
    frequent = sum(times >= 2 for times in pairs.values())
    assert len(frequent_grams(corpus, grams[corpus.tokens], 2, likely).keys) == frequent
    assert frequent <= likely.sum() < len(pairs) / 2


def test_published_c_value_of_nested_terms():
    """Every longer term takes away its mean: 6 rows of 'cell', 3 in 'basal cell', 1 in a still longer one."""
    rows = ["cell", "cell", "cell", "basal cell", "basal cell", "basal cell carcinoma"]
    found = extract_concepts(rows, min_rows=1)
    values = dict(zip(found.names.tolist(), found.c_values.tolist(), strict=True))
    # 'cell' is in: basal cell (3), cell carcinoma (1), basal cell carcinoma (1).
    assert values["cell"] == pytest.approx(log2(2) * (6 - (3 + 1 + 1) / 3))
    assert values["basal cell"] == pytest.approx(log2(3) * (3 - 1))
    assert values["basal cell carcinoma"] == pytest.approx(log2(4) * 1)
    assert "carcinoma" not in values  # only ever within a longer one


def test_what_is_nested_in_a_row_is_dropped_there_only():
    rows = [
        "balance a binary tree",
        "binary tree and binary",
        "the binary format",
        "binary of an ELF",
        "tree",
    ]
    assert listed(extract_concepts(rows)) == [
        ["binary tree"],
        ["binary tree"],
        ["binary"],
        ["binary"],
        ["tree"],
    ]


def test_a_word_repeated_in_a_row_counts_once():
    found = extract_concepts(["goldfish goldfish, goldfish", "a goldfish", "parrot, parrot, parrot"])
    assert found.names.tolist() == ["goldfish"]
    assert found.rows.tolist() == [2]


def test_boundaries():
    text = (
        "Write 3 parsers: a red-black tree, C++ and C#; foo_bar camelCase 42 quickly Obama's x 2nd "
        + "z" * 31
    )
    found = extract_concepts([text] * 2, per_row=20)
    assert set(found.names) == {"parsers", "red-black tree", "c++", "c#", "foo_bar camelcase", "obama"}


def test_other_scripts():
    texts = [
        "机器学习的模型",
        "机器学习和数据",
        "нейронная сеть",
        "Нейронная сеть!",
        "हिन्दी भाषा",
        "हिन्दी भाषा",
        "cafe\u0301",
        "CAFÉ",
    ]
    names = listed(extract_concepts(texts))
    assert names[0] == names[1]
    assert set(names[0]) <= {"机器学", "器学习"}
    assert names[2] == names[3] == ["нейронная сеть"]
    assert names[4] == ["हिन्दी भाषा"]
    assert names[6] == names[7] == ["café"]


def test_sentences_of_a_template_are_not_read():
    template = "A portal to the internet. Call the wizard portal now.\n"
    rows = [template + f"zan{row // 2}x" for row in range(2 * FEW_ROWS)]
    assert listed(extract_concepts(rows)) == [[f"zan{row // 2}x"] for row in range(2 * FEW_ROWS)]
    # As many rows as are allowed: the sentences are read.
    assert "wizard portal" in extract_concepts(rows[:FEW_ROWS]).names


def test_what_is_in_too_many_rows_is_no_concept():
    rows = ["quokka"] * (FEW_ROWS + 1) + ["wombat"] * FEW_ROWS
    assert extract_concepts(rows).names.tolist() == ["wombat"]


@pytest.mark.parametrize(
    "rows", [[], [""], ["", "  \n", "..."], ["the of", "12 3.4"], ["\ud800\udfff \x00 \x1b[0m"] * 2]
)
def test_texts_without_words(rows):
    found = extract_concepts(rows)
    assert len(found.ids) == len(rows)
    assert len(found.names) == len(found.ids.values) == 0


@given(st.lists(st.text(max_size=60), max_size=8))
@example(["A\U00013460"])
@settings(deadline=None)
def test_any_text_is_read(texts):
    found = extract_concepts(texts * 2)
    assert (
        found.ids.values[: found.ids.offsets[len(texts)]].tolist()
        == found.ids.values[found.ids.offsets[len(texts)] :].tolist()
    )
    assert all(name == name.lower() for name in found.names.tolist())
    # Letters that Unicode has and this Python does not know yet are unassigned (Cn) to it.
    letters = set("".join(found.names.tolist()))
    assert all(letter.isprintable() or unicodedata.category(letter) == "Cn" for letter in letters)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"min_rows": 0}, "min_rows must be at least 1, not 0"),
        ({"max_words": 6}, "max_words must be from 1 to 5, not 6"),
        ({"per_row": 0}, "per_row must be at least 1, not 0"),
    ],
)
def test_parameters_out_of_range(parameters, sentence):
    with pytest.raises(DataPrunerError, match=sentence):
        extract_concepts(["a text"], **parameters)


def test_a_row_that_is_no_text():
    with pytest.raises(DataPrunerError, match="row 1 is of type NoneType"):
        extract_concepts(["a text", None])


def test_longest_n_grams():
    row = "zan zeb zic zod zuf"
    found = extract_concepts([row, row], max_words=5)
    assert listed(found) == [[row], [row]]
    assert found.c_values.tolist() == pytest.approx([log2(6) * 2])


def test_mixture(shared_data):
    """Most rows of real data have concepts, and those of a template are not among them."""
    with (shared_data / "sft" / "mixture.train.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    found = extract_concepts("\n".join(message["content"] for message in row["messages"]) for row in rows)
    assert (found.ids.lengths > 0).mean() > 0.95
    assert not {"toolformer", "toolformer access", "search engine"} & set(found.names)
    assert {"barack obama", "factorial", "renewable energy", "weather forecast"} <= set(found.names)
