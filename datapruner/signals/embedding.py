"""The embedding extractor: one vector a row, in shapes that make a row's bits independent of its company.

Rows run in length buckets with a fixed number of rows a batch; a short last batch is filled with dummies.
Batch size and padding move floating-point results in the fifth digit, neighbours and position do not: so a
vector depends on its row and its bucket alone, and growth, resume and sharing are byte-identical. What a
batch looks like must not choose the kernel either: transformers drops the mask of a batch without padding,
so every row of a bucket is padded, or none is (see :func:`canonical_shape`).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError
from datapruner.models.encoders import ImageEmbedder, Named, TokenEmbedder
from datapruner.progress import bar
from datapruner.signals.failing import Failing
from datapruner.signals.shapes import canonical_shape
from datapruner.signals.store import Batch, SignalStore, row_keys


class Images(Protocol):
    """PIL images by place; what is asked for may be decoded only then."""

    def __len__(self) -> int:
        """Return how many there are."""
        ...

    def __getitem__(self, place: int, /) -> Any:
        """Give one image."""
        ...


CODE_VERSION = 3
TOKENS_PER_BATCH = {"cpu": 512, "cuda": 32768}
"""On a CPU as few as still keep its cores busy: the last batch of every length is filled up with dummies."""
IMAGES_PER_BATCH = 16
WINDOW_ROWS = 16384
"""Rows that are tokenised together; bounds memory, and mixes lengths so that the time left is honest."""


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
    failing: Failing | None = None,
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
    return read_and_tell(
        lambda: map(text_bytes, texts),
        lambda places: [texts[place] for place in places.tolist()],
        embedder,
        store,
        progress=progress,
        name=name,
        failing=failing,
    )


def read_and_tell(
    contents: Callable[[], Iterable[bytes]],
    take: Callable[[Ints], list[Any]],
    reader: TokenEmbedder | Named[TokenEmbedder],
    store: SignalStore,
    *,
    signal: str = "embedding",
    batch_tokens: int | None = None,
    progress: bool = True,
    name: str = "embedding",
    failing: Failing | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Have a model give some numbers for each row, through the store, and tell how it read them.

    Parameters
    ----------
    contents : callable
        Gives what each row's key is made from.
    take : callable
        Places -> what ``reader.whole`` takes for each of them; only of rows that are not stored.
    reader : TokenEmbedder or Named
        One that is named is opened only where a row is missing.
    store : SignalStore
    signal : str
        What is read, for the keys.
    batch_tokens : int, optional
        Tokens a forward pass; by default what suits the device.
    progress, name
        Of the bar.
    failing : Failing, optional
        Finds what the model fails on; by default an error of the first place.

    Returns
    -------
    values, reading
        As :func:`embed_and_tell` gives them.
    """
    watching = failing or Failing("the embedder")

    def compute(opened: TokenEmbedder, rows: Ints) -> Iterator[Batch]:
        watching.begin(len(rows))
        with bar(len(rows), name, "rows", progress) as shown:
            tokens = _batch_tokens(opened, batch_tokens)
            for batch in _canonical_batches(take, rows, opened, tokens, watching):
                shown.update(len(batch[0]))
                yield batch
        watching.end()

    def context(of: Any) -> dict[str, object]:
        return _context(of, signal, batch_tokens)

    found = _stored(reader, context, contents, compute, store, more=3)
    return found[:, :-3], np.array(found[:, -3:])


def missing_rows(
    contents: Callable[[], Iterable[bytes]],
    reader: Named[TokenEmbedder],
    store: SignalStore,
    *,
    signal: str = "embedding",
    batch_tokens: int | None = None,
) -> int:
    """Count the rows that :func:`read_and_tell` would have to read, equal ones once; one never opened has read none."""
    if not reader.is_known:
        return len(set(contents()))
    context = {"version": CODE_VERSION, **_context(reader, signal, batch_tokens)}
    return store.missing(row_keys(contents(), context), context, reader.width + 3)


def missing_texts(texts: Sequence[str], embedder: Named[TokenEmbedder], store: SignalStore) -> int:
    """Count the texts that have to be embedded, equal ones once; an embedder that was never opened has done none."""
    return missing_rows(lambda: map(text_bytes, texts), embedder, store)


def _batch_tokens(of: TokenEmbedder | Named[TokenEmbedder], given: int | None) -> int:
    return given or TOKENS_PER_BATCH.get(of.device, TOKENS_PER_BATCH["cpu"])


def _context(of: Any, signal: str, batch_tokens: int | None) -> dict[str, object]:
    return {"signal": signal, "batch_tokens": _batch_tokens(of, batch_tokens), **of.context}


