"""Content-addressed store of what was measured: caching, resume, growth and sharing in one mechanism.

A row's key is the hash of what was fed to the model and of everything that decides the result (the
*context*: model identity, maximum length, pooling, dtype, shapes, code version). A context's records lie in
a folder of their own, and so do those of each width, so that none is ever read, or judged damaged, as one of
another shape. Rows are written in shards as they are computed (``shard_format``), each under a temporary name, synced
and renamed, its head and its values closed by checksums: a run killed at any moment loses one unwritten shard at most.
An index (``index``, ``finding``) is made from the shards' heads, kept, and grows by what is new. Afterwards the rows of
a run are put together once in dataset order (``copies``), so that millions of rows are read sequentially. Where the
folder is not ours to write, what it lacks is computed and laid aside for as long as the process lasts.
"""

from typing import TYPE_CHECKING

from datapruner.moved import moved
from datapruner.signals.store.keys import Keys as Keys
from datapruner.signals.store.keys import Kind as Kind
from datapruner.signals.store.keys import row_keys as row_keys
from datapruner.signals.store.shard_format import RaggedBatch as RaggedBatch
from datapruner.signals.store.store import Batch as Batch
from datapruner.signals.store.store import SignalStore as SignalStore

if not TYPE_CHECKING:
    __getattr__ = moved(
        __name__,
        [f"{__name__}.{part}" for part in ("store", "keys", "shards", "shard_format", "finding", "copies")],
    )
