"""What README and docs show is true: every code block runs, in the order of its page, on a small set.

A page's blocks share a folder that holds what they name: rows, vectors, tiny models. A block that cannot run stands
in :data:`NOT_RUN` with its reason; any other block that nothing here knows how to run fails.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.conftest import command, save_tiny_llama
from tests.plugin import install

pytestmark = pytest.mark.pages
ROOT = Path(__file__).parents[1]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md"))),
]
# Every page's budgets can be had from so many rows.
ROWS = {"README.md": 3000}
FEW = 160
MODELS = ("my-model", "my-pruned", "dense", "pruned", "better", "my-policy", "before")
OTHERS = ("pruned", "better", "before")
SAID = re.compile(r"(reading|loading|trained|\d+ trainings) .* \.\.\.")
CLASSIFIERS = {"my-reward": ["reward"], "my-classifier": ["fine", "toxic"]}

MARKED = (
    "{% for message in messages %}<|{{ message['role'] }}|>{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] }}</s>{% endgeneration %}{% else %}{{ message['content'] }}</s>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

NOT_RUN = {
    (
        "docs/index.md",
        "Made demo-out/messy.jsonl",
    ): "printed by `make demo`, a minute with the bundled models",
    ("docs/design.md", "source ──> Samples"): "a drawing",
    (
        "docs/methods.md",
        "datapruner prune rows.jsonl --target dev.jsonl --keep 0.05",
    ): "takes checkpoints of a training; tests/scorers/test_less.py makes some and runs it",
    (
        "docs/object_stores.md",
        "pip install '.[s3]'",
    ): "an object store; tests/signals/test_store_s3.py runs one over a server on loopback",
    ("docs/sources.md", "datapruner prune s3://"): "an object store; tests make it of a server on loopback",
    ("docs/workers.md", "pip install '.[ray]'"): "a cluster; tests/engines and tests/faults start one",
    ("docs/scaling.md", "#!/bin/bash"): "a scheduler; the line of docs/workers.md is run",
    ("docs/scaling.md", "apiVersion"): "a cluster",
}
"""(page, how the block begins) -> why it does not run."""


class Block(NamedTuple):
    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text("utf-8")
    found = []
    for match in re.finditer(r"^(?P<fence>```+)(\w*)\n(.*?)^(?P=fence)$", text, re.M | re.S):
        found.append(Block(page, text.count("\n", 0, match.start()) + 1, match[2], match[3]))
    # A fence that is indented, or not closed, would be passed over.
    assert len(re.findall(r"^\s*```", text, re.M)) == 2 * len(found), page
    return found


def why_not(block: Block) -> str | None:
    reasons = [
        reason
        for (page, start), reason in NOT_RUN.items()
        if page == block.page and block.text.startswith(start)
    ]
    return reasons[0] if reasons else None


class Runner:
    """Runs the blocks of one page."""

    def __init__(self, page: str, given: dict[str, object], monkeypatch, capsys) -> None:
        self.page, self.names, self.monkeypatch, self.capsys = (
            page,
            {"__name__": page, **given},
            monkeypatch,
            capsys,
        )
        self.printed = ""
        self.code: list[str] = []

    def run(self, block: Block) -> None:
        kind = getattr(self, block.language, None)
        assert block.language in ("bash", "python", "text", "toml"), (
            f"{block}: nothing runs '{block.language}'"
        )
        kind(block)

    def bash(self, block: Block) -> None:
        self.printed = ""
        for line in block.text.replace("\\\n", " ").splitlines():
            for part in filter(None, map(str.strip, re.split(r"&&|^#.*", line))):
                self.command(shlex.split(part, comments=True), f"{block}: {part}")

    def command(self, words: list[str], where: str) -> None:
        match words:
            case []:
                pass
            case ["datapruner", *arguments]:
                self.datapruner(arguments, where)
            case ["make", target, *_]:
                assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M), where
            case ["source", ".venv/bin/activate"]:
                assert "VENV := .venv\n" in (ROOT / "Makefile").read_text(), where
            case ["pip", "install", package]:
                extras = re.fullmatch(r"\.\[([\w,]+)\]", package)[1].split(",")
                project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
                assert set(extras) <= set(project["optional-dependencies"]), where
            case ["sbatch", array, "--wrap", line]:
                tasks = range(1, int(re.fullmatch(r"--array=1-(\d+)", array)[1]) + 1)
                for task in tasks:
                    self.command(shlex.split(line.replace("$SLURM_ARRAY_TASK_ID", str(task))), where)
            case ["pre-commit", "install"]:
                assert (ROOT / ".pre-commit-config.yaml").exists(), where
            case ["python", script, *options]:
                text = (ROOT / script).read_text("utf-8")
                assert all(option in text for option in options if option.startswith("--")), where
            case _:
                pytest.fail(f"{where}: nothing runs this")

    def datapruner(self, arguments: list[str], where: str) -> None:
        if "-o" in arguments and Path(arguments[arguments.index("-o") + 1]).exists():
            arguments = [*arguments, "--overwrite"]  # two lines of a page may write one folder
        self.capsys.readouterr()
        code = command(self.monkeypatch, *arguments)
        out, err = self.capsys.readouterr()
        # Before a silence a line says what is going on; there is no warning, and no error.
        other = [
            line
            for line in err.splitlines()
            if not re.fullmatch(r"(reading|loading|trained|\d+ trainings) .* \.\.\.", line)
        ]
        assert (code, other) == (0, []), where
        self.printed += out

    def python(self, block: Block) -> None:
        for folder in re.findall(r"\.save\(\"([\w-]+)\"\)", block.text):
            shutil.rmtree(folder, ignore_errors=True)
        code = "\n" * block.line + block.text  # a traceback names the page's line
        before = set(self.names)
        exec(compile(code, block.page, "exec", dont_inherit=True), self.names)
        self.code.append(block.text)
        for name in [name for name in self.names if name.startswith("test_") and name not in before]:
            (mark,) = self.names[name].pytestmark
            for case in mark.args[1]:
                self.names[name](*case.values)

    def text(self, block: Block) -> None:
        """A folder's files exist in a result; what a command prints is printed."""
        if block.text.startswith("OUT/\n"):
            names = re.findall(r"^  (\S+)", block.text, re.M)
            folders = [path for path in Path().iterdir() if path.is_dir()]
            assert any(all((folder / name).exists() for name in names) for folder in folders), block
            return
        assert self.printed, f"{block}: no command before it printed this"
        printed = set(map(masked, self.printed.splitlines()))
        for line in block.text.splitlines():
            assert masked(line) in printed, f"{block}: {line}"

    def toml(self, block: Block) -> None:
        """Entry points: what the page has written so far is a package with them from here on."""
        points = tomllib.loads(block.text)["project"]["entry-points"]
        for name, value in [pair for held in points.values() for pair in held.items()]:
            module, _, attribute = value.partition(":")
            assert self.names[attribute].name == name, block
        install(Path("site").resolve(), self.monkeypatch, module, "\n".join(self.code), points)


