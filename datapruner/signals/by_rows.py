"""Measurements that look at rows one by one: what is written is how a block of rows becomes arrays, and no more."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError
from datapruner.progress import bar
from datapruner.samples.sample import json_text
from datapruner.signals import Signals
from datapruner.signals.failing import Failing
from datapruner.signals.measurement import Measurement
from datapruner.signals.packing import DIMENSIONS, pack, unpack
from datapruner.signals.run import Run, taken
from datapruner.signals.store import Keys, RaggedBatch, row_keys
from datapruner.text import safe_text

if TYPE_CHECKING:
    from datapruner.ragged import Ragged
    from datapruner.samples.sample import Sample


@dataclass(frozen=True)
class Block:
    """Some rows, as a measurement sees them.

    Attributes
    ----------
    rows : ndarray, int64, shape (m,)
        Their positions in the source, for messages.
    signals : Signals
        Of these rows: what the measurement needs.
    columns : mapping
        Dataset's column -> its values, of those that the measurement reads.
    run : Run
    """

    rows: Ints
    signals: Signals
    columns: Mapping[str, list[Any]]
    run: Run

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    @cached_property
    def samples(self) -> list[Sample]:
        """The rows as they are read: turns with roles, and tools."""
        return list(self.run.samples.iter_samples(self.rows))

    @cached_property
    def texts(self) -> list[str]:
        """All turns of each row as one string."""
        return [sample.part("both") for sample in self.samples]


class RowMeasurement(Measurement):
    """Base of a measurement whose result for a row depends on that row alone.

    A subclass names itself (``name``), says what it ``gives`` and perhaps ``needs``, and writes :meth:`measure_rows`.
    What it gives is stored by what a row says and by what else of the row it reads: the next run, equal rows and other
    datasets with the same rows measure nothing. Whoever changes what is computed raises ``version``.

    Attributes
    ----------
    version : int
        Of what is computed; part of every row's key.
    columns : tuple of str
        Columns of the dataset that are read besides what is trained on.
    settings : tuple of str
        The recipe's fields that decide the result, such as ``seed``.
    block_rows : int
        Rows that are measured together; what is measured is kept if a run is stopped.
    """

    version: ClassVar[int] = 1
    columns: ClassVar[tuple[str, ...]] = ()
    settings: ClassVar[tuple[str, ...]] = ()
    block_rows: ClassVar[int] = 1024

    @abstractmethod
    def measure_rows(self, block: Block) -> Any:
        """Measure some rows.

        Parameters
        ----------
        block : Block
            Of m rows.

        Returns
        -------
        array or mapping of str to array
            A mapping by signal where it gives several. Of shape (m,) for one number a row, (m, d) for a vector a row;
            for a number a token a sequence of m arrays, or a :class:`datapruner.ragged.Ragged`.
        """

    def prepare(self, run: Run, wanted: frozenset[str]) -> None:
        """Refuse shapes that no row has by itself, and columns that are not there."""
        for given in self.gives:
            if given.shape not in DIMENSIONS:
                raise DataPrunerError(
                    f"the measurement '{safe_text(self.name, 60)}' gives '{safe_text(given.name, 60)}' in the shape "
                    f"'{given.shape}'; row by row there are {', '.join(DIMENSIONS)}"
                )
        for column in self.columns:
            run.samples.check_column(column)

    def missing(self, run: Run, wanted: frozenset[str]) -> int | None:
        """Count the rows that are not stored; unknown where it needs what is not measured yet."""
        if not self.needs <= run.signals.keys():
            return None
        return run.store.missing(self._keys(run, self._read(run)), self._context(run), None)

    def measure(self, run: Run, wanted: frozenset[str]) -> Mapping[str, Any]:
        """Measure the rows that are not stored, a block at a time."""
        read = self._read(run)

        def compute(places: Ints) -> Iterator[RaggedBatch]:
            failing = Failing(self._owner, run.rows, collect=run.recipe.on_error == "drop")
            failing.begin(len(places))
            with bar(len(places), self.name, "rows", run.progress) as shown:
                for start in range(0, len(places), self.block_rows):
                    block = places[start : start + self.block_rows]
                    yield from failing.each(block, lambda some: self._records(run, some, read))
                    shown.update(len(block))
            failing.end()

        records = run.store.fetch_ragged(self._keys(run, read), self._context(run), compute)
        return unpack(self.gives, records, self._owner)

    @property
    def _owner(self) -> str:
        return f"the measurement '{safe_text(self.name, 60)}'"

    def _context(self, run: Run) -> dict[str, object]:
        held = run.recipe.model_dump(mode="json", include=set(self.settings))
        return {
            "signal": "by rows",
            "measurement": self.name,
            "version": self.version,
            "gives": [[given.name, given.shape, given.dtype] for given in self.gives],
            "settings": held,
        }

    def _read(self, run: Run) -> dict[str, list[Any]]:
        return {name: run.samples.column(name) for name in self.columns}

    def _keys(self, run: Run, read: Mapping[str, list[Any]]) -> Keys:
        """Hash what a row says, and what else of it is read."""
        needed = [run.signals[name] for name in sorted(self.needs)]
        said = run.samples.iter_samples(run.rows) if run.samples.layout.has_text else None

        def contents() -> Iterator[bytes]:
            for place, row in enumerate(run.rows.tolist()):
                sample = None if said is None else next(said)
                text = "" if sample is None else sample.fed() + sample.aside()
                more = json_text([text, *(column[row] for column in read.values())])
                yield more.encode("utf-8", "surrogatepass") + b"".join(
                    b"\0" + _bytes(signal[place]) for signal in needed
                )

        return row_keys(contents(), self._context(run))

    def _records(self, run: Run, places: Ints, read: Mapping[str, list[Any]]) -> Ragged:
        rows = run.rows[places]
        held = {name: taken(run.signals[name], places) for name in sorted(self.needs)}
        columns = {name: [column[row] for row in rows.tolist()] for name, column in read.items()}
        found = self.measure_rows(Block(rows, Signals(len(rows), held, run.recipe.seed, rows), columns, run))
        if not isinstance(found, Mapping):
            found = {self.gives[0].name: found}
        if lost := [given.name for given in self.gives if given.name not in found]:
            raise DataPrunerError(
                f"{self._owner} did not give the signal '{safe_text(lost[0], 60)}', which it announces"
            )
        return pack(self.gives, found, len(rows), self._owner)


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    return np.ascontiguousarray(value).tobytes()
