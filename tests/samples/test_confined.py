"""What a source's metadata declares as images or sound opens nothing outside of the source's own folder."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Audio, Dataset, DatasetInfo, Features, Image, List, Value, load_from_disk
from PIL import Image as Picture

import datapruner as dp
from datapruner.samples import confined, load_samples
from datapruner.samples.identity import digest

SECRET = b"nobody is to copy this"
STORED = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
KINDS = {
    "image": {"_type": "Image"},
    "undecoded": {"_type": "Image", "decode": False},
    "sound": {"_type": "Audio"},
    "film": {"_type": "Video"},
    "list": {"feature": {"_type": "Image"}, "_type": "List"},
    "lists of lists": {"feature": {"feature": {"_type": "Image"}, "_type": "List"}, "_type": "List"},
    "under a picture's own names": {
        "bytes": {"_type": "Image"},
        "path": {"dtype": "string", "_type": "Value"},
    },
    "under the name of a path": {"bytes": {"dtype": "binary", "_type": "Value"}, "path": {"_type": "Image"}},
    "inside": {"photo": {"_type": "Image"}, "note": {"dtype": "string", "_type": "Value"}},
}


def table_of(kind: str, path: str, n: int = 6) -> pa.Table:
    """A table whose metadata declares a column of some kind that names a path."""
    value, stored = {"bytes": None, "path": path}, STORED
    if kind == "lists of lists":
        value, stored = [[value]], pa.list_(pa.list_(STORED))
    if kind == "under a picture's own names":
        value, stored = {"bytes": value, "path": "p"}, pa.struct([("bytes", STORED), ("path", pa.string())])
    if kind == "under the name of a path":
        value, stored = {"bytes": b"x", "path": value}, pa.struct([("bytes", pa.binary()), ("path", STORED)])
    if kind == "list":
        value, stored = [value], pa.list_(STORED)
    if kind == "inside":
        value, stored = {"photo": value, "note": "x"}, pa.struct([("photo", STORED), ("note", pa.string())])
    table = pa.table({"text": [f"row {i}" for i in range(n)], "held": pa.array([value] * n, stored)})
    features = {"text": {"dtype": "string", "_type": "Value"}, "held": KINDS[kind]}
    said = json.dumps({"info": {"features": features}})
    return table.replace_schema_metadata({"huggingface": said})


def write(table: pa.Table, file: Path) -> str:
    if file.suffix == ".parquet":
        pq.write_table(table, file)
    else:
        opened = pa.ipc.new_file if file.name.startswith("file") else pa.ipc.new_stream
        with opened(str(file), table.schema) as writer:
            writer.write_table(table)
    return str(file)


def prune(source: str, out: Path, format: str = "parquet") -> bytes:
    """Prune a source and return every byte of the result."""
    found = dp.prune(
        source, scorer="random", keep=3, columns={"text": "text"}, dedup=True, format=format, progress=False
    )
    found.save(out, format=format)
    return b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())


@pytest.fixture
def secret(tmp_path) -> Path:
    (tmp_path / "own").mkdir()
    file = tmp_path / "secret.png"
    file.write_bytes(SECRET)
    return file


@pytest.mark.parametrize("format", ["parquet", "arrow"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_file_of_this_machine_is_copied(secret, tmp_path, kind, format, caplog):
    for number, name in enumerate(("a.parquet", "stream.arrow", "file.arrow")):
        source = write(table_of(kind, str(secret)), tmp_path / name)  # the secret lies beside the file
        assert SECRET not in prune(source, tmp_path / f"out{number}", format)
        assert f"the column 'held' is declared as {type(_feature(kind)).__name__} and names" in caplog.text
        caplog.clear()


def _feature(kind: str):
    return Features.from_dict({"held": KINDS[kind]})["held"]


@pytest.mark.parametrize(
    "way", ["above", "dots", "link", "linked folder", "address", "chained", "missing", "pipe"]
)
def test_paths_that_lead_out_of_a_folder(secret, tmp_path, monkeypatch, way):
    own = tmp_path / "own"
    (own / "inner").mkdir()
    (own / "link.png").symlink_to(secret)
    (own / "there").symlink_to(tmp_path)
    monkeypatch.chdir(own)
    path = {
        "above": str(secret),
        "dots": str(own / "inner/../../secret.png"),
        "link": str(own / "link.png"),
        "linked folder": str(own / "there/secret.png"),
        "address": f"file://{secret}",
        "chained": f"simplecache::{secret}",
        "missing": str(own / "none.png"),
        "pipe": "../secret.png",
    }[way]
    write(table_of("image", path), own / "a.parquet")
    samples = load_samples(str(own), columns={"text": "text"})
    assert samples.dataset.features["held"] == {"bytes": Value("binary"), "path": Value("string")}
    assert samples.dataset[0]["held"] == {"bytes": None, "path": path}
    assert SECRET not in prune(str(own), tmp_path / "out")


def test_json_is_not_opened(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"text": "a"}\n{"text": "b", "x": [[false, 0]]}\n{"text": "c", "x": null}\n'
    )
    samples = load_samples(str(tmp_path / "a.jsonl"))
    assert samples.dataset[1]["x"] == [[False, 0]]


def test_images_in_the_sources_own_folder_stay_images(tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    Picture.new("RGB", (5, 4), (1, 2, 3)).save(own / "a.png")
    write(table_of("image", str(own / "a.png")), own / "a.parquet")
    samples = load_samples(str(own), columns={"text": "text"})
    assert samples.dataset[2]["held"].size == (5, 4)
    found = dp.prune(str(own), scorer="random", keep=3, columns={"text": "text"}, progress=False)
    found.save(tmp_path / "out")
    assert (own / "a.png").read_bytes() in (tmp_path / "out/data/train-00000-of-00001.parquet").read_bytes()


def test_bytes_are_what_they_are_whatever_their_path(secret, tmp_path):
    Picture.new("RGB", (5, 4)).save(tmp_path / "a.png")
    held = [{"bytes": (tmp_path / "a.png").read_bytes(), "path": str(secret)}] * 6
    table = table_of("image", "")
    table = table.set_column(1, table.schema.field(1), pa.array(held, STORED))
    samples = load_samples(write(table, tmp_path / "a.parquet"), columns={"text": "text"})
    assert samples.dataset.features["held"] == Image()
    assert samples.dataset[0]["held"].size == (5, 4)
    assert SECRET not in prune(str(tmp_path / "a.parquet"), tmp_path / "out", "arrow")


def test_a_saved_folder_that_names_files_elsewhere(secret, tmp_path):
    made = Dataset(pa.table({"text": ["a", "b", "c"], "held": pa.array([{"path": str(secret)}] * 3, STORED)}))
    made.save_to_disk(tmp_path / "own")
    info = tmp_path / "own" / "dataset_info.json"
    told = json.loads(info.read_text())
    told["features"]["held"] = KINDS["image"]
    info.write_text(json.dumps(told))
    data = next((tmp_path / "own").glob("*.arrow"))
    assert load_from_disk(tmp_path / "own").features["held"] == Image(), data
    samples = load_samples(str(tmp_path / "own"), columns={"text": "text"})
    assert not confined.decodes(samples.dataset.features["held"])
    assert SECRET not in prune(str(tmp_path / "own"), tmp_path / "out", "arrow")


def test_a_path_that_must_not_be_opened_is_but_a_text(secret):
    named, held = {"bytes": None, "path": str(secret)}, {"bytes": SECRET, "path": "b"}
    assert digest({"image": named}, {"image"}) == digest({"image": held})
    assert digest({"image": named}) == digest({"image": str(secret)}) != digest({"image": held})
    assert digest({"image": [{"x": named}]}) == digest({"image": [{"x": str(secret)}]})


@pytest.fixture
def server():
    """A server on this machine that notes who connects."""
    calls: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as held:
        held.settimeout(0.2)
        done = threading.Event()

        def serve() -> None:
            while not done.is_set():
                try:
                    connection, address = held.accept()
                except OSError:
                    continue
                calls.append(address)
                connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{held.getsockname()[1]}/x.png", calls
        done.set()
        thread.join()


@pytest.mark.parametrize("kind", ["image", "list"])
def test_nothing_connects(server, tmp_path, kind):
    address, calls = server
    source = write(table_of(kind, address), tmp_path / "a.parquet")
    prune(source, tmp_path / "out")
    prune(source, tmp_path / "arrow", "arrow")
    assert not calls


def test_what_is_in_memory_connects_only_where_that_was_not_refused(server, tmp_path, monkeypatch):
    address, calls = server
    features = Features({"text": Value("string"), "held": List(Image()), "sound": Audio()})
    held = pa.array([[{"bytes": None, "path": address}]] * 3, pa.list_(STORED))
    sound = pa.array([None] * 3, STORED)
    made = Dataset(
        pa.table({"text": ["a", "b", "c"], "held": held, "sound": sound}), info=DatasetInfo(features=features)
    )
    monkeypatch.setattr("datapruner.samples.source.offline", lambda: False)
    assert load_samples(made).dataset.features == features
    monkeypatch.setattr("datapruner.samples.source.offline", lambda: True)
    samples = load_samples(made)
    assert not confined.decodes(samples.dataset.features["held"])
    assert samples.dataset.features["sound"] == Audio()
    dp.prune(made, scorer="random", keep=2, progress=False).save(tmp_path / "out")
    assert not calls
