"""A shell completes verbs, options, and the values that they may have."""

from __future__ import annotations

import pytest

from datapruner.parts import SCORERS, SELECTORS, available
from tests.conftest import command


@pytest.fixture
def completed(monkeypatch, capsys):
    """What bash is given for the last word of a line."""

    def ask(line: str) -> list[str]:
        words = line.split(" ")
        for name, held in {
            "_DATAPRUNER_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
        }.items():
            monkeypatch.setenv(name, held)
        assert command(monkeypatch) == 0
        return capsys.readouterr().out.split()

    return ask


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("datapruner pr", ["prune"]),
        ("datapruner sc", ["score", "scorers"]),
        ("datapruner prune --dty", ["--dtype"]),
        ("datapruner prune x --dtype bf", ["bfloat16"]),
        ("datapruner prune x --combine ", ["worst_rank", "mean_rank", "topsis"]),
        ("datapruner prune x --embedder mini", ["minilm"]),
        ("datapruner prune x --scorer don", ["donod"]),
        # What is left to the shell, which completes files then.
        ("datapruner prune da", []),
        ("datapruner prune x --embeddings v", []),
        ("datapruner prune x --out o", []),
    ],
)
def test_what_a_shell_is_given(completed, line, found):
    assert completed(line) == found


def test_parts_are_completed_by_name(completed):
    assert completed("datapruner compare x --scorer ") == list(available(SCORERS))
    assert completed("datapruner select x --selector ") == list(available(SELECTORS))


def test_the_script_is_shown(monkeypatch, capsys):
    assert command(monkeypatch, "--show-completion", "bash") == 0
    said = capsys.readouterr().out
    assert "complete -o default -F _datapruner_completion datapruner" in said
