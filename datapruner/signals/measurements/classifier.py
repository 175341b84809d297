"""What a sequence classifier or a reward model makes of the rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from datapruner.errors import DataPrunerError
from datapruner.recipe import Recipe
from datapruner.signals.measurement import Cost, Given, Measurement, Readers
from datapruner.signals.other_models import classifier_of, missing_with, of_rows, read_with
from datapruner.signals.run import Run
from datapruner.text import safe_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from datapruner.models.classifiers.outputs import Outputs

CLASS = "class:"
EXPECTED, OUTPUT = "expected_class", "class_output"


class Classifier(Measurement):
    """One forward pass of a classifier over the rows; see :mod:`datapruner.models.classifiers`."""

    name: ClassVar[str] = "classifier"
    gives: ClassVar[tuple[Given, ...]] = (
        Given(CLASS, "probability of the class of that name by --classifier, say class:toxic"),
        Given(EXPECTED, "expected class by --classifier: the classes' numbers by their probabilities"),
        Given(OUTPUT, "the output of a --classifier that has one, such as a reward model"),
    )
    options: ClassVar[tuple[str, ...]] = ("classifier", "classifier_max_length")
    paced_by: ClassVar[tuple[str, ...]] = ("classifier", "classifier_max_length", "dtype", "device")
    reads_text: ClassVar[bool] = True
    cost: ClassVar[Cost] = Cost(2e-2)

    def model(self, recipe: Recipe) -> str:
        """Name a classifier."""
        return "classifier"

    def check(self, recipe: Recipe, readers: Readers) -> None:
        """Refuse to go without a classifier, one that nobody reads, and classes that it does not have."""
        if readers and not recipe.has("classifier"):
            raise DataPrunerError(
                f"{next(iter(readers))} reads a classifier's outputs: name one with --classifier, a folder or a hub "
                "name of a sequence classifier or reward model"
            )
        if not readers and recipe.has("classifier"):
            raise DataPrunerError(
                "--classifier is given, and no scorer of this run reads it; take the scorer classifier"
            )
        if readers and recipe.classifier is not None:
            from datapruner.models.classifiers.loading import classifier_config
            from datapruner.models.classifiers.outputs import Outputs

            outputs = Outputs.of(classifier_config(recipe.classifier))
            _check_wanted(outputs, recipe.classifier, frozenset().union(*readers.values()))

    def prepare(self, run: Run, wanted: frozenset[str]) -> None:
        """Refuse classes that a classifier in memory does not have."""
        if run.objects.classifier is not None:
            from datapruner.models.classifiers.outputs import Outputs

            _check_wanted(Outputs.of(run.objects.classifier[0].config), "given", wanted)

    def missing(self, run: Run, wanted: frozenset[str]) -> int | None:
        """Count the rows that it has not read; unknown of one that was given as an object."""
        if run.objects.classifier is not None:
            return None
        return missing_with(
            classifier_of(run.recipe, run.store, None, progress=False), run, of_rows(run), self.name
        )

    def measure(self, run: Run, wanted: frozenset[str]) -> Mapping[str, Any]:
        """Run the classifier over the rows."""
        from datapruner.models.classifiers.outputs import Outputs

        given = run.objects.classifier
        reader = classifier_of(run.recipe, run.store, given, progress=run.progress)
        logits = read_with(reader, run, of_rows(run), self.name, "--classifier-max-length")
        outputs, name = Outputs.noted(reader.context), run.recipe.classifier or "given"
        return {signal: value_of(signal, outputs, logits, name) for signal in wanted}


def value_of(signal: str, outputs: Outputs, logits: NDArray[np.float32], name: str) -> NDArray[np.float64]:
    """Give a signal of this measurement from the classifier's outputs; shape (n,)."""
    if signal == EXPECTED:
        return outputs.expected(logits)
    return outputs.values(logits, 0 if signal == OUTPUT else outputs.place(signal.removeprefix(CLASS), name))


def _check_wanted(outputs: Outputs, name: str, wanted: Iterable[str]) -> None:
    """Refuse what such outputs do not give."""
    shown = safe_text(name, 200)
    for signal in sorted(wanted):
        if signal == OUTPUT and outputs.kind != "single":
            raise DataPrunerError(
                f"the classifier '{shown}' has {len(outputs.names)} outputs, {outputs.told()}: say which of them is "
                "the score, as label=NAME of the scorer classifier, or take expected=true"
            )
        if signal == EXPECTED and outputs.kind != "classes":
            raise DataPrunerError(
                f"the classifier '{shown}' has no classes that exclude each other, so that there is no expected one; "
                "leave expected out"
            )
        if signal.startswith(CLASS):
            outputs.place(signal.removeprefix(CLASS), name)
