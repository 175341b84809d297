"""Rows whose answer stops in the middle."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Gt, Le

from datapruner.cleaning.steps._endings import Expected, LastWords, learned
from datapruner.cleaning.steps._read import FENCE, VERSE, Answer, Read
from datapruner.cleaning.steps._rule import Hit, Rule
from datapruner.reasons import Reason

CUT_OFF = Reason(
    "cut_off",
    "the answer is cut off",
    "answer that is cut off",
    "answers that are cut off",
    way_out="a higher `usual_share` keeps more of them",
)
END = re.compile(
    r"""[.!?…。！？।؟"'”’»)\]}*_`~>|:;%$）】》」』]$|[\U0001F100-\U0001FAFF\u2600-\u27bf\u2b00-\u2bff\ufe0f]$"""
    r"""|(?:https?://|www\.)\S{1,500}$|[\w.+-]{1,64}@[\w.-]{1,255}$"""
)
"""What prose ends with."""
STOPS = tuple(".!?。！？")
OPENING = re.compile(r"[(\[{]|```|~~~")
CLOSED = re.compile(
    r"[.!?]\s+[^.!?]{2,60},\s+(?:(?:Dr|Mr|Mrs|Ms)\. )?[A-Z][\w'-]{0,30}(?: [A-Z][\w.'-]{0,30}){0,4}"
    r"(?:, [\w ]{2,40})?$|,\s+(?:[Yy]ours?|[Ss]incerely|[Ll]ove|[Bb]est|[Rr]egards)\b[^.!?]{0,60}$|#\w+$"
    r"|(?<=[\s\"'”’])[-–—]\s?[A-Z\u3400-\u9fff][^-–—]{1,40}$|[.!?]\s+(?:Best|Kind|Warm|Good|Take|Happy|See|Thank|Many|All)\b[^.!?]{0,40}$"
    r"|(?:[Aa]nswer|[Oo]utput|[Rr]esult|[Ll]abel|答案|输出|标签)[^\n:：]{0,30}(?:[:：]|\bis\b)\s*[^\n:：]{1,40}$"
)
"""A letter on one line, a post, who said it, and an answer that is named as such."""
ADDRESSED = re.compile(
    r"^(?:dear|hi|hello|hey|greetings|to)\b|\b(?:yours?|sincerely|truly|faithfully|love|wishes|regards|thanks|respectfully"
    r"|cheers|care)\W*$",
    re.IGNORECASE,
)
"""A line of a letter that a comma ends."""
HANGING = re.compile(
    r"(?<=\s)(?:the|an?|and|or|of|because|than|their|its|is|are|was|were|whose)$", re.IGNORECASE
)
"""Words that hardly any phrase ends with, either."""
CLOSING = (")", "]", "}", ";")
STOP = re.compile(r"[.!?][\"')\]]*\s+(?=[A-Z\"'(])|[。！？]\s*(?=\S)")
"""The end of a sentence that another one follows."""
SHAPES = ((re.compile(r"[-+$€£]*\d+(?:[.,:/]\d+)*"), "0"), (re.compile(r"[^\W\d_]+"), "a"))
QUOTED = re.compile(r"""'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*\"|(?<=\s)(?:#|//)[^\n]*""")
LIST = re.compile(r"^[ \t]*(?:[-*•+]|\d{1,3}[.)、]|[A-Za-z][.)])\s*")
SMILING = re.compile(r"[:;=]'?-?[(\[{]+")
NO_PROSE = re.compile(r"[=+/\\|{}<>^~→]|\d$")
"""What a formula, a row of a table or a path has."""
PLAIN = re.compile(r"[a0\s,.;'→>-]*|[a0].*|.*[.!?]")
RITUAL = 0.95
"""Probability from which it is believed that such an answer ends so."""
LEAST = 5
"""Words of a last line that is looked at for how it ends."""
WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


@dataclass(frozen=True)
class Usual:
    """How the answers of a set end.

    Attributes
    ----------
    ended : dict
        Kind of an answer -> share that has an end, of those that were looked at; where these are enough.
    shapes : frozenset of (str, str)
        Forms and last lines, in shape, that many answers have: ``#### 0``.
    balanced : float
        Share of the answers with brackets that close all of them.
    ritual : Expected
        How sure an answer to such a prompt ends in a last line of such a shape.
    words : LastWords
        Those that sentences end with.
    """

    ended: Mapping[str, float] = field(default_factory=dict)
    shapes: frozenset[tuple[str, str]] = frozenset()
    balanced: float = 0.0
    ritual: Expected = field(default_factory=Expected)
    words: LastWords = field(default_factory=LastWords)

    @cached_property
    def rituals(self) -> frozenset[str]:
        """The shapes that are more than words, numbers and items of a list."""
        lines = (line for of, line in self.shapes if of != "code")
        return frozenset(line for line in lines if PLAIN.fullmatch(line) is None and LIST.match(line) is None)


