"""Notebooks run, in a small setting, and are committed as they ran in the real one."""

from __future__ import annotations

import json
import random
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.pages
ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "notebooks"
WORDS = {
    "arithmetic": ["fraction", "integer", "divisor", "matrix"],
    "cooking": ["butter", "onion", "flour", "garlic"],
    "travel": ["harbour", "ticket", "island", "museum"],
}
KEEP_TOKENS = 300
# What the notebook knows at its end, for the test to work out again.
TOLD = """
import json
told = {
    "train": train,
    "held_out": held_out,
    "blocks": [model.config.num_hidden_layers for model in (dense, pruned)],
    "dense": losses["dense"].tolist(),
    "kept": {name: selection.indices.tolist() for name, selection in selections.items()},
    "budget": {name: selection.shares()["budget"][:2] for name, selection in selections.items()},
    "table": json.loads(table.to_json()),
}
print(json.dumps(told))
"""

FILTERED = """
print(json.dumps({
    "rows": frame.to_dict("records"),
    "planted": planted.tolist(),
    "vetoes": {vetoes.kind: len(vetoes) for vetoes in scores.vetoes},
    "kept": selection.kept.tolist(),
    "read_back": load_dataset("filtered", split="train", cache_dir="cache").to_list(),
    "tokens": tokens.tolist(),
    "budget": budget,
    "perplexity": [value if np.isfinite(value) else None for value in scores.rankings["perplexity"].values],
    "auroc": table.loc["perplexity", "shuffled"],
}))
"""
COMPARED = """
import json
print(json.dumps({
    "rows": rows,
    "left_out": dict(comparison.left_out),
    "kept": {name: one.indices.tolist() for name, one in comparison.at(middle).selections.items()},
    "overlap": pairs[["first", "second", "jaccard"]].to_numpy().tolist(),
    "moved": balance.set_index("scorer")["moved"].to_dict(),
    "length": lengths.to_dict(),
    "verdicts": verdicts,
    "shortlist": shortlist,
}))
"""


def make_rows(each: int = 16) -> list[dict[str, str]]:
    """Short questions and answers in three vocabularies; each prompt is there once.

    A row has two words of four: once two rows without a common word are kept, every pair across them is a conflict.
    """
    rng = random.Random(0)
    rows = []
    for capability, words in WORDS.items():
        for number in range(each):
            one, other = rng.sample(words, 2)
            rows.append(
                {
                    "question": f"{number}: what of {one} and {other}?",
                    "answer": f"the {other} and the {one}",
                    "capability": capability,
                }
            )
    return rows


@pytest.fixture(scope="module")
def execute():
    """Run a notebook and one more cell, which prints what the test works out again; settings are its variables.

    All in one kernel, which imports torch, UMAP and the rest once; each with no name but its own.
    """
    nbformat = pytest.importorskip("nbformat", reason="notebooks are executed with nbformat and nbclient")
    nbclient = pytest.importorskip("nbclient", reason="notebooks are executed with nbformat and nbclient")
    pytest.importorskip("ipykernel", reason="notebooks are executed by a kernel of ipykernel")
    core = pytest.importorskip("jupyter_core.utils", reason="notebooks are executed by a kernel of ipykernel")
    kernels: list[Any] = []

    def run(name: str, told: str, tmp_path: Path, **settings: Any) -> Any:
        folder = tmp_path / "notebooks"
        folder.mkdir()
        settings |= {"DATAPRUNER_CACHE": tmp_path / "cache"}  # nothing is left in the user's folders
        notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
        given = {variable: str(value) for variable, value in settings.items()}
        before = f"%reset -f\nimport os\nos.environ |= {given}\nos.chdir({str(folder)!r})\ndel os"
        notebook.cells.insert(0, nbformat.v4.new_code_cell(before))
        after = f"import os\nfor variable in {list(given)}:\n    del os.environ[variable]"
        notebook.cells += [nbformat.v4.new_code_cell(told), nbformat.v4.new_code_cell(after)]
        client = nbclient.NotebookClient(
            notebook,
            km=kernels[0] if kernels else None,
            timeout=1800,
            startup_timeout=600,
            kernel_name="python3",
            resources={"metadata": {"path": str(tmp_path)}},
        )
        with pytest.MonkeyPatch.context() as patch:
            for variable, place in (("IPYTHONDIR", "ipython"), ("JUPYTER_RUNTIME_DIR", "runtime")):
                patch.setenv(variable, str(tmp_path / place))
            patch.delenv("MPLBACKEND", raising=False)
            client.execute(cleanup_kc=False)  # a cell that raises ends it, with its traceback
        kernels[:] = [client.km]
        del notebook.cells[0], notebook.cells[-1]
        assert list(folder.iterdir()) == []
        assert [output for output in outputs(notebook) if output["output_type"] == "error"] == []
        assert [output for output in outputs(notebook) if output.get("name") == "stderr"] == []
        return notebook

    yield run
    for kernel in kernels:
        core.run_sync(kernel.shutdown_kernel)(now=True)


