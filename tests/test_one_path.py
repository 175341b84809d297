"""From Python and from the command line the same is asked for: the same recipe, the same rows, the same bytes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import command

import datapruner as dp
from datapruner.scorers import Auto, Combined, ConceptComplexity, Prototypes
from datapruner.scorers.ifd import IFD
from datapruner.selection.selectors import CCS

N = 120
SOURCE = "rows.jsonl"
VECTORS = {"embeddings": "rows.npy"}


@pytest.fixture
def folder(tmp_path, monkeypatch, cache):
    """A working folder with rows, their vectors and divergences of two models."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(3)
    words = ["stone", "lamp", "river", "market", "garden", "letter", "harbour", "bridge", "kitchen", "planet"]
    topics = ["maths", "code", "facts"]
    rows = [
        {
            "question": f"Say {number} times: {' '.join(rng.choice(words, 6))}",
            "answer": " ".join(rng.choice(words, int(rng.integers(3, 60)))),
            "topic": topics[int(rng.integers(3))],
            "must": bool(number % 13 == 5),
            "never": bool(number % 11 == 3),
        }
        for number in range(N)
    ]
    rows[9] = {**rows[2], "must": False}
    Path(SOURCE).write_text("\n".join(map(json.dumps, rows)))
    np.save("rows.npy", rng.normal(size=(N, 8)).astype(np.float32))
    np.save("jsd.npy", rng.uniform(0, 0.5, N))
    return tmp_path


def left_by(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()
    }


