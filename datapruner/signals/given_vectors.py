"""Vectors that exist already: a file, a column or an array, checked before anybody reads them."""

from __future__ import annotations

import tokenize
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datapruner.errors import DataPrunerError
from datapruner.files.checksums import check_file
from datapruner.files.paths import exists, expanded, is_file
from datapruner.text import safe_text

if TYPE_CHECKING:
    from datapruner.geometry.blocks import Matrix
    from datapruner.recipe import Recipe
    from datapruner.samples.samples import Samples


def given_embeddings(recipe: Recipe, samples: Samples, embeddings: Any) -> Matrix | None:
    """Give the vectors of a file, of a column or of memory; None where an embedder has to make them."""
    if embeddings is not None:
        try:
            array = np.asanyarray(embeddings)
        except ValueError as error:
            raise DataPrunerError(
                "the given embeddings are ragged; one vector of one length a row"
            ) from error
        return check_embeddings(array, len(samples), "the given array")
    if recipe.embeddings is not None and recipe.embedding_column is not None:
        raise DataPrunerError(
            "vectors come from a file or from a column: give embeddings or embedding_column"
        )
    if recipe.embeddings is not None:
        return read_embeddings(expanded(Path(recipe.embeddings)), len(samples))
    if recipe.embedding_column is not None or samples.layout.name == "embedding":
        name = recipe.embedding_column or samples.layout.columns.get("embedding")
        if name is None:
            raise DataPrunerError(
                "this dataset has no text and no embedding column; pass --embeddings with its vectors"
            )
        samples.check_column(name)
        column = samples.dataset.with_format("arrow").select_columns([name])[:].column(0)
        return check_embeddings(
            column_embeddings(column, f"column '{name}'"), len(samples), f"column '{name}'"
        )
    return None


def read_embeddings(path: Path, rows: int) -> Matrix:
    """Open vectors that lie beside the data, memory-mapped where the format allows.

    Parameters
    ----------
    path : Path
        ``.npy`` with shape (n, d), or ``.parquet`` with one column of equally long lists (or one numeric
        column a dimension).
    rows : int
        How many the dataset has.

    Returns
    -------
    Matrix, shape (n, d)

    Raises
    ------
    DataPrunerError
        The file is missing, is not of these formats, is ragged, or has another number of rows.
    """
    if not exists(path):
        raise DataPrunerError(f"there is no embeddings file {path}")
    if not is_file(path):
        raise DataPrunerError(f"the embeddings {path} are no file")
    check_file(path)
    if path.suffix == ".npy":
        try:
            found = load_npy(path)
        except ValueError as error:
            raise DataPrunerError(f"{path} is not a readable .npy file of numbers: {error}") from error
    elif path.suffix == ".parquet":
        found = _read_parquet(path)
    else:
        raise DataPrunerError(f"embeddings must be a .npy or .parquet file, not {path.name}")
    return check_embeddings(found, rows, str(path))


UNREADABLE = (zipfile.BadZipFile, tokenize.TokenError, SyntaxError)


def load_npy(path: Path) -> NDArray[Any]:
    """Map a file of one array.

    Raises
    ------
    ValueError
        It is no such file, whatever numpy says of it.
    """
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, EOFError, MemoryError, OverflowError, RecursionError, TypeError, *UNREADABLE) as error:
        raise ValueError(safe_text(str(error) or type(error).__name__, 200)) from error
    if not isinstance(found, np.ndarray):
        found.close()
        raise ValueError("it is an archive of arrays (.npz)")
    return found


def check_embeddings(found: NDArray[Any], rows: int, origin: str) -> NDArray[Any]:
    """Check shape and dtype of given vectors; their values are checked when they are first read."""
    if found.ndim != 2 or found.shape[1] == 0:
        raise DataPrunerError(f"{origin} holds an array of shape {found.shape}; one vector a row is needed")
    if found.dtype.kind != "f":
        if found.dtype.kind not in "iub":
            raise DataPrunerError(f"{origin} holds {found.dtype}, not numbers")
        found = found.astype(np.float32)
    if len(found) != rows:
        raise DataPrunerError(f"{origin} holds {len(found)} vectors, but the dataset has {rows} rows")
    return found


def column_embeddings(column: Any, origin: str) -> NDArray[Any]:
    """Turn an Arrow column of lists into an array; ragged or null rows are named."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks)
    nested = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
    if not nested and not pa.types.is_fixed_size_list(column.type):
        raise DataPrunerError(f"{origin} holds {column.type}, not lists of numbers")
    lengths = np.asarray(pc.fill_null(pc.list_value_length(column), -1))
    if (len(lengths) and (lengths != lengths[0]).any()) or (len(lengths) and lengths[0] < 0):
        row = int(np.argmax(lengths != max(int(lengths[0]), 0)))
        said = "no vector" if lengths[row] < 0 else f"a vector of length {lengths[row]}"
        raise DataPrunerError(
            f"{origin}, row {row}: {said}, where row 0 has length {max(int(lengths[0]), 0)}"
        )
    flat = column.flatten()
    if flat.null_count:
        row = int(np.argmax(np.asarray(flat.is_null()))) // max(int(lengths[0]), 1)
        raise DataPrunerError(f"{origin}, row {row}: a number is missing in the vector")
    values: NDArray[Any] = flat.to_numpy(zero_copy_only=False)
    return values.reshape(len(column), -1)


def _read_parquet(path: Path) -> NDArray[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataPrunerError(f"{path} is not a readable parquet file") from error
    if table.num_columns == 1:
        return column_embeddings(table.column(0), str(path))
    numeric = all(pa.types.is_floating(kind) or pa.types.is_integer(kind) for kind in table.schema.types)
    if not numeric or table.num_columns == 0:
        raise DataPrunerError(
            f"{path} must hold one column of vectors or one numeric column a dimension; it has "
            f"{', '.join(table.column_names[:8])}"
        )
    return np.column_stack([column.to_numpy() for column in table.columns])
