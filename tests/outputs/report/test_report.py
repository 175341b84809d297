"""The page without a browser: what it holds, against pandas and brute force; what it says; what it refuses."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from fractions import Fraction
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset, concatenate_datasets
from hostile import HOSTILE, hostile_selections
from hypothesis import given, settings
from hypothesis import strategies as st

import datapruner as dp

pytest.importorskip("plotly", reason="the extra `report` is not installed")
pytest.importorskip("jinja2", reason="the extra `report` is not installed")

from datapruner.cleaning.step import CleaningStep
from datapruner.cleaning.vetoes import drops
from datapruner.outputs.report import Section, page, write_report
from datapruner.outputs.report.contrasts import comparison_words
from datapruner.outputs.report.figure_data import histogram
from datapruner.outputs.report.payload import payload
from datapruner.outputs.report.rows import characters, excerpts, script_json
from datapruner.outputs.report.sampling import FLOOR, floors, scrambled, stratified
from datapruner.outputs.report.shown import Shown
from datapruner.outputs.report.summary import selection_words
from datapruner.outputs.warnings import comparison_warnings, warning_words
from datapruner.outputs.wording import counted, listed, percent
from datapruner.reasons import Reason
from datapruner.samples import load_samples
from datapruner.scorers import make_scorer
from datapruner.scorers.base import Ranking, Scorer
from tests.conftest import command

N = 300


def rows_of(n=N):
    rng = np.random.default_rng(3)
    words = [f"w{number}" for number in range(400)]
    return [
        {
            "id": f"{row:x}",
            "question": " ".join(rng.choice(words, 8)),
            "answer": " ".join(rng.choice(words, int(rng.integers(1, 60)))),
            "skill": ["math", "code", "chat"][int(rng.choice(3, p=[0.6, 0.3, 0.1]))],
        }
        for row in range(n)
    ]


@pytest.fixture(scope="module")
def rows():
    return [*rows_of(), *(dict(row) for row in rows_of()[:7])]  # seven exact duplicates


@pytest.fixture(scope="module")
def vectors(rows):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(5, 8))
    return (centres[rng.integers(0, 5, len(rows))] + 0.3 * rng.normal(size=(len(rows), 8))).astype(np.float32)


@pytest.fixture(scope="module")
def scores(rows, vectors, tmp_path_factory):
    return dp.score(
        rows,
        scorers=["concept_complexity", "prototypes", "random"],
        embeddings=vectors,
        dedup=["exact"],
        cache=tmp_path_factory.mktemp("cache"),
        count_tokens=False,
        progress=False,
    )


@pytest.fixture(scope="module")
def selection(scores):
    return scores.select("concept_complexity", keep=0.3)


class Page(HTMLParser):
    """Tags with their attributes, and what stands inside scripts."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.scripts, self.text, self._in = [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._in = tag
        if tag == "script":
            self.scripts.append((dict(attributes), ""))

    def handle_endtag(self, tag):
        self._in = None

    def handle_data(self, data):
        if self._in == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif self._in != "style":
            self.text.append(data)

    @property
    def data(self):
        return json.loads(next(text for attributes, text in self.scripts if attributes.get("id") == "data"))


def read(path):
    return Page(path.read_text(encoding="utf-8"))


def test_one_file_that_names_no_address_and_runs_no_other_script(selection, tmp_path):
    found = read(selection.report(tmp_path / "report.html"))
    for tag, attributes in found.tags:
        assert tag not in {"iframe", "object", "embed", "img", "base", "form-action", "audio", "video"}
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for name in ("src", "href", "action", "srcset"):
            assert attributes.get(name, "#").startswith(("#", "data:,")), (tag, attributes)
    policy = next(a["content"] for t, a in found.tags if a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert "connect-src" not in rules
    code = [text for attributes, text in found.scripts if attributes.get("type") != "application/json"]
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in code]
    assert rules["script-src"].split() == [f"'sha256-{one}'" for one in reversed(hashes)]
    assert len(code) == 2


def test_what_the_page_holds_is_what_pandas_counts(selection, scores, rows):
    frame = pd.DataFrame(rows)
    frame["kept"] = selection.kept
    held = payload(Shown([selection], 5000))
    assert held["rows"] == list(range(len(rows)))
    assert [one == "1" for one in held["selections"][0]["kept"]] == selection.kept.tolist()
    reasons = held["selections"][0]
    assert [reasons["reasons"][code] for code in reasons["reason"]] == selection.reasons.to_pylist()

    cluster, skill = held["facets"]
    assert (cluster["name"], skill["name"]) == ("cluster", "skill")
    whole, kept = frame.groupby("skill").size(), frame.groupby("skill").kept.sum()
    assert {skill["names"][bar["group"]]: (bar["size"], bar["kept"][0]) for bar in skill["bars"]} == {
        name: (whole[name], kept[name]) for name in whole.index
    }
    assert [skill["names"][code] for code in skill["codes"]] == frame.skill.tolist()
    groups = scores.rankings["concept_complexity"].groups
    shares = frame[groups >= 0].groupby(groups[groups >= 0]).kept.agg(["size", "sum"])
    assert {bar["group"]: (bar["size"], bar["kept"][0]) for bar in cluster["bars"]} == {
        int(group): (size, taken) for group, size, taken in shares.itertuples()
    }
    partly = "300 of 307 rows are counted; 7 were dropped before scoring."
    assert cluster["note"] == partly
    assert skill["note"] == "All 307 rows are counted."
    assert held["scorers"][0]["note"] == partly.replace("counted", "drawn")
    assert [one["note"] for one in held["histograms"]] == [partly, skill["note"], partly]
    mostly = frame[groups == 0].skill.value_counts()
    assert len(mostly) > 1
    assert cluster["notes"][0] in {
        f"mostly {name} ({100 * count / mostly.sum():.0f}\u00a0%)"
        for name, count in mostly.items()
        if count == mostly.max()
    }

    for one, (name, ranking) in zip(held["scorers"], scores.rankings.items(), strict=True):
        values = pd.Series(ranking.values)
        ranks = values.rank(ascending=False, method="average")
        assert one["name"] == name
        assert one["rank"] == [None if np.isnan(rank) else int(rank) for rank in ranks]
        np.testing.assert_allclose(np.array(one["score"], dtype=float), values, rtol=1e-5)
    ranks = pd.DataFrame(
        {n: pd.Series(scores.rankings[n].values).rank() for n in ("concept_complexity", "prototypes")}
    )
    apart = (ranks.max(axis=1) - ranks.min(axis=1)) / (ranks.count().iloc[0] - 1)
    np.testing.assert_allclose(np.array(held["disagreement"], dtype=float), apart, atol=6e-3)

    assert held["lengths"]["unit"] == "characters"
    assert held["lengths"]["values"] == (frame.question.str.len() + frame.answer.str.len()).tolist()


