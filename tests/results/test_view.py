"""What results tell of themselves: rows, tables, counts and reasons, fresh and read from a folder."""

from __future__ import annotations

import json
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import datapruner as dp
from datapruner.results.standing import standing
from datapruner.scorers import ConceptComplexity, Length, Prototypes, Ranking
from datapruner.scorers.base import Measure

N = 90
TOPICS = ["kitten whiskers", "puppy leash", "harbour captain"]
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31m\u202e&lt;"


def make_rows():
    rng = np.random.default_rng(0)
    rows = []
    for row in range(N):
        system = {"role": "system", "content": "You are a helpful assistant of a shared kind. " * 5}
        asked = {"role": "user", "content": f"Question {row:03d} about the {TOPICS[row % 3]} {HOSTILE}"}
        said = {"role": "assistant", "content": " ".join(["word"] * int(rng.integers(1, 30)))}
        rows.append(
            {"messages": [system, asked, said], "skill": ["math", "code<b>"][row % 2], "id": f"id{row}"}
        )
    rows[5] = dict(rows[4])
    return rows


ROWS = make_rows()
VECTORS = np.eye(3)[np.arange(N) % 3] + np.random.default_rng(1).normal(scale=0.1, size=(N, 3))
RUNS = {
    "topk": {"scorer": "length", "keep": 0.3},
    "low, by group": {"scorer": Length(shortest=True), "keep": 0.3, "per_group": "skill"},
    "clusters": {"scorer": ConceptComplexity(n_clusters=3), "keep": 20, "embeddings": VECTORS},
    "both": {"scorer": ConceptComplexity(n_clusters=3), "keep": 9, "embeddings": VECTORS, "per_group": "skill"},
    "floors": {"scorer": Prototypes(n_clusters=3, keep="easy"), "keep": 20, "embeddings": VECTORS},
    "tokens": {"scorer": "length", "keep_tokens": 300},
    "drawn": {"scorer": "random", "selector": "ccs", "keep": 20, "always_keep": [1, 2], "never_keep": [3]},
}  # fmt: skip


@pytest.fixture(scope="module")
def selections():
    return {
        name: dp.prune(ROWS, dedup=["exact"], progress=False, **options) for name, options in RUNS.items()
    }


@pytest.fixture(scope="module")
def scores():
    return dp.score(ROWS, scorers=["length", "random"], dedup=["exact"], always_keep=[7], progress=False)


@pytest.mark.parametrize("name", RUNS)
def test_a_selection_is_its_kept_rows(selections, name):
    selection = selections[name]
    assert len(selection) == len(list(selection)) == int(selection.kept.sum())
    assert list(selection) == [ROWS[row] for row in selection.indices]
    dropped = selection.dropped
    assert dropped["row"] == np.flatnonzero(~selection.kept).tolist()
    assert dropped.select_columns(["messages", "skill", "id"]).to_list() == [
        ROWS[row] for row in dropped["row"]
    ]
    assert dropped["reason"] == [selection.reason(row) for row in dropped["row"]]
    assert dropped["cause"][dropped["row"].index(5)] == "exact_duplicate"


@pytest.mark.parametrize("name", RUNS)
def test_a_loaded_selection_tells_what_a_fresh_one_tells(selections, name, tmp_path):
    fresh = selections[name]
    fresh.save(tmp_path / "out")
    loaded = dp.load_selection(tmp_path / "out", source=ROWS)
    assert [loaded.explain(row) for row in range(N)] == [fresh.explain(row) for row in range(N)]
    assert [dp.explain(tmp_path / "out", row) for row in (0, 5)] == [fresh.explain(0), fresh.explain(5)]
    assert loaded.summary == fresh.summary
    assert loaded.counts() == fresh.counts()
    assert loaded._repr_html_() == fresh._repr_html_()
    assert repr(loaded) == "Saved" + repr(fresh)
    assert list(loaded) == list(fresh)
    assert loaded.dropped.to_list() == fresh.dropped.to_list()
    assert loaded.to_pandas().equals(fresh.to_pandas())
    assert loaded.conversation().to_list() == fresh.conversation().to_list()
    assert np.array_equal(loaded.indices, fresh.indices)
    assert loaded.splits["train"].to_list() == list(fresh)
    assert {
        cause: int(count) for cause, count in fresh.to_pandas().cause.value_counts().items() if count
    } == (fresh.summary.causes)


