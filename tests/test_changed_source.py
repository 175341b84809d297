"""A source that is another than it was: between two runs, and while one runs."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from datasets import Dataset, DatasetDict, Features, Image, load_dataset
from PIL import Image as Picture

import datapruner as dp
from datapruner.recipe import load_recipe
from datapruner.samples import load_samples
from datapruner.samples.hashing import content_hash
from tests.conftest import command

ALL = {"scorers": "random", "progress": False}
LIKE = {"scorer": "random", "progress": False}
OTHER = "has other rows than when this was made"


@pytest.fixture
def source(tmp_path) -> Path:
    return write(tmp_path / "rows.jsonl", range(12))


def write(path: Path, numbers) -> Path:
    path.write_text("".join(json.dumps({"text": f"row number {number:03}"}) + "\n" for number in numbers))
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_hash_of_the_source_stands_in_recipe_and_card(source, tmp_path):
    dp.prune(source, keep=4, **LIKE).save(tmp_path / "out")
    wanted = content_hash(load_dataset("json", data_files=str(source), split="train"))
    assert load_recipe(tmp_path / "out" / "recipe.yaml").source_content == wanted
    assert f"(content `{wanted}`)" in (tmp_path / "out" / "README.md").read_text()
    # The same rows in another file are the same.
    dp.run(tmp_path / "out" / "recipe.yaml").save(tmp_path / "again")
    assert files(tmp_path / "out") == files(tmp_path / "again")


@pytest.mark.parametrize("kind", ["order", "value", "row", "type"])
def test_a_recipe_of_other_rows_stops_and_an_option_goes_on(source, tmp_path, monkeypatch, capsys, kind):
    dp.prune(source, keep=4, **LIKE).save(tmp_path / "out")
    lines = source.read_text().splitlines()
    lines = {
        "order": [*lines[5:], *lines[:5]],
        "value": [*lines[:11], lines[11].replace("011", "012")],
        "row": lines[:11],
        "type": [line.replace("}", ', "n": 1}') for line in lines],
    }[kind]
    source.write_text("\n".join(lines) + "\n")
    with pytest.raises(dp.DataPrunerError, match=OTHER):
        dp.run(tmp_path / "out" / "recipe.yaml")
    again = ["run", tmp_path / "out" / "recipe.yaml", "-o", tmp_path / "again", "-q"]
    assert command(monkeypatch, *again) == 2
    assert OTHER in (told := capsys.readouterr().err)
    assert "--changed-source" in told
    assert not (tmp_path / "again").exists()
    assert command(monkeypatch, *again, "--changed-source") == 0
    dp.prune(source, keep=4, **LIKE).save(tmp_path / "anew")
    assert files(tmp_path / "again") == files(tmp_path / "anew")
    assert "changed_source" not in (tmp_path / "again" / "recipe.yaml").read_text()


def test_no_recipe_asks_to_go_on(source, tmp_path):
    dp.prune(source, keep=4, **LIKE).save(tmp_path / "out")
    recipe = tmp_path / "out" / "recipe.yaml"
    recipe.write_text(recipe.read_text() + "changed_source: true\n")
    (tmp_path / "out" / "checksums.txt").unlink()
    with pytest.raises(dp.DataPrunerError, match="changed_source"):
        load_recipe(recipe)


@pytest.mark.parametrize("asked", [["--row", "3", "--text"], ["--match", "number 003"]])
def test_no_other_row_is_shown_in_place_of_one(source, tmp_path, monkeypatch, capsys, asked):
    dp.prune(source, keep=4, **LIKE).save(tmp_path / "out")
    write(source, [*range(6, 12), *range(6)])
    assert command(monkeypatch, "explain", tmp_path / "out", *asked) == 2
    assert OTHER in capsys.readouterr().err
    # What was written still holds.
    assert command(monkeypatch, "explain", tmp_path / "out", "--row", "3") == 0
    with pytest.raises(dp.DataPrunerError, match=OTHER):
        _ = dp.load_selection(tmp_path / "out").source
    write(source, range(12))
    assert command(monkeypatch, "explain", tmp_path / "out", *asked) == 0
    assert "row  3\n" in capsys.readouterr().out


def test_scores_of_other_rows_are_refused_and_older_results_still_run(source, tmp_path):
    dp.score(source, **ALL).save(tmp_path / "scores")
    dp.load_scores(tmp_path / "scores").select(keep=4).save(tmp_path / "out")
    assert load_recipe(tmp_path / "out" / "recipe.yaml").source_content
    recipe = yaml.safe_load((tmp_path / "out" / "recipe.yaml").read_text())
    del recipe["source_content"]  # as it was saved before
    (tmp_path / "old.yaml").write_text(yaml.safe_dump({**recipe, "source": "./rows.jsonl"}))
    write(source, range(1, 13))
    with pytest.raises(dp.DataPrunerError, match="has changed since it was scored"):
        dp.load_scores(tmp_path / "scores")
    assert len(dp.run(tmp_path / "old.yaml")) == 4


def test_rows_in_memory_have_no_hash(tmp_path):
    dp.prune([{"text": f"row {i}"} for i in range(9)], keep=4, **LIKE).save(tmp_path / "out")
    assert load_recipe(tmp_path / "out" / "recipe.yaml").source_content is None


def test_splits_that_are_carried_over_count_and_files_do_not(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder / "train.jsonl", range(8))
    write(folder / "test.jsonl", range(3))
    first = load_samples(str(folder))
    write(folder / "test.jsonl", range(4))
    other = load_samples(str(folder))
    assert (first.own_content, first.content) == (other.own_content, first.content)
    assert first.content != other.content
    parts = tmp_path / "parts"
    parts.mkdir()
    write(parts / "a.jsonl", range(5))
    write(parts / "b.jsonl", range(5, 8))
    assert load_samples(str(parts)).content == load_samples(str(folder / "train.jsonl")).content


def shapes(tmp_path: Path, shape: str) -> tuple[str, Path]:
    """Give a source of some shape, and a file of it."""
    table = pa.table({"text": [f"row number {i}" for i in range(12)]})
    folder = tmp_path / "held"
    folder.mkdir()
    if shape == "saved":
        Dataset.from_dict(table.to_pydict()).save_to_disk(folder)
        return str(folder), next(folder.glob("*.arrow"))
    if shape == "images":
        for i in range(12):
            Picture.new("RGB", (4, 4), (i, 0, 0)).save(folder / f"{i:02}.png")
        return str(folder), folder / "07.png"
    file = folder / ("rows.arrow" if shape == "arrow" else "rows.jsonl")
    if shape == "arrow":
        with pa.ipc.new_stream(str(file), table.schema) as writer:
            writer.write_table(table)
    else:
        write(file, range(12))
    name = {"glob": folder / "*.jsonl", "folder": folder}.get(shape, file)
    return str(name), file


@pytest.mark.parametrize("what", ["size", "time", "gone", "content alone", "another file"])
@pytest.mark.parametrize("shape", ["file", "glob", "folder", "arrow", "saved", "images"])
def test_a_source_that_changes_during_a_run_stops_it(tmp_path, shape, what):
    name, file = shapes(tmp_path, shape)
    samples = load_samples(name)
    samples.unchanged()
    if what == "gone":
        file.rename(tmp_path / "elsewhere")
    elif what == "content alone":  # as many bytes, at the same time
        now, held = file.stat(), bytearray(file.read_bytes())
        held[-3] ^= 1
        file.write_bytes(held)
        os.utime(file, ns=(now.st_atime_ns, now.st_mtime_ns))
    elif what == "another file":  # behind the same name: a link that is turned elsewhere
        now = file.stat()
        other = Path(shutil.move(file, tmp_path / "moved"))
        Path(shutil.copy(other, tmp_path / "other"))
        os.utime(tmp_path / "other", ns=(now.st_atime_ns, now.st_mtime_ns))
        file.symlink_to(tmp_path / "other")
    elif what == "size":
        with file.open("ab") as handle:
            handle.write(b"\n\n")
    else:
        now = file.stat()
        os.utime(file, ns=(now.st_atime_ns, now.st_mtime_ns + 1000))
    with pytest.raises(dp.DataPrunerError, match="is gone since" if what == "gone" else "changed.* since"):
        samples.unchanged()


@pytest.mark.parametrize("verb", ["prune", "score"])
def test_nothing_is_written_of_a_source_that_changed_meanwhile(source, tmp_path, verb):
    found = dp.prune(source, keep=4, **LIKE) if verb == "prune" else dp.score(source, **ALL)
    write(source, range(13))
    with pytest.raises(dp.DataPrunerError, match=r"rows\.jsonl changed.* nothing was written"):
        found.save(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_change_is_found_at_the_end_of_measuring(source, monkeypatch):
    from datapruner.measuring import measure

    marked = measure.row_mask

    def meanwhile(*arguments):
        write(source, range(11))
        return marked(*arguments)

    monkeypatch.setattr(measure, "row_mask", meanwhile)
    with pytest.raises(dp.DataPrunerError, match=r"rows\.jsonl changed"):
        dp.score(source, **ALL)


def test_images_count_by_their_pixels_file(tmp_path):
    name, file = shapes(tmp_path, "images")
    before = load_samples(name).content
    Picture.new("RGB", (4, 4), (200, 0, 0)).save(file)
    assert load_samples(name).content != before
    assert load_samples(name).dataset.features["image"] == Features({"image": Image()})["image"]


@pytest.mark.parametrize("change", ["added", "renamed", "link"])
def test_a_folder_whose_files_are_others_by_now(tmp_path, change):
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder / "a.jsonl", range(6))
    write(folder / "b.jsonl", range(6, 12))
    write(tmp_path / "elsewhere.jsonl", range(50, 56))
    dp.prune(folder, keep=4, **LIKE).save(tmp_path / "out")
    if change == "added":
        write(folder / "c.jsonl", range(2))
    elif change == "renamed":  # the same rows in another order
        (folder / "a.jsonl").rename(folder / "z.jsonl")
    else:
        (folder / "a.jsonl").unlink()
        (folder / "a.jsonl").symlink_to(tmp_path / "elsewhere.jsonl")
    with pytest.raises(dp.DataPrunerError, match=OTHER):
        dp.run(tmp_path / "out" / "recipe.yaml")


# --- what is read beside the source -------------------------------------------------------------------------


def beside(folder: Path, field: str, seed: int) -> dict[str, object]:
    """Arguments that read a file beside the source, whose content follows from a seed."""
    rng = np.random.default_rng(seed)
    for name, rows in (("rows.npy", 12), ("likes.npy", 3)):
        np.save(folder / name, np.random.default_rng(0).normal(size=(rows, 4)).astype(np.float32))
    write(folder / "likes.jsonl", range(3))
    vectors = {"scorer": "prototypes", "embeddings": str(folder / "rows.npy")}
    if field == "decontaminate":
        (folder / "test.jsonl").write_text(json.dumps({"text": f"row number {seed:03} and five more words"}))
        return {"scorer": "random", field: str(folder / "test.jsonl")}
    if field == "embeddings":
        np.save(folder / "rows.npy", rng.normal(size=(12, 4)).astype(np.float32))
        return vectors
    if field == "divergences":
        np.save(folder / "told.npy", rng.uniform(size=12) / 2)
        return {**vectors, "scorer": "paser", field: str(folder / "told.npy")}
    aims = {"scorer": "feature_mapping", "target": str(folder / "likes.jsonl")}
    if field == "target":
        write(folder / "likes.jsonl", range(seed, seed + 3))
    else:
        np.save(folder / "likes.npy", rng.normal(size=(3, 4)).astype(np.float32))
    return {**vectors, **aims, "target_embeddings": str(folder / "likes.npy")}


BESIDE = ["decontaminate", "embeddings", "divergences", "target", "target_embeddings"]


@pytest.mark.parametrize("field", BESIDE)
def test_what_is_read_beside_the_source_is_as_it_was(source, tmp_path, monkeypatch, capsys, field):
    given = beside(tmp_path, field, 1)
    dp.prune(source, keep=4, manifold="pca", progress=False, **given).save(tmp_path / "out")
    recipe = tmp_path / "out" / "recipe.yaml"
    assert field in load_recipe(recipe).inputs_content
    dp.run(recipe, progress=False).save(tmp_path / "again")
    assert files(tmp_path / "out") == files(tmp_path / "again")
    beside(tmp_path, field, 2)
    run = ["run", recipe, "-o", tmp_path / "other", "-q"]
    assert command(monkeypatch, *run) == 2
    told = capsys.readouterr().err
    assert f"{field}: " in told
    assert "is another than when this was made" in told
    assert "--changed-source" in told
    assert not (tmp_path / "other").exists()
    assert command(monkeypatch, *run, "--changed-source") == 0
    assert load_recipe(recipe).inputs_content != load_recipe(tmp_path / "other/recipe.yaml").inputs_content
    # One that an earlier version saved says nothing of it.
    old = yaml.safe_load(recipe.read_text().replace("../", "./"))
    del old["inputs_content"]
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(old))
    assert len(dp.run(tmp_path / "old.yaml", progress=False)) == 4


@pytest.mark.parametrize("field", BESIDE)
def test_nothing_is_written_where_it_changed_meanwhile(source, tmp_path, field):
    found = dp.prune(source, keep=4, manifold="pca", progress=False, **beside(tmp_path, field, 1))
    beside(tmp_path, field, 2)
    with pytest.raises(dp.DataPrunerError, match=r"changed.* nothing was written"):
        found.save(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("how", ["written", "replaced", "gone"])
def test_a_hub_datasets_files_are_those_that_were_read(tmp_path, monkeypatch, how):
    """What the hub's library caches is read while a run goes on: another process may clean or prepare it anew."""
    made = [Dataset.from_dict({"text": [f"row {number}" for number in range(9)]}) for _ in range(2)]
    for name, each in zip(("train", "test"), made, strict=True):
        each.save_to_disk(tmp_path / name)
    train, test = (Dataset.load_from_disk(str(tmp_path / name)) for name in ("train", "test"))
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: DatasetDict(train=train, test=test))
    files = [Path(file["filename"]) for split in (train, test) for file in split.cache_files]
    assert load_samples("org/name", split="train").stamps.keys() == set(map(str, files))
    for file in files:
        selection = dp.prune("org/name", split="train", keep=2, **LIKE)
        moved = file.rename(tmp_path / "moved")
        if how == "written":
            file.write_bytes(moved.read_bytes()[:-1] + b"\0")
        elif how == "replaced":
            shutil.copy2(moved, file)
        with pytest.raises(dp.DataPrunerError, match="is gone" if how == "gone" else "changed since it was"):
            selection.save(tmp_path / "out")
        assert not (tmp_path / "out").exists()
        moved.replace(file)
    dp.prune("org/name", split="train", keep=2, **LIKE).save(tmp_path / "out")
