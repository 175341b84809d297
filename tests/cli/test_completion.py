"""A shell completes verbs, options, and the values that they may have."""

from __future__ import annotations

import pytest

from datapruner.cli.app import VERBS, verb_of
from datapruner.cli.parameters import flags_of, is_argument
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


@pytest.mark.parametrize("name", [name for names in VERBS.values() for name in names.split()])
def test_what_a_shell_shows_beside_an_option_is_a_line(name, monkeypatch, capsys):
    for variable, held in {
        "_DATAPRUNER_COMPLETE": "complete_fish",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "_TYPER_COMPLETE_ARGS": f"datapruner {name} --",
    }.items():
        monkeypatch.setenv(variable, held)
    assert command(monkeypatch) == 0
    lines = dict(line.split("\t") for line in capsys.readouterr().out.strip().splitlines())
    made = verb_of(name)
    for one in made.options.values():
        if not is_argument(one):
            flag = flags_of(one)[0].partition("/")[0]
            begin = one.option.help.partition(". ")[0][:60].removesuffix(".")
            assert " ".join(lines[flag].split()).startswith(" ".join(begin.split()[:-1])), flag


def test_the_script_is_shown(monkeypatch, capsys):
    # Whichever shell this was started from, the one that is meant.
    monkeypatch.setattr("shellingham.detect_shell", lambda *_: ("bash", "/bin/bash"))
    assert command(monkeypatch, "--show-completion") == 0
    said = capsys.readouterr().out
    assert "complete -o default -F _datapruner_completion datapruner" in said
