"""The contract suite: what every part must pass, a plug-in's too.

>>> from datapruner.testing import check_scorer, parametrize_with_checks
>>> check_scorer(MyScorer())  # doctest: +SKIP

Under pytest a test for each part and check, so that every failure shows:

>>> @parametrize_with_checks([MyScorer(), MySelector()])  # doctest: +SKIP
... def test_contract(part, check):
...     check(part)

A failed check raises :class:`AssertionError`, or the part's own error, with a sentence.
"""

from datapruner.testing.cleaning_checks import CLEANING_CHECKS, check_cleaning_step
from datapruner.testing.engine_checks import ENGINE_CHECKS, check_engine
from datapruner.testing.examples import example_rows, example_signals
from datapruner.testing.measurement_checks import MEASUREMENT_CHECKS, check_measurement
from datapruner.testing.scorer_checks import SCORER_CHECKS, check_scorer
from datapruner.testing.selector_checks import SELECTOR_CHECKS, check_selector
from datapruner.testing.suite import parametrize_with_checks

__all__ = [
    "CLEANING_CHECKS",
    "ENGINE_CHECKS",
    "MEASUREMENT_CHECKS",
    "SCORER_CHECKS",
    "SELECTOR_CHECKS",
    "check_cleaning_step",
    "check_engine",
    "check_measurement",
    "check_scorer",
    "check_selector",
    "example_rows",
    "example_signals",
    "parametrize_with_checks",
]
