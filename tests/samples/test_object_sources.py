"""Sources and results on object stores: what is read there and put there is what is read and written here."""

from __future__ import annotations

import gzip
import itertools
import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from PIL import Image

import datapruner as dp
from datapruner.errors import DataPrunerError
from datapruner.files import objects, retrying
from datapruner.outputs import folder, upload
from datapruner.samples import load_samples
from tests.conftest import command
from tests.object_stores import CALLS, Faulty, s3_server

LIKE = {"scorer": "random", "progress": False}
ROWS = [{"question": f"what is {i}", "answer": f"number {i * 7}"} for i in range(12)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
STORE = fsspec.filesystem("memory")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(retrying, "PAUSE_SECONDS", (0.001, 0.01))
    STORE.store.clear()
    STORE.pseudo_dirs[:] = [""]
    yield tmp_path
    STORE.store.clear()


def put(name: str, data: bytes = LINES) -> str:
    STORE.pipe_file(f"/{name}", data)
    return f"memory://{name}"


def parquet(rows) -> bytes:
    out = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue().to_pybytes()


def held() -> dict[str, bytes]:
    return {name: STORE.cat_file(name) for name in STORE.find("/out")}


def written(folder: Path) -> dict[str, bytes]:
    return {
        f"/out/{p.relative_to(folder).as_posix()}": p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("b/rows.jsonl", LINES),
        ("b/rows.jsonl.gz", gzip.compress(LINES)),
        ("b/rows.jsonl.zst", zstandard.compress(LINES)),
        ("b/rows.parquet", parquet(ROWS)),
    ],
)
def test_a_file_is_read_as_if_it_lay_here(name, data):
    samples = load_samples(put(name, data))
    assert samples.dataset.to_list() == ROWS
    assert samples.source == f"memory://{name}"


def test_patterns_and_folders_are_read_in_order(place):
    for number, part in enumerate((ROWS[:5], ROWS[5:])):
        put(f"b/set/part-{number}.parquet", parquet(part))
    put("b/other/notes.txt", b"no data")
    put("b/set/part-0.json", b"x")
    for pattern in ("b/set/*.parquet", "b/*/part-*.parquet", "b/**/*.parquet", "b/s[ef]t/part-[0-9].parquet"):
        assert load_samples(f"memory://{pattern}").dataset.to_list() == ROWS
    STORE.rm_file("/b/set/part-0.json")
    assert load_samples("memory://b/set").dataset.to_list() == ROWS
    put("b/set/test-00000.parquet", parquet(ROWS[:2]))
    assert len(load_samples("memory://b/set/").others["test"]) == 2


@pytest.mark.parametrize("pattern", ["*.parquet", "[pq]art-*.parquet"])
def test_a_listing_that_fails_once_leaves_nothing_out(place, monkeypatch, pattern):
    for number, part in enumerate((ROWS[:5], ROWS[5:])):
        put(f"b/set/part-{number}.parquet", parquet(part))
    list_, failing = type(STORE).ls, []

    def listed(store, path, *given, **more):
        if len(failing) < 3:
            failing.append(path)
            raise TimeoutError
        return list_(store, path, *given, **more)

    monkeypatch.setattr(type(STORE), "ls", listed)
    assert load_samples(f"memory://b/set/{pattern}").dataset.to_list() == ROWS
    assert len(failing) == 3


def test_images_beside_their_metadata_are_opened(place):
    Image.new("RGB", (2, 3)).save("a.png")
    put("b/images/a.png", Path("a.png").read_bytes())
    put("b/images/metadata.jsonl", json.dumps({"file_name": "a.png", "text": "a picture"}).encode() + b"\n")
    samples = load_samples("memory://b/images")
    assert samples.dataset[0]["image"].size == (2, 3)


