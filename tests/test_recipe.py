"""Recipes: what they hold, where their paths point, and that they make the same result again or say why not."""

from __future__ import annotations

import datetime
import filecmp
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import Dataset, DatasetDict, load_dataset

import datapruner as dp
from datapruner.recipe import Method, load_recipe, make_recipe, method_of
from datapruner.samples import named as loading
from datapruner.samples.tables import Read
from datapruner.scorers import Random, Ranking, Scorer
from tests.conftest import command

N = 30


def rows(n: int = N) -> list[dict]:
    return [{"question": f"q {i}", "answer": f"a {i * i}"} for i in range(n)]


def write(path: Path, made: list[dict] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in made or rows()))
    return path


def saved(folder: Path) -> dict[str, Any]:
    return yaml.safe_load((folder / "recipe.yaml").read_text())


def assert_same(first: Path, second: Path) -> None:
    for name in ("README.md", "recipe.yaml", "selection.parquet", "data/train-00000-of-00001.parquet"):
        assert filecmp.cmp(first / name, second / name, shallow=False), name


@dataclass(frozen=True)
class Mine(Scorer):
    """A scorer that no entry point names."""

    name: ClassVar[str] = "mine"
    needs: ClassVar[frozenset[str]] = frozenset()

    model: Any = None
    weights: list[float] = field(default_factory=list)

    def _score(self, signals):
        return Ranking(np.arange(signals.num_rows, dtype=np.float64))


class Encoder:
    identity = "two numbers"

    def encode(self, texts):
        return [[1.0, len(text)] for text in texts]


# Paths


def test_paths_are_saved_with_dots_and_found_again(tmp_path):
    write(tmp_path / "rows.jsonl")
    dp.prune(tmp_path / "rows.jsonl", scorer="random", keep=5).save(tmp_path / "out")
    dp.prune(tmp_path / "rows.jsonl", scorer="random", keep=5).save(tmp_path / "deep" / "out")
    assert saved(tmp_path / "out")["source"] == "../rows.jsonl"
    assert saved(tmp_path / "deep" / "out")["source"] == "../../rows.jsonl"
    recipe = make_recipe(source=str(tmp_path / "rows.jsonl"))
    assert "source: ./rows.jsonl\n" in recipe.save_yaml(tmp_path)
    for path in (tmp_path / "out", tmp_path / "deep" / "out"):
        dp.run(path / "recipe.yaml").save(tmp_path / "again", overwrite=True)
        assert (tmp_path / "again" / "selection.parquet").read_bytes() == (
            path / "selection.parquet"
        ).read_bytes()


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "rows.jsonl")
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    dp.prune("~/rows.jsonl", scorer="random", keep=5).save("~/out")
    assert saved(tmp_path / "out")["source"] == "../rows.jsonl"
    dp.run("~/out/recipe.yaml").save("~/again")
    assert_same(tmp_path / "out", tmp_path / "again")
    assert list((tmp_path / "else").iterdir()) == []


def test_the_working_folder_may_change_before_saving(tmp_path, monkeypatch):
    write(tmp_path / "d" / "rows.jsonl")
    np.save(tmp_path / "d" / "E.npy", np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32))
    monkeypatch.chdir(tmp_path)
    selection = dp.prune("d/rows.jsonl", scorer="prototypes", embeddings="d/E.npy", keep=5, progress=False)
    scores = dp.score("d/rows.jsonl", scorers="random")
    recipe = make_recipe(source="d/rows.jsonl", keep=5, scorers=[{"name": "random"}])
    (tmp_path / "x").mkdir()
    monkeypatch.chdir(tmp_path / "x")
    selection.save(tmp_path / "out")
    assert saved(tmp_path / "out")["source"] == "../d/rows.jsonl"
    assert saved(tmp_path / "out")["embeddings"] == "../d/E.npy"
    scores.save("s")
    assert saved(tmp_path / "x" / "s")["source"] == "../../d/rows.jsonl"
    assert len(dp.run(recipe)) == 5


@pytest.mark.parametrize("folder", ["run[1]", "plain", "a*b"])
def test_hub_names_stay_whatever_the_folder_is_called(tmp_path, folder):
    path = tmp_path / folder / "recipe.yaml"
    path.parent.mkdir()
    path.write_text("source: openai/gsm8k:main\nkeep: 3\n")
    (path.parent / "openai" / "gsm8k:main").mkdir(parents=True)
    assert load_recipe(path).source == "openai/gsm8k:main"
    assert load_recipe(path).reads == []


