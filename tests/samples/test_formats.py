from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapruner.errors import DataPrunerError
from datapruner.samples import Layout, Message, Sample, load_samples, parse_mapping
from datapruner.samples.layouts import ROLE_NAMES
from datapruner.samples.reading import Row

# ruff: noqa: E501
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "sft"
U, A, S, T = (lambda text, role=role: Message(role, text) for role in ("user", "assistant", "system", "tool"))


def read(*rows, **options):
    return load_samples(list(rows), **options)


@pytest.mark.parametrize(
    ("row", "layout", "messages"),
    [
        ({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]}, "messages", (S("s"), U("u"), A("a"))),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "u"}, {"type": "text", "text": "v"}]}]}, "messages", (Message("user", "uv", {"content": [{"type": "text", "text": "u"}, {"type": "text", "text": "v"}]}),)),
        ({"messages": json.dumps([{"role": "user", "content": "u"}])}, "messages", (U("u"),)),
        ({"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}, {"from": "function_call", "value": "f()"}, {"from": "observation", "value": "1"}]}, "sharegpt", (S("s"), U("u"), A("a"), A("f()"), T("1"))),
        ({"conversations": [{"role": "user", "content": "u"}], "system": "be"}, "sharegpt", (S("be"), U("u"))),
        ({"prompt": "p", "completion": "c"}, "prompt_completion", (U("p"), A("c"))),
        ({"prompt": "p", "response": "c", "system_prompt": "s"}, "prompt_completion", (S("s"), U("p"), A("c"))),
        ({"prompt": [{"role": "user", "content": "p"}], "completion": [{"role": "assistant", "content": "c"}]}, "prompt_completion", (U("p"), A("c"))),
        ({"instruction": "i", "input": "x", "output": "o"}, "alpaca", (U("i\n\nx"), A("o"))),
        ({"instruction": "i", "input": " ", "response": "o"}, "alpaca", (U("i"), A("o"))),
        ({"instruction": "i", "input": None, "output": "o"}, "alpaca", (U("i"), A("o"))),
        ({"instruction": "i", "output": "o", "text": "t"}, "alpaca", (U("i"), A("o"))),
        ({"question": "q", "answer": "a", "system": ""}, "question_answer", (U("q"), A("a"))),
        ({"prompt": "p", "chosen": "c", "rejected": "r"}, "preference", (U("p"), A("c"))),
        ({"prompt": "p", "chosen": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "c"}], "rejected": []}, "preference", (U("p"), A("c"))),
        ({"prompt": [{"role": "user", "content": "p"}], "chosen": [{"role": "assistant", "content": "c"}], "rejected": []}, "preference", (U("p"), A("c"))),
        ({"chosen": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "c"}], "rejected": []}, "preference", (U("p"), A("c"))),
    ],
)  # fmt: skip
def test_layouts(row, layout, messages):
    samples = read(row)
    assert samples.layout.name == layout
    assert samples[0].messages == messages
    assert not samples[0].plain


def test_text_and_sides_without_turns_are_plain():
    sample = read({"text": "hello"})[0]
    assert (sample.plain, sample.part("prompt"), sample.part("response"), sample.part("both")) == (
        True,
        "",
        "hello",
        "hello",
    )
    assert read({"chosen": "\n\nHuman: x", "rejected": "y"})[0].plain


def test_parts():
    sample = Sample((S("s"), U("u"), A("a"), T("t"), A("b")))
    assert sample.part("prompt") == "u\nt"
    assert sample.part("response") == "a\nb"
    assert sample.part("both") == "s\nu\na\nt\nb"
    with pytest.raises(DataPrunerError, match="no part 'all'"):
        sample.part("all")


def test_tool_calls_and_tools():
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    other = {"type": "function", "function": {"name": "g", "arguments": {"y": "é"}}}
    tools = [
        {"name": "f", "parameters": {"x": {"type": "int"}}},
        {"name": "g", "parameters": {"y": {"type": "str"}}},
    ]
    rows = [
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [call]}], "tools": tools},
        {"messages": [{"role": "assistant", "content": "hm", "tool_calls": [other]}], "tools": []},
    ]
    first, second = read(*rows)
    # Arrow gives every row every key; the text must not depend on the other rows.
    assert first.messages == (Message("assistant", "", {"tool_calls": [call], "content": None}),)
    assert first.tools == tools
    assert second.messages[0].fields == {"tool_calls": [other]}
    text, _, calls = second.messages[0].text.partition("\n")
    assert (text, json.loads(calls), second.tools) == ("hm", [other], None)
    assert " " not in calls
    assert read({"messages": rows[0]["messages"], "tools": json.dumps(tools)})[0].tools == tools


