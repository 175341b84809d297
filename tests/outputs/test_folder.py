"""A result's folder is whole or not there, is never a moment without a name, and nothing of anybody else's goes."""

from __future__ import annotations

import errno
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from datapruner.errors import DataPrunerError
from datapruner.outputs import swap
from datapruner.outputs.folder import whole_folder

KILLED = """
import os, signal, sys
from pathlib import Path
from datapruner.outputs.folder import whole_folder
with whole_folder(Path(sys.argv[1]), overwrite=False) as folder:
    (folder / "half").write_text("written")
    os.kill(os.getpid(), signal.SIGKILL)
"""
SWEEP = """
import glob, sys
from pathlib import Path
from datapruner.files.temporary import sweep
sweep(Path(sys.argv[1]).parent.glob(".*"))
"""


def write(out: Path, text: str, *, overwrite: bool = False, meanwhile=lambda: None) -> None:
    with whole_folder(out, overwrite=overwrite) as folder:
        (folder / "recipe.yaml").write_text(text)
        (folder / "selection.parquet").write_text(text)
        meanwhile()


def held(out: Path) -> str:
    return (out / "recipe.yaml").read_text()


def beside(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir())


@pytest.fixture(params=["one call", "two renames"])
def swapping(request, monkeypatch):
    """With the system's exchange of two names, and as where there is none."""

    def lacking(made, path):
        raise OSError(errno.ENOSYS, "no exchange")

    if request.param == "two renames":
        monkeypatch.setattr(swap, "_exchange", lacking)


def test_a_killed_writers_folder_goes_with_the_next_run(tmp_path):
    out = tmp_path / "out"
    subprocess.run([sys.executable, "-c", KILLED, str(out)], check=False)
    assert len(beside(out)) == 1
    assert not out.exists()
    write(out, "new")
    assert beside(out) == ["out"]


def test_a_living_writers_folder_stays(tmp_path):
    out = tmp_path / "out"

    def another_runs():
        subprocess.run([sys.executable, "-c", SWEEP, str(out)], check=True)

    write(out, "mine", meanwhile=another_runs)
    assert held(out) == "mine"


def test_names_that_begin_alike_do_not_sweep_each_other(tmp_path):
    one, other = (tmp_path / f"experiment-2024-08-14-run-{letter}" for letter in "ab")
    write(one, "one", meanwhile=lambda: write(other, "other"))
    assert (held(one), held(other)) == ("one", "other")


