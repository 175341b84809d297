"""The embedding extractor: one vector a row, in shapes that make a row's bits independent of its company.

Rows run in length buckets with a fixed number of rows a batch; a short last batch is filled with dummies.
Batch size and padding move floating-point results in the fifth digit, neighbours and position do not: so a
vector depends on its row and its bucket alone, and growth, resume and sharing are byte-identical. What a
batch looks like must not choose the kernel either: transformers drops the mask of a batch without padding,
so every row of a bucket is padded, or none is (see :func:`canonical_shape`).
"""

from __future__ import annotations

import io
import tokenize
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import xxhash
from numpy.typing import NDArray

from datapruner.checksums import check_file
from datapruner.errors import DataPrunerError
from datapruner.models.encoders import Encoder, ImageEmbedder, Named, TokenEmbedder
from datapruner.models.identity import PROBE_TEXTS
from datapruner.paths import exists, is_file
from datapruner.progress import bar
from datapruner.signals.store import Batch, SignalStore, row_keys
from datapruner.text import safe_text

if TYPE_CHECKING:
    from datapruner.geometry.blocks import Matrix


class Images(Protocol):
    """PIL images by place; what is asked for may be decoded only then."""

    def __len__(self) -> int:
        """Return how many there are."""
        ...

    def __getitem__(self, place: int, /) -> Any:
        """Give one image."""
        ...


CODE_VERSION = 3
TOKENS_PER_BATCH = {"cpu": 1024, "cuda": 32768}
IMAGES_PER_BATCH = 16
TEXTS_PER_CALL = 256
WINDOW_ROWS = 16384
"""Rows that are tokenised together; bounds memory, and mixes lengths so that the time left is honest."""


