"""Token masks of sources of several layouts: each row's lands on its own tokens, in every file and in training."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from datasets import load_dataset, load_from_disk

import datapruner as dp
from datapruner.samples import load_samples
from datapruner.samples.rendering import render_many
from datapruner.scorers import make_scorer
from tests.conftest import QUIET_TRAINING, save_tiny_llama

SHARE = 0.6
ASKED = [f"what is {row} plus {row}" for row in range(10)]
SAID = [f"it is {2 * row}" + ", surely" * (row % 4) for row in range(10)]
SOURCES = {
    "pair.jsonl": [{"prompt": one, "completion": other} for one, other in zip(ASKED, SAID, strict=True)],
    "chat.jsonl": [
        {
            "messages": [
                {"role": "user", "content": "hello" * (place % 2 + 1)},
                {"role": "assistant", "content": f"well, {place}"},
                {"role": "user", "content": one},
                {"role": "assistant", "content": other},
            ]
        }
        for place, (one, other) in enumerate(zip(ASKED, SAID, strict=True))
    ],
    "text.jsonl": [{"text": f"{one}? {other}."} for one, other in zip(ASKED, SAID, strict=True)],
}


@pytest.fixture
def sources(tmp_path, monkeypatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    for name, rows in SOURCES.items():
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(SOURCES)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> tuple[Path, Path]:
    return tuple(save_tiny_llama(tmp_path_factory.mktemp("llama"), seed=seed) for seed in (0, 1))


def losses(folder, ids, supervised):
    """Every supervised token's loss, by plain arithmetic on the model's logits."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for tokens, targets in zip(ids, supervised, strict=True):
            at = torch.from_numpy(np.flatnonzero(targets[1:]))
            said = torch.log_softmax(model(input_ids=tokens[None].long()).logits[0].double(), -1)[:-1]
            yield -said[at, tokens[1:][at]].numpy()


@pytest.fixture(scope="module")
def alone(models):
    """Of every row, read by itself as its source alone is: ids, targets, and what both models lose on them."""
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(models[0])
    rows = [row for given in SOURCES.values() for row in render_many(list(load_samples(given)), tokenizer)]
    ids = [torch.from_numpy(row.input_ids).long() for row in rows]
    targets = [row.supervised for row in rows]
    return ids, targets, *(list(losses(folder, ids, targets)) for folder in models)


def best(values, share):
    stay = np.zeros(len(values), bool)
    stay[np.lexsort((np.arange(len(values)), -values))[: max(1, round(share * len(values)))]] = True
    return stay


def chosen_by(scorer, sources, models):
    like = {"model": str(models[0]), "device": "cpu", "progress": False, "cache": "store", "keep": 0.6}
    if scorer == "qtuning":
        return dp.prune(sources, scorer="qtuning", **like)
    made = make_scorer("excess_loss", {"token_keep": SHARE, "over": "row"})
    return dp.prune(sources, scorer=made, reference_model=str(models[1]), **like)


def wanted_labels(scorer, selection, alone):
    """What each kept row's labels must be, from the rows alone."""
    ids, targets, own, reference = alone
    for row in selection.indices.tolist():
        labels = np.full(len(ids[row]), -100)
        at = np.flatnonzero(targets[row][1:]) + 1
        if scorer == "qtuning":
            mask = selection.token_masks[row]
            stay = mask if len(mask) else np.ones(len(at), bool)
        else:
            stay = best(own[row] - reference[row], SHARE)
        labels[at[stay]] = ids[row].numpy()[at[stay]]
        yield labels.tolist()


