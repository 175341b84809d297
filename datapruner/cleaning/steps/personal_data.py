"""Rows that hold somebody's data, or a secret."""

from __future__ import annotations

import ipaddress
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from datapruner.cleaning.step import Remaining
from datapruner.cleaning.steps._read import Read, shortened
from datapruner.cleaning.steps._rule import Hit, Rule, apply
from datapruner.cleaning.vetoes import Vetoes, drops
from datapruner.errors import in_words
from datapruner.reasons import Reason

logger = logging.getLogger(__name__)

PERSONAL = Reason(
    "personal_data",
    "holds {measure:.0f} pieces of personal data or secrets",
    "row with personal data or a secret",
    "rows with personal data or a secret",
)
Kind = Literal["e-mail address", "phone number", "IP address", "card number", "account number", "secret"]
PATTERNS: dict[Kind, re.Pattern[str]] = {
    "e-mail address": re.compile(
        r"(?<![\w.+-])[A-Za-z0-9][\w.+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,4}[A-Za-z]{2,24}\b"
    ),
    "phone number": re.compile(
        r"(?<![\w.+-])(?:\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{2,4}(?:[ .-]?\d{2,4}){2,4}"
        r"|\(\d{3}\)[ ]?\d{3}-\d{4}|\d{3}-\d{3}-\d{4})(?![\w-]|[.,]\d)"
    ),
    "IP address": re.compile(r"(?<![\w.-])(?:\d{1,3}\.){3}\d{1,3}(?![\w.-])"),
    "card number": re.compile(
        r"(?<![\w.,-])(?<![A-Z]{2}\d\d )"
        r"(?:\d{4}([ -])\d{4}\1\d{4}\1\d{1,7}|\d{4}([ -])\d{6}\2\d{5}|\d{13,19})(?![\w-]|[.,]\d)"
    ),
    "account number": re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?(?!\w)"),
    "secret": re.compile(
        r"-----BEGIN (?:[A-Z]{2,10} ){0,2}PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}\b"
        r"|\bsk-(?:[a-z]{2,6}-){0,2}[A-Za-z0-9_-]{32,200}\b|\bxox[abprs]-[A-Za-z0-9-]{10,100}\b|\bAIza[\w-]{35}\b"
        r"|\bhf_[A-Za-z0-9]{30,40}\b|\beyJ[\w-]{10,2000}\.eyJ[\w-]{10,4000}\.[\w-]{10,2000}"
    ),
}
SECRETS = ("-----BEGIN ", "AKIA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "sk-", "xox", "AIza", "hf_", "eyJ")
MAYBE: dict[Kind, Callable[[str], object]] = {
    "e-mail address": lambda text: "@" in text,
    "phone number": re.compile(r"(?:\+\d|\(\d{3}\)[ ]?\d{3}-|\d{3}-\d{3}-\d{4})").search,
    "IP address": re.compile(r"\d\.\d{1,3}\.\d").search,
    "card number": re.compile(r"\d{13}|\d{4}[ -]\d{4}").search,
    "account number": re.compile(r"[A-Z]{2}\d\d").search,
    "secret": lambda text: any(sign in text for sign in SECRETS),
}
"""What every such piece has; most texts have none of it, and are cleared at once."""
FICTIONAL = re.compile(
    r"@(?:[\w-]+\.)*(?:example\d*|test|domain|email|mail|company|yourdomain|mydomain|sample)\.|@.*\.(?:example|test|invalid|local)$"
    r"|^(?:user|name|email|you|your|alice|bob|carol|dave|eve|john|jane|joe|dan|sam|j\.?smith|j\.?doe|example|test|foo|info|support|contact|noreply)\w*@",
    re.IGNORECASE,
)
"""Addresses that stand for one."""
ORDINARY = re.compile(
    r"555\)?[ .-]*\d|123\)?[ .-]*45|12[ .-]?345|(\d)\1{5}|0123|1234567|234\)?[ .-]*567|567[ .-]?890"
)
"""Numbers that nobody has."""


@dataclass(frozen=True)
class PersonalData(Rule):
    """Rows that hold addresses, numbers or keys that belong to somebody; counted, and dropped on request.

    *Derived*: e-mail and public IP addresses as datatrove's ``PIIFormatter`` has them. *Ours*: telephone numbers in
    international or US form, card numbers by Luhn's check digit, IBANs by theirs (ISO 7064, mod 97), and keys that
    say by their form what they are. Addresses and numbers kept for examples do not count. What it cannot find: names,
    postal addresses, and numbers in other forms.

    Parameters
    ----------
    drop : bool
        Drop such rows; else a line says how many there are.
    """

    drop: bool = False
    name: ClassVar[str] = "personal_data"
    reasons: ClassVar[tuple[Reason, ...]] = (PERSONAL,)
    order: ClassVar[int] = 31

    def hit(self, read: Read, usual: Any) -> Hit | None:
        """Hit the row if it is to be dropped."""
        del usual
        found = sum(1 for _ in pieces(read)) if self.drop else 0
        return (PERSONAL, float(found)) if found else None

    def clean(self, left: Remaining) -> list[Vetoes]:
        """Count the rows by what they hold, say so, and drop them if that is asked."""
        held = Held()
        apply([], left, held.note)
        held.tell(left, dropped=self.drop)
        if not self.drop or not left.samples.layout.has_text:
            return []
        free = [row for row in held.measures if not left.protected[row]]
        return [drops(PERSONAL, free, measures=[held.measures[row] for row in free])]


@dataclass(frozen=True)
class Held:
    """What rows hold, as they are read.

    Attributes
    ----------
    counts : Counter
        Rows by the kinds that they hold.
    measures : dict
        Row -> pieces.
    """

    counts: Counter[Kind] = field(default_factory=Counter)
    measures: dict[int, float] = field(default_factory=dict)

    def note(self, row: int, read: Read) -> None:
        """Count what a row holds."""
        found = Counter(kind for kind, _ in pieces(read))
        if found:
            self.counts.update(found.keys())
            self.measures[row] = float(found.total())

    def tell(self, left: Remaining, *, dropped: bool, gone: int = 0) -> None:
        """Say what was found in the rows that stay.

        Parameters
        ----------
        left : Remaining
        dropped : bool
            These rows are; else what they hold is counted.
        gone : int
            Rows that were dropped for something else.
        """
        counts = self.counts.most_common()
        if not dropped:
            left.counted.update((f"rows with {_a(kind)}", count) for kind, count in counts)
        if self.measures and not left.briefly:
            logger.warning(
                "%s of %s rows hold personal data or secrets, %s first: %s%s",
                f"{len(self.measures):,}",
                f"{len(left.rows) - gone:,}",
                left.samples.row_words(next(iter(self.measures))),
                ", ".join(f"{count:,} with {_a(kind)}" for kind, count in counts),
                "" if dropped else in_words("; they stay, unless `drop` of the step 'personal_data' is true"),
            )


def pieces(read: Read) -> Iterator[tuple[Kind, str]]:
    """Give what a row holds, in whichever turn."""
    return personal(shortened(read.sample.part("both")))


def _a(kind: Kind) -> str:
    return f"{'an' if kind[0] in 'aeI' else 'a'} {kind}"


def personal(text: str) -> Iterator[tuple[Kind, str]]:
    """Give every piece of personal data, and every secret, that a text holds, with its kind."""
    for kind, pattern in PATTERNS.items():
        if not MAYBE[kind](text):
            continue
        for found in pattern.finditer(text):
            if real(kind, found[0]) and (spoken_of(kind, text, found.start()) or not bare(kind, found[0])):
                yield kind, found[0]


def bare(kind: Kind, said: str) -> bool:
    """Whether it is a number in one piece, which a sum may be as well."""
    return kind in SPOKEN_OF and said.lstrip("+").isdigit()


def spoken_of(kind: Kind, text: str, start: int) -> bool:
    """Whether the words just before it say what it is."""
    return kind in SPOKEN_OF and SPOKEN_OF[kind].search(text[max(0, start - 40) : start]) is not None


SPOKEN_OF: dict[Kind, re.Pattern[str]] = {
    "phone number": re.compile(
        r"phone|\btel|call|mobile|cell|whatsapp|contact|\btext\b|fax|[☎📞📱]", re.IGNORECASE
    ),
    "card number": re.compile(r"card|visa|master|amex|american express|credit|debit", re.IGNORECASE),
}


def real(kind: Kind, said: str) -> bool:
    """Whether what has the form of such a thing may be one."""
    digits = re.sub(r"\D", "", said)
    if kind == "e-mail address":
        name, _, host = said.partition("@")
        return min(len(name), len(host.split(".")[0])) > 2 and FICTIONAL.search(said) is None
    if kind == "phone number":
        return 9 <= len(digits) <= 15 and ORDINARY.search(said) is None and len(set(digits)) > 3
    if kind == "IP address":
        try:
            return ipaddress.ip_address(said).is_global and not said.endswith(".0") and said not in KNOWN
        except ValueError:
            return False
    if kind == "card number":
        return said[0] in "3456" and len(set(digits)) > 3 and luhn(digits) and digits not in TEST_CARDS
    if kind == "account number":
        return iban(said.replace(" ", ""))
    return len(set(said[-20:])) > 5


KNOWN = frozenset(
    {"8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9", "1.2.3.4", "4.3.2.1", "123.45.67.89"}
)
TEST_CARDS = frozenset(
    {"4111111111111111", "4242424242424242", "5555555555554444", "378282246310005", "4012888888881881"}
)


def luhn(digits: str) -> bool:
    """Whether the last digit is Luhn's check digit of the others."""
    doubled = [sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2]]
    return (sum(doubled) + sum(map(int, digits[::-2]))) % 10 == 0


def iban(said: str) -> bool:
    """Whether the check digits of an IBAN are right."""
    if not 15 <= len(said) <= 34:
        return False
    return int("".join(str(int(mark, 36)) for mark in said[4:] + said[:4])) % 97 == 1
