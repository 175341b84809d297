"""DP4TL's two mappings beside plain loops, and whole runs that look for a target set."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import yaml

import datapruner as dp
from datapruner.scorers import FeatureMapping, LabelMapping, make_scorer
from datapruner.scorers._grouping import groups_of
from datapruner.selection.selectors.group_quota import GroupQuota
from datapruner.signals import TARGET, Signals
from tests.conftest import command

N, M, D = 150, 60, 8


@pytest.fixture(scope="module")
def measured():
    """Six kinds of rows, and a target made of two of them, one more than the other."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(6, D))
    kind = rng.integers(0, 6, size=N)
    of = rng.choice([1, 4], size=M, p=[0.7, 0.3])
    return Signals(
        N,
        {
            "embedding": (centres[kind] + 0.3 * rng.normal(size=(N, D))).astype(np.float32),
            TARGET: (2 * (centres[of] + 0.3 * rng.normal(size=(M, D)))).astype(np.float32),
            "label": kind,
            "column:skill": kind // 2,
        },
        0,
    )


def unit(vectors):
    vectors = np.asarray(vectors, dtype=np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def nearest_means(x, groups, target):
    """DP4TL's feature mapping: the mean of every group, and each target row's nearest of them."""
    means = [np.mean([x[i] for i in range(len(x)) if groups[i] == g], axis=0) for g in range(max(groups) + 1)]
    return means, [min(range(len(means)), key=lambda g: np.linalg.norm(t - means[g])) for t in target]


def in_loops(x, groups, target, means, voted):
    """The groups by their votes, then by the distance of their mean to the target's; rows by cosine inside."""
    centre = np.mean(target, axis=0)
    votes = [voted.count(g) for g in range(len(means))]
    order = sorted(range(len(means)), key=lambda g: (-votes[g], np.linalg.norm(means[g] - centre), g))
    out, values = [], {}
    for g in order:
        wanted = (
            np.mean([t for t, v in zip(target, voted, strict=True) if v == g], axis=0) if votes[g] else centre
        )
        inside = {i: x[i] @ wanted / math.sqrt(wanted @ wanted) for i in range(len(x)) if groups[i] == g}
        out += sorted(inside, key=lambda i: -inside[i])
        values |= inside
    return order, votes, out, values


WITHIN = [
    {},
    {"within": "label"},
    {"within": "skill"},
    {"within": "column:skill"},
    {"within": "cluster"},
    {"within": "cluster", "n_clusters": 11},
]


@pytest.mark.parametrize("parameters", WITHIN, ids=str)
def test_feature_mapping_equals_plain_loops(measured, parameters):
    ranking = FeatureMapping(**parameters).score(measured)
    groups = groups_of(measured, parameters.get("within"), parameters.get("n_clusters"))
    assert np.array_equal(ranking.columns["group"], groups)
    x, target = unit(measured["embedding"]), unit(measured[TARGET])
    means, voted = nearest_means(x, groups, target)
    check(ranking, groups, in_loops(x, groups, target, means, voted))


@pytest.mark.parametrize("parameters", WITHIN, ids=str)
def test_label_mapping_equals_a_classifier_of_its_own(measured, parameters):
    from sklearn.linear_model import LogisticRegression

    ranking = LabelMapping(**parameters).score(measured)
    groups = groups_of(measured, parameters.get("within"), parameters.get("n_clusters"))
    x, target = unit(measured["embedding"]), unit(measured[TARGET])
    model = LogisticRegression(max_iter=5000).fit(x, groups)
    voted = [int(model.predict(t[None])[0]) for t in target]
    means, _ = nearest_means(x, groups, target)
    check(ranking, groups, in_loops(x, groups, target, means, voted))


def check(ranking, groups, expected):
    order, votes, rows, similarity = expected
    assert ranking.columns["votes"].tolist() == [votes[g] for g in groups]
    assert ranking.group_weights.tolist() == votes
    np.testing.assert_allclose(
        ranking.columns["target_similarity"], [similarity[i] for i in range(N)], atol=1e-5
    )
    # Group by group, and inside a group by similarity.
    best = np.argsort(-ranking.values, kind="stable")
    assert list(dict.fromkeys(groups[best].tolist())) == order
    assert (np.diff(groups[best]) != 0).sum() == len(order) - 1
    np.testing.assert_allclose([similarity[i] for i in best], [similarity[i] for i in rows], atol=1e-5)


def test_the_target_s_kinds_come_first(measured):
    for name in ("feature_mapping", "label_mapping"):
        ranking = make_scorer(name, {"within": "label"}).score(measured)
        best = np.argsort(-ranking.values, kind="stable")
        first = [measured["label"][best[0]], measured["label"][best[(measured["label"] == 1).sum()]]]
        assert first == [1, 4]


def test_votes_may_share_the_budget(measured):
    from datapruner.selection.budget_rows import Portion

    ranking = FeatureMapping(within="label").score(measured)
    kept = (
        GroupQuota("proportional")
        .select(ranking, Portion(np.arange(N), np.ones(N, np.int64), 20), np.random.default_rng(0))
        .kept
    )
    counts, votes = np.bincount(measured["label"][kept], minlength=6), ranking.group_weights
    assert np.abs(counts - 20 * votes / votes.sum()).max() <= 1


def test_one_group_takes_all_votes(measured):
    signals = replace(measured, measured={**measured.measured, "column:skill": np.zeros(N, np.int64)})
    for name in ("feature_mapping", "label_mapping"):
        ranking = make_scorer(name, {"within": "skill"}).score(signals)
        assert (ranking.columns["votes"] == M).all()


@pytest.mark.parametrize("name", ["feature_mapping", "label_mapping"])
def test_a_group_without_rows_gets_no_vote(name, measured):
    rows = np.flatnonzero(measured["label"] != 1)
    held = {key: value if key == TARGET else value[rows] for key, value in measured.measured.items()}
    ranking = make_scorer(name, {"within": "label"}).score(Signals(len(rows), held, 0, rows))
    assert np.array_equal(ranking.groups, measured["label"][rows])
    assert ranking.group_weights.shape == (6,)
    assert ranking.group_weights[1] == 0
    assert ranking.group_weights.sum() == M


def test_many_rows_are_sampled_for_the_classifier(measured):
    first, again = (LabelMapping(within="label", train_rows=60).score(measured).values for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, LabelMapping(within="label", train_rows=6).score(measured).values)


@pytest.mark.parametrize("name", ["feature_mapping", "label_mapping"])
def test_what_it_cannot_use_is_refused(name, measured):
    wide = replace(measured, measured={**measured.measured, TARGET: np.ones((5, D + 1), np.float32)})
    with pytest.raises(dp.DataPrunerError, match=r"9 numbers.*rows' 8"):
        make_scorer(name).score(wide)
    zero = replace(measured, measured={**measured.measured, TARGET: np.eye(5, D, dtype=np.float32) * 0})
    with pytest.raises(dp.DataPrunerError, match=r"the target: Row 0.*zeros"):
        make_scorer(name).score(zero)
    with pytest.raises(dp.DataPrunerError, match="within"):
        make_scorer(name, {"within": ""})
    with pytest.raises(dp.DataPrunerError, match="n_clusters is for"):
        make_scorer(name, {"within": "label", "n_clusters": 3})
    if name == "label_mapping":
        with pytest.raises(dp.DataPrunerError, match="train_rows"):
            LabelMapping(train_rows=0)


@pytest.fixture
def files(tmp_path, measured, cache):
    """Rows, a target, and the vectors of both."""
    rows = [{"question": f"q {i}", "answer": f"a {i}", "skill": f"s{i % 3}"} for i in range(N)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "mine.jsonl").write_text(
        "".join(json.dumps({"Q": f"t {i}", "A": "b"}) + "\n" for i in range(M))
    )
    np.save(tmp_path / "E.npy", measured["embedding"])
    np.save(tmp_path / "T.npy", measured[TARGET])
    return tmp_path


@pytest.mark.parametrize("scorer", ["feature_mapping", "label_mapping"])
def test_from_the_command_line(scorer, files, measured, monkeypatch, capsys):
    import pyarrow.parquet as pq

    monkeypatch.chdir(files)
    given = ["--embeddings", "E.npy", "--target", "mine.jsonl", "--target-embeddings", "T.npy"]
    line = ["prune", "rows.jsonl", "--scorer", scorer, *given, "--target-columns", "question=Q,answer=A"]
    assert command(monkeypatch, *line, "--n-clusters", 6, "--keep", 40, "-o", "d/out") == 0
    signals = replace(measured, measured={**measured.measured, "label": np.zeros(N, np.int64)})
    expected = make_scorer(scorer, {"n_clusters": 6}).score(signals)
    table = pq.read_table("d/out/selection.parquet")
    assert table["kept"].to_numpy().sum() == 40
    assert np.array_equal(table["score"].to_numpy(), expected.values)
    assert {"group", "votes", "target_similarity"} <= set(table.column_names)
    saved = yaml.safe_load((files / "d/out/recipe.yaml").read_text())
    assert (saved["target"], saved["target_embeddings"]) == ("../../mine.jsonl", "../../T.npy")
    assert saved["target_columns"] == {"question": "Q", "answer": "A"}
    monkeypatch.chdir("/")
    assert command(monkeypatch, "run", files / "d/out/recipe.yaml", "-o", files / "d/again") == 0
    for name in ("selection.parquet", "recipe.yaml", "data/train-00000-of-00001.parquet"):
        assert (files / "d/out" / name).read_bytes() == (files / "d/again" / name).read_bytes()
    assert command(monkeypatch, *line, "--keep", 3, "-o", files / "mine.jsonl", "--overwrite") == 2


def test_both_sets_are_embedded_alike(files):
    class Seen:
        """Gives a text its length and its first letter."""

        def __init__(self):
            self.texts = []

        def encode(self, texts):
            self.texts += texts
            return np.array([[len(text), ord(text[0]), 1.0] for text in texts], dtype=np.float32)

    seen = Seen()
    selection = dp.prune(
        str(files / "rows.jsonl"),
        scorer=FeatureMapping(within="skill"),
        target=str(files / "mine.jsonl"),
        target_columns={"question": "Q", "answer": "A"},
        embedder=seen,
        embed="prompt",
        keep=50,
        progress=False,
    )
    assert {"q 0", "t 0", f"t {M - 1}"} <= set(seen.texts)
    assert len({selection.scores.samples.column("skill")[i] for i in selection.indices}) == 1


def test_cleaning_and_lists_do_not_touch_the_target(files):
    options = {
        "embeddings": str(files / "E.npy"),
        "target": str(files / "mine.jsonl"),
        "target_columns": {"question": "Q", "answer": "A"},
        "target_embeddings": str(files / "T.npy"),
        "progress": False,
    }
    scores = dp.score(str(files / "rows.jsonl"), scorers="feature_mapping", never_keep=[0, 9], **options)
    ranking = scores.rankings["feature_mapping"]
    assert np.isnan(ranking.values[[0, 9]]).all()
    assert ranking.group_weights.sum() == M


def test_rows_of_several_tasks_are_one_target_to_a_mapping(files, measured, monkeypatch):
    monkeypatch.chdir(files)
    lines = (files / "mine.jsonl").read_text().splitlines(keepends=True)
    (files / "first.jsonl").write_text("".join(lines[:20]))
    (files / "second.jsonl").write_text("".join(lines[20:]))
    np.save("first.npy", measured[TARGET][:20])
    np.save("second.npy", measured[TARGET][20:])
    columns = {"question": "Q", "answer": "A"}
    given = {"scorers": "feature_mapping", "embeddings": "E.npy", "progress": False}
    one = dp.score(
        "rows.jsonl", target="mine.jsonl", target_embeddings="T.npy", target_columns=columns, **given
    )
    two = dp.score(
        "rows.jsonl",
        target=["first.jsonl", "b=second.jsonl"],
        target_embeddings={"first": "first.npy", "b": "second.npy"},
        target_columns={"first": columns, "b": columns},
        **given,
    )
    values = [scores.rankings["feature_mapping"].values for scores in (one, two)]
    assert np.array_equal(*values)
    assert two.recipe.inputs_content.keys() >= {"target first", "target b", "target_embeddings b"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"target": None}, "target=, a file"),
        ({"target": None, "target_embeddings": None}, "target=, a file"),
        ({"target": "nowhere.jsonl"}, "the target: .*nowhere"),
        ({"target_embeddings": None}, "the target: .*target_embeddings="),
        ({"target_embeddings": "E.npy"}, "the target: .*150 vectors.*60 rows"),
        ({"target_split": "tset"}, "the target: .*no split 'tset'"),
        ({"target_columns": {"question": "Q", "answer": "B"}}, "the target: .*'B'"),
        ({"scorer": "random"}, "target= is given.*feature_mapping"),
        ({"scorer": "random", "target": None}, "target_columns= is given"),
    ],
    ids=str,
)
def test_bad_targets_are_refused_before_anything_runs(options, said, files, monkeypatch):
    monkeypatch.chdir(files)
    given = {
        "scorer": "feature_mapping",
        "embeddings": "E.npy",
        "target": "mine.jsonl",
        "target_columns": {"question": "Q", "answer": "A"},
        "target_embeddings": "T.npy",
        "keep": 5,
    } | options
    with pytest.raises(dp.DataPrunerError, match=said):
        dp.prune("rows.jsonl", **{name: value for name, value in given.items() if value is not None})
