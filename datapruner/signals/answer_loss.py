"""Which signal tells how probable an answer is: its mean loss, or that of short steps."""

from __future__ import annotations

from datapruner.errors import DataPrunerError


def loss_signal(window: int | None) -> str:
    """Name the signal; ``window`` as in :class:`datapruner.scorers.best_of_prompt.BestOfPrompt`."""
    return "answer_log_ppl" if window is None else f"local_log_ppl:{window}"


def check_window(window: int | None) -> None:
    """Refuse steps of no length."""
    if window is not None and window < 2:
        raise DataPrunerError(f"best_of_prompt: window is a number of tokens, 2 or more, not {window}")
