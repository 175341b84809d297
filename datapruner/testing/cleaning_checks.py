"""What every cleaning step promises, a check each."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from datapruner.arrays import Flags, Ints
from datapruner.cleaning.own_text import OwnText
from datapruner.cleaning.step import CleaningStep, Remaining, checked
from datapruner.cleaning.vetoes import Vetoes
from datapruner.errors import DataPrunerError
from datapruner.reasons import Reason, reason_of
from datapruner.samples import load_samples
from datapruner.samples.samples import Samples
from datapruner.signals.run import taken
from datapruner.testing.examples import example_rows, example_signals


def _rows_with_copies() -> list[dict[str, str]]:
    rows = example_rows()
    near = {**rows[5], "response": f"{rows[5]['response']} again"}
    return [*rows, rows[3], rows[7], near, rows[3], {**rows[0], "response": ""}]


@dataclass(frozen=True)
class Cleaned:
    """What a cleaning step is checked on.

    Attributes
    ----------
    rows : sequence of dict
        Some of which it drops, the better; by default some are copies of others, and one has no answer.
    signals : mapping, optional
        What the step needs, an entry for each row, besides those of :func:`example_signals`.
    """

    rows: Sequence[Mapping[str, Any]] = field(default_factory=_rows_with_copies)
    signals: Mapping[str, Any] | None = None


def check_cleaning_step(
    step: CleaningStep,
    rows: Sequence[Mapping[str, Any]] | None = None,
    *,
    signals: Mapping[str, Any] | None = None,
) -> None:
    """Run every check of :data:`CLEANING_CHECKS` on a cleaning step.

    Parameters
    ----------
    step : CleaningStep
    rows : sequence of dict, optional
        Rows of a dataset of which it drops some; by default prompts and responses, a few of them copies
        and one without an answer.
    signals : mapping, optional
        What it ``needs``, an entry for each row, besides those of :func:`example_signals`.

    Raises
    ------
    AssertionError
        A promise of the contract is broken; the message says which.
    DataPrunerError
        The step refuses the rows, or what it dropped is refused.
    """
    on = Cleaned(_rows_with_copies() if rows is None else rows, signals)
    for check in CLEANING_CHECKS.values():
        check(step, on)


def cleaning_describes_itself(step: CleaningStep, on: Cleaned) -> None:
    """A name, reasons whose sentences can be told, parameters that build it again."""
    del on
    assert step.name.isidentifier(), f"the name '{step.name}' is not a plain word"
    assert type(step)(**step.parameters()) == step, "the parameters do not build the step again"
    codes = [reason.code for reason in step.reasons]
    assert codes, "it has no reason to drop a row"
    assert len(set(codes)) == len(codes), f"it has a reason twice: {', '.join(codes)}"


def cleaning_drops_what_it_may(step: CleaningStep, on: Cleaned) -> None:
    """Rows that it was given, each once, for its own reasons."""
    samples = _samples(on)
    for rows in (np.arange(len(samples)), np.arange(1, len(samples), 2)):
        left = _left(step, on, samples, rows)
        checked(step, left, _dropped(step, left))


def cleaning_spares_protected_rows(step: CleaningStep, on: Cleaned) -> None:
    """What is always kept is never dropped; a step that cannot have that refuses it in a sentence."""
    samples = _samples(on)
    protected = np.ones(len(samples), dtype=np.bool_)
    try:
        found = _dropped(step, _left(step, on, samples, np.arange(len(samples)), protected))
    except DataPrunerError:
        return
    spared = [row for vetoes in found for row in vetoes.rows.tolist()]
    assert not spared, f"row {spared[0]} is to be kept always, and was dropped"


def cleaning_refers_to_rows_that_stay(step: CleaningStep, on: Cleaned) -> None:
    """A row is dropped for one that was left and is not dropped for the same reason."""
    samples = _samples(on)
    for rows in (np.arange(len(samples)), np.arange(1, len(samples))):
        for vetoes in _dropped(step, _left(step, on, samples, rows)):
            if vetoes.texts is not None:
                continue
            others = vetoes.others[vetoes.others >= 0]
            assert np.isin(others, rows).all(), "a row is dropped for one that was dropped before"
            assert not np.isin(others, vetoes.rows).any(), "a row is dropped for one that is dropped too"


def cleaning_repeats(step: CleaningStep, on: Cleaned) -> None:
    """The same rows for the same reasons again, and what it was given is left alone."""
    samples = _samples(on)
    left = _left(step, on, samples, np.arange(len(samples)))
    before = copy.deepcopy((left.rows, left.protected, dict(left.signals)))
    first, second = _dropped(step, left), _dropped(step, left)
    assert [_told(vetoes) for vetoes in first] == [_told(vetoes) for vetoes in second], "two calls differ"
    assert np.array_equal(left.rows, before[0]), "the rows that are left were changed"
    assert np.array_equal(left.protected, before[1]), "the rows that are kept always were changed"
    for name, value in left.signals.items():
        if isinstance(value, np.ndarray):
            assert np.array_equal(value, before[2][name]), f"the signal '{name}' was changed"


def cleaning_takes_little(step: CleaningStep, on: Cleaned) -> None:
    """No row, and one row, end without an error of Python's."""
    samples = _samples(on)
    for count in (0, 1):
        try:
            _dropped(step, _left(step, on, samples, np.arange(count)))
        except DataPrunerError:
            continue
        except Exception as error:
            raise AssertionError(f"{count} rows end in {type(error).__name__}: {error}") from error


