from __future__ import annotations

import importlib.util
import itertools
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from datapruner.errors import DataPrunerError
from datapruner.samples import Message, Sample, count_tokens, load_samples, masking, render, render_many
from datapruner.samples.rendering import responses, token_counts

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


SPECIAL = ["<|im_start|>", "<|im_end|>", "<s>", "<unk>"]
TEXTS = [WORDS, "\n\n\n\n a\n\n\n b", WORDS.replace(" ", "\n")] * 20


def byte_level(*, trim=None, prefix=False):
    """A byte-level BPE, as GPT-2's and SmolLM2's are; with ``trim`` its offsets are cut as Llama 3's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    if trim is not None:
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def word_piece():
    """BERT's kind, which drops white space."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=200, special_tokens=SPECIAL))
    return tokenizer


def unigram(scheme):
    """T5's and Llama's kind, where a blank may stand before a piece that has none in the text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme)
    trainer = trainers.UnigramTrainer(vocab_size=90, special_tokens=SPECIAL, unk_token="<unk>")
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


TOKENIZERS = {
    "bytes": byte_level,
    "trimmed": lambda: byte_level(trim=True),
    "prefixed": lambda: byte_level(trim=True, prefix=True),
    "words": word_piece,
    "unigram": lambda: unigram("first"),
    "always": lambda: unigram("always"),
}


def wrapped(tokenizer, **named):
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", unk_token="<unk>", **named
    )


@pytest.fixture(scope="module", autouse=True)
def templates_are_remembered():
    """What a template does is found out once, and not for every row that is rendered alone: some take a process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masking, "Template", cache(masking.Template))
        yield


@pytest.fixture(scope="module")
def base():
    return wrapped(byte_level())


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
    with pytest.raises(DataPrunerError, match=r"cannot be masked: it drops or rewrites earlier turns"):
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
        # Nothing predicts the first token, so it cannot be a target.
        assert not rendered.supervised[0]
        assert rendered.supervised[1:].all()
        assert rendered.plain
    empty = render(Sample((Message("assistant", ""),), plain=True), tokenizer)
    assert (len(empty.input_ids), empty.truncated, responses(empty)) == (0, False, [])


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
def test_counts_of_real_rows_are_those_of_what_is_fed(with_template):
    tokenizer = with_template(CHATML)
    samples = load_samples(SHARED / "mixture.test.jsonl")
    tokens, targets = count_tokens(samples, tokenizer)
    assert (targets > 0).all()
    for row in range(0, len(samples), 25):
        fed = render(samples[row], tokenizer)
        assert (tokens[row], targets[row]) == (len(fed.input_ids), fed.supervised.sum())


# What the assistant's text may look like at its edges.
ANSWERS = [
    "four",
    " four",
    "\n\nfour",
    "four \n",
    "\n",
    "",
    "\u00efve 😀",
    "😀naïve",
    "a\n\nb ",
    "<|im_end|>x",
]
# Templates whose text can be written down: (what stands before the answer, what is supervised after it, and what
# is not).
HEADED = ("<|im_start|>assistant\n", "<|im_end|>", "\n")
BARE = ("<|im_start|>", "", "<|im_end|>")
LINES = ("assistant . ", "", "\n")


def marked_template(before, after, rest):
    return (
        "{% for m in messages %}{% if m.role == 'assistant' %}{{ '" + before.replace("\n", "\\n") + "' }}"
        "{%- generation -%}{{ m.content + '"
        + after
        + "' }}{%- endgeneration -%}{{ '"
        + rest.replace("\n", "\\n")
        + "' }}{% else %}{{ m.role + ' ' + m.content + '\\n' }}{% endif %}{% endfor %}"
    )


def prefix_template(before, after, rest):
    before, after = before.replace("\n", "\\n"), (after + rest).replace("\n", "\\n")
    return (
        "{% for m in messages %}{% if m.role == 'assistant' %}{{ '"
        + before
        + "' + m.content + '"
        + after
        + "' }}"
        "{% else %}{{ m.role + ' ' + m.content + '\\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '" + before + "' }}{% endif %}"
    )


