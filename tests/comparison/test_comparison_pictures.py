"""Pictures of a comparison hold the figures of its tables, and survive hostile names."""

from __future__ import annotations

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

N = 90
HOSTILE = "$\\frac{1}{0$ \x1b[31m\u202e_"


@dataclass(frozen=True)
class First(Scorer):
    """The first rows."""

    name: ClassVar[str] = "first"
    needs: ClassVar[frozenset[str]] = frozenset()

    def _score(self, signals: Signals) -> Ranking:
        return Ranking(-np.arange(signals.num_rows, dtype=float), groups=np.arange(signals.num_rows) % 30)


@dataclass(frozen=True)
class Last(Scorer):
    """The last rows."""

    name: ClassVar[str] = "last"
    needs: ClassVar[frozenset[str]] = frozenset()

    def _score(self, signals: Signals) -> Ranking:
        return Ranking(np.arange(signals.num_rows, dtype=float))


@dataclass(frozen=True)
class Flat(Scorer):
    """Nothing to rank by."""

    name: ClassVar[str] = "flat"
    needs: ClassVar[frozenset[str]] = frozenset()

    def _score(self, signals: Signals) -> Ranking:
        return Ranking(np.zeros(signals.num_rows))


@pytest.fixture(autouse=True)
def closed():
    yield
    from matplotlib import pyplot

    pyplot.close("all")


@pytest.fixture(scope="module")
def compared():
    rows = [
        {
            "question": f"q {i}",
            "answer": "word " * (1 + i % 11),
            "kind": f"{HOSTILE}{i % 2 if i < 80 else 0}",
        }
        for i in range(N)
    ]
    return dp.compare(rows, scorers=[First(), Last(), Flat()], keep=[0.2, 45], keep_tokens=120, by="kind")


def drawn(ax):
    """Draw it, so that a label that cannot be drawn fails here; no legend lies on the axes."""
    ax.figure.canvas.draw()
    if (legend := ax.get_legend()) is not None:
        assert legend.get_window_extent().x0 >= ax.get_window_extent().x1
    return ax


def cells(ax):
    """The figures of a table of cells, row by row."""
    height, width = ax.images[0].get_array().shape
    return np.array([text.get_text() for text in ax.texts]).reshape(height, width)


def labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_overlap(compared):
    for budget in range(3):
        ax, at = drawn(compared.plot_overlap(budget)), compared.at(budget)
        assert cells(ax).tolist() == [[f"{held:.2f}" for held in row] for row in at.overlap.tolist()]
        shades = np.asarray(ax.images[0].get_array())
        assert np.array_equal(np.sign(shades), np.sign(at.overlap - at.chance))
        assert shades.diagonal() == pytest.approx(np.ones(5))
        assert shades[0, 1] == -1  # nothing shared
        assert labels(ax.xaxis) == labels(ax.yaxis) == compared.names
    assert "chance, 0.11" in compared.plot_overlap().get_title()
    assert " to " in compared.plot_overlap(2).get_title()


def test_correlation(compared):
    ax = drawn(compared.plot_correlation())
    assert cells(ax)[0].tolist()[:3] == ["1.00", "-1.00", "-"]
    shades = ax.images[0].get_array()
    assert shades.mask[2].all()
    np.testing.assert_allclose(shades[0, :2], [1, -1])


def test_overlap_by_budget(compared):
    ax = drawn(compared.plot_budgets("last"))
    lines = {line.get_label(): line for line in ax.lines}
    assert list(lines) == ["first", "flat", "random", "length", "two random selections"]
    one, other = compared.names.index("last"), compared.names.index("first")
    np.testing.assert_allclose(lines["first"].get_xdata(), [18 / N, 45 / N])
    np.testing.assert_allclose(
        lines["first"].get_ydata(), [compared.at(number).overlap[one, other] for number in (0, 1)]
    )
    np.testing.assert_allclose(lines["two random selections"].get_ydata(), [0.2 / 1.8, 0.5 / 1.5])
    with pytest.raises(DataPrunerError, match="no scorer 'none' is compared"):
        compared.plot_budgets("none")


def test_groups(compared):
    ax = drawn(compared.plot_groups())
    frame = compared.groups_frame().query("budget == '0.2 of the rows' and by == 'kind'")
    assert labels(ax.xaxis) == ["all rows", *compared.names]
    assert [name.replace(r"\$", "$")[:12] for name in labels(ax.yaxis)] == ["$\\frac{1}{0$"] * 2
    assert not any("\x1b" in name or "\u202e" in name for name in labels(ax.yaxis))
    found = cells(ax)
    assert found[:, 0].tolist() == ["55.6", "44.4"]
    for place, name in enumerate(compared.names, 1):
        shares = frame[frame["scorer"] == name].set_index("group")["kept_share"]
        expected = [shares[f"{HOSTILE}{number}"] for number in (0, 1)]
        assert [float(cell) for cell in found[:, place]] == pytest.approx(
            np.multiply(expected, 100), abs=0.05
        )
        np.testing.assert_array_equal(
            np.sign(np.asarray(ax.images[0].get_array())[:, place]),
            np.sign(np.log2(expected) - np.log2([5 / 9, 4 / 9])),
        )


