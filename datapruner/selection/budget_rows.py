"""How a budget becomes rows: what each group may spend, and what of a budget cannot be met."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datapruner.arrays import Flags, Ints
from datapruner.budget import Amount, Budget
from datapruner.errors import DataPrunerError
from datapruner.parameters import as_written
from datapruner.samples.labels import encode_labels
from datapruner.selection.allocation import allocate, power_weights
from datapruner.text import did_you_mean, safe_text

logger = logging.getLogger(__name__)

Groups = tuple[list[str], Ints]
"""The names of a column's groups, and every row's number among them."""


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


def portions(
    budget: Budget,
    costs: Ints,
    eligible: Flags,
    forced: Flags,
    labels: Sequence[Any] | None,
    power: float | None = None,
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
    power : float, optional
        Groups without a quota share by what is left of each to this power; default: in proportion to all that each had.

    Returns
    -------
    list of Portion
        Of the rows that compete, in the order of the groups' first rows.

    Raises
    ------
    DataPrunerError
        The budget cannot be met; the sentence names the groups.
    """
    total, asked = _total(budget, eligible, costs)
    limits = None if labels is None else _limits(budget, costs, eligible, forced, encode_labels(labels))
    _check(budget, total, costs, forced, limits)
    if asked > total and budget.keep != 1:
        what = "supervised tokens" if budget.in_tokens else "rows"
        logger.warning("the budget asks for %s %s, but cleaning left %s: all are kept", asked, what, total)
    competing = eligible & ~forced
    if limits is None:
        rows = np.flatnonzero(competing)
        return [Portion(rows, costs[rows], total - int(costs[forced].sum()), "", budget.unit)]
    names, codes, k = limits.names, limits.codes, len(limits.names)
    shown = [safe_text(name, 60) for name in names]
    left = np.bincount(codes[eligible], costs[eligible], k).astype(np.int64)
    weights = limits.whole if power is None else power_weights(left, power)
    if budget.group_share:
        weights = shared_weights(budget, total, names, weights, limits.floors)
    shares = allocate(weights, limits.caps, total, limits.floors, "proportional", names=shown)
    _tell_short(budget, total, shares, names)
    rows = np.flatnonzero(competing)
    rows = rows[np.argsort(codes[rows], kind="stable")]
    edges = np.searchsorted(codes[rows], np.arange(k + 1))
    taken = np.bincount(codes[forced], costs[forced], k).astype(np.int64)
    out = []
    for j, name in enumerate(names):
        own = rows[edges[j] : edges[j + 1]]
        spend = int(shares[j] - taken[j])
        out.append(Portion(own, costs[own], spend, name, budget.unit, name in budget.quotas))
    return out


def check_budget(
    budget: Budget,
    costs: Ints,
    eligible: Flags,
    forced: Flags,
    groups: Groups | None,
    *,
    more_may_go: bool,
) -> None:
    """Refuse a budget that cannot be met by these rows, before anything else is done with them.

    Parameters
    ----------
    budget, costs, eligible, forced
        As :func:`portions` takes them.
    groups : tuple, optional
        What :func:`datapruner.samples.labels.encode_labels` gives for the column of ``budget.per_group``.
    more_may_go : bool
        Later steps may drop more rows: nothing is then refused that could be met once they have.

    Raises
    ------
    DataPrunerError
        As :func:`portions` and what spends them would, in the same words.
    """
    total, _ = _total(budget, eligible, costs)
    limits = None if groups is None else _limits(budget, costs, eligible, forced, groups)
    _check(budget, total, costs, forced, limits, more_may_go=more_may_go)
    if eligible.any() and not forced.any() and int(costs[eligible].min()) > total:
        raise nothing_fits(budget, costs, eligible)


def nothing_fits(budget: Budget, costs: Ints, eligible: Flags) -> DataPrunerError:
    """Say that a budget buys no row at all."""
    shortest = f"; the shortest has {int(costs[eligible].min())}" if eligible.any() else ""
    return DataPrunerError(f"no row fits into {budget.describe()}{shortest}")


def check_rows(keep: Amount | None, n: int) -> None:
    """Refuse more rows than there are; before anything is measured, too.

    Raises
    ------
    DataPrunerError
        ``keep`` is a number above ``n``.
    """
    if isinstance(keep, int) and keep > n:
        raise DataPrunerError(f"{keep} rows are to be kept, but the dataset has {n}")


class _Limits(NamedTuple):
    """What each group costs altogether, and the least and most that may be spent on it."""

    names: list[str]
    codes: Ints
    whole: Ints
    floors: Ints
    caps: Ints


def _limits(
    budget: Budget,
    costs: Ints,
    eligible: Flags,
    forced: Flags,
    groups: Groups,
) -> _Limits:
    names, codes = groups
    check_quotas(budget, names)
    k, unit = len(names), budget.unit
    whole = np.bincount(codes, costs, k).astype(np.int64)
    room = np.bincount(codes[eligible], costs[eligible], k).astype(np.int64)
    floors = np.bincount(codes[forced], costs[forced], k).astype(np.int64)
    caps = room.copy()
    for group, amount in budget.quotas.items():
        j = names.index(group)
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
    return _Limits(names, codes, whole, floors, caps)


