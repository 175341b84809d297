"""The shapes that rows run in: a row's bits depend on the row and its length bucket alone."""

from __future__ import annotations


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
