"""Memory that runs out: told from other errors, with the row that was too long."""

from __future__ import annotations


class OutOfMemoryError(Exception):
    """Memory ran out.

    Attributes
    ----------
    row, tokens : int
        The longest row of the batch.
    alone : bool
        It was alone in the batch, so that a smaller batch does not help.
    """

    def __init__(self, row: int, tokens: int, *, alone: bool) -> None:
        super().__init__(row)
        self.row, self.tokens, self.alone = row, tokens, alone


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory does not suffice, on whatever device."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    said = ("not enough memory", "can't allocate memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(words in str(error) for words in said)
