"""Token-pruned data: what is in the files, and that trainers learn from exactly the kept tokens."""

from __future__ import annotations

import logging

import numpy as np
import pytest

import datapruner as dp
from datapruner.cleaning.steps.never_keep import NEVER_KEEP
from datapruner.cleaning.vetoes import drops
from datapruner.outputs.folder import OURS
from datapruner.recipe import Method, Recipe
from datapruner.samples import load_samples
from datapruner.samples.rendering import render_many
from datapruner.scorers import make_scorer
from datapruner.scores import Scores
from datapruner.selection.selectors.topk import TopK
from datapruner.signals import Ragged, Signals
from tests.conftest import QUIET_TRAINING

N = 40


def questions(n=N, start=0):
    """Rows whose answers differ in length, so that they differ in everything."""
    return [
        {
            "question": f"what is {row} plus {row}",
            "answer": f"it is {2 * row}" + ", surely" * (row % 5),
            "id": row,
        }
        for row in range(start, start + n)
    ]


def measured(model, tokenizer, samples):
    """Loss and entropy of every supervised token, by plain arithmetic on the model's logits."""
    import torch

    nll, entropy = [], []
    with torch.no_grad():
        for row in render_many(samples, tokenizer):
            ids = torch.from_numpy(row.input_ids).long()
            log_p = torch.log_softmax(model(input_ids=ids[None]).logits[0].double(), -1)[:-1]
            where = torch.from_numpy(np.flatnonzero(row.supervised[1:]))
            nll.append(-log_p[where, ids[1:][where]].numpy())
            entropy.append(-(log_p[where].exp() * log_p[where]).sum(-1).numpy())
    return Ragged.from_rows(nll), Ragged.from_rows(entropy)


