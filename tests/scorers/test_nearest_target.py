"""Rows that the target's rows choose in turn, beside a plain transcription, and whole runs that name a target."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import datapruner as dp
from datapruner.recipe import load_recipe
from datapruner.scorers import NearestTarget
from datapruner.scorers.nearest_target import REPRESENTATIONS
from datapruner.signals import TARGET, TARGET_SHARE, TARGET_TASK, Signals
from tests.conftest import command, save_tiny_llama


def signals(rows, target, sizes, shares=None):
    return Signals(
        len(rows),
        {
            "embedding": np.asarray(rows, np.float32),
            TARGET: np.asarray(target, np.float32),
            TARGET_TASK: [f"task {number}" for number, size in enumerate(sizes) for _ in range(size)],
            TARGET_SHARE: np.repeat([1.0] * len(sizes) if shares is None else shares, sizes),
        },
    )


def published(table):
    """RDS+ as its paper says it: one query's best row that nobody has, then the next query's."""
    n, m = len(table), len(table[0])
    used, picked = [False] * n, []
    while len(picked) < n:
        query = len(picked) % m
        row = max((row for row in range(n) if not used[row]), key=lambda row: (table[row][query], -row))
        used[row] = True
        picked.append((row, query))
    return picked


def drawn(seed, tasks=1):
    """Vectors of length two with halves and ones, full of ties and of copies, or any vectors."""
    rng = np.random.default_rng(seed)
    n, sizes, d = int(rng.integers(1, 40)), rng.integers(1, 6, size=tasks), int(rng.integers(4, 7))
    vectors = np.zeros((n + sizes.sum(), d), dtype=np.float32)
    for row in vectors:
        row[rng.permutation(d)[:4]] = rng.choice([-1, 1], 4)
    if rng.random() < 0.3:
        vectors = rng.normal(size=vectors.shape).astype(np.float32)
    vectors[:n][rng.random(n) < 0.3] = vectors[0]
    unit = vectors.astype(np.float64) / np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors[:n], vectors[n:], sizes, (unit[:n] @ unit[n:].T).astype(np.float32)


@given(st.integers(0, 10**9))
@settings(max_examples=200)
def test_round_robin_is_the_published_one(seed):
    rows, target, sizes, table = drawn(seed)
    found = NearestTarget(representation="embedding").score(signals(rows, target, sizes))
    expected = published(np.round(table, 6).tolist())
    order = np.argsort(-found.values, kind="stable")
    assert list(zip(order.tolist(), found.columns["query"][order].tolist(), strict=True)) == expected
    assert found.columns["turn"][order].tolist() == list(range(1, len(rows) + 1))
    cosines = [table[row, query] for row, query in expected]
    np.testing.assert_allclose(found.columns["target_similarity"][order], cosines, atol=1e-6)
    times = [
        [query for _, query in expected[: turn + 1]].count(query) for turn, (_, query) in enumerate(expected)
    ]
    assert found.columns["choice"][order].tolist() == times


@given(st.integers(0, 10**9), st.sampled_from(["doubly_greedy", "mean"]))
@settings(max_examples=60)
def test_the_alternatives_are_sorted_by_the_highest_and_by_the_mean(seed, selection):
    rows, target, sizes, table = drawn(seed)
    found = NearestTarget(selection, "embedding").score(signals(rows, target, sizes))
    worth = np.round(table, 6).astype(np.float64)
    worth = worth.max(axis=1) if selection == "doubly_greedy" else np.round(worth.mean(axis=1), 6)
    order = np.argsort(-found.values, kind="stable")
    assert np.diff(worth[order]).max(initial=-1) <= 2e-6
    if selection == "mean":
        assert (found.columns["query"] == -1).all()
        return
    assert order.tolist() == sorted(range(len(rows)), key=lambda row: (-worth[row], row))
    np.testing.assert_allclose(table[np.arange(len(rows)), found.columns["query"]], worth, atol=2e-6)


@given(
    st.integers(0, 10**6),
    st.lists(st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0, 2.0]), min_size=2, max_size=4).filter(any),
    st.sampled_from(["round_robin", "doubly_greedy", "mean"]),
)
@settings(max_examples=60)
def test_tasks_share_as_asked_whatever_is_kept(seed, shares, selection):
    rows, target, sizes, _ = drawn(seed, len(shares))
    found = NearestTarget(selection, "embedding").score(signals(rows, target, sizes, shares))
    order = np.argsort(-found.values, kind="stable")
    for number, share in enumerate(shares):
        mine = found.columns["task"][order] == f"task {number}"
        wanted = share / sum(shares) * np.arange(1, len(rows) + 1)
        assert (np.abs(np.cumsum(mine) - wanted) < 1).all()


def test_what_it_cannot_use_is_refused():
    made, rows = NearestTarget(representation="embedding"), np.eye(5)
    with pytest.raises(
        dp.DataPrunerError, match=r"9 numbers and the rows' 5; embed both with the same model"
    ):
        made.score(signals(rows, np.ones((3, 9)), [3]))
    with pytest.raises(dp.DataPrunerError, match=r"the target: Row 1 .*zeros"):
        made.score(signals(rows, np.diag([1, 0, 1, 1, 1]), [5]))
    with pytest.raises(dp.DataPrunerError, match="gives no task a share"):
        made.score(signals(rows, rows, [2, 3], [0, 0]))
    with pytest.raises(dp.DataPrunerError, match="selection"):
        NearestTarget(selection="best")


WORDS = {"sea": "ship sail wave salt harbour", "bread": "flour oven yeast crust dough"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Rows of two kinds, a target of each, and one without an answer."""
    made, rng = tmp_path_factory.mktemp("targets"), np.random.default_rng(0)

    def row(kind, number):
        said = [" ".join(rng.permutation(WORDS[kind].split())) for _ in range(2)]
        return {"prompt": f"{said[0]} {number}?", "completion": said[1], "kind": kind}

    def write(name, rows):
        (made / name).write_text("".join(json.dumps(one) + "\n" for one in rows))

    write("rows.jsonl", [row(("sea", "bread")[number % 2], number) for number in range(40)])
    write(
        "sea.jsonl",
        [{"Q": one["prompt"], "A": one["completion"]} for one in (row("sea", 100 + n) for n in range(4))],
    )
    write("bread.jsonl", [row("bread", 200 + number) for number in range(3)])
    write("mute.jsonl", [row("sea", 1), {"prompt": "why?", "completion": " "}])
    write("none.jsonl", [])
    save_tiny_llama(made / "lm")
    return made