def test_a_run_from_and_to_a_store_gives_the_bytes_of_one_on_disk(place, monkeypatch, capsys):
    Path("rows.jsonl").write_bytes(LINES)
    put("in/rows.jsonl")
    words = ["--scorer", "random", "--keep", 5]
    assert command(monkeypatch, "prune", "rows.jsonl", *words, "-o", "out") == 0
    assert command(monkeypatch, "prune", "memory://in/rows.jsonl", *words, "-o", "memory://out") == 0
    assert "memory://out" in capsys.readouterr().out
    here, there = written(Path("out")), held()
    same = ["/out/data/train-00000-of-00001.parquet", "/out/selection.parquet"]
    assert here.keys() == there.keys()
    assert [there[name] for name in same] == [here[name] for name in same]
    assert b"source: memory://in/rows.jsonl\n" in there["/out/recipe.yaml"]
    assert there["/out/recipe.yaml"].replace(b"memory://in/", b"../") == here["/out/recipe.yaml"]
    assert dp.load("memory://out").reason(3) == dp.load("out").reason(3)
    Path("recipe.yaml").write_bytes(there["/out/recipe.yaml"])
    assert command(monkeypatch, "run", "recipe.yaml", "-o", "memory://out", "-q", "--overwrite") == 0
    assert held() == there
    assert command(monkeypatch, "explain", "memory://out", "--row", 3) == 0
    # What was put can be a source, and is held against its list.
    assert len(load_samples("memory://out").dataset) == 5
    put("out/data/train-00000-of-00001.parquet", b"spoilt")
    with pytest.raises(DataPrunerError, match="is not as it was written"):
        load_samples("memory://out")


def test_scores_and_sources_lie_together_on_a_store(place, monkeypatch):
    dp.score(
        {"a": put("in/a.jsonl"), "b": put("in/b.parquet", parquet(ROWS))}, scorers="random", progress=False
    ).save("memory://scores")
    assert command(monkeypatch, "select", "memory://scores", "--keep", 4, "-o", "memory://out", "-q") == 0
    assert len(dp.load_selection("memory://out")) == 4
    assert dp.load_selection("memory://out").source.origins[1].source == "memory://in/b.parquet"


def test_what_lies_there_is_not_replaced_unasked(place, monkeypatch, capfd):
    chosen = dp.prune(put("in/rows.jsonl"), keep=5, **LIKE)
    chosen.save("memory://out")
    before = held()
    with pytest.raises(DataPrunerError, match="holds an earlier result"):
        chosen.save("memory://out")
    put("out/mine.txt", b"mine")
    with pytest.raises(DataPrunerError, match=r"holds other files \(mine\.txt\)"):
        chosen.save("memory://out", overwrite=True)
    STORE.rm_file("/out/mine.txt")
    assert held() == before
    with pytest.raises(DataPrunerError, match="is a file"):
        chosen.save("memory://in/rows.jsonl")
    # The source must not be replaced by what is made of it.
    source = "memory://out/data/train-00000-of-00001.parquet"
    assert command(monkeypatch, "prune", source, "--keep", 1, "-o", "memory://out", "--overwrite") == 2
    assert "which is read" in capfd.readouterr().err


