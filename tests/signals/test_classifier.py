"""The classifier's numbers are those of transformers, a row at a time; what is none is refused in a sentence."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import datapruner as dp
from datapruner.errors import DataPrunerError
from datapruner.models.classifiers.outputs import Outputs
from datapruner.models.classifiers.reading import read_rows
from datapruner.scorers.classifier import Classifier
from datapruner.scorers.combined import Combined
from tests.conftest import CHAT_TEMPLATE, byte_tokenizer, run_command

pytestmark = pytest.mark.usefixtures("one_thread", "cache")

WORDS = ["alpha", "Beta", "gamma,", "naïve", "東京", "3.5", "why?"]


def drawn_rows(n=14, seed=0):
    drawn = np.random.default_rng(seed)
    return [
        {
            "prompt": f"{' '.join(drawn.choice(WORDS, size=drawn.integers(1, 9)))} {row}?",
            "response": " ".join(drawn.choice(WORDS, size=drawn.integers(1, 12))),
        }
        for row in range(n)
    ]


ROWS = drawn_rows()


def save(folder, family, labels, *, template=False, pad=True, **more):
    """A random classifier of two small layers, with its tokenizer."""
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        LlamaConfig,
        LlamaForSequenceClassification,
        Qwen2Config,
        Qwen2ForSequenceClassification,
    )

    if family == "bert":
        from tokenizers.processors import TemplateProcessing

        tokenizer = byte_tokenizer(
            ["[PAD]", "[CLS]", "[SEP]"],
            pad_token="[PAD]",
            cls_token="[CLS]",
            sep_token="[SEP]",
            model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        )
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
        )
    else:
        tokenizer = byte_tokenizer(
            ["<pad>", "</s>", "<|user|>", "<|assistant|>"], pad_token="<pad>", eos_token="</s>"
        )
    if template:
        tokenizer.chat_template = CHAT_TEMPLATE
    kinds = {
        "bert": (BertConfig, BertForSequenceClassification),
        "llama": (LlamaConfig, LlamaForSequenceClassification),
        "qwen2": (Qwen2Config, Qwen2ForSequenceClassification),
    }
    of, model = kinds[family]
    keys = {} if family == "bert" else {"num_key_value_heads": 2}
    config = of(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=more.pop("positions", 256),
        initializer_range=0.5,
        id2label=dict(enumerate(labels)),
        label2id={label: place for place, label in enumerate(labels)},
        pad_token_id=tokenizer.pad_token_id if pad else None,
        **keys,
        **more,
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def alone(folder, texts, **asked):
    """Transformers itself, a row at a time and unpadded: logits."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pairs = [text if isinstance(text, tuple) else (text,) for text in texts]
    with torch.inference_mode():
        found = [model(**tokenizer(*pair, return_tensors="pt", **asked)).logits[0] for pair in pairs]
    return torch.stack(found).double()


def chat(row):
    return f"<|user|>{row['prompt']}</s><|assistant|>{row['response']}</s>"


def joined(row):
    return f"{row['prompt']}\n{row['response']}"


def score(folder, scorer=None, rows=ROWS, **options):
    told = {"progress": False, "count_tokens": False, **options}
    scores = dp.score(rows, scorers=scorer or Classifier(), classifier=str(folder), **told)
    return scores.rankings[next(iter(scores.rankings))]


@pytest.mark.parametrize(
    ("family", "template", "pad"),
    [("bert", False, True), ("llama", True, True), ("qwen2", False, False)],
)
def test_a_reward_is_that_of_a_plain_loop(tmp_path, family, template, pad):
    folder = save(tmp_path / "m", family, ["reward"], template=template, pad=pad)
    texts = [chat(row) if template else joined(row) for row in ROWS]
    asked = {"add_special_tokens": False} if template else {}
    expected = alone(folder, texts, **asked)[:, 0].numpy()
    found = score(folder, Classifier(keep="low" if pad else "high"))
    np.testing.assert_allclose(found.values, -expected if pad else expected, atol=1e-5, rtol=0)
    assert found.measure == ("class_output", not pad)


def test_classes_by_probability_and_by_expectation(tmp_path):
    folder = save(tmp_path / "m", "bert", ["1", "3", "10"])
    chances = alone(folder, map(joined, ROWS)).softmax(-1).numpy()
    both = Combined(
        [
            {"name": "classifier", "parameters": {"label": "3"}},
            {"name": "classifier", "parameters": {"expected": True}},
        ]
    )
    found = score(folder, both)
    np.testing.assert_allclose(found.columns["classifier_score"], chances[:, 1], atol=1e-5)
    np.testing.assert_allclose(found.columns["classifier_2_score"], chances @ [1, 3, 10], atol=1e-4)
    assert len(np.unique(np.round(chances[:, 1], 4))) > 5


def test_labels_that_do_not_exclude_each_other():
    logits = np.random.default_rng(0).normal(scale=9, size=(30, 2)).astype(np.float32)
    outputs = Outputs(("toxic", "insult"), "labels")
    exact = torch.from_numpy(logits).double().sigmoid().numpy()
    np.testing.assert_allclose(outputs.values(logits, 1), exact[:, 1], rtol=1e-9)
    assert np.array_equal(Outputs(("a", "b"), "numbers").values(logits, 1), logits[:, 1].astype(float))