class Letters:
    """Counts letters: kinds of rows have their own words."""

    def encode(self, texts):
        return np.array(
            [[text.count(chr(97 + number)) + 0.1 for number in range(26)] for text in texts], np.float32
        )


BOTH = {
    "target": {"sea": "sea.jsonl", "bread": "bread.jsonl"},
    "target_columns": {"sea": {"prompt": "Q", "completion": "A"}},
    "target_share": {"sea": 3},
}


def test_tasks_choose_by_their_shares_and_reasons_say_who(folder, cache, monkeypatch):
    monkeypatch.chdir(folder)
    selection = dp.prune(
        "rows.jsonl",
        scorer=NearestTarget(representation="embedding"),
        **BOTH,
        embedder=Letters(),
        keep=12,
        progress=False,
    )
    kinds = [selection.dataset[place]["kind"] for place in range(12)]
    assert sorted(kinds) == ["bread"] * 3 + ["sea"] * 9
    ranking = selection.scores.rankings["nearest_target"]
    for row in selection.indices.tolist():
        told = selection.explain(row)
        who = f"row {told['query']} of {told['task']} chose it, as its choice {told['choice']}"
        assert told.reason.startswith("kept: among the best, turn at or below the cut 12; " + who)
        assert told.measured == ranking.columns["turn"][row]
    dropped = next(row for row in range(40) if not selection.kept[row])
    assert "chose it" not in selection.explain(dropped).reason