def test_an_interrupted_upload_is_never_taken_for_whole(place, monkeypatch):
    chosen = dp.prune(put("in/rows.jsonl"), keep=5, **LIKE)
    chosen.save("memory://out")
    whole = held()
    put_ = objects.ObjectFolder.put_file
    for stop in range(len(whole)):
        STORE.rm("/out", recursive=True)
        done = []

        def failing(folder, name, path, done=done, stop=stop):
            if len(done) == stop:
                raise KeyboardInterrupt
            done.append(name)
            put_(folder, name, path)

        monkeypatch.setattr(objects.ObjectFolder, "put_file", failing)
        with pytest.raises(KeyboardInterrupt):
            chosen.rebudget(6).save("memory://out")
        for load in (dp.load, dp.load_selection, load_samples):
            with pytest.raises(
                DataPrunerError,
                match=r"is not whole|is whole: its|no such file, folder|is gone|holds no data files",
            ):
                load("memory://out")
        monkeypatch.setattr(objects.ObjectFolder, "put_file", put_)
        chosen.save("memory://out", overwrite=True)
        assert held() == whole


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["killed", "cut before", "cut after"])
def test_wherever_a_run_dies_that_replaces_a_result_one_of_the_two_is_there(place, monkeypatch, kind):
    monkeypatch.setattr(retrying, "TRIES", 2)
    one = dp.prune(put("in/rows.jsonl"), keep=5, **LIKE)
    two = one.rebudget(6)
    two.save("memory://out")
    after = held()
    one.save("memory://out", overwrite=True)
    before, found = held(), []
    for at in itertools.count():
        faulty = Faulty(STORE, at, kind, lasting=True)
        monkeypatch.setattr(objects, "file_system", lambda _protocol, faulty=faulty: faulty)
        with suppress(KeyboardInterrupt, DataPrunerError):
            two.save("memory://out", overwrite=True)
        monkeypatch.setattr(objects, "file_system", lambda _protocol: STORE)
        if faulty.calls <= at:
            break
        found.append(len(load_samples("memory://out").dataset))
        assert dp.load("memory://out").kept.sum() == found[-1]
        with pytest.raises(DataPrunerError, match="holds an earlier result, or a part of one"):
            one.save("memory://out")
        one.save("memory://out", overwrite=True)
        assert held() == before
    assert held() == after
    assert found == sorted(found)
    assert found.count(5) > 10 < found.count(6)


class Between:
    """A file system that does something else before its n-th call: what another run does meanwhile."""

    def __init__(self, at, meanwhile):
        self.at, self.meanwhile, self.calls = at, meanwhile, 0

    def __getattr__(self, name):
        found = getattr(STORE, name)
        return self._counted(found) if name in CALLS else found

    def _counted(self, call):
        def counted(*given, **more):
            number, self.calls = self.calls, self.calls + 1
            if number == self.at:
                self.meanwhile()
            return call(*given, **more)

        return counted


@pytest.fixture
def two(place):
    """Results of other rows and other files, and what a store holds of each."""
    first = dp.prune(put("in/rows.jsonl"), keep=5, format="jsonl", **LIKE)
    second = dp.prune("memory://in/rows.jsonl", keep=6, **LIKE)
    found = []
    for one in (first, second):
        one.save("memory://out", overwrite=True)
        found.append(held())
    return (first, second), found


@pytest.mark.faults
@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("dies", [False, True])
def test_a_run_that_replaces_a_result_while_another_does(two, monkeypatch, there, dies):
    """Wherever one run comes between two calls of the other, and wherever it is killed, one of the two stays, whole."""
    (one, other), results = two
    ends = set()
    for at in itertools.count(step=3 if dies else 1):
        STORE.rm("/out", recursive=True)
        if there:
            other.save("memory://out")

        def meanwhile(at=at):
            nested, outer = Faulty(STORE, 3 + at if dies else -1, "killed"), objects.file_system
            monkeypatch.setattr(objects, "file_system", lambda _protocol: nested)
            with suppress(KeyboardInterrupt):
                other.save("memory://out", overwrite=True)
            monkeypatch.setattr(objects, "file_system", outer)

        between = Between(at, meanwhile)
        monkeypatch.setattr(objects, "file_system", lambda _protocol, between=between: between)
        one.save("memory://out", overwrite=True)
        monkeypatch.setattr(objects, "file_system", lambda _protocol: STORE)
        if between.calls <= at:
            break
        kept = dp.load("memory://out").kept.sum()
        assert kept == len(load_samples("memory://out").dataset)
        ends.add(int(kept))
        own = {name: data for name, data in held().items() if "/.new-" not in name}
        assert dies or own in results
    assert ends == {5, 6}
    assert at > 20


