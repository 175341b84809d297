"""The default recipe: what it is written out to, what leaves a part out, and lines that add up to what is dropped."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import yaml
from conftest import command
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import datapruner as dp
from datapruner.choices import AUTO_PARTS
from datapruner.cleaning.steps import rules
from datapruner.errors import DataPrunerError
from datapruner.measuring.arguments import requested
from datapruner.measuring.reading import fitted, read_rows
from datapruner.parts import CLEANING, built_in
from datapruner.recipe import Recipe, load_recipe
from datapruner.recipe.auto import STEPS, expanded
from datapruner.scorers.auto import Auto
from datapruner.signals import vectors

WORDS = [
    "stone",
    "lamp",
    "river",
    "market",
    "garden",
    "letter",
    "harbour",
    "bridge",
    "kitchen",
    "planet",
    "candle",
]
NOISE = [step for step in STEPS["noise"] if step in built_in(CLEANING) and step != "unfinished_answer"]
N = 60


def make_rows(n=N, seed=0):
    """Rows that differ, of two topics; nothing is wrong with them."""
    rng = np.random.default_rng(seed)
    return [
        {
            "question": f"How would you explain {' and '.join(rng.choice(WORDS, 5))} to somebody new?",
            "answer": f"First look at the {' then the '.join(rng.choice(WORDS, 6))}, and begin again.",
            "topic": "big" if number % 4 else "small",
        }
        for number in range(n)
    ]


def spoilt(rows):
    """A copy, a near copy, a refusal, an answer that is not there, an echo: what each part is to find."""
    made = [dict(row) for row in rows]
    made[10] = dict(made[3])
    made[11] = {**made[4], "question": made[4]["question"].replace("somebody new", "someone new")}
    made[20]["answer"] = "I'm sorry, but as an AI language model I cannot help with that."
    made[30]["answer"] = " "
    made[31]["answer"] = made[31]["question"]
    return made


def given_vectors(n=N, seed=1):
    return np.random.default_rng(seed).normal(size=(n, 8)).astype(np.float32)


def pruned(rows, **options):
    options.setdefault("embeddings", given_vectors(len(rows["train"] if isinstance(rows, dict) else rows)))
    return dp.prune(rows, progress=False, **options)


def counts(selection):
    return {one.part: one.count for one in selection.summary.parts}


# What it is written out to


def test_everything_is_written_out():
    assert expanded({"source": "rows.jsonl"}) == {
        "source": "rows.jsonl",
        "without": [],
        "dedup": ["exact", "near"],
        "near_numbers": True,
        "near_blanks": True,
        "cleaning": ["rules", *NOISE],
        "scorers": [{"name": "auto"}],
        "embed": "prompt",
        "keep": 1.0,
    }
    assert expanded({"per_group": "topic", "keep": 0.3})["scorers"] == [
        {"name": "auto", "parameters": {"within": "column:topic"}}
    ]
    assert expanded({"embeddings": "rows.npy"})["cleaning"] == [
        "rules"
    ]  # no embedder runs where vectors are given
    assert "keep" not in expanded({}, spends=False)
    assert "keep" not in expanded({"keep_tokens": 90})


@pytest.mark.parametrize("part", AUTO_PARTS)
def test_each_part_is_left_out_by_its_name(part):
    whole, found = expanded({}), expanded({"without": part})
    differs = {name for name in whole if whole[name] != found.get(name)} - {"without"}
    assert (
        differs
        == {
            "leaks": set(),
            "copies": {"dedup", "near_numbers", "near_blanks"},
            "rules": {"cleaning"},
            "noise": {"cleaning"} if NOISE else set(),
            "shares": {"scorers", "embed"},
        }[part]
    )
    assert found["without"] == [part]


def test_what_is_written_out_once_stays_as_it_is():
    for said in ({}, {"without": ["copies", "shares"]}, {"dedup": False, "cleaning": ["cut_off"]}):
        once = expanded(said)
        assert expanded(once) == once


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"dedup": False}, {"dedup": False}),
        ({"dedup": ["semantic"]}, {"dedup": ["semantic"]}),
        ({"cleaning": ["cut_off"]}, {"cleaning": ["rules", *NOISE, "cut_off"]}),
        (
            {"cleaning": [{"rules": {"without": ["refused"]}}]},
            {"cleaning": [*NOISE, {"rules": {"without": ["refused"]}}]},
        ),
        ({"scorers": ["length"]}, {"scorers": ["length"]}),
        ({"keep": 5}, {"keep": 5}),
        ({"embed": "both"}, {"embed": "both"}),
        ({"quotas": {"a": 3}}, {"quotas": {"a": 3}}),
    ],
)
def test_what_was_said_goes_before_what_is_default(said, found):
    assert {name: expanded(said)[name] for name in found} == found


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            {"without": ["copis"]},
            r"leaks, copies, rules, noise or shares, not 'copis'. Did you mean 'copies'",
        ),
        ({"without": ["copies"], "dedup": True}, "dedup=True asks for what without='copies' leaves out"),
        ({"without": ["leaks"], "decontaminate": "t"}, "decontaminate= asks for what without='leaks' leaves"),
        ({"without": ["rules"], "cleaning": ["rules"]}, "cleaning='rules' asks for what without='rules'"),
        ({"without": [3]}, "not 3"),
    ],
)
def test_what_contradicts_itself_is_refused(said, words):
    with pytest.raises(DataPrunerError, match=words):
        expanded(said)


def test_so_are_parameters_of_the_shares_without_them(tmp_path, monkeypatch, capsys):
    words = ("prune", "rows.jsonl", "--set", "power=1", "--without", "shares", "-o", str(tmp_path / "out"))
    assert command(monkeypatch, *words) == 2
    assert "--set and --n-clusters say how --without shares is to share" in capsys.readouterr().err


@pytest.mark.parametrize(
    "said",
    [
        {"dedup": ["semantic"]},  # compares whole rows by these vectors
        {"embeddings": "rows.npy"},
        {"per_group": "topic"},
        {"scorers": ["k_center"]},
        {"without": "shares"},
    ],
)
def test_prompts_are_embedded_for_the_clusters_alone(said):
    assert "embed" not in expanded(said)


@pytest.mark.parametrize(
    ("rows", "embed"),
    [
        (lambda row: row, "prompt"),
        (lambda row: {"text": row["answer"]}, "both"),
        (lambda row: {**row, "question": "Go on."}, "both"),
        (lambda row: {"prompt": "", "completion": row["answer"]}, "both"),
    ],
)
def test_rows_without_prompts_of_their_own_are_clustered_whole(rows, embed):
    asked = requested([rows(row) for row in make_rows()], selects=True, budget={}, progress=False)
    assert fitted(asked, read_rows(asked)).recipe.embed == embed


# What it does


def test_what_each_part_finds_is_out_and_told(monkeypatch, tmp_path, cache):
    selection = pruned(spoilt(make_rows()), keep=0.5, decontaminate=None)
    assert selection.recipe.without == []
    assert counts(selection) | {"noise": None} == {
        "leaks": None,
        "copies": 2,
        "rules": 2,
        "noise": None,
        "shares": N - 30 - 5 - (counts(selection)["noise"] or 0),
        "others": 1,
    }
    assert len(selection) == 30
    assert not selection.kept[[10, 11, 20, 30, 31]].any()


@pytest.mark.parametrize("part", ["copies", "rules"])
def test_without_a_part_its_rows_stay(part, cache):
    rows = spoilt(make_rows())
    of_part = {"copies": [10, 11], "rules": [20, 31]}[part]
    assert pruned(rows, without=part).kept[of_part].all()
    assert not pruned(rows).kept[of_part].any()


def test_without_shares_rows_are_drawn_at_random(cache):
    rows = make_rows()
    selection = pruned(rows, keep=20, without="shares")
    plain = dp.prune(rows, scorer="random", keep=20, progress=False, seed=0)
    assert selection.scorer == "random"
    assert selection.indices.tolist() == plain.indices.tolist()


def test_a_clean_set_loses_nothing_and_without_a_budget_all_that_is_left_is_kept(cache):
    assert pruned(make_rows()).kept.all()
    selection = pruned(spoilt(make_rows()), without="noise")
    assert len(selection) == N - 5
    assert selection.rebudget(0.5).kept.sum() == 30


def test_a_model_that_is_named_looks_for_answers_that_are_not_finished(tiny_llama, cache):
    """The model reads the rows, and as many again cut off; so few rows tell nothing, and none goes."""
    selection = pruned(make_rows(), keep=20, model=str(tiny_llama), cache=cache)
    assert [step.name for step in selection.recipe.cleaning] == ["rules", "unfinished_answer"]
    assert len(selection) == 20
    assert "not looked for" not in str(selection.summary)
    assert "not looked for" in str(pruned(make_rows(), keep=20, cache=cache).summary)


def test_naming_a_scorer_adds_nothing(cache):
    selection = pruned(spoilt(make_rows()), keep=0.5, scorer="auto")
    assert selection.recipe.without is None
    assert selection.recipe.dedup == selection.recipe.cleaning == []
    assert selection.summary.parts == ()
    with pytest.raises(DataPrunerError, match="say how much to keep"):
        pruned(make_rows(), scorer="auto")


def test_the_budgets_column_gives_the_groups(cache):
    selection = pruned(make_rows(80), keep=20, per_group="topic", without=["noise"], embeddings=None)
    kept = Counter(selection.dataset["topic"])
    assert kept == {"big": 10, "small": 10}
    assert "shared equally over the values of topic" in str(selection.summary)
    # 60 and 20 rows: sqrt(3) to 1.
    half = Auto(0.5, within="topic")
    selection = pruned(make_rows(80), keep=20, scorer=half, without=["noise"], embeddings=None)
    assert Counter(selection.dataset["topic"]) == {"big": 13, "small": 7}
    assert "shared over the values of topic, by size^0.5" in str(selection.summary)
    scores = dp.score(make_rows(80), without=["noise"], cache=cache, progress=False)
    chosen = scores.select(keep=20, per_group="topic")
    assert Counter(chosen.dataset["topic"]) == {"big": 10, "small": 10}
    assert "shared equally over the values of topic, and their clusters" in str(chosen.summary)
    given = pruned(make_rows(80), keep=20, per_group="topic", group_share={"big": 0.7}, embeddings=None)
    assert Counter(given.dataset["topic"]) == {"big": 14, "small": 6}
    assert "shared equally over the values of topic, big as said" in str(given.summary)


# Leaks


def test_a_test_set_that_is_named_is_looked_for(tmp_path, cache):
    rows = make_rows()
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[5:7]))
    selection = pruned(rows, decontaminate=str(tmp_path / "test.jsonl"))
    assert counts(selection)["leaks"] == 2
    assert not selection.kept[[5, 6]].any()
    assert "from test.jsonl" in str(selection.summary)


def with_tests(rows, tests):
    return DatasetDict({"train": Dataset.from_list(rows), "test": Dataset.from_list(tests)})


def test_else_the_sources_own_test_split_is(cache):
    rows = make_rows()
    source = with_tests(rows, rows[5:7])
    selection = pruned(source)
    assert selection.recipe.decontaminate_split == "test"
    assert np.flatnonzero(~selection.kept).tolist() == [5, 6]
    assert "from the split test" in str(selection.summary)
    left = pruned(source, without="leaks")
    assert left.kept.all()
    assert left.recipe.decontaminate_split is None
    # Whoever names a scorer is not surprised, and whoever names the split gets it.
    assert pruned(source, scorer="random", keep=1.0).kept.all()
    assert pruned(source, scorer="random", keep=1.0, decontaminate_split="test").kept.sum() == N - 2


@pytest.mark.parametrize(
    "tests",
    [
        [{"question": "Hm?", "answer": "No.", "topic": "x"}],
        [{"label": 3}],
        [{"question": "", "answer": "", "topic": ""}],
    ],
)
def test_a_test_split_that_says_nothing_is_in_nobodys_way(tests, cache):
    assert pruned(with_tests(make_rows(), tests)).kept.all()


def test_a_split_that_is_not_there_is_refused(cache):
    with pytest.raises(DataPrunerError, match=r"no split 'tests' beside 'train'. Did you mean 'test'"):
        pruned(with_tests(make_rows(), make_rows(3)), decontaminate_split="tests")
    with pytest.raises(DataPrunerError, match=r"Its others: none; name a test set with decontaminate="):
        pruned(make_rows(), decontaminate_split="test")


def test_a_folder_with_a_test_split_runs_again_to_the_byte(tmp_path, cache, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    rows = spoilt(make_rows())
    for name, held in (("train", rows), ("test", rows[5:7])):
        (tmp_path / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held))
    np.save("rows.npy", given_vectors())
    words = ("--embeddings", "rows.npy", "--keep", "0.4", "-q")
    assert command(monkeypatch, "prune", "data", *words, "-o", "first") == 0
    assert command(monkeypatch, "run", "first/recipe.yaml", "-q", "-o", "second") == 0
    said = yaml.safe_load((tmp_path / "first" / "recipe.yaml").read_text())
    assert said["decontaminate_split"] == "test"
    assert "decontaminate" not in said
    assert said["scorers"] == [{"name": "auto"}]
    for name in ("recipe.yaml", "selection.parquet", "README.md", "data/train-00000-of-00001.parquet"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


# What it says on the way


def test_nothing_is_said_twice(cache, caplog):
    """Whoever names a scorer is told of rows that go; the default recipe's lines count them at the end."""
    shared = "Answer briefly, in your own words, and give one reason for what you say: "
    rows = [
        {
            "question": f"{shared} what of {' '.join(f'{word}s{number}' for word in WORDS)}?",
            "answer": row["answer"],
        }
        for number, row in enumerate(make_rows())
    ]
    rows[30]["answer"] = " "
    rows[31]["answer"] = "Write to somebody@somewhere.org, and begin again with the river."
    with caplog.at_level("WARNING", logger="datapruner"):
        selection = pruned(rows)
        assert caplog.messages == []
        assert "1 row without an answer" in str(selection.summary)
        assert "rows with an e-mail address" in str(selection.summary)
        pruned(rows, scorer="random", keep=1.0, dedup=True, cleaning=["rules"])
    told = " ".join(caplog.messages)
    assert "1 of 60 rows have no answer" in told
    assert "hold words that many share" in told
    assert "hold personal data" in told