def test_from_the_command_line_and_again_from_its_recipe(folder, cache, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    line = [
        "prune",
        "rows.jsonl",
        "--target",
        "sea=sea.jsonl",
        "--target",
        "bread.jsonl",
        "--target-share",
        "sea=3",
    ]
    line += ["--target-columns", "sea:prompt=Q,completion=A", "--target-split", "bread=train", "--keep", 8]
    line += ["--model", "lm", "--scorer", "nearest_target"]
    assert command(monkeypatch, *line, "-o", tmp_path / "deep/out") == 0
    saved = yaml.safe_load((tmp_path / "deep/out/recipe.yaml").read_text())
    assert saved["target"].keys() == {"sea", "bread"}
    assert all(path.startswith("../") for path in saved["target"].values())
    assert saved["target_columns"] == {"sea": {"prompt": "Q", "completion": "A"}}
    assert (saved["target_split"], saved["target_share"]) == ({"bread": "train"}, {"sea": 3.0})
    assert saved["inputs_content"].keys() == {"target sea", "target bread"}
    monkeypatch.chdir("/")
    assert command(monkeypatch, "run", tmp_path / "deep/out/recipe.yaml", "-o", tmp_path / "deep/again") == 0
    for name in ("selection.parquet", "recipe.yaml", "data/train-00000-of-00001.parquet"):
        assert (tmp_path / "deep/out" / name).read_bytes() == (tmp_path / "deep/again" / name).read_bytes()


def test_states_are_those_of_one_pass_and_the_target_s_are_measured_alike(folder, cache, monkeypatch):
    monkeypatch.chdir(folder)
    given = {"model": "lm", "target": "rows.jsonl", "progress": False}
    scores = dp.score("rows.jsonl", scorers=["nearest_target", "perplexity"], **given)
    found = scores.rankings["nearest_target"]
    # Every row of the target is a row of the data, which is the nearest to itself.
    assert found.columns["query"].tolist() == list(range(40))
    np.testing.assert_allclose(found.columns["target_similarity"], 1, atol=1e-6)


@pytest.mark.parametrize("representation", ["sketch", "gradient"])
def test_sketches_of_both_sets_are_made_alike(representation, folder, cache, monkeypatch):
    monkeypatch.chdir(folder)
    scorer, signal = NearestTarget(representation=representation), REPRESENTATIONS[representation].rows
    options = {"model": "lm", "progress": False, "sketch_dimension": 256, "sketch_seed": 3}
    both = {
        "target": ["bread.jsonl", "sea.jsonl"],
        "target_columns": {"sea": {"prompt": "Q", "completion": "A"}},
    }
    found = dp.score("rows.jsonl", scorers=scorer, **both, **options).rankings["nearest_target"]

    class Kept(dp.scorers.Length):
        requires = frozenset({signal})

        def _score(self, signals):
            vectors.append(np.asarray(signals.matrix(signal)[:]))
            return dp.Ranking(np.zeros(signals.num_rows))

    vectors = []
    for source in ("rows.jsonl", "bread.jsonl"):
        dp.score(source, scorers=Kept(), **options)
    rows, target = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in vectors)
    assert rows.shape == (40, 256)
    cosines = rows @ target.T
    of_bread = found.columns["task"] == "bread"
    chosen = cosines[np.flatnonzero(of_bread), found.columns["query"][of_bread]]
    np.testing.assert_allclose(found.columns["target_similarity"][of_bread], chosen, atol=1e-5)
    first = int(np.flatnonzero(of_bread & (found.columns["query"] == 0) & (found.columns["choice"] == 1))[0])
    assert (
        cosines[first, 0] >= np.partition(cosines[:, 0], -2)[-2]
    )  # the other task may have taken one before
    assert len({*cosines[:, 0].round(4)}) > 30


@pytest.mark.parametrize("model", [None, "lm"])
def test_a_target_without_a_scorer_means_its_likes(folder, cache, model, monkeypatch, caplog):
    monkeypatch.chdir(folder)
    given = {} if model is None else {"model": model}
    selection = dp.prune(
        "rows.jsonl", target="bread.jsonl", keep=5, embedder=Letters(), progress=False, **given
    )
    (scorer,) = selection.recipe.scorers
    assert scorer.name == "nearest_target"
    assert scorer.parameters == ({"representation": "embedding"} if model is None else {})
    assert {step.name for step in selection.recipe.cleaning} >= {"rules"}
    assert "among the data" not in caplog.text
    if model is None:
        assert {row["kind"] for row in selection.dataset} == {"bread"}


