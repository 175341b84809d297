"""Vectors of an object of the user's that has ``encode``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError
from datapruner.models.encoders import Encoder
from datapruner.models.identity import PROBE_TEXTS
from datapruner.progress import bar
from datapruner.signals.embedding import CODE_VERSION, text_bytes
from datapruner.signals.failing import Failing, said_of
from datapruner.signals.store import Batch, SignalStore, row_keys

TEXTS_PER_CALL = 256


def embed_with_encoder(
    texts: Sequence[str],
    encoder: Encoder,
    store: SignalStore,
    *,
    progress: bool = True,
    name: str = "embedding",
    failing: Failing | None = None,
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
    name : str
        Of the bar.
    failing : Failing, optional
        Finds texts on which it fails; by default an error of the first.

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

    def compute(rows: Ints) -> Iterator[Batch]:
        with bar(len(rows), name, "rows", progress) as shown:
            for start in range(0, len(rows), TEXTS_PER_CALL):
                of = rows[start : start + TEXTS_PER_CALL]
                shown.update(len(of))
                yield from watching.each(of, lambda of: encode([texts[row] for row in of]))
        watching.end()

    watching = failing or Failing("the embedder")
    identity = getattr(encoder, "identity", None)
    if identity is None:
        alone = Failing(watching.who, collect=True)  # where it fails, the row's own pass tells
        one = [vectors for _, vectors in alone.each(list(texts[:1]), encode, lambda _: 0)]
        width = one[0].shape[1] if one else 0
        out = np.empty((len(texts), width), dtype=np.float32)
        for rows, values in compute(np.arange(len(texts), dtype=np.int64)):
            width = width or values.shape[1]
            if values.shape[1] != width:
                raise DataPrunerError(
                    f"{type(encoder).__name__}.encode gave vectors of length {width} and of {values.shape[1]}"
                )
            if not out.shape[1]:
                out = np.empty((len(texts), width), dtype=np.float32)
            out[rows] = values
        return out
    try:
        probed = [encode([text]) for text in PROBE_TEXTS[:2]]
    except DataPrunerError:
        raise
    except Exception as error:  # whatever the object raises
        raise DataPrunerError(
            f"{type(encoder).__name__}.encode fails on a text ({said_of(error)}) that is no row's: its vectors tell "
            "what of the cache is its own"
        ) from error
    width = probed[0].shape[1]
    context = {
        "signal": "encoder",
        "version": CODE_VERSION,
        "model": str(identity),
        "answers": xxhash.xxh3_128_hexdigest(b"".join(vector.tobytes() for vector in probed)),
        "width": width,
    }
    return store.fetch(row_keys(map(text_bytes, texts), context), context, width, compute)
