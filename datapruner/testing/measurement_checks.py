"""What every measurement promises, a check each."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy as np

from datapruner.arrays import Ints
from datapruner.cleaning.own_text import OwnText
from datapruner.errors import DataPrunerError
from datapruner.inputs import Inputs
from datapruner.ragged import Ragged
from datapruner.recipe import Recipe
from datapruner.samples import load_samples
from datapruner.signals.by_rows import Block, RowMeasurement
from datapruner.signals.failing import RowsFailedError
from datapruner.signals.measurement import OPEN, Given, Measurement, Shape
from datapruner.signals.run import Run, taken
from datapruner.signals.store import SignalStore
from datapruner.testing.examples import example_rows, example_signals, reordered

M = TypeVar("M", bound=Measurement)
DIMENSIONS = {"row": 1, "matrix": 2, "table": 2}


@dataclass(frozen=True)
class Measured:
    """What a measurement is checked on.

    Attributes
    ----------
    rows : sequence of dict
        At least 8, all different.
    fields : mapping
        Of the recipe.
    signals : mapping, optional
        What the measurement needs, an entry for each row, besides those of :func:`example_signals`.
    """

    rows: Sequence[Mapping[str, Any]] = field(default_factory=example_rows)
    fields: Mapping[str, Any] = field(default_factory=dict)
    signals: Mapping[str, Any] | None = None


def check_measurement(
    measurement: Measurement,
    rows: Sequence[Mapping[str, Any]] | None = None,
    *,
    signals: Mapping[str, Any] | None = None,
    **fields: Any,
) -> None:
    """Run every check of :data:`MEASUREMENT_CHECKS` on a measurement.

    Parameters
    ----------
    measurement : Measurement
    rows : sequence of dict, optional
        At least 8 rows of a dataset that it can measure, all different; prompts and responses by default.
    signals : mapping, optional
        What it ``needs``, an entry for each row, besides those of :func:`example_signals`.
    **fields
        Of the recipe, where it reads some.

    Raises
    ------
    AssertionError
        A promise of the contract is broken; the message says which.
    DataPrunerError
        The measurement refuses the rows, or what it gave is refused.
    """
    on = Measured(example_rows() if rows is None else rows, fields, signals)
    for check in MEASUREMENT_CHECKS.values():
        check(measurement, on)


def measurement_describes_itself(measurement: Measurement, on: Measured) -> None:
    """A name, signals of their own names and known shapes, and it is built without arguments."""
    del on
    assert measurement.name.isidentifier(), f"the name '{measurement.name}' is not a plain word"
    assert type(measurement)().name == measurement.name, "it is not built without arguments"
    names = [given.name for given in measurement.gives]
    assert names, "it gives no signal"
    assert len(set(names)) == len(names), f"it gives a signal twice: {', '.join(names)}"
    assert not measurement.needs & set(names), "it needs what it gives"
    for given in measurement.gives:
        assert given.name.removesuffix(OPEN).isidentifier(), f"the signal '{given.name}' is not a plain word"
        assert given.shape in get_args(Shape), f"the signal '{given.name}' has the shape '{given.shape}'"
        assert given.what.strip(), f"nobody says what the signal '{given.name}' is"
    assert measurement.cost.seconds >= 0, "it costs less than nothing"


def measurement_gives_what_it_announces(measurement: Measurement, on: Measured) -> None:
    """Every signal, of the shape and dtype that was announced, with an entry for each row."""
    with _run(measurement, on) as run:
        found = _measured(measurement, run)
        for given in _asked(measurement):
            assert given.name in found, f"the signal '{given.name}' was not given"
            _check_shape(given, found[given.name], len(run.rows))


def measurement_repeats(measurement: Measurement, on: Measured) -> None:
    """The same bytes again, from an empty store and from one that holds them."""
    found = []
    for _ in range(2):
        with _run(measurement, on) as run:
            found += [_measured(measurement, run), _measured(measurement, run)]
    for other in found[1:]:
        for name, value in found[0].items():
            assert _bytes(value) == _bytes(other[name]), f"two runs give another signal '{name}'"


def measurement_follows_rows(measurement: Measurement, on: Measured) -> None:
    """A row's signals are its own: other rows, their order and the size of a block change nothing (by rows only)."""
    if not isinstance(measurement, RowMeasurement):
        return
    with _run(measurement, on) as run:
        whole = _measured(measurement, run)
    some = np.arange(len(on.rows) - 1, -1, -2)
    small = _changed(measurement, block_rows=2)
    with _run(small, on, some) as run:
        part = _measured(small, run)
    for name, value in whole.items():
        assert _bytes(taken(value, some)) == _bytes(part[name]), (
            f"the signal '{name}' of a row depends on the rows beside it"
        )