def _check(
    budget: Budget,
    total: int,
    costs: Ints,
    forced: Flags,
    limits: _Limits | None,
    *,
    more_may_go: bool = False,
) -> None:
    """Refuse always-kept rows that cost too much, and quotas that do not add up to the budget."""
    if (spent := int(costs[forced].sum())) > total:
        raise DataPrunerError(
            f"the always-kept rows cost {spent} {budget.unit}, more than the budget of {total}"
        )
    if limits is None:
        return
    least, most = int(limits.floors.sum()), int(limits.caps.sum())
    # A fraction asks for less once there is less, and so may fit after all.
    few = most < total and (not more_may_go or isinstance(budget.keep, int))
    whole = all(isinstance(amount, int) for amount in budget.quotas.values())
    if few or (least > total and (not more_may_go or whole)):
        raise DataPrunerError(
            f"with the quotas of {', '.join(safe_text(group, 40) for group in budget.quotas)} "
            f"{'at most' if few else 'at least'} {most if few else least} {budget.unit} are kept, which "
            f"does not fit the budget of {total}"
        )


def _total(budget: Budget, eligible: Flags, costs: Ints) -> tuple[int, int]:
    """Give what is spent, and what was asked for: fractions and tokens take all that is left where that is less."""
    n, room = len(costs), int(costs[eligible].sum())
    if budget.keep_tokens is not None:
        if budget.keep_tokens > int(costs.sum()):
            raise DataPrunerError(
                f"keep_tokens is {budget.keep_tokens}, but the dataset has {int(costs.sum())} supervised tokens"
            )
        return min(budget.keep_tokens, room), budget.keep_tokens
    if isinstance(budget.keep, int):
        check_rows(budget.keep, n)
        if budget.keep > room:
            raise DataPrunerError(
                f"{budget.keep} rows are to be kept, but only {room} of {n} are left after cleaning; keep fewer, "
                "or clean less"
            )
        return budget.keep, budget.keep
    assert budget.keep is not None
    asked = max(1, _part(budget.keep, n))
    return min(asked, room), asked


def _part(share: float, of: int) -> int:
    """Give the nearest whole number to a share of ``of``; a half is rounded up, and 0.145 of 100 is one."""
    return math.floor(as_written(share) * of + Fraction(1, 2))


def shared_weights(
    budget: Budget, total: int, names: Sequence[str], weights: ArrayLike, counts: ArrayLike
) -> NDArray[Any]:
    """Give groups weights by which those with a share get it of the total, and the others what is left.

    Parameters
    ----------
    budget : Budget
        With shares.
    total : int
        What is spent.
    names : sequence of str
        The groups.
    weights : array_like, shape (k,)
        Of the groups without a share among each other.
    counts : array_like, shape (k,)
        What groups with a quota get.

    Returns
    -------
    ndarray, shape (k,)
        Whole numbers, exact; floats where these are too large.
    """
    said = {name: as_written(share) * total for name, share in budget.group_share.items()}
    given = dict(zip(names, np.asarray(counts).tolist(), strict=True))
    left = total - sum(said.values()) - sum(given[name] for name in budget.quotas)
    if left < 0:
        raise DataPrunerError(
            f"the quotas of {', '.join(safe_text(name, 40) for name in budget.quotas)} and the shares add up "
            f"to more than the budget of {total} {budget.unit}"
        )
    fixed = {**said, **{name: Fraction(given[name]) for name in budget.quotas}}
    own = {name: Fraction(weight) for name, weight in zip(names, np.asarray(weights).tolist(), strict=True)}
    others = sum((own[name] for name in names if name not in fixed), Fraction()) or Fraction(1)
    parts = [fixed.get(name, left * own[name] / others) for name in names]
    unit = math.lcm(*(part.denominator for part in parts))
    whole = [int(part * unit) for part in parts]
    return np.array(whole if max(whole) < 2**62 else [float(part) for part in parts])


def _tell_short(budget: Budget, total: int, shares: Ints, names: Sequence[str]) -> None:
    """Say of which group less is kept than its share, because there is no more."""
    for name, count in zip(names, shares.tolist(), strict=True):
        share = budget.group_share.get(name)
        if share is not None and count < math.floor(as_written(share) * total):
            logger.warning(
                "'%s' is to be %.4g of what is kept, %s %s, and has %s left: the others get the rest",
                safe_text(name, 60),
                share,
                _part(share, total),
                budget.unit,
                count,
            )


def check_quotas(budget: Budget, names: Sequence[str]) -> None:
    """Refuse quotas and shares of groups that a column does not hold, and shares of all groups that leave a rest."""
    if set(names) <= set(budget.group_share) and sum(map(as_written, budget.group_share.values())) != 1:
        raise DataPrunerError(
            f"every group of '{safe_text(str(budget.per_group), 60)}' has a share, and they add up to "
            f"{float(sum(map(as_written, budget.group_share.values()))):.4g}, not to 1"
        )
    for group in (*budget.quotas, *budget.group_share):
        if group not in names:
            shown = ", ".join(safe_text(name, 40) for name in names[:20])
            what = "quota" if group in budget.quotas else "share"
            raise DataPrunerError(
                f"a {what} is given for '{safe_text(group, 60)}', which column '{budget.per_group}' does not "
                f"hold.{did_you_mean(group, names)} It holds {shown}"
            )