@dataclass(frozen=True)
class CutOff(Rule):
    """Answers that stop in the middle: of a sentence, a block of code, a bracket.

    *Derived*: C4 (arXiv 1910.10683) keeps lines that end in a terminal mark, and FineWeb measures the share of them.
    *Ours*: a missing mark is no sign, since lists, titles, names, formulas and labels have none, and many a whole
    sentence. A code fence that is never closed is one, a bracket of the last line (of all lines of a program) where
    the set's answers close theirs, a last comma, and a last word that the set has often and never, or hardly ever, at
    the end of a sentence or line ("of", "the", "provides"). A last line whose shape (``#### 0``, digits and words as
    such) many answers share is an end, and an answer without it is cut off where such answers have it. The last answer
    of a conversation is looked at.

    Parameters
    ----------
    usual_share : float
        Share of the set's answers of the same form that have an end, from which one without is hit.
    least : int
        Answers of a form that make what is usual.
    words : int
        Words of an answer that is looked at.
    """

    usual_share: Annotated[float, Gt(0.5), Le(1)] = 0.95
    least: Annotated[int, Ge(1)] = 20
    words: Annotated[int, Ge(1)] = 3
    name: ClassVar[str] = "cut_off"
    reasons: ClassVar[tuple[Reason, ...]] = (CUT_OFF,)

    def usual(self, rows: Sequence[Read]) -> Usual:
        """Count how answers end."""
        said = [read.last for read in rows if self._long(read.last.text)]
        texts, forms = [answer.text for answer in said], [form(answer) for answer in said]
        shaped = [(of, shape(text)) for text, of in zip(texts, forms, strict=True)]
        of_form = Counter(forms)
        shapes = frozenset(
            held
            for held, count in Counter(shaped).items()
            if held[1] and count >= max(3, 0.02 * of_form[held[0]])
        )
        ends = defaultdict(list)
        for text, held in zip(texts, shaped, strict=True):
            ends[held[0]].append(held in shapes or has_end(text))
        bracketed = [not unclosed(text) for text in texts if any(mark in text for mark in "([{")]
        found = Usual(
            {of: sum(held) / len(held) for of, held in ends.items() if len(held) >= self.least},
            shapes,
            sum(bracketed) / len(bracketed) if len(bracketed) >= self.least else 0.0,
            words=LastWords.of([answer.text for answer in said if not answer.code]),
        )
        if not found.rituals:
            return found
        pairs = [(read.prompt, read.last.text) for read in rows]
        with_ritual = np.array([shape(text) in found.rituals for _, text in pairs], dtype=np.bool_)
        return replace(found, ritual=learned(pairs, with_ritual))

    def hit(self, read: Read, usual: Usual) -> Hit | None:
        """Hit the row if its last answer has no end."""
        answer, asked = read.last, read.prompt
        text = answer.text
        # What ends in a mark and has nothing to close is not cut off, nor is what is taken from the prompt, as it is.
        if (text.endswith(STOPS) and OPENING.search(text) is None) or not self._long(text):
            return None
        if text not in asked and (self._cut(answer, asked, usual) or self._unlike(asked, answer, usual)):
            return CUT_OFF, 1.0
        return None

    def _long(self, text: str) -> bool:
        return (
            len(text.split(None, self.words)) >= self.words or len(WIDE.findall(text[:200])) >= 8 * self.words
        )

    def _cut(self, answer: Answer, asked: str, usual: Usual) -> bool:
        text, of = answer.text, form(answer)
        # Fences around fences are not told apart.
        fences = [] if "````" in text else [fence.end() for fence in FENCE.finditer(text)]
        after = text[fences[-1] :] if fences else ""
        if len(fences) % 2:
            # What is prose, or nothing, after the last one was only marked in an odd way.
            return bool(after) and not after.endswith(STOPS)
        line = text[-400:].rsplit("\n", 1)[-1]
        last = line.strip()
        balanced = usual.balanced >= self.usual_share
        if of == "code" and not after.strip():
            # What closes something at the margin is rather wrong than cut off.
            line = text[: fences[-1]].rstrip("`~ \t\n")[-400:].rsplit("\n", 1)[-1] if fences else line
            code = line.strip()
            whole = code.startswith(("#", "//")) or (code.endswith(CLOSING) and not line[:1].isspace())
            said = last.endswith((".", "!", "?", "。")) and len(last.split()) >= 5
            return balanced and not (whole or said) and unclosed(text)
        # Words alone are titles, labels, spans.
        if has_end(text) or (of, shape(text)) in usual.shapes or of == "words":
            return False
        often = usual.ended.get(of, 0.0) >= self.usual_share
        if unclosed(SMILING.sub("", last)):
            return balanced or often
        words = last.split()
        if not prose(last.rstrip(",").lower()) or asked.rstrip().endswith(last[-30:]) or VERSE.search(asked):
            return False
        if last.endswith(","):
            return often and of != "lines" and len(words) >= LEAST and ADDRESSED.search(last) is None
        if HANGING.search(last) is not None:
            return usual.words.never(last)
        # Items and lines may end in any word where those before them have no marks; names are no words.
        closed = of in ("sentence", "sentences") or marked(text)
        named = not words[-1].islower() and STOP.search(" ".join(words[-2:])) is None
        return len(words) >= LEAST and closed and not named and usual.words.never(last)

    def _unlike(self, asked: str, answer: Answer, usual: Usual) -> bool:
        """Whether a text has no last line like ``#### 0`` where such answers have one."""
        text = answer.text
        if not usual.rituals or has_end(text) or CLOSED.search(text[-200:]) is not None or answer.code:
            return False
        return shape(text) not in usual.rituals and usual.ritual(asked, text) >= RITUAL


