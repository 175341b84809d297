"""What lies before a run: rows, what is stored, time; told before anything is measured."""

from __future__ import annotations

import datapruner as dp
from datapruner.signals.outlook import Ahead, Outlook

ROWS = [
    {"prompt": f"What is {i} and {i * i % 17}?", "completion": f"A number, {i}, and then more."}
    for i in range(40)
]


def test_the_lines():
    steps = (
        Ahead("tokens", 5600, 0, 0.0),
        Ahead("embedding", 5600, 1200, 42.0),
        Ahead("shape", 5600, None, 90.0),
        Ahead("losses", 5600, 5600, 7200.0),
    )
    assert Outlook(6000, 5600, steps).lines() == [
        "5,600 of 6,000 rows to measure:",
        "  tokens     5,600 rows  all stored                no time",
        "  embedding  5,600 rows  4,400 stored              about 42 s",
        "  shape      5,600 rows  not known what is stored  at most 2 min",
        "  losses     5,600 rows  none stored               about 2.0 h",
        "  all together: at most 2.0 h",
    ]
    assert str(Outlook(3, 3, ())) == "3 of 3 rows, and nothing to measure"


def test_a_long_run_tells_what_lies_ahead_and_a_short_one_does_not(tmp_path, capsys, monkeypatch):
    options = {"scorer": "length", "keep": 0.5, "cache": tmp_path}
    dp.prune(ROWS, **options)
    assert "to measure" not in capsys.readouterr().err
    monkeypatch.setattr("datapruner.signals.measurements.tokens.Tokens.pace", lambda self, run: 10.0)
    dp.prune([*ROWS, {"prompt": "one", "completion": "more"}], **options)  # all but one are stored
    assert "to measure" not in capsys.readouterr().err
    dp.prune([{**row, "prompt": f"New: {row['prompt']}"} for row in ROWS], **options)
    assert "  tokens  40 rows  none stored  about 7 min" in capsys.readouterr().err