@pytest.mark.parametrize("folder", ["run[1]", "plain"])
@pytest.mark.parametrize("source", ["rows.jsonl", "./rows.jsonl", "*.jsonl", "./r[o]ws.jsonl", "kept"])
def test_hand_written_paths_count_from_the_recipe(tmp_path, monkeypatch, folder, source):
    write(tmp_path / folder / "rows.jsonl")
    write(tmp_path / folder / "kept" / "train.jsonl")
    (tmp_path / folder / "recipe.yaml").write_text(f"source: '{source}'\nkeep: 5\nscorers:\n- name: random\n")
    monkeypatch.chdir(tmp_path)
    selection = dp.run(f"{folder}/recipe.yaml")
    assert len(selection.kept) == N
    selection.save("out")
    dp.run("out/recipe.yaml").save("again")
    assert_same(tmp_path / "out", tmp_path / "again")


def test_an_alias_stays_one_beside_a_folder_of_its_name(tmp_path, monkeypatch):
    (tmp_path / "minilm").mkdir()
    (tmp_path / "recipe.yaml").write_text("source: rows.jsonl\nembedder: minilm\nkeep: 3\n")
    assert load_recipe(tmp_path / "recipe.yaml").embedder == "minilm"
    monkeypatch.chdir(tmp_path)
    assert "embedder" not in yaml.safe_load(make_recipe(source="a/b").save_yaml(tmp_path))


def test_scores_of_data_that_moved_name_the_new_place(tmp_path):
    write(tmp_path / "rows.jsonl")
    dp.score(tmp_path / "rows.jsonl", scorers="random").save(tmp_path / "scores")
    (tmp_path / "rows.jsonl").rename(tmp_path / "moved.jsonl")
    dp.load_scores(tmp_path / "scores", source=tmp_path / "moved.jsonl").select(keep=5).save(tmp_path / "out")
    assert saved(tmp_path / "out")["source"] == "../moved.jsonl"
    dp.run(tmp_path / "out" / "recipe.yaml").save(tmp_path / "again")
    assert_same(tmp_path / "out", tmp_path / "again")
    dp.load_scores(tmp_path / "scores", source=rows()).select(keep=5).save(tmp_path / "held")
    assert saved(tmp_path / "held")["in_memory"] == ["source"]


def test_what_goes_to_the_hub_has_no_path_of_this_machine(tmp_path, monkeypatch):
    uploaded = {}

    class Hub:
        def create_repo(self, *_, **__):
            pass

        def upload_folder(self, *, folder_path, **_):
            uploaded.update({p.name: p.read_text() for p in Path(folder_path).glob("*.*m*")})
            return "commit"

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    write(tmp_path / "secret" / "rows.jsonl")
    dp.push_to_hub(dp.prune(tmp_path / "secret" / "rows.jsonl", scorer="random", keep=5), "me/rows")
    assert yaml.safe_load(uploaded["recipe.yaml"])["source"] == "./rows.jsonl"
    assert "secret" not in "".join(uploaded.values())


def test_the_card_does_not_depend_on_the_working_folder(tmp_path, monkeypatch):
    write(tmp_path / "d" / "rows.jsonl")
    monkeypatch.chdir(tmp_path)
    selection = dp.prune("d/*.jsonl", scorer="random", keep=5)
    selection.save("out")
    monkeypatch.chdir(tmp_path / "d")
    selection.save("../again")
    assert_same(tmp_path / "out", tmp_path / "again")
    assert "rows of `*.jsonl`" in (tmp_path / "out" / "README.md").read_text()


def test_a_hub_source_is_saved_with_its_revision(tmp_path, monkeypatch):
    sha = "0123456789" * 4
    asked = []

    def hub(name, config, revision, label):
        asked.append((name, config, revision))
        return {"train": Read(Dataset.from_list(rows()))}, revision or sha

    monkeypatch.setattr(loading, "_load_hub", hub)
    scores = dp.score("org/name:main", scorers="random")
    scores.save(tmp_path / "scores")
    scores.select(keep=5).save(tmp_path / "out")
    assert saved(tmp_path / "scores")["source"] == saved(tmp_path / "out")["source"] == f"org/name:main@{sha}"
    dp.run(tmp_path / "out" / "recipe.yaml").save(tmp_path / "again")
    assert_same(tmp_path / "out", tmp_path / "again")
    assert asked == [("org/name", "main", None), ("org/name", "main", sha)]


# What was in memory


