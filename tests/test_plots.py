"""Pictures hold what they are said to hold: points, samples, labels."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

import datapruner as dp
from datapruner.errors import DataPrunerError
from datapruner.scorers import Ranking, Scorer
from datapruner.signals import Signals

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

N = 60
HOSTILE = "$\\frac{1}{0$ <b>_"


def coordinates(n: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 2))


@dataclass(frozen=True)
class Flat(Scorer):
    """What topoprune leaves, made by hand."""

    name: ClassVar[str] = "flat"
    needs: ClassVar[frozenset[str]] = frozenset()
    dimensions: int = 2

    def _score(self, signals: Signals) -> Ranking:
        n = signals.num_rows
        points = coordinates(n)
        before = np.array([[0, 0, 0, 0.5], [0, 1, 0.2, 0.9], [1, 0, 0, 0.4], [1, 1, 0.3, 0.35]])
        return Ranking(
            points[:, 0] + points[:, 1],
            groups=np.arange(n) % 12,
            columns={
                "topology_group": np.arange(n) % 12,
                **{f"manifold_{j + 1}": points[:, j] for j in range(self.dimensions)},
            },
            state={"diagrams_before": before, "diagrams_after": before * [1, 1, 1, 2]},
        )


@pytest.fixture(autouse=True)
def closed():
    yield
    from matplotlib import pyplot

    pyplot.close("all")


@pytest.fixture
def selection():
    made = [{"question": f"q {i}", "answer": f"a {i}", "kind": f"{HOSTILE}{i % 2}"} for i in range(N)]
    return dp.prune(made, scorer=Flat(), keep=20, never_keep=[3, 5])


def offsets(ax):
    return np.concatenate([np.asarray(drawn.get_offsets()) for drawn in ax.collections])


def texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def by_row(points):
    return points[np.lexsort(points.T)]


def columns_of(selection):
    columns = selection.scores.rankings["flat"].columns
    return np.column_stack([columns["manifold_1"], columns["manifold_2"]])


def drawn(ax):
    """Draw it, so that a label that cannot be drawn fails here."""
    ax.figure.canvas.draw()
    return ax


def test_manifold_by_score(selection):
    ax = drawn(dp.plots.plot_manifold(selection))
    places, scored = columns_of(selection), np.isfinite(selection.values)
    assert scored.sum() == N - 2
    np.testing.assert_array_equal(offsets(ax), places[scored])
    np.testing.assert_array_equal(ax.collections[0].get_array(), selection.values[scored])
    assert ax.get_title() == "58 rows"
    assert "standard deviations" in ax.get_xlabel()


def test_manifold_by_what_was_kept(selection):
    ax = drawn(dp.plots.plot_manifold(selection, color="kept"))
    dropped, kept = (np.asarray(held.get_offsets()) for held in ax.collections)
    places = columns_of(selection)
    np.testing.assert_array_equal(kept, places[selection.kept])
    np.testing.assert_array_equal(dropped, places[~selection.kept & np.isfinite(selection.values)])
    assert texts(ax) == ["dropped (38)", "kept (20)"]


def test_manifold_by_a_column_of_the_data(selection):
    ax = drawn(dp.plots.plot_manifold(selection, color="kind"))
    assert [text.replace(r"\$", "$") for text in texts(ax)] == [f"{HOSTILE}0 (30)", f"{HOSTILE}1 (28)"]
    np.testing.assert_array_equal(
        by_row(offsets(ax)), by_row(columns_of(selection)[np.isfinite(selection.values)])
    )


def test_manifold_by_more_groups_than_colours(selection):
    ax = drawn(dp.plots.plot_manifold(selection, color="topology_group"))
    assert texts(ax)[-1] == "5 other groups"
    assert len(texts(ax)) == 8
    colours = {tuple(held.get_facecolor()[0]) for held in ax.collections}
    assert len(colours) == 8
    assert len(offsets(ax)) == N - 2


def test_a_sample_is_said_to_be_one(selection):
    ax = dp.plots.plot_manifold(selection, max_points=10)
    assert ax.get_title() == "showing 10 of 58 rows"
    shown = offsets(ax)
    assert len(np.unique(shown, axis=0)) == 10
    places = columns_of(selection)
    assert all((places == point).all(axis=1).any() for point in shown)
    np.testing.assert_array_equal(shown, offsets(dp.plots.plot_manifold(selection, max_points=10)))


def test_diagrams(selection):
    held = selection.scores.rankings["flat"].state
    for group in (None, 1):
        axes = dp.plots.plot_diagrams(selection, group=group)
        for ax, when in zip(axes, ("before", "after"), strict=True):
            drawn(ax)
            found = held[f"diagrams_{when}"]
            found = found if group is None else found[found[:, 0] == group]
            for dimension, points in enumerate(ax.collections):
                expected = found[found[:, 1] == dimension][:, 2:]
                np.testing.assert_array_equal(np.asarray(points.get_offsets()), expected)
            assert ax.get_title().startswith(f"{when} optimisation")
            assert "radius" in ax.get_xlabel()
            low, high = ax.get_ylim()
            assert low < 0 < found[:, 3].max() < high
        assert axes[0].get_ylim() == axes[1].get_ylim()


def test_given_axes_are_drawn_on(selection):
    from matplotlib.figure import Figure

    axes = Figure().subplots(1, 2)
    assert dp.plots.plot_diagrams(selection, axes=axes)[0] is axes[0]
    one = Figure().subplots()
    assert dp.plots.plot_manifold(selection, ax=one) is one


@pytest.fixture
def steadiness(cache):
    vectors = np.random.default_rng(0).normal(size=(N, 8)).astype(np.float32)
    made = [{"question": f"q {i}", "answer": f"a {i}"} for i in range(N)]
    return dp.compare_stability(
        made, scorers=["prototypes", "random"], keep=0.3, seeds=2, noise=(1, 0.5), embeddings=vectors
    )


def test_stability(steadiness):
    ax = drawn(dp.plots.plot_stability(steadiness))
    records = {r.noise: r for r in steadiness.records if r.scorer == "prototypes" and r.varied == "noise"}
    line, chance, *_ = ax.get_lines()
    assert line.get_xdata().tolist() == [0.5, 1]
    assert line.get_ydata().tolist() == [records[0.5].jaccard, records[1].jaccard]
    assert chance.get_ydata()[0] == records[1].chance
    assert chance.get_linestyle() == ":"
    band = ax.collections[0].get_paths()[0].vertices
    for level, record in records.items():
        heights = band[band[:, 0] == level][:, 1]
        assert heights.max() == pytest.approx(record.jaccard + record.jaccard_sd)
        assert heights.min() == pytest.approx(record.jaccard - record.jaccard_sd)
    assert texts(ax) == ["prototypes", "two random selections", "random: reads no embedding"]
    assert steadiness.plot().get_title() == ax.get_title()


@pytest.mark.parametrize("by", ["cluster", "kind"])
def test_damage(by):
    rng = np.random.default_rng(0)
    names = [f"{HOSTILE}{i % 2}" if i % 3 else "_low" for i in range(N)]
    made = [
        {"question": f"teapot {i % 7}", "answer": f"kettle {i}", "kind": name} for i, name in enumerate(names)
    ]
    found = dp.damage(
        made,
        divergences=rng.uniform(0, 0.6, size=N),
        embeddings=rng.normal(size=(N, 8)).astype(np.float32),
        n_clusters=3,
        by="kind",
    )
    ax = drawn(found.plot(by))
    groups = found.by(by)
    middle, *caps, mean = ax.get_lines()
    assert middle.get_xdata().tolist() == [group.jsd for group in groups]
    assert middle.get_ydata().tolist() == [2, 1, 0]  # the most damaged on top
    for cap, end in zip(caps, ("jsd_low", "jsd_high"), strict=True):
        np.testing.assert_allclose(cap.get_xdata(), [getattr(group, end) for group in groups])
    assert list(mean.get_xdata()) == [found.jsd.mean()] * 2
    labels = [label.get_text().replace(r"\$", "$") for label in ax.get_yticklabels()]
    if by == "kind":
        assert labels == [f" {group.name}" if group.name == "_low" else group.name for group in groups]
    else:
        assert [label.partition(":")[0] for label in labels] == [group.name for group in groups]
    assert by in ax.get_title()
    assert not ax.texts  # no losses are known


def test_damage_with_losses_and_more_groups_than_fit(monkeypatch):
    from dataclasses import replace

    from datapruner.pruning_damage import Damage, GroupDamage

    groups = [
        GroupDamage("kind", f"k{j}", 4, 0.5 - 0.01 * j, 0.4 - 0.01 * j, 0.6 - 0.01 * j, 1.0, 2.0 + j, 0.1)
        for j in range(5)
    ]
    zeros = np.zeros(20, dtype=np.int64)
    held = Damage(tuple(groups), np.arange(20), zeros, np.full(20, 0.48), None, None, None, None)
    monkeypatch.setattr("datapruner.pruning_damage.picture.MOST_GROUPS", 3)
    ax = drawn(dp.plots.plot_damage(held, "kind"))
    assert [text.get_text() for text in ax.texts] == ["1.00 → 2.00", "1.00 → 3.00", "1.00 → 4.00"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["k0", "k1", "k2"]
    assert "the worst 3 of 5" in ax.get_title()
    # An interval that rounding put beside its mean is drawn as none.
    odd = replace(held, groups=(replace(groups[0], jsd_low=0.5 + 1e-12, jsd_high=0.5 - 1e-12),))
    drawn(dp.plots.plot_damage(odd, "kind"))
    with pytest.raises(DataPrunerError, match="known by kind, not by 'cluster'"):
        dp.plots.plot_damage(held)


@pytest.mark.parametrize("jsd", [(0.5, 0.4999), (0.5, 0.0), (0.0, 0.0)])
def test_no_dot_of_damage_is_cut_off(jsd):
    from datapruner.pruning_damage import Damage, GroupDamage

    groups = tuple(
        GroupDamage("kind", f"k{j}", 4, one, None, None, None, None, 0.5) for j, one in enumerate(jsd)
    )
    held = Damage(groups, np.arange(8), np.zeros(8, np.int64), np.repeat(jsd, 4), None, None, None, None)
    ax = drawn(held.plot("kind"))
    left, right = ax.get_xlim()
    dots = ax.get_lines()[0]
    assert left == 0
    assert right >= 1.04 * max(jsd)  # a dot's radius is under 1 % of the axes' width
    assert not dots.get_clip_on()  # and at zero it lies on the edge


def test_what_cannot_be_drawn(selection, steadiness):
    with pytest.raises(DataPrunerError, match="no manifold of two dimensions"):
        dp.plots.plot_manifold(dp.prune([{"text": "a"}, {"text": "b"}], scorer=Flat(dimensions=1), keep=1))
    with pytest.raises(DataPrunerError, match="no persistence diagrams"):
        dp.plots.plot_diagrams(dp.prune([{"text": "a"}, {"text": "b"}], scorer="random", keep=1))
    with pytest.raises(DataPrunerError, match="there are 2, from 0 to 1"):
        dp.plots.plot_diagrams(selection, group=7)
    with pytest.raises(DataPrunerError, match="nothing"):
        dp.plots.plot_manifold(selection, color="nothing")
    with pytest.raises(DataPrunerError, match="nothing to draw"):
        dp.compare_stability([{"text": "a"}, {"text": "b"}], scorers="random", keep=1, seeds=2).plot()


def test_without_matplotlib(selection, steadiness, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(
        DataPrunerError,
        match=r"^pictures need matplotlib: pip install '\.\[plots\]' in a clone of datapruner$",
    ):
        dp.plots.plot_manifold(selection)
    from datapruner.stability import result

    monkeypatch.setattr(result, "find_spec", lambda name: None)
    steadiness.save(tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "checksums.txt",
        "stability.csv",
        "stability.json",
    ]
