"""The loss of an answer in short steps, each read behind a few tokens alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, cast

import numpy as np

from datapruner.arrays import Floats, Ints
from datapruner.samples.rendered import Rendered
from datapruner.signals.language_model.measure import measure_language_model
from datapruner.signals.language_model.reader import LanguageModel, NamedModel, Reader
from datapruner.signals.store import SignalStore

if TYPE_CHECKING:
    from datapruner.samples.samples import Samples


@dataclass(frozen=True)
class Step:
    """Some tokens of an answer behind those right before them; it stands for a row of the pass.

    Attributes
    ----------
    ids : ndarray, int32
    context : int
        So many of them are read and not counted.
    """

    ids: Ints
    context: int

    def fed(self) -> str:
        """Return what tells it from others."""
        return f"step {self.context} {self.ids.tolist()}"


@dataclass(frozen=True)
class Steps:
    """All steps of all answers, in the place of a source's rows."""

    steps: Sequence[Step]

    def iter_samples(self, rows: Ints, *, identity: bool = True) -> Iterator[Step]:
        """Give some of them."""
        del identity
        return (self.steps[row] for row in rows.tolist())

    def rendered(self, row: int) -> Rendered:
        """Give one as the pass is fed."""
        step = self.steps[row]
        supervised = np.arange(len(step.ids)) >= step.context
        turn = np.array([[0, step.context, len(step.ids)]], dtype=np.int32)
        return Rendered(step.ids.astype(np.int32), supervised, truncated=False, turns=turn)


class _OfSteps(LanguageModel):
    """A language model that is given steps, tokenised already."""

    def render(self, samples: Samples, rows: Ints) -> Iterator[Rendered]:
        return map(cast(Steps, samples).rendered, rows.tolist())


class _NamedOfSteps(NamedModel):
    """The same of one that may not be open."""

    @cached_property
    def opened(self) -> LanguageModel:
        return _of_steps(self.load())


def _of_steps(reader: LanguageModel) -> LanguageModel:
    return _OfSteps(**{spec.name: getattr(reader, spec.name) for spec in fields(LanguageModel)})


def local_loss(
    samples: Samples,
    rows: Ints,
    reader: Reader,
    store: SignalStore,
    *,
    window: int,
    progress: bool = True,
) -> Floats:
    """Measure the last answer of each row in steps of ``window`` tokens, each behind the ``window`` tokens before it.

    *Published* (Local Naturalness, arXiv 2510.03988): log-probabilities of short reasoning steps that are conditioned
    on a small local window, averaged. *Ours*: steps are a fixed number of tokens, the last one what is left; the window
    is as long as a step, and before the first one it is the end of the prompt; every step counts the same.

    Parameters
    ----------
    samples, rows, reader, store, progress
        As for :func:`datapruner.signals.language_model.measure_language_model`.
    window : int
        Tokens of a step.

    Returns
    -------
    ndarray, float64, shape (m,)
        Mean over the steps of their mean negative log-likelihood, nats; NaN where the answer was cut away.
    """
    last = LanguageModel(None, reader.tokenizer, reader.max_length, last_turn_only=True)
    steps: list[Step] = []
    counts = np.zeros(len(rows), dtype=np.int64)
    for place, rendered in enumerate(last.render(samples, rows)):
        found = steps_of(rendered, window)
        counts[place] = len(found)
        steps += found
    out = np.full(len(rows), np.nan)
    if not steps:
        return out
    if isinstance(reader, NamedModel):
        held = {spec.name: getattr(reader, spec.name) for spec in fields(NamedModel)}
        named: Reader = _NamedOfSteps(**held)
    else:
        named = _of_steps(reader)
    measured = measure_language_model(
        cast("Samples", Steps(steps)),
        np.arange(len(steps), dtype=np.int64),
        named,
        store,
        what="response",
        num_tokens=np.array([len(step.ids) for step in steps], dtype=np.int64),
        progress=progress,
    )
    filled = counts > 0
    sums = np.add.reduceat(measured["response_log_ppl"], (np.cumsum(counts) - counts)[filled])
    out[filled] = sums / counts[filled]
    return out


def steps_of(rendered: Rendered, window: int) -> list[Step]:
    """Cut a row's supervised tokens, which are those of its last answer, into steps with what stands before each."""
    targets = np.flatnonzero(rendered.supervised)
    if not len(targets):
        return []
    first, stop = int(targets[0]), int(targets[-1]) + 1
    found = []
    for start in range(first, stop, window):
        end, before = min(start + window, stop), max(0, start - window)
        found.append(Step(rendered.input_ids[before:end], start - before))
    return found