def masked(line: str) -> str:
    """A line without its figures."""
    return " ".join(re.sub(r"-?\d[\d,.]*", "#", line).split())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Rows, vectors and models, made once for all pages."""
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    words = [f"w{number}" for number in range(300)]
    rows = [
        {
            "question": " ".join(rng.choice(words, 9)),
            "answer": " ".join(rng.choice(words, 30)),
            "skill": ["math", "code"][row % 2],
        }
        for row in range(max(ROWS.values()))
    ]
    for name, seed in (("dense", 0), ("other", 1), ("marked", 0)):
        save_tiny_llama(folder / name, seed=seed)
    # trl supervises the assistant's turns alone where the template marks them.
    (folder / "marked" / "chat_template.jinja").write_text(MARKED)
    return folder, rows


def save_classifier(dense, folder, labels):
    """A language model's body with a head of so many outputs."""
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(dense)
    names = dict(enumerate(labels))
    config = AutoConfig.from_pretrained(dense, id2label=names, label2id={of: at for at, of in names.items()})
    config.pad_token_id = tokenizer.pad_token_id
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture
def workplace(request, made, tmp_path, monkeypatch):
    """A folder that holds what a page's lines name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder, rows = made
    page = request.node.callspec.params["page"]
    text = (ROOT / page).read_text("utf-8")
    rows = rows[: ROWS.get(page, FEW)]
    if page == "docs/results.md":  # where rows are looked for
        rows = [{**row, "id": f"row-{number}"} for number, row in enumerate(rows)]
        rows[17] |= {"id": "abc", "question": "What does the chain rule say?"}
    vectors = np.random.default_rng(0).normal(size=(len(rows), 8)).astype(np.float32)

    def write(name, held):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in held))

    write("rows.jsonl", rows)
    write("test.jsonl", rows[:3])
    write("mine.jsonl", rows[::60])
    write("dev.jsonl", rows[5::60])
    if "more.jsonl" in text:
        turned = [" ".join(reversed(row["question"].split())) for row in rows[:FEW]]
        write("more.jsonl", [{**row, "question": other} for row, other in zip(rows, turned, strict=False)])
    if "math.parquet" in text:
        (tmp_path / "chat").mkdir()
        write("code.jsonl", rows[:60])
        write("chat/a.jsonl", rows[60:90])
        pq.write_table(pa.Table.from_pylist(rows[90:]), tmp_path / "math.parquet")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    for name in ("vectors", "a", "b"):
        np.save(tmp_path / f"{name}.npy", vectors)
        vectors = vectors + 0.1
    for name in MODELS:
        if re.search(rf"model[ =]\"?{name}\b", text):
            shutil.copytree(folder / ("other" if name.endswith(OTHERS) else "dense"), tmp_path / name)
    if "pairs.jsonl" in text:
        pairs = [
            {"prompt": a["question"], "chosen": a["answer"], "rejected": b["answer"]}
            for a, b in pairwise(rows)
        ]
        write("pairs.jsonl", pairs)
    if "my-judge" in text:  # a grading prompt is longer than the others read
        shutil.copytree(folder / "dense", tmp_path / "my-judge")
        config = tmp_path / "my-judge" / "config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "max_position_embeddings": 4096}))
    for name, labels in CLASSIFIERS.items():
        if name in text:
            save_classifier(folder / "dense", tmp_path / name, labels)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATAPRUNER_CACHE", str(folder / "cache"))  # the pages share their rows
    return tmp_path


@pytest.fixture
def instant_geometry(monkeypatch):
    """Vectors that cost nothing in place of MiniLM's, no UMAP, few numbers of clusters to choose from.

    The pages' lines are what is tested here, not the methods.
    """
    from datapruner.geometry import diffusion, manifold
    from datapruner.signals import vectors

    choose = diffusion.choose_k

    def embed(texts, embedder, store, **options):
        del embedder, store, options
        vectors = np.random.default_rng(len(texts)).normal(size=(len(texts), 8)).astype(np.float32)
        return vectors, np.tile(np.float32([5, 0, 5]), (len(texts), 1))

    monkeypatch.setattr(vectors, "load_text_embedder", lambda *arguments, **options: None)
    monkeypatch.setattr(vectors, "embed_and_tell", embed)
    monkeypatch.setattr(manifold, "_umap", lambda near, start, min_dist, seed: start)
    monkeypatch.setattr(
        diffusion, "choose_k", lambda walk, choices, **options: choose(walk, choices[:2], **options)
    )


@pytest.fixture
def instant_model(monkeypatch):
    """Losses and divergences that cost nothing in place of the forward passes, for a page of many rows."""
    from datapruner.ragged import offsets_of
    from datapruner.samples.rendering import count_tokens
    from datapruner.signals import Ragged, language_model
    from datapruner.signals.language_model import twins

    def measure(samples, rows, reader, store, *, what="row", **options):
        del store, options
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


@pytest.fixture
def given(request, made, workplace, monkeypatch):
    """What a page's Python takes as there: a model, a trainer, points."""
    del workplace
    page = request.node.callspec.params["page"]
    if page == "docs/topology.md":
        import torch

        points = np.random.default_rng(0).random((60, 2))
        return {"points": points, "tensor": torch.tensor(points, requires_grad=True)}
    if page not in ("README.md", "docs/token_pruning.md"):
        return {}
    trl = pytest.importorskip("trl", reason="the page trains with trl: pip install '.[trl]'")
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = made[0] / "marked"

    class OneStepOnTheCPU(trl.SFTConfig):
        """trl's defaults are those of a GPU."""

        def __init__(self, *arguments, **options):
            super().__init__(
                *arguments,
                **{"use_cpu": True, "bf16": False, "report_to": [], "max_steps": 1, "save_strategy": "no"}
                | options,
            )

    for module in (trl, trl.trainer.sft_trainer):
        monkeypatch.setattr(module, "SFTConfig", OneStepOnTheCPU)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    turns = [
        {"role": "user", "content": "the sum of two and three"},
        {"role": "assistant", "content": "is five"},
    ]
    conversations = Dataset.from_list([{"messages": turns}] * 16)
    return {
        "model": AutoModelForCausalLM.from_pretrained(folder),
        "tokenizer": tokenizer,
        "SFTTrainer": trl.SFTTrainer,
        "dataset": conversations,
        "rows": conversations,
    }