@pytest.fixture(scope="module")
def executed(execute, tmp_path_factory, tiny_llama, tiny_sentence_transformer) -> Any:
    """The recovery notebook, executed once with random models on a few rows."""
    pytest.importorskip("peft", reason="the notebook trains LoRA adapters with peft")
    tmp_path = tmp_path_factory.mktemp("recovery")
    rows = make_rows()
    # The same question twice, as real sets have it: it must not be trained on and measured on.
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, *rows[:5]]))
    return execute(
        "recovery",
        TOLD,
        tmp_path,
        MODEL=tiny_llama,
        EMBEDDER=tiny_sentence_transformer,
        DATA=tmp_path / "rows.jsonl",
        ROWS=36,
        HELD_OUT=12,
        CALIBRATION=4,
        DROP_BLOCKS=1,
        N_CLUSTERS=2,
        KEEP_TOKENS=KEEP_TOKENS,
        EPOCHS=1,
        BATCH_TOKENS=128,
    )


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook["cells"] for output in cell.get("outputs", [])]


def images(notebook: Any) -> list[Any]:
    return [output for output in outputs(notebook) if "image/png" in output.get("data", {})]


def mean_losses(folder: Path, rows: list[dict[str, str]]) -> list[float]:
    """Each answer's mean loss by transformers alone: the whole row's logits, the template written out by hand."""
    import torch
    from transformers import AutoTokenizer, LlamaForCausalLM

    model, tokenizer = LlamaForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    found = []
    for row in rows:
        prompt = tokenizer(f"<|user|>{row['question']}</s><|assistant|>")["input_ids"]
        answer = tokenizer(f"{row['answer']}</s>")["input_ids"]
        labels = [-100] * len(prompt) + answer
        with torch.inference_mode():
            loss = model(input_ids=torch.tensor([prompt + answer]), labels=torch.tensor([labels])).loss
        found.append(float(loss))
    return found


def test_recovery_runs_from_damage_to_a_healed_model(executed, tiny_llama):
    assert len(images(executed)) == 4
    *_, last = executed.cells
    told = json.loads(last.outputs[0]["text"])

    # The rows: of each capability as many, none in both parts.
    assert told["blocks"] == [2, 1]
    train, held_out = ({row["question"] for row in told[part]} for part in ("train", "held_out"))
    assert (len(train), len(held_out)) == (36, 12)
    assert not train & held_out
    for capability in WORDS:
        assert sum(row["capability"] == capability for row in told["held_out"]) == 4

    # The two sets: different rows for one budget, each short of it by less than a row.
    assert told["kept"]["paser"] != told["kept"]["random"]
    for spent, budget in told["budget"].values():
        assert budget == KEEP_TOKENS
        assert 0.8 * KEEP_TOKENS < spent <= KEEP_TOKENS

    # The table: the dense model's column is what transformers says, and both trainings moved the pruned one.
    assert told["dense"] == pytest.approx(mean_losses(tiny_llama, told["held_out"]), rel=1e-4)
    table = told["table"]
    assert list(table) == ["dense", "pruned", "random", "paser"]
    for column in table.values():
        assert list(column) == [*WORDS, "all rows"]
    for capability in WORDS:
        of = [
            loss
            for row, loss in zip(told["held_out"], told["dense"], strict=True)
            if row["capability"] == capability
        ]
        assert table["dense"][capability] == pytest.approx(sum(of) / len(of))
    assert table["random"]["all rows"] < table["pruned"]["all rows"]
    assert table["paser"]["all rows"] < table["pruned"]["all rows"]
    shown = [
        output["data"]["text/html"] for output in outputs(executed) if "text/html" in output.get("data", {})
    ]
    assert all(f"<th>{name}</th>" in shown[-1] for name in [*WORDS, "all rows"])


def test_recovery_reads_reasons_aloud(executed):
    printed = "".join(output.get("text", "") for output in outputs(executed))
    assert "kept: among the" in printed
    assert re.search(r"dropped: '.+' and '.+' are known in cluster \d+", printed)