@pytest.mark.parametrize("seed", range(6))
def test_two_runs_that_replace_a_result_at_the_same_time(two, monkeypatch, seed):
    both, results = two
    rng, drawing = np.random.default_rng(seed), threading.Lock()

    def wait():
        with drawing:
            seconds = rng.exponential(0.002)
        time.sleep(seconds)

    class Slow(Between):
        def _counted(self, call):
            return lambda *given, **more: (wait(), call(*given, **more))[1]

    monkeypatch.setattr(objects, "file_system", lambda _protocol: Slow(-1, None))
    with ThreadPoolExecutor(2) as pool:
        for saved in [pool.submit(one.save, "memory://out", overwrite=True) for one in both]:
            saved.result()
    monkeypatch.setattr(objects, "file_system", lambda _protocol: STORE)
    assert held() in results


def test_what_came_there_meanwhile_is_not_replaced_unasked(two, monkeypatch):
    (one, other), results = two
    STORE.rm("/out", recursive=True)
    digests = folder.write_checksums

    def late(made):
        monkeypatch.setattr(folder, "write_checksums", digests)
        other.save("memory://out")
        digests(made)

    monkeypatch.setattr(folder, "write_checksums", late)  # once it has looked whether anything is there
    with pytest.raises(DataPrunerError, match="holds an earlier result"):
        one.save("memory://out")
    assert held() == results[1]


def test_faults_that_pass_change_nothing_and_others_are_a_sentence(place, monkeypatch):
    put("in/rows.jsonl")
    wanted = None
    for at in range(200):
        STORE.rm("/out", recursive=True) if STORE.exists("/out") else None
        faulty = Faulty(STORE, at, "overloaded")
        monkeypatch.setattr(objects, "file_system", lambda _protocol, faulty=faulty: faulty)
        dp.prune("memory://in/rows.jsonl", keep=5, **LIKE).save("memory://out")
        wanted = wanted or held()
        assert held() == wanted
        if faulty.calls <= at:
            break
    assert at > 5
    faulty = Faulty(STORE, 0, "overloaded", lasting=True)
    monkeypatch.setattr(objects, "file_system", lambda _protocol: faulty)
    with pytest.raises(DataPrunerError, match=r"memory://in.*cannot be"):
        load_samples("memory://in/rows.jsonl")


def test_a_source_that_changes_while_it_is_used_is_told(place):
    samples = load_samples(put("in/rows.jsonl"))
    put("in/rows.jsonl", LINES + b"\n")
    with pytest.raises(DataPrunerError, match=r"memory://in/rows\.jsonl changed \(it had"):
        samples.unchanged()
    STORE.rm_file("/in/rows.jsonl")
    with pytest.raises(DataPrunerError, match="is gone since it was read"):
        samples.unchanged()
    dp.prune(put("in/rows.jsonl"), keep=5, **LIKE).save("out")
    put("in/rows.jsonl", LINES.replace(b"what", b"when"))
    with pytest.raises(DataPrunerError, match="has other rows than when this was made"):
        dp.run("out/recipe.yaml", progress=False)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("memory://b/gone.jsonl", "There is no such file, folder or bucket: 'memory://b/gone.jsonl'"),
        ("memory://b/*.parquet", "There is no such file"),
        ("memory://b/notes.txt", "which is no data file that can be read"),
        ("memory://b/bad.jsonl", "memory://b/bad.jsonl, line 1"),
        ("memory://b/empty.jsonl", "has no rows"),
        ("memory://a::memory://b/rows.jsonl", "is an address within another"),
        ("s3://key:hunter2@bucket/rows.jsonl", "holds a password or a signature"),
        ("s3://bucket/rows.jsonl?X-Amz-Signature=hunter2", "holds a password or a signature"),
        ("gs://bucket/rows.jsonl", "needs gcsfs: pip install"),
        ("http://host/rows.jsonl", "is no address that can be read or written"),
        ("file:///etc/passwd.jsonl", "is no address that can be read or written"),
    ],
)
def test_bad_input_is_a_sentence_without_secrets(monkeypatch, capfd, source, said):
    pytest.importorskip("s3fs")
    put("b/notes.txt"), put("b/bad.jsonl", b"{no json}\n"), put("b/empty.jsonl", b"")
    assert command(monkeypatch, "prune", source, "--keep", 1, "--scorer", "random", "-o", "out") == 2
    shown = capfd.readouterr()
    assert said in shown.err.replace("\n", " ")
    assert "hunter2" not in shown.err + shown.out
    assert not Path("out").exists()


