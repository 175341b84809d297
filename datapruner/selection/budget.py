"""Budgets: a fraction, a number of rows or a number of supervised tokens; overall and per group."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from datapruner.arrays import Flags, Ints
from datapruner.errors import DataPrunerError
from datapruner.parameters import as_written
from datapruner.selection.allocation import allocate
from datapruner.text import did_you_mean, safe_repr, safe_text

logger = logging.getLogger(__name__)

Amount = float | int


@dataclass(frozen=True)
class Budget:
    """What may be kept.

    Parameters
    ----------
    keep : float or int, optional
        A float in (0, 1] is a fraction of the source rows, an int a number of rows.
    keep_tokens : int, optional
        Supervised tokens instead of rows.
    per_group : str, optional
        Column whose values share the budget in proportion to their rows (or tokens).
    quotas : mapping
        Group -> its own amount, a fraction of that group or a number of its rows (tokens under
        ``keep_tokens``); the other groups share what is left of the overall budget.
    """

    keep: Amount | None = None
    keep_tokens: int | None = None
    per_group: str | None = None
    quotas: Mapping[str, Amount] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what is no budget, before any work is done."""
        for name in ("keep", "keep_tokens"):
            object.__setattr__(self, name, _plain(getattr(self, name)))
        if not isinstance(self.quotas, Mapping):
            raise DataPrunerError(f"quotas must map groups to amounts, not {_shown(self.quotas)}")
        object.__setattr__(self, "quotas", {str(key): _plain(value) for key, value in self.quotas.items()})
        if self.keep is not None and self.keep_tokens is not None:
            raise DataPrunerError("give either --keep or --keep-tokens, not both")
        if self.keep is None and self.keep_tokens is None:
            raise DataPrunerError(
                "say how much to keep: --keep with a fraction or a number of rows, or --keep-tokens"
            )
        if self.keep is not None:
            _check_amount(self.keep, "keep", "rows")
        if self.keep_tokens is not None and not (_is_int(self.keep_tokens) and self.keep_tokens >= 1):
            raise DataPrunerError(
                f"--keep-tokens must be a positive number of tokens, not {_shown(self.keep_tokens)}"
            )
        if self.quotas and self.per_group is None:
            raise DataPrunerError(
                "--quota needs --per-group: name the column whose values they are given for"
            )
        for group, amount in self.quotas.items():
            if amount != 0:
                _check_amount(amount, f"the quota of '{safe_text(str(group), 60)}'", "rows or tokens")

    @property
    def in_tokens(self) -> bool:
        """Whether it counts supervised tokens rather than rows."""
        return self.keep_tokens is not None

    def describe(self) -> str:
        """Give the budget in a few words."""
        if self.in_tokens:
            words = f"{self.keep_tokens} supervised tokens"
        elif isinstance(self.keep, float):
            words = f"{self.keep:.4g} of the rows"
        else:
            words = f"{self.keep} rows"
        if self.per_group:
            words += f", shared over {safe_text(self.per_group, 60)}"
        for group, amount in self.quotas.items():
            words += f", {safe_text(str(group), 40)} {amount:.4g}" + (
                " of its own" if isinstance(amount, float) else ""
            )
        return words


@dataclass(frozen=True)
class Portion:
    """Rows that compete for one amount.

    Attributes
    ----------
    rows : ndarray, int64, shape (m,)
        Source positions, ascending.
    costs : ndarray, int64, shape (m,)
        What each row costs: 1, or its supervised tokens.
    budget : int
        What may be spent on them.
    name : str
        The group, empty for the whole dataset.
    unit : str
        ``rows`` or ``tokens``.
    fixed : bool
        A quota: what others leave over is not spent here.
    """

    rows: Ints
    costs: Ints
    budget: int
    name: str = ""
    unit: str = "rows"
    fixed: bool = False


def parse_amount(text: str, what: str = "--keep") -> Amount:
    """Read ``0.3`` as a fraction and ``5000`` as a number of rows.

    Raises
    ------
    DataPrunerError
        It is neither.
    """
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise DataPrunerError(
            f"{what} must be a fraction such as 0.3 or a number of rows such as 5000, not '{safe_text(text, 60)}'"
        ) from None


