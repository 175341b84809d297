"""Small inputs of every kind for ``same_bytes.py``, made from seeds with public libraries alone."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

TOPICS = ("maths", "code", "letters", "facts")
TEXT = (
    "river stone lamp garden copper window market engine violet harbour paper winter forest silver bridge "
    "music orange signal number letter answer reason measure planet kitchen mirror thunder island button "
    "Zürich café naïve 東京 東京都 привет सूर्य"
)
WORDS = TEXT.split()
N = 120
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def said(rng: np.random.Generator, low: int, high: int) -> str:
    return " ".join(rng.choice(WORDS, int(rng.integers(low, high))))


def questions() -> list[dict[str, Any]]:
    """Question and answer, with copies, near copies, other numbers, other case, and answers that say nothing."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for _ in range(N):
        topic = TOPICS[int(rng.choice(4, p=[0.4, 0.3, 0.2, 0.1]))]
        a, b = (int(x) for x in rng.integers(2, 90, 2))
        if topic == "maths":
            question, answer = f"What is {a} plus {b}, in the {said(rng, 4, 7)}?", f"It is {a + b}"
        elif topic == "code":
            question = f"Write a function about {said(rng, 3, 8)}"
            answer = (
                f"def f(x):\n    for i in range({a}):\n        x += i\n    return x  # {said(rng, 2, 20)}"
            )
        else:
            question, answer = f"Tell me about {said(rng, 4, 12)}", said(rng, 5, 40)
        rows.append({"question": question, "answer": answer, "topic": topic})
    for to, of in ((20, 3), (55, 3), (90, 41)):  # exact copies
        rows[to] = dict(rows[of])
    rows[33] = {**rows[7], "question": f"  {rows[7]['question'].upper()}\n"}  # other case and white space
    rows[60] = {**rows[8], "answer": f"{rows[8]['answer']} indeed"}  # near copies
    for to, of in ((62, 12), (64, 14)):
        text = said(rng, 40, 41)
        rows[of] = {
            "question": f"Add 12 to this: {text}",
            "answer": f"So much is 24 of {text}",
            "topic": "maths",
        }
        rows[to] = {
            "question": f"Add 13 to this: {text}",
            "answer": f"So much is 25 of {text}",
            "topic": "maths",
        }
    for step, to in enumerate(range(80, 88)):  # ever farther copies, across the threshold of near duplicates
        text = said(rng, 40, 41).split()
        for row, kept in ((to, 40), (to + 20, 39 - step)):
            shown = " ".join([*text[:kept], *said(rng, 40, 41).split()[kept:]])
            rows[row] = {"question": "Tell it again", "answer": shown, "topic": "letters"}
    for row, empty in ((5, ""), (77, "   "), (78, None)):
        rows[row]["answer"] = empty
    return [
        {
            "id": f"r{i:03}",
            **row,
            "must": i % 29 == 2,
            "never": i % 31 == 4,
            "made": f"2024-01-{1 + i % 28:02}",
        }
        for i, row in enumerate(rows)
    ]


def clustered(n: int, width: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = 2 * np.eye(width)[rng.integers(0, 6, n)]
    return np.asarray(centres + 0.6 * rng.normal(size=(n, width)), dtype=np.float32)


def chats() -> list[dict[str, Any]]:
    """Several turns, system turns, a turn that is not trained on, and a call of a tool."""
    rng = np.random.default_rng(2)
    rows: list[dict[str, Any]] = []
    for i in range(60):
        turns: list[dict[str, Any]] = [{"role": "system", "content": "Be brief."}] if i % 3 == 0 else []
        for turn in range(1 + i % 3):
            turns += [
                {"role": "user", "content": said(rng, 3, 12)},
                {
                    "role": "assistant",
                    "content": said(rng, 3, 25),
                    **({"weight": 0} if turn and i % 5 == 0 else {}),
                },
            ]
        if i % 10 == 7:
            call = {"type": "function", "function": {"name": "look", "arguments": {"at": said(rng, 1, 3)}}}
            turns += [
                {"role": "assistant", "content": "", "tool_calls": [call]},
                {"role": "tool", "content": said(rng, 2, 4), "name": "look"},
                {"role": "assistant", "content": said(rng, 4, 9)},
            ]
        rows.append({"messages": turns, "source": TOPICS[i % 4], "grade": int(rng.integers(0, 5))})
    return rows


def tokenizer_files(folder: Path) -> int:
    """A byte-level tokenizer with a chat template; the size of its vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=["<pad>", "</s>", "<|user|>", "<|assistant|>"],
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    backend.train_from_iterator([" ".join(WORDS)] * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="</s>")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def twins(folder: Path) -> None:
    """A random Llama in ``dense``, and in ``pruned`` the same with half of every layer's weights at zero."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    size = tokenizer_files(folder / "dense")
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,
        pad_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder / "dense")
    with torch.no_grad():
        for weight in model.model.layers.parameters():
            if weight.dim() == 2:
                weight[weight.abs() < weight.abs().median()] = 0
    model.save_pretrained(folder / "pruned")
    tokenizer_files(folder / "pruned")


def pictures(folder: Path) -> None:
    """Small pictures in a folder with ``metadata.jsonl``."""
    from PIL import Image

    rng = np.random.default_rng(4)
    rows = []
    folder.mkdir(parents=True)
    for i in range(40):
        colours = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(colours).save(folder / f"{i:02}.png")
        rows.append({"file_name": f"{i:02}.png", "label": TOPICS[i % 4]})
    lines(folder / "metadata.jsonl", rows)


def write_sources(folder: Path) -> None:
    """Write everything that the runs read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    rows = questions()
    lines(folder / "rows.jsonl", rows)
    vectors = clustered(N, 16, 0)
    vectors[[20, 55]], vectors[90] = vectors[3], vectors[41]
    np.save(folder / "rows.npy", vectors)
    np.save(folder / "rows-second.npy", clustered(N, 12, 7))
    np.save(folder / "divergences.npy", rng.gamma(2, 0.1, N))
    lines(folder / "leaks.jsonl", [{"question": rows[i]["question"], "answer": "?"} for i in (1, 16, 100)])
    lines(folder / "target.jsonl", rows[10:30:2])
    np.save(folder / "target.npy", vectors[10:30:2] + np.float32(0.1))

    lines(folder / "chats.jsonl", chats())
    columns = {name: [row[name] for row in rows] for name in ("id", "question", "answer", "topic", "must")}
    table = pa.table({**columns, "vector": pa.array(vectors.tolist(), pa.list_(pa.float32(), 16))})
    pq.write_table(table, folder / "with_vectors.parquet")
    lines(
        folder / "pairs.jsonl",
        [
            {"prompt": said(rng, 3, 9), "chosen": said(rng, 4, 20), "rejected": said(rng, 2, 9)}
            for _ in range(50)
        ],
    )
    lines(
        folder / "alpaca.jsonl",
        [
            {"instruction": said(rng, 3, 9), "input": said(rng, 0, 5), "output": said(rng, 2, 30)}
            for _ in range(50)
        ],
    )
    with (folder / "texts.csv").open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(["text", "lang"])
        out.writerows([said(rng, 5, 40), "en" if i % 3 else "xx"] for i in range(50))
    for split, part in (("train", rows[:80]), ("validation", rows[80:100]), ("test", rows[100:])):
        lines(folder / "splits" / f"{split}.jsonl", part)
    pictures(folder / "pictures")
    np.save(folder / "pictures.npy", clustered(40, 8, 5))
    twins(folder)
