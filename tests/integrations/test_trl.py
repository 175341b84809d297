"""Q-Tuning inside training: what is chosen, and what is learnt from it, beside a batch built by hand."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("trl", reason="the trl extra is not installed")

import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    TrainerCallback,
    TrainingArguments,
)
from trl import SFTConfig

from datapruner.errors import DataPrunerError
from datapruner.integrations import qtuning
from datapruner.integrations.qtuning import QTuningSettings, prune_batch, score_batch
from datapruner.integrations.transformers import QTuningTrainer as PlainTrainer
from datapruner.integrations.trl import QTuningTrainer as SFTQTuningTrainer
from datapruner.ranking import Ranking
from datapruner.selection.budget_rows import Portion
from datapruner.selection.quadrants import triage
from datapruner.selection.selectors.eu_plane import EUPlaneSelector
from datapruner.selection.tokens import prune_tokens
from datapruner.signals import Ragged
from tests.conftest import QUIET_TRAINING

COMMON = {**QUIET_TRAINING, "max_grad_norm": 0.0, "learning_rate": 1e-3}


def rows(n=48, *, seed=0, prompt=True):
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(n):
        ids = rng.integers(4, 300, int(rng.integers(6, 24)))
        labels = ids.copy()
        labels[: int(rng.integers(1, len(ids) // 2)) if prompt else 0] = -100
        out.append({"input_ids": ids.tolist(), "labels": labels.tolist(), "text": "left alone"})
    return Dataset.from_list(out)


def make(kind, tiny_llama, folder, *, data=None, model=None, settings=None, trainer=None, **arguments):
    """An SFTTrainer or a plain Trainer that prunes."""
    model = AutoModelForCausalLM.from_pretrained(tiny_llama) if model is None else model
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    arguments = {**COMMON, "output_dir": str(folder / "out"), **arguments}
    data = rows() if data is None else data
    if kind == "sft":
        return SFTQTuningTrainer(
            model,
            args=SFTConfig(**arguments),
            train_dataset=data,
            processing_class=tokenizer,
            **(settings or {}),
            **(trainer or {}),
        )
    return PlainTrainer(
        model,
        args=TrainingArguments(**arguments),
        train_dataset=data,
        data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100),
        **(settings or {}),
        **(trainer or {}),
    )


def losses(model, batch):
    """Loss and entropy at every target, row by row, from the model's logits."""
    out = []
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.double()
    for row in range(len(logits)):
        read = batch["attention_mask"][row]
        where = [t for t in range(1, logits.shape[1]) if batch["labels"][row, t] != -100 and read[t - 1]]
        p = torch.softmax(logits[row], -1)
        nll = [-torch.log(p[t - 1, batch["input_ids"][row, t]]).item() for t in where]
        entropy = [-(p[t - 1] * torch.log(p[t - 1])).sum().item() for t in where]
        out.append((where, np.array(nll), np.array(entropy)))
    return out


def by_hand(model, batch, settings):
    """The kept rows and, for each, the positions whose labels stay."""
    scored = losses(model, batch)
    log_ppl = np.array([nll.mean() for _, nll, _ in scored])
    entropy = np.array([ent.mean() for _, _, ent in scored])
    k = max(1, round(len(scored) * settings.sample_ratio))
    order, quadrants, _ = triage(log_ppl, entropy, k, fill=settings.fill)
    kept = {}
    for row in sorted(order[:k].tolist()):
        where, nll, _ = scored[row]
        if quadrants.numbers[row] == 2:
            one = Ragged.from_rows([nll], np.float64)
            mask = prune_tokens(
                one,
                np.array([0]),
                keep=settings.token_ratio,
                smoothing=settings.smoothing,
                condition=settings.condition,
            )[0]
            where = [t for t, stays in zip(where, mask, strict=True) if stays]
        kept[row] = where
    return kept


