"""What may be kept: a fraction, a number of rows or of supervised tokens; overall and per group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from datapruner.errors import DataPrunerError
from datapruner.parameters import as_written
from datapruner.text import safe_repr, safe_text

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
    group_share : mapping
        Group -> which part of all that is kept it is, above 0 and at most 1; the other groups share the rest in
        proportion to their rows (or tokens). A group that has less gives all that it has, and the others more.
    """

    keep: Amount | None = None
    keep_tokens: int | None = None
    per_group: str | None = None
    quotas: Mapping[str, Amount] = field(default_factory=dict)
    group_share: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what is no budget, before any work is done."""
        for name in ("keep", "keep_tokens"):
            object.__setattr__(self, name, _plain(getattr(self, name)))
        if isinstance(self.per_group, str):
            object.__setattr__(self, "per_group", str(self.per_group))
        for name in ("quotas", "group_share"):
            given = getattr(self, name)
            if not isinstance(given, Mapping):
                raise DataPrunerError(f"{name} must map groups to amounts, not {_shown(given)}")
            object.__setattr__(self, name, {str(key): _plain(value) for key, value in given.items()})
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
        self._check_shares()

    def _check_shares(self) -> None:
        """Refuse shares that are none, or more than all."""
        if self.group_share and self.per_group is None:
            raise DataPrunerError(
                "--group-share needs groups: name the column whose values they are with --per-group, or give several "
                "sources"
            )
        for group, share in self.group_share.items():
            shown = safe_text(group, 60)
            number = isinstance(share, int | float) and not isinstance(share, bool)
            if not number or not 0 < share <= 1:
                raise DataPrunerError(
                    f"--group-share {shown}={_shown(share)}: a share is a part of what is kept, above 0 and at most 1"
                )
            if group in self.quotas:
                raise DataPrunerError(f"'{shown}' has a quota and a share; give it one of them")
        if (whole := sum(map(as_written, self.group_share.values()))) > 1:
            raise DataPrunerError(f"the shares of --group-share add up to {float(whole):.4g}, more than 1")

    @property
    def in_tokens(self) -> bool:
        """Whether it counts supervised tokens rather than rows."""
        return self.keep_tokens is not None

    @property
    def unit(self) -> str:
        """What it counts: ``rows`` or ``tokens``."""
        return "tokens" if self.in_tokens else "rows"

    def fields(self) -> dict[str, Any]:
        """Give the fields of a recipe that say it."""
        return {
            "keep": self.keep,
            "keep_tokens": self.keep_tokens,
            "per_group": self.per_group,
            "quotas": dict(self.quotas),
            "group_share": dict(self.group_share),
        }

    def other(
        self,
        keep: Amount | None = None,
        keep_tokens: int | None = None,
        per_group: str | Literal[False] | None = None,
        quotas: Mapping[str, Amount] | None = None,
        group_share: Mapping[str, float] | None = None,
    ) -> Budget:
        """Give another budget, which has from this one what is not said.

        Parameters
        ----------
        keep, keep_tokens, quotas, group_share
            None for what it was.
        per_group : str or False, optional
            Another column, whose groups have no quotas and shares but those given; False for no groups.
        """
        if keep is None and keep_tokens is None:
            keep, keep_tokens = self.keep, self.keep_tokens
        same = per_group is None or per_group == self.per_group
        held, shares = (self.quotas, self.group_share) if same else ({}, {})
        return Budget(
            keep,
            keep_tokens,
            self.per_group if per_group is None else per_group or None,
            held if quotas is None else quotas,
            shares if group_share is None else group_share,
        )

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
        for group, share in self.group_share.items():
            words += f", {safe_text(str(group), 40)} {share:.4g} of it"
        return words


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