@pytest.mark.parametrize("name", RUNS)
def test_ranks_and_what_was_missed_hold(selections, name):
    """Of rows that competed together the rank counts better ones, and what is said to be needed was needed."""
    selection = selections[name]
    told = [selection.explain(row) for row in range(N)]
    for one in told:
        assert one.reason.startswith(selection.reason(one.row))
        if one.rank is None:
            assert one.score is None or "list" in one.reason
            continue
        rivals = [other for other in told if other.rank is not None and other.within == one.within]
        assert one.ranked == len(rivals)
        assert one.ranked_kept == sum(other.kept for other in rivals)
        ahead = [o for o in rivals if (-o.score, o.row) < (-one.score, one.row)]
        assert one.rank == len(ahead) + 1
        assert f"ranked {one.rank} of {one.ranked}" in one.reason
        if one.needed is not None:
            assert not one.kept
            sign = 1 if selection.measure.high else -1
            at_least = [o for o in rivals if o.score >= sign * one.needed]
            # All that were better than the number were kept, and the row itself was not better.
            assert all(o.kept for o in rivals if o.score > sign * one.needed)
            assert at_least
            assert one.score <= sign * one.needed
            assert f"{one.needed:.6g}" in one.reason
    by_score = {"drawn": 0, "tokens": 1}.get(name, len([one for one in told if one.rank and not one.kept]))
    assert sum(one.needed is not None for one in told) >= by_score
    if name == "drawn":  # by chance, so that no score would have helped
        assert all(one.needed is None for one in told)


DRAWN = {
    "random": {"scorer": "random"},
    "shares": {"scorer": "auto", "embeddings": VECTORS},
    "clusters": {"scorer": "stratified", "embeddings": VECTORS},
    "complexity": {"scorer": ConceptComplexity(n_clusters=3, keep="random"), "embeddings": VECTORS},
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_number_that_was_drawn_is_no_score_that_a_row_missed(name, tmp_path):
    fresh = dp.prune(ROWS, keep=20, progress=False, **DRAWN[name])
    fresh.save(tmp_path / "out")
    for selection in (fresh, dp.load_selection(tmp_path / "out", source=ROWS)):
        row = int(np.flatnonzero(~selection.kept)[0])
        told = selection.explain(row)
        assert told.reason.endswith("which rows are kept was drawn at random")
        assert (told.needed, told.measure, told.measured) == (None, "random draw", told.score)
        assert "random draw" in told.told()
        assert "score" not in told.told()
    assert "## Scores" not in (tmp_path / "out" / "README.md").read_text()


def test_one_that_orders_the_same_rows_by_what_they_are_is(selections, tmp_path):
    selections["topk"].save(tmp_path / "out")
    assert "## Scores" in (tmp_path / "out" / "README.md").read_text()
    assert selections["clusters"].measure.name != "random draw"


def test_a_quantity_whose_low_values_are_kept_has_its_own_sign(selections):
    selection = selections["low, by group"]
    row = int(np.flatnonzero(~selection.kept)[1])
    told = selection.explain(row)
    tokens = int(selection.scores.tokens["num_supervised_tokens"][row])
    assert told.score == -tokens
    assert (told.measure, told.measured) == ("num_supervised_tokens", tokens)
    assert told["num_supervised_tokens"] == tokens
    assert f"its num_supervised_tokens is {tokens}, and {told.needed:.6g} or less was needed" in told.reason
    assert "-" not in str(told).replace("num_supervised-tokens", "")
    assert "-" not in "".join(text for text in selection.texts if "cut" in text)
    assert f"-{tokens}" not in selection._repr_html_()


def test_perplexity_is_never_negative():
    from dataclasses import replace

    from datapruner.scorers import make_scorer
    from datapruner.testing import example_signals

    held = {
        "log_ppl": np.linspace(0.5, 3, 20),
        "grad_norm": np.linspace(1, 2, 20),
        "el2n": np.linspace(1, 2, 20),
    }
    signals = replace(example_signals(20), measured=held)
    for name, column in (("perplexity", "log_ppl"), ("grad_norm", "grad_norm"), ("el2n", "el2n")):
        for keep in ("low", "high"):
            ranking = make_scorer(name, {"keep": keep}).score(signals)
            assert ranking.measure == Measure(column, keep == "high")
    assert make_scorer("mid_perplexity").score(signals).measure == Measure("ranks_from_median", high=False)


def test_a_measure_is_a_column_or_none():
    values = np.array([-1.0, -2.0, np.nan, -3.0])
    column = np.array([1.0, 2.0, 7.0, 3.0])
    assert Ranking(values, columns={"other": column + 1, "loss": column}).measure == Measure(
        "loss", high=False
    )
    assert Ranking(-values, columns={"loss": column.astype(np.int64)}).measure == Measure("loss", high=True)
    assert Ranking(values, columns={"loss": np.abs(column - 1)}).measure == Measure()
    assert Ranking(np.zeros(3), columns={"cluster": np.zeros(3, np.int64)}).measure == Measure()
    mixed = np.array([1.0, -2.0, np.nan, 3.0])
    assert Ranking(mixed, columns={"ifd": column}).measure == Measure()


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2), st.integers(1, 5)), min_size=1, max_size=30),
    st.integers(1, 60),
)
def test_standing_is_what_one_counts(rows, budget):
    """Against counting row by row, over kept rows that were filled in order of the score while they fit."""
    values = np.array([float(value) for value, _, _ in rows])
    parts = np.array([part for _, part, _ in rows])
    costs = np.array([cost for _, _, cost in rows])
    kept = np.zeros(len(rows), dtype=np.bool_)
    for part in range(3):
        left = budget
        for row in sorted(np.flatnonzero(parts == part), key=lambda row: (-values[row], row)):
            if costs[row] <= left:
                kept[row] = True
                left -= costs[row]
    held = standing(values, kept, np.ones(len(rows), np.bool_), [(["a", "b", "c"], parts)], costs)
    for row in range(len(rows)):
        rivals = np.flatnonzero(parts == parts[row])
        better = (values[rivals] > values[row]) | ((values[rivals] == values[row]) & (rivals < row))
        assert held.places[row] == better.sum() + 1
        assert (held.sizes[parts[row]], held.kept[parts[row]]) == (len(rivals), kept[rivals].sum())
        cut = held.cuts[parts[row]]
        if np.isfinite(cut):
            assert kept[rivals[values[rivals] > cut]].all()
            assert cut in values[rivals[kept[rivals]]]
        else:
            first = min(rivals, key=lambda one: (-values[one], one))
            assert not kept[first]


