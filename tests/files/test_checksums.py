"""A flipped bit in a file of a result is refused, or changes nothing; never another selection."""

from __future__ import annotations

import os
import random
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from datasets import Dataset

import datapruner as dp
from datapruner.files import cache, checksums
from datapruner.files.checksums import CHECKSUMS, digest
from datapruner.scores import load_scores


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Scores with groups and state, and what is selected by them."""
    folder = tmp_path_factory.mktemp("results")
    vectors = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
    rows = "".join(f'{{"text": "row {number} of {number % 7}"}}\n' for number in range(200))
    (folder / "rows.jsonl").write_text(rows)
    scores = dp.score(
        folder / "rows.jsonl",
        scorers=["concept_complexity", "topoprune"],
        embeddings=vectors,
        manifold="pca",
        cache=folder / "cache",
        progress=False,
    )
    scores.save(folder / "scores")
    selection = scores.select("topoprune", keep=0.3)
    selection.save(folder / "out")
    return folder


def flips(file, count, seed=0):
    raw = file.read_bytes()
    rng = random.Random(seed)
    for _ in range(count):
        place = rng.randrange(len(raw))
        changed = bytearray(raw)
        changed[place] ^= 1 << rng.randrange(8)
        file.write_bytes(bytes(changed))
        yield place
    file.write_bytes(raw)


@pytest.mark.parametrize(
    "name",
    ["scores.parquet", "recipe.yaml", "state/topoprune.npz", "state/concept_complexity.npz", CHECKSUMS],
)
def test_scores_are_as_written_or_refused(results, tmp_path, name):
    shutil.copytree(results / "scores", tmp_path / "scores")
    shutil.copy(results / "rows.jsonl", tmp_path)
    kept = (
        load_scores(results / "scores", source=str(results / "rows.jsonl")).select("topoprune", keep=0.3).kept
    )
    refused = 0
    for place in flips(tmp_path / "scores" / name, 40):
        try:
            scores = load_scores(tmp_path / "scores", source=str(tmp_path / "rows.jsonl"))
        except dp.DataPrunerError:
            refused += 1
        else:
            assert np.array_equal(scores.select("topoprune", keep=0.3).kept, kept), place
    assert refused >= 30


def test_the_digests_are_those_of_xxhsum(results):
    for line in (results / "out" / CHECKSUMS).read_text().splitlines():
        said, name = line.split("  ", 1)
        assert xxhash.xxh128_hexdigest((results / "out" / name).read_bytes()) == said
    names = {
        path.relative_to(results / "out").as_posix()
        for path in (results / "out").rglob("*")
        if path.is_file()
    }
    assert {
        line.split("  ", 1)[1] for line in (results / "out" / CHECKSUMS).read_text().splitlines()
    } == names - {CHECKSUMS}


def test_without_digests_a_folder_is_taken_as_it_is(results, tmp_path):
    shutil.copytree(results / "scores", tmp_path / "scores")
    recipe = tmp_path / "scores" / "recipe.yaml"
    recipe.write_text(recipe.read_text() + "# mine\n")
    with pytest.raises(dp.DataPrunerError, match=r"recipe\.yaml is not as it was written"):
        load_scores(tmp_path / "scores", source=str(results / "rows.jsonl"))
    (tmp_path / "scores" / CHECKSUMS).unlink()
    assert len(load_scores(tmp_path / "scores", source=str(results / "rows.jsonl")).samples) == 200


def test_a_result_that_is_read_again_as_a_source_a_recipe_or_vectors_is_as_written(results, tmp_path):
    shutil.copytree(results / "out", tmp_path / "out")
    data = next((tmp_path / "out" / "data").glob("*.parquet"))
    assert len(dp.load_samples(str(tmp_path / "out"))) == len(dp.load_samples(str(data)))
    for file, read in (
        (data, lambda: dp.load_samples(str(tmp_path / "out"))),
        (data, lambda: dp.load_samples(str(data))),
        (data, lambda: dp.load_selection(tmp_path / "out").dataset),
        (data, lambda: dp.prune(["a", "b"], keep=1, scorer="k_center", embeddings=str(data), progress=False)),
        (tmp_path / "out" / "recipe.yaml", lambda: dp.run(tmp_path / "out" / "recipe.yaml", progress=False)),
    ):
        for _ in flips(file, 3):
            with pytest.raises(dp.DataPrunerError, match="is not as it was written"):
                read()


def test_a_list_is_read_once_for_all_files_of_a_folder(tmp_path, monkeypatch):
    read = []

    def counted(file):
        read.append(file.name)
        return cache.open_plain(file)

    rows = [{"text": f"row {number}"} for number in range(40)]
    dp.prune(rows, keep=30, scorer="random", progress=False).save(tmp_path / "out")
    data = tmp_path / "out" / "data"
    (whole,) = data.iterdir()
    table = pq.read_table(whole)
    whole.unlink()
    for number in range(30):
        pq.write_table(table.slice(number, 1), data / f"train-{number:05d}-of-00030.parquet")
    checksums.write_checksums(tmp_path / "out")
    monkeypatch.setattr(checksums, "open_plain", counted)
    assert dp.load_samples(str(data / "*.parquet")).dataset["text"][:] == table["text"].to_pylist()
    here = read.count(CHECKSUMS)
    assert 1 <= here < 10
    (data / "train-00007-of-00030.parquet").write_bytes(b"PAR1")
    with pytest.raises(dp.DataPrunerError, match=r"00007-of-00030\.parquet is not as it was written"):
        dp.load_samples(str(data / "*.parquet"))


def test_other_peoples_lists_of_digests_are_theirs(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / CHECKSUMS).write_text("0" * 32 + "  rows.jsonl\n")
    assert len(dp.load_samples(str(tmp_path / "rows.jsonl"))) == 1


# --- a result's folder, attacked ----------------------------------------------------------------------------


def data_of(folder):
    return next((folder / "data").glob("*.parquet"))


def put_other_rows(file):
    pq.write_table(pa.table({"text": [f"other {number}" for number in range(60)]}), file)
    return file


def relist(folder, change):
    file = folder / CHECKSUMS
    file.write_text("".join(change(file.read_text().splitlines(keepends=True))))


def shard_gone(folder):
    data_of(folder).unlink()
    put_other_rows(folder / "data" / "train-00000.parquet")


def named_twice(folder):
    file = put_other_rows(data_of(folder))
    relist(folder, lambda lines: [*lines, f"{digest(file)}  data/{file.name}\n"])


def in_place_of_the_list(make):
    def attack(folder):
        put_other_rows(data_of(folder))
        (folder / CHECKSUMS).unlink()
        make(folder / CHECKSUMS)

    return attack


def sparse(file):
    with file.open("wb") as handle:
        handle.truncate(8 << 30)


def with_other_rows(change):
    def attack(folder):
        put_other_rows(data_of(folder))
        relist(folder, change)

    return attack


ATTACKS = {
    "a file beside its data": lambda folder: (folder / "rows.jsonl").write_text('{"text": "other"}\n' * 60),
    "a dataset saved over it": lambda folder: Dataset.from_dict({"text": ["other"] * 60}).save_to_disk(
        folder
    ),
    "another shard": lambda folder: put_other_rows(folder / "data" / "train-00001-of-00002.parquet"),
    "a shard under another name": shard_gone,
    "a file that is named twice": named_twice,
    "a line less": with_other_rows(lambda lines: [line for line in lines if "data/" not in line]),
    "a list that is cut off": with_other_rows(lambda lines: ["".join(lines)[:60]]),
    "a list in capitals": with_other_rows(lambda lines: [line.upper() for line in lines]),
    "a list with other ends of lines": with_other_rows(lambda lines: [f"{line[:-1]}\r\n" for line in lines]),
    "a pipe for the list": in_place_of_the_list(os.mkfifo),
    "a folder for the list": in_place_of_the_list(lambda file: file.mkdir()),
    "a device for the list": in_place_of_the_list(lambda file: file.symlink_to("/dev/zero")),
    "a list without end": in_place_of_the_list(sparse),
}


@pytest.fixture
def attacked(results, tmp_path):
    shutil.copytree(results / "out", tmp_path / "out")
    return tmp_path / "out"


@pytest.mark.skipif(os.name != "posix", reason="FIFOs and devices")
@pytest.mark.parametrize("kind", ATTACKS)
def test_a_result_whose_files_are_others_gives_no_rows(results, attacked, kind):
    assert len(dp.load_selection(attacked)) == 60
    ATTACKS[kind](attacked)
    for read in (lambda: dp.load_samples(str(attacked)), lambda: dp.load_selection(attacked).dataset):
        with pytest.raises(dp.DataPrunerError, match=r"checksums\.txt"):
            read()


def test_digests_are_found_through_links(attacked, tmp_path):
    whole = dp.load_samples(str(data_of(attacked))).dataset.to_list()
    (tmp_path / "folder").symlink_to(attacked / "data", target_is_directory=True)
    (tmp_path / "file.parquet").symlink_to(data_of(attacked))
    roundabout = attacked / "data" / ".." / ".." / "out" / "data" / ".." / "data" / data_of(attacked).name
    ways = [tmp_path / "folder", tmp_path / "file.parquet", roundabout]
    assert all(dp.load_samples(str(way)).dataset.to_list() == whole for way in ways)
    put_other_rows(data_of(attacked))
    for way in ways:
        with pytest.raises(dp.DataPrunerError, match="is not as it was written"):
            dp.load_samples(str(way))


def test_lines_that_lead_out_are_not_followed_and_a_users_own_files_are_read_by_name(attacked):
    relist(attacked, lambda lines: [*lines, "0" * 32 + "  ../../x\n", "0" * 32 + "  /dev/zero\n", "words\n"])
    assert len(dp.load_samples(str(attacked))) == 60
    (attacked / "mine.jsonl").write_text('{"text": "mine"}\n')
    assert dp.load_samples(str(attacked / "mine.jsonl")).dataset.to_list() == [{"text": "mine"}]
