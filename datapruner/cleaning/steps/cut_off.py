"""Rows whose answer stops in the middle."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge, Gt, Le

from datapruner.cleaning.steps._rule import FENCE, Hit, Rule, is_code
from datapruner.reasons import Reason

if TYPE_CHECKING:
    from datapruner.samples.sample import Sample

CUT_OFF = Reason(
    "cut_off",
    "the answer is cut off",
    "answer that is cut off",
    "answers that are cut off",
    way_out="a higher `usual_share` keeps more of them",
)
END = re.compile(
    r"""[.!?…。！？।؟"'”’»)\]}*_`~>|:;%）】》」』]$|[\U0001F100-\U0001FAFF\u2600-\u27bf\u2b00-\u2bff\ufe0f]$"""
    r"""|(?:https?://|www\.)\S{1,500}$|[\w.+-]{1,64}@[\w.-]{1,255}$"""
)
"""What prose ends with."""
SIGNED = re.compile(r"[A-Z][\w.'-]{0,30}(?:,? (?:[A-Z][\w.'-]{0,30}|of|the|de|van|von)){0,5}$")
"""The last line of a letter, or a name."""
CLOSED = re.compile(
    r"[.!?]\s+[^.!?]{2,60},\s+(?:(?:Dr|Mr|Mrs|Ms)\. )?[A-Z][\w'-]{0,30}(?: [A-Z][\w.'-]{0,30}){0,4}"
    r"(?:, [\w ]{2,40})?$|\s#\w+$"
    r"|(?:[Aa]nswer|[Oo]utput|[Rr]esult|[Ll]abel|答案|输出|标签)[^\n:：]{0,30}(?:[:：]|\bis\b)\s*[^\n:：]{1,40}$"
)
"""A letter on one line, a post, and an answer that is named as such."""
HANGING = re.compile(
    r"(?<![}]\s)(?:[,(\[{=&<]|(?<!\+)\+)$|(?<=\s)(?:the|an?|and|or|of|because|than|their|its|is|are|was|were|from)$"
)
"""What nothing ends with."""
STOP = re.compile(r"[.!?][\"')\]]*\s+[A-Z\"'(]|[。！？]\s*\S")
"""The end of a sentence that another one follows."""
SHAPES = ((re.compile(r"[-+$€£]*\d+(?:[.,:/]\d+)*"), "0"), (re.compile(r"[^\W\d_]+"), "a"))
QUOTED = re.compile(r"""'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*\"|(?<=\s)(?:#|//)[^\n]*""")
LIST = re.compile(r"^[ \t]*(?:[-*•+]|\d{1,3}[.)]|[A-Za-z][.)])\s")


@dataclass
class Usual:
    """How the answers of a set end.

    Attributes
    ----------
    ended : dict
        Kind of an answer -> share that has an end, of those that were looked at; where these are enough.
    shapes : frozenset of str
        Last lines, in shape, that many answers have: ``#### 0``.
    balanced : float
        Share of the answers with brackets that close all of them.
    """

    ended: Mapping[str, float] = field(default_factory=dict)
    shapes: frozenset[tuple[str, str]] = frozenset()
    balanced: float = 0.0