def test_the_embedder_is_opened_once_for_all_that_is_embedded(monkeypatch, cache):
    opened = []
    load = vectors.load_text_embedder
    monkeypatch.setattr(
        vectors, "load_text_embedder", lambda *names, **how: opened.append(names) or load(*names, **how)
    )
    dp.prune(make_rows(24), keep=0.5, cache=cache, progress=False, embed="both")
    assert len(opened) == 1


# Recipes


def test_a_recipe_by_hand_that_names_no_scorer_is_the_default_one(tmp_path, cache):
    file = tmp_path / "mine.yaml"
    file.write_text("source: ./rows.jsonl\nwithout: [shares]\nkeep: 0.5\n")
    held = load_recipe(file)
    assert [one.name for one in held.scorers] == ["random"]
    assert held.dedup == ["exact", "near"]
    assert [one.name for one in held.cleaning] == ["rules", *NOISE]
    # One that names a scorer is what it says.
    file.write_text("source: ./rows.jsonl\nscorers: [{name: auto}]\nkeep: 0.5\n")
    assert load_recipe(file).dedup == []
    assert Recipe(source="rows.jsonl").in_full.dedup == ["exact", "near"]


@pytest.mark.parametrize("start", ["", "recipe_format: 1\n", "recipe_format: 2\n"])
def test_a_saved_one_of_an_earlier_version_means_the_default_of_then(start, tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(f"# datapruner run recipe.yaml\n{start}source: ./rows.jsonl\nkeep: 0.3\n")
    held = load_recipe(file)
    assert [one.name for one in held.scorers] == ["concept_complexity"]
    assert held.dedup == held.cleaning == []
    assert held.without is None


def test_a_result_read_again_tells_the_same(tmp_path, cache):
    selection = pruned(spoilt(make_rows()), keep=0.5)
    selection.save(tmp_path / "out")
    again = dp.load_selection(tmp_path / "out")
    assert again.summary.parts == selection.summary.parts
    assert str(again.summary) == str(selection.summary)


# Lines


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_the_lines_add_up_to_what_is_dropped(data):
    n = data.draw(st.integers(2, 40))
    rows = make_rows(n, seed=data.draw(st.integers(0, 3)))
    for row in rows:
        kind = data.draw(st.sampled_from(["", "", "", "copy", "empty", "refusal", "echo"]))
        if kind == "copy":
            row.update(rows[0])
        elif kind == "empty":
            row["answer"] = ""
        elif kind == "refusal":
            row["answer"] = "I'm sorry, but as an AI language model I cannot help with that."
        elif kind == "echo":
            row["answer"] = row["question"]
    rows[-1] = make_rows(1, seed=9)[0]
    without = data.draw(st.lists(st.sampled_from(AUTO_PARTS), unique=True))
    never = data.draw(st.lists(st.integers(0, n - 2), max_size=2, unique=True))
    keep = data.draw(st.sampled_from([None, 0.2, 0.7, 1]))
    found = pruned(rows, keep=keep, without=without, never_keep=never).summary
    assert [one.part for one in found.parts][:5] == list(AUTO_PARTS)
    assert sum(one.count or 0 for one in found.parts) == found.dropped
    assert all(one.count is None for one in found.parts if one.part in set(without) - {"shares"})


def test_lines_say_how_a_part_is_left_out_in_the_words_of_the_way_in(tmp_path, monkeypatch, capsys, cache):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in spoilt(make_rows())))
    np.save(tmp_path / "rows.npy", given_vectors())
    words = ("prune", str(rows), "--embeddings", str(tmp_path / "rows.npy"), "--keep", "0.5")
    assert command(monkeypatch, *words, "-o", str(tmp_path / "out")) == 0
    out = capsys.readouterr().out
    assert "--without copies" in out
    assert "2 of 60 rows out" in out
    assert "--decontaminate TEST_SET" in out
    assert command(monkeypatch, *words, "--dry-run", "-o", str(tmp_path / "ahead")) == 0
    ahead = capsys.readouterr().out
    assert "2 of 60 rows out" in ahead
    assert "known once rows are chosen" in ahead
    selection = dp.load_selection(tmp_path / "out")
    assert "without='copies'" in str(selection.summary)
    assert "without=&#x27;copies&#x27;" in selection.summary._repr_html_()