GOOD = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": None}, "Row 1 has no value in column 'messages'"),
        ({"messages": []}, "Row 1 has no messages in column 'messages'"),
        ({"messages": [{"role": "user"}]}, "Row 1 has no content in message 0 in column 'messages'"),
        ({"messages": [*GOOD, {"role": "user", "content": None}]}, "Row 1 has no content in message 2"),
        ({"messages": [{"content": "u"}]}, "Row 1 has no role in message 0"),
        (
            {"messages": [{"role": "wizard\x1b[31m", "content": "u"}]},
            r"unknown role 'wizard\\x1b\[31m' in message 0",
        ),
        ({"messages": [None]}, "Row 1 holds nothing as message 0"),
    ],
)
def test_bad_messages_name_row_and_column(row, message):
    samples = read({"messages": GOOD}, row)
    with pytest.raises(DataPrunerError, match=message):
        samples.texts()


@pytest.mark.parametrize("value", ["not a list", '{"role": 1}', "3"])
def test_messages_that_are_no_list(value):
    with pytest.raises(
        DataPrunerError, match=r"Row 0 holds .* where a list of messages is needed in column 'messages'"
    ):
        read({"messages": value}).texts()


def test_null_in_a_text_column():
    samples = read(
        *({"question": "q", "answer": "a"} for _ in range(1200)), {"question": None, "answer": "a"}
    )
    with pytest.raises(DataPrunerError, match="Row 1200 has no value in column 'question'"):
        samples.texts()
    with pytest.raises(DataPrunerError, match="Row 1200"):
        samples.texts(rows=np.array([3, 1200]))
    assert samples.texts("response", rows=np.array([3, 0])) == ["a", "a"]
    with pytest.raises(DataPrunerError, match="Row 0 holds a number where a text is needed in column 'n'"):
        read({"question": "q", "n": 4}, columns={"question": "question", "answer": "n"}).texts()


def test_mappings():
    row = {"Q": "q", "A": "a", "extra": 1}
    samples = read(row, columns={"question": "Q", "answer": "A"})
    assert (samples.layout.name, samples.layout.columns) == (
        "question_answer",
        {"question": "Q", "answer": "A"},
    )
    assert samples[0].messages == (U("q"), A("a"))
    assert read(row, columns={"prompt": "Q", "response": "A"}).layout.name == "prompt_completion"
    assert read(row, columns={"text": "A"})[0].plain
    # One role is enough where the other column has the usual name.
    assert read({"question": "q", "A": "a"}, columns={"answer": "A"})[0].messages == (U("q"), A("a"))
    assert read({"text": "t", "v": [0.1, 0.2]}, columns={"embedding": "v"}).layout.name == "embedding"
    with pytest.raises(
        DataPrunerError,
        match=r"no column 'AA' for the role 'answer'. Did you mean 'A'\? The columns are Q, A",
    ):
        read(row, columns={"question": "Q", "answer": "AA"})
    with pytest.raises(DataPrunerError, match="'Q' holds no lists of numbers"):
        read(row, columns={"embedding": "Q"})
    with pytest.raises(DataPrunerError, match=r"'answr' is not a role. Did you mean 'answer'"):
        read(row, columns={"answr": "A"})
    with pytest.raises(DataPrunerError, match="No layout has the roles text, chosen"):
        read(row, columns={"text": "Q", "chosen": "A"})
    with pytest.raises(
        DataPrunerError, match="'preference' needs the roles chosen, rejected, and its columns"
    ):
        read(row, columns={"question": "Q", "chosen": "A"})
    assert read({"text": "t", "question": "q", "answer": "a"}, layout="text")[0].plain
    with pytest.raises(DataPrunerError, match="layout 'alpaca' needs the roles instruction, output"):
        read(row, layout="alpaca")
    with pytest.raises(DataPrunerError, match=r"no layout 'alpacca'. Did you mean 'alpaca'"):
        read(row, layout="alpacca")


def test_nothing_fits():
    with pytest.raises(DataPrunerError) as caught:
        read({"Frage\x1b[2J": "q", "Antwort": "a", "text": 3})
    message = str(caught.value)
    assert "\x1b" not in message
    assert "Frage\\x1b[2J, Antwort, text" in message
    assert "columns={'question': 'COLUMN', 'answer': 'COLUMN'}" in message
    samples = read({"a": "q"}, embeddings_given=True)
    assert (samples.layout.name, samples.layout.columns) == ("embedding", {})
    with pytest.raises(DataPrunerError, match="has no text"):
        samples.texts()