def test_histograms_count_every_row_once(selection):
    held = payload(Shown([selection], 5000))["histograms"]
    assert [one["name"] for one in held] == [
        "score of concept_complexity",
        "length in characters",
        "centroid_distance",
    ]
    scored = int(np.isfinite(selection.values).sum())
    for one, whole in zip(held, [scored, len(selection.kept), scored], strict=True):
        assert sum(one["all"]) == whole
        assert sum(one["kept"][0]) == len(selection)
    edges = np.array(held[0]["edges"])
    values = selection.values[np.isfinite(selection.values)]
    wide = edges + np.array([-1e-5] + [0] * (len(edges) - 2) + [1e-5])  # edges are written with six digits
    assert np.abs(np.histogram(values, wide)[0] - held[0]["all"]).sum() <= 2


@given(
    st.lists(
        st.one_of(st.floats(-1e6, 1e6), st.just(float("nan")), st.integers(0, 9).map(float)), max_size=60
    ),
    st.booleans(),
    st.randoms(use_true_random=False),
)
@settings(max_examples=60, deadline=None)
def test_histograms_of_any_values(values, length, random):
    array = np.abs(np.array(values)) if length else np.array(values, dtype=np.float64)
    kept = np.array([random.random() < 0.4 for _ in values], dtype=np.bool_)
    found = histogram("x", array, [kept], length=length)
    finite = np.isfinite(array)
    assert sum(found["all"]) == finite.sum()
    assert sum(found["kept"][0]) == (kept & finite).sum()
    assert all(k <= a for k, a in zip(found["kept"][0], found["all"], strict=True))
    assert (np.diff(found["edges"]) >= 0).all()
    json.dumps(found, allow_nan=False)


def test_the_outermost_bars_take_outliers():
    values = np.concatenate([np.linspace(0, 1, 100), [1e9]])
    found = histogram("x", values, [])
    assert found["open"] == [False, True]
    assert found["edges"][-1] < 100
    assert sum(found["all"]) == 101


def test_quadrants_are_the_selectors_own(rows, tiny_llama, cache):
    from datapruner.scorers import QTuning

    scores = dp.score(
        rows[:120], scorers=[QTuning(token_keep=1.0)], model=str(tiny_llama), progress=False, max_length=128
    )
    selection = scores.select(keep=0.4)
    held = payload(Shown([selection], 5000))["plane"]
    reasons = selection.reasons.to_pylist()
    for number, one in enumerate(held["cuts"][0]["quadrants"], start=1):
        own = [reason for reason in reasons if f": Q{number}," in reason]
        assert one["rows"] == len(own)
        assert one["kept"] == sum(reason.startswith("kept") for reason in own)
        assert one["name"].startswith(f"Q{number}, ")
    assert held["cuts"][0]["medians"] is False
    topk = payload(Shown([scores.select(keep=0.4, selector="topk")], 5000))["plane"]["cuts"][0]
    columns = scores.rankings["qtuning"].columns
    assert topk["medians"] is True
    assert topk["x"] == pytest.approx([np.median(columns["entropy"])] * 2, rel=1e-5)
    assert topk["y"] == pytest.approx([np.median(columns["log_ppl"])] * 2, rel=1e-5)


def test_the_map_is_the_scorers(rows, vectors, cache):
    scores = dp.score(rows, scorers="topoprune", embeddings=vectors, manifold="pca", progress=False)
    held = payload(Shown([scores.select(keep=0.3)], 5000))
    columns = scores.rankings["topoprune"].columns
    assert held["maps"][0]["x"] == pytest.approx(columns["manifold_1"].tolist(), rel=1e-4, abs=1e-9)
    assert "PCA" in held["maps"][0]["labels"][0]
    assert held["plane"] is None


def test_the_same_inputs_give_the_same_bytes_and_no_path(selection, tmp_path):
    one = selection.report(tmp_path / "one" / "report.html").read_bytes()
    again = write_report(tmp_path / "two.html", [selection]).read_bytes()
    assert one == again
    assert str(tmp_path).encode() not in one
    assert str(Path.cwd()).encode() not in one


def test_another_process_writes_the_same_bytes(tmp_path):
    code = (
        "import datapruner as dp\n"
        "rows = [{'question': f'q {i}', 'answer': 'a' * (i % 9), 'skill': 'xy'[i % 2]} for i in range(60)]\n"
        "dp.prune(rows, scorer='random', keep=0.5, progress=False).report(path)\n"
    )
    exec(code, {"path": tmp_path / "here.html"})
    environment = {"PYTHONHASHSEED": "7", "PATH": "", "HOME": str(tmp_path)}
    there = f"path = {str(tmp_path / 'there.html')!r}\n{code}"
    subprocess.run([sys.executable, "-c", there], check=True, env=environment)
    assert (tmp_path / "here.html").read_bytes() == (tmp_path / "there.html").read_bytes()


def test_a_report_in_the_result_leaves_everything_else_as_it_was(selection, tmp_path):
    import filecmp

    selection.save(tmp_path / "plain")
    selection.save(tmp_path / "with", report=True)
    names = sorted(p.relative_to(tmp_path / "plain") for p in (tmp_path / "plain").rglob("*") if p.is_file())
    both = sorted(p.relative_to(tmp_path / "with") for p in (tmp_path / "with").rglob("*") if p.is_file())
    assert set(both) - set(names) == {Path("report.html")}
    for name in set(names) - {Path("checksums.txt")}:
        assert filecmp.cmp(tmp_path / "plain" / name, tmp_path / "with" / name, shallow=False), name
    selection.save(tmp_path / "with", overwrite=True)
    assert not (tmp_path / "with" / "report.html").exists()
    again = dp.prune([{"text": "a b"}, {"text": "c d"}], scorer="random", keep=1, progress=False)
    again.save(tmp_path / "with", overwrite=True, report=True)
    assert read(tmp_path / "with" / "report.html").data["total"] == 2


