"""What the README shows is true: its Python runs, its commands exist, its own scorer passes the contract."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder that holds what the README's lines name."""
    rng = np.random.default_rng(0)
    words = [f"w{number}" for number in range(300)]
    rows = [
        {
            "question": " ".join(rng.choice(words, 9)),
            "answer": " ".join(rng.choice(words, 60)),
            "skill": ["math", "code"][row % 2],
        }
        for row in range(6000)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:3]))
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[::60]))
    np.save(tmp_path / "vectors.npy", rng.normal(size=(6000, 8)).astype(np.float32))
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATAPRUNER_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def instant_embedder(monkeypatch):
    """Vectors that cost nothing in place of MiniLM's: the README's lines are what is tested here, not the model."""
    from datapruner.signals import plan

    def embed(texts, embedder, store, *, progress=True):
        del embedder, store, progress
        return np.random.default_rng(len(texts)).normal(size=(len(texts), 8)).astype(np.float32)

    monkeypatch.setattr(plan, "load_text_embedder", lambda *arguments, **options: None)
    monkeypatch.setattr(plan, "embed_texts", embed)


@pytest.fixture
def instant_model(workplace, tiny_llama, monkeypatch):
    """Losses and divergences that cost nothing in place of the forward passes."""
    import shutil

    from datapruner.samples.rendering import count_tokens
    from datapruner.signals import Ragged, language_model, twins
    from datapruner.signals.ragged import offsets_of

    for name in ("my-model", "my-pruned"):
        shutil.copytree(tiny_llama, workplace / name)

    def measure(samples, rows, reader, store, *, what="row", num_tokens=None, progress=True):
        del store, num_tokens, progress
        rng = np.random.default_rng(0)
        _, tokens = count_tokens(samples, reader.tokenizer, rows, max_length=reader.max_length)
        nll, entropy = (
            Ragged(rng.random(tokens.sum(), dtype=np.float32), offsets_of(tokens)) for _ in range(2)
        )
        if what == "response":
            return {"response_log_ppl": 1 + rng.random(len(rows)), "response_token_nll": nll}
        names = ("log_ppl", "entropy", "el2n", "grad_norm", "weight_dot", "weight_norm")
        return {name: rng.random(len(rows)) for name in names} | {"token_nll": nll, "token_entropy": entropy}

    def measure_both(samples, rows, dense, open_pruned, store, *, progress=True, **options):
        del options
        pruned = open_pruned()
        assert pruned.model is not dense.model
        measured = measure(samples, rows, dense, store, progress=progress)
        rng = np.random.default_rng(1)
        jsd = Ragged(rng.random(len(measured["token_nll"].values)) * np.log(2), measured["token_nll"].offsets)
        means = np.add.reduceat(jsd.values, jsd.offsets[:-1]) / jsd.lengths
        return measured | {"jsd": means, "token_jsd": jsd, "pruned_log_ppl": measured["log_ppl"] + means}

    monkeypatch.setattr(language_model, "measure_language_model", measure)
    monkeypatch.setattr(twins, "measure_twins", measure_both)


def commands():
    for language, block in BLOCKS:
        if language == "bash":
            for line in block.splitlines():
                if line.startswith("datapruner "):
                    yield shlex.split(line, comments=True)[1:]


def test_commands(workplace, instant_embedder, instant_model, monkeypatch, capsys):
    from datapruner import cli

    assert len(list(commands())) >= 16
    for arguments in commands():
        again = ["--overwrite"] if "out" in arguments and arguments[0] in ("prune", "select") else []
        monkeypatch.setattr("sys.argv", ["datapruner", *arguments, *again])
        with contextlib.suppress(SystemExit):
            cli.main()
        assert capsys.readouterr().err == "", arguments
    from datasets import load_dataset

    for folder in ("again", "recovery"):
        assert len(load_dataset(folder, split="train", cache_dir="hf")) > 0
    damaged = json.loads(Path("damaged/damage.json").read_text())
    assert {group["by"] for group in damaged["groups"]} == {"cluster", "skill"}


def test_python(workplace, instant_embedder):
    ran = 0
    for language, block in BLOCKS:
        if language == "python" and "Trainer(" not in block:
            exec(compile(block, "README.md", "exec", dont_inherit=True), {"__name__": "readme"})
            ran += 1
    assert ran == 2
    assert (workplace / "pruned" / "README.md").exists()


def test_make_targets_exist():
    targets = re.findall(
        r"^make ([\w-]+)", "".join(block for language, block in BLOCKS if language == "bash"), re.M
    )
    makefile = (ROOT / "Makefile").read_text()
    assert {"demo", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.M)
