"""A comparison of scorers as a user holds it: its tables, its pictures, its files and its page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from datapruner.comparison import files, pictures, text
from datapruner.comparison.frames import Frames
from datapruner.moved import moved
from datapruner.outputs.report import save_report

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Comparison(Frames):
    """Selections by several scorers from the same scores, for one budget or several.

    Every table is a DataFrame, every picture a matplotlib Axes; where a method takes a ``budget`` it is a position in
    ``budgets``.

    Attributes
    ----------
    budgets : tuple of AtBudget
        In the order given; ``selections``, ``overlap`` and ``chance`` are those of the first.
    asked : tuple of str
        The scorers but the baselines ``random`` and ``length``.
    by : tuple of str
        Columns whose values are groups; the label's among them, where the layout has one.
    left_out : mapping
        Of ``scorers="all"`` those that could not run -> why.
    stability : Stability, optional
        What moves each of the selections for the first budget.
    """

    def describe(self, examples: int = 3) -> str:
        """Give the tables for a terminal, with ``examples`` rows on which the scorers disagree."""
        return text.describe(self, examples)

    def save(self, path: str | Path, *, overwrite: bool = False, report: bool = False) -> Path:
        """Write ``comparison.json``, a CSV file a table, the stability's files and perhaps a page, all or none.

        Parameters
        ----------
        path : str or Path
            A folder that does not exist yet, or is empty.
        overwrite : bool
            Replace an earlier comparison.
        report : bool
            Write ``report.html`` too: one page to look at, for every scorer and budget, without network access.

        Raises
        ------
        DataPrunerError
            The folder holds something else or cannot be written, or the extra ``report`` is not installed.
        """
        return files.save(self, Path(path), overwrite=overwrite, report=report)

    def report(self, path: str | Path, *, overwrite: bool = False, max_rows: int = 5000) -> Path:
        """Write one HTML page that shows the comparison and needs no network.

        Parameters
        ----------
        path : str or Path
            A file such as ``report.html``.
        overwrite : bool
            Replace a file that is there.
        max_rows : int
            Of more rows a stratified sample is shown, and the page says so.

        Raises
        ------
        DataPrunerError
            The file is there, cannot be written, or the extra ``report`` is not installed.
        """
        return save_report(
            Path(path),
            self.every,
            overwrite=overwrite,
            max_rows=max_rows,
            sections=files.sections(self),
            by=self.by,
        )

    def plot_overlap(self, budget: int = 0, ax: Axes | None = None) -> Axes:
        """Draw the overlap of every pair; see :func:`datapruner.comparison.pictures.plot_overlap`."""
        return pictures.plot_overlap(self, budget, ax)

    def plot_correlation(self, ax: Axes | None = None) -> Axes:
        """Draw the rank correlation of every pair; see :func:`datapruner.comparison.pictures.plot_correlation`."""
        return pictures.plot_correlation(self, ax)

    def plot_budgets(self, scorer: str | None = None, ax: Axes | None = None) -> Axes:
        """Draw one scorer's overlap by budget; see :func:`datapruner.comparison.pictures.plot_budgets`."""
        return pictures.plot_budgets(self, scorer, ax)

    def plot_groups(self, by: str | None = None, budget: int = 0, ax: Axes | None = None) -> Axes:
        """Draw what is kept of every group; see :func:`datapruner.comparison.pictures.plot_groups`."""
        return pictures.plot_groups(self, by, budget, ax)

    def plot_lengths(
        self, of: str = "num_supervised_tokens", budget: int = 0, ax: Axes | None = None
    ) -> Axes:
        """Draw the lengths of what is kept; see :func:`datapruner.comparison.pictures.plot_lengths`."""
        return pictures.plot_lengths(self, of, budget, ax)

    def plot_length_bias(self, ax: Axes | None = None) -> Axes:
        """Draw how the scores go with length; see :func:`datapruner.comparison.pictures.plot_length_bias`."""
        return pictures.plot_length_bias(self, ax)

    def plot_scores(self, budget: int = 0, axes: Sequence[Axes] | None = None) -> NDArray[Any]:
        """Draw a histogram a scorer, kept and dropped; see :func:`datapruner.comparison.pictures.plot_scores`."""
        return pictures.plot_scores(self, budget, axes)


__getattr__ = moved(__name__, ["datapruner.comparison.compared"])