@pytest.mark.parametrize(
    ("given", "held"),
    [
        ({"embeddings": np.random.default_rng(0).normal(size=(N, 4))}, "embeddings"),
        ({"embedder": Encoder()}, "embedder"),
        ({"scorer": Mine()}, "scorer mine"),
        ({"source": rows()}, "source"),
    ],
    ids=["embeddings", "embedder", "scorer", "source"],
)
def test_objects_are_recorded_and_never_replaced_by_something_else(tmp_path, cache, given, held):
    arguments = {"source": write(tmp_path / "rows.jsonl"), "scorer": "random", "keep": 5, "progress": False}
    dp.prune(**arguments | given).save(tmp_path / "out")
    assert saved(tmp_path / "out")["in_memory"] == [held]
    with pytest.raises(dp.DataPrunerError, match=rf"in memory \({held}\); call datapruner\.prune"):
        dp.run(tmp_path / "out" / "recipe.yaml")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "same bytes" not in card
    assert f"`{held}`" in card


def test_named_things_are_not_in_memory(tmp_path):
    write(tmp_path / "rows.jsonl")
    dp.prune(tmp_path / "rows.jsonl", scorer=Random(), keep=5).save(tmp_path / "out")
    assert "in_memory" not in saved(tmp_path / "out")
    assert "makes the same bytes again" in (tmp_path / "out" / "README.md").read_text()


# Values


def test_numpy_values_are_saved_as_plain_ones(tmp_path):
    write(tmp_path / "rows.jsonl")
    selection = dp.prune(
        tmp_path / "rows.jsonl",
        scorer="random",
        keep=np.float64(0.5),
        seed=np.int64(3),
        never_keep=np.array([1]),
    )
    selection.save(tmp_path / "out")
    dp.run(tmp_path / "out" / "recipe.yaml").save(tmp_path / "again")
    assert_same(tmp_path / "out", tmp_path / "again")
    given = {
        "a": np.int64(2),
        "b": np.arange(3),
        "c": (np.float32(0.5), np.str_("x")),
        "d": {"e": np.bool_(True)},
    }
    made = method_of("name", given, named=True)
    assert made.parameters == {"a": 2, "b": [0, 1, 2], "c": [0.5, "x"], "d": {"e": True}}
    assert yaml.safe_load(yaml.safe_dump(made.parameters)) == made.parameters


def test_what_no_recipe_can_hold_is_one_sentence_before_the_work():
    with pytest.raises(dp.DataPrunerError, match=r"'name': model is <object.*which no recipe can hold"):
        method_of("name", {"model": object()}, named=True)
    with pytest.raises(dp.DataPrunerError, match="no recipe can hold"):
        Method(name="name", parameters={"model": object()})


def test_an_object_of_a_class_of_ones_own_may_hold_anything(tmp_path):
    scorer = Mine(model=object(), weights=[1.0])
    dp.prune(rows(), scorer=scorer, keep=5).save(tmp_path / "out")
    assert saved(tmp_path / "out")["scorers"] == [{"name": "mine", "parameters": {"weights": [1.0]}}]
    dp.prune(rows(), scorer=Mine(), keep=5).save(tmp_path / "plain")
    assert saved(tmp_path / "plain")["scorers"] == [{"name": "mine"}]


def test_long_lists_of_rows_are_saved_as_ranges(tmp_path):
    n = 5000
    write(tmp_path / "rows.jsonl", rows(n))
    mask = np.random.default_rng(0).random(n) < 0.4
    selection = dp.prune(
        tmp_path / "rows.jsonl",
        scorer="random",
        keep=4000,
        always_keep=mask,
        never_keep=np.flatnonzero(~mask)[:9],
    )
    selection.save(tmp_path / "out")
    recipe = saved(tmp_path / "out")
    assert list(recipe["always_keep"]) == ["rows"]
    assert len(recipe["never_keep"]) == 9
    assert load_recipe(tmp_path / "out" / "recipe.yaml").always_keep == np.flatnonzero(mask).tolist()
    dp.run(tmp_path / "out" / "recipe.yaml").save(tmp_path / "again")
    assert_same(tmp_path / "out", tmp_path / "again")
    short = make_recipe(always_keep=[3, 1, 2])
    assert yaml.safe_load(short.save_yaml(tmp_path))["always_keep"] == [3, 1, 2]
    ranged = make_recipe(always_keep=[*range(5, 2000), 3, 2010, 2011])
    assert yaml.safe_load(ranged.save_yaml(tmp_path))["always_keep"] == {"rows": "3,5-1999,2010-2011"}


