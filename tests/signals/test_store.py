from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import tempfile
import time
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from datapruner.errors import DataPrunerError
from datapruner.files import temporary
from datapruner.files.cache import cache_folder
from datapruner.signals.store import Kind, SignalStore, finding, index, rounds, row_keys
from datapruner.signals.store.shard_format import MAGIC
from datapruner.signals.store.shards import Shelf
from tests.conftest import examples

WIDTH = 5
CONTEXT = {"signal": "test", "version": 1}


def truth(content: bytes) -> np.ndarray:
    seed = xxhash.xxh32_intdigest(content)
    return np.random.default_rng(seed).standard_normal(WIDTH).astype(np.float32)


def expected(contents) -> np.ndarray:
    return np.stack([truth(content) for content in contents])


class Model:
    """Computes rows in uneven batches, out of order, and counts."""

    def __init__(self, contents, *, dies_after: int | None = None, pause: float = 0.0):
        self.contents, self.dies_after, self.pause = contents, dies_after, pause
        self.rows: list[int] = []

    def __call__(self, rows):
        order = np.random.default_rng(len(rows)).permutation(rows)
        for start in range(0, len(order), 3):
            if self.dies_after is not None and len(self.rows) >= self.dies_after:
                raise KeyboardInterrupt
            batch = order[start : start + 3]
            self.rows += batch.tolist()
            time.sleep(self.pause)
            yield batch, expected([self.contents[row] for row in batch])


def small(folder, flush_rows=10, **options) -> SignalStore:
    """A store of small shards."""
    return SignalStore(folder, flush_rows=flush_rows, **options)


def fetch(folder, contents, *, context=CONTEXT, width=WIDTH, store=small, **options):
    model = Model(contents, **options)
    store = store(folder)
    values = store.fetch(row_keys(contents, context), context, width, model)
    assert store.computed == len(model.rows)
    return np.asarray(values).copy(), model


def names(prefix, count):
    return [f"{prefix}{number}".encode() for number in range(count)]


def shelf(folder: Path) -> Path:
    (only,) = (folder / "signals").iterdir()
    return only


def files(folder: Path, ending: str) -> list[Path]:
    return sorted(shelf(folder).glob(f"*.{ending}"))


# --- keys ---------------------------------------------------------------------------------------------------


def test_a_key_depends_on_the_content_and_on_the_whole_context():
    base = row_keys([b"a", b"b", b"a"], {"model": "m", "length": 8})
    assert base[0] == base[2]
    assert base[0] != base[1]
    for other in ({"model": "n", "length": 8}, {"model": "m", "length": 9}, {"model": "m"}):
        assert not np.isin(row_keys([b"a", b"b"], other), base).any()
    np.testing.assert_array_equal(base, row_keys([b"a", b"b", b"a"], {"length": 8, "model": "m"}))


def test_keys_that_end_in_zero_bytes_are_told_apart(tmp_path):
    raw = [b"\0" * 16, b"\1" + b"\0" * 15, b"\0" * 15 + b"\1", b"\1\0\1" + b"\0" * 13, b"\1\0\2" + b"\0" * 13]
    keys = np.frombuffer(b"".join(raw), dtype="S16")
    table = np.arange(5 * WIDTH, dtype=np.float32).reshape(5, WIDTH)

    def compute(rows):
        yield rows, table[rows]

    for _ in range(2):
        store = small(tmp_path)
        np.testing.assert_array_equal(store.fetch(keys, CONTEXT, WIDTH, compute), table)
        for compact in files(tmp_path, "rows"):
            compact.unlink()
    assert store.computed == 0


