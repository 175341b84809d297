"""What is being written is its writer's for as long as it lives, and nobody's afterwards."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from datapruner.files import temporary
from datapruner.files.temporary import MARK, new_folder, release, sweep, whole_file

HOLD = """
import sys, time
from pathlib import Path
from datapruner.files.temporary import new_folder
folder, _ = new_folder(Path(sys.argv[1]))
(folder / "half").write_text("x")
print(folder, flush=True)
time.sleep(60)
"""
PRIVATE = """
import os, signal, sys
from datapruner.files.temporary import private_folder
folder = private_folder()
(folder / "spilled").write_text("x")
if len(sys.argv) > 1:
    os.kill(os.getpid(), signal.SIGKILL)
if os.fork() == 0:
    raise SystemExit
os.wait()
print((folder / "spilled").exists())
"""


def test_a_folder_is_its_writers_until_it_dies(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True
    ) as writer:
        folder = type(tmp_path)(writer.stdout.readline().strip())
        sweep([folder])
        assert (folder / "half").exists()
        writer.kill()
    sweep([folder])
    assert not folder.exists()


def test_a_folder_that_is_swept_before_it_is_held_is_made_again(tmp_path, monkeypatch):
    tried, own = [], os.open

    def late(path, *given, **more):
        tried.append(path)
        if len(tried) == 1:
            path.rmdir()
        return own(path, *given, **more)

    monkeypatch.setattr(os, "open", late)
    folder, handle = new_folder(tmp_path / "out")
    monkeypatch.undo()
    assert len(set(tried)) == 2
    assert [folder] == list(tmp_path.iterdir())
    release(handle)


def test_what_was_released_is_anybodys(tmp_path):
    folder, handle = new_folder(tmp_path / "out")
    sweep([folder])
    assert folder.exists()
    release(handle)
    sweep([folder])
    assert not folder.exists()


def test_what_is_no_file_or_folder_is_left_alone(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / f"link{MARK}1").symlink_to(tmp_path / "kept")
    os.mkfifo(tmp_path / f"pipe{MARK}1")
    sweep(tmp_path.glob(f"*{MARK}*"))
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(("age", "stays"), [(0, True), (2 * temporary.STALE_SECONDS, False)])
def test_without_locks_age_decides(tmp_path, monkeypatch, age, stays):
    def lacking(handle, how):
        raise OSError(errno.ENOLCK, "no locks here")

    folder, handle = new_folder(tmp_path / "out")
    release(handle)
    monkeypatch.setattr(temporary.fcntl, "flock", lacking)
    then = folder.stat().st_mtime - age
    os.utime(folder, (then, then))
    sweep([folder])
    assert folder.exists() == stays


def test_a_file_is_whole_or_as_it_was(tmp_path):
    file = tmp_path / "file"
    with whole_file(file) as handle:
        handle.write(b"first")
    with pytest.raises(RuntimeError), whole_file(file) as handle:  # noqa: PT012
        handle.write(b"second")
        raise RuntimeError
    assert file.read_bytes() == b"first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_file_being_written_is_not_swept(tmp_path):
    with whole_file(tmp_path / "file") as handle:
        handle.write(b"x")
        sweep(tmp_path.glob(f"*{MARK}*"))
    assert (tmp_path / "file").read_bytes() == b"x"


def private(tmp_path, *arguments):
    return subprocess.run(
        [sys.executable, "-c", PRIVATE, *arguments],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_private_folder_goes_with_its_process_and_not_with_its_children(tmp_path):
    assert private(tmp_path).stdout.strip() == "True"
    assert not list(tmp_path.iterdir())


def test_what_a_kill_leaves_goes_with_the_next_run(tmp_path):
    mine = tmp_path / "datapruner-experiments"
    mine.mkdir()
    private(tmp_path, "kill")
    assert len(list(tmp_path.iterdir())) == 2
    private(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == [mine.name]


@pytest.mark.parametrize("ahead", [10**9, -(10**9)])
def test_a_clock_that_is_wrong_sweeps_nothing_that_is_held(tmp_path, ahead):
    folder, handle = new_folder(tmp_path / "out")
    then = folder.stat().st_mtime - ahead
    os.utime(folder, (then, then))
    sweep([folder])
    assert folder.exists()
    release(handle)
    sweep([folder])
    assert not folder.exists()


def test_litter_of_another_user_stays(tmp_path, monkeypatch):
    folder, handle = new_folder(tmp_path / "out")
    release(handle)
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    sweep([folder])
    assert folder.exists()
