"""Rows whose answer has a blank that nobody filled in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from datapruner.cleaning.steps._rule import Hit, Rule, exchanges, is_code, without_code
from datapruner.reasons import Reason

if TYPE_CHECKING:
    from datapruner.samples.sample import Sample

PLACEHOLDER = Reason(
    "placeholder",
    "the answer holds {measure:.0f} placeholders that nobody filled in",
    "answer with a placeholder",
    "answers with a placeholder",
    way_out="leave this rule out where templates are what a model shall write",
)
BLANK = re.compile(
    r"""
    [\[<{(]{1,2}\s?(?:your|insert|enter\ your|add|fill\ in|company|recipient|sender|customer|client|first|last|full)
        (?:['’]s)?[\ _-][\w\ '’/_-]{1,40}[\]>})]{1,2}
    | \[\s?(?:name|date|address|city|company|phone(?:\ number)?|e-?mail|title|link|url|number)\s?\](?!\()
    | \blorem\ ipsum\b | \bTODO: | \[(?:placeholder|todo|tbd|blank)\] | \{\{\s?\w{1,40}\s?\}\}
    """,
    re.VERBOSE | re.IGNORECASE,
)
ASKED = re.compile(
    r"template|placeholder|lorem|fill[- ]in|blank|boilerplate|\[[^\]]{1,40}\]|\{\{", re.IGNORECASE
)


@dataclass(frozen=True)
class Placeholder(Rule):
    """Answers with a blank left in: ``[Your Name]``, ``{{customer}}``, ``lorem ipsum``.

    *Published*: ``lorem ipsum`` (C4, arXiv 1910.10683). *Ours*: the others. Code is not looked at (names in brackets
    are its own), nor rows whose prompt speaks of templates or has blanks itself.

    Parameters
    ----------
    asked : bool
        Hit rows whose prompt asks for it, too.
    """

    asked: bool = False
    name: ClassVar[str] = "placeholder"
    reasons: ClassVar[tuple[Reason, ...]] = (PLACEHOLDER,)

    def hit(self, sample: Sample, usual: Any) -> Hit | None:
        """Hit the row if an answer has a blank that the prompt did not ask for."""
        del usual
        for asked, answer in exchanges(sample):
            found = (
                BLANK.findall(without_code(answer)) if BLANK.search(answer) and not is_code(answer) else []
            )
            if found and (self.asked or not ASKED.search(asked)):
                return PLACEHOLDER, float(len(found))
        return None
