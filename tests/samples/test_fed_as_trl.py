"""What is scored is what trl trains on, token for token: the table of docs/rendering.md, cell by cell."""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from jinja2.exceptions import TemplateError

from datapruner.errors import DataPrunerError
from datapruner.samples import Rendered, load_samples, masking, render

pytest.importorskip(
    "trl", minversion="1.16", reason="what SFTTrainer does by itself is asked of the parts that trl 1.16 has"
)

TEMPLATES = Path(__file__).parent / "templates"
DOCS = Path(__file__).parents[2] / "docs" / "rendering.md"
HEADERS = [
    "start_header_id",
    "end_header_id",
    "eot_id",
    "im_start",
    "im_end",
    "user",
    "assistant",
    "system",
    "end",
]
SPECIAL = ["<s>", "</s>", "<unk>", *(f"<|{word}|>" for word in HEADERS)]
SPECIAL += [
    "[INST]",
    "[/INST]",
    "[TOOL_CALLS]",
    "<start_of_turn>",
    "<end_of_turn>",
    "<|User|>",
    "<|Assistant|>",
]
SPECIAL += ["<think>", "</think>"]
# Llama 3's and Qwen's: line ends belong together, so that a header's tokens do not depend on what follows it.
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def user(content):
    return {"role": "user", "content": content}


def assistant(content, **fields):
    return {"role": "assistant", "content": content, **fields}


def tooled(arguments):
    call = {"id": "abcdefghi", "type": "function", "function": {"name": "add", "arguments": arguments}}
    result = {"role": "tool", "content": "5", "name": "add", "tool_call_id": "abcdefghi"}
    turns = [user("Add 2 and 3."), assistant("", tool_calls=[call]), result, assistant("Five, naïve 😀.")]
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    tool = {"type": "function", "function": {"name": "add", "description": "Add.", "parameters": schema}}
    return {"messages": turns, "tools": [tool]}


THOUGHTS = [f"<think>\n{thought}\n</think>\n\n" for thought in ("Big ones first.", "A conifer.")]
ROWS = {
    "one turn": {"messages": [user("Name a tree."), assistant("Oak.")]},
    "several turns": {
        "messages": [user("Name a tree."), assistant("Oak."), user("Another?"), assistant("Pine, 你好.")]
    },
    "system": {
        "messages": [{"role": "system", "content": "Be brief."}, user("Name a tree."), assistant("Oak.")]
    },
    "tools": tooled({"a": 2, "b": 3}),
    "calls as text": tooled('{"a": 2, "b": 3}'),
    "reasoning": {"messages": [user("Name a tree."), assistant("Oak.", reasoning_content="Big ones first.")]},
    "told not to think": {
        "messages": [user("Name a tree."), assistant("Oak.")],
        "chat_template_kwargs": {"enable_thinking": False},
    },
    "think": {"messages": [user("Name a tree."), assistant(THOUGHTS[0] + "Oak.")]},
    "thinks twice": {
        "messages": [
            user("Name a tree."),
            assistant(THOUGHTS[0] + "Oak."),
            user("Another?"),
            assistant(THOUGHTS[1] + "Pine."),
        ]
    },
    "parts": {
        "messages": [
            {
                "role": "user",
                "content": [{"type": "text", "text": "Name "}, {"type": "text", "text": "a tree."}],
            },
            {"role": "assistant", "content": [{"type": "text", "text": "Oak."}]},
        ]
    },
}
NAMES = {
    "chatml": "ChatML (SmolLM2)",
    "llama3": "Llama 3.1",
    "qwen2_5": "Qwen 2.5",
    "qwen3": "Qwen 3",
    "mistral": "Mistral",
    "gemma": "Gemma",
    "phi3": "Phi 3",
    "deepseek_r1": "DeepSeek R1",
    "zephyr": "Zephyr",
    "marked": "with generation marks",
    "parts": "with lists of parts",
}


