"""What a template does not know of a message, and turns that are not trained on."""

import logging
from pathlib import Path

import numpy as np
import pytest
from conftest import byte_tokenizer

from datapruner.errors import DataPrunerError
from datapruner.samples import Message, Sample, render
from datapruner.samples import templates as module
from datapruner.samples.templates import Template

FOLDER = Path(__file__).parent / "templates"
SPECIAL = ["<pad>", "</s>", "<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>"]
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}
USER = Message("user", "two and three?")


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer(SPECIAL, pad_token="<pad>", eos_token="</s>", bos_token="</s>")


def text_of(sample, tokenizer, name):
    tokenizer.chat_template = name if "{" in name else (FOLDER / f"{name}.jinja").read_text()
    return tokenizer.decode(render(sample, tokenizer).input_ids)


def test_roles_that_some_templates_know(tokenizer):
    told = Sample((Message("system", "be brief", {"role": "developer"}), USER, Message("assistant", "five")))
    assert text_of(told, tokenizer, "chatml").count("<|im_start|>developer\nbe brief") == 1
    # Phi 3's leaves out what it does not know.
    assert text_of(told, tokenizer, "phi3").startswith("<|system|>\nbe brief")
    assert "<|im_start|>system\nbe brief" in text_of(told, tokenizer, "qwen2_5")
    answer = Message("assistant", "five")
    ran = Sample((USER, Message("assistant", "add(2)"), Message("tool", "5", {"role": "ipython"}), answer))
    assert "ipython" in text_of(ran, tokenizer, "llama3")
    assert "<tool_response>\n5" in text_of(ran, tokenizer, "qwen2_5")


def test_what_a_template_never_looks_at_is_told_once(tokenizer, caplog, monkeypatch):
    monkeypatch.setattr(module, "_TOLD", set())
    turn = Message("assistant", "I add.", {"tool_calls": [CALL], "thinking": "Two."})
    row = Sample((USER, turn))
    with caplog.at_level(logging.WARNING):
        shown = [text_of(row, tokenizer, "zephyr") for _ in range(2)]
    written = 'I add.\n[{"type":"function","function":{"name":"add","arguments":{"a":2}}}]</s>'
    assert all(text.rstrip().endswith(written) for text in shown)
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "the tokenizer's chat template does not render a turn's tool calls",
        "the tokenizer's chat template does not render a turn's reasoning",
    ]
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert "Two.\n</think>" in text_of(row, tokenizer, "marked")
    assert not caplog.records


def test_what_a_template_looks_at_and_drops_is_refused(tokenizer):
    called = Sample((USER, Message("assistant", "I add.", {"tool_calls": [CALL]})))
    with pytest.raises(
        DataPrunerError, match=r"drops or rewrites what an assistant turn says; use .* write the row as"
    ):
        text_of(called, tokenizer, "deepseek_r1")
    thought = Message("assistant", "five", {"reasoning_content": "Two."})
    twice = Sample((USER, thought, USER, thought))
    with pytest.raises(DataPrunerError, match=r"earlier turns once others follow; use .*last_turn_only=True"):
        text_of(twice, tokenizer, "qwen3")
    last = render(twice, tokenizer, last_turn_only=True)
    assert tokenizer.decode(last.input_ids[last.supervised]).startswith("<think>\nTwo.\n</think>\n\nfive")
    dropping = "{# tool_calls #}{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    assert '"add"' in text_of(called, tokenizer, dropping)  # a remark is no look
    with pytest.raises(DataPrunerError, match="drops or rewrites what"):
        text_of(called, tokenizer, dropping + "{% if messages[0].tool_calls %}{% endif %}")


def test_a_system_turn_that_is_refused(tokenizer):
    row = Sample((Message("system", "be brief"), USER, Message("assistant", "five")))
    with pytest.raises(
        DataPrunerError, match=r"System role not supported\); put the system turn's text before"
    ):
        text_of(row, tokenizer, "gemma")
    with pytest.raises(DataPrunerError, match=r"must alternate.*; change the row or the template"):
        text_of(Sample((USER, USER, Message("assistant", "five"))), tokenizer, "gemma")


def test_parts(tokenizer):
    parts = [{"type": "text", "text": "a "}, {"type": "image"}, {"type": "text", "text": "b"}]
    row = Sample((Message("user", "a b", {"content": parts}), Message("assistant", "five")))
    assert "user\na <image>b<|im_end|>" in text_of(row, tokenizer, "parts")
    assert "user\na b<|im_end|>" in text_of(row, tokenizer, "chatml")  # refuses a list
    printed = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    printed += "{% if add_generation_prompt %}[assistant]{% endif %}"
    assert text_of(row, tokenizer, printed) == "[user]a b[assistant]five"  # would print the list
    alone = (
        "{% for m in messages %}[{{ m.role }}]{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}"
    )
    alone += "{% if add_generation_prompt %}[assistant]{% endif %}"
    assert text_of(row, tokenizer, alone) == "[user]a b[assistant]five"
    assert Template(tokenizer, alone).parts_alone


@pytest.mark.parametrize("name", ["chatml", "marked", "phi3", "qwen3", None])
@pytest.mark.parametrize("kept", [(), (1,), (3,), (5,), (1, 5), (3, 5)])
def test_turns_that_are_not_trained_on_are_fed_and_not_supervised(tokenizer, name, kept):
    tokenizer.chat_template = None if name is None else (FOLDER / f"{name}.jinja").read_text()
    turns = [
        USER,
        Message("assistant", "four"),
        USER,
        Message("assistant", "six"),
        USER,
        Message("assistant", "five"),
    ]
    every = render(Sample(tuple(turns)), tokenizer)
    assert len(every.turns) == 3
    some = [Message(turn.role, turn.content, trained=at in kept) for at, turn in enumerate(turns)]
    found = render(Sample(tuple(some)), tokenizer)
    assert found.input_ids.tolist() == every.input_ids.tolist()
    expected = every.turns[[(at - 1) // 2 for at in kept]] if kept else every.turns[:0]
    assert found.turns[:, 1:].tolist() == expected[:, 1:].tolist()
    mask = np.zeros(len(every.input_ids), dtype=bool)
    for _, first, stop in expected.tolist():
        mask[first:stop] = True
    assert found.supervised.tolist() == mask.tolist()
    last = render(Sample(tuple(some)), tokenizer, last_turn_only=True)
    assert last.turns[:, 1:].tolist() == expected[-1:, 1:].tolist()


def test_without_a_template_the_whole_turn_is_supervised(tokenizer):
    tokenizer.chat_template = None
    row = render(
        Sample((USER, Message("assistant", "", {"thinking": "Two.", "tool_calls": [CALL]}))), tokenizer
    )
    said = tokenizer.decode(row.input_ids[row.supervised])
    assert said == 'Two.\n[{"type":"function","function":{"name":"add","arguments":{"a":2}}}]</s>'