@pytest.mark.parametrize("width", [20, 50, 60, 80, 100, 200])
def test_narrow_lines_keep_the_count_and_the_option(width, cache):
    found = pruned(spoilt(make_rows()), keep=0.5).summary
    lines = found.lines(width=width)
    assert len(lines) == 1 + len(found.parts)
    for one, line in zip(found.parts, lines[1:], strict=True):
        part, did, switch, _ = one.cells()
        assert line.startswith(part)
        assert did in line
        assert switch in line
    assert all(len(line) <= max(width, 80) for line in lines)


def test_rules_are_called_as_they_are_left_out(cache):
    found = str(pruned(spoilt(make_rows())).summary)
    assert "1 refused" in found
    assert "1 echoes prompt" in found
    assert {"refused", "echoes_prompt"} <= {*rules.NAMES}


# Sets that are hardly any


def test_one_row_and_very_short_ones(cache):
    assert len(pruned([{"question": "Hm?", "answer": "Yes, it is so."}])) == 1
    rows = [{"text": word} for word in WORDS]
    assert len(pruned(rows, keep=3)) == 3


@pytest.mark.parametrize(
    ("value", "why"), [(None, "is empty in every row"), ("x", "is the same in every row")]
)
def test_a_column_of_one_value_is_one_group_and_told(value, why, tmp_path, cache):
    rows = [{**row, "topic": value} for row in make_rows()]
    selection = pruned(rows, keep=7, per_group="topic")
    assert len(selection) == 7
    assert selection.summary.parts[4].said == f"a plain random draw, since topic {why}"
    selection.save(tmp_path / "out")
    assert dp.load_selection(tmp_path / "out").summary.parts == selection.summary.parts


def test_pictures_take_vectors_or_are_refused_in_a_sentence(cache):
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)) for _ in range(12)]
    source = Dataset.from_dict({"image": pictures, "label": [0, 1, 2] * 4})
    assert len(pruned(source, keep=6)) == 6
    assert len(pruned(source, keep=6, per_group="label", embeddings=None, without="noise")) == 6
    with pytest.raises(DataPrunerError, match="images need an image model"):
        pruned(source, keep=6, embeddings=None)