def measurement_is_stored(measurement: Measurement, on: Measured) -> None:
    """What was measured once is read the next time, and a row that is new is measured alone (by rows only)."""
    if not isinstance(measurement, RowMeasurement):
        return
    looked: list[int] = []

    def measure_rows(self: RowMeasurement, block: Block) -> Any:
        looked.append(len(block))
        return type(measurement).measure_rows(self, block)

    counted = _changed(measurement, measure_rows=measure_rows)
    with tempfile.TemporaryDirectory() as folder:
        for rows, expected in ((np.arange(1, len(on.rows)), len(on.rows) - 1), (None, 1), (None, 0)):
            looked.clear()
            with _run(counted, on, rows, Path(folder)) as run:
                _measured(counted, run)
            assert sum(looked) == expected, (
                f"{sum(looked)} rows were measured, and {expected} were not stored"
            )


def measurement_takes_one_row(measurement: Measurement, on: Measured) -> None:
    """One row is measured, or refused in a sentence."""
    with _run(measurement, on, np.zeros(1, np.int64)) as run:
        try:
            found = _measured(measurement, run)
        except DataPrunerError as error:
            # Of a row that fails a run tells in a sentence, whatever was raised.
            if isinstance(error, RowsFailedError) and not isinstance(error.__cause__, DataPrunerError | None):
                raise AssertionError(f"one row ends in an error: {error}") from error
            return
        except Exception as error:
            raise AssertionError(f"one row ends in {type(error).__name__}: {error}") from error
    for name, value in found.items():
        assert len(value) == 1, f"the signal '{name}' of one row has {len(value)} entries"


@contextmanager
def _run(
    measurement: Measurement, on: Measured, rows: Ints | None = None, store: Path | None = None
) -> Iterator[Run]:
    """Prepare a run over some of the rows, in their order, as a dataset of its own."""
    chosen = np.arange(len(on.rows)) if rows is None else rows
    signals = {
        **reordered(example_signals(len(on.rows)), chosen).measured,
        **{name: taken(value, chosen) for name, value in (on.signals or {}).items()},
    }
    samples = load_samples([dict(on.rows[row]) for row in chosen.tolist()])
    recipe = Recipe(**on.fields)
    with tempfile.TemporaryDirectory() as folder:
        yield Run(
            recipe,
            samples,
            SignalStore(Path(folder) if store is None else store),
            OwnText(samples, recipe.similarity_context),
            Inputs({}),
            np.arange(len(samples), dtype=np.int64),
            progress=False,
            required=frozenset(given.name for given in measurement.gives),
            signals={name: signals[name] for name in measurement.needs},
            unread=np.zeros(len(samples), dtype=np.bool_),
        )


def _asked(measurement: Measurement) -> list[Given]:
    """Give the signals that can be asked for without more being said."""
    return [given for given in measurement.gives if not given.name.endswith(OPEN)]


def _measured(measurement: Measurement, run: Run) -> Mapping[str, Any]:
    wanted = frozenset(given.name for given in _asked(measurement))
    run.prepared[measurement.name] = measurement.prepare(run, wanted)
    return measurement.measure(run, wanted)


def _changed(measurement: M, **own: Any) -> M:
    """Give the measurement with something of its own, such as a smaller block."""
    changed: M = type(type(measurement).__name__, (type(measurement),), own)()
    return changed


def _check_shape(given: Given, value: Any, rows: int) -> None:
    name = given.name
    if given.shape != "other set":
        assert len(value) == rows, f"the signal '{name}' has {len(value)} entries for {rows} rows"
    if given.shape == "text":
        assert all(isinstance(text, str) for text in value), f"the signal '{name}' is announced as texts"
        return
    if given.shape == "token":
        assert isinstance(value, Ragged), (
            f"the signal '{name}' is announced as a number a token, and is not ragged"
        )
        value = value.values
    else:
        dimensions = DIMENSIONS.get(given.shape, 2)
        assert len(value.shape) == dimensions, (
            f"the signal '{name}' is announced as a {given.shape}, and has {len(value.shape)} dimensions"
        )
    assert value.dtype == np.dtype(given.dtype), (
        f"the signal '{name}' is announced as {given.dtype}, and is {value.dtype}"
    )


def _bytes(value: Any) -> bytes:
    if isinstance(value, Ragged):
        return value.values.tobytes() + value.offsets.tobytes()
    if isinstance(value, list):
        return repr(value).encode("utf-8", "surrogatepass")
    return np.ascontiguousarray(value[:]).tobytes()


MEASUREMENT_CHECKS: dict[str, Callable[[Measurement, Measured], None]] = {
    check.__name__: check
    for check in (
        measurement_describes_itself,
        measurement_gives_what_it_announces,
        measurement_repeats,
        measurement_follows_rows,
        measurement_is_stored,
        measurement_takes_one_row,
    )
}
"""By name; each takes a measurement and what it is checked on."""
