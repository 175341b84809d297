"""Folders of images and sound are what `datasets` makes of them, and what lies outside is never read."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from datasets import Image, load_dataset
from PIL import Image as Picture

from datapruner.errors import DataPrunerError
from datapruner.outputs.data_files import write_split
from datapruner.samples import content_hash, load_samples


def picture(path: Path, red: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.new("RGB", (4, 4), (red, 0, 0)).save(path)
    return path


def described(root: Path, rows: list[dict], name: str = "metadata.jsonl") -> Path:
    root.mkdir(exist_ok=True)
    if name.endswith(".csv"):
        lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
        (root / name).write_text("\n".join(lines) + "\n")
    else:
        (root / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def reds(samples, column="image") -> list[int]:
    return [image.getpixel((0, 0))[0] for image in samples.dataset[column]]


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
def test_images_with_metadata(tmp_path, name):
    for red in (10, 20):
        picture(tmp_path / "f" / "deep" / f"{red}.png", red)
    rows = [{"file_name": f"deep/{red}.png", "text": f"red {red}", "day": "2021-03-04"} for red in (20, 10)]
    samples = load_samples(described(tmp_path / "f", rows, name))
    theirs = load_dataset(str(tmp_path / "f"), split="train", cache_dir=str(tmp_path / "cache"))
    assert samples.dataset.column_names == theirs.column_names
    assert reds(samples) == [20, 10]
    assert [row["day"] for row in samples.dataset] == ["2021-03-04"] * 2
    write_split(samples.dataset, tmp_path / "out.parquet", "parquet")
    stored = pq.read_table(tmp_path / "out.parquet").column("image").to_pylist()
    assert [cell["path"] for cell in stored] == ["20.png", "10.png"]
    assert [cell["bytes"] for cell in stored] == [
        (tmp_path / "f" / "deep" / f"{red}.png").read_bytes() for red in (20, 10)
    ]
    again = load_samples(tmp_path / "out.parquet")
    assert isinstance(again.dataset.features["image"], Image)
    assert reds(again) == [20, 10]
    # What is in the files counts, not where they lie.
    assert content_hash(again.dataset) == content_hash(samples.dataset)
    picture(tmp_path / "f" / "deep" / "10.png", 11)
    assert content_hash(samples.dataset) != content_hash(again.dataset)


def test_several_images_a_row_and_splits(tmp_path):
    for split in ("train", "test"):
        folder = tmp_path / split
        for red in (1, 2, 3):
            picture(folder / f"{red}.png", red)
        described(
            folder,
            [
                {"text": "a", "file_names": ["1.png", "2.png"], "mask_file_name": "3.png"},
                {"text": "b", "file_names": [], "mask_file_name": None},
            ],
        )
    samples = load_samples(tmp_path)
    assert samples.dataset.column_names == ["text", "images", "mask"]
    assert [image.getpixel((0, 0))[0] for image in samples.dataset[0]["images"]] == [1, 2]
    assert (samples.dataset[1]["images"], samples.dataset[1]["mask"]) == ([], None)
    assert len(samples.others["test"]) == 2


def test_images_by_label(tmp_path):
    for label in ("cat", "dog"):
        picture(tmp_path / "train" / label / "1.png")
    theirs = load_dataset(str(tmp_path), split="train", cache_dir=str(tmp_path / "cache"))
    samples = load_samples(tmp_path)
    assert samples.dataset.features == theirs.features
    assert [row["label"] for row in samples.dataset] == [row["label"] for row in theirs]


def test_sound_is_stored_without_being_decoded(tmp_path):
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "a.wav").write_bytes(b"RIFF" + b"\0" * 500)
    samples = load_samples(described(tmp_path / "f", [{"file_name": "a.wav", "text": "hum"}]))
    assert (samples.dataset.column_names, samples.texts()) == (["audio", "text"], ["hum"])
    write_split(samples.dataset, tmp_path / "out.parquet", "parquet")
    assert pq.read_table(tmp_path / "out.parquet").column("audio")[0].as_py()["bytes"].startswith(b"RIFF")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../out.png", "lies outside"),
        ("deep/../../out.png", "lies outside"),
        ("{out}", "lies outside"),
        ("file:///etc/hosts.png", "lies outside"),
        ("link.png", "lies outside"),
        ("linked/out.png", "lies outside"),
        ("missing.png", "is not there"),
        ("deep", "is not there"),
        ("pointer.png", "Git LFS pointer"),
        ("x\0.png", "is not there"),
    ],
)
def test_files_that_are_not_in_the_folder_are_never_read(tmp_path, name, message):
    out = picture(tmp_path / "out.png")
    root = tmp_path / "f"
    picture(root / "deep" / "1.png")
    (root / "link.png").symlink_to(out)
    (root / "linked").symlink_to(tmp_path)
    (root / "pointer.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n")
    rows = [{"file_name": "deep/1.png", "text": "a"}, {"file_name": name.format(out=out), "text": "b"}]
    with pytest.raises(DataPrunerError, match=f"row 1: the file .*{message}|{message}"):
        load_samples(described(root, rows))
