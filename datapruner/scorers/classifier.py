"""What a sequence classifier or a reward model makes of the row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from datapruner.errors import DataPrunerError
from datapruner.ranking import Ranking
from datapruner.scorers._one_signal import Keep
from datapruner.scorers.base import Scorer
from datapruner.signals import Signals

COLUMNS = {"class:": "class_probability", "expected_class": "expected_class", "class_output": "class_output"}
"""What a signal's column is called; a class's own name may be any text."""


@dataclass(frozen=True)
class Classifier(Scorer):
    """Score of a sequence classifier or a reward model, ``--classifier``: high first, or low.

    *Published* as filters of pretraining text (FineWeb-Edu, arXiv 2406.17557: one output that was trained to give a
    grade of 0 to 5) and as reward models, one output for a conversation. *Ours*: any model of transformers with a
    sequence-classification head, over the row as its own tokenizer's chat template renders it, or else as one text
    (``--classifier-reads``); rows that are longer than it reads lose their middle, so that both the question and the
    end of the answer are seen, and are told.

    Parameters
    ----------
    label : str, optional
        The class whose probability is the score; of a model with several numbers the name of the one. Classes exclude
        each other unless the configuration says ``multi_label_classification``. Default: the output of a model that
        has one, such as a reward or a grade.
    expected : bool
        The score is the expected class instead, sum_c p(c) c: c is what the classes' names say where all of them are
        numbers, and else 0, 1, 2, ...
    keep : {"high", "low"}
        Low ones of what is unwanted, such as toxicity.
    """

    label: str | None = None
    expected: bool = False
    keep: Keep = "high"
    name: ClassVar[str] = "classifier"
    needs: ClassVar[frozenset[str]] = frozenset({"class_output"})
    holds: ClassVar[frozenset[str] | None] = frozenset(COLUMNS.values())
    paper: ClassVar[str] = "arXiv 2406.17557"
    provenance: ClassVar[str] = "classifiers as filters published; any head, over fine-tuning rows, ours"

    def __post_init__(self) -> None:
        """Refuse parameters that have no meaning together."""
        super().__post_init__()
        if self.label is not None and self.expected:
            raise DataPrunerError(
                "classifier: the score is a label's probability or the expected class; give one"
            )
        if self.label == "":
            raise DataPrunerError("classifier: label is a class's name, not empty")

    @property
    def signal(self) -> str:
        """The signal that is the score."""
        if self.label is not None:
            return f"class:{self.label}"
        return "expected_class" if self.expected else "class_output"

    @property
    def requires(self) -> frozenset[str]:
        """That signal."""
        return frozenset({self.signal})

    def _score(self, signals: Signals) -> Ranking:
        held = np.array(signals.column(self.signal), dtype=np.float64)
        column = COLUMNS["class:" if self.label is not None else self.signal]
        return Ranking(held if self.keep == "high" else 0.0 - held, columns={column: held})
