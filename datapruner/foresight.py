"""The verbs that choose nothing: what would be measured, and how long it takes; a part of it, into the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack

from datapruner.arguments import takes
from datapruner.measuring.arguments import requested
from datapruner.measuring.measure import look_ahead
from datapruner.measuring.sharding import Part, PartDone
from datapruner.measuring.sharding import measure_part as measured
from datapruner.option_types import DEFAULTS, RESULTS_OWN, SCORERS_OWN, SELECTING, Choosing, notes
from datapruner.signals.outlook import Outlook

if TYPE_CHECKING:
    from datapruner.scorers.base import Scorer

_ELSEWHERE = {
    **dict.fromkeys(SELECTING, "it takes what `score` takes: `scorers`, and no budget"),
    **SCORERS_OWN,
    **RESULTS_OWN,
}


@takes(Choosing, defaults={**DEFAULTS, "count_tokens": True}, told=notes(Choosing), elsewhere=_ELSEWHERE)
def plan(
    source: Any,
    *,
    scorers: str | Scorer | Sequence[str | Scorer] | None = None,
    **options: Unpack[Choosing],
) -> Outlook:
    """Tell what a run would measure, what of it is stored, and how long it takes; no model runs, nothing is written.

    Rows are read, and cleaned by the steps that read texts alone. Times are those noted when the same was measured
    before, with the same model on this machine, and rough guesses where it never was.

    Parameters
    ----------
    source : str, Path, Dataset, DatasetDict, list of dict or DataFrame
        See :func:`datapruner.score`.
    scorers : str, Scorer, or a sequence of them
    **options
        Everything :func:`datapruner.score` takes, as listed below.

    Returns
    -------
    Outlook
        ``print`` shows a line for each measurement; ``steps`` and ``seconds`` have the numbers.

    Raises
    ------
    DataPrunerError
        Anything the user can put right: what a run would refuse before its first model is refused here.
    """
    options.setdefault("count_tokens", True)
    return look_ahead(requested(source, scorers=scorers, **options))


@takes(Choosing, defaults={**DEFAULTS, "count_tokens": True}, told=notes(Choosing), elsewhere=_ELSEWHERE)
def measure_part(
    source: Any,
    part: str,
    *,
    scorers: str | Scorer | Sequence[str | Scorer] | None = None,
    **options: Unpack[Choosing],
) -> PartDone:
    """Measure a part of the rows into the store, and nothing else: a task of an array of them, on any machine.

    The same call of :func:`datapruner.score` or :func:`datapruner.prune`, run last with the same ``cache``, finds all
    rows there.

    Parameters
    ----------
    source : str, Path, Dataset, DatasetDict, list of dict or DataFrame
        See :func:`datapruner.score`.
    part : str
        Such as ``"2/8"``.
    scorers : str, Scorer, or a sequence of them
    **options
        Everything :func:`datapruner.score` takes, as listed below.

    Returns
    -------
    PartDone
        How many rows were computed; what depends on all rows together is left to the last call.

    Raises
    ------
    DataPrunerError
        Anything the user can put right.
    """
    options.setdefault("count_tokens", True)
    return measured(requested(source, scorers=scorers, **options), Part.read(part))