def test_the_command_line_writes_it(rows, vectors, tmp_path, cache, monkeypatch, capsys):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    np.save(tmp_path / "vectors.npy", vectors)

    def run(*arguments):
        code = command(monkeypatch, *arguments)
        said = capsys.readouterr()
        return code, said.out, said.err

    source = [tmp_path / "rows.jsonl", "--embeddings", tmp_path / "vectors.npy", "-q"]
    assert run("prune", *source, "--keep", "0.3", "--report", "-o", tmp_path / "pruned")[0] == 0
    scorers = ["--scorer", "prototypes", "--scorer", "random"]
    assert run("score", *source, *scorers, "-o", tmp_path / "scores")[0] == 0
    select = ["select", tmp_path / "scores", "--scorer", "random", "--keep", "9"]
    code, told, _ = run(*select, "--report", "-o", tmp_path / "selected")
    assert code == 0
    assert told.endswith(f"  look at {tmp_path / 'selected' / 'report.html'}\n")
    assert "report.html" not in run(*select, "-o", tmp_path / "without")[1]
    assert run("run", tmp_path / "pruned" / "recipe.yaml", "--report", "-q", "-o", tmp_path / "again")[0] == 0
    assert "report" not in (tmp_path / "pruned" / "recipe.yaml").read_text()
    assert (tmp_path / "again" / "report.html").read_bytes() == (
        tmp_path / "pruned" / "report.html"
    ).read_bytes()
    held = read(tmp_path / "selected" / "report.html").data
    assert [one["name"] for one in held["scorers"]] == ["prototypes", "random"]

    monkeypatch.setattr(page, "find_spec", lambda name: None)
    monkeypatch.setattr(
        "datapruner.running.measure", lambda *a, **k: pytest.fail("measured before it was refused")
    )
    monkeypatch.setattr("datapruner.scores.load_scores", lambda *a, **k: pytest.fail("read before"))
    for arguments in (
        ["prune", *source, "--keep", "0.3"],
        select,
        ["run", tmp_path / "pruned" / "recipe.yaml"],
    ):
        code, _, said = run(*arguments, "--report", "-o", tmp_path / "never")
        assert code == 2
        assert said.count("\n") == 1
        assert "pip install " in said
        assert not (tmp_path / "never").exists()


