"""The help: what most people need, all by section, in colours on a terminal alone."""

# No `from __future__ import annotations`: what is said of an option is read from its annotation.

import os
import pty
import re
import subprocess
import sys
from typing import Annotated, Literal

import pytest
from typer.main import get_command

from datapruner import cli
from datapruner.cli import terminal
from datapruner.cli.app import VERBS, verb_of
from datapruner.cli.beside_recipe import RANKING
from datapruner.cli.help_layout import LEFT
from datapruner.cli.summary import counts
from datapruner.cli.verb import MOST, verb
from datapruner.recipe.option import Option, Section, declared, title_of
from datapruner.recipe.options import Budget
from datapruner.results.summary import Summary
from tests.conftest import command

NAMES = [name for names in VERBS.values() for name in names.split()]


def told(monkeypatch, capsys, *words: str) -> str:
    assert command(monkeypatch, *words) == 0
    said = capsys.readouterr()
    assert said.err == ""
    return said.out


def flags(said: str) -> list[str]:
    """The options that a help lists, by their long names."""
    return re.findall(r"^  (?:-\w, )?(--[\w-]+)", said, re.MULTILINE)


def taken(name: str) -> set[str]:
    """The options that typer takes, by their long names."""
    made = get_command(cli.app).commands[name]
    return {
        opt for held in made.params if held.param_type_name == "option" for opt in held.opts if opt[1] == "-"
    }


@pytest.mark.parametrize("name", NAMES)
def test_help_shows_what_most_people_need_and_help_all_the_rest(name, monkeypatch, capsys):
    short = flags(told(monkeypatch, capsys, name, "--help"))
    assert len(short) <= MOST
    assert len(short) == len(set(short))
    held = taken(name)
    if "--help-all" not in held:
        assert set(short) == held | {"--help"}
        return
    every = flags(told(monkeypatch, capsys, name, "--help-all"))
    assert len(every) == len(set(every))
    assert set(every) == held | {"--help"} > set(short)
    assert len(held) > MOST


@pytest.mark.parametrize("name", NAMES)
def test_what_is_common_is_taken(name):
    made = verb_of(name)
    assert set(made.common) <= set(made.options)
    assert made.summary.endswith(".")


def test_options_stand_in_their_section(monkeypatch, capsys):
    said = told(monkeypatch, capsys, "prune", "--help-all")
    sections = dict(re.findall(r"^(\S.*):\n((?:  .*\n?)+)", said, re.MULTILINE))
    assert list(sections) == [
        "Arguments",
        *dict.fromkeys(title_of(one) for one in (Budget, *RANKING)),
        "Result",
        "How it runs",
        "Help",
    ]
    assert flags(sections["What is kept"])[:4] == ["--keep", "--keep-tokens", "--per-group", "--quota"]
    assert "--dedup-semantic" in sections["Cleaning, before anything is scored"]
    assert "--near-threshold NUMBER" in said
    assert re.search(
        r"--near-threshold NUMBER +Jaccard similarity of near duplicates\.\s+\[default: 0\.7\]", said
    )
    assert re.search(
        r"--embed EMBED +What is embedded of a row\.\s+\[both\|prompt\|response; default: both\]", said
    )
    assert re.search(r"--out FOLDER .*\[required\]", said, re.DOTALL)
    assert said.startswith("Usage: datapruner prune SOURCE... --out FOLDER [OPTIONS]\n")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("styled", [False, True])
