"""What lies in a store, making it smaller, and reading all of it."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from datapruner.cli.keeping import carry_out
from datapruner.errors import DataPrunerError
from datapruner.signals.store import SignalStore, finding, leases, row_keys
from datapruner.signals.store.claims import Claims
from datapruner.signals.store.upkeep import keep_within, prune, survey, verify

WIDTH = 4
NAMES = ("old", "middle", "new")


def fetch(root: Path, name: str, rows: int = 40) -> int:
    context = {"signal": name}
    store = SignalStore(root, flush_rows=10)

    def compute(positions):
        for some in np.array_split(positions, max(len(positions) // 10, 1)):
            yield some, values(some)

    got = store.fetch(row_keys((str(row).encode() for row in range(rows)), context), context, WIDTH, compute)
    np.testing.assert_array_equal(got, values(np.arange(rows)))
    return store.computed


def values(rows) -> np.ndarray:
    return np.repeat(rows, WIDTH).reshape(-1, WIDTH).astype(np.float32)


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A store of three contexts, of which each was used a day after the one before it."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    monkeypatch.setattr(finding, "LEAST_SHARDS", 1)
    root = tmp_path / "cache"
    for days, name in zip((3, 2, 1), NAMES, strict=True):
        fetch(root, name)
        SignalStore(root).fetch(
            row_keys([b"0"], {"signal": name}), {"signal": name}, WIDTH, lambda rows: iter(())
        )
        for path in shelf(root, name).iterdir():
            os.utime(path, (time.time() - 86400 * days,) * 2)
    return root


def shelf(root: Path, name: str) -> Path:
    (said,) = (one for one in (root / "signals").glob("*/context.json") if f'"{name}"' in one.read_text())
    return said.parent


def endings(folder: Path) -> set[str]:
    return {path.suffix for path in folder.iterdir() if path.is_file()}


def test_what_lies_there_is_told(root):
    held = survey(root)
    assert [one.context["signal"] for one in held] == list(reversed(NAMES))
    for one in held:
        folder = one.shelf.folder
        assert one.rows == 40
        assert one.bytes == sum(
            path.stat().st_size for path in folder.iterdir() if path.is_file() and path.suffix != ".json"
        )
    said = carry_out("show", None, None, root)
    assert said.count("40 ") >= 3
    assert said.index("new (") < said.index("middle (") < said.index("old (")
    assert "2 days" in said
    assert "0 B of signals in 0 folders" in carry_out("show", None, None, root / "nothing")


def test_copies_go_first_and_then_what_was_used_longest_ago(root):
    sizes = {one.context["signal"]: one for one in survey(root)}
    copies = sum(sum(one.copies.values()) for one in sizes.values())
    total = sum(one.bytes for one in sizes.values())
    before = sorted(path for path in root.rglob("*") if path.is_file())
    told = prune(root, to=total - 1, dry_run=True)
    assert told.removed.keys() == sizes["old"].copies.keys()
    assert sorted(path for path in root.rglob("*") if path.is_file()) == before
    assert prune(root, to=total - 1).removed == told.removed
    assert endings(shelf(root, "old")) == {".shard2", ".index", ".json"}
    assert fetch(root, "old") == 0  # its copy is made anew
    os.utime(max(shelf(root, "old").glob("*.rows")), (time.time() - 86400 * 3,) * 2)
    for path in shelf(root, "old").iterdir():
        os.utime(path, (time.time() - 86400 * 3,) * 2)
    prune(root, to=total - copies - 1)
    assert [one.context["signal"] for one in survey(root)] == ["new", "middle"]
    assert [fetch(root, name) for name in NAMES] == [40, 0, 0]
    prune(root, to=1)
    assert survey(root) == []


def test_what_nobody_used_for_long_goes_whatever_its_size(root):
    prune(root, unused_days=2.5)
    assert [one.context["signal"] for one in survey(root)] == ["new", "middle"]
    prune(root, unused_days=1.5)
    assert [one.context["signal"] for one in survey(root)] == ["new"]
    assert prune(root, unused_days=1.5).removed == {}


@pytest.mark.parametrize(("limit", "left"), [("1GB", 3), ("1", 0), (None, 3)])
def test_a_run_ends_with_a_store_within_its_limit(root, monkeypatch, limit, left):
    import datapruner as dp

    if limit is not None:
        monkeypatch.setenv("DATAPRUNER_CACHE_LIMIT", limit)
    assert (
        len(dp.score([{"text": "one"}, {"text": "two"}], scorers="random", cache=root, count_tokens=False))
        == 2
    )
    assert len(survey(root)) == left


def test_a_limit_that_is_no_size_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    import datapruner as dp

    monkeypatch.setenv("DATAPRUNER_CACHE_LIMIT", "plenty")
    with pytest.raises(DataPrunerError, match="DATAPRUNER_CACHE_LIMIT is a size such as 20GB"):
        dp.score(tmp_path / "nothing.jsonl", scorers="random")


def test_a_shelf_of_which_rows_are_being_computed_stays(root):
    from datapruner.signals.store.shards import Shelf

    folder = shelf(root, "old")
    with Claims(Shelf(folder, WIDTH)) as claim:
        assert claim.claim(row_keys([b"x"], {"signal": "old"})).all()
        assert "old, being computed" in carry_out("show", None, None, root)
        prune(root, to=1)
        assert [one.context["signal"] for one in survey(root)] == ["old"]
    prune(root, to=1)
    assert survey(root) == []


def test_what_is_not_of_the_store_stays(root):
    foreign = [
        root / "signals" / "mine" / "x.shard2",
        shelf(root, "old") / "notes.txt",
        root / "elsewhere.rows",
        shelf(root, "middle") / "folder.shard2" / "x",
    ]
    for path in foreign:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    (shelf(root, "new") / "linked.rows").symlink_to(foreign[2])
    assert "not ours to remove" in carry_out("prune", "1", None, root)
    assert [path.read_text() for path in foreign] == ["mine"] * 4


def asked(monkeypatch, capsys, action: str, root: Path) -> tuple[int, str, str]:
    """What the command ends with, and says."""
    from datapruner.cli import main

    words = ["--unused", "0"] if action == "prune" else []
    monkeypatch.setattr("sys.argv", ["datapruner", "cache", action, *words, "--cache", str(root)])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code or 0, *capsys.readouterr()


ACTIONS = ("show", "verify", "prune")


@pytest.mark.parametrize("action", ACTIONS)
def test_leases_that_cannot_be_listed_tell_nothing(root, monkeypatch, capsys, action):
    for name in NAMES:
        folder = shelf(root, name) / leases.FOLDER
        for lease in folder.iterdir():
            lease.unlink()
        folder.rmdir()
        folder.write_text("a file")
    code, out, _ = asked(monkeypatch, capsys, action, root)
    assert code == 0
    assert {"show": "in 3 folders", "verify": "damaged: 0 files", "prune": "removed"}[action] in out
    assert fetch(root, "old") == (40 if action == "prune" else 0)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("kind", ["a file", "links in a circle"])
def test_a_store_that_cannot_be_listed_is_not_called_empty(root, monkeypatch, capsys, action, kind):
    signals = root / "signals"
    shutil.rmtree(signals)
    signals.write_text("") if kind == "a file" else signals.symlink_to(signals)
    code, out, err = asked(monkeypatch, capsys, action, root)
    assert (code, out) == (2, "")
    assert err.startswith(f"datapruner: the store {signals} cannot be listed: ")


def test_a_run_ends_well_where_the_store_cannot_be_listed(root, monkeypatch, caplog):
    monkeypatch.setenv("DATAPRUNER_CACHE_LIMIT", "1")
    shutil.rmtree(root / "signals")
    (root / "signals").write_text("")
    keep_within(root)
    assert "cannot be listed: Not a directory" in caplog.text


def test_a_shelf_of_which_nothing_can_be_read_was_never_used(root):
    for path in shelf(root, "new").iterdir():
        path.unlink() if path.is_file() else path.rmdir()
    assert " never  unknown" in carry_out("show", None, None, root)


def test_a_link_to_nothing_is_told(root):
    path = shelf(root, "new") / f"{'0' * 16}.shard2"
    path.symlink_to(root / "gone")
    assert verify(root).left == [path]


@pytest.mark.parametrize("ending", ["shard2", "index", "rows", "sum"])
@pytest.mark.parametrize("place", [0.0, 0.5, 0.999])
def test_every_damaged_file_is_found_and_no_other(root, ending, place, caplog):
    assert verify(root).removed == {}
    path = max(shelf(root, "middle").glob(f"*.{ending}"), key=lambda one: one.stat().st_size)
    raw = bytearray(path.read_bytes())
    raw[int(place * len(raw))] ^= 16
    path.write_bytes(raw)
    told = verify(root, dry_run=True)
    of = {path} if ending not in ("rows", "sum") else {path.with_suffix(".rows"), path.with_suffix(".sum")}
    assert told.removed.keys() == of
    assert path.exists()
    assert "removed; the next run computes" in carry_out("verify", None, None, root)
    assert not path.exists()
    assert verify(root).removed == {}
    if ending == "shard2":
        for copy in shelf(root, "middle").glob("*.rows"):
            copy.unlink()
    assert fetch(root, "middle") == (10 if ending == "shard2" else 0)
    assert not caplog.records


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("prune", None, None), "20GB.* or .*30"),
        (("prune", "much", None), "a size such as 20GB"),
        (("prune", None, float("nan")), "days"),
        (("show", "1GB", None), "cache prune"),
        (("burn", None, None), "show, prune, verify"),
    ],
)
def test_what_is_asked_wrongly_is_said(tmp_path, given, said):
    with pytest.raises(DataPrunerError, match=said):
        carry_out(*given, tmp_path)


def test_the_command(root, monkeypatch, capsys):
    from datapruner.cli import main

    monkeypatch.setattr(
        "sys.argv", ["datapruner", "cache", "prune", "--to", "1", "--cache", str(root), "--dry-run"]
    )
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    assert "would go" in capsys.readouterr().out
    assert leases.FOLDER in {path.name for path in shelf(root, "old").iterdir()}
