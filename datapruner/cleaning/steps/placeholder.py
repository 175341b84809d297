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
    [\[<{]{1,2}\s?(?:insert|add|fill\ in|enter)[\ _-][\w\ '’/_-]{1,40}[\]>}]{1,2}
    | \(\s?insert\ [\w\ '’/_-]{1,40}\)
    | \blorem\ ipsum\b | \bTODO: | \[(?:placeholder|todo|tbd|blank)\] | \{\{\s?\w{1,40}\s?\}\}
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What stands for what the answer was to say."""
NAMED = re.compile(
    r"""
    [\[<{(]{1,2}\s?(?:your|company|recipient|sender|customer|client|first|last|full)
        (?:['’]s)?[\ _-][\w\ '’/_-]{1,40}[\]>})]{1,2}
    | \[\s?(?:name|date|address|city|company|phone(?:\ number)?|e-?mail|title|link|url|number)\s?\](?!\()
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What stands for a name, an address or a date that only the user knows."""
MAYBE = re.compile(r"[\[<{(]|lorem|TODO:", re.IGNORECASE)
"""What every blank has: most answers have none, and are cleared at once."""
ASKED = re.compile(
    r"template|placeholder|lorem|fill[- ]in|blank|boilerplate|\[[^\]]{1,40}\]|\{\{", re.IGNORECASE
)


@dataclass(frozen=True)
class Placeholder(Rule):
    """Answers with a blank left in: ``[insert number]``, ``{{customer}}``, ``lorem ipsum``.

    *Published*: ``lorem ipsum`` (C4, arXiv 1910.10683). *Ours*: the others. Blanks for what only the user knows
    (``[Your Name]`` below a letter) are let be: of the answers that had them, most were good ones, and without them a
    set would have no letters. Code is not looked at (names in brackets are its own), nor rows whose prompt speaks of
    templates or has blanks itself.

    Parameters
    ----------
    names : bool
        Hit answers with ``[Your Name]``, ``[Date]``, ``[Company]``, too.
    asked : bool
        Hit rows whose prompt asks for it, too.
    """

    names: bool = False
    asked: bool = False
    name: ClassVar[str] = "placeholder"
    reasons: ClassVar[tuple[Reason, ...]] = (PLACEHOLDER,)

    def hit(self, read: Read, usual: Any) -> Hit | None:
        """Hit the row if an answer has a blank that the prompt did not ask for."""
        del usual
        patterns = (BLANK, NAMED) if self.names else (BLANK,)
        for answer in read.answers:
            text = answer.text
            if MAYBE.search(text) is None or not any(blank.search(text) for blank in patterns) or answer.code:
                continue
            found = sum(len(blank.findall(without_code(text))) for blank in patterns)
            if found and (self.asked or not ASKED.search(answer.asked)):
                return PLACEHOLDER, float(found)
        return None