def test_more_groups_than_lines(compared):
    ax = drawn(compared.plot_groups("groups of first", 1))
    assert len(labels(ax.yaxis)) == 20
    assert labels(ax.yaxis)[-1] == "11 smaller groups"
    assert cells(ax)[:, 0].astype(float).sum() == pytest.approx(100, abs=1)
    with pytest.raises(DataPrunerError, match="knows groups by kind, groups of first, not by 'knd'"):
        compared.plot_groups("knd")


def test_all_of_them_stand_with_the_other_pictures(compared):
    from datapruner import plots

    named = {name for name in dir(compared) if name.startswith("plot_")}
    assert named <= set(plots.__all__)
    for name in sorted(named - {"plot_scores"}):
        drawn(getattr(plots, name)(compared))
    assert len(plots.plot_scores(compared)) == len(compared.names)


def test_lengths(compared):
    ax = drawn(compared.plot_lengths(budget=1))
    assert ax.get_xscale() == "log"
    told = [label.get_text() for minor in (False, True) for label in ax.get_xticklabels(minor=minor)]
    assert any(told)
    assert all(text.isdigit() for text in told if text)  # 20, not 2 x 10^1
    tokens = compared.scores.tokens["num_supervised_tokens"]
    held = [tokens, *(tokens[one.kept] for one in compared.at(1).selections.values())]
    medians = [float(line.get_xdata()[0]) for line in ax.lines if line.get_marker() == "o"]
    assert medians == pytest.approx([np.median(lengths) for lengths in held])
    wide, half = (
        [line.get_xdata() for line in ax.lines if line.get_linewidth() == width] for width in (1, 6)
    )
    np.testing.assert_allclose(wide[:-1], [np.quantile(lengths, [0.05, 0.95]) for lengths in held])
    np.testing.assert_allclose(half, [np.quantile(lengths, [0.25, 0.75]) for lengths in held])
    assert labels(ax.yaxis) == ["all rows", *compared.names]
    assert [text.get_text().partition(" rows")[0] for text in ax.texts] == ["90", *["45"] * 5]
    assert "tokens a row" in drawn(compared.plot_lengths("num_tokens")).get_xlabel()
    with pytest.raises(DataPrunerError, match="num_tokens or num_supervised_tokens, not in 'words'"):
        compared.plot_lengths("words")


def test_length_bias(compared):
    ax = drawn(compared.plot_length_bias())
    frame = compared.scores_frame()
    for of, label in (
        ("num_tokens", "with tokens a row"),
        ("num_supervised_tokens", "with supervised tokens a row"),
    ):
        (line,) = [line for line in ax.lines if line.get_label() == label]
        np.testing.assert_array_equal(line.get_xdata(), frame[f"spearman_{of}"])
    assert labels(ax.yaxis) == compared.names


def test_scores(compared):
    axes = compared.plot_scores(1)
    axes[0].figure.canvas.draw()
    assert [ax.get_title() for ax in axes] == compared.names
    for ax, selection in zip(axes, compared.at(1).selections.values(), strict=True):
        kept, dropped = (sum(bar.get_height() for bar in bars) for bars in ax.containers)
        assert (kept, dropped) == (selection.kept.sum(), N - selection.kept.sum())
    with pytest.raises(DataPrunerError, match="the scores of 5 scorers take as many axes, not 2"):
        compared.plot_scores(axes=axes[:2])


def test_axes_that_were_given(compared):
    from matplotlib import pyplot

    for draw in (
        compared.plot_overlap,
        compared.plot_correlation,
        compared.plot_budgets,
        compared.plot_groups,
        compared.plot_lengths,
        compared.plot_length_bias,
    ):
        ax = pyplot.figure().add_subplot()
        assert draw(ax=ax) is ax


def test_what_there_is_nothing_to_draw_of():
    rows = [{"embedding": [float(i), 1.0]} for i in range(10)]
    found = dp.compare(rows, scorers=Last(), keep=5)
    with pytest.raises(DataPrunerError, match="no groups to draw: name a column"):
        found.plot_groups()
    with pytest.raises(DataPrunerError, match="two budgets or more"):
        found.plot_budgets()
    with pytest.raises(DataPrunerError, match="no lengths to draw"):
        found.plot_lengths()
    with pytest.raises(DataPrunerError, match="no length to go with"):
        found.plot_length_bias()
