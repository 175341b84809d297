"""Real layouts of fine-tuning data are read, pruned, and trained on in trl for two steps, by the trainer that fits."""

from __future__ import annotations

import numpy as np
import pytest

import datapruner as dp
from tests.conftest import QUIET_TRAINING
from tests.test_inputs import LAYOUTS

pytest.importorskip("trl", reason="the trl extra is not installed")
pytestmark = pytest.mark.slow

# The trainers that a row of each layout can be trained with.
SFT = (
    "question_answer",
    "question_context_answer",
    "dolly",
    "alpaca",
    "alpaca_history",
    "messages",
    "messages_tools",
    "sharegpt",
    "query_response",
    "input_output",
    "open_orca",
    "prompt_completion",
    "prompt_response",
    "text",
    "preference",
    "sharegpt_preference",
)
DPO = (
    "preference",
    "preference_turns",
    "transcripts",
    "sharegpt_preference",
    "orca_preference",
    "instruction_preference",
    "rejected_response",
    "several_rejected",
)
KTO = ("unpaired",)
COMMON = {**QUIET_TRAINING, "max_steps": 2, "per_device_train_batch_size": 2}


def rows(name):
    row, other = LAYOUTS[name]
    made = [row | {key: value for key, value in other.items() if number % 2} for number in range(12)]
    for number, each in enumerate(made):
        each["id"] = number  # a column that nothing reads
    if name == "unpaired":
        for number, each in enumerate(made):
            each["label"] = bool(number % 2)
    return made


def selected(name):
    seen = dp.inspect_samples(dp.load_samples(rows(name)))
    assert seen.layout not in ("text",) or name == "text", "rows of turns are not read as plain text"
    selection = dp.prune(rows(name), scorer="random", keep=0.7, progress=False)
    assert len(selection) == 8
    return selection


def train(trainer):
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert trainer.state.global_step == 2
    assert len(losses) == 2
    assert np.isfinite(losses).all()


@pytest.fixture
def model(tiny_llama):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(tiny_llama), AutoTokenizer.from_pretrained(tiny_llama)


@pytest.mark.parametrize("name", SFT)
def test_supervised(name, model, tmp_path):
    from trl import SFTConfig, SFTTrainer

    train(
        SFTTrainer(
            model[0],
            args=SFTConfig(output_dir=str(tmp_path), **COMMON),
            train_dataset=selected(name).conversation(),
            processing_class=model[1],
        )
    )


@pytest.mark.parametrize("name", DPO)
def test_pairs(name, model, tmp_path):
    from trl import DPOConfig, DPOTrainer

    pairs = selected(name).preference()
    assert {"prompt", "chosen", "rejected"} <= set(pairs.column_names)
    assert all(one["chosen"] != one["rejected"] for one in pairs)
    train(
        DPOTrainer(
            model[0],
            args=DPOConfig(output_dir=str(tmp_path), **COMMON),
            train_dataset=pairs,
            processing_class=model[1],
        )
    )


@pytest.mark.parametrize("name", KTO)
def test_unpaired(name, model, tmp_path):
    trl = pytest.importorskip("trl")
    if hasattr(trl, "KTOTrainer"):
        config, trainer = trl.KTOConfig, trl.KTOTrainer
    else:
        from trl.experimental.kto import KTOConfig as config  # noqa: N813
        from trl.experimental.kto import KTOTrainer as trainer  # noqa: N813
    train(
        trainer(
            model[0],
            args=config(output_dir=str(tmp_path), **COMMON),
            train_dataset=selected(name).preference(),
            processing_class=model[1],
        )
    )