def test_filtering_finds_what_it_planted_and_saves_what_it_says(
    execute, tmp_path, tiny_llama, tiny_sentence_transformer
):
    """Random models: the copies are found, the rest is counted again; what is broken is for a real model to find."""
    rows = make_rows()
    rng = random.Random(1)
    for row in rows:
        words = WORDS[row["capability"]]
        row["answer"] = " ".join(rng.sample([*words, *"abcd"], 6))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    notebook = execute(
        "filter_sft_dataset",
        FILTERED,
        tmp_path,
        MODEL=tiny_llama,
        EMBEDDER=tiny_sentence_transformer,
        DATA=tmp_path / "rows.jsonl",
        ROWS=48,
    )
    assert len(images(notebook)) == 3
    told = json.loads(notebook.cells[-1].outputs[0]["text"])
    of = {row["question"]: row["answer"] for row in rows}
    planted = Counter(told["planted"])
    assert (planted["shuffled"], planted["copy"], planted["near copy"]) == (5, 3, 2)
    assert 2 <= planted["swapped"] <= 5  # one that was alone of its kind has nothing to swap with
    for row, kind in zip(told["rows"], told["planted"], strict=True):
        if kind in ("swapped", "shuffled"):
            assert row["answer"] != of[row["question"]]
        if kind == "shuffled":
            assert sorted(row["answer"].split()) == sorted(of[row["question"]].split())
        if kind == "swapped":
            assert row["answer"] in of.values()
    # Of three exact copies one row of each pair was dropped, and what was saved is what was chosen.
    assert told["vetoes"]["exact_duplicate"] == 3
    kept = [row for row, held in zip(told["rows"], told["kept"], strict=True) if held]
    assert told["read_back"] == kept
    spent = sum(count for count, held in zip(told["tokens"], told["kept"], strict=True) if held)
    assert 0.8 * told["budget"] < spent <= told["budget"]
    of_kind = defaultdict(list)
    for value, kind in zip(told["perplexity"], told["planted"], strict=True):
        if value is not None:
            of_kind[kind if kind in ("swapped", "shuffled") else "left alone"].append(value)
    pairs = [
        (one < other) + (one == other) / 2 for one in of_kind["shuffled"] for other in of_kind["left alone"]
    ]
    assert told["auroc"] == pytest.approx(sum(pairs) / len(pairs))


def test_comparing_counts_what_it_shows(execute, tmp_path, tiny_llama, tiny_sentence_transformer):
    rows = make_rows()
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    notebook = execute(
        "compare_scorers",
        COMPARED,
        tmp_path,
        MODEL=tiny_llama,
        EMBEDDER=tiny_sentence_transformer,
        DATA=tmp_path / "rows.jsonl",
        ROWS=48,
        KEEP="0.25,0.5",
        SEEDS=2,
    )
    assert len(images(notebook)) == 4
    told = json.loads(notebook.cells[-1].outputs[0]["text"])
    assert Counter(row["capability"] for row in told["rows"]) == dict.fromkeys(WORDS, 16)
    more = [
        "classifier",
        "excess_loss",
        "feature_mapping",
        "judge",
        "label_mapping",
        "nearest_target",
        "paser",
        "preference_margin",
        "unranked",
    ]
    assert sorted(told["left_out"]) == more
    kept = {name: set(rows) for name, rows in told["kept"].items()}
    assert all(len(rows) == 24 for rows in kept.values())
    for one, other, jaccard in told["overlap"]:
        assert jaccard == pytest.approx(len(kept[one] & kept[other]) / len(kept[one] | kept[other]))
    of = [row["capability"] for row in told["rows"]]
    for name, moved in told["moved"].items():
        shares = Counter(of[row] for row in kept[name])
        assert moved == pytest.approx(sum(abs(shares[group] / 24 - 1 / 3) for group in WORDS) / 2)
    # What goes with length, or twice over, is not trained on; what is not asked of is.
    assert told["verdicts"]["random"] == "train"
    assert set(told["shortlist"]) == {
        name for name, verdict in told["verdicts"].items() if verdict == "train"
    }
    for name, length in told["length"].items():
        assert (told["verdicts"][name] == "goes with length") == (
            abs(length) > 0.5 and name not in ("random", "length")
        )


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_is_committed_as_it_ran(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    counts = [cell["execution_count"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1)), "execute it from its first cell to its last"
    assert len(images(notebook)) >= 2
    for output in images(notebook):
        output["data"].pop("image/png")
    for output in outputs(notebook):
        assert output["output_type"] != "error"
        assert output.get("name") != "stderr", "a warning is part of the outputs"
    left = json.dumps(notebook)
    assert not re.search(r"(?<![\w.~:/])/\w[\w.-]*/\w|\b[A-Z]:\\", left), "an absolute path is left in it"
    assert all("execution" not in cell["metadata"] for cell in notebook["cells"]), "times are left in it"
