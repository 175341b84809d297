"""Margins of a reward model between the two sides of a pair, against a plain loop; planted swaps are found."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import datapruner as dp
from datapruner.errors import DataPrunerError
from datapruner.samples.preference import sides
from datapruner.scorers.preference_margin import PreferenceMargin
from tests.conftest import CHAT_TEMPLATE, byte_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread", "cache")


@pytest.fixture(scope="module")
def knows_better(tmp_path_factory):
    """A reward model of one layer that counts '+' against '-': uniform attention over what each token is worth."""
    from transformers import LlamaConfig, LlamaForSequenceClassification

    folder = tmp_path_factory.mktemp("reward")
    tokenizer = byte_tokenizer(
        ["<pad>", "</s>", "<|user|>", "<|assistant|>"], pad_token="<pad>", eos_token="</s>"
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        max_position_embeddings=256,
        num_labels=1,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForSequenceClassification(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.fill_(1.0 if "norm" in name else 0.0)
        tokens = model.model.embed_tokens.weight
        tokens[:, 1] = 1
        for sign, worth in (("+", 1.0), ("-", -1.0)):
            tokens[tokenizer.convert_tokens_to_ids(sign), 0] = worth
        layer = model.model.layers[0].self_attn
        layer.v_proj.weight.copy_(torch.eye(8))
        layer.o_proj.weight.copy_(torch.eye(8))
        model.score.weight[0, 0] = 1
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def pair(number, good, bad, *, swapped=False):
    chosen, rejected = "+" * good + " so", "-" * bad + " so"
    chosen, rejected = (rejected, chosen) if swapped else (chosen, rejected)
    return {"prompt": f"question {number}", "chosen": chosen, "rejected": rejected}


def rewards(folder, rows, side):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model, tokenizer = (
        of.from_pretrained(folder) for of in (AutoModelForSequenceClassification, AutoTokenizer)
    )
    texts = [f"<|user|>{row['prompt']}</s><|assistant|>{row[side]}</s>" for row in rows]
    with torch.inference_mode():
        return np.array(
            [
                float(model.eval()(**tokenizer(text, add_special_tokens=False, return_tensors="pt")).logits)
                for text in texts
            ]
        )


def ranked(folder, rows, scorer=None, **options):
    told = {"classifier": str(folder), "progress": False, "count_tokens": False, **options}
    return dp.score(rows, scorers=scorer or PreferenceMargin(), **told).rankings["preference_margin"]


def test_margins_are_those_of_a_plain_loop(knows_better):
    rows = [pair(number, 1 + number % 4, 1 + number % 3, swapped=number == 5) for number in range(9)]
    expected = rewards(knows_better, rows, "chosen") - rewards(knows_better, rows, "rejected")
    found = ranked(knows_better, rows)
    np.testing.assert_allclose(found.values, expected, atol=1e-5)
    assert (found.values > 0).tolist() == [number != 5 for number in range(9)]
    small = ranked(knows_better, rows, PreferenceMargin(keep="small"))
    np.testing.assert_allclose(small.values, -np.abs(expected), atol=1e-5)
    middling = ranked(knows_better, rows, PreferenceMargin(keep="middling"))
    margin = middling.columns["margin"]
    places = [((margin < each).sum() + (margin <= each).sum() + 1) / 2 for each in margin]
    assert middling.values.tolist() == [-abs(place - 5) for place in places]
    several = [{**row, "rejected": ["--", row["rejected"], "---"]} for row in rows[:3]]
    best = np.max(
        [
            rewards(knows_better, [{**row, "rejected": each}], "rejected")[0]
            for row in several[:1]
            for each in row["rejected"]
        ]
    )
    np.testing.assert_allclose(ranked(knows_better, several).columns["rejected_reward"][0], best, atol=1e-5)


def planted(seed=0):
    """300 pairs, of which 30 have their sides exchanged."""
    drawn = np.random.default_rng(seed)
    swapped = set(drawn.choice(300, 30, replace=False).tolist())
    rows = [
        pair(number, drawn.integers(1, 9), drawn.integers(1, 9), swapped=number in swapped)
        for number in range(300)
    ]
    return rows, swapped


def test_planted_swaps_are_found_and_the_pairs_stay_whole(knows_better):
    rows, swapped = planted()
    told = {"classifier": str(knows_better), "progress": False}
    kept = dp.prune(rows, scorer="preference_margin", keep=270, **told)
    assert set(range(300)) - set(kept.indices.tolist()) == swapped
    sides_kept = kept.preference()
    assert len(sides_kept) == 270
    for row, one in zip(kept.indices.tolist(), sides_kept, strict=True):
        assert one["chosen"][0]["content"] == rows[row]["chosen"]
        assert one["rejected"][0]["content"] == rows[row]["rejected"]


def test_pairs_of_equal_sides_prefer_nothing(knows_better):
    rows = [pair(0, 2, 2), {"prompt": "a", "chosen": "b", "rejected": "b "}, pair(2, 3, 3)]
    kept = dp.prune(rows, scorer="preference_margin", classifier=str(knows_better), keep=1.0, progress=False)
    assert kept.indices.tolist() == [0, 2]
    assert kept.reason(1) == "dropped: the chosen and the rejected answer say the same"
    assert len(dp.prune(rows, scorer="random", keep=1.0, on_empty="keep", progress=False)) == 3
    some = [{**rows[0], "rejected": [rows[0]["chosen"], "--"]}]  # one of two differs
    assert len(dp.prune(some, scorer="random", keep=1.0, progress=False)) == 1


def test_rows_without_two_sides_are_refused(knows_better):
    rows = [{"prompt": f"a{number}", "response": "b"} for number in range(4)]
    with pytest.raises(
        DataPrunerError, match="reads the rejected side of a row, and rows of the layout 'prompt_comp"
    ):
        ranked(knows_better, rows)
    with pytest.raises(DataPrunerError, match="name one with"):
        dp.score([pair(0, 1, 1)], scorers="preference_margin", progress=False)


def test_the_sides_of_every_kind_of_pair():
    user, yes, no = (
        {"role": role, "content": text}
        for role, text in (("user", "q"), ("assistant", "y"), ("assistant", "n"))
    )
    for row in (
        {"prompt": "q", "chosen": "y", "rejected": "n"},
        {"chosen": [user, yes], "rejected": [user, no]},
        {"prompt": [user], "chosen": [yes], "rejected": [no]},
    ):
        (read,) = dp.load_samples([row]).iter_rows()
        chosen, (rejected,) = sides(read)
        assert [turn.content for turn in chosen.messages] == ["q", "y"]
        assert [turn.content for turn in rejected.messages] == ["q", "n"]
    (read,) = dp.load_samples([{"chosen": "q: y", "rejected": "q: n"}]).iter_rows()
    chosen, (rejected,) = sides(read)
    assert rejected.plain
    assert rejected.part("both") == "q: n"
    assert chosen.part("both") == "q: y"


@pytest.mark.slow
def test_what_is_kept_trains_in_trl(knows_better, tiny_llama, tmp_path):
    pytest.importorskip("trl", reason="the trl extra is not installed")
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    from tests.integrations.test_layouts_train import COMMON, train

    kept = dp.prune(
        planted()[0], scorer="preference_margin", classifier=str(knows_better), keep=40, progress=False
    )
    trainer = DPOTrainer(
        AutoModelForCausalLM.from_pretrained(tiny_llama),
        args=DPOConfig(output_dir=str(tmp_path), **COMMON),
        train_dataset=kept.preference(),
        processing_class=AutoTokenizer.from_pretrained(tiny_llama),
    )
    train(trainer)


@pytest.mark.slow
def test_votes_that_a_reward_model_keeps_train_in_trl(knows_better, tiny_llama, tmp_path):
    trl = pytest.importorskip("trl", reason="the trl extra is not installed")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tests.integrations.test_layouts_train import COMMON, train

    if hasattr(trl, "KTOTrainer"):
        config, trainer = trl.KTOConfig, trl.KTOTrainer
    else:
        from trl.experimental.kto import KTOConfig as config  # noqa: N813
        from trl.experimental.kto import KTOTrainer as trainer  # noqa: N813
    votes = [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
        for row in planted()[0][:60]
        for side in ("chosen", "rejected")
    ]
    told = {"classifier": str(knows_better), "per_group": "label", "progress": False}
    kept = dp.prune(votes, scorer="classifier", keep=40, **told).preference()
    assert sum(kept["label"]) == 20
    train(
        trainer(
            AutoModelForCausalLM.from_pretrained(tiny_llama),
            args=config(output_dir=str(tmp_path), **COMMON),
            train_dataset=kept,
            processing_class=AutoTokenizer.from_pretrained(tiny_llama),
        )
    )
