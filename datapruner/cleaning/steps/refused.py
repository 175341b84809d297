"""Rows whose answer is that there is none."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from annotated_types import Ge

from datapruner.cleaning.steps._read import VERSE, Read
from datapruner.cleaning.steps._rule import Hit, Rule
from datapruner.reasons import Reason
from datapruner.text import normalise
from datapruner.words import bare_words

REFUSED = Reason(
    "refused",
    "the answer is a refusal and nothing else",
    "refusal",
    label="dropped as refusals",
    way_out="leave this rule out where refusing is what a model shall learn",
)
REFUSING = re.compile(
    r"""
    (?:\bas|\bi(?:\ am|'m))\ (?:only\ |just\ )?an?\ (?:ai\b|artificial|(?:large\ )?language\ model)
        .{0,200}(?:\bnot\b|\bcannot\b|n't\b|\bunable\b|\bno\ )
    | \bi(?:\ am|'m)\ (?:not\ able|unable)\ to\ (?:help|assist|answer|provide|fulfil|comply|complete|do|create|generate)
    | \bi\ (?:can(?:\ ?not|'t)|could\ not|won't|will\ not)\ (?:\w+\ )?(?:help|assist|answer|provide|fulfil|comply
        |complete|do\ (?:that|this)|create|generate|engage|respond|satisfy|process)
    | \bi\ (?:do\ not|don't)\ have\ (?:\w+\ )?(?:access|(?:enough|sufficient|that|this|the)\ (?:information|context
        |data)|personal\ (?:opinions|feelings|experiences|preferences))
    | \b(?:ich\ kann|als\ ki\b|als\ sprachmodell).*\b(?:nicht|keine[nr]?|sprachmodell|ki)\b
    | \b(?:je\ ne\ peux\ pas|en\ tant\ qu(?:e|'une?)\ (?:ia|modèle|intelligence))\b
    | \b(?:no\ puedo|como\ (?:una?\ )?(?:ia|modelo\ de\ lenguaje|inteligencia))\b
    | \b(?:não\ posso|como\ (?:uma?\ )?(?:ia|modelo\ de\ linguagem|inteligência))\b
    | \b(?:non\ posso|come\ (?:ia|modello\ linguistico|intelligenza))\b
    | (?:作为(?:一个)?(?:ai|人工智能|语言模型)|我(?:无法|不能)(?:提供|回答|帮助|协助))
    | \b(?:я\ не\ могу|как\ (?:ии|языковая\ модель|искусственный))\b
    """,
    re.VERBOSE,
)
"""A sentence, in small letters and with straight apostrophes, that refuses."""
LACKING = re.compile(
    r"\b(?:no|not enough|insufficient) (?:information|context|data|input) "
    r"(?:was |is |has been )?(?:provided|given|available)"
)
"""Likewise, where more is asked for; by itself it may be the answer."""
OFFERING = re.compile(
    r"\b(?:but|however|instead)\b.{0,30}\b(?:i|we) (?:can|could|will|would|may|suggest|do)\b(?!'t|not)"
    r"|\bbut (?:it|here|the|that|this|on|in)\b"
    r"|\bhere (?:is|are)\b|:$"
)
"""A sentence that does not leave it at that."""
COURTESY = re.compile(
    r"""
    ^\W*$ | \b(?:sorry|apologi[sz]e|unfortunately|regret|afraid)\b
    | \bplease\ (?:provide|consult|seek|contact|let\ me|try|ask|check|give|share|note|specify)
    | \b(?:is\ there|if\ you\ have|let\ me\ know|feel\ free|happy\ to|glad\ to)\b
    | \b(?:leider|entschuldig|tut\ mir\ leid|désolé|lo\ siento|desculpe|sinto\ muito|mi\ dispiace|извините)
    | 抱歉|对不起
    """,
    re.VERBOSE,
)
"""A sentence that may stand beside one."""
PROVIDED = re.compile(
    r"\bfunctions?\b.{0,200}(?:\{|json)|\btools?\b.{0,60}(?:available|access|\{)|<tools?>|\brefus(?:e|al)|\bdecline"
    r"|\bif (?:you|it|the|there|this|no)\b.{0,60}(?:can ?not|can't|don't|does ?n[o']t|unable|\bnot?\b)"
    r".{0,80}\b(?:say|answer|reply|respond|write|output|return|state|tell)\b"
    r"|\bonly (?:answer|use|respond|reply|speak|discuss)|unanswerable|insufficient|not enough information"
    r"|工具|拒绝|如果.{0,20}(?:不|无)",
    re.IGNORECASE | re.DOTALL,
)
"""A prompt, or a system prompt, that provides for a refusal."""
EDITED = re.compile(
    r"sentence|phras|rewrit|rearrang|translat|correct|edit\b|dialog|句|翻译|改写", re.IGNORECASE
)
"""A prompt whose own words the answer may be made of."""
_SENTENCES = re.compile(r"(?<=[.!?。！？])\s*|\n+")


@dataclass(frozen=True)
class Refused(Rule):
    """Answers that refuse, or plead to be a language model, and say nothing else.

    *Published*: phrases of Vicuna's and WizardLM's cleaning ("as an AI language model"). *Ours*: the whole answer must
    be made of such sentences and of courtesies, so that a story in which somebody cannot help, and an answer that
    begins with a caveat, stay; so does one that a system prompt, tools or the prompt provide for ("if you cannot ...").
    English, and the commonest phrases of German, French, Spanish, Portuguese, Italian,
    Chinese and Russian. A row is hit if all its answers refuse.

    Parameters
    ----------
    longest : int
        Characters of an answer from which it is more than a refusal.
    """

    longest: Annotated[int, Ge(1)] = 400
    name: ClassVar[str] = "refused"
    reasons: ClassVar[tuple[Reason, ...]] = (REFUSED,)

    def hit(self, read: Read, usual: Any) -> Hit | None:
        """Hit the row if no answer says anything else."""
        del usual
        if not read.answers or not all(refuses(answer.text, self.longest) for answer in read.answers):
            return None
        asked = PROVIDED.search(f"{read.system}\n{read.prompt}") is not None
        verse = VERSE.search(read.prompt) is not None and any("\n" in one.text for one in read.answers)
        if read.sample.tools or asked or verse or (EDITED.search(read.prompt) and _taken(read)):
            return None
        return REFUSED, 1.0


def _taken(read: Read) -> bool:
    """Whether half of what the answers say is the prompt's."""
    known = set(bare_words(read.prompt))
    said = [word for answer in read.answers for word in bare_words(answer.text)]
    return sum(word in known for word in said) >= len(said) / 2


def refuses(text: str, longest: int = 400) -> bool:
    """Whether a text is a refusal and nothing else."""
    if len(text) > longest:
        return False
    said = normalise(text).casefold().replace("’", "'")
    sentences = [sentence for sentence in _SENTENCES.split(said) if sentence]
    patterns = (REFUSING, LACKING) if "please" in said else (REFUSING,)
    found = False
    for one in sentences:
        refusing = any(held.search(one) for held in patterns) and not OFFERING.search(one)
        if not refusing and COURTESY.search(one) is None:
            return False
        found = found or refusing
    return found
