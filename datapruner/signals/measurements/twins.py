"""What pruning changed in a model's predictions: the pass of the dense and the pruned model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from datapruner.errors import DataPrunerError
from datapruner.progress import PASSES, Ahead
from datapruner.recipe import Recipe
from datapruner.signals.losses import PACED_BY, reader_of
from datapruner.signals.measurement import Cost, Given, Readers
from datapruner.signals.measurements._of_model import OfModel
from datapruner.signals.measurements.losses import GRADIENTS, OF_A_ROW
from datapruner.signals.run import Run, tokens_a_row
from datapruner.signals.second_model import PRUNED, known_second, open_second

JSD = Given(
    "jsd",
    "mean Jensen-Shannon divergence of the dense and the pruned model's predictions",
    unit="nats",
)
AGREEMENT = (
    Given("pruned_grad_norm", "grad_norm of the pruned model"),
    Given(
        "gradient_dot",
        "inner product of the dense and the pruned model's gradients by their output layers' weights",
    ),
)
OF_TWO = (
    JSD,
    Given(
        "token_jsd",
        "that divergence at every supervised token",
        shape="token",
        dtype="float32",
        unit="nats",
    ),
    Given("pruned_log_ppl", "log_ppl of the pruned model", unit="nats"),
    Given(
        "pruned_token_nll",
        "token_nll of the pruned model",
        shape="token",
        dtype="float32",
        unit="nats",
    ),
    *AGREEMENT,
)


class Twins(OfModel):
    """Both models over the same rows; serves the dense model's losses too."""

    name: ClassVar[str] = "twins"
    gives: ClassVar[tuple[Given, ...]] = (*OF_TWO, *OF_A_ROW)
    options: ClassVar[tuple[str, ...]] = ("pruned_model",)
    paced_by: ClassVar[tuple[str, ...]] = (*PACED_BY, "pruned_model", "twins")
    cost: ClassVar[Cost] = Cost(4e-3, "token")

    def applies(self, recipe: Recipe) -> bool:
        """Whether no divergences are given instead."""
        return not recipe.has("divergences")

    def apart(self, recipe: Recipe) -> bool:
        """Not where one model makes room for the other."""
        return recipe.twins != "in_turn"

    def reads(self, signals: frozenset[str]) -> bool:
        """Whether these say what pruning changed."""
        return any(given.name in signals for given in OF_TWO)

    def check(self, recipe: Recipe, readers: Readers) -> None:
        """Refuse a pruned model that nobody reads, and a scorer that needs one."""
        of_two = {given.name for given in OF_TWO}
        wanted = {who: needs & of_two for who, needs in readers.items() if needs & of_two}
        pruned, given = recipe.has("pruned_model"), recipe.has("divergences")
        if not wanted:
            if pruned or given:
                raise DataPrunerError(
                    f"--{'pruned-model' if pruned else 'divergences'} is given, and no scorer of this run compares a "
                    "pruned model with the dense one; take the scorer paser"
                )
            return
        who = next(iter(wanted))
        if pruned and given:
            raise DataPrunerError(
                "divergences are measured or given: leave --pruned-model or --divergences out"
            )
        if given:
            if more := sorted(frozenset().union(*wanted.values()) - {JSD.name}):
                raise DataPrunerError(
                    f"{who} reads {', '.join(more)} too, which --divergences do not tell; pass --model and "
                    "--pruned-model"
                )
            return
        if not pruned or not recipe.has("model"):
            missing = (
                "--model with the dense model" if pruned else "--pruned-model with the model that was pruned"
            )
            raise DataPrunerError(
                f"{who} compares a pruned model with the dense one: pass {missing}, or --divergences with what was "
                "measured before"
            )

    def passes(self, run: Run) -> list[Ahead]:
        """Give the one of both."""
        tokens = run.language_model.counts.tokens[run.rows]
        return [Ahead(PASSES["twins"], len(run.rows), int(tokens.sum()), 2)]

    def pace(self, run: Run) -> float:
        """Estimate by the model's size, where nothing was measured with it yet."""
        return self.noted_pace(run) or 2 * run.guessed_token_seconds * tokens_a_row(run)

    def missing(self, run: Run, wanted: frozenset[str]) -> int | None:
        """Count the rows that the two have not read; unknown of models that were given as objects."""
        reader, given = reader_of(run), run.objects.pruned_model
        if given is not None or run.objects.model is not None:
            return None
        pruned = (
            None if reader is None else known_second(PRUNED, run.recipe, run.store, given, reader.max_length)
        )
        if reader is None or reader.known is None or pruned is None:
            return len(run.rows)
        from datapruner.signals.language_model.twins import asked_of_pair

        agreement = any(given.name in wanted for given in AGREEMENT)
        gradients = agreement or any(given.name in wanted for given in GRADIENTS)
        asked = asked_of_pair(reader, reader.known, pruned, gradients, agreement)
        return asked.missing(run.samples, run.rows, run.store)

    def measure(self, run: Run, wanted: frozenset[str]) -> Mapping[str, Any]:
        """Run both models over the rows."""
        from datapruner.signals.language_model.twins import measure_twins

        reader, counts = run.language_model
        given = run.objects.pruned_model
        return measure_twins(
            run.samples,
            run.rows,
            reader,
            lambda: open_second(PRUNED, run, reader),
            run.store,
            pruned_known=known_second(PRUNED, run.recipe, run.store, given, reader.max_length),
            in_turn=run.recipe.twins == "in_turn",
            # Rows on which the pruned model fails go, and both are asked again.
            release=run.objects.model is None and run.recipe.on_error != "drop",
            gradients=any(given.name in wanted for given in GRADIENTS),
            agreement=any(given.name in wanted for given in AGREEMENT),
            num_tokens=counts.tokens[run.rows],
            num_supervised=int(counts.supervised[run.rows].sum()),
            progress=run.progress,
        )
