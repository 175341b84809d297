"""What a comparison says of scorers, against pandas, scipy and loops; and one pass of every model for all of them."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata, spearmanr

import datapruner as dp
from datapruner.comparison.tables import balance
from datapruner.errors import DataPrunerError
from datapruner.overlap import chance, jaccard
from datapruner.ranks import rank_correlation
from datapruner.scorers import Ranking, Scorer, available_scorers
from datapruner.signals import Signals
from tests.conftest import command, without_progress

N = 120
HOSTILE = ["=cmd|' /C calc'!A0", "\x1b[31mred\u202e", "plain"]
NEEDS_MORE = {
    "unranked",
    "paser",
    "feature_mapping",
    "label_mapping",
    "nearest_target",
    "classifier",
    "excess_loss",
    "judge",
    "preference_margin",
}
"""Scorers that need a twin, a target or another model."""


@dataclass(frozen=True)
class Up(Scorer):
    """Random values with ties."""

    name: ClassVar[str] = "up"
    needs: ClassVar[frozenset[str]] = frozenset()

    def _score(self, signals: Signals) -> Ranking:
        return Ranking(np.random.default_rng(5).integers(30, size=signals.num_rows).astype(float))


@dataclass(frozen=True)
class Down(Scorer):
    """The other way round, but for noise; in groups."""

    name: ClassVar[str] = "down"
    needs: ClassVar[frozenset[str]] = frozenset({"num_tokens"})

    def _score(self, signals: Signals) -> Ranking:
        rng = np.random.default_rng(5)
        values = -rng.integers(30, size=signals.num_rows) + rng.normal(size=signals.num_rows)
        return Ranking(values, groups=np.arange(signals.num_rows) % 7, group_weights=np.ones(7))


@dataclass(frozen=True)
class Flat(Scorer):
    """The same value for every row."""

    name: ClassVar[str] = "flat"
    needs: ClassVar[frozenset[str]] = frozenset()

    def _score(self, signals: Signals) -> Ranking:
        return Ranking(np.zeros(signals.num_rows))


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    words = [f"w{number}" for number in range(90)]
    made = [
        {
            "question": " ".join(rng.choice(words, 6)),
            "answer": " ".join(rng.choice(words, 1 + i % 23)),
            "kind": HOSTILE[int(rng.integers(3))],
            "id": i,
        }
        for i in range(N - 10)
    ]
    return [*made, *({**row, "id": N + row["id"]} for row in made[:10])]


@pytest.fixture(scope="module")
def compared(rows, tmp_path_factory):
    """Three budgets, of which the last is in tokens, over rows of which ten are dropped as duplicates."""
    return dp.compare(
        rows,
        scorers=[Up(), Down(), Flat()],
        keep=[0.1, 40],
        keep_tokens=300,
        by="kind",
        dedup=["exact"],
        cache=tmp_path_factory.mktemp("cache"),
    )


def left(compared):
    """Source rows that cleaning left."""
    return np.flatnonzero(np.isfinite(compared.selections["up"].values))


# --- budgets ------------------------------------------------------------------------------------------------


def test_every_budget_is_what_prune_keeps(compared, rows, cache):
    assert [at.label for at in compared.budgets] == [
        "0.1 of the rows",
        "40 rows",
        "300 supervised tokens",
    ]
    assert compared.names == ["up", "down", "flat", "random", "length"]
    assert compared.asked == ("up", "down", "flat")
    for at, budget in zip(compared.budgets, ({"keep": 0.1}, {"keep": 40}, {"keep_tokens": 300}), strict=True):
        for scorer in (Up(), Down(), "length", "random"):
            alone = dp.prune(rows, scorer=scorer, dedup=["exact"], **budget)
            assert np.array_equal(at.selections[alone.scorer].kept, alone.kept)
            assert all(one.scores is compared.scores for one in at.selections.values())
    assert compared.selections is compared.budgets[0].selections
    assert compared.overlap is compared.budgets[0].overlap
    assert compared.chance is compared.budgets[0].chance


def test_chance_follows_the_numbers_of_rows(compared):
    """For a budget in tokens every scorer keeps another number of rows, and chance is of these."""
    at = compared.at(2)
    counts = [len(one) for one in at.selections.values()]
    assert len(set(counts)) > 2
    eligible, forced = np.isin(np.arange(N), left(compared)), np.zeros(N, bool)
    for i, a in enumerate(counts):
        for j, b in enumerate(counts):
            assert at.chance[i, j] == pytest.approx(chance((a, b), (eligible, eligible), forced))
    assert compared.chance == pytest.approx(np.full((5, 5), compared.chance[0, 0]))


def test_the_frame_of_pairs(compared):
    frame = compared.to_frame()
    assert len(frame) == 3 * 10
    one = frame[(frame["budget"] == "40 rows") & (frame["first"] == "up") & (frame["second"] == "length")]
    a, b = (set(compared.at(1).selections[name].indices.tolist()) for name in ("up", "length"))
    assert one["jaccard"].item() == pytest.approx(len(a & b) / len(a | b))
    values = [compared.selections[name].values[left(compared)] for name in ("up", "length")]
    assert one["spearman"].item() == pytest.approx(spearmanr(*values).statistic)
    assert frame[frame["first"] == "flat"]["spearman"].isna().all()


def test_one_budget_may_be_given_as_it_was(rows, cache):
    assert dp.compare(rows, scorers=Up()).budgets[0].budget.keep == 0.3
    found = dp.compare(rows, scorers=Up(), keep_tokens=[200, 100])
    assert [at.budget.keep_tokens for at in found.budgets] == [200, 100]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"keep": [0.3, 0.3]}, "the budget of 0.3 of the rows is given twice"),
        ({"keep": [0.3, "many"]}, "keep must be a fraction or a number of rows"),
        ({"keep_tokens": [0]}, "keep_tokens= must be a positive number of tokens"),
        ({"by": "knid"}, "Did you mean 'kind'"),
        ({"by": ["kind", 3]}, "by names columns, not 3"),
        ({"by": "groups of up"}, "rename that column"),
        ({"scorers": "perplexity"}, "reads a language model's losses"),
    ],
)
def test_bad_arguments(rows, options, sentence):
    with pytest.raises(DataPrunerError, match=sentence):
        dp.compare(rows, **{"scorers": Up(), **options})


def test_a_column_of_ids_makes_no_groups(rows, monkeypatch):
    from datapruner.comparison import run

    monkeypatch.setattr(run, "MANY", 50)
    with pytest.raises(DataPrunerError, match="'id' has 120 different values; groups"):
        dp.compare(rows, scorers=Up(), by="id")


def test_a_budget_that_is_not_there(compared):
    with pytest.raises(DataPrunerError, match=r"there is no budget 3.*2: 300 supervised tokens"):
        compared.disagreements_frame(budget=3)


# --- groups -------------------------------------------------------------------------------------------------


def test_groups_are_counted_as_pandas_counts_them(compared, rows):
    frame, places = compared.groups_frame(), left(compared)
    assert len(places) == N - 10
    assert list(dict.fromkeys(frame["by"])) == ["kind", "groups of down"]
    told = {
        "kind": [rows[i]["kind"] for i in places],
        "groups of down": [str(j % 7) for j in range(len(places))],
    }
    assert len(frame) == 3 * 5 * (3 + 7)
    for (budget, by, scorer), found in frame.groupby(["budget", "by", "scorer"]):
        at = next(at for at in compared.budgets if at.label == budget)
        kept = at.selections[scorer].kept[places]
        held = pd.DataFrame({"group": told[by], "kept": kept}).groupby("group")["kept"]
        expected = held.agg(["size", "sum", "mean"]).loc[found["group"]]
        assert found["rows"].tolist() == expected["size"].tolist()
        assert found["kept"].tolist() == expected["sum"].tolist()
        assert found["rate"].tolist() == pytest.approx(expected["mean"].tolist())
        assert found["share"].sum() == pytest.approx(1)
        assert found["kept_share"].tolist() == pytest.approx((expected["sum"] / kept.sum()).tolist())


def test_what_is_moved(compared):
    """By moving one row after the other until every group has its share."""
    frame, groups = compared.balance_frame(), compared.groups_frame()
    one = frame[(frame["budget"] == "40 rows") & (frame["by"] == "kind") & (frame["scorer"] == "length")]
    of = groups[(groups["budget"] == "40 rows") & (groups["by"] == "kind") & (groups["scorer"] == "length")]
    too_many = sum(max(kept - 40 * share, 0) for kept, share in zip(of["kept"], of["share"], strict=True))
    assert one["moved"].item() == pytest.approx(too_many / 40)
    assert one["groups"].item() == 3
    assert one["reached"].item() == (of["kept"] > 0).sum()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 30)), min_size=1, max_size=8))
def test_moved_is_a_distance(sizes):
    kept = np.array([min(pair) for pair in sizes])
    whole = np.array([pair[0] for pair in sizes])
    if not kept.sum():
        return
    frame = pd.DataFrame(
        {
            "budget": "b",
            "by": "c",
            "scorer": "s",
            "group": range(len(sizes)),
            "kept": kept,
            "share": whole / whole.sum(),
            "kept_share": kept / kept.sum(),
        }
    )
    found = balance(frame)["moved"].item()
    assert found == pytest.approx(0.5 * np.abs(kept / kept.sum() - whole / whole.sum()).sum())
    assert 0 <= found < 1


def test_groups_that_a_scorer_shares_are_listed_once(rows, cache):
    vectors = np.random.default_rng(0).normal(size=(N, 8)).astype(np.float32)
    found = dp.compare(rows, scorers=["concept_complexity", "prototypes"], embeddings=vectors)
    assert set(found.groups_frame()["by"]) == {"groups of concept_complexity"}


def test_labels_are_groups(cache):
    rng = np.random.default_rng(0)
    made = [{"embedding": rng.normal(size=4).tolist(), "label": i % 3} for i in range(60)]
    found = dp.compare(made, scorers=Up(), keep=20, columns={"label": "label"})
    assert found.by == ("label",)
    assert set(found.groups_frame()["group"]) == {"0", "1", "2"}
    assert found.lengths_frame().empty
    assert found.scores_frame()["spearman_num_tokens"].isna().all()
    assert "text" not in found.disagreements_frame().columns
    assert "Length" not in found.describe()


# --- length and scores --------------------------------------------------------------------------------------


def test_lengths_are_those_of_the_kept_rows(compared):
    frame, places = compared.lengths_frame(), left(compared)
    assert len(frame) == 3 * 2 * 6
    for row in frame.to_dict("records"):
        at = next(at for at in compared.budgets if at.label == row["budget"])
        tokens = pd.Series(compared.scores.tokens[row["of"]])
        held = tokens[places if row["scorer"] == "(all rows)" else at.selections[row["scorer"]].indices]
        assert (row["rows"], row["tokens"]) == (len(held), held.sum())
        assert row["share"] == pytest.approx(held.sum() / tokens[places].sum())
        assert row["mean"] == pytest.approx(held.mean())
        for name, share in (("q05", 0.05), ("q25", 0.25), ("q50", 0.5), ("q75", 0.75), ("q95", 0.95)):
            assert row[name] == pytest.approx(held.quantile(share))
        if row["of"] == "num_supervised_tokens":
            assert row["in_loss"] == row["tokens"]


def test_scores_and_their_length_bias(compared):
    frame, places = compared.scores_frame().set_index("scorer"), left(compared)
    for name, selection in compared.selections.items():
        values, row = pd.Series(selection.values[places]), frame.loc[name]
        assert row[["min", "q25", "q50", "max"]].tolist() == pytest.approx(
            values.quantile([0, 0.25, 0.5, 1]).tolist()
        )
        assert row["distinct"] == values.nunique()
        for of in ("num_tokens", "num_supervised_tokens"):
            if name == "flat":
                assert np.isnan(row[f"spearman_{of}"])
                continue
            expected = spearmanr(values, compared.scores.tokens[of][places]).statistic
            assert row[f"spearman_{of}"] == pytest.approx(expected)
    assert frame.loc["length", "spearman_num_supervised_tokens"] == pytest.approx(1)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(-3, 3), min_size=4, max_size=4), min_size=2, max_size=30))
def test_rank_correlation_is_scipys(values):
    columns = np.array(values, dtype=float).T
    found = rank_correlation([rankdata(column) for column in columns])
    for i, a in enumerate(columns):
        for j, b in enumerate(columns):
            if len(set(a)) == 1 or len(set(b)) == 1:
                assert np.isnan(found[i, j])
            else:
                assert found[i, j] == pytest.approx(spearmanr(a, b).statistic)


# --- disagreement -------------------------------------------------------------------------------------------


def test_the_rows_on_which_scorers_disagree_most(compared, rows):
    frame, places = compared.disagreements_frame(count=12, budget=1), left(compared)
    ranks = {
        name: (rankdata(compared.selections[name].values[places]) - 0.5) / len(places)
        for name in ("up", "down", "flat")
    }
    spread = np.std(list(ranks.values()), axis=0)
    order = sorted(range(len(places)), key=lambda place: (-round(spread[place], 12), place))[:12]
    assert frame["row"].tolist() == places[order].tolist()
    assert frame["spread"].tolist() == pytest.approx(spread[order].tolist())
    for number, place in enumerate(order):
        row = int(places[place])
        found = frame.iloc[number]
        assert found["text"] == f"{rows[row]['question']} → {rows[row]['answer']}"[:200]
        for name in ranks:
            selection = compared.at(1).selections[name]
            assert found[f"{name}_rank"] == pytest.approx(ranks[name][place])
            assert found[f"{name}_kept"] == selection.kept[row]
            assert found[f"{name}_reason"] == selection.reason(row)
    assert not any(column.startswith(("random", "length")) for column in frame.columns)


def test_one_scorer_disagrees_with_nobody(rows, cache):
    found = dp.compare(rows, scorers=[Up(), "random", "length"])
    assert found.asked == ("up",)
    assert found.disagreements_frame().empty
    assert "disagree" not in found.describe()
    with pytest.raises(DataPrunerError, match="must be 1 or more"):
        found.disagreements_frame(count=0)


def test_a_scorer_alone_is_compared_with_nothing(tmp_path, monkeypatch, capsys):
    """Vectors have no length, so that nothing stands beside `random`."""
    made = [{"embedding": [float(number), 1.0]} for number in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    found = dp.compare(made, scorers="random", keep=[2, 4])
    assert found.names == ["random"]
    said = found.describe()
    assert said.startswith("random alone was compared: there is no overlap and no correlation to show")
    assert found.to_frame().empty
    with pytest.raises(DataPrunerError, match="random alone was compared"):
        found.plot_overlap()
    found.plot_correlation()
    found.save(tmp_path / "out", report=True)
    monkeypatch.chdir(tmp_path)
    assert (
        command(monkeypatch, "compare", "rows.jsonl", "--scorer", "random", "--keep", "2", "-o", "two") == 0
    )
    assert said.split("\n")[0] in capsys.readouterr().out


def test_dropped_rows_have_no_rank(compared):
    for held in (compared.spread, *compared.ranks.values()):
        assert np.array_equal(np.flatnonzero(np.isfinite(held)), left(compared))


# --- for a terminal, and as files ---------------------------------------------------------------------------


def test_the_terminal_gets_no_escape(compared):
    said = compared.describe()
    assert "\x1b" not in said
    assert "\u202e" not in said
    assert r"\x1b[31mred\u202e" in said
    assert "Overlap of the 12 rows that each keeps of 120: Jaccard (0.06 by chance)" in said
    assert "for 300 supervised tokens: Jaccard (" in said
    assert "What is kept by kind, 40 rows: shares of the kept rows" in said
    assert "groups of down (7)" in said
    assert "in loss" not in said


def test_saved_tables_are_the_frames(compared, tmp_path):
    compared.save(tmp_path / "out")
    held = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [one["budget"] for one in held["budgets"]] == [at.label for at in compared.budgets]
    assert held["budgets"][2]["kept"] == {name: len(one) for name, one in compared.at(2).selections.items()}
    assert (held["rows"], held["eligible"], held["left_out"]) == (N, N - 10, {})
    assert held["correlation"][2] == [None] * 5
    for name in ("groups", "balance", "lengths", "scores", "disagreements"):
        frame = getattr(compared, f"{name}_frame")()
        table = list(csv.DictReader((tmp_path / "out" / f"{name}.csv").open(newline="")))
        assert len(table) == len(held[name]) == len(frame)
        assert list(table[0]) == list(held[name][0]) == list(frame.columns)
        for number in (0, len(frame) // 2, len(frame) - 1):
            for column, value in frame.iloc[number].items():
                cell, saved = table[number][column], held[name][number][column]
                if isinstance(value, str):
                    assert saved == value
                    assert cell.lstrip("'") == value
                elif pd.isna(value):
                    assert (cell, saved) == ("", None)
                else:
                    assert saved == value
                    assert cell == str(saved)
    text = (tmp_path / "out" / "groups.csv").read_text()
    assert ",'=cmd|" in text
    assert ",=cmd|" not in text
    compared.save(tmp_path / "again")
    for file in (tmp_path / "out").iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes(), file.name
    compared.save(tmp_path / "out", overwrite=True)


def test_the_page_shows_every_selection(compared, tmp_path):
    pytest.importorskip("plotly", reason="a report needs the extra `report`")
    pytest.importorskip("jinja2", reason="a report needs the extra `report`")
    compared.save(tmp_path / "out", report=True)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    held = json.loads(re.search(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.S)[1])
    names = [one["name"] for one in held["scorers"]]
    assert [(names[one["scorer"]], one["count"]) for one in held["selections"]] == [
        (name, len(selection)) for at in compared.budgets for name, selection in at.selections.items()
    ]
    compared.report(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_bytes() == (tmp_path / "out" / "report.html").read_bytes()
    with pytest.raises(DataPrunerError, match="already; pass overwrite=True"):
        compared.report(tmp_path / "page.html")


def test_stability_of_a_budget_in_tokens(rows, cache):
    found = dp.compare(rows, scorers=Up(), keep_tokens=200, stability=True, seeds=2, noise=())
    assert found.stability.keep_tokens == 200
    records = {record.scorer: record for record in found.stability.records}
    assert records["up"].jaccard == 1
    random = found.selections["random"]
    other = dp.prune(rows, scorer="random", keep_tokens=200, seed=1)
    assert records["random"].jaccard == pytest.approx(jaccard(random.kept, other.kept))


# --- one pass, and all scorers ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Alone(Scorer):
    """Reads the pass over the answers alone."""

    name: ClassVar[str] = "alone"
    needs: ClassVar[frozenset[str]] = frozenset({"response_log_ppl"})

    def _score(self, signals: Signals) -> Ranking:
        return Ranking(-np.asarray(signals["response_log_ppl"], dtype=np.float64))


@pytest.fixture
def forwards(monkeypatch):
    """Calls of the two models' bodies, and the rows of either pass of the language model."""
    from transformers import BertModel, LlamaModel

    from datapruner.signals.language_model.forward import Pass

    seen = {"embedder": 0, "language model": 0, "row": [], "response": []}
    for name, cls in (("embedder", BertModel), ("language model", LlamaModel)):

        def forward(self, *arguments, _own=cls.forward, _name=name, **options):
            seen[_name] += 1
            return _own(self, *arguments, **options)

        monkeypatch.setattr(cls, "forward", forward)
    own = Pass.run_batch

    def batch(self, items, waiting):
        seen[self.what] += [int(self.rows[item.place]) for item in items]
        return own(self, items, waiting)

    monkeypatch.setattr(Pass, "run_batch", batch)
    return seen


