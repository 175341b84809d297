"""Rules that look at the turns, and at what is somebody's."""

from __future__ import annotations

import logging

import pytest

from datapruner.cleaning.steps.personal_data import iban, luhn, personal
from tests.cleaning.steps.rules import asked, chat, hits

U, A, S, T = ("user", "hi"), ("assistant", "hello"), ("system", "be kind"), ("tool", "7")


@pytest.mark.parametrize(
    "turns", [(U, A), (S, U, A), (U, A, U, A), (S, A), (U, A, T, A), (U, U, A), (U, A, T, T, A)]
)
def test_orders_that_templates_take(turns):
    assert not hits("turn_order", [chat(*turns), chat(U, A)])


@pytest.mark.parametrize("turns", [(A, U, A), (U, S, A), (S, U, A, S, U, A), (T, U, A), (U, T, A)])
def test_orders_that_they_do_not(turns):
    assert hits("turn_order", [chat(U, A), chat(*turns)]) == {1: "turn_order"}


def test_speaking_twice_is_for_strict_templates():
    rows = [chat(U, A), chat(U, U, A), chat(U, A, A)]
    assert hits("turn_order", rows, twice=True) == {1: "turn_order", 2: "turn_order"}


def test_a_call_is_answered_by_a_tool():
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 3}}}
    turns = [{"role": "user", "content": "add"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    turns += [{"role": "tool", "content": ""}, {"role": "assistant", "content": "7"}]
    for name in ("turn_order", "empty_turn"):
        assert not hits(name, [{"messages": turns}])


def test_empty_turns():
    rows = [
        chat(U, A),
        chat(("user", " \n"), A),
        chat(U, ("assistant", ""), U, A),
        chat(("system", ""), U, A),
    ]
    assert hits("empty_turn", rows) == {1: "empty_turn", 2: "empty_turn"}
    assert not hits("empty_turn", [{"text": "plain"}, {"text": "text"}])


FOUND = {
    "write to maria.keller@posteo-mail.de": "e-mail address",
    "call +49 30 9018 2034 today": "phone number",
    "call (212) 736-5000": "phone number",
    "from 91.198.174.192": "IP address",
    "card 4929 4212 3460 0821": "card number",
    "to DE89 3704 0044 0532 0130 00": "account number",
    "key AKIAZ7QLD3XWPT5VNR2B": "secret",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEpQ": "secret",
    "ghp_a8Jd72kLmQ0pXz5vRt3NwYb6Hc9Ug1Se4FiO": "secret",
}


@pytest.mark.parametrize(("text", "kind"), FOUND.items())
def test_what_is_somebodys_is_found(text, kind):
    assert [found for found, _ in personal(text)] == [kind]


@pytest.mark.parametrize(
    "text",
    [
        "john@example.com", "you@yourdomain.com", "call 555-123-4567", "127.0.0.1 and 192.168.1.7", "version 1.2.3.4",
        "4111 1111 1111 1111", "4929 4212 3460 0822", "DE89 3704 0044 0532 0130 01", "sk-your-key",
        "3.14159265358979323",
        "1234567890123456", "2021-05-05", "= 120*365-44*12", "@decorator.example", "999.999.999.999",
        "call (555) 987-6543", "+1 (123) 456-7890", "+32 12 345 678", "The result is:\n\n4212883012996",
        "472547338\n+960397912423686\n-------",
    ],
)  # fmt: skip
def test_examples_and_other_numbers_are_not(text):
    assert not list(personal(text))


def test_check_digits():
    assert luhn("79927398713")
    assert [n for n in range(10) if luhn(f"7992739871{n}")] == [3]
    assert iban("GB82WEST12345698765432")
    assert not iban("GB83WEST12345698765432")


def test_they_are_counted_and_dropped_on_request(caplog):
    rows = [asked("nothing"), *map(asked, FOUND), asked("fine", "my card is 4929 4212 3460 0821")]
    with caplog.at_level(logging.WARNING):
        assert not hits("personal_data", rows)
    assert "10 of 11 rows hold personal data or secrets, row 1 first: 3 with a secret, " in caplog.text
    assert "they stay, unless" in caplog.text
    assert set(hits("personal_data", rows, drop=True)) == set(range(1, 11))
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        hits("rules", rows)
    assert "10 of 11 rows hold personal data" in caplog.text