def expected_mask(tokenizer, ids, pieces):
    """Lay the tokens along the text, byte by byte, by what they say: no offsets, no chat template."""
    text = "".join(piece for piece, _ in pieces).encode()
    edges = np.cumsum([len(piece.encode()) for piece, _ in pieces])
    tokens = tokenizer.convert_ids_to_tokens(ids)
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    to_byte = {character: byte for byte, character in bytes_to_unicode().items()}
    byte_like = type(tokenizer.backend_tokenizer.pre_tokenizer).__name__ == "ByteLevel"
    mask, at = [], 0
    for token in tokens:
        start = at
        if token in SPECIAL[:3]:
            surface = token.encode()
        elif byte_like:
            surface = bytes(to_byte[character] for character in token)
        else:
            surface = token.removeprefix("##").replace("▁", " ").encode()
        while not text[at:].startswith(surface):
            if surface.startswith(b" "):
                surface = surface[1:]  # a blank that was put in
            elif text[at : at + 1].isspace():
                at += 1  # white space that was dropped
            else:
                raise AssertionError(f"{token!r} is not at {text[at:]!r}")
        at += len(surface)
        # A token belongs to the piece that it ends in, one of no width to the piece that it stands before.
        piece = np.searchsorted(edges, at, side="left" if at > start else "right")
        mask.append(pieces[piece][1])
    return mask


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("layout", [HEADED, BARE, LINES])
def test_masks_equal_those_laid_out_by_hand(kind, layout):
    tokenizer = wrapped(TOKENIZERS[kind]())
    before, after, rest = layout
    seen = 0
    for first, second in itertools.product(ANSWERS, ["mat", " x\n"]):
        sample = chat("ua cat", f"a{first}", "uon", f"a{second}")
        marked, plain = [], []
        for role, content in ((message.role, message.content) for message in sample.messages):
            if role == "user":
                marked.append((f"user {content}\n", False))
                plain.append((f"user {content}\n", False))
            else:
                marked += [(before, False), (content + after, True), (rest, False)]
                plain += [(before, False), (content + after + rest, True)]
        for template, pieces in ((marked_template, marked), (prefix_template, plain)):
            tokenizer.chat_template = template(*layout)
            rendered = render(sample, tokenizer)
            text = "".join(piece for piece, _ in pieces)
            assert rendered.input_ids.tolist() == tokenizer(text, add_special_tokens=False)["input_ids"]
            if tokenizer.unk_token_id in rendered.input_ids:
                continue  # cannot be laid along the text
            expected = expected_mask(tokenizer, rendered.input_ids, [piece for piece in pieces if piece[0]])
            assert rendered.supervised.tolist() == expected, (first, second, template)
            last = render(sample, tokenizer, last_turn_only=True)
            begin = int(rendered.turns[-1][1])
            assert last.supervised.tolist() == [False] * begin + expected[begin:]
            seen += 1
    assert seen >= 24


def test_a_tokenizer_that_cannot_tell_offsets(base):
    class Slow(type(base)):
        is_fast = property(lambda self: False)

    tokenizer = Slow(tokenizer_object=byte_level(), eos_token="<|im_end|>")
    for template in (CHATML, MARKED):
        tokenizer.chat_template = base.chat_template = template
        for sample in (TWO, chat("ua", "afour", "uthe cat"), chat("afour", "ua", "a mat")):
            ours, slow = render(sample, base), render(sample, tokenizer)
            assert ours.input_ids.tolist() == slow.input_ids.tolist()
            assert ours.supervised.tolist() == slow.supervised.tolist()
            assert ours.turns.tolist() == slow.turns.tolist()
        with pytest.raises(DataPrunerError, match=r"Row 3: .*runs over the edge; use a fast tokenizer"):
            list(render_many([chat("ua cat", "a\n\n\n\nfour")], tokenizer, numbers=[3]))