def test_the_folder_is_the_named_one_or_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("DATAPRUNER_CACHE", str(tmp_path / "x"))
    assert cache_folder() == tmp_path / "x"
    monkeypatch.delenv("DATAPRUNER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "datapruner"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "datapruner"


# --- what is computed ---------------------------------------------------------------------------------------


def test_rows_are_computed_once_then_read(tmp_path):
    contents = names("row", 35)
    first, model = fetch(tmp_path, contents)
    np.testing.assert_array_equal(first, expected(contents))
    assert sorted(model.rows) == list(range(35))
    assert len(files(tmp_path, "shard2")) == 3
    again, model = fetch(tmp_path, contents)
    assert model.rows == []
    assert again.tobytes() == first.tobytes()


def test_equal_rows_are_computed_once(tmp_path):
    contents = names("row", 4) * 6
    values, model = fetch(tmp_path, contents)
    assert sorted(model.rows) == [0, 1, 2, 3]
    np.testing.assert_array_equal(values, expected(contents))


def test_inserted_rows_are_computed_alone_and_move_no_bytes(tmp_path):
    old = names("old", 40)
    before, _ = fetch(tmp_path, old)
    grown = list(old)
    rng = np.random.default_rng(0)
    for content in names("new", 7):
        grown.insert(int(rng.integers(len(grown) + 1)), content)
    after, model = fetch(tmp_path, grown)
    added = [row for row, content in enumerate(grown) if content.startswith(b"new")]
    assert sorted(model.rows) == added
    assert np.delete(after, added, axis=0).tobytes() == before.tobytes()


def test_subsets_and_other_orders_cost_nothing(tmp_path):
    contents = names("row", 40)
    fetch(tmp_path, contents)
    mixed = [contents[row] for row in np.random.default_rng(1).permutation(40)[:23]]
    values, model = fetch(tmp_path, mixed)
    assert model.rows == []
    np.testing.assert_array_equal(values, expected(mixed))


def test_only_the_copies_used_last_stay(tmp_path):
    contents = names("row", 20)
    for number in range(7):
        fetch(tmp_path, contents[number:])
        fetch(tmp_path, contents)
    assert len(files(tmp_path, "rows")) == len(files(tmp_path, "sum")) == 4
    for number in range(7):
        got, model = fetch(tmp_path, contents[number:])
        assert model.rows == []
        np.testing.assert_array_equal(got, expected(contents[number:]))


def test_no_rows(tmp_path):
    values, model = fetch(tmp_path, [])
    assert values.shape == (0, WIDTH)
    assert model.rows == []


def test_contexts_do_not_mix(tmp_path):
    contents = names("row", 5)
    fetch(tmp_path, contents)
    _, model = fetch(tmp_path, contents, context={**CONTEXT, "version": 2})
    assert len(model.rows) == 5
    described = [json.loads((f / "context.json").read_text()) for f in (tmp_path / "signals").iterdir()]
    assert {d["version"] for d in described} == {1, 2}


def test_what_was_computed_before_an_interruption_is_kept(tmp_path):
    contents = names("row", 50)
    with pytest.raises(KeyboardInterrupt):
        fetch(tmp_path, contents, dies_after=36)
    values, model = fetch(tmp_path, contents)
    assert len(model.rows) == 50 - 36  # 36 rows are three shards of 12: batches of 3 fill 10
    np.testing.assert_array_equal(values, expected(contents))


def test_what_a_run_left_that_died_as_it_wrote_goes_with_one_that_finds_all(tmp_path):
    contents = names("row", 5)
    kind = Kind(row_keys(contents, CONTEXT), CONTEXT, WIDTH)
    fetch(tmp_path, contents)
    left = shelf(tmp_path) / f"some.rows{temporary.MARK}0123456789ab"
    left.write_bytes(b"half")
    (held,) = SignalStore(tmp_path).held_together([kind])
    np.testing.assert_array_equal(held.values.reshape(5, WIDTH), expected(contents))
    assert not left.exists()


def test_what_was_computed_before_an_error_is_kept(tmp_path):
    contents = names("row", 30)

    def fails_on_the_last(rows):
        yield rows[:-1], expected([contents[row] for row in rows[:-1]])
        raise DataPrunerError("on purpose")

    store = SignalStore(tmp_path, flush_rows=1000)
    with pytest.raises(DataPrunerError, match="on purpose"):
        store.fetch(row_keys(contents, CONTEXT), CONTEXT, WIDTH, fails_on_the_last)
    assert len(fetch(tmp_path, contents)[1].rows) == 1


def test_what_takes_long_is_written_before_a_shard_is_full(tmp_path):
    fetch(tmp_path, names("row", 12), store=partial(small, flush_seconds=0.0))
    assert len(files(tmp_path, "shard2")) == 4


def test_more_shards_than_a_process_may_hold_open(tmp_path):
    resource = pytest.importorskip("resource")
    contents = names("row", 300)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
    try:
        with mock.patch.object(os, "fsync"):
            values, _ = fetch(tmp_path, contents, store=partial(small, flush_rows=1))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len(files(tmp_path, "shard2")) == 100
    np.testing.assert_array_equal(values, expected(contents))


# --- a computation that does not keep its word --------------------------------------------------------------


def test_a_row_left_out_is_named(tmp_path):
    contents = names("row", 9)

    def forgetful(rows):
        yield rows[rows != 4], expected([contents[row] for row in rows if row != 4])

    with pytest.raises(DataPrunerError, match="row 4"):
        small(tmp_path).fetch(row_keys(contents, CONTEXT), CONTEXT, WIDTH, forgetful)


@pytest.mark.parametrize("shape", [(9, WIDTH + 1), (8, WIDTH), (9,)])
def test_another_shape_is_refused_before_it_is_stored(tmp_path, shape):
    contents = names("row", 9)

    def careless(rows):
        yield rows, np.zeros(shape, dtype=np.float32)

    with pytest.raises(DataPrunerError, match="shape"):
        small(tmp_path).fetch(row_keys(contents, CONTEXT), CONTEXT, WIDTH, careless)
    values, _ = fetch(tmp_path, contents)
    np.testing.assert_array_equal(values, expected(contents))


# --- damage -------------------------------------------------------------------------------------------------


def field_bytes(raw: bytes) -> dict[str, int]:
    """A byte in each field of a shard."""
    end = raw.index(b"\n", len(MAGIC)) + 1
    header = json.loads(raw[len(MAGIC) : end])
    middle = end + 16 * header["rows"]
    blocks = -(-header["values"] // header["block"])
    values = middle + 16 * (blocks + 1)
    return {
        "magic": 3,
        "header": len(MAGIC) + 2,
        "header digits": raw.index(b'"rows": ') + 8,
        "number of values": raw.index(b'"values": ') + 10,
        "size of a block": raw.index(b'"block": ') + 9,
        "newline": end - 1,
        "first key": end,
        "last key": middle - 1,
        "first block's digest": middle,
        "last block's digest": values - 17,
        "digest": values - 16,
        "digest's end": values - 1,
        "first value": values,
        "middle value": values + 2 * header["values"],
        "last value": len(raw) - 1,
    }


FIELDS = [
    "magic",
    "header",
    "header digits",
    "number of values",
    "size of a block",
    "newline",
    "first key",
    "last key",
    "first block's digest",
    "last block's digest",
    "digest",
    "digest's end",
    "first value",
    "middle value",
    "last value",
]


def damaged_run(folder, contents, caplog, *, computed: int):
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        values, model = fetch(folder, contents)
    np.testing.assert_array_equal(values, expected(contents))
    assert len(model.rows) == computed
    return [record.message for record in caplog.records]


def forget_compact(folder):
    for path in [*files(folder, "rows"), *files(folder, "sum")]:
        path.unlink()


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("bit", [0, 6])
def test_a_flipped_bit_in_any_field_is_noticed(tmp_path, caplog, field, bit):
    contents = names("row", 35)
    fetch(tmp_path, contents)
    forget_compact(tmp_path)
    path = files(tmp_path, "shard2")[1]
    raw = bytearray(path.read_bytes())
    rows = json.loads(bytes(raw).split(b"\n")[1])["rows"]
    raw[field_bytes(bytes(raw))[field]] ^= 1 << bit
    path.write_bytes(raw)
    said = damaged_run(tmp_path, contents, caplog, computed=rows)
    assert len(said) == 1
    assert path.name in said[0]
    assert "computed again" in said[0]
    forget_compact(tmp_path)
    assert damaged_run(tmp_path, contents, caplog, computed=0) == []


@pytest.mark.parametrize("left", [0, 1, len(MAGIC), 40, 200, -1, -16, -17])
def test_a_truncated_shard_is_noticed(tmp_path, caplog, left):
    contents = names("row", 35)
    fetch(tmp_path, contents)
    forget_compact(tmp_path)
    path = files(tmp_path, "shard2")[0]
    raw = path.read_bytes()
    rows = json.loads(raw.split(b"\n")[1])["rows"]
    path.write_bytes(raw[:left])
    assert len(damaged_run(tmp_path, contents, caplog, computed=rows)) == 1


def forged(header: bytes, keys: bytes, values: bytes) -> bytes:
    body = MAGIC + header + keys + values
    return body + xxhash.xxh3_128_digest(body)


@pytest.mark.parametrize(
    "header",
    [
        b'{"rows": 2, "width": 7}\n',
        b'{"rows": 2, "width": 4}\n',
        b'{"rows": 3, "width": 5}\n',
        b'{"rows": 1, "width": 5}\n',
        b'{"rows": 0, "width": 5}\n',
        b'{"rows": -1, "width": 5}\n',
        b'{"rows": "many", "width": 5}\n',
        b'{"rows": 2}\n',
        b"[2, 5]\n",
        b"no json\n",
        b"no end of line",
        b"\xff\xfe\n",
    ],
)
def test_a_shard_with_a_right_checksum_and_wrong_contents_is_not_trusted(tmp_path, caplog, header):
    contents = names("row", 20)
    fetch(tmp_path, contents)
    forget_compact(tmp_path)
    keys = row_keys(contents[:2], CONTEXT).tobytes()
    (shelf(tmp_path) / "00.shard").write_bytes(forged(header, keys, b"\0" * 40))
    said = damaged_run(tmp_path, contents, caplog, computed=0)
    assert len(said) == 1
    assert not (shelf(tmp_path) / "00.shard").exists()


def of_width(width: int):
    return lambda rows: iter([(rows, np.full((len(rows), width), width, np.float32) + rows[:, None])])


def test_records_of_other_widths_are_others_under_the_same_keys(tmp_path, caplog):
    keys = row_keys(names("row", 20), CONTEXT)
    table = records(np.random.default_rng(0), [2] * 20)
    computed = []
    for width in (3, 5, None, 3, 5, None, 1):
        store = small(tmp_path)
        if width is None:
            got = store.fetch_ragged(keys, CONTEXT, lambda rows: iter([(rows, table.take(rows))]))
            np.testing.assert_array_equal(got.values, table.values)
        else:
            got = store.fetch(keys, CONTEXT, width, of_width(width))
            np.testing.assert_array_equal(got, np.arange(20)[:, None] + np.full((20, width), width))
        computed.append(store.computed)
    assert computed == [20, 20, 20, 0, 0, 0, 20]
    assert not caplog.records
    assert len(list((tmp_path / "signals").glob("*/*.shard2"))) == 4


@pytest.mark.parametrize("ending", ["rows", "sum"])
@pytest.mark.parametrize("how", ["flip", "truncate", "empty", "append"])
def test_damage_to_the_compact_copy_costs_no_row(tmp_path, caplog, ending, how):
    contents = names("row", 35)
    fetch(tmp_path, contents)
    (path,) = files(tmp_path, ending)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 4
    whole = path.read_bytes()
    path.write_bytes({"flip": bytes(raw), "truncate": whole[:-1], "empty": b"", "append": whole + b"x"}[how])
    said = damaged_run(tmp_path, contents, caplog, computed=0)
    assert len(said) == 1
    assert "put together again" in said[0]
    assert damaged_run(tmp_path, contents, caplog, computed=0) == []


def test_the_compact_copy_of_other_rows_is_not_taken_for_these(tmp_path, caplog):
    one, two = names("one", 12), names("two", 12)
    fetch(tmp_path, one)
    (copy,) = files(tmp_path, "rows")
    fetch(tmp_path, two)
    (other,) = set(files(tmp_path, "rows")) - {copy}
    for ending in ("rows", "sum"):
        copy.with_suffix(f".{ending}").write_bytes(other.with_suffix(f".{ending}").read_bytes())
    assert len(damaged_run(tmp_path, one, caplog, computed=0)) == 1


def test_a_compact_copy_without_its_checksum_is_put_together_again(tmp_path):
    contents = names("row", 12)
    fetch(tmp_path, contents)
    files(tmp_path, "sum")[0].unlink()
    values, model = fetch(tmp_path, contents)
    assert model.rows == []
    np.testing.assert_array_equal(values, expected(contents))


def test_a_shard_that_vanishes_during_the_run_is_computed_again(tmp_path):
    contents = names("row", 30)
    fetch(tmp_path, contents)
    forget_compact(tmp_path)
    real = rounds.find

    def find_then_lose(*given):
        found = real(*given)
        if files(tmp_path, "shard2") and not lost:
            lost.append(files(tmp_path, "shard2")[0].read_bytes())
            files(tmp_path, "shard2")[0].unlink()
        return found

    lost: list[bytes] = []
    with mock.patch.object(rounds, "find", find_then_lose):
        values, model = fetch(tmp_path, contents)
    assert len(model.rows) == json.loads(lost[0].split(b"\n")[1])["rows"]
    np.testing.assert_array_equal(values, expected(contents))


def test_a_folder_that_keeps_nothing_ends_with_a_sentence(tmp_path):
    contents = names("row", 30)
    with (
        mock.patch.object(Shelf, "write_shard"),
        pytest.raises(DataPrunerError, match="DATAPRUNER_CACHE"),
    ):
        fetch(tmp_path, contents)


def test_a_folder_that_cannot_be_written_ends_with_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataPrunerError, match="is a file; name a folder"):
        fetch(tmp_path / "file", names("row", 3))
    full = OSError(28, "No space left on device")
    with (
        mock.patch.object(os, "fsync", side_effect=full),
        pytest.raises(DataPrunerError, match="No space left"),
    ):
        fetch(tmp_path / "full", names("row", 3))
    assert list((tmp_path / "full").rglob("*.tmp-*")) == []


# --- leftovers ----------------------------------------------------------------------------------------------


def test_leftovers_that_nobody_holds_are_cleared_and_those_of_living_writers_are_not(tmp_path):
    contents = names("row", 5)
    fetch(tmp_path, contents)
    dead = shelf(tmp_path) / "a.shard.tmp-0123456789ab"
    dead.write_bytes(b"half")
    with temporary.whole_file(shelf(tmp_path) / "b.shard") as living:
        living.write(b"half")
        fetch(tmp_path, contents)
        (left,) = shelf(tmp_path).glob("*.tmp-*")
        assert left.name.startswith("b.shard")
    assert not dead.exists()


# --- several processes --------------------------------------------------------------------------------------


def work(folder: Path, start: int, stop: int, pause: float) -> None:
    contents = names("row", 200)[start:stop]
    values, _ = fetch(folder, contents, pause=pause)
    np.testing.assert_array_equal(values, expected(contents))


def test_two_processes_at_once_both_get_the_right_rows(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    both = [
        spawn.Process(target=work, args=(tmp_path, start, stop, 0.002))
        for start, stop in ((0, 150), (50, 200))
    ]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    contents = names("row", 200)
    values, model = fetch(tmp_path, contents)
    assert model.rows == []
    np.testing.assert_array_equal(values, expected(contents))
    assert list(shelf(tmp_path).glob("*.tmp-*")) == []


def test_a_killed_process_loses_one_unwritten_shard_at_most(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=work, args=(tmp_path, 0, 200, 0.05))
    process.start()
    deadline = time.monotonic() + 60
    while len(list(tmp_path.rglob("*.shard2"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    kept = len(files(tmp_path, "shard2"))
    assert 3 <= kept < 16
    contents = names("row", 200)
    assert len(list(tmp_path.rglob("*.lease"))) == 1
    values, model = fetch(tmp_path, contents)  # at once: nobody holds the lease
    assert len(model.rows) == 200 - 12 * kept
    np.testing.assert_array_equal(values, expected(contents))
    assert list(shelf(tmp_path).glob("*.tmp-*")) == []
    assert list(tmp_path.rglob("*.lease")) == []


# --- anything, in any order ---------------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("fetch"), st.lists(st.integers(0, 39), max_size=30)),
        st.tuples(st.just("die"), st.lists(st.integers(0, 39), min_size=1, max_size=30), st.integers(0, 25)),
        st.tuples(
            st.sampled_from(["flip", "truncate", "delete", "append", "swap"]),
            st.integers(0, 1 << 20),
            st.integers(0, 1 << 20),
        ),
    ),
    min_size=2,
    max_size=14,
)


def hurt(folder: Path, how: str, which: int, where: int) -> None:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    if not found:
        return
    path = found[which % len(found)]
    raw = bytearray(path.read_bytes())
    if how == "delete":
        path.unlink()
    elif how == "truncate":
        path.write_bytes(raw[: where % (len(raw) + 1)])
    elif how == "append":
        path.write_bytes(bytes(raw) + b"\0" * (1 + where % 40))
    elif how == "swap":
        other = found[where % len(found)]
        path.write_bytes(other.read_bytes())
        other.write_bytes(raw)
    elif raw:
        raw[where % len(raw)] ^= 1 << (which % 8)
        path.write_bytes(raw)


@settings(max_examples=examples(70), deadline=None)
@given(STEPS, st.sampled_from([1, 3, 100]))
def test_growth_death_and_damage_in_any_order_never_give_a_wrong_row(steps, least):
    logging.getLogger("datapruner.signals.store").setLevel(logging.ERROR)
    try:
        with (
            tempfile.TemporaryDirectory() as name,
            mock.patch.object(os, "fsync"),
            mock.patch.object(finding, "LEAST_SHARDS", least),  # with an index, and without
            mock.patch.object(index, "BLOCK_ENTRIES", 3),
        ):
            folder, stored, hurt_since = Path(name), set(), False
            for step in [*steps, ("fetch", list(range(40)))]:
                if step[0] == "fetch":
                    contents = [f"row{number}".encode() for number in step[1]]
                    model = Model(contents)
                    values = small(folder, 4).fetch(row_keys(contents, CONTEXT), CONTEXT, WIDTH, model)
                    assert values.shape == (len(contents), WIDTH)
                    if contents:
                        np.testing.assert_array_equal(values, expected(contents))
                    if not hurt_since:
                        assert len(model.rows) <= len(set(contents) - stored)
                    stored |= set(contents)
                elif step[0] == "die":
                    contents = [f"row{number}".encode() for number in step[1]]
                    try:
                        fetch(folder, contents, store=partial(small, flush_rows=4), dies_after=step[2])
                        stored |= set(contents)
                    except KeyboardInterrupt:
                        pass
                else:
                    hurt(folder, *step)
                    hurt_since = True
    finally:
        logging.getLogger("datapruner.signals.store").setLevel(logging.NOTSET)


def records(rng, lengths):
    from datapruner.ragged import Ragged

    return Ragged.from_rows([rng.random(length, dtype=np.float32) for length in lengths])


def test_records_of_any_length_come_back_in_order(tmp_path):
    from datapruner.ragged import Ragged

    rng = np.random.default_rng(0)
    contents = names("row", 300)
    table = records(rng, rng.integers(0, 40, size=300))
    keys = row_keys(contents, CONTEXT)
    asked = []

    def compute(rows):
        for start in range(0, len(rows), 7):
            of = rng.permutation(rows[start : start + 7])
            asked.extend(of.tolist())
            yield of, table.take(of)

    mixed = rng.permutation(np.concatenate([np.arange(300), np.arange(50)]))
    for rows in (np.arange(200), np.arange(300), mixed):
        got = small(tmp_path).fetch_ragged(keys[rows], CONTEXT, compute)
        want = Ragged.from_rows([table[row] for row in rows])
        np.testing.assert_array_equal(got.offsets, want.offsets)
        np.testing.assert_array_equal(got.values, want.values)
    assert sorted(asked) == list(range(300))  # each once


def test_damaged_records_are_computed_again(tmp_path, caplog):
    rng = np.random.default_rng(0)
    table = records(rng, [3, 0, 5, 2])
    keys = row_keys(names("row", 4), CONTEXT)

    def compute(rows):
        yield rows, table.take(rows)

    small(tmp_path).fetch_ragged(keys, CONTEXT, compute)
    for ending in ("shard2", "rows"):
        (path,) = tmp_path.rglob(f"*.{ending}")
        raw = bytearray(path.read_bytes())
        raw[-20] ^= 4
        path.write_bytes(raw)
    got = small(tmp_path).fetch_ragged(keys, CONTEXT, compute)
    np.testing.assert_array_equal(got.values, table.values)
    assert "damaged" in caplog.text


def test_records_that_are_all_empty(tmp_path):
    table = records(np.random.default_rng(0), [0, 0])
    got = small(tmp_path).fetch_ragged(
        row_keys(names("row", 2), CONTEXT), CONTEXT, lambda rows: iter([(rows, table.take(rows))])
    )
    assert got.lengths.tolist() == [0, 0]
    again = small(tmp_path).fetch_ragged(row_keys(names("row", 2), CONTEXT), CONTEXT, lambda rows: iter([]))
    assert again.lengths.tolist() == [0, 0]
