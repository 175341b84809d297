"""Folders of scores: everything that a selection needs comes back as it was."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest

import datapruner as dp
from datapruner.cleaning.vetoes import Vetoes
from datapruner.outputs.score_files import META, TABLE
from datapruner.reasons import Reason
from datapruner.recipe import Method, Recipe
from datapruner.samples import load_samples
from datapruner.scorers import Random, Ranking, Scorer
from datapruner.scores import Scores, load_scores

N = 12
ROWS = [{"text": f"row {i}"} for i in range(N)]


@dataclass(frozen=True)
class Odd(Scorer):
    """Columns and arrays of every kind, under unfortunate names."""

    name: ClassVar[str] = "odd"
    needs: ClassVar[frozenset[str]] = frozenset()

    def _score(self, signals):
        n = signals.num_rows
        return Ranking(
            np.arange(n, dtype=np.float64),
            groups=np.arange(n) % 2,
            group_weights=np.array([1.0, 2.0]),
            columns={
                "label": np.array([f"l{i % 3}" for i in range(n)]),
                "cluster": np.arange(n) % 2,
                "good": np.arange(n) % 2 == 0,
                "part": np.linspace(0, 1, n),
                "num_tokens": np.full(n, 7),
            },
            state={
                "file": np.arange(3),
                "allow_pickle": np.array([True]),
                "group_weights": np.arange(4.0),
                "a/b": np.zeros((2, 3), np.float32),
            },
        )


@dataclass(frozen=True)
class Other(Odd):
    name: ClassVar[str] = "part"


def test_a_dataset_without_text_and_vectors_in_memory(tmp_path):
    data = [{"id": i} for i in range(N)]
    vectors = np.random.default_rng(0).normal(size=(N, 4))
    scores = dp.score(data, scorers="prototypes", embeddings=vectors, progress=False)
    scores.save(tmp_path / "scores")
    again = load_scores(tmp_path / "scores", source=data)
    assert np.array_equal(again.select(keep=4).kept, scores.select(keep=4).kept)


def test_state_and_columns_come_back_as_they_were(tmp_path):
    scores = dp.score(ROWS, scorers=[Odd(), Other()], never_keep=[3])
    scores.save(tmp_path / "scores")
    again = load_scores(tmp_path / "scores", source=ROWS, scorers=[Odd(), Other()])
    for name, before in scores.rankings.items():
        after = again.rankings[name]
        assert np.array_equal(before.values, after.values, equal_nan=True)
        assert np.array_equal(before.groups, after.groups)
        assert np.array_equal(before.group_weights, after.group_weights)
        for first, second in ((before.columns, after.columns), (before.state, after.state)):
            assert list(first) == list(second)
            for key, array in first.items():
                assert array.dtype == second[key].dtype, key
                np.testing.assert_array_equal(array, second[key])
    one, two = scores.select("odd", keep=4), again.select("odd", keep=4)
    for row in (0, 3, 5):
        assert repr(one.explain(row)) == repr(two.explain(row))


def test_arrays_of_objects_are_one_sentence(tmp_path):
    class Objects(Odd):
        name: ClassVar[str] = "objects"

        def _score(self, signals):
            return Ranking(np.zeros(signals.num_rows), state={"a": np.array([{}, []], dtype=object)})

    with pytest.raises(dp.DataPrunerError, match="state of the scorer 'objects' cannot be saved"):
        dp.score(ROWS, scorers=Objects()).save(tmp_path / "scores")
    assert list(tmp_path.iterdir()) == []


def test_two_steps_of_one_kind_stay_apart(tmp_path):
    samples = load_samples(ROWS)
    vetoes = [
        Vetoes(
            Reason("mine", "first {other} {measure}"),
            np.array([1, 4]),
            np.array([0, 2]),
            np.array([0.5, 0.25]),
        ),
        Vetoes(
            Reason("mine", "second {other} {measure}"),
            np.array([2, 5]),
            np.array([3, 6]),
            np.array([1.0, 2.0]),
        ),
        Vetoes(Reason("none", "never"), np.array([], int), np.array([], int), np.array([])),
    ]
    values = np.arange(N, dtype=np.float64)
    values[[1, 2, 4, 5]] = np.nan
    recipe = Recipe(scorers=[Method(name="random")])
    forced = np.zeros(N, dtype=np.bool_)
    scores = Scores(samples, recipe, {"random": Random()}, {"random": Ranking(values)}, vetoes, forced)
    scores.save(tmp_path / "scores")
    again = load_scores(tmp_path / "scores", source=ROWS)
    assert [(v.kind, v.rows.tolist(), v.reasons()) for v in again.vetoes] == [
        (v.kind, v.rows.tolist(), v.reasons()) for v in vetoes
    ]
    assert pq.read_table(tmp_path / "scores" / "scores.parquet")["veto"].to_pylist()[:3] == [
        None,
        "mine",
        "mine",
    ]


def test_columns_of_one_name_never_replace_each_other(tmp_path):
    rankings = {
        "a": Ranking(np.zeros(N), columns={"x": np.arange(N), "x.b": np.arange(N) + 1}),
        "b": Ranking(np.ones(N), columns={"x": np.arange(N) + 2, "index": np.arange(N) + 3}),
        "c": Ranking(np.ones(N), columns={"x": np.arange(N)}),
    }
    recipe = Recipe(scorers=[Method(name="random")])
    forced = np.zeros(N, dtype=np.bool_)
    scores = Scores(load_samples(ROWS), recipe, dict.fromkeys(rankings, Random()), rankings, [], forced)
    scores.save(tmp_path / "scores")
    again = load_scores(tmp_path / "scores", source=ROWS)
    for name, ranking in rankings.items():
        for key, values in ranking.columns.items():
            assert np.array_equal(again.rankings[name].columns[key], values), (name, key)


def test_measured_tokens_win_and_dropped_rows_have_no_score_columns(tmp_path, tiny_llama):
    scores = dp.score(ROWS, scorers=[Odd()], never_keep=[3], count_tokens=True, tokenizer=str(tiny_llama))
    selection = scores.select(keep=4)
    selection.save(tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "selection.parquet").to_pydict()
    assert table["num_tokens"] == scores.tokens["num_tokens"].tolist()
    for name in ("cluster", "label", "good", "part", "score"):
        assert table[name][3] is None, name
        assert None not in table[name][:3] + table[name][4:], name
    assert dp.explain(tmp_path / "out", 3)["cluster"] is None


BROKEN = {
    "a list": [],
    "no rows": {"rows": None},
    "rows that are no number": {"rows": "many"},
    "endless rows": {"rows": float("inf")},
    "scorers in a list": {"scorers": []},
    "a scorer that is a number": {"scorers": {"random": 3}},
    "vetoes that are a number": {"vetoes": 3},
    "a veto without its sentence": {"vetoes": [["exact_duplicate"]]},
    "a sentence that is a number": {"vetoes": [["exact_duplicate", 3]]},
    "a sentence that is wide": {"vetoes": [["exact_duplicate", "{measure:1000000000}"]]},
    "a sentence of an object": {"vetoes": [["exact_duplicate", "{other.__class__}"]]},
    "tokens in a list": {"tokens": [1]},
}


def test_scores_whose_recipe_names_another_scorer(tmp_path):
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    dp.score(str(source), scorers=["random", "length"]).save(tmp_path / "out")
    recipe = tmp_path / "out" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("name: length", "name: stratified"))
    (tmp_path / "out" / "checksums.txt").unlink()
    scores = load_scores(tmp_path / "out")
    with pytest.raises(dp.DataPrunerError, match=r"names no scorer 'length'.*score again"):
        scores.select("length", keep=2)
    assert len(scores.select("length", keep=2, selector="topk").indices) == 2


@pytest.mark.parametrize("kind", BROKEN)
def test_descriptions_of_any_other_form_are_damaged(tmp_path, kind):
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    dp.score(str(source), scorers="random").save(tmp_path / "out")
    load_scores(tmp_path / "out")
    file = tmp_path / "out" / TABLE
    table = pq.read_table(file)
    said = json.loads(table.schema.metadata[META])
    broken = {**said, **BROKEN[kind]} if isinstance(BROKEN[kind], dict) else BROKEN[kind]
    pq.write_table(table.replace_schema_metadata({META: json.dumps(broken).encode()}), file)
    (tmp_path / "out" / "checksums.txt").unlink()
    with pytest.raises(dp.DataPrunerError, match="damaged; score again"):
        load_scores(tmp_path / "out")
