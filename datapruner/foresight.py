"""The verb that runs nothing: what would be measured, what of it is stored, how long it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack

from datapruner.arguments import takes
from datapruner.measuring.arguments import requested
from datapruner.measuring.measure import look_ahead
from datapruner.option_types import DEFAULTS, RESULTS_OWN, SCORERS_OWN, SELECTING, Choosing, notes
from datapruner.signals.outlook import Outlook

if TYPE_CHECKING:
    from datapruner.scorers.base import Scorer


@takes(
    Choosing,
    defaults={**DEFAULTS, "count_tokens": True},
    told=notes(Choosing),
    elsewhere={
        **dict.fromkeys(SELECTING, "it takes what `score` takes: `scorers`, and no budget"),
        **SCORERS_OWN,
        **RESULTS_OWN,
    },
)
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
