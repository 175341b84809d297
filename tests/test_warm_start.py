"""A run whose signals are stored opens no model, loads no torch, and leaves the same bytes as the one before."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import command, save_tiny_llama, save_tiny_sentence_transformer

import datapruner as dp
from datapruner.files.notes import Notes
from datapruner.models import files
from datapruner.models.files import file_digest, folder_digest
from datapruner.signals.store import SignalStore

HEAVY = ["torch", "transformers", "sentence_transformers", "peft", "umap", "numba"]
WARM = """
import json, sys
from datapruner import cli

runs, heavy = json.loads(sys.argv[1])
for words in runs:
    sys.argv = ["datapruner", *words]
    try:
        cli.main()
    except SystemExit as end:
        assert not end.code, words
print(json.dumps([name for name in heavy if name in sys.modules]))
"""


def some_rows(count=40):
    rng = np.random.default_rng(0)
    words = ["the sum", "of two", "sorts", "a list", "why", "Zoë", "three is 5", "function", "你好"]

    def text(most):
        return " ".join(rng.choice(words, size=rng.integers(1, most)))

    rows = [
        {
            "messages": [
                {"role": "user", "content": f"{text(9)} {row}"},
                {"role": "assistant", "content": text(30)},
            ]
        }
        for row in range(count)
    ]
    return [*rows, rows[0]]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A dense and a pruned model, an embedder, rows."""
    folder = tmp_path_factory.mktemp("place")
    save_tiny_llama(folder / "dense")
    save_tiny_llama(folder / "pruned", seed=1)
    save_tiny_sentence_transformer(folder)
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, some_rows())))
    np.save(folder / "vectors.npy", np.random.default_rng(0).standard_normal((41, 8)).astype(np.float32))
    return folder


