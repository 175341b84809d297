"""Addresses of object stores: what is taken, what is said of them, and what is tried again."""

from __future__ import annotations

from pathlib import Path

import pytest

from datapruner.errors import DataPrunerError
from datapruner.files import objects, remote, retrying
from datapruner.files.cache import cache_at
from datapruner.outputs.folder import check_target
from datapruner.outputs.upload import check_address
from datapruner.samples import load_samples


def test_only_known_schemes_are_addresses():
    taken = ["s3://b/x", "gs://b/x", "gcs://b/x", "az://b/x", "abfs://b/x", "memory://x"]
    refused = [
        "file:///etc/passwd",
        "http://h/x",
        "ftp://h",
        "zip://a::s3://b",
        "rows.jsonl",
        "s3:/b",
        " s3://b",
        "x/s3://b",
    ]
    assert all(map(remote.is_url, taken))
    assert not any(map(remote.is_url, refused))


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("s3://bucket/rows.jsonl", "s3://bucket/rows.jsonl"),
        ("s3://AKIA:hunter2@bucket/x", "s3://***bucket/x"),
        ("az://c/x?sv=1&sig=hunter2", "az://c/x?***"),
        ("GET https://u:hunter2@host:90/x?a=hunter2 failed", "GET https://***host:90/x?*** failed"),
        ("abfs://c@account.dfs.core.windows.net/x", "abfs://c@account.dfs.core.windows.net/x"),
        ("is it there?yes", "is it there?yes"),
    ],
)
def test_secrets_are_left_out(said, shown):
    assert remote.masked(said) == shown


@pytest.mark.parametrize("url", ["s3://AKIA:hunter2@bucket/x", "s3://bucket/x?X-Amz-Signature=hunter2"])
def test_an_address_with_a_secret_is_refused_and_not_repeated(url):
    with pytest.raises(DataPrunerError, match="holds a password or a signature") as error:
        remote.check_url(url)
    assert "hunter2" not in str(error.value)


def test_a_library_that_is_not_there_is_named(monkeypatch):
    import fsspec

    def missing(*_args, **_kwargs):
        raise ImportError("Install it")

    monkeypatch.setattr(fsspec, "filesystem", missing)
    monkeypatch.setattr(objects, "_opened", {})
    with pytest.raises(DataPrunerError, match=r"s3:// needs s3fs: pip install '\.\[s3\]'"):
        objects.file_system("s3")
    with pytest.raises(DataPrunerError, match=r"gs:// needs gcsfs: pip install '\.\[gs\]'"):
        objects.file_system("gs")


class Flaky:
    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self, _store: object = None) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def test_what_may_pass_is_tried_again_and_later_each_time(monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr(retrying.time, "sleep", waits.append)
    monkeypatch.setattr(retrying.random, "random", lambda: 1.0)
    named = type("EndpointConnectionError", (Exception,), {})
    call = Flaky(OSError(5, "503 SlowDown"), TimeoutError(), named("x"))
    assert objects.ObjectFolder("memory://b/x").call(call) == "done"
    assert waits == [0.25, 0.5, 1]
    call = Flaky(*(OSError(5, "s3://u:hunter2@b 503") for _ in range(99)))
    with pytest.raises(DataPrunerError, match="cannot be reached") as error:
        objects.ObjectFolder("memory://b/x").call(call)
    assert call.calls == retrying.TRIES
    assert "hunter2" not in str(error.value)
    assert max(waits) == retrying.PAUSE_SECONDS[1]


def test_what_the_environment_calls_a_secret_is_left_out(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
    assert "hunter2" not in str(remote.unreachable("s3://b/x", ValueError("signed with hunter2hunter2")))


@pytest.mark.parametrize(
    ("status", "passes"), [(500, True), (503, True), (429, True), (501, False), (403, False), (400, False)]
)
def test_the_status_of_an_answer_decides(status, passes):
    raised = Exception("botocore's")
    raised.response = {"ResponseMetadata": {"HTTPStatusCode": status}}
    error = OSError(5, "s3fs' own")
    error.__cause__ = raised
    assert retrying.passes(error) == passes


@pytest.mark.parametrize("error", [PermissionError("no"), ValueError("odd"), NotADirectoryError("no")])
def test_what_does_not_pass_is_not_tried_again(error):
    call = Flaky(error)
    with pytest.raises((DataPrunerError, PermissionError)):
        objects.ObjectFolder("memory://b/x").call(call)
    assert call.calls == 1
    with pytest.raises(FileNotFoundError):
        objects.ObjectFolder("memory://b/x").call(Flaky(FileNotFoundError("gone")))


class Down:
    """A store that is not there: what asks whether a bucket exists is told that it does not, as s3fs has it."""

    def _strip_protocol(self, url: str) -> str:
        return url.partition("://")[2]

    def exists(self, _path: str) -> bool:
        return False

    def invalidate_cache(self) -> None:
        pass

    def find(self, _path: str, **_options: object) -> dict[str, object]:
        raise type("EndpointConnectionError", (Exception,), {})("no connection")


def test_a_store_that_is_out_of_reach_is_no_missing_bucket(monkeypatch):
    monkeypatch.setattr(retrying.time, "sleep", lambda _seconds: None)
    monkeypatch.setattr(objects, "file_system", lambda _scheme: Down())
    with pytest.raises(DataPrunerError, match=r"s3://bucket/out cannot be reached \(no connection\)"):
        check_address("s3://bucket/out", (), overwrite=False, reads=())


@pytest.mark.parametrize("url", ["https://host/rows.jsonl", "hdfs://host/a", "file:///a", "http://host/a"])
def test_an_address_that_nothing_reads_is_no_folder(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = "is no address that can be read or written"
    for asks in (load_samples, cache_at, lambda name: check_target(Path(name), overwrite=False)):
        with pytest.raises(DataPrunerError, match=said):
            asks(url)
    with pytest.raises(DataPrunerError, match=said):
        cache_at(Path(url))
    assert not list(tmp_path.iterdir())


def test_a_file_is_no_cache(tmp_path):
    (tmp_path / "rows.jsonl").write_text("{}")
    with pytest.raises(DataPrunerError, match=r"the cache .*rows\.jsonl is a file; name a folder"):
        cache_at(tmp_path / "rows.jsonl")
