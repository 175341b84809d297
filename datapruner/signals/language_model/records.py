"""What a pass of a language model leaves in the store: the shape of its records, their keys, and finding them again.

Nothing here needs the model, so that a run whose records are all there opens none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Floats, Ints
from datapruner.models.known import Known
from datapruner.ragged import Ragged, offsets_of
from datapruner.samples.rendering import CODE_VERSION as RENDERING
from datapruner.samples.sample import Sample
from datapruner.signals.language_model.reader import Reader, tokens_a_batch
from datapruner.signals.store import Kind, SignalStore, row_keys

if TYPE_CHECKING:
    import torch

    from datapruner.models.optimizers import Moments
    from datapruner.samples.samples import Samples
    from datapruner.signals.language_model.sketch import GradientSketch

CODE_VERSION = 2

STATISTICS = ("log_ppl", "entropy", "el2n", "grad_norm", "weight_dot")
TWINS = (*STATISTICS, "pruned_grad_norm", "gradient_dot")
"""A record starts with these float64 numbers, as two float32 words each; its tokens' numbers follow, kind by kind."""
TOKENS = ("token_nll", "token_entropy")
TWIN_TOKENS = (*TOKENS, "pruned_token_nll", "pruned_token_entropy", "token_jsd")

What = Literal["row", "response", "states", "twins", "pooled", "gradients"]
"""A row as it is, its supervised turns alone, its last hidden states, both models on it, pooled state or gradients."""

Vectors = Mapping[str, Mapping[str, object]]
"""Vectors of a row that a pass makes beside its records, by name, and what else than the pass decides their numbers.

Each lies on a shelf of its own, so that the records are the same whoever asked for which vectors."""


class Way(NamedTuple):
    """How a model turned out to be fed, and what else opening it showed.

    Attributes
    ----------
    packing : bool
        Rows share sequences.
    batch_tokens : int
        Tokens a forward pass, after halving.
    prefix : int
        Tokens that the template puts before every conversation.
    norm : float
        Of the output layer's weight.
    """

    packing: bool
    batch_tokens: int
    prefix: int
    norm: float


@dataclass(frozen=True)
class Asked:
    """A pass as it is asked for: what decides its records, besides the row and the way of feeding.

    Attributes
    ----------
    what : What
    model : str
        The model's identity; both models', of a pair.
    known : Known
        Of the model that reads the rows.
    reader : Reader
    gradients : bool, optional
        Of a pair: the dense model's gradients too.
    vectors : mapping
        Vectors a row that the pass makes as well.
    settings : mapping
        What else decides the records.
    """

    what: What
    model: str
    known: Known
    reader: Reader
    gradients: bool | None = None
    vectors: Vectors = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)

    def context(self, way: Way) -> dict[str, object]:
        """Give what the keys of rows that were fed in this way are made from."""
        return {
            **self._fixed(),
            "packing": way.packing,
            "batch_tokens": way.batch_tokens,
            "prefix": way.prefix,
        }

    def kinds(self, samples: Samples, rows: Ints, way: Way) -> list[Kind]:
        """Give what the pass leaves in the store: its records, and then each of the vectors."""
        context = self.context(way)
        contexts = [context]
        contexts += [
            {**context, "signal": f"language_model {name}", **self.vectors[name]} for name in self.vectors
        ]
        return [
            Kind(row_keys(map(fed_content, samples.iter_samples(rows, identity=False)), one), one)
            for one in contexts
        ]

    def held(self, samples: Samples, rows: Ints, store: SignalStore) -> tuple[list[Ragged], Way] | None:
        """Find the records and vectors of all rows, where the way of feeding is known and none is missing."""
        way = self._way(store)
        if way is None:
            return None
        found = store.held_together(self.kinds(samples, rows, way))
        return None if found is None else (found, way)

    def missing(self, samples: Samples, rows: Ints, store: SignalStore) -> int:
        """Count the rows that the model has to read; one of which nobody knows how it is fed has read none."""
        way = self._way(store)
        if way is None:
            return len(rows)
        return store.missing_together(self.kinds(samples, rows, way))

    def _way(self, store: SignalStore) -> Way | None:
        facts = store.notes.get(self._about())
        return None if facts is None or facts.keys() != set(Way._fields) else Way(**facts)

    def note(self, way: Way, store: SignalStore) -> None:
        """Note the way of feeding for the next run."""
        store.notes.put(self._about(), way._asdict())

    def _fixed(self) -> dict[str, object]:
        return {
            "signal": f"language_model {self.what}",
            "version": CODE_VERSION,
            "rendering": RENDERING,
            "model": self.model,
            **({"gradients": self.gradients} if self.what == "twins" else {}),
            **self.settings,
            "device": self.known.device,
            "tokenizer": self.known.tokenizer,
            "max_length": self.reader.max_length,
            "last_turn_only": self.reader.last_turn_only,
        }

    def _about(self) -> dict[str, Any]:
        asked = tokens_a_batch(self.reader, self.known.device)
        return {"way": self._fixed(), "packing": self.reader.packing, "batch_tokens": asked}


