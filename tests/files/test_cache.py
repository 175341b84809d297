"""A cache that is another's, read-only, shared, failing, or holds anything under the names of our files."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest

from datapruner.errors import DataPrunerError
from datapruner.files import cache, temporary
from datapruner.files.notes import Notes
from datapruner.signals.store import SignalStore, copies, places, row_keys, shards

CONTEXT = {"signal": "test"}
WIDTH = 3


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    for name, value in (("ASIDE", {}), ("BARRED", set()), ("TOLD", set())):
        monkeypatch.setattr(shards, name, value)
    monkeypatch.delenv(cache.KEY, raising=False)


def fetch(root: Path, rows: int = 25) -> int:
    """Fetch rows, hold them to what they must be, and say how many were computed."""

    def compute(positions):
        for one in np.array_split(positions, 3):
            yield one, np.repeat(one, WIDTH).reshape(-1, WIDTH).astype(np.float32)

    store = SignalStore(root, flush_rows=10)
    keys = row_keys((f"row {row}".encode() for row in range(rows)), CONTEXT)
    values = store.fetch(keys, CONTEXT, WIDTH, compute)
    np.testing.assert_array_equal(values, np.repeat(np.arange(rows), WIDTH).reshape(-1, WIDTH))
    return store.computed


def found(root: Path, ending: str) -> Path:
    return sorted(root.glob(f"signals*/*/*.{ending}"))[0]


def contents(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def said(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records]


@pytest.fixture
def forbidden(monkeypatch):
    """What a read-only mount answers, to root too."""

    def bar(folder: Path, number: int = errno.EROFS) -> None:
        for module, name in ((os, "open"), (os, "mkdir"), (os, "unlink"), (os, "utime"), (os, "replace")):
            real = getattr(module, name)

            def refused(path, *args, real=real, name=name, **more):
                writes = name != "open" or args[0] & (os.O_WRONLY | os.O_RDWR)
                if writes and not isinstance(path, int) and Path(path).is_relative_to(folder):
                    raise OSError(number, os.strerror(number), str(path))
                return real(path, *args, **more)

            monkeypatch.setattr(module, name, refused)

    return bar


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_cache_that_is_only_read_gives_what_it_holds_and_computes_the_rest(
    tmp_path, caplog, forbidden, number
):
    root = tmp_path / "cache"
    assert fetch(root) == 25
    before = contents(root)
    forbidden(root, number)
    assert fetch(root) == 0
    assert said(caplog) == []
    assert fetch(root, 40) == 15
    assert fetch(root, 40) == 0  # laid aside for this process
    assert fetch(root, 41) == 1
    (sentence,) = said(caplog)
    assert "cannot be written" in sentence
    assert "DATAPRUNER_CACHE" in sentence
    assert contents(root) == before
    notes = Notes(root)
    notes.put({"a": 1}, {"b": 2})
    assert notes.get({"a": 1}) is None


def test_a_full_disk_still_ends_with_a_sentence(tmp_path, forbidden):
    forbidden(tmp_path / "cache", errno.ENOSPC)
    with pytest.raises(DataPrunerError, match="free some space"):
        fetch(tmp_path / "cache")


def folder(path: Path) -> None:
    path.mkdir()
    (path / "of somebody's").write_text("x")


KINDS = {
    "folder": folder,
    "fifo": os.mkfifo if hasattr(os, "mkfifo") else folder,
    "loop": lambda path: path.symlink_to(path.name),
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "terminal": lambda path: path.symlink_to("/dev/tty"),
}


@pytest.mark.skipif(os.name != "posix", reason="FIFOs, devices")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ending", ["rows", "sum", "shard2"])
def test_what_is_no_file_of_ours_is_neither_waited_for_nor_touched(tmp_path, caplog, ending, kind):
    fetch(tmp_path)
    path = found(tmp_path, ending)
    if ending == "shard2":
        shutil.rmtree(tmp_path / "elsewhere", ignore_errors=True)
        for each in (found(tmp_path, "rows"), found(tmp_path, "sum")):
            each.unlink()
    path.unlink()
    KINDS[kind](path)
    before = path.lstat()
    computed = fetch(tmp_path)
    assert (computed > 0) == (ending == "shard2")
    assert any(path.name in sentence and "stays" in sentence for sentence in said(caplog))
    after = path.lstat()
    assert (before.st_ino, before.st_mode) == (after.st_ino, after.st_mode)
    if kind == "folder":
        assert (path / "of somebody's").exists()
    assert fetch(tmp_path) == 0  # rows in a shard's stead lie under another name


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("ending", ["rows", "shard2"])
def test_a_file_that_the_disk_does_not_give_stays(tmp_path, caplog, monkeypatch, ending, number):
    fetch(tmp_path)
    path = found(tmp_path, ending)
    if ending == "shard2":
        found(tmp_path, "rows").unlink()
    before = path.read_bytes()
    real = cache.open_plain

    def failing(asked):
        if asked == path:
            raise OSError(number, os.strerror(number))
        return real(asked)

    for module in (shards, copies):
        monkeypatch.setattr(module, "open_plain", failing)
    fetch(tmp_path)
    assert fetch(tmp_path) == 0
    assert os.strerror(number) in said(caplog)[0]
    assert path.read_bytes() == before


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="users")
def test_a_damaged_file_of_another_user_is_not_removed(tmp_path, caplog, monkeypatch):
    fetch(tmp_path)
    path = found(tmp_path, "shard2")
    found(tmp_path, "rows").unlink()
    path.write_bytes(path.read_bytes()[:-1])
    me = os.getuid()
    monkeypatch.setattr(cache.os, "getuid", lambda: me + 1)
    assert fetch(tmp_path) > 0
    assert path.exists()
    assert "not ours to remove" in said(caplog)[0]


@pytest.mark.parametrize("when", [1, 2, 3])
def test_a_cache_that_is_removed_meanwhile_is_made_anew(tmp_path, monkeypatch, when):
    root, calls, real = tmp_path / "cache", [], temporary.whole_file

    def write(path, mode=0o666):
        calls.append(path)
        if len(calls) == when:
            shutil.rmtree(root)
        return real(path, mode)

    monkeypatch.setattr(places, "whole_file", write)
    assert fetch(root) >= 25
    assert len(calls) > 3
    assert fetch(root) == 0


@pytest.mark.parametrize(
    "when", ["while rows are computed", "while shards are read", "while rows are copied"]
)
def test_shards_that_go_or_shrink_meanwhile_are_computed_anew(tmp_path, monkeypatch, when):
    """A mapped file that is cut short would end the process with SIGBUS, which no test survives."""
    root, hurt = tmp_path / "cache", []
    fetch(root, 35)
    found(root, "rows").unlink()

    def damage() -> None:
        if not hurt:
            hurt.append(when)
            files = sorted(root.rglob("*.shard2"))
            os.truncate(files[0], files[0].stat().st_size - 100)
            os.truncate(files[1], 0)
            files[2].unlink()

    if when == "while shards are read":
        real = shards.Shelf.files
        monkeypatch.setattr(shards.Shelf, "files", lambda held: (real(held), damage())[0])
    elif when == "while rows are copied":
        real = copies.open_shard
        monkeypatch.setattr(copies, "open_shard", lambda *given: (damage(), real(*given))[1])
    else:
        write = shards.Shelf.write_shard
        monkeypatch.setattr(shards.Shelf, "write_shard", lambda *given: (damage(), write(*given)))
    assert fetch(root, 50) >= 15
    assert hurt == [when]
    assert fetch(root, 50) == 0


def test_a_file_in_another_ones_place_gives_no_other_rows(tmp_path):
    """Each is whole, and closed by its own right checksum."""
    fetch(tmp_path)
    files = sorted(tmp_path.rglob("*.shard2"))
    first, last = files[0].read_bytes(), files[-1].read_bytes()
    found(tmp_path, "rows").unlink()
    files[0].write_bytes(last)
    assert 0 < fetch(tmp_path) < 25  # the rows that one held, and nothing else
    for shard in tmp_path.rglob("*.shard2"):
        shard.write_bytes(first)
    found(tmp_path, "rows").unlink()
    assert 0 < fetch(tmp_path) < 25


def test_rows_of_another_dataset_under_this_ones_name(tmp_path):
    """As many rows of the same width, whole, with the checksum that was written with them."""
    keys = row_keys((f"other {row}".encode() for row in range(25)), CONTEXT)
    SignalStore(tmp_path / "other").fetch(
        keys, CONTEXT, WIDTH, lambda rows: iter([(rows, np.full((len(rows), WIDTH), -1, np.float32))])
    )
    fetch(tmp_path / "cache")
    for ending in ("rows", "sum", "shard2"):
        shutil.copy(found(tmp_path / "other", ending), found(tmp_path / "cache", ending))
        fetch(tmp_path / "cache")


@pytest.mark.parametrize("name", ["a" * 300, "a" * 200 + "/" + "b" * 300, "of/" * 2000])
def test_a_name_that_no_disk_takes(tmp_path, caplog, monkeypatch, name):
    from datapruner.doctor import report

    assert fetch(tmp_path / name) == 25
    assert fetch(tmp_path / name) == 0  # laid aside
    assert all("too long" in sentence for sentence in said(caplog))
    Notes(tmp_path / name).put({"a": 1}, {"b": 2})
    assert Notes(tmp_path / name).get({"a": 1}) is None
    monkeypatch.setenv("DATAPRUNER_CACHE", str(tmp_path / name))
    assert ": 0 files, 0 MB" in report()
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.skipif(os.name != "posix", reason="modes")
@pytest.mark.parametrize(
    ("made", "folders", "files"), [(None, 0o700, 0o600), (0o755, 0o700, 0o600), (0o2770, 0o2770, 0o640)]
)
def test_it_is_private_unless_its_folder_is_open_to_others(tmp_path, made, folders, files):
    root = tmp_path / "cache"
    if made is not None:
        root.mkdir()
        root.chmod(made)
    before = os.umask(0o022)
    try:
        fetch(root)
        Notes(root).put({"a": 1}, {"b": 2})
    finally:
        os.umask(before)
    assert stat.S_IMODE(root.stat().st_mode) == (made or 0o700)
    modes = {path.is_dir(): set() for path in root.rglob("*")}
    for path in root.rglob("*"):
        modes[path.is_dir()].add(stat.S_IMODE(path.stat().st_mode))
    assert modes == {True: {folders}, False: {files}}


def test_with_a_key_nothing_is_taken_that_was_written_without_it(tmp_path, monkeypatch):
    fetch(tmp_path)
    plain = contents(tmp_path)
    monkeypatch.setenv(cache.KEY, "mine")
    assert fetch(tmp_path) == 25
    assert fetch(tmp_path) == 0
    assert plain.items() <= contents(tmp_path).items()
    (ours,) = (path for path in tmp_path.iterdir() if path.name.startswith("signals-"))
    # Somebody without the key plants what would hold without it.
    shutil.rmtree(ours)
    shutil.copytree(tmp_path / "signals", ours)
    assert fetch(tmp_path) == 25
    monkeypatch.setenv(cache.KEY, "another")
    assert fetch(tmp_path) == 25
    monkeypatch.setenv(cache.KEY, "mine")
    mine = tmp_path / cache.keyed("signals")
    assert fetch(tmp_path) == 0
    for wrong in ("Mine", " mine", "mine\n"):  # with what the right key wrote in its place
        monkeypatch.setenv(cache.KEY, wrong)
        shutil.copytree(mine, tmp_path / cache.keyed("signals"))
        assert fetch(tmp_path) == 25
    Notes(tmp_path).put({"a": 1}, {"b": 2})
    assert Notes(tmp_path).get({"a": 1}) == {"b": 2}
    monkeypatch.delenv(cache.KEY)
    assert Notes(tmp_path).get({"a": 1}) is None


def test_a_note_that_is_no_file_is_not_waited_for(tmp_path):
    notes = Notes(tmp_path)
    notes.put({"a": 1}, {"b": 2})
    (path,) = notes.folder.iterdir()
    path.unlink()
    KINDS["fifo"](path)
    assert notes.get({"a": 1}) is None
    notes.put({"a": 1}, {"b": 2})
    assert not path.is_file()


def test_what_was_laid_aside_goes_with_the_process(tmp_path, forbidden):
    forbidden(tmp_path / "cache")
    fetch(tmp_path / "cache")
    (aside,) = shards.ASIDE.values()
    assert aside.is_relative_to(temporary._PRIVATE[os.getpid()][0])
    assert stat.S_IMODE(aside.parent.stat().st_mode) == 0o700
