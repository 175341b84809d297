"""One test for each part and check, under pytest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from datapruner.cleaning.step import CleaningStep
from datapruner.engines.base import Engine
from datapruner.errors import DataPrunerError
from datapruner.ranking import Ranking
from datapruner.scorers.base import Scorer
from datapruner.selection.selector import Selector
from datapruner.signals import Signals
from datapruner.signals.measurement import Measurement
from datapruner.testing.cleaning_checks import CLEANING_CHECKS, Cleaned
from datapruner.testing.engine_checks import ENGINE_CHECKS
from datapruner.testing.examples import example_signals, with_asked
from datapruner.testing.measurement_checks import MEASUREMENT_CHECKS, Measured
from datapruner.testing.scorer_checks import SCORER_CHECKS
from datapruner.testing.selector_checks import SELECTOR_CHECKS
from datapruner.text import safe_repr

if TYPE_CHECKING:
    import pytest


def parametrize_with_checks(
    parts: Iterable[Any],
    *,
    signals: Callable[[], Signals] = example_signals,
    ranking: Ranking | None = None,
    rows: Sequence[Mapping[str, Any]] | None = None,
    needed: Mapping[str, Any] | None = None,
    fields: Mapping[str, Any] | None = None,
) -> pytest.MarkDecorator:
    """Make a test of two arguments, ``part`` and ``check``, run once for each part and each check of its kind.

    Parameters
    ----------
    parts : iterable
        Objects of any kind, built with the parameters that they are tested with.
    signals : callable
        Makes the signals that scorers read, anew for every check.
    ranking : Ranking, optional
        With the columns and the state that the selectors read; see :func:`check_selector`.
    rows : sequence of dict, optional
        What measurements and cleaning steps look at; see :func:`check_measurement` and :func:`check_cleaning_step`.
    needed : mapping, optional
        The signals that those need, an entry for each row.
    fields : mapping, optional
        Of the recipe, where measurements read some.

    Returns
    -------
    pytest.MarkDecorator
        The test calls ``check(part)``.

    Raises
    ------
    DataPrunerError
        Something is no part: a class that was not called, a name.

    Examples
    --------
    >>> @parametrize_with_checks([MyScorer(), MyScorer(power=2), MySelector()])  # doctest: +SKIP
    ... def test_contract(part, check):
    ...     check(part)
    """
    import pytest

    cases = []
    for part in parts:
        for name, check in checks_of(
            part, signals=signals, ranking=ranking, rows=rows, needed=needed, fields=fields
        ).items():
            cases.append(
                pytest.param(
                    part, check, id=f"{repr(part) if is_dataclass(part) else type(part).__name__}-{name}"
                )
            )
    return pytest.mark.parametrize(("part", "check"), cases)


def checks_of(
    part: Any,
    *,
    signals: Callable[[], Signals] = example_signals,
    ranking: Ranking | None = None,
    rows: Sequence[Mapping[str, Any]] | None = None,
    needed: Mapping[str, Any] | None = None,
    fields: Mapping[str, Any] | None = None,
) -> dict[str, Callable[[Any], None]]:
    """Give the checks of a part's kind by name, each to be called with the part."""
    if isinstance(part, Scorer):
        return {name: partial(_on_signals, check, signals) for name, check in SCORER_CHECKS.items()}
    if isinstance(part, Selector):
        return {name: partial(_on_ranking, check, ranking) for name, check in SELECTOR_CHECKS.items()}
    if isinstance(part, Measurement):
        on = Measured(signals=needed, fields=fields or {}, **({} if rows is None else {"rows": rows}))
        return {name: partial(_on_rows, check, on) for name, check in MEASUREMENT_CHECKS.items()}
    if isinstance(part, CleaningStep):
        cleaned = Cleaned(signals=needed, **({} if rows is None else {"rows": rows}))
        return {name: partial(_on_rows, check, cleaned) for name, check in CLEANING_CHECKS.items()}
    if isinstance(part, Engine):
        return {name: partial(_on_engine, check) for name, check in ENGINE_CHECKS.items()}
    called = f"; write {part.__name__}()" if isinstance(part, type) else ""
    raise DataPrunerError(
        "checks are for objects: scorers, selectors, measurements, cleaning steps and engines, not "
        f"{safe_repr(part)}{called}"
    )


def _on_signals(
    check: Callable[[Scorer, Signals], None], signals: Callable[[], Signals], part: Scorer
) -> None:
    check(part, with_asked(signals(), part.requires))


def _on_ranking(
    check: Callable[[Selector, Ranking | None], None], ranking: Ranking | None, part: Selector
) -> None:
    check(part, ranking)


def _on_engine(check: Callable[..., None], part: Engine, **more: Any) -> None:
    check(part, **more)


def _on_rows(check: Callable[[Any, Any], None], on: Measured | Cleaned, part: Any) -> None:
    check(part, on)