@pytest.mark.parametrize("given", ["{rows: 1-x}", "{rows: ''}", "{row: 1-2}", "{rows: 1, more: 2}"])
def test_ranges_that_are_none(tmp_path, given):
    (tmp_path / "recipe.yaml").write_text(f"source: a.jsonl\nkeep: 3\nalways_keep: {given}\n")
    with pytest.raises(dp.DataPrunerError, match=r"always_keep.*ranges such as"):
        load_recipe(tmp_path / "recipe.yaml")


def test_counted_tokens_are_counted_again(tmp_path, monkeypatch, tiny_llama):
    write(tmp_path / "rows.jsonl")
    monkeypatch.chdir(tmp_path)
    words = ["score", "rows.jsonl", "--scorer", "random", "--tokenizer", tiny_llama, "-q", "-o", "scores"]
    assert command(monkeypatch, *words) == 0
    assert saved(tmp_path / "scores")["count_tokens"] is True
    assert command(monkeypatch, "select", "scores", "--keep", 5, "-q", "-o", "out") == 0
    assert command(monkeypatch, "run", "out/recipe.yaml", "-q", "-o", "again") == 0
    assert "num_tokens" in pq.read_schema("out/selection.parquet").names
    assert_same(tmp_path / "out", tmp_path / "again")
    selection = dp.prune("rows.jsonl", scorer="random", keep_tokens=60, tokenizer=str(tiny_llama))
    selection.rebudget(0.5).save("half")
    dp.run("half/recipe.yaml").save("half-again")
    assert_same(tmp_path / "half", tmp_path / "half-again")


def test_the_format_is_part_of_the_recipe(tmp_path, monkeypatch):
    write(tmp_path / "rows.jsonl")
    monkeypatch.chdir(tmp_path)
    dp.prune("rows.jsonl", scorer="random", keep=5).save("out", format="jsonl")
    assert command(monkeypatch, "run", "out/recipe.yaml", "-q", "-o", "again") == 0
    assert filecmp.cmp(
        "out/data/train-00000-of-00001.jsonl", "again/data/train-00000-of-00001.jsonl", shallow=False
    )


# Saving


def test_a_result_never_replaces_what_it_was_made_from(tmp_path):
    write(tmp_path / "rows.jsonl")
    out = tmp_path / "out"
    dp.prune(tmp_path / "rows.jsonl", scorer="random", keep=20).save(out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    mapped = dp.prune(rows(), scorer="random", keep=9)
    mapped.save(tmp_path / "arrow", format="arrow")
    from datasets import load_from_disk

    for source, target in (
        (out, out),
        (str(out / "data" / "*.parquet"), out),
        (str(tmp_path / "o*" / "data" / "*.parquet"), out),
        (load_from_disk(str(tmp_path / "arrow" / "data")), tmp_path / "arrow"),
    ):
        scores = dp.score(source, scorers="random")
        for result in (scores, scores.select(keep=5)):
            with pytest.raises(dp.DataPrunerError, match="would replace"):
                result.save(target, overwrite=True)
    scores.save(tmp_path / "scores")
    dp.score(out, scorers="random").save(tmp_path / "first")
    moved = dp.load_scores(tmp_path / "first", source=out)
    with pytest.raises(dp.DataPrunerError, match="would replace"):
        moved.select(keep=5).save(out, overwrite=True)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_link_to_an_empty_folder_is_a_fine_target(tmp_path):
    write(tmp_path / "rows.jsonl")
    (tmp_path / "disk" / "big").mkdir(parents=True)
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "big")
    selection = dp.prune(tmp_path / "rows.jsonl", scorer="random", keep=5)
    selection.save(tmp_path / "out")
    assert (tmp_path / "out").is_symlink()
    assert [entry.name for entry in (tmp_path / "disk").iterdir()] == ["big"]
    assert saved(tmp_path / "disk" / "big")["source"] == "../../rows.jsonl"
    dp.run(tmp_path / "out" / "recipe.yaml").save(tmp_path / "out", overwrite=True)
    dp.run(tmp_path / "disk" / "big" / "recipe.yaml").save(tmp_path / "again")
    assert pq.read_table(tmp_path / "again" / "selection.parquet").num_rows == N


