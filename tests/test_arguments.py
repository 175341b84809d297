"""What a verb takes: its signature in full, and what it says of an argument that it does not have."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.main import get_command

import datapruner as dp
from datapruner import arguments, cli
from datapruner import option_types as options
from datapruner.engines.base import Engine
from datapruner.errors import SWITCHES, DataPrunerError, flags, in_words
from datapruner.models.encoders import Encoder
from datapruner.recipe import Recipe
from datapruner.recipe.options import Running
from tests.conftest import command, without_progress

VERBS = [dp.prune, dp.score, dp.compare, dp.damage, dp.compare_stability]
NOT_TOLD = {
    "source",
    "group_share",
    "source_content",
    "inputs_content",
    "in_memory",
    "scorers",
    "scorer",
    "selector",
    "keep",
    "keep_tokens",
    "per_group",
    "quotas",
    "without",
}
"""Fields that verbs take as parameters of their own, or not at all."""


def test_the_options_are_the_recipes_fields():
    typed = get_type_hints(options.Scoring, localns={"Encoder": Encoder, "Engine": Engine})
    fields = {name: field.annotation for name, field in Recipe.model_fields.items() if name not in NOT_TOLD}
    assert set(typed) | {"changed_source"} == set(fields) | set(options.Running.__annotations__)
    assert set(options.Running.__annotations__) == set(Running.__annotations__)
    alone = get_type_hints(options.Reading)
    assert alone == {name: fields[name] for name in alone}  # the others may be objects too


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.__name__)
def test_help_shows_every_option_with_its_default(verb):
    shown = inspect.signature(verb).parameters
    assert not any(held.kind is held.VAR_KEYWORD for held in shown.values())
    assert {*options.Scoring.__annotations__} <= shown.keys()
    for name in options.Reading.__annotations__:
        assert shown[name].default == Recipe.model_fields[name].get_default(call_default_factory=True)
    told = {
        name.strip()
        for line in re.findall(r"^(\w.*)$", verb.__doc__, re.MULTILINE)
        for name in line.split(",")
    }
    assert {*options.Reading.__annotations__} <= told
    doc = " ".join(verb.__doc__.split())
    for name in options.Reading.__annotations__:  # as it was declared, in the words of arguments
        assert f"{name} {in_words(options.DECLARED[name].option.help)}" in doc


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.__name__)
@pytest.mark.parametrize("name", ["ratio", "fraction", "budget", "top_k", "n"])
def test_a_budget_by_another_name_is_told_ours(verb, name):
    if verb in (dp.score, dp.damage):  # they have no budget
        with pytest.raises(DataPrunerError, match=f"^{verb.__name__} takes no '{name}'$"):
            verb([], **{name: 0.3})
        return
    with pytest.raises(
        DataPrunerError,
        match=rf"takes no '{name}': keep=0\.3 keeps that share of the rows, keep=500 so many$",
    ):
        verb([], **{name: 0.3})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"threshold": 0.5}, "prune takes no 'threshold': near_threshold= is"),
        ({"near_treshold": 0.5}, "prune takes no 'near_treshold'. Did you mean 'near_threshold'?"),
        ({"scorers": ["length"]}, "prune takes no 'scorers': it takes one `scorer`"),
        ({"n_clusters": 3}, "prune takes no 'n_clusters': these are a scorer's own parameters"),
        ({"out": "somewhere"}, "prune takes no 'out': the result is written by its own save(FOLDER)"),
        ({"keep": 2, "quantum": 1}, "prune takes no 'quantum'"),
        ({"near_threshold": 7.0, "keep": 1}, "7.0 is no value for near_threshold=: Input should be less"),
        ({"keep": 1, "keep_tokens": 1}, "give either keep= or keep_tokens=, not both"),
    ],
)
def test_python_speaks_of_arguments(given, said):
    with pytest.raises(DataPrunerError) as caught:
        dp.prune([{"text": "a"}, {"text": "b"}], progress=False, **given)
    assert str(caught.value).startswith(said)
    assert "--" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--ratio", ".3"],
            "there is no option --ratio: --keep 0.3 keeps that share of the rows, --keep 500 so many;",
        ),
        (["--top-k", "3"], "there is no option --top-k: --keep 0.3 keeps"),
        (
            ["--near-treshold", "1"],
            "there is no option --near-treshold. Did you mean '--near-threshold'? See",
        ),
        (["--zzz"], "there is no option --zzz; see `datapruner prune --help`"),
        (
            ["--keep", "2", "-o", "out", "--near-threshold", "7"],
            "7.0 is no value for --near-threshold: Input should",
        ),
        (["-o", "out", "--keep", "1", "--keep-tokens", "1"], "give either --keep or --keep-tokens, not both"),
    ],
)
def test_the_command_line_speaks_of_flags(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    assert command(monkeypatch, "prune", "rows.jsonl", "--scorer", "random", *words) == 2
    assert without_progress(capsys.readouterr().err).startswith(f"datapruner: {said}")


def test_a_recipe_speaks_of_its_fields(tmp_path):
    (tmp_path / "recipe.yaml").write_text("source: rows.jsonl\nkeep: 3\nnear_threshold: 7.0\n")
    with pytest.raises(DataPrunerError, match=r"7\.0 is no value for near_threshold: Input"):
        dp.run(tmp_path / "recipe.yaml")


def test_what_other_tools_call_an_option_is_no_option_of_ours_and_points_to_one():
    known = {
        opt.removeprefix("--")
        for held in get_command(cli.app).commands.values()
        for one in held.params
        for opt in one.opts
    }
    for name, told in arguments.FOREIGN.items():
        assert name.replace("_", "-") not in known
        assert name not in Recipe.model_fields
        assert set(re.findall(r"--([a-z-]+)", told)) <= known


def test_switches_are_told_from_options_that_take_a_value():
    flag = {
        opt.removeprefix("--")
        for held in get_command(cli.app).commands.values()
        for one in held.params
        if getattr(one, "is_flag", False)
        for opt in one.opts
        if opt.startswith("--")
    }
    assert (
        flag - {"quiet", "text", "dedup-semantic", "help-all", "dry-run"} == SWITCHES
    )  # those have other names in Python, or none
    assert in_words("pass --near-numbers") == "pass near_numbers=True"


def test_a_value_is_written_as_python_writes_it():
    sentence = (
        "pass --on-empty=drop, --max-length=64 or --columns=text=A,answer=B; (--overwrite) with --model."
    )
    assert in_words(sentence) == (
        "pass on_empty='drop', max_length=64 or columns={'text': 'A', 'answer': 'B'}; (overwrite=True) with model=."
    )
    with flags():
        assert in_words(sentence) == (
            "pass --on-empty drop, --max-length 64 or --columns text=A,answer=B; (--overwrite) with --model."
        )


@given(st.text())
def test_names_of_the_users_stay_as_they_are(name):
    sentence = f"there is no file '{name}'"
    if "'" not in name and " " not in name and "(" not in name:
        assert in_words(sentence) == sentence or re.search(r"[^\w\-'\"“./=]--[a-z]", sentence)


def test_version_and_help(monkeypatch, capsys):
    assert command(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"datapruner {dp.__version__}\n"
    assert command(monkeypatch) == 0
    said = capsys.readouterr()
    assert "prune" in said.out
    assert said.err == ""
