"""Sources of layouts of their own, chosen from together: each row is what it is where its source is read by itself."""

from __future__ import annotations

import json
import shutil
from hashlib import sha256
from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

import datapruner as dp
from datapruner.errors import DataPrunerError
from datapruner.outputs.report.made import how_it_was_made
from datapruner.samples import load_samples
from tests.conftest import command

LIKE = {"scorer": "random", "progress": False}
QA = [{"question": f"what is {i}", "answer": f"it is number {i}", "level": i} for i in range(6)]
ALPACA = [
    {"instruction": f"say {i}", "input": "" if i % 2 else f"twice, {i}", "output": f"so be it {i}"}
    for i in range(5)
]
CHAT = [
    {
        "messages": [{"role": "system", "content": "be kind"}] * (i % 2)
        + [{"role": "user", "content": f"tree {i}?"}, {"role": "assistant", "content": f"{i} of them"}]
    }
    for i in range(4)
]
CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}


def turns(asked, said, *names):
    role, content, user, assistant = names or ("role", "content", "user", "assistant")
    return [{role: user, content: asked}, {role: assistant, content: said}]


TEXTS = {
    "messages": [
        {"messages": [*turns("a", "b"), {"role": "user", "content": "c"}], "tools": None},
        {"messages": [{"role": "user", "content": "d"}, {"role": "assistant", "content": "", "tool_calls": [CALL]}]},
    ],
    "sharegpt": [{"conversations": turns("e", "f", "from", "value", "human", "gpt"), "system": "s"}],
    "dolly": [{"instruction": "g", "context": c, "response": "h"} for c in ("", "i", None)],
    "alpaca": [{"instruction": "j", "input": "k", "output": "l"}, {"instruction": "m", "output": "n"}],
    "question_answer": [{"question": "o", "answer": "p", "history": [["q", "r"]]}],
    "prompt_completion": [{"prompt": "t", "completion": "u"}],
    "query_response": [{"query": "v", "response": "w", "system": None}, {"query": "v", "response": None}],
    "input_output": [{"input": "x", "output": "y", "label": 3}],
    "text": [{"text": "z"}],
    "preference": [{"prompt": "A", "chosen": "B", "rejected": "C"}],
    "unpaired_preference": [{"prompt": "D", "completion": "E", "label": True}],
}  # fmt: skip
KINDS = {"preference": "pairs of answers", "unpaired_preference": "votes on answers"}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, rows in (("qa", QA), ("alpaca", ALPACA), ("chat", CHAT)):
        write(f"{name}.jsonl", rows)
    return tmp_path


def write(name: str, rows) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def read(samples, rows=None):
    return [(sample, sample.key()) for sample in samples.iter_samples(rows)]


def test_any_two_layouts_give_what_each_gives_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    alone = {}
    for name, rows in TEXTS.items():
        write(f"{name}.jsonl", rows)
        samples = load_samples(f"{name}.jsonl")
        assert samples.layout.name == name
        alone[name] = read(samples)
    for number, pair in enumerate(combinations(TEXTS, 2)):
        one, two = pair if number % 2 else pair[::-1]
        named = {name: f"{name}.jsonl" for name in (one, two)}
        if KINDS.get(one) != KINDS.get(two):
            with pytest.raises(DataPrunerError, match="cannot be chosen from together"):
                load_samples(named)
            continue
        both = load_samples(named)
        assert both.layout.name == f"{one} + {two}"
        assert read(both) == alone[one] + alone[two]
        assert [row.layout.name for row in both.iter_rows()] == [one] * len(alone[one]) + [two] * len(
            alone[two]
        )


def test_rows_are_read_in_the_order_in_which_they_are_asked_for(folder):
    named = {name: f"{name}.jsonl" for name in ("qa", "alpaca", "chat")}
    alone = [one for name in named.values() for one in read(load_samples(name))]
    samples = load_samples(named)
    rng = np.random.default_rng(0)
    for size in (0, 1, 5, 40):
        rows = rng.integers(0, len(alone), size)
        assert read(samples, rows) == [alone[row] for row in rows]
    assert samples[-1] == alone[-1][0]