def test_an_explanation_is_a_mapping_and_an_object(selections):
    told = selections["clusters"].explain(8)
    assert told["cluster"] == told.columns["cluster"]
    assert told["reason"] == told.reason
    assert told["index"] == told["row"] == 8
    assert set(told) == set(dict(told))
    assert {"row", "kept", "cause", "reason", "rank", "needed", "keywords", "cluster"} <= set(told)
    assert len(told) == len(set(told))
    with pytest.raises(KeyError, match="Did you mean 'cluster'"):
        _ = told["clusters"]
    assert "keywords" in told.told()


def test_keywords_are_the_clusters_own(selections):
    selection = selections["clusters"]
    for row in (0, 1, 2):
        words = selection.explain(row).keywords
        assert TOPICS[row] in words
        others = [topic for topic in TOPICS if topic != TOPICS[row]]
        assert not any(topic in word for topic in others for word in words)
    assert selections["topk"].explain(0).keywords == ()
    assert selection.explain(5).keywords == ()  # dropped before there were clusters


def test_rows_are_found_by_text_and_by_columns(selections, scores):
    dogs = [row for row in range(N) if "puppy" in ROWS[row]["messages"][1]["content"]]
    for held in (selections["topk"], scores):
        assert held.find("QUESTION 017 about").tolist() == [17]
        assert held.find("question 017", case=True).tolist() == []
        assert held.find("puppy").tolist() == dogs
        assert held.find(where={"id": "id4"}).tolist() == [4, 5]
        assert held.find("puppy", {"skill": "math", "id": "id4"}).tolist() == [4, 5]
        assert held.find("kitten", {"id": "id4"}).size == 0
        with pytest.raises(dp.DataPrunerError, match="Did you mean 'skill'"):
            held.find(where={"skil": "math"})
        with pytest.raises(dp.DataPrunerError, match="what to look for"):
            held.find()


