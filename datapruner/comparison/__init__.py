"""Several scorers over the same rows: what each keeps, where they agree, and what moves their choice."""

from datapruner.comparison.compared import AtBudget
from datapruner.comparison.result import Comparison
from datapruner.comparison.run import budgets_of, compare

__all__ = ["AtBudget", "Comparison", "budgets_of", "compare"]