def test_images_and_embeddings():
    from PIL import Image

    images = load_samples([{"image": Image.new("L", (2, 2)), "label": 1}])
    assert (images.layout.name, images.layout.columns) == ("image", {"image": "image", "label": "label"})
    assert images.column("image")[0].size == (2, 2)
    with pytest.raises(DataPrunerError, match="layout 'image', which has no text"):
        images.texts()
    vectors = read({"embeddings": [0.5, 1.0]})
    assert vectors.layout.columns == {"embedding": "embeddings"}
    assert vectors.column("embeddings") == [[0.5, 1.0]]


def test_samples_as_a_sequence_and_its_columns():
    samples = read(*({"question": f"q{i}", "answer": f"a{i}", "n": i} for i in range(2500)))
    assert [sample.messages[0].content for sample in samples] == [f"q{i}" for i in range(2500)]
    assert samples[-1].messages == (U("q2499"), A("a2499"))
    with pytest.raises(IndexError):
        samples[2500]
    rows = np.array([2400, 3, 3])
    assert samples.texts("response", rows) == ["a2400", "a3", "a3"]
    assert samples.column("n")[7] == 7
    with pytest.raises(DataPrunerError, match=r"no column 'answr'. Did you mean 'answer'\?"):
        samples.column("answr")
    picked = load_samples(samples.dataset.select([5, 4]))
    assert picked.texts("prompt") == ["q5", "q4"]
    assert load_samples(samples.dataset.with_format("numpy")).texts("prompt")[:2] == ["q0", "q1"]


def test_conversation():
    samples = read(*({"question": f"q{i}", "answer": f"a{i}"} for i in range(3)))
    assert samples.conversation(np.array([2, 0])).to_list() == [
        {"messages": [{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": f"a{i}"}]}
        for i in (2, 0)
    ]
    assert len(samples.conversation()) == 3
    assert read({"text": "a"}, {"text": "b"}).conversation(np.array([1])).to_list() == [{"text": "b"}]
    tools = [{"name": "f"}]
    row = read({"messages": GOOD, "tools": tools}).conversation()[0]
    assert json.loads(row["tools"]) == tools


NAMES = st.text(min_size=1).map(str.strip).filter(lambda name: name and "," not in name)


@given(st.dictionaries(st.sampled_from(ROLE_NAMES), NAMES, min_size=1))
def test_parse_mapping_round_trip(mapping):
    assert parse_mapping(" , ".join(f"{role} = {column}" for role, column in mapping.items())) == mapping


@given(st.text())
def test_parse_mapping_never_fails_otherwise(text):
    try:
        mapping, message = parse_mapping(text), ""
    except DataPrunerError as error:
        mapping, message = {"": "refused"}, str(error)
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in message)
    assert mapping
    assert all(mapping.values())


@pytest.mark.parametrize(
    "text", ["", "question", "=Q", "question=", "question=Q,", "question=Q,question=R", "qestion=Q"]
)
def test_parse_mapping_errors(text):
    with pytest.raises(DataPrunerError):
        parse_mapping(text)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared data")
def test_shared_data_read_as_it_is():
    expected = {
        "gsm8k": "question_answer",
        "codegen": "alpaca",
        "commonsense": "prompt_completion",
        "mixture": "messages",
    }
    for path in sorted(SHARED.glob("*.test.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        samples = load_samples(path)
        assert samples.dataset.to_list() == rows
        name = path.name.partition(".")[0]
        assert samples.layout.name == expected.get(name, samples.layout.name)
        for row, sample in zip(rows, samples, strict=True):
            if "messages" in row:
                assert [(m.role, m.content) for m in sample.messages] == [
                    (m["role"], m["content"]) for m in row["messages"]
                ]
            else:
                answer = next(row[key] for key in ("answer", "response", "completion") if key in row)
                assert sample.part("response") == answer
                assert sample.part("prompt").startswith(next(iter(row.values())))


@given(
    st.dictionaries(
        st.sampled_from(["instruction", "input", "output", "system", "tools"]),
        st.none() | st.sampled_from(["", " ", "a", "b\n", "[]"]),
    )
)
def test_rows_of_texts_alone_are_read_as_any_other(values):
    values = {"instruction": "q", "output": "a", **values}
    told = []
    # An empty history says nothing, but such a row is none of texts alone.
    for row in (values, {**values, "history": ""}):
        try:
            told.append(Row(0, Layout("alpaca", {role: role for role in row}), row).sample(b""))
        except DataPrunerError as error:
            told.append(str(error))
    assert told[0] == told[1]