def form(answer: Answer) -> str:
    """Tell answers apart by what is seen of them before their end."""
    if answer.code:
        return "code"
    text = answer.text
    lines = text.rsplit("\n", 1)
    if len(lines) > 1:
        return "list" if LIST.match(lines[1]) else "lines"
    if STOP.search(LIST.sub("", text)):
        return "sentences"
    return "sentence" if text.lstrip()[:1].isupper() else "words"


def has_end(text: str) -> bool:
    """Whether a text ends as prose does: in a mark, or a link."""
    return END.search(text[-600:]) is not None


def marked(text: str) -> bool:
    """Whether the lines before a text's last end in marks, as those of its kind do."""
    *before, last = (line.strip() for line in text[-4000:].split("\n") if line.strip())
    listed = LIST.match(last) is not None
    like = [line for line in before if (LIST.match(line) is not None) == listed and (listed or prose(line))]
    return len(like) >= 2 and all(has_end(line) for line in like[-6:])


def prose(line: str, least: int = 12) -> bool:
    """Whether a line, without the sign of a list, may be a part of a sentence: words, and no name, label or formula."""
    said = LIST.sub("", line)
    bare = said.rstrip(".!?…。！？\"'”’»)")
    if NO_PROSE.search(bare) is not None:
        return False
    if len(WIDE.findall(said)) >= 6:
        return True
    named, colon, rest = bare.partition(": ")
    words = (rest if colon else named).split()
    if colon and len(words) < 6:
        return False
    return len(words) >= 2 and len(said) >= least and words[-1][:1].islower()


def shape(text: str) -> str:
    """Give the last line with a 0 for each number and an ``a`` for each word, of at most 40 characters."""
    line = text[-400:].rsplit("\n", 1)[-1].strip()
    for pattern, sign in SHAPES:
        line = pattern.sub(sign, line)
    return line if len(line) <= 40 else ""


def unclosed(text: str) -> bool:
    """Whether a bracket is opened and never closed; what is closed and was never opened (``a)``, ``:)``) is not.

    Brackets in quotes and comments may be open; whether a mark begins one depends on the language, so that a text is
    read both ways.
    """
    return all(_depth(read) for read in (text, QUOTED.sub("", text)))


def _depth(text: str) -> int:
    deepest = 0
    for opening, closing in ("()", "[]", "{}"):
        depth = 0
        for mark in re.findall(f"[{re.escape(opening + closing)}]", text):
            depth = depth + 1 if mark == opening else max(0, depth - 1)
        deepest = max(deepest, depth)
    return deepest
