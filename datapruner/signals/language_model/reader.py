"""A language model as a reader of rows: open already, or named and opened once a row has to be measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from datapruner.arrays import Ints
from datapruner.models.known import Known, learn_model
from datapruner.samples.rendered import Rendered
from datapruner.samples.rendering import render_many

if TYPE_CHECKING:
    import torch

    from datapruner.samples.samples import Samples

TOKENS_PER_BATCH = {"cpu": 1024, "cuda": 16384}


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model, and how rows are fed to it.

    Attributes
    ----------
    model, tokenizer
        From :func:`datapruner.models.load_causal_lm`, or the user's own.
    max_length : int
        Rows are cut after this many tokens.
    last_turn_only : bool
        Supervise the last assistant turn alone.
    packing : bool
        Rows share sequences without padding; else they run in padded length buckets.
    batch_tokens : int, optional
        Tokens a forward pass; by default what suits the device. Halved where memory runs out.
    drop_failing : bool
        Rows on which the model fails are told once the others are measured; else the first one is an error.
    known : Known, optional
        What it is, where a name of files tells. Of a model that came as an object, or by code of the user's, this is
        found out whenever it is asked for: what it answers to fixed tokens is part of its identity then.
    """

    model: Any
    tokenizer: Any
    max_length: int
    last_turn_only: bool = False
    packing: bool = True
    batch_tokens: int | None = None
    drop_failing: bool = False
    known: Known | None = None

    @property
    def device(self) -> torch.device:
        """Where token ids go."""
        device: torch.device = self.model.get_input_embeddings().weight.device
        return device

    @property
    def tokens_a_batch(self) -> int:
        """Tokens a forward pass."""
        return tokens_a_batch(self, self.device.type)

    @property
    def opened(self) -> LanguageModel:
        """Itself."""
        return self

    @property
    def collecting(self) -> LanguageModel:
        """The same, telling of all rows that fail."""
        return replace(self, drop_failing=True)

    def told(self) -> Known:
        """Tell what it is."""
        return self.known or learn_model(self.model, self.tokenizer, probe=True)

    def render(self, samples: Samples, rows: Ints) -> Iterator[Rendered]:
        """Tokenise rows as the pass does."""
        with samples.naming():
            yield from render_many(
                samples.iter_samples(rows, identity=False),
                self.tokenizer,
                last_turn_only=self.last_turn_only,
                max_length=self.max_length,
                numbers=rows.tolist(),
            )


@dataclass(frozen=True, eq=False)
class NamedModel:
    """A language model that was opened before, by this run or an earlier one: what it is, is known without it.

    Attributes
    ----------
    known : Known
    max_length, last_turn_only, packing, batch_tokens, drop_failing
        As in :class:`LanguageModel`.
    load : callable
        Opens it.
    load_tokenizer : callable
        Loads its tokenizer alone.
    """

    known: Known
    max_length: int
    last_turn_only: bool
    packing: bool
    batch_tokens: int | None
    drop_failing: bool
    load: Callable[[], LanguageModel]
    load_tokenizer: Callable[[], Any]

    @cached_property
    def opened(self) -> LanguageModel:
        """The model in memory."""
        return self.load()

    @property
    def collecting(self) -> NamedModel:
        """The same, telling of all rows that fail; it is opened once for both."""
        return replace(
            self,
            drop_failing=True,
            load=lambda: self.opened.collecting,
            load_tokenizer=lambda: self.tokenizer,
        )

    @cached_property
    def tokenizer(self) -> Any:
        """Its tokenizer."""
        return self.load_tokenizer()

    @property
    def model(self) -> Any:
        """The model itself, which this loads."""
        return self.opened.model

    def told(self) -> Known:
        """Tell what it is."""
        return self.known

    def render(self, samples: Samples, rows: Ints) -> Iterator[Rendered]:
        """Tokenise rows as the pass does."""
        return LanguageModel(None, self.tokenizer, self.max_length, self.last_turn_only).render(samples, rows)


Reader = LanguageModel | NamedModel


def tokens_a_batch(reader: Reader, device: str) -> int:
    """Tokens a forward pass on a kind of device."""
    return reader.batch_tokens or TOKENS_PER_BATCH.get(device, TOKENS_PER_BATCH["cpu"])