@pytest.fixture
def place(tmp_path, rows, monkeypatch):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:40]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_one_pass_of_every_model_serves_all(
    place, forwards, tiny_llama, tiny_sentence_transformer, monkeypatch, capsys
):
    """As many forward passes as one scorer of each kind takes, and every row once; then none of any row."""
    everything = sorted(available_scorers().keys() - NEEDS_MORE)
    options = {
        "model": str(tiny_llama),
        "embedder": str(tiny_sentence_transformer),
        "manifold": "pca",
        "progress": False,
    }
    dp.score("rows.jsonl", scorers=["k_center", "perplexity", Alone()], cache="other", **options)
    alone = dict(forwards)
    assert min(alone["embedder"], alone["language model"]) > 0
    forwards.update({"embedder": 0, "language model": 0, "row": [], "response": []})

    found = dp.compare("rows.jsonl", scorers=everything, keep=[0.2, 0.5], cache="shared", **options)
    assert forwards == alone
    assert sorted(forwards["row"]) == sorted(forwards["response"]) == list(range(40))
    assert sorted(found.names) == everything
    assert found.left_out == {}
    lengths = found.lengths_frame()
    lengths = lengths[lengths["of"] == "num_supervised_tokens"].set_index(["budget", "scorer"])
    for at in found.budgets:
        pruned = lengths.loc[(at.label, "qtuning")]
        assert pruned["in_loss"] == at.selections["qtuning"].supervised_tokens_kept.sum() < pruned["tokens"]
    assert "in loss" in found.describe()

    # The same on the command line, from the store, without naming them.
    monkeypatch.setenv("DATAPRUNER_CACHE", str(place / "shared"))
    shared = ["--model", tiny_llama, "--embedder", tiny_sentence_transformer, "--manifold", "pca"]
    budgets = ["--keep", "0.2", "--keep", "8", "--keep-tokens", "200", "--by", "kind", "--by", "id"]
    words = ["compare", "rows.jsonl", "--scorer", "all", "--set", "ifd.keep=low", *shared, *budgets]
    assert command(monkeypatch, *words, "-o", "out") == 0
    said = capsys.readouterr()
    assert len(forwards["row"]) == len(forwards["response"]) == 40
    assert without_progress(said.err) == ""
    held = json.loads((place / "out" / "comparison.json").read_text())
    assert sorted(one["name"] for one in held["scorers"]) == everything
    assert [one["budget"] for one in held["budgets"]] == [
        "0.2 of the rows",
        "8 rows",
        "200 supervised tokens",
    ]
    assert {one["by"] for one in held["groups"]} >= {"kind", "id"}
    assert next(one for one in held["scorers"] if one["name"] == "ifd")["parameters"]["keep"] == "low"
    assert held["left_out"].keys() == NEEDS_MORE
    assert "Left out" in said.out
    assert "paser: the scorer 'paser' compares a pruned model with the dense one" in said.out
    assert [one["name"] for one in held["recipe"]["scorers"]] == [one["name"] for one in held["scorers"]]


