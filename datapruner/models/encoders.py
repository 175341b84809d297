"""What turns texts, token ids or pixels into one vector a row.

Each embedder tells its identity (the weights' hash) and everything else that decides its vectors, and computes one
padded batch at a time; which rows go into which batch is decided in :mod:`datapruner.signals.embedding`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Ints

if TYPE_CHECKING:
    from datapruner.models.known import Opening

Pooling = Literal["auto", "mean", "last"]

E = TypeVar("E", "TokenEmbedder", "ImageEmbedder")


@runtime_checkable
class Encoder(Protocol):
    """Any object that turns texts into vectors; give it an ``identity`` string to have it cached."""

    def encode(self, texts: list[str], /) -> Any:
        """Embed texts into an array of shape (len(texts), d)."""
        ...


@dataclass(frozen=True)
class TokenEmbedder:
    """A text embedder taken apart into tokenising and one padded forward pass.

    Attributes
    ----------
    context : dict
        What decides a vector: model identity, tokenizer, pooling, maximum length, dtype.
    width : int
        Length of a vector.
    whole : callable
        Texts, or what else it reads -> all token ids of each.
    forward : callable
        (input_ids int64 [b, t], attention_mask int64 [b, t]) -> float32 [b, width], on the CPU.
    pad_id : int
        What fills a row; masked, so its value does not matter to the result.
    max_length : int
        What :meth:`tokenize` cuts at; no row is padded beyond, since the model may have no positions there.
    device : str
        Kind of device of ``forward``, cpu or cuda; it decides the size of a batch.
    unknown_id : int, optional
        What stands for letters that the vocabulary does not hold.
    """

    context: dict[str, object]
    width: int
    whole: Callable[[list[Any]], list[list[int]]]
    forward: Callable[[Ints, Ints], NDArray[np.float32]]
    pad_id: int
    max_length: int
    device: str = "cpu"
    unknown_id: int | None = None

    def cut(self, ids: list[int]) -> list[int]:
        """Cut a row to what the model reads: its two ends, so that a long question does not hide the answer.

        *Published*: head and tail (Sun et al. 2019, "How to fine-tune BERT for text classification?", section
        5.1). *Ours*: in halves.
        """
        if len(ids) <= self.max_length:
            return ids
        tail = self.max_length // 2
        return ids[: self.max_length - tail] + ids[len(ids) - tail :]

    def tokenize(self, texts: list[str]) -> list[list[int]]:
        """Give the token ids of each text, cut."""
        return [self.cut(ids) for ids in self.whole(texts)]

    @property
    def opened(self) -> TokenEmbedder:
        """Itself."""
        return self


@dataclass(frozen=True)
class ImageEmbedder:
    """An image model: PIL images -> float32 [b, width]."""

    context: dict[str, object]
    width: int
    forward: Callable[[Sequence[Any]], NDArray[np.float32]]
    device: str = "cpu"

    @property
    def opened(self) -> ImageEmbedder:
        """Itself."""
        return self


class Named(Generic[E]):
    """An embedder by its name: what decides its vectors is known where these files were opened before.

    Parameters
    ----------
    load : callable
        Opens it.
    about : callable
        Describes the opening; see :func:`datapruner.models.known.opening`.
    """

    def __init__(self, load: Callable[[], E], about: Callable[[], Opening]) -> None:
        self._load: Callable[[], E] = load
        self._about = about
        self._opening = about()
        self._noted = self._opening.known()

    @cached_property
    def opened(self) -> E:
        """The embedder itself; what it showed is noted, in place of what was."""
        embedder = self._load()
        facts = {"context": embedder.context, "width": embedder.width, "device": embedder.device}
        self._opening.note(facts, self._about())
        self._noted = facts
        return embedder

    @property
    def is_known(self) -> bool:
        """Whether what it is can be told without opening it."""
        return self._noted is not None

    @property
    def context(self) -> dict[str, object]:
        """What decides a vector."""
        return dict(self._facts["context"])

    @property
    def width(self) -> int:
        """Length of a vector."""
        return int(self._facts["width"])

    @property
    def device(self) -> str:
        """Kind of device, which decides the size of a batch."""
        return str(self._facts["device"])

    @property
    def _facts(self) -> dict[str, Any]:
        if self._noted is None:
            _ = self.opened
        assert self._noted is not None
        return self._noted
