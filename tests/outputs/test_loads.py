"""What `load_dataset` makes of a result: exactly its rows, whatever the splits and columns are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import Audio, Image, get_dataset_config_names, load_dataset, load_from_disk
from PIL import Image as Picture

import datapruner as dp

ASKED = [{"question": f"q{i}", "answer": f"a{i}"} for i in range(4)]
CALLS = [
    {
        "messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": arguments}]},
        ],
        "day": "2021-03-04",
        "metadata": {},
        **extra,
    }
    for arguments, extra in [
        ({"a": 2, "b": None}, {"id": 2**64 - 1}),
        ({"kind": "café"}, {"id": None}),
        ({}, {"note": "2021-03-05T10:00:00Z"}),
    ]
]


def lines(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def pruned(source, out: Path, format: str = "parquet", keep: int = 2) -> dp.Selection:
    selection = dp.prune(str(source), scorer="random", keep=keep, progress=False)
    selection.save(out, format=format, overwrite=True)
    return selection


def read(out: Path, *config: str, split: str = "train") -> list[dict]:
    return load_dataset(str(out), *config, split=split, cache_dir=str(out.parent / "cache")).to_list()


@pytest.mark.parametrize("format", ["parquet", "jsonl", "arrow"])
@pytest.mark.parametrize(
    "other", [{"question": "q", "answer": "a", "source": "x"}, {"question": 1, "answer": "a"}]
)
def test_splits_with_other_columns_or_types(tmp_path, format, other):
    lines(tmp_path / "in" / "train.jsonl", ASKED)
    lines(tmp_path / "in" / "test.jsonl", [other])
    lines(tmp_path / "in" / "validation.jsonl", ASKED[:1])
    out = tmp_path / "out"
    selection = pruned(tmp_path / "in", out, format)
    kept = [ASKED[row] for row in selection.indices]
    if format == "arrow":
        loaded = load_from_disk(str(out / "data"))
        assert (loaded["train"].to_list(), loaded["test"].to_list()) == (kept, [other])
        return
    assert get_dataset_config_names(str(out)) == ["default", "test"]
    assert read(out) == kept
    assert read(out, split="validation") == ASKED[:1]
    assert read(out, "test", split="test") == [other]
    assert f'load_dataset("THIS_FOLDER", {"test"!r})' in (out / "README.md").read_text()
    # What was written is a source again, with all its splits.
    again = dp.load_samples(str(out))
    assert (again.dataset.to_list(), again.others["test"].to_list()) == (kept, [other])


def test_splits_of_the_same_columns_stay_together(tmp_path):
    lines(tmp_path / "in" / "train.jsonl", ASKED)
    lines(tmp_path / "in" / "test.jsonl", ASKED[:1])
    pruned(tmp_path / "in", tmp_path / "out", "jsonl")
    assert get_dataset_config_names(str(tmp_path / "out")) == ["default"]
    assert list(load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))) == ["train", "test"]
    assert "configurations of their own" not in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_calls_dates_and_empty_objects(tmp_path, format):
    source = lines(tmp_path / "in.jsonl", CALLS)
    selection = pruned(source, tmp_path / "out", format)
    kept = [CALLS[row] for row in selection.indices]
    names = ["messages", "day", "metadata", "id", "note"]
    assert read(tmp_path / "out") == [{name: row.get(name) for name in names} for row in kept]
    if format == "jsonl":
        (file,) = (tmp_path / "out" / "data").iterdir()
        assert [json.loads(line) for line in file.read_text("utf-8").splitlines()] == kept


@pytest.mark.parametrize("pack", [False, True])
def test_lines_that_come_in_go_out_whatever_holds_them(tmp_path, pack):
    """A list on one line, pretty objects, several files: the same rows as lines."""
    if pack:
        source = tmp_path / "in.json"
        source.write_text(json.dumps(CALLS, indent=2))
    else:
        for place, row in enumerate(CALLS):
            lines(tmp_path / "in" / f"{place}.jsonl", [row])
        source = tmp_path / "in"
    pruned(source, tmp_path / "out", "jsonl", keep=3)
    (file,) = (tmp_path / "out" / "data").iterdir()
    assert [json.loads(line) for line in file.read_text("utf-8").splitlines()] == CALLS


def test_a_second_result_of_one_name_is_not_answered_from_the_first(tmp_path):
    source = lines(tmp_path / "in.jsonl", CALLS)
    for format in ("jsonl", "parquet"):
        for keep in (1, 2):
            pruned(source, tmp_path / "out", format, keep)
            assert len(read(tmp_path / "out")) == keep


def test_a_folder_of_images_stays_one(tmp_path):
    for red in range(3):
        (tmp_path / "in").mkdir(exist_ok=True)
        Picture.new("RGB", (4, 4), (red, 0, 0)).save(tmp_path / "in" / f"{red}.png")
    lines(
        tmp_path / "in" / "metadata.jsonl",
        [{"file_name": f"{red}.png", "text": f"red {red}"} for red in range(3)],
    )
    selection = pruned(tmp_path / "in", tmp_path / "out")
    for file in (tmp_path / "in").iterdir():
        file.unlink()
    loaded = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert isinstance(loaded.features["image"], Image)
    assert [image.getpixel((0, 0))[0] for image in loaded["image"]] == selection.indices.tolist()
    assert loaded["text"] == [f"red {row}" for row in selection.indices]


def test_sound_reaches_the_result(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").write_bytes(b"RIFF" + bytes(500))
    lines(tmp_path / "in" / "metadata.jsonl", [{"file_name": "a.wav", "text": "hum"}])
    pruned(tmp_path / "in", tmp_path / "out", keep=1)
    loaded = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.cast_column("audio", Audio(decode=False))[0]["audio"]["bytes"] == b"RIFF" + bytes(500)


def test_scores_of_images_are_read_again_where_the_images_still_are(tmp_path):
    (tmp_path / "in").mkdir()
    Picture.new("RGB", (4, 4)).save(tmp_path / "in" / "a.png")
    lines(tmp_path / "in" / "metadata.jsonl", [{"file_name": "a.png", "text": "black"}])
    dp.score(str(tmp_path / "in"), scorers=["random"], progress=False).save(tmp_path / "scores")
    assert len(dp.load_scores(tmp_path / "scores").samples) == 1
    Picture.new("RGB", (4, 4), (9, 9, 9)).save(tmp_path / "in" / "a.png")
    with pytest.raises(dp.DataPrunerError):
        dp.load_scores(tmp_path / "scores")


def test_what_load_dataset_makes_of_numbers_in_json_lines_is_said(tmp_path, caplog):
    given = [
        {"text": f"row {at}", "mixed": [{"a": at}, {"b": "x"}][at % 2], "number": 1 / 3} for at in range(4)
    ]
    given[2]["number"] = float("inf")
    pruned(lines(tmp_path / "rows.jsonl", given), tmp_path / "out", "jsonl", keep=4)
    assert [row["number"] for row in read(tmp_path / "out")] == [
        0.3333333333,
        0.3333333333,
        None,
        0.3333333333,
    ]
    assert "rounds numbers to ten decimals, and has nulls for NaN and infinities" in caplog.text
    written = (tmp_path / "out" / "data" / "train-00000-of-00001.jsonl").read_text("utf-8")
    assert [json.loads(line)["number"] for line in written.splitlines()] == [row["number"] for row in given]