def make_scores(folder, source=None, *, vetoed=(), scorer=None, renderer=True):
    """What the run gives when it has measured with the tiny model."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    samples = load_samples(questions() if source is None else source)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    nll, entropy = measured(AutoModelForCausalLM.from_pretrained(folder), tokenizer, samples)
    scorer = make_scorer("qtuning") if scorer is None else scorer
    n, vetoed = len(samples), np.array(vetoed, np.int64)
    rows = np.setdiff1d(np.arange(n), vetoed)
    signals = Signals(
        len(rows),
        {
            "log_ppl": np.array([row.mean() for row in nll])[rows],
            "entropy": np.array([row.mean() for row in entropy])[rows],
            "token_nll": nll.take(rows),
        },
    )
    return Scores(
        samples,
        Recipe(scorers=[Method(name="qtuning", parameters=scorer.parameters())]),
        {"qtuning": scorer},
        {"qtuning": scorer.score(signals).scatter(rows, n)},
        [drops(NEVER_KEEP, vetoed)],
        np.zeros(n, np.bool_),
        {"num_supervised_tokens": nll.lengths},
        (lambda of, some: render_many(of.iter_samples(some), tokenizer, numbers=some.tolist()))
        if renderer
        else None,
    )


@pytest.fixture
def scores(tiny_llama):
    return make_scores(tiny_llama)


def kept_tokens(selection):
    return int(selection.supervised_tokens_kept.sum())


def labelled(dataset):
    return sum(label != -100 for labels in dataset["labels"] for label in labels)


def test_columns_say_what_was_kept(tiny_llama, scores):
    from transformers import AutoTokenizer

    selection = scores.select(keep=0.5)
    dataset = selection.dataset
    assert dataset.column_names == ["question", "answer", "id", "input_ids", "labels"]
    assert dataset["id"] == selection.indices.tolist()
    rendered = list(render_many(scores.samples, AutoTokenizer.from_pretrained(tiny_llama)))
    pruned = 0
    for row, item in zip(selection.indices.tolist(), dataset, strict=True):
        assert item["input_ids"] == rendered[row].input_ids.tolist(), "the input is not whole"
        targets = np.flatnonzero(rendered[row].supervised)
        mask = selection.token_masks[row]
        mask = mask if len(mask) else np.ones(len(targets), bool)
        expected = np.full(len(item["labels"]), -100)
        expected[targets[mask]] = rendered[row].input_ids[targets[mask]]
        assert item["labels"] == expected.tolist()
        assert selection.explain(row)["supervised_tokens_kept"] == mask.sum()
        pruned += int((~mask).sum())
    assert pruned > 0
    assert labelled(dataset) == kept_tokens(selection)
    dropped = int(np.flatnonzero(~selection.kept)[0])
    assert selection.explain(dropped)["supervised_tokens_kept"] == 0
    assert "Q2" in selection.reason(int(np.flatnonzero(selection.token_masks.lengths)[0]))


@pytest.mark.parametrize("format", ["parquet", "jsonl", "arrow"])
def test_every_format_comes_back(format, scores, tmp_path):
    from datasets import load_dataset, load_from_disk

    selection = scores.select(keep=0.5)
    out = selection.save(tmp_path / "out", format=format)
    back = (
        load_from_disk(str(out / "data"))["train"]
        if format == "arrow"
        else load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    )
    assert back.to_list() == selection.dataset.to_list()
    names = [file.relative_to(out).as_posix() for file in out.rglob("*") if file.is_file()]
    assert all(OURS.fullmatch(name) for name in names), names
    assert dp.explain(out, int(selection.indices[0]))["supervised_tokens_kept"] > 0
    card = (out / "README.md").read_text()
    assert f"{kept_tokens(selection):,} of the " in card
    if format == "parquet":
        again = scores.select(keep=0.5).save(tmp_path / "again")
        file = "data/train-00000-of-00001.parquet"
        assert (again / file).read_bytes() == (out / file).read_bytes()


def test_other_splits_get_the_columns_whole(tiny_llama, tmp_path, caplog):
    from datasets import Dataset, DatasetDict, load_dataset

    source = DatasetDict(
        train=Dataset.from_list(questions()),
        test=Dataset.from_list(questions(5, 100)),
        empty=Dataset.from_list(questions(1)).select([]),
        unread=Dataset.from_list([{**row, "question": None} for row in questions(3)]).cast(
            Dataset.from_list(questions(1)).features
        ),
        narrow=Dataset.from_list([{"id": 1}]),
    )
    selection = make_scores(tiny_llama, source).select(keep=0.5)
    with caplog.at_level(logging.WARNING):
        splits = selection.splits
    assert [len(splits[name]) for name in splits] == [20, 5, 0, 3, 1]
    assert all(any(label != -100 for label in labels) for labels in splits["test"]["labels"])
    assert splits["test"].remove_columns(["input_ids", "labels"]).to_list() == source["test"].to_list()
    assert splits["narrow"]["labels"] == [None]
    assert "'narrow' is carried over without tokens" in caplog.text
    for split in ("narrow", "empty"):  # load_dataset takes neither, whoever wrote them
        del selection.scores.samples.others[split]
    for format in ("parquet", "jsonl"):
        out = selection.save(tmp_path / format, format=format)
        back = load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
        assert back["train"].to_list() == splits["train"].to_list()
        assert back["test"].to_list() == splits["test"].to_list()
        assert back["unread"]["labels"] == [None] * 3


@pytest.mark.parametrize("view", ["shuffled", "columns", "torch"])
def test_a_source_that_is_a_view(view, tiny_llama):
    from datasets import Dataset

    dataset = Dataset.from_list(questions(60))
    if view == "shuffled":
        dataset = dataset.shuffle(seed=0).select(range(N))
    elif view == "columns":
        dataset.set_format(columns=["question"])
    else:
        dataset = dataset.with_format("numpy")
    selection = make_scores(tiny_llama, dataset).select(keep=12)
    ids = np.array(dataset.with_format(None)["id"])
    assert selection.dataset["id"] == ids[selection.indices].tolist()
    assert labelled(selection.dataset) == kept_tokens(selection)


def test_a_rebudget_vetoes_and_groups(tiny_llama):
    source = [{**row, "skill": "ab"[row["id"] % 2]} for row in questions()]
    scores = make_scores(tiny_llama, source, vetoed=[3, 4, 17])
    first = scores.select(keep=0.3, per_group="skill", quotas={"a": 0.5})
    assert not first.kept[[3, 4, 17]].any()
    second = first.rebudget(keep=0.6, quotas={})
    for selection in (first, second):
        assert len(selection.token_masks) == N
        masked = selection.token_masks.lengths > 0
        assert masked.any()
        assert selection.kept[masked].all()
        assert labelled(selection.dataset) == kept_tokens(selection)


def test_whole_rows_have_no_token_columns(tiny_llama):
    whole = make_scores(tiny_llama, scorer=make_scorer("qtuning", {"token_keep": 1.0}), renderer=False)
    selection = whole.select(keep=0.5)
    assert selection.token_masks is None
    assert selection.dataset.column_names == ["question", "answer", "id"]
    assert "supervised_tokens_kept" not in selection.explain(0)
    assert selection.conversation().column_names == ["messages"]
    assert make_scores(tiny_llama).select(keep=0.5, selector=TopK()).token_masks is None


def test_what_cannot_be_written_is_said(tiny_llama, tmp_path):
    with pytest.raises(dp.DataPrunerError, match="needs the tokenizer of the model"):
        make_scores(tiny_llama, renderer=False).select(keep=0.5).save(tmp_path / "out")
    assert not list(tmp_path.iterdir())
    selection = make_scores(tiny_llama).select(keep=0.5)
    with pytest.raises(dp.DataPrunerError, match=r"train on `selection.dataset`"):
        selection.conversation()
    source = [{**row, "labels": "mine"} for row in questions()]
    taken = make_scores(tiny_llama, source)
    with pytest.raises(dp.DataPrunerError, match="has a column 'labels' already"):
        _ = taken.select(keep=0.5).dataset


def test_another_tokenizer_is_noticed(tiny_llama):
    from dataclasses import replace

    scores = make_scores(tiny_llama)
    plain = scores.renderer

    def shorter(samples, rows):
        for row in plain(samples, rows):
            yield replace(row, input_ids=row.input_ids[:-1], supervised=row.supervised[:-1])

    with pytest.raises(dp.DataPrunerError, match=r"row \d+ has \d+ supervised tokens, but had \d+ when"):
        _ = replace(scores, renderer=shorter).select(keep=0.5).dataset


@pytest.mark.parametrize("layout", ["question", "messages", "prompt", "text"])
def test_sft_trainer_learns_the_kept_tokens_alone(layout, tiny_llama, tmp_path):
    trl = pytest.importorskip("trl", reason="the trl extra is not installed")
    import torch
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def laid_out(row):
        if layout == "messages":
            turns = [("user", row["question"]), ("assistant", row["answer"])]
            return {"messages": [{"role": role, "content": content} for role, content in turns]}
        if layout == "prompt":
            return {"prompt": row["question"], "completion": row["answer"]}
        return {"text": f"{row['question']}: {row['answer']}"} if layout == "text" else row

    selection = make_scores(tiny_llama, [laid_out(row) for row in questions()]).select(keep=8)
    out = selection.save(tmp_path / "out")
    train = load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert labelled(train) == kept_tokens(selection)
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    trainer = trl.SFTTrainer(
        model,
        args=trl.SFTConfig(
            output_dir=str(tmp_path / "trained"),
            max_steps=2,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=2,
            learning_rate=0.0,
            max_length=None,
            **QUIET_TRAINING,
        ),
        train_dataset=train,
        processing_class=AutoTokenizer.from_pretrained(tiny_llama),
    )
    assert labelled(trainer.train_dataset) == kept_tokens(selection)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    # By hand, from the model that scored the rows: the mean over the kept tokens, each read in its whole row.
    nll = selection.scores.rankings["qtuning"].state["token_nll"]
    kept = []
    for row in selection.indices.tolist():
        mask = selection.token_masks[row]
        kept += (nll[row][mask] if len(mask) else nll[row]).tolist()
    assert len(kept) == kept_tokens(selection)
    assert losses == pytest.approx([np.mean(kept)] * 2, rel=1e-5)
    assert torch.isfinite(torch.tensor(losses)).all()


def test_the_plain_trainer_learns_the_kept_tokens_alone(tiny_llama, scores, tmp_path):
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        DataCollatorForSeq2Seq,
        Trainer,
        TrainingArguments,
    )

    selection = scores.select(keep=8)
    trainer = Trainer(
        AutoModelForCausalLM.from_pretrained(tiny_llama),
        TrainingArguments(
            output_dir=str(tmp_path),
            max_steps=1,
            per_device_train_batch_size=8,
            report_to=[],
            save_strategy="no",
            logging_steps=1,
            use_cpu=True,
            disable_tqdm=True,
        ),
        DataCollatorForSeq2Seq(AutoTokenizer.from_pretrained(tiny_llama), label_pad_token_id=-100),
        selection.dataset,
    )
    trainer.train()
    nll = scores.rankings["qtuning"].state["token_nll"]
    kept = [
        nll[row][m] if len(m := selection.token_masks[row]) else nll[row]
        for row in selection.indices.tolist()
    ]
    assert trainer.state.log_history[0]["loss"] == pytest.approx(np.concatenate(kept).mean(), rel=1e-5)


def test_the_whole_way(tiny_llama, tmp_path, cache):
    import json

    from datapruner.scores import load_scores

    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, questions())))
    given = {"model": str(tiny_llama), "progress": False}
    selection = dp.prune(tmp_path / "rows.jsonl", scorer="qtuning", keep=0.5, **given)
    by_hand = make_scores(tiny_llama, questions()).select(keep=0.5)
    assert np.array_equal(selection.kept, by_hand.kept)
    assert np.array_equal(selection.token_masks.values, by_hand.token_masks.values)
    out = selection.save(tmp_path / "out")
    again = dp.run(out / "recipe.yaml", progress=False).save(tmp_path / "again")
    dp.score(tmp_path / "rows.jsonl", scorers=["qtuning", "random"], **given).save(tmp_path / "scores")
    chosen = load_scores(tmp_path / "scores").select("qtuning", keep=0.5).save(tmp_path / "chosen")
    for other in (again, chosen):
        file = "data/train-00000-of-00001.parquet"
        assert (other / file).read_bytes() == (out / file).read_bytes()


def test_nothing_is_left_behind(scores, tmp_path, monkeypatch):
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    scores.select(keep=0.5).save(tmp_path / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"], "saving needs no folder elsewhere"