@pytest.fixture(scope="module", autouse=True)
def templates_are_remembered():
    """What a template does is found out once, and not for every row that is rendered alone: some take a process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masking, "Template", cache(masking.Template))
        yield


@pytest.fixture(scope="module")
def tokenizer():
    import datasets
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    datasets.disable_progress_bars()
    backend = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(WORDS), behavior="isolated")
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_])
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([json.dumps(row, ensure_ascii=False) for row in ROWS.values()] * 4, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def prepared(dataset, tokenizer, *, assistant_only: bool):
    """Rows as SFTTrainer feeds them: input ids and labels, by its own preparation."""
    from trl import SFTTrainer

    trainer = SimpleNamespace(
        _tokenizer=tokenizer, chat_template=None, completion_only_loss=not assistant_only
    )
    options = SimpleNamespace(
        dataset_num_proc=None,
        dataset_text_field="text",
        assistant_only_loss=assistant_only,
        max_length=None,
        shuffle_dataset=False,
    )
    return list(SFTTrainer._prepare_dataset(trainer, dataset, tokenizer, options, False, None, "train"))


def trained(rows, tokenizer, *, marked: bool):
    """What trl trains on in each row: the ids, and for every answer the places of the tokens in the loss.

    With generation marks, trl masks the answers itself. Without, it masks a prompt and a completion: one row for
    every answer, the turns before it as its prompt.
    """
    from datasets import Dataset

    data = load_samples(rows).conversation()
    if not marked:
        pairs = []
        for row in data.to_list():
            answers = [at for at, turn in enumerate(row["messages"]) if turn["role"] == "assistant"]
            for at in answers:
                tools = {"tools": row["tools"]} if row.get("tools") else {}
                told = {key: row[key] for key in row if key == "chat_template_kwargs"}
                pairs.append(
                    {"prompt": row["messages"][:at], "completion": [row["messages"][at]], **tools, **told}
                )
        data = Dataset.from_list(pairs, on_mixed_types="use_json")
    made = prepared(data, tokenizer, assistant_only=marked)
    ids = made[-1]["input_ids"]
    places = [[at for at, label in enumerate(row["labels"]) if label != -100] for row in made]
    return (
        ids,
        [[row["input_ids"][at] for at in found] for row, found in zip(made, places, strict=True)],
        places[-1],
    )


def runs(rendered: Rendered):
    """The supervised tokens of every answer."""
    return [rendered.input_ids[first:stop].tolist() for _, first, stop in rendered.turns.tolist()]


def as_json(row):
    """The row with its calls written into the contents."""
    turns = [{**turn} for turn in row["messages"]]
    for turn in turns:
        if calls := turn.pop("tool_calls", None):
            turn["content"] += json.dumps(calls, ensure_ascii=False, separators=(",", ":"))
    return {**row, "messages": turns}


def equals_trl(ours: Rendered, row, tokenizer, *, last_only: bool) -> bool:
    """Whether a row's tokens and those in the loss are trl's, to the place."""
    marked = "endgeneration" in tokenizer.chat_template
    try:
        ids, answers, last = trained([written(row)], tokenizer, marked=marked)
    except (TemplateError, TypeError):
        return False
    if ours.input_ids.tolist() != ids:
        return False
    mine = runs(ours)
    if marked:
        return np.flatnonzero(ours.supervised).tolist() == last
    if mine[-1] != answers[-1] or list(range(*ours.turns[-1, 1:].tolist())) != last:
        return False
    # In a row of its own an answer comes last, and some templates put something there: Phi 3's an end of text,
    # Qwen 3's an empty thought. Its tokens are equal but for that.
    texts = [[said(tokenizer.decode(ids)) for ids in turns] for turns in (mine, answers)]
    return all(mine) and (last_only or texts[0] == texts[1])


def said(text: str) -> str:
    return text.removeprefix("<think>\n\n</think>\n\n").removesuffix("</s>")


def outcome(name: str, tokenizer) -> str:
    """Compare one row with trl's: the word that the table has for it."""
    row, sample, last_only = ROWS[name], read(name), False
    try:
        ours = render(sample, tokenizer)
    except DataPrunerError as error:
        if "last_turn_only=True" not in str(error):
            return "refused"
        ours, last_only = render(sample, tokenizer, last_turn_only=True), True
    for word, like in [
        ("last turn" if last_only else "equal", row),
        ("JSON", as_json(row)),
    ]:
        if equals_trl(ours, like, tokenizer, last_only=last_only):
            return word
    return "differs"


def table() -> dict[str, list[str]]:
    """The table of docs/rendering.md: the words of every template's line."""
    lines = [line for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    head = next(at for at, line in enumerate(lines) if line.startswith("| template"))
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[head:]]
    assert cells[0][1:] == list(ROWS)
    return {first: words for first, *words in cells[1 : len(NAMES) + 1]}


def written(row):
    """A row whose messages are JSON text, so that no reader has touched them."""
    return {**row, "messages": json.dumps(row["messages"])}


@cache
def read(name: str):
    """A row of the table as a sample, whatever the template."""
    return load_samples([written(ROWS[name])])[0]


@pytest.mark.parametrize("name", NAMES)
def test_the_table(name, tokenizer):
    tokenizer.chat_template = (TEMPLATES / f"{name}.jinja").read_text()
    assert [outcome(row, tokenizer) for row in ROWS] == table()[NAMES[name]]


def shipped():
    found = importlib.util.find_spec("trl")
    return [] if found is None else sorted((Path(found.origin).parent / "chat_templates").glob("*.jinja"))


@pytest.mark.parametrize("path", shipped(), ids=lambda path: path.stem)
def test_templates_that_trl_ships(path, tokenizer):
    from trl.data_utils import _tokenize, common_prefix_length, prepare_multimodal_messages

    tokenizer.chat_template = path.read_text()
    marked = "endgeneration" in tokenizer.chat_template
    found = []
    for name, row in list(ROWS.items())[:-1]:
        told = {"tools": row.get("tools"), **row.get("chat_template_kwargs", {})}
        try:
            ours = render(read(name), tokenizer, last_turn_only=not marked)
        except DataPrunerError:
            continue
        turns = row["messages"]
        if path.stem.startswith(("idefics", "llava", "smolvlm")):
            turns = prepare_multimodal_messages(turns)  # they take lists of parts alone
        made = _tokenize(tokenizer, turns, return_assistant_tokens_mask=marked, **told)
        mask = made.get("assistant_masks")
        if not marked:
            prompt = _tokenize(tokenizer, turns[:-1], add_generation_prompt=True, **told)["input_ids"]
            first = common_prefix_length(prompt, made["input_ids"])
            mask = [int(at >= first) for at in range(len(made["input_ids"]))]
        if told["tools"] and "tool_calls" not in tokenizer.chat_template:
            assert '"name":"add"' in tokenizer.decode(ours.input_ids)  # the calls as JSON
            continue
        assert ours.input_ids.tolist() == made["input_ids"]
        assert ours.supervised.astype(int).tolist() == mask
        found.append(row)
    assert found
