"""Q-Tuning inside the plain Trainer of `transformers`, for trainers and collators of one's own.

>>> from datapruner.integrations.transformers import QTuningTrainer
>>> QTuningTrainer(model, args, collator, rows, sample_ratio=0.25).train()  # doctest: +SKIP
"""

from __future__ import annotations

from transformers import Trainer

from datapruner.integrations.qtuning import QTuningMixin


class QTuningTrainer(QTuningMixin, Trainer):  # type: ignore[misc]
    """Trainer that prunes rows and tokens of every mini-batch with the model as it is (arXiv 2509.23873).

    The collator must give padded ``input_ids`` and ``labels``, such as DataCollatorForSeq2Seq. See
    :class:`datapruner.integrations.trl.QTuningTrainer`, whose arguments it shares, and
    :mod:`datapruner.integrations.qtuning` for what is *published* and what *ours*.

    Parameters
    ----------
    *args, **kwargs
        As for Trainer.
    sample_ratio, token_ratio, smoothing, fill
        As there.
    """