@pytest.mark.filterwarnings("error:.* has moved to .*:DeprecationWarning")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
def test_blocks_run(page, workplace, instant_geometry, request, given, monkeypatch, capsys):
    if page in ROWS:
        request.getfixturevalue("instant_model")
    runner = Runner(page, given, monkeypatch, capsys)
    for block in blocks(page):
        if why_not(block) is None:
            runner.run(block)
    for folder in re.findall(
        r"--scorer paser .* -o (\S+)|run \S+ -o (\S+)", (ROOT / page).read_text("utf-8")
    ):
        from datasets import load_dataset

        assert len(load_dataset(*filter(None, folder), split="train", cache_dir="hf")) > 0


@pytest.mark.parametrize(("page", "start"), NOT_RUN, ids=lambda value: value[:30])
def test_not_run(page, start):
    reasons = [why_not(block) for block in blocks(page) if block.text.startswith(start)]
    assert len(reasons) == 1, "a reason that belongs to no block"
    pytest.skip(reasons[0])


def test_what_nothing_runs_is_told(made, monkeypatch, capsys):
    runner = Runner("README.md", {}, monkeypatch, capsys)

    def block(language, text):
        return Block("README.md", 1, language, text)

    with pytest.raises(AssertionError, match="nothing runs 'ruby'"):
        runner.run(block("ruby", "puts 1"))
    with pytest.raises(pytest.fail.Exception, match="nothing runs this"):
        runner.run(block("bash", "curl example.org"))
    with pytest.raises(AssertionError, match="make nowhere"):
        runner.run(block("bash", "make install && make nowhere"))
    with pytest.raises(AssertionError, match="no command before it"):
        runner.run(block("text", "printed by nobody"))
    with pytest.raises(ZeroDivisionError):
        runner.run(block("python", "1 / 0"))
    with pytest.raises(AssertionError, match="datapruner prunes"):
        runner.run(block("bash", "datapruner prunes rows.jsonl"))


def test_the_loader_of_docs_loads_layers_of_different_widths(made, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "uneven"
    shutil.copytree(made[0] / "dense", folder)
    state = load_file(folder / "model.safetensors")
    first = "model.layers.0.mlp."
    for name in ("gate_proj", "up_proj"):
        state[f"{first}{name}.weight"] = state[f"{first}{name}.weight"][:40].clone()
    state[f"{first}down_proj.weight"] = state[f"{first}down_proj.weight"][:, :40].clone()
    save_file(state, folder / "model.safetensors")
    code = [block.text for block in blocks("docs/recovery.md") if block.text.startswith("# loader.py")]
    names: dict[str, object] = {}
    exec(code[0], names)
    model, tokenizer = names["load"](str(folder))
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == {
        name: tuple(value.shape) for name, value in state.items()
    }
    assert tokenizer.chat_template