RUNS = {
    "a fraction": ("prune rows.jsonl VECTORS --keep 0.3", dp.prune, {**VECTORS, "keep": 0.3}),
    "rows": ("prune rows.jsonl VECTORS --keep 12", dp.prune, {**VECTORS, "keep": np.int64(12)}),
    "all": ("prune rows.jsonl --scorer random --keep 1.0", dp.prune, {"scorer": "random", "keep": 1.0}),
    "tokens": (
        "prune rows.jsonl --scorer random --keep-tokens 90",
        dp.prune,
        {"scorer": "random", "keep_tokens": 90},
    ),
    "quotas": (
        "prune rows.jsonl VECTORS --keep 50 --per-group topic --quota maths=0.5 --quota code=3 --scorer prototypes",
        dp.prune,
        {
            **VECTORS,
            "scorer": "prototypes",
            "keep": 50,
            "per_group": "topic",
            "quotas": {"maths": 0.5, "code": 3},
        },
    ),
    "lists": (
        "prune rows.jsonl VECTORS --keep 0.4 --always-keep must --never-keep never --dedup --seed 4",
        dp.prune,
        {**VECTORS, "keep": 0.4, "always_keep": "must", "never_keep": "never", "dedup": True, "seed": 4},
    ),
    "the scorer's own selector, named": (
        "prune rows.jsonl VECTORS --keep 9 --scorer k_center --selector topk",
        dp.prune,
        {**VECTORS, "keep": 9, "scorer": "k_center", "selector": "topk"},
    ),
    "a selector": (
        "prune rows.jsonl VECTORS --keep 9 --scorer k_center --selector ccs --selector-set beta=0",
        dp.prune,
        {**VECTORS, "keep": 9, "scorer": "k_center", "selector": CCS(beta=0)},
    ),
    "a parameter": (
        "prune rows.jsonl VECTORS --keep 9 --scorer prototypes --set balance=0 --n-clusters 4",
        dp.prune,
        {**VECTORS, "keep": 9, "scorer": Prototypes(balance=0.0, n_clusters=4)},
    ),
    "a parameter that is the default": (
        "prune rows.jsonl VECTORS --keep 9 --scorer prototypes --set keep=hard",
        dp.prune,
        {**VECTORS, "keep": 9, "scorer": Prototypes(keep="hard")},
    ),
    "a whole number for a fraction": (
        "prune rows.jsonl VECTORS --keep 9 --scorer concept_complexity --set temperature=1",
        dp.prune,
        {**VECTORS, "keep": 9, "scorer": ConceptComplexity(temperature=1.0)},
    ),
    "joined": (
        "prune rows.jsonl VECTORS --keep 9 --scorer length --scorer prototypes --combine worst_rank",
        dp.prune,
        {**VECTORS, "keep": 9, "scorer": Combined(["length", "prototypes"])},
    ),
    "joined within": (
        "prune rows.jsonl VECTORS --keep 9 --scorer length --scorer prototypes --set prototypes.keep=easy "
        "--combine mean_rank --combine-within topic",
        dp.prune,
        {
            **VECTORS,
            "keep": 9,
            "scorer": Combined(
                ["length", {"name": "prototypes", "parameters": {"keep": "easy"}}],
                by="mean_rank",
                within="topic",
            ),
        },
    ),
    "json lines": (
        "prune rows.jsonl --scorer random --keep 9 --format jsonl",
        dp.prune,
        {"scorer": "random", "keep": 9, "format": "jsonl"},
    ),
    "the default recipe": ("prune rows.jsonl VECTORS", dp.prune, VECTORS),
    "the default recipe but for some parts": (
        "prune rows.jsonl VECTORS --keep 0.3 --without shares --without rules --without copies",
        dp.prune,
        {**VECTORS, "keep": 0.3, "without": ["copies", "rules", "shares"]},
    ),
    "the default recipe with a column and tokens": (
        "prune rows.jsonl --keep-tokens 300 --per-group topic --quota code=20 --without noise",
        dp.prune,
        {"keep_tokens": 300, "per_group": "topic", "quotas": {"code": 20}, "without": "noise"},
    ),
    "the default recipe with other parameters": (
        "prune rows.jsonl VECTORS --keep 9 --set power=1 --n-clusters 4",
        dp.prune,
        {**VECTORS, "keep": 9, "scorer": Auto(power=1.0, n_clusters=4), "without": []},
    ),
    "the default recipe's cleaning with another scorer": (
        "prune rows.jsonl VECTORS --keep 9 --scorer k_center --without noise --no-dedup",
        dp.prune,
        {**VECTORS, "keep": 9, "scorer": "k_center", "without": ["noise"], "dedup": False},
    ),
    "the default recipe, scored": ("score rows.jsonl VECTORS", dp.score, VECTORS),
    "the default recipe, compared": ("compare rows.jsonl VECTORS --no-report", dp.compare, VECTORS),
    "clean": ("clean rows.jsonl", dp.clean, {}),
    "clean of vectors": (
        "clean rows.jsonl VECTORS --no-dedup --dedup-semantic --semantic-eps 0.4 --never-keep never",
        dp.clean,
        {**VECTORS, "dedup": ["semantic"], "semantic_eps": 0.4, "never_keep": "never"},
    ),
    "score": (
        "score rows.jsonl VECTORS --scorer prototypes --scorer random",
        dp.score,
        {**VECTORS, "scorers": ["prototypes", "random"]},
    ),
    "compare": (
        "compare rows.jsonl VECTORS --scorer k_center --keep 0.2 --keep-tokens 60 --by topic --selector ccs "
        "--no-report",
        dp.compare,
        {
            **VECTORS,
            "scorers": "k_center",
            "keep": 0.2,
            "keep_tokens": 60,
            "by": "topic",
            "selector": "ccs",
        },
    ),
    "compare without a budget": (
        "compare rows.jsonl VECTORS --scorer k_center --no-report",
        dp.compare,
        {**VECTORS, "scorers": "k_center"},
    ),
    "stability": (
        "compare rows.jsonl VECTORS --scorer k_center --keep 8 --no-report --stability --seeds 2 --noise 0.5",
        dp.compare,
        {**VECTORS, "scorers": "k_center", "keep": 8, "stability": True, "seeds": 2, "noise": [0.5]},
    ),
    "damage": (
        "damage rows.jsonl VECTORS --divergences jsd.npy --by topic --n-clusters 3",
        dp.damage,
        {**VECTORS, "divergences": "jsd.npy", "by": "topic", "n_clusters": 3},
    ),
}


ALIKE = (
    "the default recipe, scored",
    "the default recipe, compared",
    "compare without a budget",
    "stability",
)
"""Runs that go the same way as another one of the table, and take seconds."""