def test_offsets_about_another_text_are_not_believed(base):
    class Broken(type(base)):
        def __call__(self, texts, **options):
            out = super().__call__(texts, **options)
            out._encodings = [SimpleNamespace(token_to_chars=lambda token: (token, token + 1)) for _ in texts]
            return out

    tokenizer = Broken(tokenizer_object=byte_level(), eos_token="<|im_end|>")
    tokenizer.chat_template = base.chat_template = CHATML
    assert render(TWO, tokenizer).supervised.tolist() == render(TWO, base).supervised.tolist()


def headers(rendered, tokenizer):
    return [tokenizer.decode(rendered.input_ids[head:first]) for head, first, _ in rendered.turns.tolist()]


@pytest.mark.parametrize("template", [CHATML, DEFAULT_SYSTEM, MARKED])
def test_every_turn_has_its_header(with_template, template):
    tokenizer = with_template(template)
    rendered = render(TWO, tokenizer)
    assert headers(rendered, tokenizer) == ["<|im_start|>assistant\n"] * 2
    mask = np.zeros(len(rendered.input_ids), dtype=bool)
    for _, first, stop in rendered.turns.tolist():
        mask[first:stop] = True
    assert mask.tolist() == rendered.supervised.tolist()
    whole = rendered.input_ids
    for response, (head, first, stop) in zip(
        responses(rendered, tokenizer.bos_token_id), rendered.turns.tolist(), strict=True
    ):
        assert response.input_ids.tolist() == whole[head:stop].tolist()
        assert response.targets.tolist() == list(range(first, stop))
        assert response.input_ids[response.supervised].tolist() == whole[response.targets].tolist()
        assert not response.supervised[: first - head].any()


def test_headers_of_the_plain_layout(with_template):
    tokenizer = with_template(None)
    rendered = render(chat("afour", "ua cat", "amat", "ax"), tokenizer)
    assert headers(rendered, tokenizer) == ["Assistant:\n", "\n\nAssistant:\n", "\n\nAssistant:\n"]
    shown = [tokenizer.decode(response.input_ids) for response in responses(rendered)]
    assert shown == [
        "Assistant:\nfour<|im_end|>",
        "\n\nAssistant:\nmat<|im_end|>",
        "\n\nAssistant:\nx<|im_end|>",
    ]


NO_HEADER = (
    "{% for m in messages %}{{ '[' + m.content + ']' if m.role == 'user' else m.content }}{% endfor %}"
)


def test_a_template_without_a_generation_prompt_has_no_headers(with_template):
    tokenizer = with_template(NO_HEADER)
    rendered = render(chat("ua cat", "afour", "ax"), tokenizer)
    assert supervised(rendered, tokenizer) == ["fourx"]
    assert headers(rendered, tokenizer) == ["", ""]
    for response, (_, first, stop) in zip(responses(rendered), rendered.turns.tolist(), strict=True):
        # Alone, nothing predicts a turn's first token: it is a target in neither.
        assert response.targets.tolist() == list(range(first + 1, stop))
        assert response.supervised.tolist() == [False] + [True] * (stop - first - 1)
    with pytest.raises(DataPrunerError, match="the assistant opens the conversation"):
        render(chat("afour"), tokenizer)


def test_a_start_token_stands_before_a_response_too():
    tokenizer = wrapped(byte_level(), bos_token="<s>")
    bos = tokenizer.bos_token_id
    for template in (NO_HEADER, CHATML, MARKED):
        tokenizer.chat_template = "{{ bos_token }}" + template
        rendered = render(TWO, tokenizer)
        assert rendered.input_ids[0] == bos
        for response, (head, first, stop) in zip(
            responses(rendered, bos), rendered.turns.tolist(), strict=True
        ):
            assert response.input_ids.tolist() == [bos, *rendered.input_ids[head:stop].tolist()]
            assert response.targets.tolist() == list(range(first, stop))
            assert np.flatnonzero(response.supervised).tolist() == [at - head + 1 for at in response.targets]
    tokenizer.chat_template = (
        "{% for m in messages %}{% generation %}{{ bos_token + m.content }}{% endgeneration %}{% endfor %}"
    )
    (response,) = responses(render(chat("afour"), tokenizer), bos)
    assert response.input_ids.tolist() == [bos, *tokenizer("four", add_special_tokens=False)["input_ids"]]
    # A row that does not begin with it gets none.
    tokenizer.chat_template = CHATML
    assert responses(render(TWO, tokenizer), bos)[0].input_ids[0] != bos


