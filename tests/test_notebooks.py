"""Notebooks run, in a small setting, and are committed as they ran in the real one."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
RECOVERY = ROOT / "notebooks" / "recovery.ipynb"
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
def executed(tmp_path_factory, tiny_llama, tiny_sentence_transformer) -> Any:
    """The recovery notebook, executed once with random models on a few rows."""
    nbformat = pytest.importorskip("nbformat", reason="notebooks are executed with nbformat and nbclient")
    nbclient = pytest.importorskip("nbclient", reason="notebooks are executed with nbformat and nbclient")
    pytest.importorskip("ipykernel", reason="notebooks are executed by a kernel of ipykernel")
    pytest.importorskip("peft", reason="the notebook trains LoRA adapters with peft")
    tmp_path = tmp_path_factory.mktemp("recovery")
    rows = make_rows()
    # The same question twice, as real sets have it: it must not be trained on and measured on.
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, *rows[:5]]))
    settings = {
        "MODEL": tiny_llama,
        "EMBEDDER": tiny_sentence_transformer,
        "DATA": tmp_path / "rows.jsonl",
        "ROWS": 36,
        "HELD_OUT": 12,
        "CALIBRATION": 4,
        "DROP_BLOCKS": 1,
        "N_CLUSTERS": 2,
        "KEEP_TOKENS": KEEP_TOKENS,
        "EPOCHS": 1,
        "BATCH_TOKENS": 128,
        # Nothing is left in the user's folders.
        "DATAPRUNER_CACHE": tmp_path / "cache",
        "IPYTHONDIR": tmp_path / "ipython",
        "JUPYTER_RUNTIME_DIR": tmp_path / "runtime",
    }
    notebook = nbformat.read(RECOVERY, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(TOLD))
    folder = tmp_path / "notebooks"
    folder.mkdir()
    client = nbclient.NotebookClient(
        notebook,
        timeout=1800,
        startup_timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, str(value))
        patch.delenv("MPLBACKEND", raising=False)
        client.execute()  # a cell that raises ends it, with its traceback
    assert list(folder.iterdir()) == []
    return notebook


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
    assert [output for output in outputs(executed) if output["output_type"] == "error"] == []
    assert [output for output in outputs(executed) if output.get("name") == "stderr"] == []
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


@pytest.mark.parametrize("path", [RECOVERY], ids=lambda path: path.stem)
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
