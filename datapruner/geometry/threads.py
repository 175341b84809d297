"""One thread for linear algebra, so that a sum has one order."""

from __future__ import annotations

from contextlib import AbstractContextManager


def one_thread() -> AbstractContextManager[object]:
    """Run on one thread: sklearn adds up threads' parts in the order in which they end; our products are small."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    limits: AbstractContextManager[object] = threadpool_limits(1)
    return limits