def test_responses_of_cut_rows(with_template):
    tokenizer = with_template(CHATML)
    whole = render(TWO, tokenizer)
    for length in range(1, len(whole.input_ids) + 2):
        cut = render(TWO, tokenizer, max_length=length)
        assert cut.truncated == (length < len(whole.input_ids))
        for response in responses(cut):
            assert cut.supervised[response.targets].all()
        targets = [at for response in responses(cut) for at in response.targets.tolist()]
        assert targets == np.flatnonzero(cut.supervised).tolist()


def test_the_first_token_is_never_a_target(with_template):
    tokenizer = with_template(
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    )
    rendered = render(chat("afour"), tokenizer)
    assert rendered.supervised.tolist() == [False] + [True] * (len(rendered.input_ids) - 1)
    (response,) = responses(rendered)
    assert response.targets.tolist() == list(range(1, len(rendered.input_ids)))


# The kinds of templates that are met: what they keep of a conversation.
TRIMMED = CHATML.replace("{{ m.content }}", "{{ m.content | trim }}")
STRIPPED = (
    "{% for m in messages %}[{{ m.role }}]\n{{ m.content.strip() }}</s>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]\n{% endif %}"
)
MARKED_TRIMMED = MARKED.replace("{{ m.content }}", "{{ m.content | trim }}")
LAST_EXCHANGE = "{% for m in messages[-2:] %}" + CHATML.partition("%}")[2]
LAST_USER = (
    "{% set last = namespace(at=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set last.at = loop.index0 %}"
    "{% endif %}{% endfor %}{% for m in messages[last.at:] %}" + CHATML.partition("%}")[2]
)
NO_ASSISTANT = CHATML.replace("{% for m in messages %}", "{% for m in messages if m.role != 'assistant' %}")
SILENT = "{% for m in messages %}{% if m.role != 'assistant' %}{{ m.content }}{% endif %}{% endfor %}"
MARKED_SILENT = MARKED.replace(
    "{{ m.content }}<|im_end|>{% endgeneration %}", "<|im_end|>{% endgeneration %}"
)
MARKED_LAST = MARKED.replace("{% for m in messages %}", "{% for m in messages[-2:] %}")
FORGETS_THOUGHTS = CHATML.replace(
    "{{ m.content }}", "{{ m.content if loop.last else m.content.split('</think>')[-1] }}"
)
NEVER_THINKS = CHATML.replace("{{ m.content }}", "{{ m.content.split('</think>')[-1] }}")
MARKED_FORGETS = MARKED.replace(
    "{% generation %}{{ m.content }}",
    "{% generation %}{{ m.content if loop.last else m.content.split('</think>')[-1] }}",
)


@pytest.mark.parametrize("template", [TRIMMED, STRIPPED, MARKED_TRIMMED])
def test_templates_that_trim_are_fine(with_template, template):
    tokenizer = with_template(template)
    shown = supervised(render(chat("u a cat ", "a\n four \n", "uon ", "a  mat"), tokenizer), tokenizer)
    assert [text.replace("<|im_end|>", "").replace("</s>", "").strip() for text in shown] == ["four", "mat"]
    blank = render(chat("ua", "a \n ", "ub", "ax"), tokenizer)
    assert supervised(blank, tokenizer)[-1].startswith("x")


EARLIER = "it drops or rewrites earlier turns once others follow"
REWRITTEN = "it drops or rewrites what an assistant turn says"
PROMPT = "an assistant turn does not begin with what the template prompts it with"
PROMPTS_THOUGHTS = CHATML.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")