def test_who_finishes_second_is_told_and_the_first_result_stays(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(DataPrunerError, match=f"{out} holds an earlier result"):
        write(out, "second", meanwhile=lambda: write(out, "first"))
    assert held(out) == "first"
    assert beside(out) == ["out"]


def race(out: Path, text: str, barrier, done) -> None:
    def meanwhile():
        barrier.wait()

    try:
        write(out, text, meanwhile=meanwhile)
        done.put(text)
    except DataPrunerError:
        done.put(None)


def test_of_many_at_once_one_wins(tmp_path):
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    for turn in range(5):
        out = tmp_path / f"out{turn}"
        barrier, done = context.Barrier(4), context.Queue()
        runs = [context.Process(target=race, args=(out, str(number), barrier, done)) for number in range(4)]
        for run in runs:
            run.start()
        won = [text for text in (done.get(timeout=60) for _ in runs) if text is not None]
        for run in runs:
            run.join()
        assert won == [held(out)]
    assert beside(out) == [f"out{turn}" for turn in range(5)]


def test_an_overwritten_result_is_never_gone(tmp_path):
    """Somebody who looks all the time always finds a whole result (where the system can exchange two names)."""
    out = tmp_path / "out"
    write(out, "0")
    seen, stop = set(), threading.Event()

    def look():
        while not stop.is_set():
            try:
                seen.add(held(out))
            except FileNotFoundError:
                # Between opening the folder and the file in it the folder may have changed, not vanished.
                seen.add("there" if out.exists() else "gone")

    looker = threading.Thread(target=look)
    looker.start()
    for number in range(1, 60):
        write(out, str(number), overwrite=True)
    stop.set()
    looker.join()
    assert "gone" not in seen
    assert held(out) == "59"
    assert beside(out) == ["out"]


@pytest.mark.usefixtures("swapping")
def test_a_result_is_replaced_when_asked(tmp_path):
    out = tmp_path / "out"
    write(out, "old")
    write(out, "new", overwrite=True)
    assert held(out) == "new"
    assert beside(out) == ["out"]


@pytest.mark.usefixtures("swapping")
@pytest.mark.parametrize("when", ["before the check", "after the check"])
def test_a_file_that_somebody_puts_there_meanwhile_stays(tmp_path, monkeypatch, when):
    out = tmp_path / "out"
    write(out, "old")

    def note():
        (out / "my-notes.txt").write_text("precious")

    exchange = swap.exchange
    moved = []

    def late(made, path):
        if not moved:
            note()
        moved.append(path)
        exchange(made, path)

    if when == "after the check":
        monkeypatch.setattr(swap, "exchange", late)
    with pytest.raises(DataPrunerError, match=r"my-notes\.txt"):
        write(out, "new", overwrite=True, meanwhile=note if when == "before the check" else lambda: None)
    assert held(out) == "old"
    assert (out / "my-notes.txt").read_text() == "precious"
    assert beside(out) == ["out"]


def test_a_file_put_into_an_empty_folder_meanwhile_stays(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(DataPrunerError, match=r"other files \(note\)"):
        write(out, "new", meanwhile=lambda: (out / "note").write_text("x"))
    assert beside(out) == ["out"]
    assert [entry.name for entry in out.iterdir()] == ["note"]


def test_a_result_that_a_kill_left_aside_is_found_again(tmp_path, monkeypatch, caplog):
    """Where two names cannot be exchanged in one call there is a moment between two renames."""
    out = tmp_path / "out"
    write(out, "old")

    class Killed(BaseException):
        pass

    def lacking(made, path):
        raise OSError(errno.ENOSYS, "no exchange")

    rename = Path.rename

    def killed(self, target):
        if self == out:
            rename(self, target)
            os._exit(9)
        return rename(self, target)

    child = os.fork()
    if child == 0:
        monkeypatch.setattr(swap, "_exchange", lacking)
        monkeypatch.setattr(Path, "rename", killed)
        write(out, "new", overwrite=True)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert not out.exists()
    with pytest.raises(DataPrunerError, match="holds an earlier result"):
        write(out, "newer")
    assert held(out) == "old"
    assert "was found under" in caplog.text
    write(out, "newer", overwrite=True)
    assert held(out) == "newer"
    assert beside(out) == ["out"]


def test_an_error_in_the_middle_leaves_what_was_there(tmp_path):
    out = tmp_path / "deep" / "out"

    def fail():
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DataPrunerError, match="No space left"):
        write(out, "new", meanwhile=fail)
    assert not (tmp_path / "deep").exists()
    write(out, "old")
    with pytest.raises(DataPrunerError, match="No space left"):
        write(out, "new", overwrite=True, meanwhile=fail)
    assert held(out) == "old"
    assert beside(out) == ["out"]


def test_a_name_that_is_not_utf8_is_refused_first(tmp_path):
    with pytest.raises(DataPrunerError, match="not UTF-8"):
        write(tmp_path / os.fsdecode(b"o-\xff"), "new")
    assert not list(tmp_path.iterdir())


def test_a_waiting_overwriter_takes_the_result_of_the_one_before(tmp_path):
    out = tmp_path / "out"
    write(out, "0")
    threads = [
        threading.Thread(target=write, args=(out, str(n)), kwargs={"overwrite": True}) for n in range(8)
    ]
    for thread in threads:
        thread.start()
        time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert held(out) in {str(n) for n in range(8)}
    assert beside(out) == ["out"]


@pytest.mark.parametrize("name", ["my-link", "data/link", "state/00.npz", ".hidden"])
def test_a_link_of_the_users_is_not_ours(tmp_path, name):
    """Whatever it leads to: what it names would stay, and the link would be gone."""
    out = tmp_path / "out"
    write(out, "old")
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).symlink_to(tmp_path)
    with pytest.raises(DataPrunerError, match="holds other files"):
        write(out, "new", overwrite=True)
    assert (out / name).is_symlink()
    assert held(out) == "old"


