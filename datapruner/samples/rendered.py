"""What a row is once it is tokens: its ids, the mask of what is supervised, its turns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

Ids = list[int]


class Turn(NamedTuple):
    """A supervised turn, in characters of the text or in tokens of the row.

    Parameters
    ----------
    header
        Where the assistant's header before it begins; ``first`` where there is none that is known.
    first, stop
        Where what is supervised begins and ends.
    """

    header: int
    first: int
    stop: int


@dataclass(frozen=True)
class Rendered:
    """A row as a model is fed.

    Parameters
    ----------
    input_ids
        The token ids, int32.
    supervised
        Which tokens are targets of the loss; never the first.
    truncated
        Whether the row was cut at ``max_length``.
    turns
        One row of token positions for every supervised turn: where its header begins, where the turn begins
        and where it ends; int32 of shape (n, 3).
    plain
        A raw ``text`` row, which has no prompt.
    """

    input_ids: np.ndarray
    supervised: np.ndarray
    truncated: bool
    turns: np.ndarray
    plain: bool = False

    @property
    def key(self) -> bytes:
        """The token ids: rows of the same ones are the same row to a model."""
        return self.input_ids.tobytes()


@dataclass(frozen=True)
class Response:
    """An assistant turn without what came before it.

    Parameters
    ----------
    input_ids
        The start token where the row has one, the assistant's header and the turn; int32.
    supervised
        Which of these are targets of the loss.
    targets
        Where in the row the same targets stand, one for each; int64. A first token that nothing predicts here
        is in neither, so that both losses are over the same tokens.
    """

    input_ids: np.ndarray
    supervised: np.ndarray
    targets: np.ndarray


@dataclass(frozen=True)
class TokenCounts:
    """Each row's number of tokens and of supervised tokens (int64), and whether it was cut (bool).

    ``failed`` says of rows why they could not be rendered, where these were to be left out: they have no tokens.
    """

    tokens: np.ndarray
    supervised: np.ndarray
    truncated: np.ndarray
    failed: Mapping[int, str] = field(default_factory=dict)