def test_types_that_are_wider_together_and_padding_are_those_of_the_source_alone(folder):
    # Arrow gives every message every key; what has other keys makes the column JSON, whose nulls are nobody's.
    padded = [[{**turn, "name": "n" if turn["role"] == "user" else None} for turn in turns("a", "b")]]
    pq.write_table(pa.table({"messages": padded, "label": [1]}), "padded.parquet")
    write("own.jsonl", [{"messages": [{**turn, "weight": 1} for turn in turns("c", "d")], "label": 0.5}])
    write("null.jsonl", [{"question": "e", "answer": "f", "label": None}])
    for names in permutations(("padded.parquet", "own.jsonl", "null.jsonl")):
        alone = [one for name in names for one in read(load_samples(name))]
        assert read(load_samples({name: name for name in names})) == alone
    # The result has the wider type, and is still read as its sources are.
    chosen = dp.prune(["padded.parquet", "own.jsonl", "qa.jsonl"], keep=1.0, **LIKE)
    for form in ("parquet", "jsonl", "arrow"):
        chosen.save(f"out-{form}", format=form)
        assert read(load_samples(f"out-{form}")) == read(chosen.scores.samples)


def test_a_result_has_its_rows_untouched_and_is_read_as_its_sources_are(folder, capsys, monkeypatch):
    words = ["qa.jsonl", "alpaca.jsonl", "chat.jsonl", "--scorer", "random", "--keep", 9, "-o", "out"]
    assert command(monkeypatch, "prune", *words) == 0
    held = dp.load_selection("out")
    assert len(held) == 9
    columns = {name for rows in (QA, ALPACA, CHAT) for name in rows[0]}
    rows = [dict.fromkeys(columns) | row for row in (*QA, *ALPACA, *CHAT)]
    kept = load_dataset("out", split="train").remove_columns("source").to_list()
    assert kept == [rows[row] for row in held.indices]
    alone = [one for name in ("qa", "alpaca", "chat") for one in load_samples(f"{name}.jsonl")]
    said = [
        [{"role": turn.role, "content": turn.content} for turn in alone[row].messages] for row in held.indices
    ]
    assert held.conversation()["messages"] == said
    assert held.source.conversation(held.indices)["messages"] == said
    assert command(monkeypatch, "run", "out/recipe.yaml", "-o", "again", "-q") == 0
    assert files(folder / "out") == files(folder / "again")
    chosen = dp.prune(words[:3], keep=9, **LIKE)
    chosen.save("called")
    assert files(folder / "out") == files(folder / "called")
    for name in words[:3]:
        (folder / name).unlink()
    assert dp.load_selection("out").conversation()["messages"] == said
    # It is told of each source.
    card = Path("out/README.md").read_text()
    assert "| `alpaca` | `alpaca.jsonl` | `alpaca` |" in card
    assert "| `qa` | `qa.jsonl` | `question_answer` |" in card
    assert dict(how_it_was_made(chosen))["Rows"].endswith("; chat read as messages (messages: messages)")
    capsys.readouterr()
    assert command(monkeypatch, "inspect", "out") == 0
    assert (
        "layout            qa: question_answer: question = question, answer = answer"
        in capsys.readouterr().out
    )
    assert command(monkeypatch, "explain", "out", "--match", "tree") == 2  # the sources are gone
    # It is a source again, and what it holds is not taken twice.
    dp.prune("out", keep=4, **LIKE).save("next")
    assert len(dp.load_selection("next").conversation()) == 4
    write("qa.jsonl", QA)
    fresh = dp.prune("qa.jsonl", against=["out"], keep=1.0, **LIKE)
    assert set(fresh.indices) == set(range(6)) - set(held.indices[held.indices < 6])
    both = dp.prune(["out", "qa.jsonl"], source_column="from", keep=1.0, **LIKE)
    assert [name for name, _ in both.scores.samples.layouts] == ["out", "out", "out", "qa"]


