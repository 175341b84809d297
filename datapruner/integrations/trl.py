"""Q-Tuning inside trl's SFTTrainer.

>>> from datapruner.integrations.trl import QTuningTrainer
>>> QTuningTrainer(model, train_dataset=rows, sample_ratio=0.25, token_ratio=0.5).train()  # doctest: +SKIP
"""

from __future__ import annotations

from datapruner.errors import DataPrunerError
from datapruner.extras import how_to_install
from datapruner.integrations.qtuning import QTuningMixin

try:
    from trl import SFTTrainer
except ImportError as error:
    raise DataPrunerError(f"trl is not installed: {how_to_install('trl')}") from error


class QTuningTrainer(QTuningMixin, SFTTrainer):  # type: ignore[misc]
    """SFTTrainer that prunes rows and tokens of every mini-batch with the model as it is (arXiv 2509.23873).

    *Published* and *ours*: see :mod:`datapruner.integrations.qtuning`. A mini-batch is what one device sees at once,
    ``per_device_train_batch_size`` rows: give it 16 or more, of which a quarter is trained on by default.

    Parameters
    ----------
    *args, **kwargs
        As for SFTTrainer; ``packing`` and ``padding_free`` must be off.
    sample_ratio : float
        Share of a batch's rows that is trained on.
    token_ratio : float
        Share of the supervised tokens that a confidently wrong row keeps in its loss.
    smoothing : float
        Weight of a token's neighbours.
    fill : {"ppl", "log_ppl", "rank"}
        Scale of |error - uncertainty|.
    """
