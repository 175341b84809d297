"""A run whose source, cache and result lie on S3: an answer of the server is spoiled, and the bytes are the same."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

import datapruner as dp
from datapruner.files import objects, retrying
from datapruner.files.staging import parted
from datapruner.signals.store import finding, leases, object_leases, shards
from tests.object_stores import s3_server, spoiled

pytest.importorskip("moto")
pytest.importorskip("s3fs")

URL = "s3://bucket/run"
ROWS = [{"instruction": f"Say {row}.", "output": f"{row * 7919 % 101} " * (1 + row % 5)} for row in range(40)]


class Encoder:
    """Letters counted, so that no model is loaded; what it gave is kept in the cache."""

    identity = "letters"

    def encode(self, texts):
        return np.array([[text.count(letter) + 1.0 for letter in "0123456789 "] for text in texts], "f4")


def results(source: str, cache: str, out: str) -> None:
    """A result, and another one in its place."""
    chosen = dp.prune(
        source, scorer="k_center", keep=0.5, embedder=Encoder(), cache=cache, seed=1, progress=False
    )
    chosen.save(out)
    chosen.rebudget(0.25).save(out, overwrite=True)


def run(tmp_path: Path, monkeypatch, machine: str) -> None:
    """Run on a machine that knows nothing of the store."""
    shards.BARRED.clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / machine))
    results(f"{URL}/in/*.jsonl", f"{URL}/cache", f"{URL}/out")


def files(folder: str) -> dict[str, bytes]:
    tree = objects.ObjectFolder(f"{URL}/{folder}").tree()
    return {name: file.parent.read(name) for name, file in tree.items()}


@pytest.fixture(autouse=True)
def quiet():
    for name in ("botocore", "aiobotocore", "werkzeug"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.faults
def test_every_other_answer_to_a_run_may_be_spoiled(tmp_path, monkeypatch):
    for part, names in (
        (retrying, {"PAUSE_SECONDS": (0.001, 0.01)}),
        (object_leases, {"PAUSE_SECONDS": (0.001, 0.01), "LOCK_SECONDS": 0.2}),
        (finding, {"LEAST_SHARDS": 1}),
    ):
        for name, value in names.items():
            monkeypatch.setattr(part, name, value)
    lines = [json.dumps(row).encode() + b"\n" for row in ROWS]
    (tmp_path / "rows.jsonl").write_bytes(b"".join(lines))
    results(str(tmp_path / "rows.jsonl"), str(tmp_path / "cache"), str(tmp_path / "out"))
    local = {
        str(path.relative_to(tmp_path / "out")): path.read_bytes()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    with s3_server() as server:
        for number, some in enumerate((lines[:20], lines[20:])):
            objects.ObjectFolder(URL).put_bytes(f"in/{number}.jsonl", b"".join(some))
        server.set()
        run(tmp_path, monkeypatch, "undisturbed")
        calls, wanted, stored = server.calls, files("out"), files("cache")
        assert wanted.keys() == local.keys()
        for name in wanted:
            if name.startswith("data/") or name == "selection.parquet":
                assert wanted[name] == local[name]
        points, server.calls = 0, calls
        for at, kind in spoiled(server, monkeypatch, 2, 2, f"{URL}/out", f"{URL}/cache"):
            run(tmp_path, monkeypatch, f"{at} {kind}")
            points += server.calls > at
            server.settled.wait()
            server.set()
            own, staged = parted(files("out"))
            assert own == wanted, (at, kind)
            # A put that took effect after the file's removal: the next run removes it, and nobody reads it meanwhile.
            assert not staged or kind == "slow", (at, kind)
            found = files("cache")
            assert stored.items() <= found.items(), (at, kind)
            # Likewise; and a lease ends with its time.
            left = (object_leases.LOCK, leases.SUFFIX) if kind == "slow" else object_leases.LOCK
            assert all(name.endswith(left) for name in found.keys() - stored.keys()), (at, kind)
        assert points >= 100
