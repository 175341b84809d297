"""What a classifier's outputs are, and what is made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from datapruner.errors import DataPrunerError
from datapruner.text import safe_text


@dataclass(frozen=True)
class Outputs:
    """What a classifier's outputs are.

    Attributes
    ----------
    names : tuple of str
        Of the outputs, in their order.
    kind : {"single", "classes", "labels", "numbers"}
        One number, as a reward model gives; classes that exclude each other (softmax); labels of which each may hold
        (sigmoid); several numbers.
    """

    names: tuple[str, ...]
    kind: Literal["single", "classes", "labels", "numbers"]

    @classmethod
    def of(cls, config: Any) -> Outputs:
        """Read them off a configuration; ``problem_type`` says what several are, and classes where it says nothing."""
        count = int(config.num_labels)
        names = tuple(str((config.id2label or {}).get(place, f"LABEL_{place}")) for place in range(count))
        problem = getattr(config, "problem_type", None)
        if count == 1:
            return cls(names, "single")
        if problem == "multi_label_classification":
            return cls(names, "labels")
        return cls(names, "numbers" if problem == "regression" else "classes")

    @classmethod
    def noted(cls, context: dict[str, Any]) -> Outputs:
        """Take what a classifier's context says of them."""
        names, kind = context["outputs"]
        return cls(tuple(names), kind)

    def told(self) -> str:
        """Name them in a sentence."""
        shown = ", ".join(safe_text(name, 40) for name in self.names[:20])
        return shown + (f" and {len(self.names) - 20} more" if len(self.names) > 20 else "")

    def place(self, label: str, name: str) -> int:
        """Find an output by its name.

        Raises
        ------
        DataPrunerError
            There is none, or the classifier has no classes.
        """
        if self.kind == "single":
            raise DataPrunerError(
                f"the classifier '{safe_text(name, 200)}' has one output and no classes; leave label out"
            )
        if label not in self.names:
            from datapruner.text import did_you_mean

            raise DataPrunerError(
                f"the classifier '{safe_text(name, 200)}' has no class '{safe_text(label, 60)}'."
                f"{did_you_mean(label, self.names)} It has {self.told()}"
            )
        return self.names.index(label)

    def values(self, logits: NDArray[np.float32], place: int) -> NDArray[np.float64]:
        """Give the probability of a class or of a label, or an output that is a number itself; shape (n,)."""
        held = logits.astype(np.float64)
        if self.kind == "classes":
            return self._softmax(held)[:, place]
        if self.kind == "labels":
            return np.asarray(0.5 * (1 + np.tanh(held[:, place] / 2)))
        return np.array(held[:, place])

    def expected(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """Give the expected class: its number, or what its name says where all names are numbers; shape (n,)."""
        return np.asarray(self._softmax(logits.astype(np.float64)) @ self.grades())

    def grades(self) -> NDArray[np.float64]:
        """Give the number that each class stands for."""
        try:
            return np.array([float(name) for name in self.names])
        except ValueError:
            return np.arange(len(self.names), dtype=np.float64)

    @staticmethod
    def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))