def cleaning_reasons_survive_saving(step: CleaningStep, on: Cleaned) -> None:
    """What became of a row is told in the same words from the files of a result."""
    samples = _samples(on)
    found = [vetoes.reason for vetoes in _dropped(step, _left(step, on, samples, np.arange(len(samples))))]
    for reason in (*step.reasons, *found):
        again = reason_of(reason.code, {reason.code: reason.words()})
        for name in (spec.name for spec in fields(Reason)[2:]):
            was, is_now = getattr(reason, name), getattr(again, name)
            assert was == is_now, f"the reason '{reason.code}' is read as “{is_now}”, and was “{was}”"
    for reason in found:
        assert reason.said(0, 0.5), f"the reason '{reason.code}' says nothing"


def _samples(on: Cleaned) -> Samples:
    return load_samples([dict(row) for row in on.rows])


def _left(
    step: CleaningStep, on: Cleaned, samples: Samples, rows: Ints, protected: Flags | None = None
) -> Remaining:
    held = {**example_signals(len(on.rows)).measured, **(on.signals or {})}
    signals = {name: held[name] for name in step.needs}
    return Remaining(
        samples,
        rows.astype(np.int64),
        np.zeros(len(samples), dtype=np.bool_) if protected is None else protected,
        OwnText(samples, False),
        {name: taken(value, rows) for name, value in signals.items()},
    )


def _dropped(step: CleaningStep, left: Remaining) -> list[Vetoes]:
    found = step.clean(left)
    if found is None:
        return []
    return [found] if isinstance(found, Vetoes) else list(found)


def _told(vetoes: Vetoes) -> tuple[Any, ...]:
    return vetoes.reason, vetoes.rows.tobytes(), vetoes.others.tobytes(), vetoes.measures.tobytes()


CLEANING_CHECKS: dict[str, Callable[[CleaningStep, Cleaned], None]] = {
    check.__name__: check
    for check in (
        cleaning_describes_itself,
        cleaning_drops_what_it_may,
        cleaning_spares_protected_rows,
        cleaning_refers_to_rows_that_stay,
        cleaning_repeats,
        cleaning_takes_little,
        cleaning_reasons_survive_saving,
    )
}
"""By name; each takes a cleaning step and what it is checked on."""
