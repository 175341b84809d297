"""Patterns and folders: what `glob` finds, each file once, in bounded time; and nothing waits for what is no file."""

from __future__ import annotations

import glob
import json
import os
import socket
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

import datapruner as dp
from datapruner.files.patterns import files_of
from datapruner.guards.limits import DEFAULTS, limit
from datapruner.recipe import load_recipe
from datapruner.samples import load_samples

ROW = '{"text": "a"}\n'


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    for name in ("a.jsonl", "b.jsonl", ".hidden.jsonl", "[x].jsonl", "x.jsonl", "in/c.jsonl", "in/deep/d.jsonl",
                 "in/deep/e.txt", "in/.no/f.jsonl", "other/c.jsonl", "other/in/c.jsonl", "é/ö.jsonl"):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(ROW)
    return root


PARTS = st.sampled_from(
    ["**", "*", "in", "deep", "other", "*.jsonl", "[abc].jsonl", "c.*", "?", "é", ".*", ".no", "[[]x].jsonl"]
)


@given(parts=st.lists(PARTS, min_size=1, max_size=4))
def test_patterns_find_what_glob_finds(tree, parts):
    pattern = str(Path(glob.escape(str(tree)), *parts))
    wanted = {Path(name) for name in glob.glob(pattern, recursive=True) if Path(name).is_file()}  # noqa: PTH207
    assert files_of(pattern, "it") == sorted(wanted)


def test_relative_patterns_stay_relative(tree, monkeypatch):
    monkeypatch.chdir(tree)
    assert files_of("in/**/*.jsonl", "it") == [Path("in/c.jsonl"), Path("in/deep/d.jsonl")]


def looped(root: Path, links: int = 12) -> Path:
    """A folder of links to itself and to each other, in which a walk that follows them takes 12^40 steps."""
    (root / "in").mkdir(parents=True)
    (root / "in" / "a.jsonl").write_text(ROW * 3)
    for number in range(links):
        (root / "in" / f"back{number}").symlink_to(root)
        (root / f"forth{number}").symlink_to(root / "in")
    return root


@pytest.mark.parametrize("pattern", ["**/*.jsonl", "**", "**/in/*", "in/**/a.jsonl"])
def test_links_in_a_circle_are_met_once(tmp_path, pattern):
    root = looped(tmp_path / "held")
    assert len(files_of(f"{root}/{pattern}", "it")) == 1
    assert len(load_samples(f"{root}/{pattern}")) == 3


def test_folders_with_links_in_a_circle(tmp_path):
    assert len(load_samples(str(looped(tmp_path / "held")))) == 3
    (looped(tmp_path / "empty") / "in" / "a.jsonl").unlink()
    with pytest.raises(dp.DataPrunerError, match="holds no data files"):
        load_samples(str(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("files", 5, "matches more files than 5"),
        ("searched", 7, "more files and folders than 7"),
        ("search_seconds", 0.0, "for more seconds than"),
    ],
)
def test_a_search_ends(tmp_path, monkeypatch, name, value, message):
    for number in range(150):
        (tmp_path / f"{number}.jsonl").write_text(ROW)
    monkeypatch.setitem(DEFAULTS, name, value)
    with pytest.raises(dp.DataPrunerError, match=f"{message}.*; limits={{'{name}'.*allows more"):
        load_samples(f"{tmp_path}/*")
    (tmp_path / "recipe.yaml").write_text("source: ./*\nkeep: 1\nscorers: [{name: random}]\n")
    with pytest.raises(dp.DataPrunerError, match=message):
        dp.run(tmp_path / "recipe.yaml")
    with pytest.raises(dp.DataPrunerError, match=message):
        _ = load_recipe(tmp_path / "recipe.yaml").reads


def test_a_limit_is_an_environment_variable(monkeypatch):
    monkeypatch.setenv("DATAPRUNER_MAX_FILES", "1_234")
    assert limit("files") == 1234
    for wrong in ("0", "-3", "many", "1e9", "9" * 5000):
        monkeypatch.setenv("DATAPRUNER_MAX_FILES", wrong)
        with pytest.raises(dp.DataPrunerError, match="DATAPRUNER_MAX_FILES is a whole number above 0"):
            limit("files")
    monkeypatch.setenv("DATAPRUNER_MAX_FILES", "")
    assert limit("files") == DEFAULTS["files"]