def outcome(folder):
    """All bytes of a result."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


RUNS = {
    "donod": ["--scorer", "donod", "--model", "dense", "--max-length", "64"],
    "ifd": ["--scorer", "ifd", "--model", "dense"],
    "response_noise": ["--scorer", "response_noise", "--model", "dense"],
    "joined": ["--scorer", "perplexity", "--scorer", "length", "--combine", "mean_rank", "--model", "dense"],
    "tokens": ["--scorer", "length", "--tokenizer", "dense"],
    "embedded": ["--scorer", "k_center", "--embedder", "st"],
    "last": ["--scorer", "random", "--embedder", "dense", "--pooling", "last", "--dedup-semantic"],
    "twins": ["--scorer", "paser", "--model", "dense", "--pruned-model", "pruned", "--embedder", "st"],
    "given": ["--scorer", "k_center", "--embeddings", "vectors.npy"],
}


def words_of(name, out):
    return ["prune", "rows.jsonl", *RUNS[name], "--keep", "0.5", "-o", out]


@pytest.mark.slow
def test_a_warm_run_opens_nothing_and_leaves_the_same_bytes(place, cache, monkeypatch, tmp_path):
    monkeypatch.chdir(place)
    for name in RUNS:
        assert command(monkeypatch, *words_of(name, tmp_path / "cold" / name)) == 0
    runs = [words_of(name, str(tmp_path / "warm" / name)) for name in RUNS]
    ran = subprocess.run(
        [sys.executable, "-c", WARM, json.dumps([runs, HEAVY])], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout.splitlines()[-1]) == []
    for name in RUNS:
        assert outcome(tmp_path / "warm" / name) == outcome(tmp_path / "cold" / name), name
    # What a run has to say of the rows is said again.
    assert "were cut" in ran.stderr


def scored(place, **options):
    given = {"scorers": "perplexity", "model": str(place / "dense"), "progress": False, **options}
    return dp.score(some_rows(), **given).rankings["perplexity"].values


@pytest.fixture
def opened(monkeypatch):
    """Names of the models that are loaded."""
    from datapruner.models import loading

    seen, own = [], loading.load_causal_lm

    def load(name, **options):
        seen.append(name)
        return own(name, **options)

    monkeypatch.setattr(loading, "load_causal_lm", load)
    return seen


def change_a_weight(folder):
    """Change one bit of the weights; the size and the time of the last change stay."""
    path = folder / "model.safetensors"
    before = path.stat()
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 1
    path.write_bytes(raw)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_weights_that_change_under_equal_size_and_time(place, cache, tmp_path, opened, monkeypatch):
    monkeypatch.setattr(files, "SETTLED_SECONDS", -1.0)  # so that hashes are remembered at once
    folder = tmp_path / "own"
    shutil.copytree(place / "dense", folder)
    first = scored(place, model=str(folder))
    assert np.array_equal(scored(place, model=str(folder)), first)
    assert len(opened) == 1
    change_a_weight(folder)
    changed = scored(place, model=str(folder))
    assert len(opened) == 2
    assert not np.array_equal(changed, first)
    assert np.array_equal(changed, scored(place, model=str(folder), cache=tmp_path / "fresh"))


def test_the_same_files_elsewhere_are_the_same_model(place, cache, tmp_path, opened):
    first = scored(place)
    shutil.copytree(place / "dense", tmp_path / "copy")
    (tmp_path / "copy" / "README.md").write_text("a card")
    assert np.array_equal(scored(place, model=str(tmp_path / "copy")), first)
    assert len(opened) == 1


def test_a_template_that_changes_is_read(place, cache, tmp_path, opened):
    folder = tmp_path / "own"
    shutil.copytree(place / "dense", folder)
    scored(place, model=str(folder))
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("</s>", " and so on</s>"))
    again = scored(place, model=str(folder))
    assert len(opened) == 2
    assert np.array_equal(again, scored(place, model=str(folder), cache=tmp_path / "fresh"))


def test_a_tokenizer_is_hashed_once_and_the_weights_beside_it_are_not(place, cache, monkeypatch):
    from datapruner.signals import tokens

    hashed, read = [], []
    own, digest = tokens.tokenizer_hash, files.file_digest
    monkeypatch.setattr(tokens, "tokenizer_hash", lambda given: (hashed.append(given), own(given))[1])
    monkeypatch.setattr(
        files, "file_digest", lambda path, notes: (read.append(path.name), digest(path, notes))[1]
    )
    for rows in (some_rows(), some_rows(60)):
        dp.score(rows, scorers="length", tokenizer=str(place / "dense"), progress=False)
    assert len(hashed) == 1
    assert "tokenizer.json" in read
    assert "model.safetensors" not in read


def test_one_more_row_opens_the_model(place, cache, opened):
    first = scored(place)
    more = [
        *some_rows(),
        {"messages": [{"role": "user", "content": "new"}, {"role": "assistant", "content": "row"}]},
    ]
    grown = dp.score(more, scorers="perplexity", model=str(place / "dense"), progress=False)
    assert len(opened) == 2
    assert np.array_equal(grown.rankings["perplexity"].values[:-1], first)


@pytest.mark.parametrize("damage", ["removed", "cut", "altered", "not ours"])
def test_notes_are_never_needed(damage, place, cache, opened):
    first = scored(place)
    for note in (cache / "notes").iterdir():
        raw = note.read_bytes()
        if damage == "removed":
            note.unlink()
        elif damage == "cut":
            note.write_bytes(raw[: len(raw) // 2])
        elif damage == "altered":
            note.write_bytes(raw.replace(b"1", b"2"))
        else:
            note.write_text("[]")
    assert np.array_equal(scored(place), first)
    assert len(opened) == 2
    assert np.array_equal(scored(place), first)
    assert len(opened) == 2


def test_a_row_that_cannot_be_scored_is_refused_again(place, cache, opened):
    rows = [*some_rows(), {"messages": [{"role": "user", "content": "no answer"}]}]
    for _ in range(2):
        with pytest.raises(dp.DataPrunerError, match="row 41"):
            dp.score(rows, scorers="perplexity", model=str(place / "dense"), on_empty="error", progress=False)


def test_files_are_remembered_by_all_that_shows_a_change(tmp_path, monkeypatch):
    notes, path = Notes(tmp_path / "cache"), tmp_path / "weights.bin"
    path.write_bytes(b"one")
    young = file_digest(path, notes)
    assert not notes.folder.exists()  # written just now, so that one more change might not show
    monkeypatch.setattr(files, "SETTLED_SECONDS", -1.0)
    assert file_digest(path, notes) == young
    monkeypatch.setattr(files, "xxhash", None)  # nothing is hashed any more
    assert file_digest(path, notes) == young


def test_what_a_folder_is_hashed_by(tmp_path):
    folder, notes = tmp_path / "model", Notes(tmp_path / "cache")
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"old")
    digests = [folder_digest(folder, notes)]

    def step(name, content):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
        digests.append(folder_digest(folder, notes))

    step("README.md", "words")
    step("trainer_state.json", "{}")
    step("checkpoint-5/model.safetensors", "another model")
    assert len(set(digests)) == 1
    step("tokenizer_config.json", "{}")
    step("pytorch_model.bin", "new")
    step("model.safetensors", "weights")
    assert len(set(digests)) == 4
    step("pytorch_model.bin", "newer")  # not what is loaded any more
    assert len(set(digests)) == 4
    step("1_Pooling/config.json", "mean")
    assert len(set(digests)) == 4
    step("modules.json", '[{"path": ""}, {"path": "1_Pooling"}]')
    step("1_Pooling/config.json", "cls")
    assert len(set(digests)) == 6


def test_an_embedder_that_is_noted_wrongly_is_opened_and_believed(place, cache, monkeypatch):
    """A note that speaks of other vectors is corrected by the embedder that it led to."""
    from datapruner.models.encoders import Named

    options = {"scorers": "k_center", "embedder": str(place / "st"), "progress": False}
    first = dp.score(some_rows(), **options).rankings["k_center"].values
    own = Named.__init__

    def wrong(self, load, about):
        own(self, load, about)
        self._noted = self._noted | {"context": self._noted["context"] | {"max_length": 7}}

    with monkeypatch.context() as patch:
        patch.setattr(Named, "__init__", wrong)
        assert np.array_equal(dp.score(some_rows(), **options).rankings["k_center"].values, first)


def test_a_smaller_batch_is_remembered(place, cache, opened, monkeypatch, caplog):
    """After memory ran out, the next run looks for the records of the batch that was small enough."""
    import torch

    from datapruner.signals.language_model import forward

    own = forward.run_packed

    def run(feed, pack):
        if len(pack.ids) > 600:
            raise torch.OutOfMemoryError("CUDA")
        return own(feed, pack)

    monkeypatch.setattr(forward, "run_packed", run)
    first = scored(place)
    assert "halved" in caplog.text
    assert np.array_equal(scored(place), first)
    assert len(opened) == 1


def test_notes_in_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "notes").write_text("a file")
    notes = SignalStore(tmp_path).notes
    notes.put({"a": 1}, {"b": 2})
    assert notes.get({"a": 1}) is None


def test_a_hub_name_stands_for_the_revision_that_was_fetched(tmp_path, monkeypatch):
    from huggingface_hub import HfApi, constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    held = tmp_path / "models--org--name"
    for revision in ("a" * 40, "b" * 40):
        (held / "snapshots" / revision).mkdir(parents=True)
        (held / "snapshots" / revision / "config.json").write_text("{}")
    (held / "refs").mkdir()
    (held / "refs" / "main").write_text("a" * 40)
    assert files.local_folder("org/name") == held / "snapshots" / ("a" * 40)
    assert files.local_folder("org/other") is None
    assert files.local_folder("no-folder") is None
    # What the hub names now, where it is reached; None where that has not been fetched.
    for revision, found in (("b" * 40, held / "snapshots" / ("b" * 40)), ("c" * 40, None)):

        class Told:
            sha = revision

        monkeypatch.setattr(HfApi, "model_info", lambda self, name, timeout, told=Told: told)
        assert files.local_folder("org/name") == found


def test_a_pruned_model_that_reads_too_little_is_refused_again(place, cache, tmp_path):
    short = tmp_path / "short"
    shutil.copytree(place / "pruned", short)
    config = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 32}))
    options = {"scorers": "paser", "embeddings": place / "vectors.npy", "progress": False}
    for _ in range(2):
        with pytest.raises(dp.DataPrunerError, match="reads 32 tokens"):
            dp.score(some_rows(), model=str(place / "dense"), pruned_model=str(short), **options)