def test_an_output_inside_another_ones_output_stays(tmp_path):
    out = tmp_path / "out"
    write(out, "outer")
    write(out / "inner", "inner")
    with pytest.raises(DataPrunerError, match=r"holds other files \(inner/"):
        write(out, "new", overwrite=True)
    assert (held(out), held(out / "inner")) == ("outer", "inner")


def test_a_link_to_a_result_stays_a_link(tmp_path):
    out, link = tmp_path / "out", tmp_path / "link"
    link.symlink_to("out")  # leads nowhere, as yet
    write(link, "old")
    write(link, "new", overwrite=True)
    assert link.is_symlink()
    assert held(out) == "new"


def test_a_link_that_leads_to_itself(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(DataPrunerError, match="cannot be written: "):
        write(tmp_path / "loop", "new")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_an_exchange_that_fails_leaves_what_was_there(tmp_path, monkeypatch, number):
    out = tmp_path / "out"
    write(out, "old")

    def failing(made, path):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(swap, "_exchange", failing)
    with pytest.raises(DataPrunerError, match=os.strerror(number)):
        write(out, "new", overwrite=True)
    assert held(out) == "old"
    assert beside(out) == ["out"]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="modes")
@pytest.mark.parametrize("old", [None, "old"])
def test_a_parent_that_becomes_read_only_before_the_swap(tmp_path, monkeypatch, swapping, old):
    """The new folder is written by then; root, whom no mode holds, is answered as others are."""
    out = tmp_path / "shared" / "out"
    if old:
        write(out, old)
    out.parent.mkdir(exist_ok=True)

    def close() -> None:
        out.parent.chmod(0o555)
        if os.geteuid() == 0:
            monkeypatch.setattr(swap, "_exchange", refused)
            monkeypatch.setattr(Path, "rename", refused)

    def refused(one, other):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    try:
        with pytest.raises(DataPrunerError, match=r"cannot be written: Permission denied"):
            write(out, "new", overwrite=True, meanwhile=close)
    finally:
        out.parent.chmod(0o755)
    monkeypatch.undo()
    assert (held(out) if old else out.exists()) == (old or False)
    write(out, "newer", overwrite=True)
    assert (held(out), beside(out)) == ("newer", ["out"])  # and what could not be removed then has gone


def test_a_second_rename_that_fails_puts_the_first_back(tmp_path, monkeypatch):
    out = tmp_path / "out"
    write(out, "old")
    rename, said = Path.rename, []

    def lacking(made, path):
        raise OSError(errno.ENOSYS, "no exchange")

    def once(self, target):
        if target == out and not self.name.startswith(f".out{swap.WAS}") and said:
            raise OSError(errno.ENOSPC, "No space left on device")
        said.append(self)
        return rename(self, target)

    monkeypatch.setattr(swap, "_exchange", lacking)
    monkeypatch.setattr(Path, "rename", once)
    said.append(out)
    with pytest.raises(DataPrunerError, match="No space left"):
        write(out, "new", overwrite=True)
    assert held(out) == "old"
    assert beside(out) == ["out"]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO])
def test_without_locks_results_are_written_and_replaced(tmp_path, monkeypatch, number):
    from datapruner.files import temporary

    def lacking(handle, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(temporary.fcntl, "flock", lacking)
    out = tmp_path / "out"
    write(out, "old")
    write(out, "new", overwrite=True)
    with pytest.raises(DataPrunerError, match="earlier result"):
        write(out, "third")
    assert (held(out), beside(out)) == ("new", ["out"])