def asked_of_gradients(
    reader: Reader, known: Known, sketch: GradientSketch, moments: Moments | None = None
) -> Asked:
    """Describe the pass with a way back; an optimiser's moments decide its sketches too."""
    settings = sketch.settings | ({} if moments is None else moments.settings)
    return Asked("gradients", known.identity, known, reader, settings=settings)


def fed_content(sample: Sample) -> bytes:
    """Give what a row's key is made from."""
    return sample.fed().encode("utf-8", "surrogatepass")


def numbers_of(records: Ragged, names: Sequence[str], kinds: int) -> tuple[dict[str, Floats], list[Ragged]]:
    """Take stored records apart: the rows' numbers by name, and ``kinds`` numbers a token."""
    words = 2 * len(names)
    starts, tokens = records.offsets[:-1], (records.lengths - words) // kinds
    heads = records.values[starts[:, None] + np.arange(words)] if len(starts) else np.empty((0, words))
    table = np.ascontiguousarray(heads, dtype="<f4").view("<f8").reshape(-1, len(names)).astype(np.float64)
    offsets = offsets_of(tokens)
    place = np.repeat(starts + words - offsets[:-1], tokens) + np.arange(offsets[-1])
    ragged = []
    for _ in range(kinds):
        ragged.append(Ragged(records.values[place], offsets))
        place += np.repeat(tokens, tokens)
    return {name: np.ascontiguousarray(table[:, number]) for number, name in enumerate(names)}, ragged


def row_record(parts: dict[int, tuple[list[NDArray[np.float32]], Floats]]) -> NDArray[np.float32]:
    """Put a row's numbers and tokens together as they are stored: means of loss and entropy, the rest, the tokens."""
    ordered = [parts[part] for part in sorted(parts)]
    tokens = [np.concatenate(held) for held in zip(*(part[0] for part in ordered), strict=True)]
    head = [tokens[0].mean(dtype=np.float64), tokens[1].mean(dtype=np.float64), *ordered[0][1]]
    return np.concatenate(
        [np.array(head, dtype="<f8").view("<f4"), *(held.astype(np.float32) for held in tokens)]
    )


def row_means(tokens: torch.Tensor, lengths: Sequence[int]) -> Floats:
    """Average a number of every token over its row, each row by itself."""
    offsets = offsets_of(np.array(lengths))
    held = tokens.cpu().numpy()
    return np.array(
        [held[start:end].mean(dtype=np.float64) for start, end in pairwise(offsets.tolist())],
        dtype=np.float64,
    )


def matrix_of(records: Ragged) -> NDArray[np.float32]:
    """Give stored vectors as they lie there: one of a length for every row; float32 (n, d), mapped where they were."""
    width = int(records.lengths[0]) if len(records) else 0
    return records.values.reshape(len(records), width)
