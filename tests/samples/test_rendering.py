from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from datapruner.errors import DataPrunerError
from datapruner.samples import Message, Sample, count_tokens, load_samples, render, render_many

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "sft"

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DEFAULT_SYSTEM = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nBe good.<|im_end|>\n{% endif %}" + CHATML
)
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ m.content }}<|im_end|>{% endif %}"
    "\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DROPPING = (
    "{% for m in messages %}{% if m.role != 'assistant' or loop.last %}<|im_start|>{{ m.role }}\n"
    "{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PICKY = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    + CHATML
)
TOOLS = "{% if tools %}TOOLS {{ tools | tojson }}\n{% endif %}" + CHATML

WORDS = "the cat sat on a mat . what is two and two ? four user assistant system tool good be naïve 😀 \n\n x"


@pytest.fixture(scope="module")
def base():
    """A byte-level BPE, as GPT-2's and SmolLM2's are."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|im_start|>", "<|im_end|>", "<s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator([WORDS, "\n\n\n\n a\n\n\n b"] * 20, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")


@pytest.fixture
def with_template(base):
    def make(template):
        base.chat_template = template
        return base

    return make


def chat(*turns, **options):
    names = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    return Sample(tuple(Message(names[turn[0]], turn[1:]) for turn in turns), **options)


TWO = chat("uwhat is two and two ?", "afour", "uand a cat ?", "aon the mat")


def supervised(rendered, tokenizer):
    """The supervised runs as texts."""
    runs, last = [], -2
    for at in np.flatnonzero(rendered.supervised):
        if at != last + 1:
            runs.append([])
        runs[-1].append(int(rendered.input_ids[at]))
        last = at
    return [tokenizer.decode(run) for run in runs]


@pytest.mark.parametrize("template", [CHATML, DEFAULT_SYSTEM])
def test_prefix_differences(with_template, template):
    tokenizer = with_template(template)
    rendered = render(TWO, tokenizer)
    whole = tokenizer.apply_chat_template(
        [{"role": m.role, "content": m.content} for m in TWO.messages], tokenize=True, return_dict=True
    )["input_ids"]
    assert rendered.input_ids.tolist() == whole
    assert (rendered.input_ids.dtype, rendered.supervised.dtype, rendered.truncated) == (
        np.int32,
        bool,
        False,
    )
    assert supervised(rendered, tokenizer) == ["four<|im_end|>\n", "on the mat<|im_end|>\n"]
    assert supervised(render(TWO, tokenizer, last_turn_only=True), tokenizer) == ["on the mat<|im_end|>\n"]


def test_generation_marks(with_template):
    tokenizer = with_template(MARKED)
    assert supervised(render(TWO, tokenizer), tokenizer) == ["four<|im_end|>", "on the mat<|im_end|>"]
    assert supervised(render(TWO, tokenizer, last_turn_only=True), tokenizer) == ["on the mat<|im_end|>"]


def test_turn_after_the_last_answer_and_rows_without_one(with_template):
    for template in (CHATML, MARKED, None):
        tokenizer = with_template(template)
        row = render(chat("ua", "afour", "uthe cat"), tokenizer)
        assert [text.strip() for text in supervised(row, tokenizer)] == ["four<|im_end|>"]
        assert not render(chat("ua cat"), tokenizer).supervised.any()
        assert len(render(chat("ua cat"), tokenizer).input_ids)


def test_the_assistant_opens(with_template):
    for template in (CHATML, DEFAULT_SYSTEM):
        tokenizer = with_template(template)
        found = supervised(render(chat("afour", "ua", "amat"), tokenizer), tokenizer)
        assert found == ["four<|im_end|>\n", "mat<|im_end|>\n"]


def test_refused_templates(with_template):
    tokenizer = with_template(DROPPING)
    with pytest.raises(DataPrunerError, match=r"cannot be masked: .* drops or rewrites earlier turns"):
        render(TWO, tokenizer)
    # One answer a row is fine with the same template, and so is the last turn alone.
    assert supervised(render(chat("ua", "afour"), tokenizer), tokenizer) == ["four<|im_end|>\n"]
    assert supervised(render(TWO, tokenizer, last_turn_only=True), tokenizer) == ["on the mat<|im_end|>\n"]
    with pytest.raises(DataPrunerError, match=r"Row 41: .*System role not supported"):
        list(render_many([TWO, chat("sbe", "ua", "ab")], with_template(PICKY), numbers=[7, 41]))


def test_tokens_that_run_over_the_edge(with_template):
    tokenizer = with_template(CHATML)
    sample = chat("ua cat", "a\n\n\n\nfour")
    rendered = render(sample, tokenizer)
    text = "<|im_start|>user\na cat<|im_end|>\n<|im_start|>assistant\n"
    alone = tokenizer(text, add_special_tokens=False)["input_ids"]
    # The case is real: the prompt's tokens are not a beginning of the whole's.
    assert rendered.input_ids.tolist()[: len(alone)] != alone
    assert tokenizer.decode(rendered.input_ids) == text + "\n\n\n\nfour<|im_end|>\n"
    (answer,) = supervised(rendered, tokenizer)
    assert answer.lstrip("\n") == "four<|im_end|>\n"


def test_without_a_template(with_template):
    tokenizer = with_template(None)
    rendered = render(chat("sbe good", "uwhat is two ?", "afour", "ua cat"), tokenizer)
    expected = "System:\nbe good\n\nUser:\nwhat is two ?\n\nAssistant:\nfour<|im_end|>\n\nUser:\na cat"
    assert tokenizer.decode(rendered.input_ids) == expected
    assert supervised(rendered, tokenizer) == ["four<|im_end|>"]


def test_plain_text(with_template):
    for template in (None, CHATML, MARKED):
        tokenizer = with_template(template)
        rendered = render(Sample((Message("assistant", "the cat"),), plain=True), tokenizer)
        assert rendered.input_ids.tolist() == tokenizer("the cat")["input_ids"]
        assert rendered.supervised.all()


def test_truncation(with_template):
    tokenizer = with_template(CHATML)
    whole = render(TWO, tokenizer)
    cut = render(TWO, tokenizer, max_length=9)
    assert cut.truncated
    assert cut.input_ids.tolist() == whole.input_ids[:9].tolist()
    assert cut.supervised.tolist() == whole.supervised[:9].tolist()
    assert not render(TWO, tokenizer, max_length=len(whole.input_ids)).truncated
    with pytest.raises(DataPrunerError, match="max_length is 0"):
        render(TWO, tokenizer, max_length=0)


def test_tools_reach_the_template(with_template):
    tokenizer = with_template(TOOLS)
    sample = chat("ua", "afour", tools=[{"name": "f"}])
    assert tokenizer.decode(render(sample, tokenizer).input_ids).startswith('TOOLS [{"name": "f"}]')
    assert supervised(render(sample, tokenizer), tokenizer) == ["four<|im_end|>\n"]


@pytest.mark.parametrize("template", [CHATML, DEFAULT_SYSTEM, MARKED, None])
def test_counts_equal_render(with_template, template):
    tokenizer = with_template(template)
    rng = np.random.default_rng(0)
    words = WORDS.split(" ")
    rows = []
    for _ in range(600):
        turns = []
        for turn in range(int(rng.integers(1, 6))):
            text = " ".join(rng.choice(words, size=int(rng.integers(0, 9))))
            turns.append({"role": ["user", "assistant"][turn % 2], "content": text})
        rows.append({"messages": turns})
    samples = load_samples(rows)
    tokens, targets = count_tokens(samples, tokenizer)
    assert (tokens.dtype, targets.dtype) == (np.int64, np.int64)
    one_by_one = [render(sample, tokenizer) for sample in samples]
    assert tokens.tolist() == [len(row.input_ids) for row in one_by_one]
    assert targets.tolist() == [int(row.supervised.sum()) for row in one_by_one]
    some = np.array([599, 4, 4])
    assert count_tokens(samples, tokenizer, some)[0].tolist() == tokens[some].tolist()
    assert (targets == 0).any()


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared data")
def test_counting_is_fast(with_template):
    tokenizer = with_template(CHATML)
    samples = load_samples(SHARED / "mixture.test.jsonl")
    started = time.perf_counter()
    tokens, targets = count_tokens(samples, tokenizer)
    assert (targets > 0).all()
    assert (tokens > targets).all()
    assert len(samples) / (time.perf_counter() - started) > 300