def test_a_result_without_its_folder_is_a_sentence_and_never_rows_without_an_answer(folder):
    write(
        "dolly.jsonl", [{"instruction": f"do {i}", "context": "c", "response": f"done {i}"} for i in range(3)]
    )
    for names in (("qa", "alpaca", "chat"), ("alpaca", "dolly"), ("dolly", "qa")):
        dp.prune([f"{name}.jsonl" for name in names], keep=1.0, **LIKE).save("out", overwrite=True)
        loaded = load_dataset("out", split="train")
        table = loaded.with_format("arrow")[:]
        for given in (
            loaded,
            loaded.shuffle(seed=0),
            table,
            loaded.to_pandas(),
            loaded.to_list(),
            "out/data",
        ):
            with pytest.raises(
                DataPrunerError, match=r"are of several layouts: they are read as '\w+', and row \d+ has"
            ):
                load_samples(given)
        with pytest.raises(DataPrunerError, match=r"the rows of out/data are of several layouts"):
            load_samples({"a": "out/data", "b": "chat.jsonl"}, source_column="from")
        # A copy of the folder, as one gets it from the hub, is read as the sources are.
        alone = [one for name in names for one in read(load_samples(f"{name}.jsonl"))]
        copied(Path("out"), Path("copy"))
        assert read(load_samples("copy")) == alone


def copied(folder: Path, to: Path) -> None:
    """Lay files out as the client of the hub does: links to what is stored under a name of its own."""
    shutil.rmtree(to, ignore_errors=True)
    Path("blobs").mkdir(exist_ok=True)
    for file in [path for path in folder.rglob("*") if path.is_file()]:
        blob = Path("blobs") / sha256(file.read_bytes()).hexdigest()
        shutil.copy(file, blob)
        place = to / file.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(blob.resolve())


def test_nulls_beside_a_rendered_copy_are_no_other_layout(folder):
    rows = [{"prompt": "a", "completion": None if i == 1 else "b", "text": f"a b {i}"} for i in range(3)]
    assert load_samples(rows).layout.name == "prompt_completion"
    # What cannot be read otherwise is told with its way out, and read as it is said.
    rows[1] |= {"prompt": None}
    with pytest.raises(DataPrunerError, match="row 1 has no 'prompt' but is 'text' by 'text'"):
        load_samples(rows)
    assert load_samples(rows, layout="text").layout.name == "text"


def test_cleaning_reads_each_row_in_its_own_layout(folder):
    same = {"instruction": QA[0]["question"], "output": QA[0]["answer"]}
    write("more.jsonl", [same, {"instruction": "x", "output": ""}])
    chosen = dp.prune(["qa.jsonl", "more.jsonl"], keep=1.0, scorer="length", dedup=["exact"], progress=False)
    causes = chosen.table().to_pandas().cause.tolist()
    assert causes[6:] == ["exact_duplicate", "no_answer"]
    assert chosen.explain(6).reason.endswith("row 0")


def test_what_is_said_of_columns_holds_where_they_are(folder):
    write("odd.jsonl", [{"Q": "a", "A": "b"}])
    samples = load_samples(
        {"odd": "odd.jsonl", "qa": "qa.jsonl", "chat": "chat.jsonl"}, columns={"question": "Q", "answer": "A"}
    )
    assert [layout.columns for _, layout in samples.layouts] == [
        {"question": "Q", "answer": "A"}, {"question": "question", "answer": "answer"}, {"messages": "messages"}
    ]  # fmt: skip
    assert samples[0].messages[0].content == "a"
    assert samples.unread == ["level"]
    forced = load_samples({"a": "alpaca.jsonl", "qa": "qa.jsonl"}, layout="input_output")
    assert [layout.name for _, layout in forced.layouts] == ["input_output", "question_answer"]


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        ([{"chosen": "a", "rejected": "b"}], {}, "pairs of answers cannot be chosen from together"),
        ([{"embedding": [1.0, 2.0]}], {}, r"rows without text \(embedding\) cannot be chosen from together"),
        ([{"level": "high", "text": "t"}], {}, "Column 'level' mixes"),
        ([{"answer": "b", "other": "c"}], {}, "o.jsonl: No text, conversation, image or embedding column"),
        ([{"text": "t"}], {"columns": {"question": "Q"}}, "There is no column 'Q' for the role 'question'"),
        ([{"text": "t"}], {"layout": "dolly"}, "no source fits the layout 'dolly'"),
        ([{"text": "t"}], {"layout": "doly"}, "There is no layout 'doly'. Did you mean 'dolly'"),
    ],
)  # fmt: skip
def test_what_cannot_stand_together_is_a_sentence(folder, rows, options, said):
    write("o.jsonl", rows)
    with pytest.raises(DataPrunerError, match=said):
        load_samples({"qa": "qa.jsonl", "o": "o.jsonl"}, **options)


