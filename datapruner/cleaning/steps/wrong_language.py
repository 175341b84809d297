"""Rows whose answer is in a language that the set does not speak."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Le

from datapruner.cleaning.steps._read import Answer, Read, without_code
from datapruner.cleaning.steps._rule import Hit, Rule
from datapruner.reasons import Reason
from datapruner.words import has_unspaced

WRONG_LANGUAGE = Reason(
    "wrong_language",
    "the answer is in a language that the set does not speak ({measure:.0%} sure)",
    "answer in a foreign language",
    "answers in a foreign language",
    way_out="name what may be spoken with `languages`",
)
ABOUT = re.compile(
    r"translat|translit|languages?\b|traduc|traduz|tradui|übersetz|翻译|翻譯|语言|[英法德日西俄葡韩中汉]语|[英法德日中]文|перев[её]"
    r"|\b(?:english|german|french|spanish|italian|portuguese|dutch|swedish|danish|norwegian|finnish|polish|czech|russian"
    r"|ukrainian|greek|turkish|arabic|hebrew|persian|farsi|hindi|bengali|urdu|tamil|telugu|gujarati|chinese|mandarin"
    r"|japanese|korean|vietnamese|thai|indonesian|malay|tagalog|filipino|swahili|latin|romanian|hungarian|bulgarian)\b",
    re.IGNORECASE,
)
"""A prompt that speaks of languages."""
LETTERS = re.compile(r"[^\W\d_]+")
KANA = re.compile(r"[\u3040-\u30ff]")
LIKELY = 0.5
"""The confidence from which an answer counts for what the set speaks: what is spoken need not be sure."""
COMMON, OFTEN = 150, 0.05
"""Commonest words of the set, in more than this share of its answers ..."""
FOREIGN = 0.1
"""... of which a text in its language has a larger share: of English ones, about a half."""
IDENTIFIED = 1500
"""Answers that are identified to see what is spoken."""
APART, LEAST = 3, 8
"""Words between two commas or other marks, on the average, that make sentences and no list; and words at all."""
MARKS = re.compile(r"[^\w\s'’-]+|\n+|\d+")
LINES = 40
"""Of a prompt that are identified."""
Identify = Callable[[str], tuple[str, float]]


@dataclass(frozen=True)
class Usual:
    """Who tells languages, the commonest words of a set, and its languages, told when they are first asked."""

    identify: Identify
    common: frozenset[str]
    spoken: Callable[[], frozenset[str]]


@dataclass(frozen=True)
class WrongLanguage(Rule):
    """Answers in a language that few of the set's answers are in.

    *Derived*: language filters of web text (CCNet, FineWeb) by an identifier's confidence, here py3langid (97
    languages, the model in the package). *Ours*: the set's own languages are what it speaks, and a second witness: an
    answer with the set's commonest words in it is in its language, whatever the identifier says of names and terms.
    Both halves of an answer must be in the same foreign language, and have sentences: lists of names are taken for
    any. Short answers, code, and rows whose prompt has a line in that language, or speaks of languages, are not hit.

    Parameters
    ----------
    languages : list of str
        Codes (ISO 639-1) of what may be spoken, whatever the prompt is in; none: those that at least ``share`` of the
        answers are in.
    share : float
    sure : float
        The identifier's confidence from which it is believed.
    least : int
        Letters of an answer that is looked at.
    """

    languages: list[str] = field(default_factory=list)
    share: Annotated[float, Gt(0), Le(1)] = 0.02
    sure: Annotated[float, Gt(0), Le(1)] = 0.9
    least: Annotated[int, Ge(1)] = 60
    name: ClassVar[str] = "wrong_language"
    reasons: ClassVar[tuple[Reason, ...]] = (WRONG_LANGUAGE,)

    def usual(self, rows: Sequence[Read]) -> Usual:
        """Find the languages that the set speaks."""
        identify = identifier()
        if self.languages:
            return Usual(identify, frozenset(), lambda: frozenset(self.languages))
        given = [answer for read in rows for answer in read.answers]
        words = Counter(chain.from_iterable(set(_words(answer.text)) for answer in given))
        common = frozenset(word for word, times in words.most_common(COMMON) if times > OFTEN * len(given))
        some = given[:: 1 + len(given) // IDENTIFIED]

        @cache
        def spoken() -> frozenset[str]:
            counts = Counter(self._told(answer, identify, LIKELY)[0] for answer in some)
            del counts[""]
            enough = max(2, self.share * counts.total())
            return frozenset(language for language, count in counts.items() if count >= enough)

        return Usual(identify, common, spoken)

    def hit(self, read: Read, usual: Usual) -> Hit | None:
        """Hit the row if an answer is in another language than the set and its prompt."""
        for answer in read.answers:
            asked, text = answer.asked, answer.text
            if text.lstrip()[:1] in ("{", "[") or len(text) < self.least:
                continue
            words = _words(text)
            if sum(map(usual.common.__contains__, words)) > FOREIGN * len(words) or ABOUT.search(asked):
                continue
            whole = self._told(answer, usual.identify)[0] if sentences(text) else ""
            if not whole or not usual.spoken() or whole in usual.spoken():
                continue
            # Words of the prompt are quoted.
            known = set(asked.split())
            own = " ".join(word for word in text.split() if word not in known)
            language, sure = self._told(Answer("", own), usual.identify)
            halves = own[: len(own) // 2], own[len(own) // 2 :]
            if language != whole or any(usual.identify(half)[0] != language for half in halves):
                continue
            lines = [line for line in asked.split("\n")[:LINES] if sum(map(str.isalpha, line)) >= 12]
            if self.languages or all(usual.identify(line[:500])[0] != language for line in lines):
                return WRONG_LANGUAGE, sure
        return None

    def _told(self, answer: Answer, identify: Identify, sure_from: float | None = None) -> tuple[str, float]:
        """Tell the language of a text; empty where that is not sure."""
        if len(answer.text) < self.least or answer.code:
            return "", 0.0
        text = without_code(answer.text)[:2000]
        if sum(map(str.isalpha, text)) < self.least:
            return "", 0.0
        language, sure = identify(text)
        return (language, sure) if sure >= (self.sure if sure_from is None else sure_from) else ("", sure)


def sentences(text: str) -> bool:
    """Whether a text has sentences: names, terms and patterns are taken for any language."""
    head = text[:1500]
    if has_unspaced(head):
        return True
    words = len(LETTERS.findall(head))
    return words >= LEAST and words >= APART * len(MARKS.findall(head))


def _words(text: str) -> list[str]:
    """Give the words of a text, letters alone, that tell languages apart; of scripts without spaces, the letters."""
    said = text[:1500].casefold()
    return list(filter(str.isalpha, said)) if has_unspaced(said) else LETTERS.findall(said)


@cache
def identifier() -> Identify:
    """Load the identifier."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

    def identify(text: str) -> tuple[str, float]:
        language, sure = model.classify(text)
        # Names of places in Chinese are taken for Japanese.
        chinese = language == "ja" and KANA.search(text) is None
        return "zh" if chinese else str(language or ""), float(sure)

    return identify