def test_a_split_that_cannot_be_saved_is_refused_before_the_work(tmp_path, monkeypatch, capsys):
    DatasetDict({"my-test": Dataset.from_list(rows()), "train": Dataset.from_list(rows())}).save_to_disk(
        tmp_path / "data"
    )
    monkeypatch.setattr(Random, "_score", lambda *_: pytest.fail("the work was done"))
    for verb in (["prune", "--keep", 3], ["score"]):
        words = [verb[0], tmp_path / "data", "--scorer", "random", *verb[1:], "-o", tmp_path / "out"]
        assert command(monkeypatch, *words) == 2
        assert "'my-test'" in capsys.readouterr().err


# JSON lines


def read(folder: Path, cache: Path) -> Dataset:
    return load_dataset(str(folder), split="train", cache_dir=str(cache))


def test_json_lines_lose_nothing(tmp_path):
    made = [
        {
            "text": f'Zoë\u2028 "{i}"\n \U0001f600',
            "exact": (i + 1) / 3 * 10.0 ** (i * 20 - 300),
            "whole": float(i),
            "zero": -0.0,
            "odd": [math.nan, math.inf, -math.inf, 1.5][i % 4],
            "big": 2**62 + i,
            "flag": [True, False, None][i % 3],
            "list": [{"a": 0.1 + i, "b": None}] * (i % 3),
            "nested": {"x": {"y": [0.1 + 0.2]}},
        }
        for i in range(N)
    ]
    selection = dp.prune(made, scorer="random", keep=N - 3)
    selection.save(tmp_path / "out", format="jsonl")
    expected = [made[row] for row in selection.indices]
    lines = (tmp_path / "out" / "data" / "train-00000-of-00001.jsonl").read_text(encoding="utf-8").split("\n")
    assert repr([json.loads(line) for line in lines[:-1]]) == repr(expected)
    assert lines[-1] == ""
    assert "Zoë" in lines[0]
    assert repr(read(tmp_path / "out", tmp_path / "hf").to_list()) == repr(expected)


def test_moments_are_written_in_iso_format(tmp_path):
    made = [{"text": f"t {i}", "at": datetime.datetime(2020, 1, 1 + i, 3, 4, 5)} for i in range(9)]
    selection = dp.prune(Dataset.from_list(made), scorer="random", keep=4)
    selection.save(tmp_path / "out", format="jsonl")
    assert '"at": "2020-01-0' in (tmp_path / "out" / "data" / "train-00000-of-00001.jsonl").read_text()
    again = read(tmp_path / "out", tmp_path / "hf")
    assert again.to_list() == [made[row] for row in selection.indices]


