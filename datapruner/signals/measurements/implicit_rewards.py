"""What a policy learned to prefer to its reference: the implicit rewards of a pair's two sides (DPO)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from datapruner.arrays import Floats, Ints
from datapruner.progress import Ahead
from datapruner.ragged import Ragged
from datapruner.samples import load_samples
from datapruner.samples.conversation import conversation
from datapruner.samples.preference import rejected_sides
from datapruner.signals.failing import RowsFailedError
from datapruner.signals.losses import PACED_BY, missing_of, reader_of, tokenizer_of
from datapruner.signals.measurement import LANGUAGE_MODEL, Cost, Given
from datapruner.signals.measurements._of_model import OfModel
from datapruner.signals.measurements.reference import IMPLICIT
from datapruner.signals.run import Run, tokens_a_row
from datapruner.signals.second_model import REFERENCE, missing_of_reference, reference_reader
from datapruner.signals.tokens import TEMPLATE, stored_counts

if TYPE_CHECKING:
    from datapruner.samples.samples import Samples
    from datapruner.signals.language_model.reader import Reader

logger = logging.getLogger(__name__)

NOTHING = "no supervised token, or none before --max-length cuts it"


class ImplicitRewards(OfModel):
    """Both models over the rejected sides; what they make of the chosen ones is a row's own.

    A side's reward is log p under ``--model`` (the policy) minus log p under ``--reference-model``, summed over its
    supervised tokens. What both sides begin with counts in both, and not in their difference.
    """

    name: ClassVar[str] = "implicit_rewards"
    gives: ClassVar[tuple[Given, ...]] = (
        Given(IMPLICIT[0], "log p of the row under the model minus that under the reference", unit="nats"),
        Given(IMPLICIT[1], "the same with its rejected answer, the highest of several", unit="nats"),
    )
    needs: ClassVar[frozenset[str]] = frozenset({"token_nll", "reference_token_nll"})
    paced_by: ClassVar[tuple[str, ...]] = (*PACED_BY, REFERENCE.field)
    roles: ClassVar[tuple[str, ...]] = ("rejected",)
    cost: ClassVar[Cost] = Cost(4e-3, "token")

    def passes(self, run: Run) -> list[Ahead]:
        """Give the two passes, as long as those over the chosen sides."""
        tokens = int(run.language_model.counts.tokens[run.rows].sum())
        return [Ahead("rejected answers, both models", len(run.rows), tokens, 2)]

    def pace(self, run: Run) -> float:
        """Estimate by the models' sizes, where nothing was measured with them yet."""
        given = run.objects.reference_model
        token = run.token_seconds(run.recipe.reference_model, given[0] if isinstance(given, tuple) else None)
        return self.noted_pace(run) or (run.guessed_token_seconds + token) * tokens_a_row(run)

    def missing(self, run: Run, wanted: frozenset[str]) -> int | None:
        """Count the rejected sides that one of the two has not read, and no more than there are rows."""
        reader = reader_of(run)
        samples, counts = _rejected(run)
        sides = np.arange(int(counts.sum()), dtype=np.int64)
        found = [
            missing_of(run, reader, samples, sides),
            missing_of_reference(run, reader, samples, sides),
        ]
        return (
            None if None in found else min(len(run.rows), max(count for count in found if count is not None))
        )

    def measure(self, run: Run, wanted: frozenset[str]) -> Mapping[str, Any]:
        """Run both models over the rejected sides."""
        from datapruner.signals.language_model import measure_language_model

        reader = run.language_model.reader
        reference = run.reference = run.reference or reference_reader(run, reader)
        samples, counts = _rejected(run)
        of = np.repeat(run.rows, counts)
        tokens = self._tokens(run, samples, of)

        def token_nll(one: Reader, called: str) -> Ragged:
            try:
                found = measure_language_model(
                    samples,
                    np.arange(len(of), dtype=np.int64),
                    one.collecting,
                    run.store,
                    num_tokens=tokens,
                    progress=run.progress,
                    called=f"rejected answers, {called}",
                )
            except RowsFailedError as error:
                raise _of_rows(f"the {called}", error.why, of) from error
            losses: Ragged = found["token_nll"]
            return losses

        own, other = token_nll(reader, LANGUAGE_MODEL), token_nll(reference, REFERENCE.called)
        run.reference = None
        return {
            IMPLICIT[0]: _rewards(run.signals["token_nll"], run.signals["reference_token_nll"]),
            IMPLICIT[1]: np.maximum.reduceat(_rewards(own, other), np.cumsum(counts) - counts),
        }

    def _tokens(self, run: Run, samples: Samples, of: Ints) -> Ints:
        """Count each side's tokens, and refuse those of which none would be supervised; ``of`` are the sides' rows."""
        reader = run.language_model.reader
        found = stored_counts(
            samples,
            tokenizer_of(reader),
            run.store,
            last_turn_only=reader.last_turn_only,
            max_length=reader.max_length,
            drop_failing=True,
        )
        if found.failed:
            raise _of_rows(TEMPLATE, found.failed, of)
        if bare := {int(side): NOTHING for side in np.flatnonzero(found.supervised == 0)}:
            raise _of_rows(f"the {LANGUAGE_MODEL}", bare, of)
        if cut := int(found.truncated.sum()):
            logger.warning(
                "%s of %s rejected answers are cut at %s tokens",
                f"{cut:,}",
                f"{len(of):,}",
                reader.max_length,
            )
        return found.tokens


def _of_rows(who: str, why: Mapping[int, str], of: Ints) -> RowsFailedError:
    """Tell of the rows where a model or template fails on their rejected answers."""
    return RowsFailedError(who, {int(of[side]): f"its rejected answer: {said}" for side, said in why.items()})


def _rejected(run: Run) -> tuple[Samples, Ints]:
    """Give the rows with their rejected answers as a source of its own, and how many each row has."""
    answered, counts = rejected_sides(run.samples.iter_rows(run.rows))
    return load_samples(conversation(lambda: iter(answered))), counts


def _rewards(own: Ragged, reference: Ragged) -> Floats:
    """Sum each row's log p under the one model minus that under the other; no row is empty."""
    differences = reference.values.astype(np.float64) - own.values
    return np.asarray(np.add.reduceat(differences, own.offsets[:-1]), dtype=np.float64)