@pytest.mark.parametrize(
    "what", [pytest.param(what, marks=[pytest.mark.slow] if what in ALIKE else []) for what in RUNS]
)
def test_python_and_the_command_line_leave_the_same_bytes(what, folder, monkeypatch):
    line, verb, given = RUNS[what]
    words = shlex.split(line.replace("VECTORS", "--embeddings rows.npy"))
    assert command(monkeypatch, *words, "-q", "-o", "out/by_command") == 0
    verb(SOURCE, progress=False, **given).save("out/by_python")
    by_command, by_python = (left_by(Path("out") / name) for name in ("by_command", "by_python"))
    assert by_command.keys() == by_python.keys()
    assert [name for name in by_command if by_command[name] != by_python[name]] == []


def test_a_model_is_asked_for_alike(folder, tiny_llama, monkeypatch):
    words = ["--model", tiny_llama, "--scorer", "ifd", "--set", "keep=low", "--set", "variant=original"]
    default = IFD().variant
    words[-1] = f"variant={default}"
    assert command(monkeypatch, "prune", SOURCE, *words, "--keep-tokens", "80", "-q", "-o", "out/a") == 0
    dp.prune(SOURCE, scorer=IFD(keep="low"), model=str(tiny_llama), keep_tokens=80, progress=False).save(
        "out/b"
    )
    assert left_by(Path("out/a")) == left_by(Path("out/b"))


@pytest.mark.parametrize("embed", [None, "both"])
def test_what_the_default_recipe_embeds_is_alike(embed, folder, tiny_sentence_transformer, monkeypatch):
    embedder = str(tiny_sentence_transformer)
    words = ["--embedder", embedder, *(["--embed", embed] if embed else [])]
    assert command(monkeypatch, "prune", SOURCE, *words, "--keep", "0.5", "-q", "-o", "out/a") == 0
    given = {"embed": embed} if embed else {}
    dp.prune(SOURCE, embedder=embedder, keep=0.5, progress=False, **given).save("out/b")
    assert left_by(Path("out/a")) == left_by(Path("out/b"))
    said = dp.load("out/a").recipe
    assert said.embed == (embed or "prompt")


@pytest.mark.parametrize(
    ("words", "given"),
    [
        ("--scorer prototypes --keep 0.4", {"scorer": "prototypes", "keep": 0.4}),
        ("--scorer random --keep-tokens 90", {"scorer": "random", "keep_tokens": 90}),
        (
            "--scorer random --keep 40 --per-group topic --quota maths=4 --selector ccs --selector-set strata=3",
            {
                "scorer": "random",
                "keep": 40,
                "per_group": "topic",
                "quotas": {"maths": 4},
                "selector": CCS(strata=3),
            },
        ),
    ],
)
def test_saved_scores_are_spent_alike(words, given, folder, monkeypatch):
    score = [
        "score",
        SOURCE,
        "--embeddings",
        "rows.npy",
        "--scorer",
        "prototypes",
        "--scorer",
        "random",
        "-q",
    ]
    assert command(monkeypatch, *score, "-o", "scores") == 0
    assert command(monkeypatch, "select", "scores", *words.split(), "-q", "-o", "out/by_command") == 0
    dp.load_scores("scores").select(**given).save("out/by_python")
    assert left_by(Path("out/by_command")) == left_by(Path("out/by_python"))