def test_rows_of_the_target_in_the_data_are_told(folder, cache, monkeypatch, caplog):
    monkeypatch.chdir(folder)
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    (folder / "inside.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (rows[7], rows[3])))
    dp.score(
        "rows.jsonl",
        scorers=NearestTarget(representation="embedding"),
        target=["inside.jsonl", "bread.jsonl"],
        embedder=Letters(),
        progress=False,
    )
    assert "2 of the target's 5 rows are among the data, row 3 first, and" in caplog.text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "nearest_target' looks for the rows nearest to a target set: name one with target="),
        ({"target": []}, "target= names no set"),
        ({"target": {"a": {"source": "x"}}}, "target=: the task 'a' names its source alone"),
        ({"target": "none.jsonl"}, "the target: .*no rows"),
        ({"target": {"a": "none.jsonl"}}, "the target 'a': .*no rows"),
        ({"target": "mute.jsonl"}, r"the target: row 1 has no answer \(1 such rows\)"),
        ({"target": ["sea.jsonl", "x/sea.jsonl"]}, "two targets are called 'sea'"),
        ({"target": ["a=sea.jsonl", "a=bread.jsonl"]}, "two targets are called 'a'"),
        ({"target": "a=sea.jsonl", "target_share": {"b": 1}}, "target_share= names a task 'b'.*there is a"),
        ({"target": "sea.jsonl", "target_share": {"b": 1}}, "target_share= names a task 'b'.*name one with"),
        ({"target": "a=sea.jsonl", "target_share": {"a": -1}}, "target_share= a=-1.0: a share is 0 or more"),
        ({"target": "a=sea.jsonl", "target_share": {"a": 0}}, "target_share= gives every task 0"),
        ({"target": "a=sea.jsonl", "target_split": {"b": "test"}}, "target_split= names a task 'b'"),
        ({"target": "a=bread.jsonl", "target_split": {"a": "tset"}}, "the target 'a': .*no split 'tset'"),
        ({"target": "sea.jsonl"}, "the target: .*target_columns="),
        ({"target": "bread.jsonl", "embeddings": "E.npy"}, "the target: .*target_embeddings="),
    ],
    ids=str,
)
def test_bad_targets_are_one_sentence(options, said, folder, cache, monkeypatch):
    monkeypatch.chdir(folder)
    np.save("E.npy", np.ones((40, 3)))
    with pytest.raises(dp.DataPrunerError, match=said) as caught:
        dp.prune(
            "rows.jsonl",
            scorer=NearestTarget(representation="embedding"),
            keep=5,
            embedder=Letters() if "embeddings" not in options else "minilm",
            progress=False,
            **options,
        )
    assert "\n" not in str(caught.value)


def test_without_a_model_or_a_budget_the_way_out_is_said(folder, cache, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(
        dp.DataPrunerError, match=r"language model's states: .*representation=embedding does without"
    ):
        dp.prune("rows.jsonl", scorer="nearest_target", target="bread.jsonl", keep=5)
    with pytest.raises(dp.DataPrunerError, match=r"language model's gradients: name the model"):
        dp.prune("rows.jsonl", scorer=NearestTarget(representation="sketch"), target="bread.jsonl", keep=5)
    with pytest.raises(dp.DataPrunerError, match="nothing says how much of it to keep"):
        dp.prune("rows.jsonl", target="bread.jsonl")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("a.jsonl", "/in/a.jsonl"),
        ("math=./b.jsonl", {"math": "/in/b.jsonl"}),
        (["math=./b.jsonl", "org/name:main@v1"], {"math": "/in/b.jsonl", "name": "org/name:main@v1"}),
        ({"math": "./b.jsonl", "code": "org/name"}, {"math": "/in/b.jsonl", "code": "org/name"}),
        ("./day=3/rows.jsonl", "/in/day=3/rows.jsonl"),
    ],
    ids=str,
)
def test_a_recipe_names_tasks_in_a_list_or_a_mapping(written, meant, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({"source": "org/data", "target": written, "keep": 5, "model": "m"}))
    here = str(tmp_path)
    found = load_recipe(path).target
    found = (
        {name: of.replace(here, "/in") for name, of in found.items()} if isinstance(found, dict) else found
    )
    assert (found if isinstance(found, dict) else found.replace(here, "/in")) == meant