@pytest.mark.parametrize(
    ("template", "turns", "why"),
    [
        (LAST_EXCHANGE, ["ua", "afour", "uon", "amat"], EARLIER),
        (LAST_EXCHANGE, ["ua", "afour", "ua", "afour"], PROMPT),
        (LAST_USER, ["ua", "afour", "ua", "afour"], EARLIER),
        (NO_ASSISTANT, ["ua", "afour"], PROMPT),
        (SILENT, ["ua", "afour"], REWRITTEN),
        (MARKED_SILENT, ["ua", "afour"], REWRITTEN),
        (MARKED_LAST, ["ua", "afour", "uon", "amat"], REWRITTEN),
        (MARKED_LAST, ["ua", "afour", "ua", "afour"], REWRITTEN),
        (FORGETS_THOUGHTS, ["ua", "a<think>x</think>four", "uon", "amat"], EARLIER),
        (MARKED_FORGETS, ["ua", "a<think>x</think>four", "uon", "amat"], REWRITTEN),
        (NEVER_THINKS, ["ua", "a<think>x</think>four"], REWRITTEN),
    ],
)
def test_templates_that_leave_something_out_are_refused(with_template, template, turns, why):
    tokenizer = with_template(template)
    with pytest.raises(DataPrunerError) as caught:
        list(render_many([chat(*turns)], tokenizer, numbers=[5]))
    assert str(caught.value).startswith(f"Row 5: the tokenizer's chat template cannot be masked: {why}; use")


def test_what_the_prompt_and_the_turn_have_in_common_is_the_prompt(with_template):
    tokenizer = with_template(PROMPTS_THOUGHTS)
    for answer, shown in [
        ("four", "four"),
        ("<b>four</b>", "b>four</b>"),
        ("<think>\nx\n</think>a", "x\n</think>a"),
    ]:
        rendered = render(chat("ua", f"a{answer}"), tokenizer)
        assert supervised(rendered, tokenizer) == [f"{shown}<|im_end|>\n"]
        assert headers(rendered, tokenizer)[0].startswith("<|im_start|>assistant\n")
    # Where the thought is a token, no half of it is in common.
    own = wrapped(byte_level(), additional_special_tokens=["<think>"])
    own.chat_template = PROMPTS_THOUGHTS
    assert supervised(render(chat("ua", "a<thin"), own), own) == ["<thin<|im_end|>\n"]


def test_marks_that_move_once_a_turn_is_left_out(with_template):
    tokenizer = with_template(MARKED_LAST)
    with pytest.raises(DataPrunerError, match=EARLIER):
        render(chat("ua", "afour", "ua cat", "amat"), tokenizer, last_turn_only=True)


# Phi 3's: an end-of-sequence token after whatever comes last.
ENDED = CHATML.replace("<|im_end|>", "</x>").replace("{% endif %}", "{% else %}{{ eos_token }}{% endif %}")
# Qwen's training templates: a turn is marked from within its header, or with what is put in front of it.
WITHIN = (
    MARKED.replace("\n{% if m.role", "{% if m.role")
    .replace("{% generation %}{{", "{% generation %}{{ '\\n' +")
    .replace("{% else %}{{", "{% else %}{{ '\\n' +")
)
THINKING = MARKED.replace("{% generation %}", "{% generation %}<think></think>").replace(
    "assistant\n{% endif", "assistant\n<think>\n{% endif"
)


@pytest.mark.parametrize(
    ("template", "header", "texts"),
    [
        (ENDED, "<|im_start|>assistant\n", ["four</x>\n", "on the mat</x>\n<|im_end|>"]),
        (WITHIN, "<|im_start|>assistant", ["\nfour<|im_end|>", "\non the mat<|im_end|>"]),
        (
            THINKING,
            "<|im_start|>assistant\n",
            ["<think></think>four<|im_end|>", "<think></think>on the mat<|im_end|>"],
        ),
    ],
)
def test_what_models_templates_do(with_template, template, header, texts):
    tokenizer = with_template(template)
    rendered = render(TWO, tokenizer)
    assert supervised(rendered, tokenizer) == texts
    assert headers(rendered, tokenizer) == [header] * 2
    last = render(TWO, tokenizer, last_turn_only=True)
    assert supervised(last, tokenizer) == texts[1:]
    assert headers(last, tokenizer) == [header]


