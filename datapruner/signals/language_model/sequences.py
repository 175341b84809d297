"""Rows as the sequences that run through a model: each as it is, or turn by turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from datapruner.arrays import Ints
from datapruner.errors import RowError
from datapruner.samples.rendered import Rendered
from datapruner.samples.rendering import responses
from datapruner.signals.language_model.batches import Item
from datapruner.signals.language_model.reader import LanguageModel
from datapruner.signals.language_model.records import What

if TYPE_CHECKING:
    from datapruner.samples.samples import Samples


@dataclass(frozen=True)
class Sequences:
    """What is taken out of rows, and how they are tokenised.

    Attributes
    ----------
    feed : LanguageModel
    samples : Samples
    rows : ndarray, int64
        Those that are asked for; a place is one of these.
    what : What
    vocabulary : int
        Token ids that the model knows.
    """

    feed: LanguageModel
    samples: Samples
    rows: Ints
    what: What
    vocabulary: int

    def of(self, places: Ints, over: Callable[[], bool]) -> list[Item]:
        """Tokenise rows, until it is over."""
        items = []
        for place, rendered in zip(
            places.tolist(), self.feed.render(self.samples, self.rows[places]), strict=True
        ):
            if over():  # nobody waits for these rows any more
                break
            self._check(place, rendered)
            if self.what == "response":
                items += self._turns(place, rendered)
            else:
                items.append(Item(place, rendered.input_ids, np.flatnonzero(rendered.supervised)))
        return items

    def _check(self, place: int, rendered: Rendered) -> None:
        row = int(self.rows[place])
        highest = int(rendered.input_ids.max(initial=0))
        if highest >= self.vocabulary:
            raise RowError(
                f"row {row} holds the token id {highest}, but the model knows only {self.vocabulary:,} of them: the "
                "tokenizer is not this model's",
                row,
            )
        if not rendered.supervised.any():
            raise RowError(f"row {row} has no supervised token that could be scored", row)
        if self.what == "response" and rendered.plain:
            raise RowError(
                f"row {row} is plain text without a prompt, so a loss with and one without the prompt cannot be "
                "compared; take another scorer than ifd",
                row,
            )

    def _turns(self, place: int, rendered: Rendered) -> list[Item]:
        """Take a row's supervised turns out of it; where nothing opens one, a start or end token does."""
        tokenizer = self.feed.tokenizer
        items = []
        for part, turn in enumerate(responses(rendered, tokenizer.bos_token_id)):
            ids, targets = turn.input_ids, np.flatnonzero(turn.supervised)
            wanted = int(rendered.supervised[rendered.turns[part, 1] : rendered.turns[part, 2]].sum())
            if len(targets) < wanted:
                named = (tokenizer.bos_token_id, tokenizer.eos_token_id)
                start = next((id_ for id_ in named if id_ is not None and id_ < self.vocabulary), 0)
                ids = np.concatenate([np.array([start], np.int32), ids])
                targets = np.arange(len(ids) - wanted, len(ids))
            if wanted:  # an answer that is the row's first token has nothing that predicts it
                items.append(Item(place, ids, targets, part))
        return items