def pipe(path: Path) -> Path:
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return path


def listening(path: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as held:
        held.bind(str(path))
    return path


@pytest.mark.parametrize(
    "ending", [".jsonl", ".json", ".csv", ".parquet", ".arrow", ".jsonl.gz", ".parquet.zst"]
)
@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "link to a pipe", "folder"])
def test_what_is_no_file_is_said(tmp_path, monkeypatch, kind, ending):
    monkeypatch.chdir(tmp_path)  # a socket's name is short
    file = Path(f"held{ending}")
    if kind == "pipe":
        pipe(file)
    elif kind == "socket":
        listening(file)
    elif kind == "device":
        file.symlink_to("/dev/zero")
    elif kind == "folder":
        file.mkdir()
    else:
        file.symlink_to(pipe(tmp_path / "pipe"))
    with pytest.raises(dp.DataPrunerError, match=r"is not a file|holds no data files"):
        load_samples(str(file))
    with pytest.raises(dp.DataPrunerError, match=r"is not a file|nothing matches"):
        load_samples("held*" if kind != "folder" else "held*/*")
    if kind != "folder":
        with pytest.raises(dp.DataPrunerError, match="is not a file"):
            load_samples([file])


def test_pipes_in_folders_are_passed_over_or_said(tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    (own / "a.jsonl").write_text(ROW)
    pipe(own / "b.jsonl")
    pipe(own / "metadata.jsonl")
    assert len(load_samples(str(own))) == 1


@pytest.mark.parametrize("name", ["dataset_info.json", "data-00000-of-00001.arrow"])
def test_pipes_in_a_saved_folder(tmp_path, name):
    Dataset.from_dict({"text": ["a", "b"]}).save_to_disk(tmp_path / "held")
    pipe(tmp_path / "held" / name)
    with pytest.raises(dp.DataPrunerError, match=f"cannot be loaded: {name} is no file"):
        load_samples(str(tmp_path / "held"))


def test_a_saved_folder_that_names_files_outside_of_it(tmp_path):
    Dataset.from_dict({"text": ["a", "b"]}).save_to_disk(tmp_path / "held")
    state = tmp_path / "held" / "state.json"
    told = json.loads(state.read_text())
    told["_data_files"] = [{"filename": "../pipe.arrow"}]
    pipe(tmp_path / "pipe.arrow")
    state.write_text(json.dumps(told).replace("..", "\\u002e."))
    with pytest.raises(dp.DataPrunerError, match=r"names \.\./pipe\.arrow outside of it"):
        load_samples(str(tmp_path / "held"))


@pytest.mark.parametrize("name", ["checksums.txt", "selection.parquet", "recipe.yaml"])
def test_pipes_in_a_result(tmp_path, name):
    dp.prune([{"text": f"row {i}"} for i in range(9)], scorer="random", keep=4, progress=False).save(
        tmp_path / "out"
    )
    pipe(tmp_path / "out" / name)
    with pytest.raises(dp.DataPrunerError):
        dp.load_selection(tmp_path / "out")


@pytest.mark.parametrize("option", ["embeddings", "decontaminate", "target_embeddings", "divergences"])
@pytest.mark.parametrize("ending", [".npy", ".parquet"])
def test_pipes_as_other_inputs(tmp_path, option, ending):
    held = pipe(tmp_path / f"held{ending}")
    rows = [{"text": f"row number {i}"} for i in range(9)]
    options = {option: str(held), "scorer": "concept_complexity", "keep": 4, "progress": False}
    if option == "divergences":
        options["scorer"] = "paser"
    if option == "target_embeddings":
        options |= {"scorer": "feature_mapping", "target": rows, "embeddings": np.eye(9)}
        options["target"] = str(tmp_path / "target.jsonl")
        (tmp_path / "target.jsonl").write_text(ROW * 3)
    with pytest.raises(dp.DataPrunerError):
        dp.prune(rows, **options)