def test_a_header_does_not_reach_into_the_answer_before(with_template):
    tokenizer = with_template(
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
        "{{ '\\n' }}{% else %}{{ m.content + '\\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'A\\nB' }}{% endif %}"
    )
    rendered = render(chat("ua cat", "axA", "ax"), tokenizer)
    assert supervised(rendered, tokenizer) == ["xA", "x"]
    assert headers(rendered, tokenizer) == ["", ""]


PLAIN_MODELS = ("llama3", "qwen2_5", "gemma", "cohere", "phi", "muse", "qwen3_instruct")


def trl_templates():
    found = importlib.util.find_spec("trl")
    return [] if found is None else sorted((Path(found.origin).parent / "chat_templates").glob("*.jinja"))


@pytest.mark.parametrize("path", trl_templates(), ids=lambda path: path.stem)
def test_models_own_templates_supervise_the_answers_or_are_refused(path):
    tokenizer = wrapped(byte_level(), bos_token="<s>")
    tokenizer.chat_template = path.read_text()
    for sample in (
        chat("ua cat", "afour "),
        TWO,
        chat("ua cat", "a<think>\nx\n</think>\n\nfour", "uon", "amat"),
    ):
        refused = None
        try:
            rendered = render(sample, tokenizer)
        except DataPrunerError as error:
            refused = str(error)
        if refused is not None:
            # Vision models' templates take lists; reasoning models' drop thoughts or prompt with their beginning.
            assert "chat template" in refused
            assert path.stem.endswith(("vl", "vl_training")) or not path.stem.startswith(PLAIN_MODELS)
            continue
        shown = supervised(rendered, tokenizer)
        said = [message.content.strip() for message in sample.messages if message.role == "assistant"]
        assert len(shown) == len(said)
        for text, content in zip(shown, said, strict=True):
            assert "".join(content.split()) in "".join(text.split())
            assert "cat" not in text
        assert [len(response.targets) > 0 for response in responses(rendered)] == [True] * len(said)


def test_rows_that_lose_nothing_pass_the_same_templates(with_template):
    for template in (FORGETS_THOUGHTS, MARKED_FORGETS, LAST_EXCHANGE, MARKED_LAST):
        tokenizer = with_template(template)
        (answer,) = supervised(render(chat("ua", "a<think>x</think>four"), tokenizer), tokenizer)
        assert answer.strip() == "<think>x</think>four<|im_end|>"
    for template in (FORGETS_THOUGHTS, MARKED_FORGETS):
        tokenizer = with_template(template)
        (answer,) = supervised(
            render(chat("ua", "afour", "ub", "a<think>x</think>x"), tokenizer, last_turn_only=True), tokenizer
        )
        assert answer.strip() == "<think>x</think>x<|im_end|>"


def test_marks_that_cannot_be_told_from_the_text(with_template):
    tokenizer = with_template(MARKED)
    with pytest.raises(DataPrunerError, match=r"Row 0: .* marks cannot be told from the text"):
        list(render_many([chat("ua", "a\ufdd0")], tokenizer, numbers=[0]))
    inside = (
        "{% set x %}{% generation %}{{ messages[1].content }}{% endgeneration %} {% endset %}{{ x | trim }}"
    )
    assert supervised(render(chat("ua", "afour"), with_template("user" + inside)), tokenizer) == ["four"]