class Gradients(TrainerCallback):
    """Gradients and weights as they are when a step is about to be taken."""

    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.steps.append(
            {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        )


@pytest.fixture
def seen(monkeypatch):
    """Batches before and after they were pruned, with the weights they were scored by."""
    found = []

    def spy(model, batch, settings, *, multiple=1):
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        pruned, counts = prune_batch(model, batch, settings, multiple=multiple)
        found.append((state, dict(batch), dict(pruned), counts))
        return pruned, counts

    monkeypatch.setattr(qtuning, "prune_batch", spy)
    return found


@pytest.mark.parametrize("kind", ["sft", "plain"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_gradients_are_those_of_a_batch_built_by_hand(kind, accumulate, tiny_llama, tmp_path, seen):
    gradients, settings = Gradients(), QTuningSettings(0.4, 0.3)
    trainer = make(
        kind,
        tiny_llama,
        tmp_path,
        settings={"sample_ratio": 0.4, "token_ratio": 0.3},
        trainer={"callbacks": [gradients]},
        max_steps=2,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=accumulate,
    )
    trainer.train()
    assert len(seen) == 2 * accumulate
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    some_pruned = 0
    for step in range(2):
        model.load_state_dict(seen[step * accumulate][0])
        model.zero_grad()
        total, tokens = 0.0, 0
        for _, batch, pruned, counts in seen[step * accumulate : (step + 1) * accumulate]:
            kept = by_hand(model, batch, settings)
            assert len(pruned["labels"]) == len(kept) == counts["rows_kept"]
            width = max(int(batch["attention_mask"][row].sum()) for row in kept)
            assert pruned["input_ids"].shape[1] == width
            for place, (row, where) in enumerate(kept.items()):
                length = int(batch["attention_mask"][row].sum())
                ids = batch["input_ids"][row, :length]
                assert torch.equal(pruned["input_ids"][place, :length], ids)
                assert (pruned["labels"][place] != -100).nonzero()[:, 0].tolist() == where
                log_p = torch.log_softmax(model(input_ids=ids[None]).logits[0], -1)
                total = total - sum(log_p[t - 1, ids[t]] for t in where)
                tokens += len(where)
                supervised = int((batch["labels"][row, 1:] != -100).sum())
                some_pruned += len(where) < supervised
        loss = total / tokens
        loss.backward()
        assert logged[step] == pytest.approx(loss.item(), rel=1e-5)
        assert gradients.steps[step].keys() == {name for name, _ in model.named_parameters()}
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(gradients.steps[step][name], parameter.grad, rtol=1e-4, atol=1e-6)
    assert some_pruned


@pytest.mark.parametrize("kind", ["sft", "plain"])
def test_five_steps_run_and_say_what_was_kept(kind, tiny_llama, tmp_path):
    trainer = make(kind, tiny_llama, tmp_path, max_steps=5, per_device_train_batch_size=8)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.train()
    lines = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(lines) == 5
    assert all(np.isfinite(line["loss"]) for line in lines)
    assert all(line["qtuning_rows_kept"] == 0.25 for line in lines)
    assert all(0 < line["qtuning_tokens_kept"] < 1 for line in lines)
    assert all(0 < line["qtuning_selection_share"] < 1 for line in lines)
    assert any(not torch.equal(before[name], now) for name, now in trainer.model.state_dict().items())


def test_all_rows_and_tokens_train_as_ever(tiny_llama, tmp_path):
    from transformers import Trainer

    whole = {"sample_ratio": 1.0, "token_ratio": 1.0}
    common = {"max_steps": 3, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    ours = make("plain", tiny_llama, tmp_path, settings=whole, **common)
    ours.train()
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    collator = DataCollatorForSeq2Seq(AutoTokenizer.from_pretrained(tiny_llama), label_pad_token_id=-100)
    args = TrainingArguments(**COMMON, **common, output_dir=str(tmp_path / "plain"))
    theirs = Trainer(model, args, collator, rows())
    theirs.train()
    for (name, a), b in zip(ours.model.named_parameters(), theirs.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7, msg=name)


def test_adapters_train_and_dropout_is_off_while_scoring(tiny_llama, tmp_path, seen):
    from peft import LoraConfig

    lora = LoraConfig(
        r=4, lora_alpha=8, lora_dropout=0.5, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
    )
    trainer = make(
        "sft",
        tiny_llama,
        tmp_path,
        trainer={"peft_config": lora},
        max_steps=3,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
    )
    frozen = {name: p.clone() for name, p in trainer.model.named_parameters() if not p.requires_grad}
    trainer.train()
    assert len(seen) == 6
    assert all(torch.equal(p, frozen[name]) for name, p in trainer.model.named_parameters() if name in frozen)
    state, batch, pruned, _ = seen[-1]
    trainer.model.load_state_dict(state)
    trainer.model.eval()
    kept = by_hand(trainer.model, batch, QTuningSettings())
    assert [(row != -100).nonzero()[:, 0].tolist() for row in pruned["labels"]] == list(kept.values())


@pytest.mark.parametrize("condition", ["none", "both"])
@pytest.mark.parametrize("kind", ["sft", "plain"])
def test_before_training_and_inside_it_one_batch_is_cut_alike(kind, condition, tiny_llama, tmp_path, seen):
    """A dataset of one batch and a model that has not moved: both ways keep the same rows and the same tokens."""
    data = rows(16, seed=3)
    settings = {"sample_ratio": 0.5, "token_ratio": 0.3, "condition": condition}
    make(
        kind,
        tiny_llama,
        tmp_path,
        data=data,
        settings=settings,
        per_device_train_batch_size=16,
        max_steps=1,
    ).train()
    ((_, batch, pruned, counts),) = seen
    scored = losses(AutoModelForCausalLM.from_pretrained(tiny_llama).eval(), batch)
    nll = Ragged.from_rows([found for _, found, _ in scored], np.float64)
    entropy = np.array([found.mean() for _, _, found in scored])
    ranking = Ranking(
        np.zeros(16),
        columns={"log_ppl": np.array([found.mean() for _, found, _ in scored]), "entropy": entropy},
        state={"token_nll": nll},
    )
    selector = EUPlaneSelector(fill="ppl", token_keep=0.3, condition=condition)
    portion = Portion(np.arange(16), np.ones(16, np.int64), 8)
    choice = selector.select(ranking, portion, np.random.default_rng(0))
    lengths, gone = nll.lengths, 0
    for row in np.flatnonzero(choice.kept):
        mask = choice.token_masks[int(row)]
        gone += int((~mask).sum())
    assert gone > 0
    assert counts["rows_kept"] == choice.kept.sum() == 8
    assert counts["tokens_kept"] == lengths[choice.kept].sum() - gone
    assert counts["tokens_kept"] == int(pruned["labels"].ne(-100).sum())


def test_evaluation_is_left_alone(tiny_llama, tmp_path):
    data = rows(12, seed=1)
    trainer = make("sft", tiny_llama, tmp_path, trainer={"eval_dataset": data}, per_device_eval_batch_size=12)
    found = trainer.evaluate()["eval_loss"]
    every = make("sft", tiny_llama, tmp_path)
    batch = every.data_collator([{k: row[k] for k in ("input_ids", "labels")} for row in data])
    expected = np.concatenate([nll for _, nll, _ in losses(every.model, batch)]).mean()
    assert found == pytest.approx(expected, rel=1e-4)
    assert "qtuning_rows_kept" not in trainer.state.log_history[-1]


def batch_of(lengths, *, side="right", width=None):
    rng = np.random.default_rng(len(lengths))
    width = max(lengths) if width is None else width
    ids, mask = (
        torch.zeros(len(lengths), width, dtype=torch.long),
        torch.zeros(len(lengths), width, dtype=torch.long),
    )
    for row, length in enumerate(lengths):
        some = slice(0, length) if side == "right" else slice(width - length, width)
        ids[row, some], mask[row, some] = torch.from_numpy(rng.integers(4, 300, length)), 1
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("multiple", [1, 8])
def test_padding_of_all_kept_rows_goes(tiny_llama, side, multiple):
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    batch = batch_of([5, 9, 24, 6, 7, 8], side=side)
    settings = QTuningSettings(0.5, 1.0)
    pruned, counts = prune_batch(model, batch, settings, multiple=multiple)
    assert counts["rows_kept"] == 3 == len(pruned["input_ids"])
    longest = int(pruned["attention_mask"].sum(1).max())
    assert pruned["input_ids"].shape[1] == -(-longest // multiple) * multiple
    kept = list(by_hand(model, batch, settings))
    for place, row in enumerate(kept):
        read, was = pruned["attention_mask"][place] > 0, batch["attention_mask"][row] > 0
        assert torch.equal(pruned["input_ids"][place, read], batch["input_ids"][row, was])
    assert batch["labels"].shape == (6, 24), "the batch itself was changed"


def test_small_slices_and_tiles_change_nothing(tiny_llama, monkeypatch):
    model = AutoModelForCausalLM.from_pretrained(tiny_llama).train()
    batch = batch_of([5, 9, 24, 6, 7, 8])
    targets = batch["labels"].ne(-100)
    targets[:, 0] = False
    token_nll, entropy = score_batch(model, batch, targets)
    assert model.training
    for (_, nll, ent), ours, mean in zip(losses(model, batch), token_nll, entropy, strict=True):
        np.testing.assert_allclose(ours, nll, rtol=1e-5)
        assert mean == pytest.approx(ent.mean(), rel=1e-5)
    monkeypatch.setattr(qtuning, "SLICE", 1)
    monkeypatch.setattr(qtuning, "TILE", 3 * model.config.vocab_size)
    again, same = score_batch(model, batch, targets)
    np.testing.assert_allclose(again.values, token_nll.values, rtol=1e-5)
    np.testing.assert_allclose(same, entropy, rtol=1e-5)


def test_rows_without_supervised_tokens_do_not_compete(tiny_llama):
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    batch = batch_of([5, 6, 7, 8])
    batch["labels"][[0, 2]] = -100
    pruned, counts = prune_batch(model, batch, QTuningSettings(1.0, 1.0))
    assert counts == {"rows": 4, "tokens": 12, "rows_kept": 2, "tokens_kept": 12}
    assert torch.equal(pruned["input_ids"], batch["input_ids"][[1, 3]])
    batch["labels"][:] = -100
    pruned, counts = prune_batch(model, batch, QTuningSettings(0.25))
    assert counts["rows_kept"] == 4
    assert torch.equal(pruned["input_ids"], batch["input_ids"])


@pytest.mark.parametrize(
    "settings",
    [{"sample_ratio": 0.0}, {"sample_ratio": 1.1}, {"token_ratio": 0}, {"smoothing": 2.0}, {"fill": "raw"}],
)
def test_ratios_without_meaning_are_refused(settings, tiny_llama, tmp_path):
    with pytest.raises(DataPrunerError, match=next(iter(settings)).replace("token_ratio", "token_")):
        make("plain", tiny_llama, tmp_path, settings=settings)


def test_what_has_no_rows_is_refused(tiny_llama, tmp_path):
    for packed in ({"packing": True}, {"padding_free": True, "max_length": None}):
        with pytest.raises(DataPrunerError, match="packing=False"):
            make("sft", tiny_llama, tmp_path, **packed)
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    batch = batch_of([6, 6])
    with pytest.raises(DataPrunerError, match="packed"):
        prune_batch(
            model, {**batch, "position_ids": torch.tensor([[0, 1, 2, 0, 1, 2]] * 2)}, QTuningSettings()
        )
    with pytest.raises(DataPrunerError, match="pixel_values"):
        prune_batch(model, {**batch, "pixel_values": torch.zeros(2, 3, 4)}, QTuningSettings())
    with pytest.raises(DataPrunerError, match="DataCollatorForSeq2Seq"):
        prune_batch(model, {"input_ids": batch["input_ids"]}, QTuningSettings())
    # Rows that say where their tokens stand are no packed rows.
    prune_batch(model, {**batch, "position_ids": torch.arange(6)[None].expand(2, 6)}, QTuningSettings())


def test_a_diverged_model_is_said(tiny_llama):
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    with torch.no_grad():
        model.lm_head.weight[5] = float("nan")
    with pytest.raises(DataPrunerError, match="row 0 of a batch, which"):
        prune_batch(model, batch_of([6, 6]), QTuningSettings())
