"""Rules that look at an answer: what was planted is found, and what only looks like it stays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapruner.cleaning.steps.cut_off import unclosed
from datapruner.cleaning.steps.repeats_itself import longest_run, said_before
from tests.cleaning.steps.rules import asked, chat, hits

SENTENCES = [
    f"The {n}th of them came home late. It was cold outside, and nobody had lit a fire." for n in range(40)
]
LABELS = ["positive", "negative", "Yes", "No"] * 20


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(2, 5))
def test_the_longest_run_is_that_of_a_search_over_all_pieces(words, times):
    best = 0
    for size in range(1, len(words) // times + 1):
        for start in range(len(words)):
            end = start + size
            while end < len(words) and words[end] == words[end - size]:
                end += 1
            if end - start >= times * size:
                best = max(best, end - start)
    found, start, step = longest_run(np.array(words, dtype=np.int64), times)
    assert found == best
    assert not best or words[start : start + best - step] == words[start + step : start + best]


@given(
    st.lists(
        st.sampled_from(["they all came home late", "nobody had lit a fire", "yes", "it is 5 o'clock now"])
    )
)
def test_words_of_repeated_sentences_are_counted(said):
    again = sum(len(one.split()) for at, one in enumerate(said) if one in said[:at] and len(one.split()) > 3)
    counted = again - 5 * max(0, said.count("it is 5 o'clock now") - 1)
    every = sum(len(one.split()) for one in said)
    for text in (". ".join(said), "\n".join(f"{n}. {one}" for n, one in enumerate(said))):
        assert said_before(text) == pytest.approx(counted / max(1, every))


@pytest.mark.parametrize(
    "text",
    [
        "He went on and on. " * 8,
        "stop " * 20,
        "我不知道。" * 12,
        "The end. " + "it is what it is and " * 9,
        "ha" * 300,
        " ".join(f"{SENTENCES[n % 4]} Nobody knew why they did that." for n in range(12)).replace(
            "th of", " of"
        ),
    ],
)
def test_what_is_stuck_repeats_itself(text):
    assert hits("repeats_itself", [asked(text)]) == {0: "repeats_itself"}


@pytest.mark.parametrize(
    "text",
    [
        "no no no",
        "\n".join(f"{n} times {n} is {n * n}" for n in range(40)),
        "Row, row, row your boat, gently down the stream. Merrily, merrily, merrily, merrily, life is but a dream.",
        " ".join(SENTENCES[:2]),
        "[0, 1, 0, 0, 2, 0, 5, 0, 0, 7, 1, 0, 3, 0, 0, 1]",
        "4 4 4 4 4 4 4 4 4 4\n" * 10,
        "_ _ _ Q _ _ _ _\n" * 8,
        "\n".join(
            f"{n}. In ten years' time, who is most likely to have become a {n}th of them?" for n in range(20)
        ),
        "\n".join(["<div>", *['  <div class="cell">cell</div>'] * 6, "</div>", "p { x: 1; }", "b { y: 2; }"]),
        "[" + ",".join(["[0,0,0,0,0,0,0,0,0,0]"] * 10) + "]",
        " ".join(f"Move disk {n % 3} from peg {n % 2} to peg {(n + 1) % 3}." for n in range(40)),
        r"^(?:(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9][0-9]|[0-9])\.){3}(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[0-9])$",
    ],
)
def test_tables_songs_and_lists_do_not(text):
    assert not hits("repeats_itself", [asked(text)])


def test_songs_have_refrains():
    song = "\n".join(f"{line}\nnobody had lit a fire for them" for line in (SENTENCES[0], SENTENCES[1]) * 5)
    assert hits("repeats_itself", [asked(song, "Write a letter."), asked(song, "Write a song.")]) == {
        0: "repeats_itself"
    }


def test_an_echo_is_the_prompt_and_nothing_else():
    prompt = "Write a short poem about the sea, the wind and a lonely lighthouse on a rock."
    span = "the wind and a lonely lighthouse"
    rows = [
        asked(prompt, prompt),
        asked(prompt.upper(), prompt),
        asked(f"{prompt} The sea is wide, the wind is cold.", prompt),
    ]
    rows += [asked(span, prompt), asked("Hello there!", "Hello there!"), asked("", prompt)]
    rows.append(
        chat(
            ("system", "Be kind."),
            ("user", prompt),
            ("assistant", "Of what length?"),
            ("user", "Short."),
            ("assistant", "Wide sea."),
        )
    )
    assert hits("echoes_prompt", rows[:6]) == {0: "echoes_prompt", 1: "echoes_prompt"}
    assert not hits("echoes_prompt", rows[6:])


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't assist with that request.",
        "As an AI language model, I do not have personal opinions.",
        "I'm sorry, but as an AI language model I cannot help with that.",
        "I’m sorry. I cannot help with this. Please consult a professional.",
        "Es tut mir leid, ich kann das leider nicht beantworten.",
        "Lo siento, no puedo ayudar con eso.",
        "很抱歉，作为一个人工智能，我无法回答这个问题。",
        "There is not enough information provided. Please provide more details.",
    ],
)
def test_refusals_are_found(text):
    assert hits("refused", [asked(text)]) == {0: "refused"}


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry to hear that. Try restarting the router.",
        "I cannot provide past weather, but I can give you that of today: sunny.",
        "As an AI language model, I have no taste. Still, many people like it sweet.",
        "I cannot help you, said the fox. The lion laughed and went on.",
        "No.",
        "I don't have access to the time, but on the clock of the hall it is five.",
    ],
)
def test_answers_that_only_begin_so_stay(text):
    assert not hits("refused", [asked(text)])


def test_a_refusal_that_was_to_be_rewritten_stays():
    rewritten = asked("I can't help you with this.", 'Rewrite the sentence: "With this I can\'t help you".')
    sung = asked("I cannot help the way I feel\nI will not answer why", "Write a song about love.")
    assert not hits("refused", [rewritten, sung])
    assert hits("refused", [asked("I can't help you with this.", "Write a sentence.")]) == {0: "refused"}


def test_a_conversation_is_refused_whole_or_not():
    refusal = "I'm sorry, I can't assist with that."
    talk = [
        ("user", "Do it."),
        ("assistant", refusal),
        ("user", "And this?"),
        ("assistant", "That is seven."),
    ]
    assert not hits("refused", [chat(*talk)])
    assert hits("refused", [chat(*talk[:3], ("assistant", refusal))]) == {0: "refused"}


@pytest.mark.parametrize(
    ("text", "prompt", "hit"),
    [
        ("Dear Sir,\nI accept.\nSincerely,\n[Your Name]", "Write a letter.", False),
        ("We need [insert number of seats] seats.", "How many seats?", True),
        ("They are enqueue (Add an element at the end) and dequeue.", "Name them.", False),
        ("Lorem ipsum dolor sit amet.", "Describe the sea.", True),
        ("Dear {{customer}}, we thank you.", "Write to our customer.", True),
        ("Dear [insert name],", "Write a template for a letter.", False),
        ("The set [a, b] is closed.", "Is it closed?", False),
        ("```python\nx = data[your_index]\n```", "Index it.", False),
        ("See [the name] of the rose.", "Which book?", False),
        ("See [link](https://example.org).", "Where?", False),
    ],
)
def test_placeholders(text, prompt, hit):
    assert bool(hits("placeholder", [asked(text, prompt)])) is hit
    letter = asked("[Your Name]", "A template, please.")
    assert hits("placeholder", [letter], asked=True, names=True) == {0: "placeholder"}
    assert not hits("placeholder", [letter], names=True)


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        ("The first of them came home late. It was cold, and nobody had", SENTENCES),
        ("The first of them came home late. Then he went to the", SENTENCES),
        ("```python\nprint(1)\nprint(2)", ["```python\nprint(3)\n```"] * 40),
        (
            "She had 4 apples and ate 2.\nSo she has 4 -",
            [f"She had {n} and ate 1.\nShe has {n - 1}\n#### {n - 1}" for n in range(40)],
        ),
        (
            "She had 4 apples and ate 2.\nSo she has left 4 of the green",
            [f"She had {n} and ate 1.\nShe has {n - 1}\n#### {n - 1}" for n in range(40)],
        ),
        ("The capital is search('capital of", [f"The {n}th is search('number {n}')." for n in range(40)]),
    ],
)
def test_what_stops_in_the_middle_is_cut_off(answer, form):
    assert hits("cut_off", [asked(text) for text in (*form, answer)]) == {len(form): "cut_off"}


@pytest.mark.parametrize(
    "form",
    [
        LABELS,
        [f"shares of company {n} fall on fears of recession" for n in range(40)],
        [f"- milk\n- bread\n- {n} eggs" for n in range(40)],
        [f"x = {n}\nif x:\n    print(x)\nimport os" for n in range(40)],
        SENTENCES,
        [*SENTENCES, "Dear friend,\n\nI shall come on Monday. Wait for me.\n\nYours,\nJohn Smith"],
        [*SENTENCES, "There are two. They are:\nName: Ann\nAge: 5\nName: Bob\nAge: 7"],
        [*SENTENCES, "It is done. You will find it here: https://example.org/a/b"],
        [*SENTENCES, "Well done! 🎉"],
        [*SENTENCES, "It rained all day. I am so tired :("],
        [*SENTENCES, "1. We want to know\n2. We long to know\n3. We are eager to know"],
        [*LABELS, "a much longer answer that nobody ends with a stop"],
        [*SENTENCES, "It was cold, and nobody had lit a fire"],
        [*SENTENCES, "Dear friend,\nIt was cold outside.\n\nYours sincerely,"],
        [*SENTENCES, "/_/\\\n( o.o )\n>^<"],
        [*SENTENCES, "( o.o )\n >   <\n ~~~~~~~"],
        [*SENTENCES, "````markdown\n```\nx\n```\n## It was\n````"],
        [*[f"```python\nf([{n}])\n```" for n in range(40)], "```\nf((1)\nx(1)\n```"],
        [*[f"```python\nf([{n}])\n```" for n in range(40)], "f([1])\nimport os\nx = f(g[1)"],
    ],
)
def test_sets_whose_answers_end_otherwise_are_not(form):
    assert not hits("cut_off", [asked(text) for text in form])


@given(st.text(alphabet="()[]{}ab '\"#\n", max_size=60))
def test_closing_what_is_open_leaves_nothing_unclosed(text):
    closed = "".join(mark for mark in text if mark not in "([{")
    assert not unclosed(closed)
    if not any(mark in text for mark in "'\"#"):
        depth = dict.fromkeys("([{", 0)
        for mark in text:
            for one, other in ("()", "[]", "{}"):
                depth[one] = (
                    depth[one] + 1 if mark == one else max(0, depth[one] - 1) if mark == other else depth[one]
                )
        assert unclosed(text) == any(depth.values())


def test_letters_that_were_decoded_wrongly():
    said = "Le café naïf coûte déjà très cher à l’été – « voilà »."
    wrong = said.encode().decode("cp1252", errors="replace")
    rows = [
        asked(said),
        asked(wrong),
        asked("Grüße aus Köln, schöne Tage — “so” ‘it’ goes… 你好 Привет"),
        asked("plain"),
        asked("One molecule fills 4.6 Å³, and its face has 2.8 Å²."),
    ]
    rows += [asked("the caf\ufffd is closed"), asked(wrong, f"Repair this text: {wrong}")]
    assert hits("mojibake", rows) == {1: "mojibake", 5: "mojibake"}


GERMAN = (
    "Der Zug fährt morgen früh um acht Uhr vom Hauptbahnhof ab und kommt gegen Mittag in der Hauptstadt an."
)


def test_the_language_is_that_of_the_set():
    english = [asked(f"{text} {text} {n}") for text in SENTENCES for n in range(4)]
    rows = [
        *english,
        asked(GERMAN),
        asked(GERMAN, "Wann fährt der Zug morgen früh vom Hauptbahnhof ab, und wann kommt er an?"),
        asked(GERMAN, "Translate into German: The train leaves at eight."),
        asked("def f(x):\n    return x\nimport os\nprint(f(1))"),
    ]
    assert hits("wrong_language", rows) == {160: "wrong_language"}
    assert not hits("wrong_language", [*english, *[asked(f"{GERMAN} {n}") for n in range(5)]])
    assert len(hits("wrong_language", english, languages=["de"])) == 160


def test_symbols():
    rows = [
        asked("*" * 40),
        asked("!?" * 20),
        asked("2 + 2 = 4"),
        asked("नमस्ते दुनिया, यह ठीक है"),
        asked("x*y/(a+b)-c^2"),
        asked("🎉"),
        asked("/\\_/\\ ( o.o ) > ^ < |_|_| ~~~", "Make ASCII art of a cat."),
    ]
    assert hits("symbols", rows) == {0: "many_symbols", 1: "many_symbols"}
    long = " ".join(["word and another"] * 30)
    assert hits("symbols", [*map(asked, SENTENCES), asked(long)]) == {}
    marked = [asked(f"{text} {text} {text}") for text in SENTENCES]
    assert hits("symbols", [*marked, asked(long)]) == {40: "few_symbols"}
    assert not hits("symbols", [asked(long), asked(long + " more")])