def test_white_space_around_marks_is_as_transformers_strips_it(with_template):
    lines = (
        "{% for m in messages %}\n[{{ m.role }}]\n  {% if m.role == 'assistant' %}\n"
        "    {% generation %}\n{{ m.content }}\n    {%- endgeneration %}\nend\n{% endif %}\n{% endfor %}"
    )
    tokenizer = with_template(lines)
    rendered = render(chat("ua", "afour", "ub", "amat"), tokenizer)
    shown = [{"role": m.role, "content": m.content} for m in chat("ua", "afour", "ub", "amat").messages]
    assert tokenizer.decode(rendered.input_ids) == tokenizer.apply_chat_template(shown, tokenize=False)
    out = tokenizer.apply_chat_template(shown, return_dict=True, return_assistant_tokens_mask=True)
    assert rendered.supervised.tolist() == [bool(mark) for mark in out["assistant_masks"]]


def test_named_templates(with_template):
    tokenizer = with_template({"default": CHATML, "tool_use": "TOOLS {{ tools | tojson }} " + MARKED})
    tools = [{"name": "f"}]
    plain, tooled = (
        render(chat("ua", "afour"), tokenizer),
        render(chat("ua", "afour", tools=tools), tokenizer),
    )
    assert supervised(plain, tokenizer) == ["four<|im_end|>\n"]
    assert supervised(tooled, tokenizer) == ["four<|im_end|>"]
    assert tokenizer.decode(tooled.input_ids).startswith("TOOLS [")
    # No tools and an empty list of tools are the same.
    strict = with_template("{% if tools is not none %}TOOLS{% endif %}" + CHATML)
    assert "TOOLS" not in strict.decode(render(chat("ua", "afour", tools=[]), strict).input_ids)
    with_template({"default": CHATML, "tool_use": "TOOLS {{ tools | tojson }} " + MARKED})
    empty = render(chat("ua", "afour", tools=[]), tokenizer)
    assert empty.input_ids.tolist() == plain.input_ids.tolist()
    both = list(render_many([chat("ua", "afour", tools=tools), chat("ua", "afour")], tokenizer))
    assert [row.supervised.tolist() for row in both] == [
        tooled.supervised.tolist(),
        plain.supervised.tolist(),
    ]
    tokenizer = with_template({"rag": CHATML})
    with pytest.raises(DataPrunerError, match="named rag and none named default"):
        render(chat("ua", "afour"), tokenizer)
    tokenizer.chat_template = None


def test_a_tokenizer_that_adds_its_own_start_token():
    from tokenizers.processors import TemplateProcessing

    backend = byte_level()
    backend.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 2)])
    tokenizer = wrapped(backend, bos_token="<s>")
    for template in (CHATML, MARKED):
        tokenizer.chat_template = template
        # A chat template writes its own, or has none.
        assert 2 not in render(TWO, tokenizer).input_ids
    tokenizer.chat_template = None
    rendered = render(TWO, tokenizer)
    assert rendered.input_ids.tolist().count(2) == 1
    assert rendered.input_ids[0] == 2
    plain = render(Sample((Message("assistant", "the cat"),), plain=True), tokenizer)
    assert plain.input_ids.tolist() == tokenizer("the cat")["input_ids"]
    assert plain.supervised.tolist() == [False] + [True] * (len(plain.input_ids) - 1)


def test_token_counts_tell_what_was_cut(with_template):
    tokenizer = with_template(CHATML)
    rows = [
        {"messages": [{"role": m.role, "content": m.content} for m in TWO.messages[:stop]]} for stop in (2, 4)
    ]
    samples = load_samples(rows)
    whole = token_counts(samples, tokenizer)
    assert not whole.truncated.any()
    length = int(whole.tokens[0])
    cut = token_counts(samples, tokenizer, max_length=length)
    assert cut.truncated.tolist() == [False, True]
    assert cut.tokens.tolist() == [length, length]
    assert cut.supervised.tolist() == [whole.supervised[0]] * 2
    last = token_counts(samples, tokenizer, last_turn_only=True)
    assert last.supervised[0] == whole.supervised[0] > 0
    assert last.supervised[1] < whole.supervised[1]
    tokens, targets = count_tokens(samples, tokenizer, np.array([1]), last_turn_only=True, max_length=length)
    assert (tokens.tolist(), targets.tolist()) == ([length], [0])