def test_scores_tell_the_same_in_the_same_shape(scores, tmp_path):
    assert len(scores) == N
    assert scores.summary.causes == {"ranked": N - 1, "exact_duplicate": 1}
    told = scores.explain(8, "length")
    assert (told.kept, told.cause, told.ranked_kept, told.needed) == (None, "ranked", None, None)
    assert told.reason == f"not chosen yet; ranked {told.rank} of {N - 2}"
    chosen = scores.select("length", keep=9)
    assert set(told) == set(chosen.explain(8))
    assert told.rank == chosen.explain(8).rank
    assert (
        scores.explain(5, "length").reason == chosen.explain(5).reason == "dropped: exact duplicate of row 4"
    )
    assert scores.explain(5, "length").kept is False
    assert scores.explain(7, "random").reason == "kept: on the always-keep list"
    with pytest.raises(dp.DataPrunerError, match="say which scorer"):
        scores.explain(8)
    with pytest.raises(dp.DataPrunerError, match="no row 90"):
        scores.explain(N, "length")
    frame = scores.to_pandas()
    assert frame.index.tolist() == list(range(N))
    assert frame["score.random"].isna().tolist() == [row == 5 for row in range(N)]
    assert frame.reason[5] == "dropped: exact duplicate of row 4"
    scores.save(tmp_path / "scores")
    again = dp.load(tmp_path / "scores", source=ROWS)
    assert isinstance(again, dp.Scores)
    assert again.to_pandas().equals(frame)
    assert again._repr_html_() == scores._repr_html_()
    assert dp.explain(again, 8, "length") == told
    picked = dp.select(tmp_path / "scores", "length", keep=9, source=ROWS)
    assert np.array_equal(picked.kept, chosen.kept)


class Tags(HTMLParser):
    """What a browser would make of it."""

    def __init__(self, text):
        super().__init__()
        self.open, self.names, self.said, self.attributes = [], set(), [], set()
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.said.append(data)


def test_what_a_notebook_shows_is_text_alone(selections, scores):
    shown = [*selections.values(), scores, selections["topk"].summary, scores.explain(8, "length")]
    shown += [selection.explain(row) for selection in selections.values() for row in (4, 5, 6)]
    for one in shown:
        found = Tags(one._repr_html_())
        assert found.names <= {"div", "table", "caption", "tbody", "tr", "th", "td"}
        assert found.attributes <= {"class", "style"}
        assert not set("\x1b\u202e") & set("".join(found.said))
    first = Tags(selections["topk"]._repr_html_()).said
    assert "27 of 90 rows kept by length, selector topk, for a budget of 0.3 of the rows" in first
    # The question stands for a row, not the system prompt that all of them share.
    row = int(selections["topk"].indices[0])
    assert any(said.startswith(f"Question {row:03d} about the") for said in first)
    assert not any("helpful assistant" in said for said in first)
    groups = Tags(selections["low, by group"]._repr_html_()).said
    assert groups[groups.index("code<b>") : groups.index("code<b>") + 3] == ["code<b>", "13", "44"]


