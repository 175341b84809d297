"""What a run says on the way, on standard error: a line before a silence, a bar a pass, how long all of them take."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from datapruner.text import safe_text

if TYPE_CHECKING:
    from tqdm import tqdm

LONG = 60.0
"""Seconds from which on the time that passes will take is announced."""
PASSES = {
    "row": "language model",
    "response": "responses alone",
    "states": "dense model",
    "twins": "dense and pruned model",
    "pooled": "states of the language model",
    "gradients": "gradients",
}
"""What the passes of a language model are called."""
WARM_UP, MEASURED = 1, 3
"""Batches that are not measured, and those that are."""


def say(sentence: str, shown: bool) -> None:
    """Write a line before something that takes a while, also where standard error is no terminal."""
    if shown:
        with suppress(OSError):  # a full disk below a log ends no run
            sys.stderr.write(f"{safe_text(sentence)} ...\n")
            sys.stderr.flush()


def tell(line: str) -> None:
    """Write a line of what lies ahead."""
    with suppress(OSError):
        sys.stderr.write(f"{safe_text(line, 400)}\n")
        sys.stderr.flush()


def bar(total: int, name: str, unit: str, shown: bool, **more: Any) -> tqdm[Any]:
    """Make a bar, which only a terminal shows."""
    from tqdm import tqdm

    return tqdm(
        total=total, desc=name, unit=f" {unit}", disable=None if shown else True, smoothing=0.05, **more
    )


class Ahead(NamedTuple):
    """A pass that comes later, as far as is known: what is stored already is left out then.

    Attributes
    ----------
    name : str
    rows : int
    tokens : int
    models : int
        That read the tokens.
    """

    name: str
    rows: int
    tokens: int
    models: int = 1


class Clock:
    """The bar of a pass; once a few batches have been measured, a long run says how long it and later passes take.

    Parameters
    ----------
    name : str
    rows : int
    tokens : int, optional
        Without them rows are counted, and nothing is announced.
    shown : bool
    by_rows : bool
        The bar counts rows: what is known of the tokens is good for an estimate alone.
    models : int
        That read the tokens.
    ahead : sequence of Ahead
    """

    def __init__(
        self,
        name: str,
        rows: int,
        tokens: int | None,
        shown: bool,
        *,
        by_rows: bool = False,
        models: int = 1,
        ahead: Sequence[Ahead] = (),
    ) -> None:
        self.name, self.rows, self.tokens, self.shown = name, rows, tokens, shown
        self.models, self.ahead = models, ahead
        self.batches = self.done_tokens = 0
        self.by_rows = by_rows or tokens is None
        total, unit = (rows, "rows") if tokens is None or by_rows else (tokens, "tokens")
        self.bar = bar(total, name, unit, shown, unit_scale=True)

    def __enter__(self) -> Clock:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def finish(self, rows: int) -> None:
        """Count rows that are done."""
        if self.by_rows:
            self.bar.update(rows)

    def tick(self, tokens: int) -> None:
        """Count a batch."""
        import time

        self.batches += 1
        now = time.monotonic()
        if self.batches <= WARM_UP:
            self.started = now
        else:
            self.done_tokens += tokens
        if not self.by_rows:
            self.bar.update(tokens)
        if self.batches == WARM_UP + MEASURED and self.tokens is not None and self.shown:
            told = outlook(
                Ahead(self.name, self.rows, self.tokens, self.models),
                self.ahead,
                self.done_tokens / max(now - self.started, 1e-9),
            )
            if told:
                self.bar.write(told, file=sys.stderr)


def outlook(now: Ahead, later: Sequence[Ahead], rate: float) -> str:
    """Say how long a pass and those after it take, or nothing where that is soon.

    Parameters
    ----------
    now : Ahead
        The pass that runs.
    later : sequence of Ahead
    rate : float
        Tokens a second, of the pass that runs.
    """
    seconds = [one.tokens * one.models / (rate * now.models) for one in (now, *later)]
    if sum(seconds) <= LONG:
        return ""
    told = [
        f"{one.name}, {one.rows:,} rows, {one.tokens:,} tokens: about {duration(spent)}"
        for one, spent in zip((now, *later), seconds, strict=True)
    ]
    together = f" All passes together: about {duration(sum(seconds))}." if later else ""
    return f"{'; then '.join(told)}, at {rate:,.0f} tokens a second.{together} What is done is kept if you stop it."


def duration(seconds: float) -> str:
    """Write seconds as minutes or hours."""
    minutes = max(round(seconds / 60), 1)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
