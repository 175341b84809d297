"""Rows whose answer has a blank that nobody filled in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

from datapruner.cleaning.steps._read import Read, without_code
from datapruner.cleaning.steps._rule import Hit, Rule
from datapruner.reasons import Reason

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
MAYBE = re.compile(r"[\[<{(]|lorem|TODO:", re.IGNORECASE)
"""What every blank has: most answers have none, and are cleared at once."""
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

    def hit(self, read: Read, usual: Any) -> Hit | None:
        """Hit the row if an answer has a blank that the prompt did not ask for."""
        del usual
        for answer in read.answers:
            if MAYBE.search(answer.text) is None or BLANK.search(answer.text) is None or answer.code:
                continue
            found = BLANK.findall(without_code(answer.text))
            if found and (self.asked or not ASKED.search(answer.asked)):
                return PLACEHOLDER, float(len(found))
        return None