@pytest.mark.pages
def test_a_notebook_runs_it(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    (tmp_path / "rows.json").write_text(json.dumps(ROWS))
    code = "import datapruner as dp\ndp.prune('rows.json', scorer='length', keep=0.3, progress=False)"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    client.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    (output,) = [one for one in notebook.cells[0].outputs if one.output_type == "execute_result"]
    assert output["data"]["text/plain"].startswith(
        "Selection(27 of 90 rows kept by length; 63 dropped by the budget)"
    )
    assert "27 of 90 rows kept" in "".join(Tags(output["data"]["text/html"]).said)


def test_a_selection_whose_source_is_gone_still_tells_what_it_holds(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    out = tmp_path / "out"
    dp.prune(file, scorer="length", keep=0.3, per_group="skill", progress=False).save(out)
    with_source = dp.load(out)
    assert with_source.summary.groups == {"math": (14, 46, "rows"), "code<b>": (13, 44, "rows")}
    assert np.array_equal(with_source.rebudget(0.3, progress=False).kept, with_source.kept)
    assert len(with_source.rebudget(10, progress=False)) == 10
    file.unlink()
    loaded = dp.load_selection(out)
    assert len(loaded) == len(list(loaded)) == 27
    assert loaded.summary == with_source.summary
    assert loaded.explain(8).rank == with_source.explain(8).rank
    assert "27 of 90" in loaded._repr_html_()
    for ask in (lambda: loaded.dropped, lambda: loaded.find("puppy"), lambda: loaded.source):
        with pytest.raises(dp.DataPrunerError):
            ask()
    dp.prune(ROWS, scorer="length", keep=0.3, progress=False).save(tmp_path / "memory")
    with pytest.raises(dp.DataPrunerError, match="rows in memory"):
        _ = dp.load_selection(tmp_path / "memory").source
    with pytest.raises(dp.DataPrunerError, match=r"90 rows when .* has 89 now"):
        _ = dp.load_selection(tmp_path / "memory", source=ROWS[1:]).source


def test_a_result_from_before_causes_were_written_loads(tmp_path, selections):
    selections["topk"].save(tmp_path / "out")
    file = tmp_path / "out" / "selection.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["cause"]), file)
    (tmp_path / "out" / "checksums.txt").unlink()
    loaded = dp.load_selection(tmp_path / "out", source=ROWS)
    assert loaded.counts() == {"kept": 27, "dropped_before_scoring": 1, "over_budget": 62}
    assert loaded.explain(8).reason == selections["topk"].explain(8).reason


@pytest.mark.parametrize("name", ["selection.parquet", "recipe.yaml", "data/train-00000-of-00001.parquet"])
def test_a_file_that_is_not_as_it_was_written_is_not_read(tmp_path, selections, name):
    selections["topk"].save(tmp_path / "out")
    file = tmp_path / "out" / name
    held = bytearray(file.read_bytes())
    held[len(held) // 2] ^= 1
    file.write_bytes(held)
    with pytest.raises(dp.DataPrunerError, match="is not as it was written"):
        list(dp.load_selection(tmp_path / "out"))


def test_load_says_what_to_call(tmp_path):
    (tmp_path / "compared").mkdir()
    (tmp_path / "compared" / "comparison.json").write_text("{}")
    with pytest.raises(dp.DataPrunerError, match="holds a comparison"):
        dp.load(tmp_path / "compared")
    with pytest.raises(dp.DataPrunerError, match=r"dp\.load_samples"):
        dp.load(tmp_path)
    with pytest.raises(dp.DataPrunerError, match=r"datapruner\.prune"):
        dp.select(ROWS, keep=3)


def test_inspect_takes_a_source_or_samples():
    found = dp.inspect(ROWS, examples=1)
    assert (found.rows, found.layout, len(found.examples)) == (N, "messages", 1)
    assert dp.inspect(dp.load_samples(ROWS), examples=1) == found
    assert "messages" in str(found).splitlines()[2]
    assert Tags(found._repr_html_()).names == {"pre"}
    with pytest.raises(dp.DataPrunerError, match="read already"):
        dp.inspect(dp.load_samples(ROWS), layout="messages")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("load_score", "Did you mean 'load_scores'?"),
        ("prun", "Did you mean 'prune'?"),
        ("load_dataset", "call datapruner.load_samples"),
        ("deduplicate", r"call datapruner.prune\(..., dedup=True\)"),
        ("qqqqqq", "no attribute 'qqqqqq'$"),
    ],
)
def test_names_that_are_not_there_say_what_to_call(name, said):
    with pytest.raises(AttributeError, match=said):
        getattr(dp, name)
    assert not hasattr(dp, name)


@pytest.mark.slow
def test_a_million_rows_are_shown_at_once():
    """Nothing that a notebook asks for walks over all rows; in a process of its own, and by what it reads."""
    code = """
import numpy as np, pyarrow as pa, time
from datasets import Dataset
from datasets.table import InMemoryTable
import datapruner as dp
n = 1_000_000
numbers = pa.array(np.arange(n)).cast(pa.string())
source = Dataset(InMemoryTable(pa.table({"question": numbers, "answer": numbers})))
selection = dp.prune(source, scorer="random", keep=0.5, progress=False)
began = time.process_time()
assert len(selection) == n // 2
assert "500,000 of 1,000,000" in repr(selection)
assert "500,000 of 1,000,000" in selection._repr_html_()
row = next(iter(selection))
assert row["question"] == row["answer"]
print(time.process_time() - began)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(ran.stdout) < 5  # a tenth of it is usual; walking over all rows takes a minute