REFUSALS = {
    "rows": ("prune rows.jsonl VECTORS --keep 1000", {**VECTORS, "keep": 1000}),
    "tokens": ("prune rows.jsonl VECTORS --keep-tokens 100000", {**VECTORS, "keep_tokens": 100_000}),
    "a group": ("prune rows.jsonl VECTORS --keep 9 --per-group x", {**VECTORS, "keep": 9, "per_group": "x"}),
    "a quota": (
        "prune rows.jsonl VECTORS --keep 9 --per-group topic --quota math=2",
        {**VECTORS, "keep": 9, "per_group": "topic", "quotas": {"math": 2}},
    ),
    "a selector": (
        "prune rows.jsonl VECTORS --scorer k_center --keep 9 --selector paser",
        {**VECTORS, "scorer": "k_center", "keep": 9, "selector": "paser"},
    ),
    "two places": (
        "prune rows.jsonl VECTORS --embedding-column v --keep 9",
        {**VECTORS, "keep": 9, "embedding_column": "v"},
    ),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_python_and_the_command_line_refuse_in_the_same_words(what, folder, monkeypatch, capsys):
    line, given = REFUSALS[what]
    words = shlex.split(line.replace("VECTORS", "--embeddings rows.npy"))
    assert command(monkeypatch, *words, "-q", "-o", "out") == 2
    said = capsys.readouterr().err
    with pytest.raises(dp.DataPrunerError) as refused:
        dp.prune(SOURCE, progress=False, **given)
    written = str(refused.value)
    for argument, flag in (("embedding_column=", "--embedding-column"), ("embeddings=", "--embeddings")):
        written = written.replace(argument, flag)
    assert said == f"datapruner: {written}\n"
    assert not Path("out").exists()


def test_the_recipe_has_the_whole_budget_before_anything_is_chosen(folder):
    chosen = dp.prune(
        SOURCE,
        scorer="random",
        selector="ccs",
        keep=9,
        per_group="topic",
        quotas={"maths": 2},
        progress=False,
    )
    asked = chosen.scores.recipe
    assert (asked.keep, asked.per_group, asked.quotas) == (9, "topic", {"maths": 2})
    assert asked.selector.name == "ccs"
    assert asked.budget == chosen.budget == chosen.recipe.budget
    other = chosen.scores.select(keep=4, selector="moderate").recipe
    assert (other.keep, other.per_group, other.quotas, other.selector.name) == (4, None, {}, "moderate")


def test_a_selector_of_ones_own_is_named_once(folder):
    from dataclasses import dataclass

    from datapruner.selection.selectors.topk import TopK

    @dataclass(frozen=True)
    class Mine(TopK):
        """One that no recipe can name."""

    chosen = dp.prune(SOURCE, scorer="random", selector=Mine(), keep=9, progress=False)
    assert chosen.scores.recipe.in_memory == chosen.recipe.in_memory == ["selector topk"]
    assert chosen.rebudget(5).recipe.in_memory == ["selector topk"]
    assert chosen.scores.select(keep=9, selector="ccs").recipe.in_memory == []


def test_stability_says_what_was_kept(folder):
    found = dp.compare_stability(
        SOURCE, scorers="k_center", keep=7, selector="ccs", seeds=2, noise=[], progress=False, **VECTORS
    )
    assert found.recipe.budget.keep == 7
    assert found.recipe.selector.name == "ccs"
    found.save("out")
    saved = json.loads(Path("out/stability.json").read_text())["recipe"]
    assert (saved["keep"], saved["selector"]["name"]) == (7, "ccs")


BY_COMMAND = {
    "out",  # what is written, and where: a result of Python is written by its own methods
    "overwrite",
    "report",
    "push_to_hub",
    "pairs",  # what is printed
    "examples",
    "source_name",  # a mapping of names to sources
    "quiet",
    "set_",  # objects with their parameters
    "selector_set",
    "cleaning_set",
    "n_clusters",
    "combine",
    "combine_within",
    "dedup_semantic",
    "dry_run",
    "shard",  # dp.measure_part
}
BY_PYTHON = {"progress", "per_group", "format"}
"""``score`` takes the last two, to refuse a column that is not there, and for who saves a selection of it later."""
TARGETS = {"target", "target_split", "target_columns", "target_embeddings", "target_share"}


@pytest.mark.parametrize("verb", ["prune", "clean", "score", "compare", "damage", "run"])
def test_a_verb_takes_the_same_options_either_way(verb):
    from importlib import import_module
    from inspect import signature

    by_command = set(getattr(import_module(f"datapruner.cli.{verb}"), verb).options)
    by_python = set(signature(getattr(dp, verb)).parameters)
    if verb in ("score", "compare"):  # there may be several
        by_command = {"scorers" if name == "scorer" else name for name in by_command}
    # No scorer of a cleaning or of a table of damage reads a target: it is refused.
    unread = TARGETS if verb in ("clean", "damage") else set()
    assert by_command - by_python <= BY_COMMAND
    assert by_python - by_command <= BY_PYTHON | unread


class Asked(Exception):  # noqa: N818 - it ends a run where it would begin
    """What would be measured."""


VALUES = {
    "columns": ({"question": "topic"}, "question=topic"),
    "decontaminate_columns": ({"text": "question"}, "text=question"),
    "target_columns": ({"text": "question"}, "text=question"),
    "target_share": ({"maths": 2.0}, "maths=2"),
    "classifier_max_length": (64, "64"),
    "quotas": ({"maths": 3, "code": 0.5}, "maths=3 code=0.5"),
    "group_share": ({"maths": 0.5}, "maths=0.5"),
    "dedup": (True, None),
    "per_group": ("topic", "topic"),
    "selector": ("ccs", "ccs"),
    "keep": (0.25, "0.25"),
    "sketch_rates": ([0.5], "0.5"),
}
WITH = {
    "adapter": {"model": "m"},
    "decontaminate_split": {"decontaminate": "t.jsonl"},
    "decontaminate_columns": {"decontaminate": "t.jsonl"},
    "quotas": {"per_group": "topic"},
    "group_share": {"per_group": "topic"},
    "target_share": {"target": "maths=t.jsonl"},
}
"""Options that are refused alone."""


def another(name, one):
    """A value that is not the default, and how it is written."""
    from datapruner.recipe.option import values_of, without_none

    if name in VALUES:
        return VALUES[name]
    kind = without_none(one.type)
    if among := values_of(one.type):
        value = next(held for held in among if held != one.default)
    elif kind is bool:
        return not one.default, None
    elif kind is int:
        value = (one.default or 2) + 1
    elif kind is float:
        value = 0.625
    else:
        value = "something"
    return value, str(value)


def test_every_option_of_a_recipe_means_the_same_either_way(folder, monkeypatch):
    from datapruner.cli.parameters import flags_of
    from datapruner.cli.prune import prune
    from datapruner.recipe import Recipe

    def stop(asked, samples=None):
        raise Asked(asked.recipe)

    monkeypatch.setattr("datapruner.running.measure", stop)
    names = set(prune.options) & set(Recipe.model_fields) - {"source", "scorer", "keep_tokens", "cleaning"}
    assert len(names) > 45
    differ = []
    for name in sorted(names):
        one = prune.options[name]
        value, text = another(name, one)
        given = {"scorer": "random", "keep": 9, **WITH.get(name, {}), name: value}
        words = ["prune", SOURCE, "-q", "-o", "out", "--scorer", "random"]
        for key, held in given.items():
            flags = flags_of(prune.options[key])[0].split("/")
            if key == "scorer":
                continue
            if isinstance(held, bool):
                words.append(flags[0] if held else flags[1])
            else:
                written = [text] if key == name else [str(held)]
                for part in written[0].split(" ") if key == "quotas" else written:
                    words += [flags[0], part]
        with pytest.raises(Asked) as by_python:
            dp.prune(SOURCE, progress=False, **given)
        monkeypatch.setattr("sys.argv", ["datapruner", *words])
        from datapruner import cli

        with pytest.raises(Asked) as by_command:
            cli.main()
        first, second = by_python.value.args[0], by_command.value.args[0]
        default = Recipe(source=SOURCE)
        if first != second or getattr(first, name) == getattr(default, name):
            differ.append((name, getattr(first, name), getattr(second, name)))
    assert differ == []


KEPT = Path(__file__).parent / "recipes"


@pytest.mark.parametrize("name", sorted(path.stem for path in KEPT.glob("*.yaml")))
def test_recipes_that_were_saved_before_run_and_stay_as_they_are(name, folder, tiny_llama):
    """Saved by versions before this one; only their inputs' hashes are this test's.

    What a recipe of then left to the default, one of today says: `default-scorer` names no scorer.
    """
    saved = yaml.safe_load((KEPT / f"{name}.yaml").read_text())
    held = {key: value for key, value in saved.items() if not key.endswith("_content")}
    places = {"source": "./rows.jsonl", "embeddings": "./rows.npy", "divergences": "./jsd.npy"}
    held |= {key: place for key, place in places.items() if key in held}
    if "model" in held:
        held["model"] = str(tiny_llama)
    Path("recipe.yaml").write_text(yaml.safe_dump(held))
    dp.run("recipe.yaml", progress=False).save("out")
    again = yaml.safe_load(Path("out/recipe.yaml").read_text())
    held.setdefault("scorers", [{"name": "concept_complexity"}])
    ways = ("source", "embeddings", "divergences", "model", "recipe_format")
    assert {
        key: value for key, value in again.items() if not key.endswith("_content") and key not in ways
    } == {key: value for key, value in held.items() if key not in ways}