def embed_images(
    images: Images,
    embedder: ImageEmbedder | Named[ImageEmbedder],
    store: SignalStore,
    *,
    progress: bool = True,
    name: str = "embedding",
    failing: Failing | None = None,
) -> NDArray[np.float32]:
    """Embed PIL images through the store; keyed by pixels, in batches of a fixed size.

    Parameters
    ----------
    images : Images, length n
        Indexed row by row, so images that are decoded when asked for are never all held.
    embedder : ImageEmbedder or Named
    store : SignalStore
    progress : bool
    name : str
        Of the bar.
    failing : Failing, optional
        Finds images that cannot be read, or on which the model fails; by default an error of the first.

    Returns
    -------
    numpy.memmap, float32, shape (n, d)
    """
    watching = failing or Failing("the image model")

    def context(of: Any) -> dict[str, object]:
        return {"signal": "image", "batch": IMAGES_PER_BATCH, **of.context}

    def compute(opened: ImageEmbedder, rows: Ints) -> Iterator[Batch]:
        with bar(len(rows), name, "rows", progress) as shown:
            for start in range(0, len(rows), IMAGES_PER_BATCH):
                of = rows[start : start + IMAGES_PER_BATCH]
                shown.update(len(of))
                yield from watching.each(of, lambda of: seen(opened, of))
        watching.end()

    def seen(opened: ImageEmbedder, of: Ints) -> NDArray[np.float32]:
        batch = [images[int(row)] for row in of]
        batch += [batch[-1]] * (IMAGES_PER_BATCH - len(batch))
        return opened.forward(batch)[: len(of)]

    def contents() -> Iterator[bytes]:
        for place in range(len(images)):
            for _, pixels in watching.each([place], lambda of: _pixels(images[of[0]])):
                yield pixels
        watching.end()

    return _stored(embedder, context, contents, compute, store)


class _OtherError(Exception):
    """The embedder that was opened is not the one that was noted."""


def _stored(
    embedder: Any,
    context_of: Callable[[Any], dict[str, object]],
    contents: Callable[[], Iterable[bytes]],
    compute: Callable[[Any, Ints], Iterator[Batch]],
    store: SignalStore,
    more: int = 0,
) -> NDArray[np.float32]:
    """Give vectors, with ``more`` numbers behind each, through the store; open the embedder where one is missing."""
    for _ in range(2):
        context = {"version": CODE_VERSION, **context_of(embedder)}

        def opened(rows: Ints, context: dict[str, object] = context) -> Iterator[Batch]:
            found = embedder.opened
            if row_keys([b""], {"version": CODE_VERSION, **context_of(found)}) != row_keys([b""], context):
                raise _OtherError
            yield from compute(found, rows)

        with suppress(_OtherError):
            return store.fetch(row_keys(contents(), context), context, embedder.width + more, opened)
    raise DataPrunerError("the embedder's files change while they are read; wait until they are whole")


def _canonical_batches(
    take: Callable[[Ints], list[Any]],
    rows: Ints,
    embedder: TokenEmbedder,
    batch_tokens: int,
    failing: Failing,
) -> Iterator[Batch]:
    """Fill buckets with the rows of a window and run each as it gets full; dummies fill what is left."""
    waiting: dict[tuple[int, bool], list[tuple[int, list[int]]]] = {}
    reading: dict[int, tuple[int, int, int]] = {}
    shuffled = np.random.default_rng(0)

    def run(length: int, bucket: Sequence[tuple[int, list[int]]]) -> Iterator[Batch]:
        for some, vectors in failing.each(
            bucket, lambda some: _vectors(embedder, length, some, batch_tokens), lambda entry: entry[0]
        ):
            read = np.array([reading.pop(row) for row, _ in some], dtype=np.float32)
            yield np.array([row for row, _ in some], dtype=np.int64), np.column_stack([vectors, read])

    for start in range(0, len(rows), WINDOW_ROWS):
        window = rows[start : start + WINDOW_ROWS]
        full: list[tuple[int, list[tuple[int, list[int]]]]] = []
        for row, every in zip(window.tolist(), embedder.whole(take(window)), strict=True):
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
            yield from run(*full[number])
    for (length, _), bucket in sorted(waiting.items(), reverse=True):
        yield from run(length, bucket)


def _rows_a_batch(length: int, batch_tokens: int) -> int:
    return max(1, batch_tokens // length)


def _vectors(
    embedder: TokenEmbedder, length: int, bucket: Sequence[tuple[int, list[int]]], batch_tokens: int
) -> NDArray[np.float32]:
    shape = (_rows_a_batch(length, batch_tokens), length)
    ids = np.full(shape, embedder.pad_id, dtype=np.int64)
    mask = np.zeros(shape, dtype=np.int64)
    for place in range(shape[0]):
        tokens = bucket[place][1] if place < len(bucket) else bucket[0][1]
        ids[place, : len(tokens)] = tokens
        mask[place, : len(tokens)] = 1
    return embedder.forward(ids, mask)[: len(bucket)]


def text_bytes(text: str) -> bytes:
    """Give what a text's key is made from."""
    return text.encode("utf-8", "surrogatepass")


def _pixels(image: Any) -> bytes:
    plain = image.convert("RGB")
    out = io.BytesIO()
    out.write(f"{plain.size}".encode())
    out.write(plain.tobytes())
    return out.getvalue()
