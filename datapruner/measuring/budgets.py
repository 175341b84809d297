"""Budgets that cannot be met are refused as soon as the rows tell, and not once a model has run."""

from __future__ import annotations

import numpy as np

from datapruner.arrays import Flags, Ints
from datapruner.measuring.request import Request
from datapruner.samples.labels import encode_labels
from datapruner.samples.samples import Samples
from datapruner.selection.budget_rows import check_budget, check_quotas, check_rows


class BudgetGate:
    """Holds the budgets of a request against its rows; asked again whenever rows were dropped or tokens counted.

    Parameters
    ----------
    request : Request
    samples : Samples
    forced : ndarray, bool, shape (n,)
        Always-kept rows.
    """

    def __init__(self, request: Request, samples: Samples, forced: Flags) -> None:
        self.budgets, self.forced = request.budgets, forced
        columns = {budget.per_group for budget in self.budgets} - {None}
        self.groups = {column: encode_labels(samples.column(str(column))) for column in columns}
        for budget in self.budgets:
            check_rows(budget.keep, len(samples))
            if budget.per_group is not None:
                check_quotas(budget, self.groups[budget.per_group][0])

    def check(self, rows: Ints, tokens: Ints | None = None, *, more_may_go: bool = True) -> None:
        """Refuse what cannot be met by what is left.

        Parameters
        ----------
        rows : ndarray, int64
            The rows that are left so far.
        tokens : ndarray, int64, shape (n,), optional
            Supervised tokens of every row of the source; budgets in tokens wait for them.
        more_may_go : bool
            Later steps may drop more.
        """
        left = np.zeros(len(self.forced), dtype=np.bool_)
        left[rows] = True
        for budget in self.budgets:
            costs, eligible = np.ones(len(left), dtype=np.int64), left
            if budget.in_tokens:
                if tokens is None:
                    continue
                costs, eligible = tokens, left & ((tokens > 0) | self.forced)
            groups = None if budget.per_group is None else self.groups[budget.per_group]
            check_budget(budget, costs, eligible, self.forced & eligible, groups, more_may_go=more_may_go)