def portions(
    budget: Budget,
    costs: Ints,
    eligible: Flags,
    forced: Flags,
    labels: Sequence[Any] | None,
) -> list[Portion]:
    """Divide a budget over the groups of a column, and take the always-kept rows out of it.

    Parameters
    ----------
    budget : Budget
    costs : ndarray, int64, shape (n,)
    eligible : ndarray, bool, shape (n,)
        Rows that no veto has dropped, the always-kept ones included.
    forced : ndarray, bool, shape (n,)
        Always-kept rows: their cost counts, they do not compete.
    labels : sequence of length n, optional
        Values of ``budget.per_group``.

    Returns
    -------
    list of Portion
        Of the rows that compete, in the order of the groups' first rows.

    Raises
    ------
    DataPrunerError
        The budget cannot be met; the sentence names the groups.
    """
    n = len(costs)
    unit = "tokens" if budget.in_tokens else "rows"
    total = _total(budget, n, eligible, costs)
    spent = int(costs[forced].sum())
    if spent > total:
        raise DataPrunerError(f"the always-kept rows cost {spent} {unit}, more than the budget of {total}")
    competing = eligible & ~forced
    if labels is None:
        rows = np.flatnonzero(competing)
        return [Portion(rows, costs[rows], total - spent, "", unit)]
    names, codes = encode_labels(labels)
    _check_quotas(budget, names)
    k = len(names)
    whole = np.bincount(codes, costs, k).astype(np.int64)
    room = np.bincount(codes[eligible], costs[eligible], k).astype(np.int64)
    floors = np.bincount(codes[forced], costs[forced], k).astype(np.int64)
    caps = room.copy()
    for group, amount in budget.quotas.items():
        j = names.index(str(group))
        asked = amount if isinstance(amount, int) else _part(amount, int(whole[j]))
        if asked > room[j]:
            if isinstance(amount, int):
                raise DataPrunerError(
                    f"the quota of '{safe_text(names[j], 60)}' is {asked} {unit}, but only {room[j]} can be kept"
                )
            asked = int(room[j])
        if asked < floors[j]:
            raise DataPrunerError(
                f"the quota of '{safe_text(names[j], 60)}' is {asked} {unit}, but its always-kept rows cost {floors[j]}"
            )
        floors[j] = caps[j] = asked
    if int(floors.sum()) > total or int(caps.sum()) < total:
        few = int(caps.sum()) < total
        raise DataPrunerError(
            f"with the quotas of {', '.join(safe_text(str(group), 40) for group in budget.quotas)} "
            f"{'at most' if few else 'at least'} {int(caps.sum() if few else floors.sum())} {unit} are kept, which "
            f"does not fit the budget of {total}"
        )
    shown = [safe_text(name, 60) for name in names]
    shares = allocate(whole, caps, total, floors, "proportional", names=shown)
    rows = np.flatnonzero(competing)
    rows = rows[np.argsort(codes[rows], kind="stable")]
    edges = np.searchsorted(codes[rows], np.arange(k + 1))
    taken = np.bincount(codes[forced], costs[forced], k).astype(np.int64)
    fixed = {str(group) for group in budget.quotas}
    out = []
    for j, name in enumerate(names):
        own = rows[edges[j] : edges[j + 1]]
        out.append(Portion(own, costs[own], int(shares[j] - taken[j]), name, unit, name in fixed))
    return out


def check_rows(keep: Amount | None, n: int) -> None:
    """Refuse more rows than there are; before anything is measured, too.

    Raises
    ------
    DataPrunerError
        ``keep`` is a number above ``n``.
    """
    if isinstance(keep, int) and keep > n:
        raise DataPrunerError(f"{keep} rows are to be kept, but the dataset has {n}")


def _total(budget: Budget, n: int, eligible: Flags, costs: Ints) -> int:
    room = int(costs[eligible].sum())
    if budget.keep_tokens is not None:
        if budget.keep_tokens > int(costs.sum()):
            raise DataPrunerError(
                f"keep_tokens is {budget.keep_tokens}, but the dataset has {int(costs.sum())} supervised tokens"
            )
        return _shrunk(budget.keep_tokens, room, "supervised tokens")
    if isinstance(budget.keep, int):
        check_rows(budget.keep, n)
        if budget.keep > room:
            raise DataPrunerError(
                f"{budget.keep} rows are to be kept, but only {room} of {n} are left after cleaning; keep fewer, "
                "or clean less"
            )
        return budget.keep
    assert budget.keep is not None
    # Who asks for all of it means all that cleaning leaves.
    return room if budget.keep == 1 else _shrunk(max(1, _part(budget.keep, n)), room, "rows")


def _shrunk(asked: int, room: int, unit: str) -> int:
    """Keep all that cleaning left where a fraction, or tokens, ask for more, and say so."""
    if asked > room:
        logger.warning("the budget asks for %s %s, but cleaning left %s: all are kept", asked, unit, room)
    return min(asked, room)


def _part(share: float, of: int) -> int:
    """Give the nearest whole number to a share of ``of``; a half is rounded up, and 0.145 of 100 is one."""
    return math.floor(as_written(share) * of + Fraction(1, 2))


def encode_labels(labels: Sequence[Any]) -> tuple[list[str], Ints]:
    """Give a column's values numbers in the order of their first rows; None is ``(none)``."""
    numbers: dict[str, int] = {}
    texts = ("(none)" if label is None else str(label) for label in labels)
    codes = np.array([numbers.setdefault(text, len(numbers)) for text in texts], dtype=np.int64)
    return list(numbers), codes


def _check_quotas(budget: Budget, names: list[str]) -> None:
    for group in budget.quotas:
        if str(group) not in names:
            shown = ", ".join(safe_text(name, 40) for name in names[:20])
            raise DataPrunerError(
                f"a quota is given for '{safe_text(str(group), 60)}', which column '{budget.per_group}' does not "
                f"hold.{did_you_mean(str(group), names)} It holds {shown}"
            )


def _plain(amount: Any) -> Any:
    """Turn numpy's numbers into Python's; everything else stays as it is, to be refused."""
    return amount.item() if isinstance(amount, np.integer | np.floating) else amount


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    return safe_repr(value, 80)


def _check_amount(amount: Amount, what: str, unit: str) -> None:
    if isinstance(amount, bool) or not isinstance(amount, int | float):
        raise DataPrunerError(f"{what} must be a fraction or a number of {unit}, not {_shown(amount)}")
    if isinstance(amount, float):
        if not 0 < amount <= 1:
            raise DataPrunerError(
                f"{what} is {amount}; as a fraction it must lie above 0 and at most 1 (write 5000, without a point, "
                f"for a number of {unit})"
            )
    elif amount < 1:
        raise DataPrunerError(f"{what} is {amount}; at least 1 of the {unit} must be kept")