def test_names_inside_of_data_open_nothing(place):
    """An address in a column that a file declares as images stays what it is."""
    from datasets import Dataset, Features, Image, Value

    put("b/a.png", b"secret")
    rows = {"text": ["t"], "image": [{"bytes": None, "path": "memory://b/a.png"}]}
    kinds = Features({"text": Value("string"), "image": Image()})
    table = Dataset.from_dict(
        rows, features=Features({"text": Value("string"), "image": Image(decode=False)})
    )
    table.cast(kinds).to_parquet("rows.parquet")
    put("b/rows.parquet", Path("rows.parquet").read_bytes())
    for source in ("rows.parquet", "memory://b/rows.parquet"):
        assert load_samples(source).dataset[0]["image"] == {"bytes": None, "path": "memory://b/a.png"}


def test_names_that_lead_out_of_a_folder_are_refused(place):
    put("b/set/rows.jsonl")
    STORE.store["/b/set/../../evil.jsonl"] = STORE.store["/b/set/rows.jsonl"]
    with pytest.raises(DataPrunerError, match="whose name cannot be taken"):
        load_samples("memory://b/set")


def test_s3_on_loopback(place, monkeypatch):
    pytest.importorskip("moto")
    pytest.importorskip("s3fs")
    for name in ("botocore", "aiobotocore", "werkzeug"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with s3_server() as server:
        s3 = objects.file_system("s3")
        s3.pipe_file("bucket/in/rows.jsonl", LINES)
        Path("rows.jsonl").write_bytes(LINES)
        dp.prune("rows.jsonl", keep=5, **LIKE).save("out")
        chosen = dp.prune("s3://bucket/in/*.jsonl", keep=5, **LIKE)
        chosen.save("s3://bucket/out")
        for name in ("data/train-00000-of-00001.parquet", "selection.parquet"):
            assert s3.cat_file(f"bucket/out/{name}") == (Path("out") / name).read_bytes()
        for at, kind in ((4, "cut after"), (9, "overloaded")):
            server.set(at, kind)
            chosen.save("s3://bucket/out", overwrite=True)
            assert dp.load("s3://bucket/out").kept.tolist() == chosen.kept.tolist()
        server.set()
        with pytest.raises(DataPrunerError, match="no such file, folder or bucket"):
            load_samples("s3://nowhere/rows.jsonl")
        with pytest.raises(DataPrunerError, match="there is no bucket 'nowhere'"):
            chosen.save("s3://nowhere/out")
        s3.pipe_file("bucket/in/rows.jsonl", LINES.replace(b"what", b"when"))
        with pytest.raises(DataPrunerError, match="changed"):
            chosen.source.unchanged()
        assert "a-secret-key-of-tests" not in s3.cat_file("bucket/out/recipe.yaml").decode()


def test_the_file_that_marks_a_result_is_put_last(place, monkeypatch):
    names: list[str] = []
    put_ = objects.ObjectFolder.put_file
    monkeypatch.setattr(
        objects.ObjectFolder,
        "put_file",
        lambda folder, name, path: (names.append(name), put_(folder, name, path)),
    )
    dp.prune(put("in/rows.jsonl"), keep=5, **LIKE).save("memory://out")
    assert names[-1] == "recipe.yaml"
    assert names[-1] in upload.LAST
