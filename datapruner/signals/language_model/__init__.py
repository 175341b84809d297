"""What a causal language model, or a dense one and its pruned twin, says of rows: losses and what follows from them."""

from typing import TYPE_CHECKING

from datapruner.moved import moved
from datapruner.signals.language_model.measure import measure_language_model as measure_language_model
from datapruner.signals.language_model.number_surprise import number_surprise as number_surprise
from datapruner.signals.language_model.reader import LanguageModel as LanguageModel

if not TYPE_CHECKING:
    __getattr__ = moved(
        __name__, [f"{__name__}.{part}" for part in ("forward", "waiting", "measure", "feeding", "reader")]
    )