def test_all_that_can_run(rows, cache, tmp_path):
    """Without a model, without text, without enough rows: each is left out with its own reason."""
    vectors = np.random.default_rng(0).normal(size=(N, 8)).astype(np.float32)
    found = dp.compare(rows, scorers="all", embeddings=vectors, manifold="pca")
    assert set(found.names) == {
        *(
            "auto",
            "concept_complexity",
            "d2",
            "entanglement",
            "k_center",
            "length",
            "prototypes",
            "random",
            "stratified",
            "topoprune",
        )
    }
    assert found.names.count("random") == 1
    assert "name the model" in found.left_out["donod"]
    assert "name one with target=" in found.left_out["feature_mapping"]
    assert found.left_out.keys() | set(found.names) == set(available_scorers())

    held = [{"embedding": vector.tolist()} for vector in vectors]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held[:5]))
    target = tmp_path / "mine.jsonl"
    found = dp.compare(held, scorers=["all", Up()], target=str(target), manifold="pca")
    assert {"feature_mapping", "label_mapping", "k_center", "up", "random"} <= set(found.names)
    assert found.left_out["length"] == (
        "the scorer 'length' reads num_supervised_tokens, and rows of the layout 'embedding' have no text"
    )

    many = dp.scorers.KCenter(centres=N + 1)
    found = dp.compare(held, scorers=["all", many], keep=5, manifold="pca")
    assert f"{N + 1} centres were asked for" in found.left_out["k_center"]
    assert "k_center" not in found.save(tmp_path / "out").joinpath("overlap.csv").read_text()
    with pytest.raises(DataPrunerError, match="centres were asked for"):
        dp.compare(held, scorers=many, keep=5)


def test_all_is_for_compare(place, monkeypatch, capsys):
    for words, sentence in (
        (["score", "rows.jsonl", "--scorer", "all", "-o", "out"], "score takes scorers by their names"),
        (["prune", "rows.jsonl", "--scorer", "all", "-o", "out"], "prune takes one --scorer"),
        (
            ["compare", "rows.jsonl", "--scorer", "all", "--combine", "worst_rank", "-o", "out"],
            "--combine joins the scorers that are named",
        ),
    ):
        assert command(monkeypatch, *words) == 2
        assert sentence in capsys.readouterr().err
