"""All rules at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from datapruner.cleaning.step import CleaningStep, Remaining
from datapruner.cleaning.steps._rule import Rule, apply
from datapruner.cleaning.steps.cut_off import CutOff
from datapruner.cleaning.steps.echoes_prompt import EchoesPrompt
from datapruner.cleaning.steps.empty_turn import EmptyTurn
from datapruner.cleaning.steps.mojibake import Mojibake
from datapruner.cleaning.steps.personal_data import Held, PersonalData
from datapruner.cleaning.steps.placeholder import Placeholder
from datapruner.cleaning.steps.refused import Refused
from datapruner.cleaning.steps.repeats_itself import RepeatsItself
from datapruner.cleaning.steps.symbols import Symbols
from datapruner.cleaning.steps.turn_order import TurnOrder
from datapruner.cleaning.steps.wrong_language import WrongLanguage
from datapruner.cleaning.telling import FEW, MANY
from datapruner.cleaning.vetoes import Vetoes
from datapruner.errors import DataPrunerError
from datapruner.reasons import Reason
from datapruner.text import did_you_mean, safe_text

EVERY: tuple[type[Rule], ...] = (
    EmptyTurn,
    TurnOrder,
    EchoesPrompt,
    Refused,
    RepeatsItself,
    Mojibake,
    Placeholder,
    WrongLanguage,
    CutOff,
)
"""In the order in which they are asked: a row is dropped for the first that hits it, the surest first."""
ALL: tuple[type[Rule], ...] = (*EVERY, PersonalData)
NAMES = (*(rule.name for rule in ALL), Symbols.name)


@dataclass(frozen=True)
class Rules(CleaningStep):
    """The rules for noise that need no model, as they are by default; personal data and secrets are counted.

    ``symbols`` is left to be named by itself: on real sets, nearly all that it hits are patterns, tables and boards
    that were asked for. A rule with other parameters is named beside it, and left out here: ``cleaning=[{"rules":
    {"without": ["cut_off"]}}, {"cut_off": {"words": 20}}]``.

    Parameters
    ----------
    without : list of str
        Names of rules that are left out.
    """

    without: list[str] = field(default_factory=list)
    name: ClassVar[str] = "rules"
    reasons: ClassVar[tuple[Reason, ...]] = tuple(reason for rule in ALL for reason in rule.reasons)

    def __post_init__(self) -> None:
        """Check the names, too."""
        super().__post_init__()
        for name in self.without:
            if name not in NAMES:
                raise DataPrunerError(
                    f"there is no rule '{safe_text(name, 60)}' to leave out.{did_you_mean(name, list(NAMES))} "
                    f"Rules: {', '.join(NAMES)}"
                )

    def clean(self, left: Remaining) -> list[Vetoes]:
        """Drop the rows that a rule hits."""
        rules = [rule() for rule in EVERY if rule.name not in self.without]
        if PersonalData.name in self.without:
            return apply(rules, left)
        held = Held()
        found = apply(rules, left, held.note)
        held.tell(left, dropped=False, gone=sum(map(len, found)))
        return found

    def tell(self, left: Remaining, found: Vetoes) -> None:
        """Say how many, as the rule does, where they are many; the summary counts all."""
        if len(found) <= max(FEW, MANY * len(left.rows)):
            return
        next(rule for rule in EVERY if found.kind in {reason.code for reason in rule.reasons})().tell(
            left, found
        )
