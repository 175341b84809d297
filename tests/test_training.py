"""A pruned dataset trains as it is."""

from __future__ import annotations

import numpy as np
import pytest

import datapruner as dp
from tests.conftest import QUIET_TRAINING

pytest.importorskip("trl", reason="the trl extra is not installed")


def test_a_question_answer_result_feeds_sft_trainer(tiny_llama, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    rows = [{"question": f"what is {row} plus {row}", "answer": f"it is {2 * row}"} for row in range(40)]
    vectors = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    selection = dp.prune(rows, keep=0.5, embeddings=vectors, progress=False)
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(tiny_llama),
        args=SFTConfig(
            output_dir=str(tmp_path / "out"),
            max_steps=2,
            per_device_train_batch_size=2,
            **QUIET_TRAINING,
        ),
        train_dataset=selection.conversation(),
        processing_class=AutoTokenizer.from_pretrained(tiny_llama),
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert trainer.state.global_step == 2
    assert len(losses) == 2
    assert all(np.isfinite(loss) and loss > 0 for loss in losses)
