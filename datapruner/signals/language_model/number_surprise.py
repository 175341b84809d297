"""How surprising the last number of a row is, from losses that were measured: the model does not run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from datapruner.arrays import Floats, Ints
from datapruner.ragged import Ragged
from datapruner.signals.language_model.reader import Reader
from datapruner.signals.language_model.records import fed_content
from datapruner.signals.store import Batch, SignalStore, row_keys

if TYPE_CHECKING:
    from datapruner.samples.samples import Samples


def number_surprise(
    samples: Samples,
    rows: Ints,
    language_model: Reader,
    token_nll: Ragged,
    token_entropy: Ragged,
    store: SignalStore | None = None,
) -> Floats:
    """Tell how far each row's last number is from what the model expected there (*ours*).

    Parameters
    ----------
    samples, rows, language_model
        As for :func:`measure_language_model`; rows are tokenised again, the model does not run.
    token_nll, token_entropy : Ragged
        Of these rows.
    store : SignalStore, optional
        Rows that are there are not tokenised.

    Returns
    -------
    ndarray, float64, shape (m,)
        Largest NLL - entropy among the tokens of the last run of tokens with digits in the supervised text; 0 for a
        row without one. Nats.
    """

    def compute(places: Ints) -> Iterator[Batch]:
        tokenizer = language_model.tokenizer
        names = tokenizer.batch_decode([[id_] for id_ in range(len(tokenizer))])
        has_digit = np.array([any(character.isdigit() for character in name) for name in names])
        out = np.zeros((len(places), 1), dtype=np.float32)
        for number, rendered in enumerate(language_model.render(samples, rows[places])):
            digits = np.flatnonzero(has_digit[rendered.input_ids[rendered.supervised]])
            if digits.size:
                run = digits[np.flatnonzero(np.diff(digits, prepend=-2) != 1)[-1]]
                of = slice(run, digits[-1] + 1)
                out[number] = (token_nll[places[number]] - token_entropy[places[number]])[of].max()
        yield places, out

    every = np.arange(len(rows), dtype=np.int64)
    if store is None:
        return next(compute(every))[1][:, 0].astype(np.float64)
    context = {
        "signal": "number_surprise",
        "version": 1,
        "tokenizer": language_model.told().tokenizer,
        "max_length": language_model.max_length,
        "last_turn_only": language_model.last_turn_only,
    }
    contents = (
        fed_content(sample) + token_nll[place].tobytes() + token_entropy[place].tobytes()
        for place, sample in enumerate(samples.iter_samples(rows, identity=False))
    )
    return store.fetch(row_keys(contents, context), context, 1, compute)[:, 0].astype(np.float64)