def bucket_length(tokens: int) -> int:
    """Give the padded length of a row: steps of 8 up to 128, then an eighth of the power of two below.

    Padding stays under an eighth of a row beyond 64 tokens.
    """
    step = 8 if tokens <= 128 else 1 << (max(tokens - 1, 1).bit_length() - 4)
    return -(-max(tokens, 1) // step) * step


def canonical_shape(tokens: int, limit: int) -> tuple[int, bool]:
    """Give the padded length of a row, and whether it is full.

    Parameters
    ----------
    tokens : int
    limit : int
        The longest row there can be; no row is padded beyond.

    Returns
    -------
    length, full
        Rows share a batch if both are equal: all rows of a batch are as long as the limit, or each has
        padding.
    """
    if tokens >= limit:
        return tokens, True
    return min(bucket_length(tokens + 1), limit), False


def embed_texts(
    texts: Sequence[str],
    embedder: TokenEmbedder | Named[TokenEmbedder],
    store: SignalStore,
    *,
    progress: bool = True,
    name: str = "embedding",
) -> NDArray[np.float32]:
    """Embed texts through the store.

    Parameters
    ----------
    texts : sequence of str, length n
    embedder : TokenEmbedder or Named
        One that is named is opened only where a row is missing.
    store : SignalStore
        Rows found there cost nothing; equal texts are computed once.
    progress : bool
        Show rows a second and the time left on a terminal.
    name : str
        Of the bar.

    Returns
    -------
    numpy.memmap, float32, shape (n, d)
    """
    return embed_and_tell(texts, embedder, store, progress=progress, name=name)[0]


def embed_and_tell(
    texts: Sequence[str],
    embedder: TokenEmbedder | Named[TokenEmbedder],
    store: SignalStore,
    *,
    progress: bool = True,
    name: str = "embedding",
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Embed texts as :func:`embed_texts` does, and tell how they were read.

    Returns
    -------
    vectors : float32, shape (n, d)
    reading : float32, shape (n, 3)
        How many tokens each text has, how many of them are unknown to the vocabulary, and how many are left after
        the cut. Stored with the
        vector, so that it is known where no embedder is loaded.
    """

    def batch_tokens(of: TokenEmbedder | Named[TokenEmbedder]) -> int:
        return TOKENS_PER_BATCH.get(of.device, TOKENS_PER_BATCH["cpu"])

    def context(of: Any) -> dict[str, object]:
        return {"signal": "embedding", "batch_tokens": batch_tokens(of), **of.context}

    def compute(opened: TokenEmbedder, rows: NDArray[np.int64]) -> Iterator[Batch]:
        with bar(len(rows), name, "rows", progress) as shown:
            for batch in _canonical_batches(texts, rows, opened, batch_tokens(opened)):
                shown.update(len(batch[0]))
                yield batch

    found = _stored(embedder, context, lambda: map(_bytes, texts), compute, store, more=3)
    return found[:, :-3], np.array(found[:, -3:])


def embed_images(
    images: Images,
    embedder: ImageEmbedder | Named[ImageEmbedder],
    store: SignalStore,
    *,
    progress: bool = True,
    name: str = "embedding",
) -> NDArray[np.float32]:
    """Embed PIL images through the store; keyed by pixels, in batches of a fixed size.

    Parameters
    ----------
    images : Images, length n
        Indexed row by row, so images that are decoded when asked for are never all held.
    embedder : ImageEmbedder or Named
    store : SignalStore
    progress : bool

    Returns
    -------
    numpy.memmap, float32, shape (n, d)
    """

    def context(of: Any) -> dict[str, object]:
        return {"signal": "image", "batch": IMAGES_PER_BATCH, **of.context}

    def compute(opened: ImageEmbedder, rows: NDArray[np.int64]) -> Iterator[Batch]:
        with bar(len(rows), name, "rows", progress) as shown:
            for start in range(0, len(rows), IMAGES_PER_BATCH):
                of = rows[start : start + IMAGES_PER_BATCH]
                batch = [images[int(row)] for row in of]
                batch += [batch[-1]] * (IMAGES_PER_BATCH - len(batch))
                shown.update(len(of))
                yield of, opened.forward(batch)[: len(of)]

    def contents() -> Iterator[bytes]:
        return (_pixels(images[place]) for place in range(len(images)))

    return _stored(embedder, context, contents, compute, store)


class _OtherError(Exception):
    """The embedder that was opened is not the one that was noted."""


def _stored(
    embedder: Any,
    context_of: Callable[[Any], dict[str, object]],
    contents: Callable[[], Iterable[bytes]],
    compute: Callable[[Any, NDArray[np.int64]], Iterator[Batch]],
    store: SignalStore,
    more: int = 0,
) -> NDArray[np.float32]:
    """Give vectors, with ``more`` numbers behind each, through the store; open the embedder where one is missing."""
    for _ in range(2):
        context = {"version": CODE_VERSION, **context_of(embedder)}

        def opened(rows: NDArray[np.int64], context: dict[str, object] = context) -> Iterator[Batch]:
            found = embedder.opened
            if row_keys([b""], {"version": CODE_VERSION, **context_of(found)}) != row_keys([b""], context):
                raise _OtherError
            yield from compute(found, rows)

        with suppress(_OtherError):
            return store.fetch(row_keys(contents(), context), context, embedder.width + more, opened)
    raise DataPrunerError("the embedder's files change while they are read; wait until they are whole")


def embed_with_encoder(
    texts: Sequence[str],
    encoder: Encoder,
    store: SignalStore,
    *,
    progress: bool = True,
    name: str = "embedding",
) -> NDArray[np.float32]:
    """Embed texts with any object that has ``encode``; cached only where it tells an ``identity``.

    What it gives for a few fixed texts is part of the key, so that an ``encode`` that was corrected under the same
    ``identity`` shares nothing with the one before. An ``encode`` whose bits vary from call to call is never cached.

    Parameters
    ----------
    texts : sequence of str, length n
    encoder : Encoder
    store : SignalStore
    progress : bool

    Returns
    -------
    ndarray, float32, shape (n, d)

    Raises
    ------
    DataPrunerError
        The object gives something else than one vector a text.
    """

    def encode(batch: list[str]) -> NDArray[np.float32]:
        given: Any = encoder.encode(batch)
        if hasattr(given, "detach"):
            given = given.detach().float().cpu().numpy()
        try:
            vectors = np.asarray(given, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise DataPrunerError(
                f"{type(encoder).__name__}.encode gave no array of numbers, one vector a text"
            ) from error
        if vectors.ndim != 2 or len(vectors) != len(batch):
            raise DataPrunerError(
                f"{type(encoder).__name__}.encode gave an array of shape {vectors.shape} for {len(batch)} texts; "
                "it must give one vector a text"
            )
        return vectors

    def compute(rows: NDArray[np.int64]) -> Iterator[Batch]:
        with bar(len(rows), name, "rows", progress) as shown:
            for start in range(0, len(rows), TEXTS_PER_CALL):
                of = rows[start : start + TEXTS_PER_CALL]
                shown.update(len(of))
                yield of, encode([texts[row] for row in of])

    identity = getattr(encoder, "identity", None)
    probed = [encode([text]) for text in (PROBE_TEXTS[:2] if identity is not None else texts[:1])]
    width = probed[0].shape[1]
    if identity is None:
        out = np.empty((len(texts), width), dtype=np.float32)
        for rows, values in compute(np.arange(len(texts), dtype=np.int64)):
            if values.shape[1] != width:
                raise DataPrunerError(
                    f"{type(encoder).__name__}.encode gave vectors of length {width} and of {values.shape[1]}"
                )
            out[rows] = values
        return out
    context = {
        "signal": "encoder",
        "version": CODE_VERSION,
        "model": str(identity),
        "answers": xxhash.xxh3_128_hexdigest(b"".join(vector.tobytes() for vector in probed)),
        "width": width,
    }
    return store.fetch(row_keys(map(_bytes, texts), context), context, width, compute)


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


def _canonical_batches(
    texts: Sequence[str], rows: NDArray[np.int64], embedder: TokenEmbedder, batch_tokens: int
) -> Iterator[Batch]:
    """Fill buckets with the rows of a window and run each as it gets full; dummies fill what is left."""
    waiting: dict[tuple[int, bool], list[tuple[int, list[int]]]] = {}
    reading: dict[int, tuple[int, int, int]] = {}
    shuffled = np.random.default_rng(0)
    for start in range(0, len(rows), WINDOW_ROWS):
        window = rows[start : start + WINDOW_ROWS]
        full: list[tuple[int, list[tuple[int, list[int]]]]] = []
        for row, every in zip(window.tolist(), embedder.whole([texts[row] for row in window]), strict=True):
            unknown = 0 if embedder.unknown_id is None else every.count(embedder.unknown_id)
            ids = embedder.cut(every)
            reading[row] = len(every), unknown, len(ids)
            shape = canonical_shape(len(ids), embedder.max_length)
            bucket = waiting.setdefault(shape, [])
            bucket.append((row, ids))
            if len(bucket) == _rows_a_batch(shape[0], batch_tokens):
                full.append((shape[0], waiting.pop(shape)))
        # Short and long batches alternate, so that rows a second is steady and the time left is honest.
        for number in shuffled.permutation(len(full)).tolist():
            length, batch = full[number]
            yield _run(embedder, length, batch, batch_tokens, reading)
    for (length, _), bucket in sorted(waiting.items(), reverse=True):
        yield _run(embedder, length, bucket, batch_tokens, reading)


def _rows_a_batch(length: int, batch_tokens: int) -> int:
    return max(1, batch_tokens // length)


def _run(
    embedder: TokenEmbedder,
    length: int,
    bucket: list[tuple[int, list[int]]],
    batch_tokens: int,
    reading: dict[int, tuple[int, int, int]],
) -> Batch:
    shape = (_rows_a_batch(length, batch_tokens), length)
    ids = np.full(shape, embedder.pad_id, dtype=np.int64)
    mask = np.zeros(shape, dtype=np.int64)
    for place in range(shape[0]):
        tokens = bucket[place][1] if place < len(bucket) else bucket[0][1]
        ids[place, : len(tokens)] = tokens
        mask[place, : len(tokens)] = 1
    vectors = embedder.forward(ids, mask)[: len(bucket)]
    read = np.array([reading.pop(row) for row, _ in bucket], dtype=np.float32)
    return np.array([row for row, _ in bucket], dtype=np.int64), np.column_stack([vectors, read])


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _pixels(image: Any) -> bytes:
    plain = image.convert("RGB")
    out = io.BytesIO()
    out.write(f"{plain.size}".encode())
    out.write(plain.tobytes())
    return out.getvalue()