@pytest.mark.parametrize("scorer", ["qtuning", "excess_loss"])
def test_each_mask_is_on_its_own_rows_tokens(scorer, sources, models, alone, tmp_path):
    selection = chosen_by(scorer, sources, models)
    met = {row // 10 for row in np.flatnonzero(selection.token_masks.lengths).tolist()}
    assert met == {0, 1, 2}, "a source of which no row lost a token tells nothing"
    labels = list(wanted_labels(scorer, selection, alone))
    ids = [alone[0][row].tolist() for row in selection.indices.tolist()]
    for form in ("parquet", "jsonl", "arrow"):
        out = selection.save(tmp_path / form, format=form)
        back = (
            load_from_disk(str(out / "data"))["train"]
            if form == "arrow"
            else load_dataset(str(out), split="train", cache_dir=str(tmp_path / "datasets"))
        )
        assert back["input_ids"] == ids
        assert back["labels"] == labels
    if scorer == "qtuning":  # whose masks are made of the tokens' losses
        for held, lone in zip(selection.scores.rankings[scorer].state["token_nll"], alone[2], strict=True):
            np.testing.assert_allclose(held, lone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scorer", ["qtuning", "excess_loss"])
def test_a_trainer_learns_the_kept_tokens_of_every_layout_alone(scorer, sources, models, alone, tmp_path):
    trl = pytest.importorskip("trl", reason="the trl extra is not installed")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    selection = chosen_by(scorer, sources, models)
    out = selection.save(tmp_path / "out")
    train = load_dataset(str(out), split="train", cache_dir=str(tmp_path / "datasets"))
    labels = list(wanted_labels(scorer, selection, alone))
    trainer = trl.SFTTrainer(
        AutoModelForCausalLM.from_pretrained(models[0]),
        args=trl.SFTConfig(
            output_dir=str(tmp_path / "trained"),
            max_steps=1,
            per_device_train_batch_size=len(train),
            learning_rate=0.0,
            max_length=None,
            **QUIET_TRAINING,
        ),
        train_dataset=train,
        processing_class=AutoTokenizer.from_pretrained(models[0]),
    )
    assert trainer.train_dataset["labels"] == labels
    trainer.train()
    kept = []
    for row, told in zip(selection.indices.tolist(), labels, strict=True):
        at = np.flatnonzero(alone[1][row][1:]) + 1
        kept += alone[2][row][np.array(told)[at] != -100].tolist()
    (loss,) = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert loss == pytest.approx(np.mean(kept), rel=1e-4)


def write_splits(name, **splits):
    Path(name).mkdir()
    for split, rows in splits.items():
        (Path(name) / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_other_splits_have_the_tokens_of_their_own_layouts(sources, models, tmp_path, caplog):
    from transformers import AutoTokenizer

    pair, chat = SOURCES["pair.jsonl"], SOURCES["chat.jsonl"]
    write_splits("pair", train=pair, validation=pair[:3])
    write_splits("chat", train=chat, validation=chat[:2], test=chat[2:5])
    selection = chosen_by("qtuning", ["pair", "chat"], models)
    out = selection.save(tmp_path / "out")
    assert "without tokens" not in caplog.text
    tokenizer = AutoTokenizer.from_pretrained(models[0])
    for config, split, rows in (
        ("default", "validation", [*pair[:3], *chat[:2]]),
        ("test", "test", chat[2:5]),  # without the columns of pairs
    ):
        back = load_dataset(str(out), config, split=split, cache_dir=str(tmp_path / "datasets"))
        whole = [one for row in rows for one in render_many(list(load_samples([row])), tokenizer)]
        assert back["input_ids"] == [row.input_ids.tolist() for row in whole]
        wanted = [
            np.where(row.supervised & (np.arange(len(row.input_ids)) > 0), row.input_ids, -100)
            for row in whole
        ]
        assert back["labels"] == [row.tolist() for row in wanted]


def test_a_split_whose_rows_lack_a_column_says_whose_and_which(sources, models, tmp_path, caplog):
    pair, chat = SOURCES["pair.jsonl"], SOURCES["chat.jsonl"]
    write_splits("pair", train=pair, test=[{"prompt": "a", "target": "b"}])
    write_splits("chat", train=chat, test=chat[:2])
    selection = chosen_by("qtuning", ["pair", "chat"], models)
    with caplog.at_level(logging.WARNING):
        out = selection.save(tmp_path / "out")
    assert (
        "the split 'test' is carried over without tokens, input_ids and labels being null: the rows of 'pair' have no "
        "column 'completion'" in caplog.text
    )
    # What is written is read again: the kept rows in their own layouts, the split as what it holds.
    assert [name for name, _ in load_samples(str(out)).layouts] == ["pair", "chat"]
    test = dp.load(out).splits["test"]
    assert test["labels"] == [None] * 3
    assert test.remove_columns(["input_ids", "labels"]).to_list() == selection.source.others["test"].to_list()
    # A result is a source again, and what is not known of a split stays unknown.
    like = {"keep": 1.0, "scorer": "random", "progress": False}
    again = dp.prune([str(out), "text.jsonl"], source_column="from", **like)
    assert again.source.other_ways == {"test": ()}
    with pytest.raises(dp.DataPrunerError, match="the test set: Row 0 has no value in column 'messages'"):
        dp.prune(str(out), decontaminate_split="test", **like)