def test_images_and_bytes_need_parquet(tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.setattr(Random, "_score", lambda *_: pytest.fail("the work was done"))
    data = Dataset.from_list([{"text": f"t {i}", "picture": Image.new("RGB", (2, 2))} for i in range(6)])
    data.to_parquet(tmp_path / "picture.parquet")
    Dataset.from_list([{"text": "t", "raw": b"\xff"}] * 6).to_parquet(tmp_path / "raw.parquet")
    for name in ("picture", "raw"):
        with pytest.raises(dp.DataPrunerError, match=f"column '{name}' holds .*write parquet"):
            dp.run(
                make_recipe(
                    source=str(tmp_path / f"{name}.parquet"),
                    scorers=[{"name": "random"}],
                    keep=2,
                    format="jsonl",
                )
            )
    monkeypatch.undo()
    with pytest.raises(dp.DataPrunerError, match=r"column 'picture' holds .*write parquet"):
        dp.prune(data, scorer="random", keep=2).save(tmp_path / "out", format="jsonl")
    assert not (tmp_path / "out").exists()


def test_rows_dropped_for_one_reason_are_written_alike_every_time(tmp_path):
    """Arrow writes a dictionary that repeats itself with whatever lies in memory."""
    made = rows(5000)
    written = set()
    for number in range(12):
        noise = np.random.default_rng(number).random(1000 * number)
        dp.prune(made, scorer="random", keep=4000, never_keep=range(9)).save(tmp_path / str(number))
        written.add((tmp_path / str(number) / "selection.parquet").read_bytes())
        del noise
    assert len(written) == 1


def test_recovery_data_is_chosen_again_byte_for_byte(tmp_path, tiny_llama, monkeypatch):
    import torch

    from datapruner.models import load_causal_lm

    model, tokenizer = load_causal_lm(str(tiny_llama))
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.zero_()
    model.save_pretrained(tmp_path / "pruned")
    tokenizer.save_pretrained(tmp_path / "pruned")
    source = write(tmp_path / "rows.jsonl")
    np.save(tmp_path / "vectors.npy", np.random.default_rng(0).normal(size=(N, 8)).astype(np.float32))
    monkeypatch.setenv("DATAPRUNER_CACHE", str(tmp_path / "cache"))
    named = ["--scorer", "paser", "--model", tiny_llama, "--pruned-model", tmp_path / "pruned", "-q"]
    vectors = ["--embeddings", tmp_path / "vectors.npy"]
    assert command(monkeypatch, "prune", source, *named, *vectors, "--keep", 9, "-o", tmp_path / "first") == 0
    # One model after the other, from an empty cache: the same numbers, so the same bytes but for the recipe.
    monkeypatch.setenv("DATAPRUNER_CACHE", str(tmp_path / "other"))
    in_turn = [*named, *vectors, "--twins", "in_turn", "--keep", 9, "-o", tmp_path / "in-turn"]
    assert command(monkeypatch, "prune", source, *in_turn) == 0
    again = ["run", tmp_path / "first" / "recipe.yaml", "-o", tmp_path / "again", "-q"]
    assert command(monkeypatch, *again) == 0
    assert_same(tmp_path / "first", tmp_path / "again")
    tables = [pq.read_table(tmp_path / name / "selection.parquet") for name in ("first", "in-turn")]
    assert tables[0].equals(tables[1])
    assert saved(tmp_path / "first")["pruned_model"] == "../pruned"


def test_a_recipe_saved_before_donod_had_a_direction_keeps_its_own(tmp_path, caplog):
    nested = "- name: combined\n  parameters: {scorers: [donod, {name: donod, parameters: {weights: [1, 0]}}, ifd]}\n"
    body = "source: rows.jsonl\nmodel: m\nkeep: 0.5\nscorers:\n- name: donod\n- name: length\n" + nested

    def read(text):
        (tmp_path / "recipe.yaml").write_text(text)
        return load_recipe(tmp_path / "recipe.yaml")

    old = read("# datapruner run recipe.yaml\n" + body)
    assert "don=grow" in caplog.text
    assert old.scorers[0].parameters == {"don": "grow"}
    assert old.scorers[1].parameters == {}
    assert old.scorers[2].parameters["scorers"] == [
        {"name": "donod", "parameters": {"don": "grow"}},
        {"name": "donod", "parameters": {"weights": [1, 0], "don": "grow"}},
        "ifd",
    ]
    caplog.clear()
    # What is saved again says it; what is written by hand, or saved today, means today's default.
    assert read(old.save_yaml(tmp_path)) == old
    by_hand = read(body)
    assert by_hand.scorers[0].parameters == {}
    assert read(by_hand.save_yaml(tmp_path)) == by_hand
    assert not caplog.records


@pytest.mark.parametrize("number", [1, 2])
def test_a_recipe_saved_when_topoprune_meant_entanglement_goes_on_with_it(tmp_path, caplog, number):
    nested = (
        "- name: d2\n  parameters: {scorer: topoprune}\n"
        "- name: combined\n  parameters: {scorers: [topoprune, ifd]}\n"
    )
    body = (
        "source: rows.jsonl\nkeep: 0.5\nscorers:\n- name: topoprune\n  parameters: {steps: 3}\n"
        f"- name: topoprune\n  parameters: {{value: displacement}}\n{nested}"
    )

    def read(text):
        (tmp_path / "recipe.yaml").write_text(text)
        return load_recipe(tmp_path / "recipe.yaml")

    format_of = "" if number == 1 else f"recipe_format: {number}\n"
    old = read("# datapruner run recipe.yaml\n" + format_of + body)
    assert "value=entanglement" in caplog.text
    kept = {"value": "entanglement"}
    assert [held.parameters for held in old.scorers] == [
        {"steps": 3, **kept},
        {"value": "displacement"},
        {"scorer": {"name": "topoprune", "parameters": kept}},
        {"scorers": [{"name": "topoprune", "parameters": kept}, "ifd"]},
    ]
    caplog.clear()
    assert read(old.save_yaml(tmp_path)) == old
    assert read(body).scorers[0].parameters == {"steps": 3}
    assert not caplog.records


@pytest.mark.parametrize("number", ["99", "0", "two", "[1]"])
def test_a_recipe_of_a_later_format_is_refused(tmp_path, number):
    (tmp_path / "recipe.yaml").write_text(f"recipe_format: {number}\nsource: rows.jsonl\nkeep: 0.5\n")
    with pytest.raises(dp.DataPrunerError, match="later datapruner"):
        load_recipe(tmp_path / "recipe.yaml")