def test_what_is_read_of_a_row(tmp_path):
    from transformers import AutoTokenizer

    folder = save(tmp_path / "m", "bert", ["quality"])
    expected = alone(folder, [(row["prompt"], row["response"]) for row in ROWS])[:, 0].numpy()
    np.testing.assert_allclose(score(folder, classifier_reads="pair").values, expected, atol=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    numbered = list(enumerate(dp.load_samples(ROWS)))
    assert read_rows(numbered, tokenizer, "response") == [
        tokenizer(row["response"])["input_ids"] for row in ROWS
    ]


def test_long_rows_lose_their_middle_and_are_told(tmp_path, caplog):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = save(tmp_path / "m", "bert", ["quality"], positions=64)
    model, tokenizer = (
        of.from_pretrained(folder) for of in (AutoModelForSequenceClassification, AutoTokenizer)
    )
    whole = [tokenizer(joined(row))["input_ids"] for row in ROWS]
    cut = [ids if len(ids) <= 64 else ids[:32] + ids[-32:] for ids in whole]
    with torch.inference_mode():
        expected = [float(model.eval()(torch.tensor([ids])).logits) for ids in cut]
    np.testing.assert_allclose(score(folder).values, expected, atol=1e-5)
    many = sum(len(ids) > 64 for ids in whole)
    assert 0 < many < len(ROWS)
    assert f"classifier: {many} of {len(ROWS)} rows are longer than the 64 tokens" in caplog.text
    assert "--classifier-max-length" in caplog.text or "classifier_max_length" in caplog.text


def test_a_second_run_opens_no_model_and_a_new_row_is_read_alone(tmp_path, monkeypatch):
    from datapruner.models.classifiers import loading

    folder = save(tmp_path / "m", "llama", ["reward"], template=True)
    first = score(folder, rows=ROWS[:-1])
    read = []
    loaded = loading.load_classifier

    def counted(*args, **options):
        read.append(args)
        return loaded(*args, **options)

    monkeypatch.setattr(loading, "load_classifier", counted)
    assert np.array_equal(score(folder, rows=ROWS[:-1]).values, first.values)
    assert not read
    assert np.array_equal(score(folder).values[:-1], first.values)
    assert len(read) == 1
    with (folder / "config.json").open("r+") as handle:  # other files are another model
        said = json.load(handle)
        handle.seek(0)
        json.dump({**said, "rms_norm_eps": 0.5}, handle)
        handle.truncate()
    assert not np.allclose(score(folder).values[:-1], first.values)


def test_a_pair_of_objects(tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = save(tmp_path / "m", "llama", ["reward"], template=True)
    pair = (AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder))
    pair[0].train()
    scores = dp.score(ROWS, scorers="classifier", classifier=pair, progress=False, count_tokens=False)
    assert "classifier" in scores.recipe.in_memory
    assert pair[0].training
    expected = alone(folder, map(chat, ROWS), add_special_tokens=False)[:, 0].numpy()
    np.testing.assert_allclose(scores.rankings["classifier"].values, expected, atol=1e-5)
    with pytest.raises(DataPrunerError, match="name or the pair"):
        dp.score(ROWS, scorers="classifier", classifier=3, progress=False)


def test_what_is_no_classifier_for_these_rows_is_a_sentence(tmp_path, tiny_llama):
    classes = save(tmp_path / "classes", "bert", ["good", "bad"])
    one = save(tmp_path / "one", "bert", ["quality"])
    cases = [
        (classes, Classifier(label="god"), r"has no class 'god'\. Did you mean 'good'\? It has good, bad"),
        (classes, Classifier(), "has 2 outputs, good, bad: say which"),
        (one, Classifier(label="good"), "one output and no classes; leave label out"),
        (tiny_llama, Classifier(), r"no sequence classifier \(LlamaForCausalLM\)"),
        (tmp_path / "nowhere", Classifier(), "there is no model"),
    ]
    for folder, scorer, said in cases:
        with pytest.raises(DataPrunerError, match=said):
            score(folder, scorer)
    with pytest.raises(DataPrunerError, match="name one with"):
        dp.score(ROWS, scorers="classifier", progress=False)
    with pytest.raises(DataPrunerError, match="no scorer of this run reads it"):
        dp.score(ROWS, scorers="length", classifier=str(one), progress=False)
    with pytest.raises(DataPrunerError, match="no chat template"):
        score(one, classifier_reads="chat")
    with pytest.raises(DataPrunerError, match="give one"):
        Classifier(label="a", expected=True)


def test_a_tokenizer_of_another_vocabulary_and_code_that_comes_with_a_model(tmp_path):
    from transformers import AutoTokenizer

    folder = save(tmp_path / "m", "bert", ["quality"])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["alpha"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(DataPrunerError, match="it is of another vocabulary"):
        score(folder)
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**said, "model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}})
    )
    (folder / "mine.py").write_text("raise SystemExit('ran')")
    with pytest.raises(DataPrunerError, match="cannot be loaded"):
        score(folder)


def test_the_command_line(tmp_path, monkeypatch, capfd):
    folder = save(tmp_path / "m", "bert", ["good", "bad"])
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    words = (
        "prune",
        rows,
        "--scorer",
        "classifier",
        "--classifier",
        folder,
        "--keep",
        "4",
        "-q",
        "--format",
        "jsonl",
    )
    ran = run_command(monkeypatch, capfd, *words, "--out", tmp_path / "bad", "--set", "label=awful")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "has no class 'awful'" in ran.err
    ran = run_command(monkeypatch, capfd, *words, "--out", tmp_path / "out", "--set", "label=good")
    assert ran.code == 0, ran.err
    kept = [json.loads(line) for line in (tmp_path / "out" / "data" / "train-00000-of-00001.jsonl").open()]
    chances = alone(folder, map(joined, ROWS)).softmax(-1)[:, 0].numpy()
    assert kept == [ROWS[row] for row in sorted(np.argsort(-chances)[:4].tolist())]
    assert "classifier: ../m\n" in (tmp_path / "out" / "recipe.yaml").read_text()