def test_plain_text_and_conversations_are_scored_together_and_make_no_column_of_messages(folder):
    write("text.jsonl", [{"text": "once upon a time"}])
    chosen = dp.prune(["qa.jsonl", "text.jsonl"], keep=1.0, scorer="length", progress=False)
    with pytest.raises(DataPrunerError, match="some rows are plain texts and others are conversations"):
        chosen.conversation()
    assert chosen.rebudget(1).kept.sum() == 1


def test_pairs_of_several_layouts_are_trained_on_together(folder):
    write("p.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    write("q.jsonl", [{"question": "d", "answer": "e", "rejected": "f"}])
    both = load_samples({"p": "p.jsonl", "q": "q.jsonl"})
    assert both.layout.name == "preference + question_answer"
    alone = [load_samples(name).preference().to_list() for name in ("p.jsonl", "q.jsonl")]
    assert both.preference().to_list() == alone[0] + alone[1]


def test_signals_are_those_of_the_sources_alone(folder, tiny_llama):
    like = {"model": str(tiny_llama), "device": "cpu", "progress": False, "cache": "store"}
    names = ["qa.jsonl", "alpaca.jsonl", "chat.jsonl"]
    alone = [dp.prune(name, scorer="perplexity", keep=1.0, **like).values for name in names]
    held = files(folder / "store")
    mixed = dp.prune(names, scorer="perplexity", keep=0.5, **like)
    np.testing.assert_array_equal(mixed.values, np.concatenate(alone))
    # Of what was measured nothing was measured again: an index of these rows is new, no values are.
    assert any(name.endswith(".shard2") for name in held)
    assert {Path(name).suffix for name in files(folder / "store").keys() - held.keys()} == {".rows", ".sum"}


@pytest.mark.slow
def test_trl_trains_on_a_mix(folder, tiny_llama):
    trl = pytest.importorskip("trl")
    mix = dp.prune(["qa.jsonl", "alpaca.jsonl", "chat.jsonl"], keep=1.0, **LIKE).conversation()
    config = trl.SFTConfig(str(folder / "trained"), max_steps=1, report_to=[], use_cpu=True, bf16=False)
    trainer = trl.SFTTrainer(str(tiny_llama), config, train_dataset=mix)
    assert np.isfinite(trainer.train().training_loss)
    assert len(trainer.train_dataset) == len(QA) + len(ALPACA) + len(CHAT)


def test_a_set_that_rows_are_compared_with_is_read_in_its_own_layouts_whatever_is_said_of_the_sources(folder):
    write("odd.jsonl", [{"Q": f"why {i}", "A": f"since {i}"} for i in range(4)])
    like = {**LIKE, "keep": 1.0, "columns": {"question": "Q", "answer": "A"}}
    dp.prune(["odd.jsonl", "qa.jsonl"], **like).save("out")
    write("odd.jsonl", [{"Q": f"why {i}", "A": f"since {i}"} for i in range(2, 6)])
    grown = dp.prune(["odd.jsonl", "qa.jsonl"], against=["out"], **like)
    assert grown.indices.tolist() == [2, 3]
    # Of a set without these columns nothing was said, and of one of another layout neither.
    assert dp.prune("odd.jsonl", against=["qa.jsonl", "chat.jsonl"], **like).kept.all()
    forced = dp.prune("alpaca.jsonl", against=["chat.jsonl"], layout="alpaca", keep=1.0, **LIKE)
    assert forced.kept.all()
    # Beside other sources a result is read as it says, too.
    both = dp.prune(["out", "odd.jsonl"], source_column="from", **like)
    assert [layout.columns["question"] for _, layout in both.source.layouts] == ["Q", "question", "Q"]