def test_refusals_are_sentences(selection, scores, rows, tmp_path, monkeypatch):
    file = selection.report(tmp_path / "report.html")
    before = file.read_bytes()
    with pytest.raises(dp.DataPrunerError, match="overwrite=True"):
        selection.report(file)
    selection.report(file, overwrite=True)
    assert file.read_bytes() == before
    with pytest.raises(dp.DataPrunerError, match="is a folder"):
        selection.report(tmp_path)
    with pytest.raises(dp.DataPrunerError, match="needs a selection"):
        write_report(file, [])
    other = dp.prune(rows, scorer="random", keep=3, progress=False)
    with pytest.raises(dp.DataPrunerError, match="the same scores"):
        write_report(file, [selection, other])
    with pytest.raises(dp.DataPrunerError, match="1 row or more"):
        selection.report(file, overwrite=True, max_rows=0)
    monkeypatch.setattr(
        page, "_html", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(dp.DataPrunerError, match="No space left"):
        selection.report(tmp_path / "full.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html"]


def test_a_comparison_has_a_line_and_a_matrix_for_every_selection(scores, tmp_path):
    chosen = [scores.select(name, keep=keep) for keep in (0.3, 20) for name in scores.rankings]
    found = read(
        write_report(
            tmp_path / "c.html",
            chosen,
            sections=[Section("Steady", "So so.", ["scorer", "x"], [["random", "0.18"]])],
        )
    )
    text = " ".join(" ".join(found.text).split())
    assert [one["name"] for one in found.data["selections"]][:2] == [
        "concept_complexity, 30\u00a0%",
        "prototypes, 30\u00a0%",
    ]
    assert "Steady So so. scorer x random 0.18" in text
    for first, second in ((0, 1), (0, 2), (3, 5)):
        both = (chosen[first].kept & chosen[second].kept).sum() / (
            chosen[first].kept | chosen[second].kept
        ).sum()
        assert f"{both:.2f}" in text
    pairs = {tuple(sorted(pair)) for pair in re.findall(r"rows that (\w+) or (\w+) keeps", text)}
    assert pairs == {("concept_complexity", "prototypes")}


# ---------------------------------------------------------------------------------------------- which rows are shown


@pytest.mark.parametrize("outer", [True, False])
@given(st.lists(st.integers(1, 400), min_size=1, max_size=30), st.integers(1, 500), st.integers(0, 2**32 - 1))
@settings(max_examples=80, deadline=None)
def test_samples_are_stratified(outer, sizes, count, seed):
    strata = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    both = (strata, np.zeros_like(strata)) if outer else (np.zeros_like(strata), strata)
    chosen = stratified(*both, count)
    n = len(strata)
    assert len(chosen) == min(count, n)
    assert (np.diff(chosen) > 0).all()
    assert np.array_equal(chosen, stratified(*both, count))
    if n <= count:
        return
    got = np.bincount(strata[chosen], minlength=len(sizes))
    least = floors(np.array(sizes), count)
    assert (got >= least).all()
    assert (got <= sizes).all()
    assert least.max() <= FLOOR
    # A larger stratum never shows fewer rows, where counts are rounded by their remainders; a larger group of one fate
    # at most one row fewer. And above the floor shares are proportional: at most one row apart.
    order = np.argsort(sizes, kind="stable")
    if outer:
        assert (np.diff(got[order]) >= 0).all() or (
            np.diff(np.array(sizes)[order])[np.diff(got[order]) < 0] == 0
        ).all()
    assert (got[order] >= np.maximum.accumulate(got[order]) - 1).all()
    above = np.flatnonzero((got > least + 1) & (got < sizes))
    for i in above:
        for j in above:
            assert (got[i] - 1) * sizes[j] <= (got[j] + 1) * sizes[i]


@given(st.lists(st.integers(2, 60), min_size=2, max_size=60), st.integers(0, 10**6))
@settings(max_examples=80, deadline=None)
def test_groups_of_a_sample_are_stepped_through_in_exact_fractions(sizes, count):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    n, count = len(groups), 1 + count % (2 * len(sizes) - 1)  # fewer than two a group: no group has a floor
    walk = np.argsort(scrambled(np.arange(len(sizes)))).tolist()
    passed, expected = Fraction(0), [0] * len(sizes)
    for group in walk:  # rounded half up where the walk leaves a group
        before = math.floor(passed + Fraction(1, 2))
        passed += Fraction(count * sizes[group], n)
        expected[group] = math.floor(passed + Fraction(1, 2)) - before
    chosen = stratified(np.zeros(n, dtype=np.int64), groups, count)
    assert np.bincount(groups[chosen], minlength=len(sizes)).tolist() == expected


def test_a_sample_does_not_follow_the_order_of_the_rows():
    chosen = stratified(*np.zeros((2, 100_000), dtype=np.int64), 2000)
    halves = (chosen < 50_000).sum()
    assert 900 < halves < 1100
    assert len(np.unique(np.diff(chosen))) > 50


@given(
    st.integers(1, 3000),
    st.integers(1, 5),
    st.integers(1, 2000),
    st.integers(1, 800),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=80, deadline=None)
def test_however_many_groups_there_are_a_sample_is_of_all_of_them(n, fates, groups, count, seed):
    rng = np.random.default_rng(seed)
    fate, group = rng.integers(0, fates, n), rng.integers(0, groups, n)
    forced = rng.choice(n, min(count // 4, n), replace=False)
    chosen = stratified(fate, group, count, forced)
    assert len(chosen) == min(count, n)
    assert (np.diff(chosen) > 0).all()
    assert np.isin(forced, chosen).all()
    if n <= count:
        return
    free = np.setdiff1d(chosen, forced)
    there = np.bincount(np.delete(fate, forced), minlength=fates)
    got, least = np.bincount(fate[free], minlength=fates), floors(there, len(free))
    above = np.flatnonzero((got > least) & (got < there))
    inside, whole = (
        np.bincount(group[free], minlength=groups),
        np.bincount(np.delete(group, forced), minlength=groups),
    )
    assert (inside <= whole).all()
    if fates == 1 and not floors(whole[whole > 0], len(free)).any():
        assert (np.abs(inside - len(free) * whole / whole.sum()) < 1).all(), (
            "a group's count is its share, rounded"
        )
    share = got[above] / there[above]
    assert (np.abs(share[:, None] - share) <= 1 / there[above] + 1 / there[above][:, None] + 1e-12).all()


def test_a_sample_of_many_small_groups_is_spread_over_them():
    """Two rows a group, one kept and one dropped; then groups by the dozen, and fates of which some are rare."""
    fate, group = np.arange(12_000) % 2, np.arange(12_000) // 2
    chosen = stratified(fate, group, 5000)
    assert np.bincount(fate[chosen]).tolist() == [2500, 2500]
    assert np.histogram(group[chosen], 10)[0] == pytest.approx(500, abs=60)
    for n, period in (
        (10_000, 2),
        (20_000, 2),
        (25_000, 5),
        (50_000, 3),
    ):  # of the data, which the draw must not hear
        rows = np.arange(n)
        chosen = stratified(np.zeros(n, dtype=np.int64), rows, 5000)
        assert np.bincount(chosen % period) == pytest.approx(5000 / period, rel=0.1)
    rng = np.random.default_rng(0)
    votes, cluster = rng.binomial(8, 0.35, 100_000), rng.integers(0, 1000, 100_000)
    shown = np.bincount(votes[stratified(votes, cluster, 5000)], minlength=9)
    whole = np.bincount(votes, minlength=9)
    assert shown[-1] == whole[-1] or shown[-1] >= FLOOR
    np.testing.assert_allclose(shown[:7] / 5000, whole[:7] / 100_000, atol=0.003)


def test_large_sets_are_sampled_openly(tmp_path):
    n = 9000
    source = Dataset.from_dict(
        {"text": [f"text {i}" for i in range(n)], "kind": ["common"] * (n - 30) + ["rare"] * 30}
    )
    selection = dp.prune(source, scorer="random", keep=0.2, per_group="kind", progress=False)
    found = read(selection.report(tmp_path / "r.html", max_rows=500))
    held = found.data
    assert len(held["rows"]) == len(held["texts"]) == len(held["selections"][0]["kept"]) == 500
    text = " ".join("".join(found.text).split())
    assert "show 500 of 9,000 rows, a sample stratified by what became of them and by kind" in text
    assert sum(held["histograms"][0]["all"]) == n
    assert {bar["size"] for bar in held["facets"][0]["bars"]} == {n - 30, 30}
    codes = np.array(held["facets"][0]["codes"])
    kept = np.array([one == "1" for one in held["selections"][0]["kept"]])
    rare = held["facets"][0]["names"].index("rare")
    assert (codes == rare).sum() == 26  # all 6 kept ones, and the floor of the 24 dropped ones
    assert kept.sum() == pytest.approx(100, abs=10)
    assert [one["turns"][0][1] for one in held["texts"]] == [f"text {row}" for row in held["rows"]]


def test_a_page_names_only_the_groups_that_it_shows(tmp_path):
    n = 3000
    source = Dataset.from_dict(
        {"text": [f"t {i}" for i in range(n)], "user": [f"user {i // 2}" for i in range(n)]}
    )
    selection = dp.prune(source, scorer="random", keep=0.5, per_group="user", progress=False)
    held = read(selection.report(tmp_path / "r.html", max_rows=100)).data
    assert held["selections"][0]["kept"].count("1") == 50
    facet = held["facets"][0]
    assert len(facet["names"]) <= 140
    assert [facet["names"][code] for code in facet["codes"]] == [f"user {row // 2}" for row in held["rows"]]
    assert [bar["size"] for bar in facet["bars"]] == [2] * 40
    assert facet["rest"] == {"groups": n // 2 - 40, "size": n - 80, "kept": [n // 2 - 40]}


def test_a_page_stays_small_whatever_the_rows_hold(tmp_path):
    source = [{"text": f"{number} " + "<你>" * 4000} for number in range(1500)]
    path = dp.prune(source, scorer="random", keep=0.5, progress=False).report(tmp_path / "r.html")
    assert path.stat().st_size < 15e6


def test_rows_of_most_disagreement_are_always_shown(tmp_path):
    rng = np.random.default_rng(0)
    n = 4000
    rows = [{"text": "x" * int(size)} for size in rng.integers(1, 500, n)]
    vectors = rng.normal(size=(n, 4)).astype(np.float32)
    scores = dp.score(rows, scorers=["prototypes", "k_center", "random"], embeddings=vectors, progress=False)
    chosen = [scores.select(name, keep=0.3) for name in scores.rankings]
    held = read(write_report(tmp_path / "r.html", chosen, max_rows=400)).data
    ranks = pd.DataFrame(
        {name: pd.Series(scores.rankings[name].values).rank() for name in ("prototypes", "k_center")}
    )
    apart = (ranks.prototypes - ranks.k_center).abs().sort_values(ascending=False, kind="stable")
    assert set(apart.index[:20]) <= set(held["rows"])


# ---------------------------------------------------------------------------------------------- texts


LAYOUTS = [
    [{"text": "añb"}, {"text": ""}],
    [{"question": "why?", "answer": "because"}, {"question": "", "answer": "x"}],
    [
        {"messages": [{"role": "user", "content": "hi 你好"}, {"role": "assistant", "content": "yes"}]},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}] * 3},
    ],
    [{"prompt": [{"role": "user", "content": "abc"}], "completion": [{"role": "assistant", "content": "de"}]}]
    * 2,
]


@pytest.mark.parametrize("rows", LAYOUTS)
@pytest.mark.parametrize("indexed", [False, True])
def test_characters_are_counted_without_objects(rows, indexed):
    source = Dataset.from_list(rows * 3)
    if indexed:
        source = source.select([4, 1, 0])
    samples = load_samples(source)
    expected = [sum(len(message.content) for message in sample.messages) for sample in samples]
    assert characters(samples).tolist() == expected


def test_characters_of_messages_with_calls_are_counted():
    """Such messages are JSON values to `datasets`; the page once said that all rows are 0 characters long."""
    call = {"type": "function", "function": {"name": "f", "arguments": {"city": "Oslo"}}}
    rows = [
        {"messages": [{"role": "user", "content": "abcd"}, {"role": "assistant", "content": "efg"}]},
        {
            "messages": [
                {"role": "user", "content": "h"},
                {"role": "assistant", "content": "", "tool_calls": [call]},
            ]
        },
    ]
    assert characters(dp.load_samples(rows)).tolist() == [7, 1 + len("function" + "f" + "Oslo")]


def test_excerpts_say_what_they_leave_out():
    long = "é" * 1_000_000
    samples = load_samples([{"question": "short?", "answer": long}, {"question": long, "answer": "end"}])
    found = excerpts(samples, np.array([0, 1]))
    for one in found:
        shown = sum(len(text) for _, text in one["turns"])
        assert one["missing"] == one["length"] - shown
        assert shown == 4000
    assert found[0]["length"] == 1_000_006
    assert found[1]["turns"][1] == ["assistant", "end"]  # a long question does not hide the answer


@pytest.mark.parametrize("filling", ["<&>", "你", "\x1b", "a\n", "\u202e"])
def test_excerpts_stay_within_their_room(filling):
    samples = load_samples([{"text": filling * 3000}] * 60)
    room = 200_000
    assert len(script_json(excerpts(samples, np.arange(60), room)).encode()) <= room


def test_a_row_that_cannot_be_read_says_so():
    samples = load_samples(
        [
            {"question": "a", "answer": "b"},
            {"question": None, "answer": "c"},
            {"question": "d", "answer": "e"},
        ]
    )
    found = excerpts(samples, np.array([0, 1, 2]))
    assert found[0]["turns"] == [["user", "a"], ["assistant", "b"]]
    assert found[1]["turns"][0][0] == "unreadable"
    assert "Row 1" in found[1]["turns"][0][1]
    assert found[2]["turns"] == [["user", "d"], ["assistant", "e"]]


def test_rows_without_text_show_their_plain_columns():
    rows = [
        {"embedding": [0.1 * number, 1.0], "label": number % 2, "name": f"n{number}"} for number in range(12)
    ]
    selection = dp.prune(rows, scorer="prototypes", keep=4, embedding_column="embedding", progress=False)
    shown = Shown([selection], 100)
    assert shown.lengths is None
    assert excerpts(shown.scores.samples, shown.rows)[3]["turns"] == [["label", "1"], ["name", "n3"]]
    assert "label" in [facet.name for facet in shown.facets]


# ---------------------------------------------------------------------------------------------- sentences


def test_numbers_in_words():
    assert [counted(n, "row") for n in (0, 1, 2, 1234)] == ["no rows", "1 row", "2 rows", "1,234 rows"]
    assert [listed(list(abc)) for abc in ("", "a", "ab", "abc")] == ["", "a", "a and b", "a, b and c"]
    shares = [
        percent(*pair).replace("\u00a0", " ")
        for pair in ((0, 5), (1, 5000), (1, 40), (3, 10), (9996, 10000), (5, 5), (1, 0))
    ]
    assert shares == ["0 %", "under 0.1 %", "2.5 %", "30 %", "99.9 %", "100 %", "-"]
    with pytest.raises(IndexError):
        listed([])[0]


@dataclass(frozen=True)
class Same(Scorer):
    """Nothing to rank by."""

    name: ClassVar[str] = "same"
    needs: ClassVar[frozenset[str]] = frozenset()

    def _score(self, signals):
        return Ranking(np.zeros(signals.num_rows))


def Given(called, values):  # noqa: N802
    """Make a scorer of values that are there."""

    @dataclass(frozen=True)
    class Held(Scorer):
        name: ClassVar[str] = called
        needs: ClassVar[frozenset[str]] = frozenset()

        def _score(self, signals):
            return Ranking(values)

    return Held()


def summed_up(selection):
    shown = Shown([selection], 100)
    return " ".join(selection_words(selection, shown.facets, shown.lengths, shown.unit)).replace(
        "\u00a0", " "
    )


def text_rows(n):
    return [{"text": f"row {number} " + "x" * number} for number in range(n)]


@pytest.mark.parametrize(
    ("copies", "sentence"),
    [
        (0, "Cleaning looked for exact duplicates and found none."),
        (1, "Before that, 1 exact duplicate was dropped."),
        (3, "Before that, 3 exact duplicates were dropped."),
    ],
)
def test_cleaning_in_words(copies, sentence):
    rows = text_rows(20)
    words = summed_up(
        dp.prune(rows + rows[:copies], scorer="random", keep=5, dedup=["exact"], progress=False)
    )
    assert sentence in words
    assert words.startswith(
        f"random keeps 5 of {20 + copies} rows ({percent(5, 20 + copies)}), ".replace("\u00a0", " ")
    )


def test_steps_are_added_up_in_words():
    rows = text_rows(20)
    words = summed_up(
        dp.prune(
            rows + rows[:2],
            scorer="random",
            keep=5,
            dedup=["exact"],
            never_keep=[3],
            always_keep=[4, 5],
            progress=False,
        )
    )
    assert "Before that, 3 rows were dropped: 1 row on the never-keep list and 2 exact duplicates." in words
    assert "2 rows were on the always-keep list." in words


def test_one_row_all_rows():
    assert summed_up(dp.prune(text_rows(1), scorer="random", keep=1, progress=False)).startswith(
        "random keeps the only row"
    )
    words = summed_up(dp.prune(text_rows(4), scorer="random", keep=1.0, progress=False))
    assert words.startswith(
        "random keeps all 4 rows, chosen by the selector topk for a budget of 100 % of the rows."
    )
    assert "dropped" not in words


def test_surprises_are_planted_and_found():
    rows = [{"text": "long " * 50, "kind": "a"}] * 40 + [{"text": "short", "kind": "b"}] * 160
    rows = [{**row, "text": f"{row['text']} {number}"} for number, row in enumerate(rows)]
    words = summed_up(dp.prune(rows, scorer="length", keep=0.2, progress=False))
    assert (
        "By kind, the share kept is strikingly high in “a” (40 of 40, 100 %) and strikingly low in “b” (0 of 160, 0 %)."
        in words
    )
    assert "Kept rows are longer than those that the budget dropped" in words
    assert "; the score favours long rows" in words
    flat = summed_up(dp.prune(rows, scorer="random", keep=0.2, per_group="kind", progress=False))
    assert "By kind, no group's share kept is further from the whole than chance allows." in flat
    assert "hardly depends on length" in flat


def test_a_score_that_favours_what_is_not_kept_says_although():
    rows = [{"text": "long " * (1 + number)} for number in range(8)]
    words = summed_up(dp.prune(rows, scorer="length", keep=3, always_keep=[0, 1, 2], progress=False))
    assert "Kept rows are shorter than" in words
    assert "against 6, although the score favours long rows (rank correlation 1.00)." in words


def of_kinds(sizes, column):
    """Give so many rows of each kind; those of `math` are long."""
    return [
        {"text": f"{kind} {number} " + "x" * (200 if kind == "math" else 1), column: kind}
        for kind, size in sizes.items()
        for number in range(size)
    ]


def test_labels_that_keep_nothing_are_warned_of(tmp_path):
    sizes = {"math": 60, "<b>chat</b>": 40, "tools": 12, "faq": 9}
    rows = of_kinds(sizes, "my kind")
    rows += [dict(rows[60], text=rows[60]["text"], **{"my kind": "copies"})] * 10
    chosen = dp.prune(rows, scorer="length", keep=50, dedup=["exact"], progress=False)
    shown = Shown([chosen], 100)
    (warning,) = warning_words(chosen, shown.facets)
    assert warning.replace("\u00a0", " ") == (
        "By my kind, little or nothing is kept of “<b>chat</b>” (0 of 40 rows, 0 %), “tools” (0 of 12 rows, 0 %) and "
        "“copies” (0 of 10 rows, 0 %; all were dropped before scoring), against 38 % of all rows. "
        "--per-group 'my kind' gives every group its share."
    )
    assert "further from the whole" not in summed_up(chosen)
    found = read(chosen.report(tmp_path / "r.html"))
    assert [a["class"] for _, a in found.tags if a.get("role") == "note"] == ["warning"]
    assert warning in found.text
    assert "b" not in [tag for tag, _ in found.tags]
    shared = dp.prune(rows, scorer="length", keep=50, per_group="my kind", progress=False)
    assert warning_words(shared, Shown([shared], 100).facets) == []


def test_random_rows_starve_nobody_and_many_columns_are_summed_up():
    rng = np.random.default_rng(0)
    names = [f"label {number}" for number in range(40)]
    rows = [
        {"text": str(row), **dict(zip(names, (rng.exponential(8, 40)).astype(int).tolist(), strict=True))}
        for row in range(2000)
    ]
    chosen = dp.prune(rows, scorer="random", keep=0.05, progress=False)
    assert len(warning_words(chosen, Shown([chosen], 100).labels)) <= 2
    rows = [{"text": "x " * (1 + row % 2), **dict.fromkeys(names[:6], row % 2)} for row in range(100)]
    told = warning_words(
        chosen := dp.prune(rows, scorer="length", keep=40, progress=False), Shown([chosen], 9).labels
    )
    assert len(told) == 4
    assert told[3] == "The same is true of labels in 3 more columns."


def test_class_labels_have_their_names_wherever_they_are_named():
    from datasets import ClassLabel, Features, Value

    source = Dataset.from_dict(
        {"text": [f"t {i}" for i in range(30)], "kind": [i % 3 for i in range(30)]},
        features=Features({"text": Value("string"), "kind": ClassLabel(names=["cat", "dog", "bird"])}),
    )
    for found in (
        dp.compare(source, scorers="random", keep=10, by="kind", progress=False),
        dp.compare(source, scorers="random", keep=10, progress=False),
    ):
        (facet,) = Shown(found.every, 100, found.by).facets
        assert sorted(facet.names) == ["bird", "cat", "dog"]


def test_a_column_of_texts_that_starts_alike_is_no_label(monkeypatch):
    """And its values are not looked up to find that out."""
    import pyarrow.compute as pc

    from datapruner.outputs import facets

    monkeypatch.setattr(facets, "PROBED", 50)
    monkeypatch.setattr(pc, "unique", lambda *a, **k: pytest.fail("the column was encoded"))
    rows = [{"text": "x", "note": "" if row < 50 else f"note {row}"} for row in range(300)]
    assert Shown([dp.prune(rows, scorer="random", keep=0.5, progress=False)], 100).labels == []


@pytest.mark.parametrize(
    ("column", "advice"),
    [("a column " + "with a long name " * 5, True), ("kind\u202e", False)],
)
def test_the_advice_names_a_column_that_can_be_typed(column, advice):
    rows = [{"text": "x" * (9 if number < 30 else 1), column: str(number < 30)} for number in range(60)]
    chosen = dp.prune(rows, scorer="length", keep=20, progress=False)
    (warning,) = warning_words(chosen, Shown([chosen], 100).facets)
    assert (f"--per-group '{column}'" in warning) is advice
    assert ("--per-group" in warning) is advice
    shared = dp.prune(rows, scorer="length", keep=20, per_group=column, progress=False)
    assert warning_words(shared, Shown([shared], 100).facets) == []


def test_a_comparison_warns_of_labels_that_a_scorer_starves(tmp_path):
    sizes = {"math": 60, "<b>chat</b>": 40, "tools": 12, "faq": 11}
    rows = of_kinds(sizes, "kind")
    scores = dp.score(rows, scorers=["length", "random"], progress=False)
    chosen = [scores.select(name, keep=keep) for keep in (50, 100) for name in ("random", "length")]
    (warning,) = comparison_warnings(chosen, Shown(chosen, 100).facets)
    assert warning == (
        "At 50 rows, by kind, little or nothing is kept by length of “<b>chat</b>”, “tools” and 1 more group."
    )
    found = read(write_report(tmp_path / "r.html", chosen))
    assert warning in found.text
    assert comparison_warnings(chosen[:1], Shown(chosen[:1], 100).facets) == []


def test_columns_that_were_named_come_first_and_every_label_is_warned_of(tmp_path):
    """A fourth label, and one of many values, are looked at where they are named; a warning needs no naming."""
    rows = [
        {
            "text": "x" * (200 if number % 4 else 1) + str(number),
            **{name: f"{name} {number % 3}" for name in ("lang", "origin", "level")},
            "skill": "math" if number % 4 == 0 else "code",
            "user": f"user {number % 75}",
        }
        for number in range(150)
    ]
    found = dp.compare(rows, scorers="length", keep=60, by=["skill", "user"], progress=False)
    page = read(found.report(tmp_path / "r.html"))
    assert [facet["name"] for facet in page.data["facets"]] == ["skill", "user", "lang"]
    warning = "By skill, little or nothing is kept by length of “math”."
    assert warning in page.text
    page = read(dp.compare(rows, scorers="length", keep=60, progress=False).report(tmp_path / "s.html"))
    assert [facet["name"] for facet in page.data["facets"]] == ["lang", "origin", "level"]
    assert warning in page.text


def test_a_label_may_begin_with_one_value_for_long():
    rows = Dataset.from_dict(
        {"text": ["x"] * 24_000, "source": ["math"] * 20_001 + ["code"] * 3997 + ["", " "]}
    )
    (facet,) = Shown([dp.prune(rows, scorer="random", keep=0.5, progress=False)], 100).facets
    assert (facet.name, facet.names) == ("source", ["math", "code", "(empty)", "(blank)"])
    assert facet.sizes.tolist() == [20_001, 3997, 1, 1]


@pytest.mark.parametrize("values", [["a", "b", None], [None, "a", "b"], [True, False, None], [3, None, 4]])
def test_labels_with_nulls_in_a_source_of_several_pieces(values):
    kinds = [values[number % 3] for number in range(60)]
    pieces = [Dataset.from_dict({"text": ["x"] * 20, "kind": kinds[at : at + 20]}) for at in range(0, 60, 20)]
    source = concatenate_datasets(pieces)
    assert source.data.table.column("kind").num_chunks == 3
    (facet,) = Shown([dp.prune(source, scorer="random", keep=0.5, progress=False)], 100).facets
    named = [facet.names[code] for code in facet.codes]
    assert named == ["(none)" if kind is None else str(kind) for kind in kinds]


def test_clusters_of_one_label_say_all():
    rows = [{"text": f"{word} {number}", "kind": word} for word in ("cat", "dog") for number in range(20)]
    vectors = np.repeat(np.eye(2), 20, axis=0) + np.arange(40)[:, None] * 1e-3
    scores = dp.score(
        rows, scorers=[make_scorer("prototypes", {"n_clusters": 2})], embeddings=vectors, progress=False
    )
    facets = Shown([scores.select("prototypes", keep=10)], 100).facets
    assert sorted(next(facet for facet in facets if facet.scorer).notes) == ["all cat", "all dog"]


def test_mostly_is_never_all():
    """One row of four hundred is another: 99.75 % is not rounded to 100."""
    rows = [{"text": f"row {number}", "kind": "cat" if number else "dog"} for number in range(400)]
    vectors = np.random.default_rng(0).normal(size=(400, 4))
    scores = dp.score(
        rows, scorers=[make_scorer("prototypes", {"n_clusters": 1})], embeddings=vectors, progress=False
    )
    facets = Shown([scores.select("prototypes", keep=10)], 100).facets
    assert next(facet for facet in facets if facet.scorer).notes == ["mostly cat (99\u00a0%)"]


def test_a_group_too_small_for_a_warning_is_named():
    rows = [{"text": f"row {number}", "kind": "few" if number in (3, 5) else "many"} for number in range(40)]
    chosen = dp.prune(rows, scorer="random", keep=10, never_keep=[3, 5], progress=False)
    assert "than chance allows, although nothing is kept of “few” (2 rows)." in summed_up(chosen)


def test_ties_are_told():
    rows = [{"text": "same words"} for _ in range(10)]
    assert "All rows that were scored share one score" in summed_up(
        dp.prune(rows, scorer="length", keep=3, progress=False)
    )


def test_a_comparison_in_words(scores):
    def words(chosen):
        shown = Shown(chosen, 100)
        return " ".join(comparison_words(chosen, shown.facets, shown.lengths, shown.unit)).replace(
            "\u00a0", " "
        )

    names = ("concept_complexity", "prototypes")
    chosen = [scores.select(name, keep=0.3) for name in names]
    both = (chosen[0].kept & chosen[1].kept).sum()
    either = (chosen[0].kept | chosen[1].kept).sum()
    found = words(chosen)
    assert found.startswith("2 scorers rank the same 307 rows, for a budget: 30 % of the rows.")
    assert f"both keep {percent(int(both), int(either))}".replace("\u00a0", " ") in found
    assert f"{counted(int(both), 'row')} {'is' if both == 1 else 'are'} kept by both" in found
    assert f"{counted(307 - int(either), 'row')} by none" in found
    two = words([scores.select("random", keep=keep) for keep in (0.1, 0.2)])
    assert two.startswith(
        "1 scorer ranks the same 307 rows, for 2 budgets: 10 % of the rows and 20 % of the rows."
    )


def test_budgets_that_round_to_the_same_are_two(scores, tmp_path):
    chosen = [scores.select(name, keep=keep) for keep in (0.125, 0.12) for name in ("random", "prototypes")]
    shown = Shown(chosen, 100)
    words = comparison_words(chosen, shown.facets, shown.lengths, shown.unit)
    assert "for 2 budgets: 12.5\u00a0% of the rows and 12\u00a0% of the rows." in words[0]
    assert [one["budget"] for one in payload(shown)["selections"]] == [0, 0, 1, 1]
    assert shown.names[0] == "random, 12.5\u00a0%"
    assert "a budget of 12.5 % of the rows" in summed_up(chosen[0])


def test_nothing_is_said_to_differ_where_nothing_does(scores):
    chosen = [scores.select(name, keep=1.0) for name in ("concept_complexity", "prototypes")]
    shown = Shown(chosen, 100)
    told = " ".join(comparison_words(chosen, shown.facets, shown.lengths, shown.unit))
    assert "differ" not in told
    assert "both keep 100" in told


def test_rows_are_forced_where_scorers_disagree_alone(tmp_path):
    rows = [{"text": "x" * number} for number in range(1, 401)]
    twice = [
        make_scorer("length", {}),
        make_scorer("stratified", {"n_clusters": 2}),
        make_scorer("random", {}),
    ]
    scores = dp.score(rows, scorers=twice, embeddings=np.eye(2)[np.arange(400) % 2], progress=False)
    chosen = [scores.select(name, keep=0.2) for name in ("length", "random", "stratified")]
    shown = Shown(chosen, 100)
    assert shown.disagreement is None, "of three scorers two are baselines"
    assert len(shown.extremes) == 0
    assert "disagree" not in shown.sampled
    found = read(write_report(tmp_path / "r.html", chosen, max_rows=100))
    assert "Ranks apart" not in " ".join(found.text)


def test_rows_are_forced_only_as_far_as_scorers_disagree():
    """Two scorers that rank all rows alike but for the first two, which have changed places."""
    values = np.arange(400.0)
    other = values.copy()
    other[:2] = 1, 0
    made = [Given("one", values), Given("two", other)]
    scores = dp.score([{"text": "x"} for _ in range(400)], scorers=made, progress=False)
    shown = Shown([scores.select(name, keep=0.2) for name in ("one", "two")], 200)
    assert shown.extremes.tolist() == [0, 1]
    assert "with the 2 rows among them on which the scorers disagree most" in shown.sampled


def test_placeholders_of_rows_that_were_not_scored_are_no_values(rows, vectors):
    scorer = make_scorer("k_center", {"centres": 20})
    scores = dp.score(rows, scorers=scorer, embeddings=vectors, dedup=["exact"], progress=False)
    selection = scores.select(keep=0.3)
    held = payload(Shown([selection], 1000))
    name = "center_order"
    assert [selection.explain(row)[name] for row in range(len(rows))] == held["columns"][name]
    assert held["columns"][name].count(None) == 7
    assert name not in [one["name"] for one in held["histograms"]], "an order has no distribution"


def test_rows_that_cost_nothing_are_not_those_that_a_budget_dropped():
    """Twenty rows have no token, twenty have ten."""
    scores = dp.score([{"text": f"row {number}"} for number in range(40)], scorers="random", progress=False)
    tokens = np.repeat([0, 10], 20)
    scores = replace(scores, tokens={"num_tokens": tokens, "num_supervised_tokens": tokens})
    chosen = scores.select(keep_tokens=80)
    assert chosen.counts() == {"kept": 8, "no_supervised_tokens": 20, "over_budget": 12}
    shown = Shown([chosen], 100)
    told = " ".join(selection_words(chosen, shown.facets, shown.lengths, shown.unit))
    assert "20 rows without supervised tokens were dropped: nothing in them is trained on." in told
    assert "Kept rows are as long as those that the budget dropped" in told


def test_a_score_that_is_the_same_everywhere_goes_with_nothing(tmp_path):
    rows = [{"text": "x" * number, "group": str(number % 2)} for number in range(1, 41)]
    scores = dp.score(rows, scorers=[Same(), "random"], progress=False)
    chosen = [scores.select(name, keep=0.5) for name in ("same", "random")]
    assert "rank correlation" not in summed_up(chosen[0])
    found = read(write_report(tmp_path / "r.html", chosen))
    assert "0.00" not in found.text


# ---------------------------------------------------------------------------------------------- hostile text


def test_hostile_text_stays_text(tmp_path):
    path = write_report(
        tmp_path / "h.html",
        hostile_selections(tmp_path),
        title=HOSTILE[0],
        sections=[Section(HOSTILE[2], HOSTILE[1], HOSTILE[:2], [HOSTILE[2:4]])],
    )
    raw = path.read_text(encoding="utf-8")
    found = Page(raw)
    assert len(found.scripts) == 3
    assert not [tag for tag, _ in found.tags if tag in ("img", "b")]
    assert not [1 for _, attributes in found.tags for name in attributes if name.startswith("on")]
    data = next(text for attributes, text in found.scripts if attributes.get("id") == "data")
    assert not set("<>&\u2028\u2029\u202e\x1b\x00\x07") & set(data)
    assert not set("\u202e\x1b\x00\x07\u2066") & set("".join(found.text))
    shown = found.data
    texts = ["\n".join(text for _, text in one["turns"]) for one in shown["texts"]]
    for hostile in HOSTILE[:5]:
        assert any(hostile in text for text in texts)
    assert any("\\u202eright to left" in text for text in texts)
    assert any("\\x1b[31mred" in text for text in texts)
    assert any("=HYPERLINK" in text for text in texts)
    assert any("{{ 7 * 7 }}" in text for text in texts)
    assert max(one["length"] for one in shown["texts"]) > 1_000_000
    assert "\\ud800" in json.dumps(shown["selections"][0]["reasons"]) + "".join(found.text)


def test_every_cause_has_a_colour_however_many_there_are(tmp_path):
    """The bar of what became of the rows is drawn in colours that the page defines, neighbours in different ones."""
    rows = [{"text": f"row {number} " + "word " * number} for number in range(30)]

    @dataclass(frozen=True)
    class Step(CleaningStep):
        name: ClassVar[str] = "each"
        reasons: ClassVar = tuple(Reason(f"cause_{number}", f"cause {number}") for number in range(11))

        def clean(self, left):
            return [drops(reason, [number]) for number, reason in enumerate(self.reasons)]

    selection = dp.prune(rows, scorer="random", keep=5, cleaning=[Step()], on_empty="keep", progress=False)
    write_report(tmp_path / "page.html", [selection])
    text = (tmp_path / "page.html").read_text()
    drawn = re.findall(r'<span class="fate fate-(\d+)"', text)
    assert len(drawn) == 13
    assert all(f".fate-{colour} {{" in text for colour in drawn)
    assert all(one != other for one, other in pairwise(drawn))
