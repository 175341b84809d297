"""Divergences that were measured before, instead of two models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Floats
from datapruner.errors import DataPrunerError
from datapruner.files.checksums import check_file
from datapruner.files.paths import expanded
from datapruner.models.names import first_line
from datapruner.signals.given_vectors import load_npy

if TYPE_CHECKING:
    from datapruner.recipe import Recipe


def read_divergences(recipe: Recipe, given: Any, n: int) -> Floats:
    """Read the divergence of every source row, nats, from an array, a ``.npy`` file or a parquet column ``jsd``.

    Raises
    ------
    DataPrunerError
        There is none for every row, or one is no Jensen-Shannon divergence.
    """
    what = "the given divergences" if given is not None else f"the divergences in {recipe.divergences}"
    held = np.asarray(
        given if given is not None else _divergence_file(expanded(Path(str(recipe.divergences))))
    )
    if held.shape != (n,) or held.dtype.kind not in "fiu":
        raise DataPrunerError(
            f"{what} have the shape {held.shape} and the type {held.dtype}; one number for each of the {n} rows is "
            "needed"
        )
    values = held.astype(np.float64)
    # Rounding: a file in float16 may say 0.6934 for ln 2.
    bad = ~((values >= 0) & (values <= np.log(2) + 1e-3))
    if bad.any():
        row = int(np.argmax(bad))
        raise DataPrunerError(
            f"{what}: row {row} has {values[row]:.6g}; a Jensen-Shannon divergence lies between 0 and ln 2, in nats"
        )
    return np.minimum(values, np.log(2))


def _divergence_file(path: Path) -> NDArray[Any]:
    """Read one number a row: a .npy file, or the column ``jsd`` of a parquet file, such as a folder of scores has."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if path.exists() and not path.is_file():
            raise DataPrunerError(f"the divergences {path} are no file")
        check_file(path)
        if path.suffix == ".parquet":
            column: NDArray[Any] = pq.read_table(path, columns=["jsd"]).column("jsd").to_numpy()
            return column
        if path.suffix == ".npy":
            return np.asarray(load_npy(path))
    except (OSError, ValueError, EOFError, KeyError, pa.ArrowException) as error:
        raise DataPrunerError(
            f"no divergences can be read from {path}: {first_line(error)}; it must be a .npy file with a number a row, "
            "or a .parquet file with a column jsd"
        ) from error
    raise DataPrunerError(f"divergences must be a .npy or .parquet file, not {path.name}")
