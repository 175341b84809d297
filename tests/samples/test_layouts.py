"""Which columns a layout reads, what of them is said, and what makes a row the row that it is."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from datasets import Dataset, Features, Image, List, Value
from hypothesis import given, settings
from hypothesis import strategies as st

import datapruner as dp
from datapruner.cleaning.steps.near import near_duplicates
from datapruner.cleaning.steps.semantic import semantic_duplicates
from datapruner.errors import DataPrunerError
from datapruner.samples import Message, inspect_samples, load_samples
from datapruner.samples.layouts import LAYOUTS, ROLE_NAMES
from datapruner.samples.unread import overlooked
from tests.conftest import examples

U, A, S = (lambda text, role=role: Message(role, text) for role in ("user", "assistant", "system"))


def said(role, text, keys=("role", "content")):
    return dict(zip(keys, (role, text), strict=True))


def share(speaker, text):
    return said(speaker, text, ("from", "value"))


MANY = [[said("user", "q"), said("assistant", "b")], [said("user", "q"), said("assistant", "c")]]

# A layout, its columns, the conversation that they are, and the columns that only tell rows apart.
ROWS = {
    "dolly": ("dolly", {"instruction": "i", "context": "x", "response": "r"}, (U("i\n\nx"), A("r")), ""),
    "dolly without a passage": (
        "dolly",
        {"instruction": "i", "context": "", "response": "r"},
        (U("i"), A("r")),
        "",
    ),
    "alpaca with history": (
        "alpaca",
        {"instruction": "i", "input": "x", "output": "o", "system": "s", "history": [["p", "b"], ["c", "d"]]},
        (S("s"), U("p"), A("b"), U("c"), A("d"), U("i\n\nx"), A("o")),
        "",
    ),
    "history as messages": (
        "alpaca",
        {"instruction": "i", "output": "o", "history": [said("user", "p"), said("assistant", "b")]},
        (U("p"), A("b"), U("i"), A("o")),
        "",
    ),
    "history as a text": (
        "alpaca",
        {"instruction": "i", "output": "o", "history": '[["p", "b"]]'},
        (U("p"), A("b"), U("i"), A("o")),
        "",
    ),
    "context": (
        "question_answer",
        {"question": "q", "context": "x", "answer": "a"},
        (U("x\n\nq"), A("a")),
        "",
    ),
    "openorca": (
        "question_answer",
        {"id": 1, "system_prompt": "s", "question": "q", "response": "r"},
        (S("s"), U("q"), A("r")),
        "",
    ),
    "query": (
        "query_response",
        {"query": "q", "response": "r", "history": [["p", "b"]]},
        (U("p"), A("b"), U("q"), A("r")),
        "",
    ),
    "input": ("input_output", {"input": "i", "output": "o"}, (U("i"), A("o")), ""),
    "inputs": ("input_output", {"inputs": "i", "targets": "o"}, (U("i"), A("o")), ""),
    "prompt, query, response": (
        "prompt_completion",
        {"prompt": "p", "query": "q", "response": "r"},
        (U("p\n\nq"), A("r")),
        "",
    ),
    "votes": (
        "unpaired_preference",
        {"prompt": "p", "completion": "c", "label": True},
        (U("p"), A("c")),
        "label",
    ),
    "votes on messages": (
        "messages",
        {"messages": [said("user", "p"), said("assistant", "c")], "label": False},
        (U("p"), A("c")),
        "label",
    ),
    "sharegpt pairs": (
        "preference",
        {"conversations": [share("human", "q")], "chosen": share("gpt", "a"), "rejected": share("gpt", "b")},
        (U("q"), A("a")),
        "rejected",
    ),
    "orca pairs": (
        "preference",
        {"system": "s", "question": "q", "chosen": "a", "rejected": "b"},
        (S("s"), U("q"), A("a")),
        "rejected",
    ),
    "alpaca pairs": (
        "preference",
        {"instruction": "i", "input": "x", "chosen": "a", "rejected": "b"},
        (U("i\n\nx"), A("a")),
        "rejected",
    ),
    "several rejected": (
        "preference",
        {"prompt": "q", "chosen": "a", "rejected": ["b", "c"]},
        (U("q"), A("a")),
        "rejected",
    ),
    "several rejected conversations": (
        "preference",
        {"prompt": "q", "chosen": [said("user", "q"), said("assistant", "a")], "rejected": MANY},
        (U("q"), A("a")),
        "rejected",
    ),
    "messages beside the pair": (
        "preference",
        {
            "messages": [said("user", "q"), said("assistant", "a")],
            "chosen": [said("assistant", "a")],
            "rejected": [said("assistant", "b")],
        },
        (U("q"), A("a")),
        "rejected",
    ),
    "a rejected response": (
        "messages",
        {"messages": [said("user", "q"), said("assistant", "a")], "rejected_response": "b"},
        (U("q"), A("a")),
        "rejected_response",
    ),
    "visual question": (
        "question_answer",
        {"image": "1.png", "question": "q", "answer": "a"},
        (U("q"), A("a")),
        "image",
    ),
    "visual messages": (
        "messages",
        {
            "images": ["1.png", "2.png"],
            "messages": [
                {"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "q"}]},
                {"role": "assistant", "content": [{"type": "text", "text": "a"}]},
            ],
        },
        None,
        "images",
    ),
    "speech": ("text", {"audio": "1.wav", "text": "t"}, (A("t"),), "audio"),
    "labelled text": ("text", {"text": "t", "label": 2}, (A("t"),), "label"),
    "caption": ("text", {"image": "1.png", "text": "t"}, (A("t"),), "image"),
}


@pytest.mark.parametrize("name", ROWS)
def test_columns_are_read(name):
    layout, row, messages, beside = ROWS[name]
    samples = load_samples([row])
    assert samples.layout.name == layout
    assert [samples.layout.columns[role] for role in samples.layout.beside] == beside.split()
    assert samples.unread == [column for column in row if column == "id"]
    sample = samples[0]
    if messages is not None:
        assert sample.messages == messages
    assert (sample.part("response").split()[-1], sample.unanswered) == (sample.messages[-1].text, False)
    assert bool(sample.beside) == bool(beside)
    assert sample.key().endswith(sample.aside())


WORD = st.text("abcd é", min_size=1, max_size=6).filter(str.strip)
TURN = st.fixed_dictionaries({"role": st.just("assistant"), "content": WORD})
PAIR = st.tuples(WORD, WORD).map(list)
KINDS = {
    "history": st.lists(PAIR, min_size=1, max_size=2),
    "messages": st.tuples(WORD, WORD).map(lambda pair: [said("user", pair[0]), said("assistant", pair[1])]),
    "conversations": st.tuples(WORD, WORD).map(lambda pair: [share("human", pair[0]), share("gpt", pair[1])]),
    "tools": st.lists(st.fixed_dictionaries({"name": WORD}), min_size=1, max_size=2),
    "label": st.booleans(),
    "chat_template_kwargs": st.fixed_dictionaries({"language": WORD}),
    "rejected": st.lists(WORD, min_size=1, max_size=3) | st.none(),
    "images": st.lists(WORD, max_size=3),
    "audios": st.lists(WORD, max_size=3),
    "videos": st.lists(WORD, max_size=3),
}


@pytest.mark.parametrize("layout", [name for name, roles in LAYOUTS.items() if roles.text])
@given(data=st.data())
@settings(max_examples=6)
def test_a_row_is_all_that_its_layout_gives_meaning_to(layout, data):
    roles = LAYOUTS[layout].roles
    row = {role: data.draw(KINDS.get(role, WORD), role) for role in roles}
    changed = [
        row | {role: data.draw(KINDS.get(role, WORD).filter(lambda value, old=row[role]: value != old), role)}
        for role in roles
    ]
    order = data.draw(st.permutations(roles))
    permuted = [{role: each[role] for role in order} for each in [row, *changed]]
    samples = load_samples([row, *changed], layout=layout)
    assert samples.unread == []
    keys = [sample.key() for sample in samples]
    assert len(set(keys)) == len(keys)
    assert list(load_samples(permuted, layout=layout).iter_keys()) == keys
    assert list(samples.iter_keys(np.array([2, 0]))) == [keys[2], keys[0]]
    # What is fed to a model is not all of it.
    assert [sample.fed() == samples[0].fed() for sample in samples] == [
        True,
        *(role in samples.layout.beside for role in roles),
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("[]{}\":, a'\\", max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "from", "content", "value", "type", "text"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from([*ROLE_NAMES, "query", "system_prompt", "kto_tag"]), JSON, min_size=1
        ),
        min_size=1,
        max_size=3,
    )
)
@settings(max_examples=examples(150))
def test_whatever_is_there_is_read_or_refused_in_a_sentence(rows):
    try:
        samples = load_samples(rows)
        keys = list(samples.iter_keys())
        assert len(keys) == len(rows)
        inspect_samples(samples)
    except DataPrunerError as error:
        assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ([["a"]], "Row 0 holds no question and answer as pair 0 in column 'history'"),
        ([["a", "b"], ["c", None]], "Row 0 holds no question and answer as pair 1"),
        ("ask", "Row 0 holds a text where pairs of texts are needed"),
        ('{"a": 1}', "Row 0 holds an object where pairs of texts are needed"),
    ],
)
def test_a_history_that_is_none(history, message):
    row = {"instruction": "i", "output": "o", "history": history}
    with pytest.raises(DataPrunerError, match=message):
        load_samples([row])[0]


@pytest.mark.parametrize("history", [None, [], "", " ", "[]"])
def test_no_history(history):
    rows = [{"instruction": "i", "output": "o", "history": history}]
    assert load_samples(rows)[0].messages == (U("i"), A("o"))


def test_a_mapping_names_roles_of_any_layout():
    row = {"Q": "q", "X": "x", "A": "a", "B": "b"}
    samples = load_samples([row], columns={"question": "Q", "chosen": "A", "rejected": "B", "context": "X"})
    assert samples[0].messages == (U("q\n\nx"), A("a"))
    assert load_samples([row], columns={"query": "Q", "answer": "A"}).layout.name == "query_response"
    assert load_samples([row], columns={"text": "A", "image": "X"}).layout.beside == ("image",)
    # Two names of one role are no mapping.
    with pytest.raises(DataPrunerError, match="needs the roles chosen, rejected"):
        load_samples([row], columns={"prompt": "Q", "question": "X", "chosen": "A", "rejected": "B"})


@pytest.mark.parametrize(
    ("row", "columns", "messages"),
    [
        ({"question": "q", "answer": "a", "output": "o"}, {"question": "answer"}, (U("a"), A("o"))),
        ({"instruction": "i", "input": "x", "output": "o"}, {"instruction": "input"}, (U("x"), A("o"))),
        ({"prompt": "p", "completion": "c"}, {"prompt": "completion"}, None),
    ],
)
def test_a_column_has_one_role(row, columns, messages):
    """Or a row would answer itself."""
    if messages is None:
        with pytest.raises(DataPrunerError, match="needs the roles"):
            load_samples([row], columns=columns)
    else:
        assert load_samples([row], columns=columns)[0].messages == messages


# Images


def png(shade):
    import PIL.Image

    held = io.BytesIO()
    PIL.Image.new("L", (2, 2), shade).save(held, "png")
    return held.getvalue()


def test_images_are_compared_by_what_they_hold(tmp_path):
    (tmp_path / "c.png").write_bytes(png(1))
    pictures = [
        {"bytes": png(1), "path": "a.png"},
        {"bytes": png(2), "path": "a.png"},
        {"bytes": png(1), "path": "b.png"},
        {"bytes": None, "path": str(tmp_path / "c.png")},
        {"bytes": None, "path": "nowhere.png"},
        None,
    ]
    features = Features({"q": Value("string"), "answer": Value("string"), "scan": Image()})
    rows = {"q": ["q"] * 6, "answer": ["a"] * 6, "scan": pictures}
    samples = load_samples(Dataset.from_dict(rows, features=features), columns={"question": "q"})
    # A picture by its type, whatever its column is called.
    assert (samples.layout.name, samples.layout.beside) == ("question_answer", ("scan",))
    keys = list(samples.iter_keys())
    assert [keys.index(key) for key in keys] == [0, 1, 0, 0, 4, 5]
    assert [sample.fed() for sample in samples] == [samples[0].fed()] * 6

    features = Features({"text": Value("string"), "images": List(Image())})
    both, one = [pictures[0], pictures[1]], [pictures[2], pictures[1]]
    rows = {"text": ["t"] * 5, "images": [both, both[::-1], one, both[:1], []]}
    samples = load_samples(Dataset.from_dict(rows, features=features))
    keys = list(samples.iter_keys())
    assert [keys.index(key) for key in keys] == [0, 1, 0, 3, 4]


def test_images_alone_are_compared_too():
    shades = [png(1), png(2), png(1), png(1)]
    features = Features({"image": Image(), "label": Value("int64")})
    rows = {"image": [{"bytes": shade, "path": None} for shade in shades], "label": [0, 0, 0, 1]}
    selection = dp.prune(
        Dataset.from_dict(rows, features=features), scorer="random", keep=1.0, dedup=["exact"], progress=False
    )
    assert selection.kept.tolist() == [True, True, False, True]


def test_parts_that_are_no_text_tell_rows_apart():
    def row(url):
        return {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "text": None, "image_url": {"url": url}},
                        {"type": "text", "text": "what is it?", "image_url": None},
                    ],
                },
                {"role": "assistant", "content": [{"type": "text", "text": "a", "image_url": None}]},
            ]
        }

    samples = load_samples([row("x"), row("y"), row("x")])
    keys = list(samples.iter_keys())
    assert [keys.index(key) for key in keys] == [0, 1, 0]
    assert [sample.part("prompt") for sample in samples] == ["what is it?"] * 3
    near = dp.prune([row("x"), row("y"), row("x")], scorer="random", keep=1.0, dedup=["near"], progress=False)
    assert near.kept.tolist() == [True, True, False]


def test_a_row_read_without_its_identity_has_no_key():
    samples = load_samples([ROWS["orca pairs"][1]])
    sample = next(samples.iter_samples(identity=False))
    assert sample.fed() == samples[0].fed()
    with pytest.raises(ValueError, match="without its identity"):
        sample.key()


# Near and semantic duplicates


LONG = "the river rises in the hills and runs past four mills before it meets the sea at the old harbour"


def test_rows_that_differ_beside_their_text_are_no_duplicates_of_any_kind():
    label = [True, True, False, False, True]
    rows = [
        {"prompt": f"{LONG} {place}", "completion": LONG, "label": value} for place, value in enumerate(label)
    ]
    near = dp.prune(rows, scorer="random", keep=1.0, dedup=["near"], progress=False)
    assert near.kept.tolist() == [True, False, True, False, False]
    assert "near-duplicate of row 2" in near.reason(3)
    vectors = np.ones((5, 4)) + np.arange(5)[:, None] * 1e-4 * np.eye(4)[0]
    together = {"assignment": np.zeros(5, int), "centroids": vectors[:1], "rows": np.arange(5)}
    alike = semantic_duplicates(vectors, **together, apart=label)
    assert sorted(label[row] for row in set(range(5)) - set(alike.rows.tolist())) == [False, True]
    assert [label[row] for row in alike.rows] == [label[row] for row in alike.others]
    assert len(semantic_duplicates(vectors, **together)) == 4
    # Without the column, all are one.
    bare = [{name: row[name] for name in ("prompt", "completion")} for row in rows]
    assert dp.prune(bare, scorer="random", keep=1.0, dedup=["near"], progress=False).kept.sum() == 1


def test_many_images_of_one_text_take_no_quadratic_time():
    rows = np.arange(4000)
    kinds = np.repeat(np.arange(2000), 2)
    found = near_duplicates([LONG] * 4000, rows, apart=kinds)
    assert found.rows.tolist() == list(range(1, 4000, 2))
    assert (found.others == found.rows - 1).all()


# Arrow's JSON


def test_json_columns_are_what_they_stand_for():
    datasets = pytest.importorskip("datasets")
    if not hasattr(datasets, "Json"):
        pytest.skip("this version of datasets has no Json()")
    calls = [{"type": "function", "function": {"name": "f", "arguments": {"n": 1, "s": "2"}}}]
    rows = [
        {"messages": [said("system", "be brief"), said("user", [{"type": "text", "text": "name a tree"}])]},
        # Texts that are JSON themselves: what was written is what is read.
        {"messages": [said("user", "42"), said("assistant", '{"a":  1}')]},
        {"messages": [said("user", "[1, 2]"), said("assistant", "null")]},
        {"messages": [said("user", "true"), said("assistant", '"quoted"')]},
    ]
    held = Dataset.from_list(rows, on_mixed_types="use_json")
    assert "Json" in str(held.features)
    texts = [[message.content for message in sample.messages] for sample in load_samples(held)]
    assert texts == [["be brief", "name a tree"], ["42", '{"a":  1}'], ["[1, 2]", "null"], ["true", "quoted"]]

    features = Features({"text": datasets.Json(), "n": Value("int64")})
    plain = load_samples(Dataset.from_dict({"text": ["Oak.", "7"], "n": [1, 2]}, features=features))
    assert plain.texts() == ["Oak.", "7"]

    features = Features({"messages": List(datasets.Json()), "tools": datasets.Json()})
    row = {
        "messages": [[said("user", "go"), {"role": "assistant", "content": "", "tool_calls": calls}]],
        "tools": [[{"name": "f", "parameters": {}}]],
    }
    sample = load_samples(Dataset.from_dict(row, features=features))[0]
    assert sample.messages[1].fields["tool_calls"] == calls
    assert sample.tools == row["tools"][0]

    features = Features({"prompt": datasets.Json(), "chosen": datasets.Json(), "rejected": datasets.Json()})
    row = {"prompt": ["p"], "chosen": [[said("assistant", "c")]], "rejected": [["r", {"a": [1]}]]}
    sample = load_samples(Dataset.from_dict(row, features=features))[0]
    assert sample.messages == (U("p"), A("c"))
    assert ("rejected.0", "r") in sample.beside


# Columns that nothing reads


def test_unread_columns_are_named(caplog):
    rows = [
        {
            "question": "who won?",
            "answer": "Ann",
            "report": f"in race number {place} of the year Ann came first and Bob second",
            "id": place,
            "licence": "every row of this collection may be copied by anyone for any use at all",
            "rendered": "USER: who won? ASSISTANT: Ann",
            "topic": "sports",
        }
        for place in range(6)
    ]
    samples = load_samples(rows)
    found = inspect_samples(samples)
    assert found.unread == ["report", "id", "licence", "rendered", "topic"]
    assert found.notes == [
        "Column 'report' was not read, though it holds texts of its own (median 13 words): rows that differ there "
        "alone count as equal. --columns context=report reads it."
    ]
    assert overlooked(samples, {"report"}) == []
    with caplog.at_level("WARNING"):
        dp.prune(rows, scorer="random", keep=1, dedup=["exact"], progress=False)
    said = found.notes[0] + " Of 5 exact duplicates 5 differ in it, e.g. row 1 from row 0."
    assert said in caplog.messages
    read = load_samples(rows, columns={"question": "question", "answer": "answer", "context": "report"})
    assert inspect_samples(read).exact_duplicates == 0
    assert inspect_samples(read).notes == []


def test_a_short_column_with_a_name_of_a_role_is_no_detail():
    rows = [{"text": f"a{n}", "question": f"why {n}?", "tag": f"t{n}"} for n in range(4)]
    assert [found.column for found in overlooked(load_samples(rows))] == ["question"]


def test_what_a_text_model_does_not_see_is_said(caplog):
    rows = [{"question": f"q{n}", "answer": "a", "image": f"{n}.png"} for n in range(4)]

    class Encoder:
        def encode(self, texts):
            return np.eye(4)[: len(texts)] + len(texts[0])

    with caplog.at_level("WARNING"):
        dp.prune(rows, scorer="prototypes", keep=2, embedder=Encoder(), progress=False)
    assert "What column 'image' holds tells rows apart and is not scored" in caplog.text
    caplog.clear()
    with caplog.at_level("WARNING"):
        dp.prune(rows, scorer="random", keep=2, progress=False)
    assert caplog.text == ""


# Rows without an answer


@pytest.mark.parametrize(
    "row",
    [
        {"question": "q", "answer": None},
        {"question": "q", "answer": " \n"},
        {"instruction": "i", "output": "", "history": [["p", "b"]]},
        {"prompt": "p", "chosen": "", "rejected": "r"},
        {"prompt": "p", "completion": None, "label": True},
        {"text": "  "},
        {"text": None},
        {"messages": [said("user", "q"), said("assistant", None)]},
        {"messages": [said("user", "q"), said("assistant", "a"), said("user", "b"), said("assistant", "")]},
        {"messages": json.dumps([said("user", "q")])},
    ],
)
def test_an_answer_that_says_nothing(row):
    samples = load_samples([row])
    assert samples[0].unanswered
    assert inspect_samples(samples).empty_responses == 1
    with pytest.raises(DataPrunerError, match="no row has an answer: column '"):
        dp.prune([row], scorer="random", keep=1)
    assert dp.prune([row], scorer="random", keep=1, on_empty="keep").counts() == {"kept": 1}


def test_a_call_is_an_answer():
    calls = [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]
    rows = [{"messages": [said("user", "q"), {"role": "assistant", "content": None, "tool_calls": calls}]}]
    assert not load_samples(rows)[0].unanswered
