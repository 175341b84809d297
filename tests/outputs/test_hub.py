"""Uploading, tested at the hub client's boundary: what is handed to it, and what its refusal becomes."""

from __future__ import annotations

from pathlib import Path

import pytest

import datapruner as dp
from tests.conftest import command


@pytest.fixture
def selection():
    rows = [{"question": f"q {number}", "answer": f"a {number}"} for number in range(20)]
    return dp.prune(rows, scorer="random", keep=5)


class Recorder:
    """Stands in for HfApi and keeps what it was given."""

    calls: list

    def __init__(self):
        Recorder.calls = []

    def create_repo(self, repo_id, **options):
        Recorder.calls.append(("create", repo_id, options))

    def upload_folder(self, *, repo_id, repo_type, folder_path):
        files = sorted(
            str(path.relative_to(folder_path)) for path in Path(folder_path).rglob("*") if path.is_file()
        )
        Recorder.calls.append(("upload", repo_id, repo_type, files))
        return f"commit of {repo_id}"


def test_a_private_dataset_repository_gets_the_whole_result(selection, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi", Recorder)
    assert dp.push_to_hub(selection, "me/pruned") == "commit of me/pruned"
    create, upload = Recorder.calls
    assert create == ("create", "me/pruned", {"repo_type": "dataset", "private": True, "exist_ok": True})
    assert upload[1:3] == ("me/pruned", "dataset")
    assert upload[3] == [
        "README.md",
        "checksums.txt",
        "data/train-00000-of-00001.parquet",
        "recipe.yaml",
        "selection.parquet",
    ]


def test_public_only_on_request(selection, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi", Recorder)
    dp.push_to_hub(selection, "me/pruned", private=False)
    assert Recorder.calls[0][2]["private"] is False


@pytest.mark.parametrize("error", ["http", "name", "network", "client", "silent"])
def test_a_refusal_is_one_sentence(selection, monkeypatch, error):
    from huggingface_hub.errors import HFValidationError

    class Refusing(Recorder):
        def create_repo(self, repo_id, **options):
            if error == "name":
                raise HFValidationError("Repo id must use alphanumeric chars\nand more")
            if error == "client":  # what a library beneath it raises is no OSError
                raise RuntimeError("no route\nto the hub")
            if error == "silent":
                raise OSError
            raise ConnectionError("no route\nto the hub") if error == "network" else OSError("403 Forbidden")

    monkeypatch.setattr("huggingface_hub.HfApi", Refusing)
    with pytest.raises(dp.DataPrunerError, match="the hub did not take 'me/pruned'") as raised:
        dp.push_to_hub(selection, "me/pruned")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["[1,2]", "a/b/c", "../..", "x" * 97, ""])
def test_a_name_that_no_repository_has_is_refused_before_anything_is_read(
    tmp_path, monkeypatch, capsys, name
):
    words = ("prune", tmp_path / "missing.jsonl", "--scorer", "random", "--keep", 1, "--push-to-hub", name)
    assert command(monkeypatch, *words, "-o", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "the hub did not take" in said
    assert "reading" not in said
    assert not (tmp_path / "out").exists()
