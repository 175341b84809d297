"""Measurements that a plug-in brings, row by row: found, stored, and read by a scorer."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import datapruner as dp
from datapruner.errors import DataPrunerError
from datapruner.ragged import Ragged
from datapruner.signals.measurement import Given
from datapruner.signals.packing import pack, unpack
from tests.conftest import examples
from tests.plugin import install

PLUGIN = """
from dataclasses import dataclass

import numpy as np

import datapruner as dp
from datapruner.signals.by_rows import RowMeasurement
from datapruner.signals.measurement import Given

CALLS = []


class Vowels(RowMeasurement):
    name = "vowels"
    gives = (
        Given("vowel_share", "share of vowels among the letters"),
        Given("vowel_counts", "how often each vowel comes", shape="matrix", dtype="int64"),
        Given("word_lengths", "letters of every word", shape="token", dtype="float32"),
    )
    needs = frozenset({"num_tokens"})
    block_rows = 3

    def measure_rows(self, block):
        CALLS.append(block.rows.tolist())
        assert len(block.signals.column("num_tokens")) == len(block)
        counts = np.array([[text.count(vowel) for vowel in "aeiou"] for text in block.texts])
        return {
            "vowel_share": counts.sum(axis=1) / [len(text) for text in block.texts],
            "vowel_counts": counts,
            "word_lengths": [[len(word) for word in text.split()] for text in block.texts],
        }


@dataclass(frozen=True)
class FewVowels(dp.Scorer):
    name = "few_vowels"
    needs = frozenset({"vowel_share", "word_lengths"})

    def _score(self, signals):
        assert len(signals.ragged("word_lengths")) == signals.num_rows
        return dp.Ranking(-signals.column("vowel_share"))
"""
TEXTS = ["banana", "rhythm and blues", "queue", "sky", "aeiou aeiou", "tree house", "xyz q"]


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A package with a measurement and a scorer, as pip would install it."""
    points = {
        "datapruner.measurements": {"vowels": "vowels_plugin:Vowels"},
        "datapruner.scorers": {"few_vowels": "vowels_plugin:FewVowels"},
    }
    install(tmp_path, monkeypatch, "vowels_plugin", PLUGIN, points)
    yield importlib.import_module("vowels_plugin")
    sys.modules.pop("vowels_plugin", None)


def score(rows, cache, **options):
    return dp.score(
        [{"text": text} for text in rows], scorers="few_vowels", cache=cache, progress=False, **options
    )


def test_a_plug_in_is_found_by_its_signals_and_stored_by_what_rows_say(plugin, tmp_path):
    found = score(TEXTS, tmp_path / "cache").rankings["few_vowels"].values
    shares = [sum(map(text.count, "aeiou")) / len(text) for text in TEXTS]
    np.testing.assert_array_equal(found, -np.array(shares))
    assert plugin.CALLS == [[0, 1, 2], [3, 4, 5], [6]]

    plugin.CALLS.clear()
    again = score([*TEXTS[::-1], "brand new"], tmp_path / "cache").rankings["few_vowels"].values
    np.testing.assert_array_equal(again[:-1], found[::-1])
    assert plugin.CALLS == [[7]]

    plugin.CALLS.clear()
    plugin.Vowels.version = 2
    score(TEXTS, tmp_path / "cache")
    assert len(plugin.CALLS) == 3


def test_what_it_gives_reaches_scorers_as_it_was_announced(plugin, tmp_path):
    from datapruner.measuring.arguments import requested
    from datapruner.measuring.measure import measure

    signals = measure(
        requested([{"text": text} for text in TEXTS], scorers="few_vowels", cache=tmp_path, progress=False)
    ).signals
    assert signals.table("vowel_counts").dtype == np.int64
    assert signals.table("vowel_counts")[4].tolist() == [2, 2, 2, 2, 2]
    assert [row.tolist() for row in signals.ragged("word_lengths")][1] == [6, 3, 5]
    with pytest.raises(DataPrunerError, match=r"'vowel_share' is one number a row.*signals\.column"):
        signals.matrix("vowel_share")


@pytest.mark.parametrize(
    ("gave", "said"),
    [
        ("np.zeros(2)", r"gave 'vowel_share' of shape \(2,\) for 3 rows"),
        ("np.zeros((len(block), 2))", r"of shape \(3, 2\) for 3 rows, and announces the shape 'row'"),
        ("['a'] * len(block)", "holds no numbers of the type float64"),
        ("{'other': 1}", "did not give the signal 'vowel_share', which it announces"),
    ],
)
def test_what_it_gives_wrongly_is_said(plugin, tmp_path, gave, said):
    def measure_rows(self, block):
        found = eval(gave)
        return (
            found
            if isinstance(found, dict)
            else {
                "vowel_share": found,
                "vowel_counts": np.zeros((len(block), 5)),
                "word_lengths": [[]] * len(block),
            }
        )

    plugin.Vowels.measure_rows = measure_rows
    with pytest.raises(DataPrunerError, match=said):
        score(TEXTS, tmp_path)


NUMBERS = {
    "float64": st.floats(width=64, allow_nan=True),
    "float32": st.floats(width=32, allow_nan=True),
    "float16": st.floats(width=16, allow_nan=True),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "int8": st.integers(-128, 127),
    "bool": st.booleans(),
}


@settings(max_examples=examples(120), deadline=None)
@given(st.data())
def test_records_give_back_what_was_put_into_them(data):
    rows = data.draw(st.integers(0, 5))
    gives, held = [], {}
    for number in range(data.draw(st.integers(1, 3))):
        dtype = data.draw(st.sampled_from(sorted(NUMBERS)))
        shape = data.draw(st.sampled_from(["row", "matrix", "token"]))
        gives.append(Given(f"s{number}", "a test's", shape=shape, dtype=dtype))
        if shape == "token":
            parts = [
                data.draw(arrays(dtype, data.draw(st.integers(0, 4)), elements=NUMBERS[dtype]))
                for _ in range(rows)
            ]
            held[f"s{number}"] = Ragged.from_rows(parts, dtype)
        else:
            size = rows if shape == "row" else (rows, data.draw(st.integers(0, 3)))
            held[f"s{number}"] = data.draw(arrays(dtype, size, elements=NUMBERS[dtype]))
    back = unpack(gives, pack(gives, held, rows, "it"), "it")
    for given_ in gives:
        before, after = held[given_.name], back[given_.name]
        if given_.shape == "token":
            np.testing.assert_array_equal(before.offsets, after.offsets)
            before, after = before.values, after.values
        assert after.dtype == before.dtype
        if rows:
            np.testing.assert_array_equal(before, after)