@dataclass(frozen=True)
class CutOff(Rule):
    """Answers that stop in the middle: of a sentence, a block of code, a bracket.

    *Derived*: C4 (arXiv 1910.10683) keeps lines that end in a terminal mark, and FineWeb measures the share of them.
    *Ours*: what counts as an end is what answers of the set end with. Answers are told apart by their form (one
    sentence, several, several lines); a last line whose shape (``#### 0``, digits and words as such) many answers
    share is an end; and only where nearly all answers of a form have an end is one without it hit. A code fence or a
    bracket that is never closed is a sign where answers close theirs, a last comma or article always. Code is judged
    by fences and brackets alone. The last answer of a conversation is looked at.

    Parameters
    ----------
    usual_share : float
        Share of the set's answers of the same form that have an end, from which one without is hit.
    least : int
        Answers of a form that make what is usual.
    words : int
        Words of an answer that is looked at.
    """

    usual_share: Annotated[float, Gt(0.5), Le(1)] = 0.9
    least: Annotated[int, Ge(1)] = 20
    words: Annotated[int, Ge(1)] = 3
    name: ClassVar[str] = "cut_off"
    reasons: ClassVar[tuple[Reason, ...]] = (CUT_OFF,)

    def usual(self, samples: Sequence[Sample]) -> Usual:
        """Count how answers end."""
        texts = [text for text in map(_last, samples) if text and len(text.split()) >= self.words]
        forms = [form(text) for text in texts]
        many = Counter((of, shape(text)) for text, of in zip(texts, forms, strict=True))
        of_form = Counter(forms)
        shapes = frozenset(
            held for held, count in many.items() if held[1] and count >= max(3, 0.02 * of_form[held[0]])
        )
        ends = defaultdict(list)
        for text, of in zip(texts, forms, strict=True):
            ends[of].append(self._ended(of, text, shapes))
        bracketed = [not unclosed(text) for text in texts if any(mark in text for mark in "([{")]
        return Usual(
            {of: sum(held) / len(held) for of, held in ends.items() if len(held) >= self.least},
            shapes,
            sum(bracketed) / len(bracketed) if len(bracketed) >= self.least else 0.0,
        )

    def hit(self, sample: Sample, usual: Usual) -> Hit | None:
        """Hit the row if its last answer has no end."""
        text = _last(sample)
        if len(text.split()) < self.words:
            return None
        of = form(text)
        fences = [fence.end() for fence in FENCE.finditer(text)]
        # What is prose, or nothing, after the last one was only marked in an odd way.
        if (
            len(fences) % 2
            and (rest := text[fences[-1] :])
            and not rest.endswith((".", "!", "?", "。", "！", "？"))
        ):
            return CUT_OFF, 1.0
        if self._ended(of, text, usual.shapes):
            return None
        cut = unclosed(text) and usual.balanced >= self.usual_share
        if of != "code":
            # One sentence may as well be a title: there is less to see.
            needed = 1 - (1 - self.usual_share) / (5 if of in ("words", "sentence") else 1)
            cut |= HANGING.search(text) is not None or usual.ended.get(of, 0.0) >= needed
        return (CUT_OFF, 1.0) if cut else None

    def _ended(self, of: str, text: str, shapes: frozenset[tuple[str, str]]) -> bool:
        """Whether a text ends as texts do, or as many of the set's."""
        if of == "code":
            return False
        if END.search(text) is not None or (of, shape(text)) in shapes:
            return True
        line = text[-400:].rsplit("\n", 1)[-1].strip()
        if CLOSED.search(text[-200:]) is not None:
            return True
        if HANGING.search(line) is not None or of in ("words", "sentence", "sentences"):
            return False
        plain = not any(map(str.isalpha, line))
        alike = bool(_label(line)) and _label(line) in map(_label, text[-2000:].split("\n")[:-1])
        return plain or alike or SIGNED.match(line) is not None


def _last(sample: Sample) -> str:
    """Give the last answer that is trained on; empty where it ends in a call."""
    for message in reversed(sample.messages):
        if message.role == "assistant" and message.trained:
            return "" if message.fields.get("tool_calls") else message.content.rstrip()
    return ""


def form(text: str) -> str:
    """Tell answers apart by what is seen of them before their end."""
    if is_code(text):
        return "code"
    lines = text.rsplit("\n", 1)
    if len(lines) > 1:
        return "list" if LIST.match(lines[1]) else "lines"
    if STOP.search(text):
        return "sentences"
    return "sentence" if text.lstrip()[:1].isupper() else "words"


def shape(text: str) -> str:
    """Give the last line with a 0 for each number and an ``a`` for each word, of at most 40 characters."""
    line = text[-400:].rsplit("\n", 1)[-1].strip()
    for pattern, sign in SHAPES:
        line = pattern.sub(sign, line)
    return line if len(line) <= 40 else ""


def _label(line: str) -> str:
    """Give the shape of what stands before a colon, or of a short line: rows of a table share it."""
    return shape(line.strip().split(":", 1)[0])


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