@pytest.mark.parametrize("columns", [50, 80, 120, 300])
def test_no_line_is_wider_than_what_shows_it(name, columns, styled, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("datapruner.cli.help_layout.is_styled", lambda: styled)
    monkeypatch.setattr(terminal, "is_styled", lambda stream=None: styled)
    for everything in (False, True):
        said = verb_of(name).help(f"datapruner {name}", everything=everything)
        assert ("\x1b[" in said) == styled
        for line in re.sub(r"\x1b\[[\d;]*m", "", said).splitlines():
            if line.startswith("    datapruner "):  # an example, to be copied
                assert len(line) <= 80
                continue
            word = max(re.findall(r"\S+ \S+\]|\S+", line), key=len, default="")  # which no width breaks
            assert len(line) <= max(min(columns, terminal.WIDEST), LEFT + 4 + len(word)), line
            assert line == line.rstrip()


class Planted(Section):
    """How rows are read."""

    planted: Annotated[Literal["left", "right"], Option("Where it grows.")] = "left"
    planted_names: Annotated[dict[str, str] | None, Option("Who is who.", metavar="A=B,...")] = None
    planted_amount: Annotated[int | float | None, Option("How much.")] = None
    planted_switch: Annotated[bool, Option("Whether.")] = True


def test_an_option_is_declared_in_one_place(monkeypatch):
    """A field of a section is an option of the verb that names the section, with its help and its default."""
    monkeypatch.setattr("datapruner.cli.verb.SECTIONS", (Planted,))
    got = {}

    @verb(Planted)
    def grow(fields: dict[str, object]) -> None:
        """Grow."""
        got.update(fields)

    made = grow.command
    made.main([], standalone_mode=False, prog_name="grow")
    assert got == {}  # what nobody wrote is left to the recipe
    words = [
        "--planted",
        "right",
        "--planted-names",
        "question=b,answer=d",
        "--planted-amount",
        "0.5",
        "--no-planted-switch",
    ]
    made.main(words, standalone_mode=False, prog_name="grow")
    assert got == {
        "planted": "right",
        "planted_names": {"question": "b", "answer": "d"},
        "planted_amount": 0.5,
        "planted_switch": False,
    }
    said = grow.help("grow", everything=False)
    assert "How rows are read:\n" in said
    assert re.search(r"--planted PLANTED +Where it grows\.\s+\[left\|right; default: left\]", said)
    assert re.search(r"--planted-switch / --no-planted-switch\n +Whether\.\s+\[default: on\]", said)
    assert [one.default for one in declared(Planted)] == ["left", None, None, True]


@pytest.mark.parametrize(
    ("variables", "styled"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_a_terminal_shows_colours_unless_nobody_wants_them(variables, styled):
    """In a real terminal, whose other end is read here."""
    environment = {name: held for name, held in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    environment |= {"TERM": "xterm-256color", **variables}
    ours, theirs = pty.openpty()
    program = [sys.executable, "-m", "datapruner", "select", "--help"]
    with subprocess.Popen(program, stdout=theirs, stderr=theirs, env=environment) as run:
        os.close(theirs)
        said = b""
        while True:
            try:
                part = os.read(ours, 1 << 16)
            except OSError:  # how Linux says that the other end is closed
                break
            if not part:
                break
            said += part
    os.close(ours)
    assert run.returncode == 0
    text = said.decode().replace("\r\n", "\n")
    assert ("\x1b[" in text) == styled
    plain = re.sub(r"\x1b\[[\d;]*m", "", text)
    assert plain.startswith("Usage: datapruner select SCORES --out FOLDER [OPTIONS]\n")
    assert {"--keep", "--selector", "--help"} <= set(flags(plain))


def test_what_is_not_looked_at_is_plain(monkeypatch, capsys):
    assert "\x1b" not in told(monkeypatch, capsys, "prune", "--help")
    assert command(monkeypatch, "prune") == 2
    assert "\x1b" not in capsys.readouterr().err


def test_an_option_of_other_verbs_alone_is_not_taken(monkeypatch, capsys):
    for words, said in (
        (["damage", "rows.jsonl", "--set", "a=1"], "datapruner: damage ranks no rows"),
        (["damage", "rows.jsonl", "--target", "x"], "datapruner: there is no option --target"),
        (["clean", "rows.jsonl", "--keep", "1"], "datapruner: there is no option --keep"),
        (["clean", "rows.jsonl", "-o", "out", "--pairs", "-1"], "datapruner: Invalid value for '--pairs': "),
    ):
        assert command(monkeypatch, *words) == 2
        assert capsys.readouterr().err.startswith(said)


def test_the_help_of_the_program_lists_the_verbs(monkeypatch, capsys):
    said = told(monkeypatch, capsys, "--help")
    for title, names in VERBS.items():
        assert f"\n{title}:\n" in said
        for name in names.split():
            assert re.search(
                rf"^  {name} +{re.escape(verb_of(name).summary.split()[0])} ", said, re.MULTILINE
            )
    for loaded in ("pydantic", "rich", "yaml", "numpy"):
        check = (
            "import sys; sys.argv = ['datapruner', *sys.argv[1:]]\nfrom datapruner.cli import main\n"
            f"try: main()\nfinally: assert {loaded!r} not in sys.modules, {loaded!r}"
        )
        for words in (["--help"], ["prune", "--help"]):
            ran = subprocess.run(
                [sys.executable, "-c", check, *words], capture_output=True, text=True, check=False
            )
            assert ran.returncode == 0, ran.stderr


def test_counts_are_a_table_on_a_terminal_and_lines_elsewhere(monkeypatch):
    told = Summary(
        rows=100,
        causes={"kept": 30, "no_answer": 12, "over_budget": 58},
        groups={"\x1b[31mmath": (10, 40, "rows"), **{f"g{number}": (0, 1, "rows") for number in range(60)}},
    )
    assert counts(told) == "\n".join(told.lines(40))
    monkeypatch.setattr("datapruner.cli.summary.is_styled", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    shown = counts(told)
    assert "\x1b[31m" not in shown
    plain = re.sub(r"\x1b\[[\d;]*m", "", shown).splitlines()
    assert re.fullmatch(r"30 +30\.0 % +[█#]{6} +kept *", plain[0])
    assert re.fullmatch(r"58 +58\.0 % +[█#]{12} +dropped by the budget *", plain[2])
    assert re.fullmatch(r" *10 +of 40 +[█#]{5} +rows  \\x1b\[31mmath *", plain[3])
    assert plain[-1].strip() == "and 21 more groups: README.md of the result has them"
    assert len(plain) == 3 + 40 + 1


def test_tables_stand_below_headings_that_stand_out(monkeypatch):
    text = "Overlap\n     (1)\n  a  1.00\n\nLength\n  b  2"
    assert terminal.headed(text) == text
    monkeypatch.setattr(terminal, "is_styled", lambda stream=None: True)
    shown = terminal.headed(text)
    assert re.findall(r"\x1b\[1m(.*?)\x1b\[0m", shown) == ["Overlap", "Length"]
    assert re.sub(r"\x1b\[[\d;]*m", "", shown) == text


def test_what_is_wrong_begins_in_red_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr("datapruner.cli.entry.is_styled", lambda stream: True)
    assert command(monkeypatch, "explain", "\x1b[31mnowhere", "--row", "1") == 2
    said = capsys.readouterr().err
    assert said.startswith("\x1b[31m\x1b[1mdatapruner:\x1b[0m ")
    assert "\x1b" not in said.partition("\x1b[0m")[2]
