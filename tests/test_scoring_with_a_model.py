"""Scorers of losses through the public face: one pass for all of them, and the user's model left as it was."""

from __future__ import annotations

import json
import logging

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import datapruner as dp
from datapruner import progress
from datapruner.errors import DataPrunerError
from datapruner.models import load_causal_lm
from datapruner.outputs.score_files import save_scores
from datapruner.samples import load_samples
from datapruner.samples.rendering import render_many
from datapruner.scores import load_scores
from datapruner.signals.language_model import forward, token_statistics
from tests.conftest import command, without_progress

pytestmark = pytest.mark.usefixtures("one_thread")

OF_ROWS = ["donod", "qtuning", "perplexity", "mid_perplexity", "el2n", "grad_norm"]
EVERYTHING = [*OF_ROWS, "ifd"]
N = 24


def chat(*turns):
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return {"messages": [{"role": roles[turn[0]], "content": turn[1:]} for turn in turns]}


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)

    def text(longest=40):
        return "".join(rng.choice(list("abcd efgh. 123"), int(rng.integers(3, longest))))

    made = [chat(f"u{text(12)}", f"a{text()}") for _ in range(N - 3)]
    made.append(chat("ufirst", f"a{text()}", "uthen", f"a{text()}"))
    made.append(chat("sbe brief", "uwhy", f"a{text()}"))
    made.append(made[0])
    return made


@pytest.fixture
def computed(monkeypatch):
    """Rows that run through the model, by pass; a row of several turns has several sequences."""
    seen = {"row": [], "response": []}
    own = forward.Pass.run_batch

    def counted(self, batch, waiting):
        seen[self.what] += [int(self.rows[item.place]) for item in batch]
        return own(self, batch, waiting)

    monkeypatch.setattr(forward.Pass, "run_batch", counted)
    return seen


def score(rows, **options):
    return dp.score(rows, **{"scorers": OF_ROWS, "progress": False, **options})


def values(scores):
    return {name: ranking.values.tobytes() for name, ranking in scores.rankings.items()}


# --- one pass -----------------------------------------------------------------------------------------------


VARIANTS = {
    "shrink": ("donod", "don=shrink"),
    "grow": ("donod", "don=grow"),
    "shrink, corrected": ("donod", "don=shrink", "length_correction=true"),
    "grow, corrected": ("donod", "don=grow", "length_correction=true"),
    "a step": ("donod", "step_size=0.001"),
    "any token": ("qtuning",),
    "the text's tokens": ("qtuning", "condition=both"),
    "whole rows": ("qtuning", "token_keep=1.0"),
}


def test_every_variant_of_a_method_is_reached_and_reads_the_same_pass(
    rows, computed, tiny_llama, tmp_path, monkeypatch
):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = [
        "prune",
        tmp_path / "rows.jsonl",
        "--model",
        tiny_llama,
        "--keep",
        "0.5",
        "--cache",
        tmp_path / "c",
    ]
    for name, (scorer, *parameters) in VARIANTS.items():
        sets = [part for parameter in parameters for part in ("--set", parameter)]
        assert command(monkeypatch, *line, "--scorer", scorer, *sets, "-o", tmp_path / name) == 0
    assert len(computed["row"]) == len(set(computed["row"])) > 0
    assert not computed["response"]
    of = {name: pq.read_table(tmp_path / name / "selection.parquet").to_pandas() for name in VARIANTS}
    np.testing.assert_array_equal(of["shrink"]["don"], -of["grow"]["don"])
    tokens = of["shrink"]["num_supervised_tokens"]
    for way in ("shrink", "grow"):
        corrected = of[f"{way}, corrected"]
        np.testing.assert_array_equal(corrected["don"], of[way]["don"])
        np.testing.assert_allclose(corrected["nod"], of[way]["nod"] * np.sqrt(tokens))
    kept = {name: tuple(table["kept"].tolist()) for name, table in of.items()}
    assert len({kept[name] for name in list(VARIANTS)[:4]}) == 4


def test_all_scorers_share_one_pass_and_its_responses(rows, tiny_llama, cache, computed):
    together = score(rows, scorers=EVERYTHING, model=str(tiny_llama))
    assert sorted(computed["row"]) == list(range(N - 1))  # the last row is the first again
    turns = [0, *range(1, N - 3), N - 3, N - 3, N - 2]
    assert sorted(computed["response"]) == turns
    for seen in computed.values():
        seen.clear()
    for name in EVERYTHING:
        one = score(rows, scorers=name, model=str(tiny_llama))
        assert values(one) == {name: together.rankings[name].values.tobytes()}
    assert computed == {"row": [], "response": []}
    # An object's records are its own: its forward may be another than the checkpoint's. Here they agree.
    model = load_causal_lm(str(tiny_llama))
    assert values(score(rows, scorers=EVERYTHING, model=model)) == values(together)
    assert sorted(computed["row"]) == list(range(N - 1))
    for seen in computed.values():
        seen.clear()
    assert values(score(rows, scorers=EVERYTHING, model=load_causal_lm(str(tiny_llama)))) == values(together)
    assert computed == {"row": [], "response": []}
    for scores in (together, one):
        for ranking in scores.rankings.values():
            assert ranking.values[0] == ranking.values[N - 1]


def test_only_what_is_needed_runs(rows, tiny_llama, cache, computed):
    score(rows, scorers=["random", "length"], model=str(tiny_llama))
    assert computed == {"row": [], "response": []}
    score(rows, scorers="perplexity", model=str(tiny_llama))
    assert not computed["response"]
    assert len(computed["row"]) == N - 1


def test_a_grown_dataset_runs_its_new_rows(rows, tiny_llama, cache, tmp_path, computed):
    grown = [chat("unew", "aone"), *rows]
    small = score(rows, model=str(tiny_llama))
    computed["row"].clear()
    large = score(grown, model=str(tiny_llama))
    assert computed["row"] == [0]
    whole = score(grown, model=str(tiny_llama), cache=tmp_path / "other")
    assert values(whole) == values(large)
    columns = large.rankings["donod"].columns
    for name, column in small.rankings["donod"].columns.items():
        assert column.tobytes() == columns[name][1:].tobytes()


def test_dropped_rows_do_not_run(rows, tiny_llama, cache, computed):
    rows[7] = {"messages": [{"role": "user", "content": "no answer"}]}
    scores = score(rows, model=str(tiny_llama), never_keep=[3, 5], dedup=["exact"], on_empty="drop")
    assert set(computed["row"]) == set(range(N - 1)) - {3, 5, 7}
    selection = scores.select("perplexity", keep=1.0)
    assert selection.explain(7)["reason"] == "dropped: no answer"
    assert np.isnan(scores.rankings["donod"].values[[3, 5, 7, N - 1]]).all()
    assert not np.isin([3, 5, 7, N - 1], selection.indices).any()


def test_token_columns_say_what_the_model_saw(rows, tiny_llama, cache, monkeypatch, caplog):
    seen = {}
    own = forward.Pass.run_batch

    def counted(self, batch, waiting):
        seen.update({int(self.rows[item.place]): (len(item.ids), len(item.targets)) for item in batch})
        return own(self, batch, waiting)

    monkeypatch.setattr(forward.Pass, "run_batch", counted)
    scores = score(rows, model=str(tiny_llama), max_length=40)
    seen[N - 1] = seen[0]
    tokens, supervised = np.array([seen[row] for row in range(N)]).T
    np.testing.assert_array_equal(scores.tokens["num_tokens"], tokens)
    np.testing.assert_array_equal(scores.tokens["num_supervised_tokens"], supervised)
    np.testing.assert_array_equal(scores.rankings["donod"].columns["num_supervised_tokens"], supervised)
    np.testing.assert_array_equal(scores.rankings["qtuning"].state["token_nll"].lengths, supervised)
    cut = int((tokens == 40).sum())
    assert cut
    (said,) = [record.getMessage() for record in caplog.records if "cut" in record.getMessage()]
    assert said.startswith(f"{cut} of {N} rows are longer than the model reads")
    caplog.clear()
    score(rows, model=str(tiny_llama))
    assert not caplog.records


def test_the_values_are_the_models(rows, tiny_llama, cache):
    """No cache, no packs, no tiles: transformers' own loss of every row."""
    scores = score(rows, scorers=["perplexity", "ifd"], model=str(tiny_llama), dtype="float64")
    model, tokenizer = load_causal_lm(str(tiny_llama), dtype="float64")
    samples = load_samples(rows)
    column = scores.rankings["perplexity"].columns["log_ppl"]
    for row, rendered in enumerate(render_many(samples, tokenizer)):
        ids = torch.from_numpy(rendered.input_ids)[None].long()
        labels = torch.where(torch.from_numpy(rendered.supervised), ids, -100)
        assert column[row] == pytest.approx(model(ids, labels=labels).loss.item(), rel=1e-5)
    ifd = scores.rankings["ifd"].columns
    np.testing.assert_array_equal(ifd["log_ppl"], column)
    ids = torch.tensor([tokenizer("<|assistant|>" + rows[1]["messages"][1]["content"] + "</s>")["input_ids"]])
    labels = ids.clone()
    labels[:, 0] = -100
    alone = model(ids, labels=labels).loss.item()
    assert ifd["response_log_ppl"][1] == pytest.approx(alone, rel=1e-5)
    assert ifd["ifd"][1] == pytest.approx(column[1] / alone, rel=1e-4)


def test_ways_of_running_agree(rows, tiny_llama, cache):
    expected = score(rows, scorers=EVERYTHING, model=str(tiny_llama))
    for options in ({"packing": False}, {"batch_tokens": 64}, {"packing": False, "batch_tokens": 4096}):
        found = score(rows, scorers=EVERYTHING, model=str(tiny_llama), **options)
        for name in ("perplexity", "el2n", "grad_norm", "donod", "ifd"):
            np.testing.assert_allclose(
                found.rankings[name].values, expected.rankings[name].values, rtol=1e-4, atol=1e-4
            )


# --- a pair of objects --------------------------------------------------------------------------------------


def state_of(model):
    return {
        "modes": [part.training for part in model.modules()],
        "gradients": [parameter.requires_grad for parameter in model.parameters()],
        "devices": [parameter.device for parameter in model.parameters()],
        "attention": model.config._attn_implementation,
        "config": model.config.to_dict(),
        "weights": [parameter.detach().clone().numpy().tobytes() for parameter in model.parameters()],
    }


@pytest.mark.parametrize("own", ["eager", "sdpa"])
def test_the_users_model_is_left_as_it_was(own, rows, tiny_llama, cache, monkeypatch):
    model, tokenizer = load_causal_lm(str(tiny_llama))
    model.set_attn_implementation(own)
    model.requires_grad_(True).train()
    model.model.layers[0].eval()
    before, template = state_of(model), tokenizer.backend_tokenizer.to_str()
    score(rows, scorers=EVERYTHING, model=(model, tokenizer))
    assert state_of(model) == before
    assert tokenizer.backend_tokenizer.to_str() == template

    def fail(*given, **options):
        raise RuntimeError("on purpose")

    monkeypatch.setattr(token_statistics, "output_statistics", fail)
    with pytest.raises(RuntimeError, match="on purpose"):
        score(rows, model=(model, tokenizer), max_length=50)
    assert state_of(model) == before
    assert model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=2, do_sample=False).shape == (1, 5)


def test_a_result_made_with_objects_says_so(rows, tiny_llama, cache, tmp_path):
    scores = score(rows, model=load_causal_lm(str(tiny_llama)))
    assert set(scores.recipe.in_memory) == {"source", "model"}
    selection = scores.select("qtuning", keep=0.5)
    selection.save(tmp_path / "out")
    with pytest.raises(DataPrunerError, match="in memory"):
        dp.run(tmp_path / "out" / "recipe.yaml")


# --- results ------------------------------------------------------------------------------------------------


@pytest.fixture
def source(rows, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


def test_saved_scores_select_the_same_without_a_model(source, tiny_llama, cache, tmp_path, computed):
    scores = score(str(source), scorers=EVERYTHING, model=str(tiny_llama))
    save_scores(scores, tmp_path / "scores")
    for seen in computed.values():
        seen.clear()
    loaded = load_scores(tmp_path / "scores")
    assert values(loaded) == values(scores)
    for name in EVERYTHING:
        for keep in (0.25, 0.6):
            one, other = (held.select(name, keep=keep) for held in (scores, loaded))
            np.testing.assert_array_equal(one.indices, other.indices)
            assert one.dataset.to_list() == other.dataset.to_list()
            pruned = dp.prune(str(source), scorer=name, model=str(tiny_llama), keep=keep, progress=False)
            np.testing.assert_array_equal(pruned.indices, one.indices)
    assert computed == {"row": [], "response": []}


def test_pruned_tokens_are_those_that_the_model_read(rows, tiny_llama, cache):
    for model in (str(tiny_llama), load_causal_lm(str(tiny_llama))):
        selection = dp.prune(rows, scorer="qtuning", model=model, keep=0.5, max_length=40, progress=False)
        _, tokenizer = load_causal_lm(str(tiny_llama))
        rendered = list(render_many(load_samples(rows), tokenizer, max_length=40))
        for row, kept in zip(selection.indices.tolist(), selection.dataset, strict=True):
            ids, labels = np.array(kept["input_ids"]), np.array(kept["labels"])
            np.testing.assert_array_equal(ids, rendered[row].input_ids)
            assert set(np.flatnonzero(labels != -100)) <= set(np.flatnonzero(rendered[row].supervised))
            np.testing.assert_array_equal(labels[labels != -100], ids[labels != -100])


def test_a_recipe_gives_the_same_bytes_again(source, tiny_llama, cache, tmp_path, computed, monkeypatch):
    for name in ("donod", "ifd"):
        selection = dp.prune(
            str(source), scorer=name, model=str(tiny_llama), keep=0.4, max_length=60, progress=False
        )
        selection.save(tmp_path / name)
        monkeypatch.setenv("DATAPRUNER_CACHE", str(tmp_path / f"empty {name}"))
        computed["row"].clear()
        dp.run(tmp_path / name / "recipe.yaml", progress=False).save(tmp_path / f"{name} again")
        assert computed["row"]
        for file in (tmp_path / name).rglob("*"):
            if file.is_file() and file.suffix in (".parquet", ".yaml"):
                other = tmp_path / f"{name} again" / file.relative_to(tmp_path / name)
                assert file.read_bytes() == other.read_bytes(), file


# --- what goes wrong ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"^the scorer 'donod' reads a language model's losses: name the model .*model="),
        ({"model": "nonsense"}, r"^there is no model 'nonsense'"),
        ({"model": 3}, r"^a model is a name or the pair \(model, tokenizer\) of transformers"),
        ({"dtype": "float8"}, "dtype"),
        ({"device": "moon"}, r"^there is no device 'moon'"),
        ({"device": "cpu", "device_map": "auto"}, "exclude each other"),
        ({"max_length": 1}, "max_length"),
        ({"batch_tokens": 0}, "batch_tokens"),
        ({"on_empty": "ask"}, "on_empty"),
    ],
)
def test_one_sentence_before_the_pass(options, message, rows, tiny_llama, cache, computed):
    given = {"model": str(tiny_llama), **options} if options else {}
    with pytest.raises(DataPrunerError, match=message) as caught:
        score(rows, **given)
    assert "\n" not in str(caught.value)
    assert not computed["row"]


def test_rows_without_targets(rows, tiny_llama, cache, computed, caplog):
    rows[5] = {"messages": [{"role": "user", "content": "no answer"}]}
    rows[9] = chat("u" + "x" * 60, "atoo late")
    with pytest.raises(
        DataPrunerError,
        match=r"^row 5 has no supervised token, so that there is nothing to score: it holds .*\(1 such.*drop",
    ):
        score(rows, model=str(tiny_llama), on_empty="keep")
    with pytest.raises(DataPrunerError, match=r"^row 5 has .*\(2 such rows\)"):
        score(rows, model=str(tiny_llama), max_length=30, on_empty="keep")
    with pytest.raises(DataPrunerError, match=r"^row 5 has no answer \(1 such rows\)"):
        score(rows, model=str(tiny_llama), max_length=30, on_empty="error")
    with pytest.raises(DataPrunerError, match=r"^row 9 has no supervised .*: what is left after the cut"):
        score(rows, model=str(tiny_llama), max_length=30, never_keep=[5], on_empty="error")
    with pytest.raises(DataPrunerError, match=r"^row 9 has no supervised token and is to be kept always"):
        score(rows, model=str(tiny_llama), max_length=30, always_keep=[9])
    assert not computed["row"]
    scores = score(rows, scorers="perplexity", model=str(tiny_llama), max_length=30)
    assert [text.partition(";")[0] for text in caplog.messages if "left out" in text][-2:] == [
        "1 of 24 rows have no answer, row 5 first, and were left out",
        "1 of 23 rows have no supervised token, row 9 first, and were left out",
    ]
    selection = scores.select(keep=1.0)
    assert not np.isin([5, 9], selection.indices).any()
    assert selection.explain(5)["reason"] == "dropped: no answer"
    assert selection.explain(9)["reason"] == "dropped: no supervised tokens"
    empty = [{"messages": [{"role": "user", "content": "hello"}]}] * 3
    with pytest.raises(DataPrunerError, match="no row has an answer: column 'messages'"):
        score(empty, model=str(tiny_llama))


def test_texts_have_losses_and_no_prompts(tiny_llama, cache):
    texts = [{"text": text} for text in ("the sum of two", "write a function", "five is three and two")]
    assert np.isfinite(score(texts, model=str(tiny_llama)).rankings["perplexity"].values).all()
    with pytest.raises(DataPrunerError, match=r"^row 0 is plain text without a prompt"):
        score(texts, scorers="ifd", model=str(tiny_llama))


def test_a_tokenizer_of_another_model(rows, tiny_llama, cache):
    from transformers import LlamaConfig, LlamaForCausalLM

    _, tokenizer = load_causal_lm(str(tiny_llama))
    small = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=20, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
        )
    )
    with pytest.raises(
        DataPrunerError, match=r"^row \d+ holds the token id \d+, but the model knows only 20"
    ):
        score(rows, model=(small, tokenizer))


def test_the_command_line_says_it_in_one_line(source, tiny_llama, cache, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(progress, "LONG", 0.0)
    common = ("--scorer", "donod", "--model", tiny_llama, "--batch-tokens", 64, "--on-empty", "error")
    assert command(monkeypatch, "prune", source, *common, "--keep", 5, "-o", tmp_path / "out") == 0
    said = capfd.readouterr()
    assert said.err.count("language model, 23 rows, ") == 1
    assert (tmp_path / "out" / "selection.parquet").exists()
    with source.open("a") as handle:
        handle.write(json.dumps({"messages": [{"role": "user", "content": "no answer"}]}) + "\n")
    assert command(monkeypatch, "prune", source, *common, "--keep", 5, "-o", tmp_path / "two") == 2
    said = capfd.readouterr()
    assert said.out == ""
    assert len(without_progress(said.err).splitlines()) == 1
    assert "row 24 has no answer" in said.err
    assert not (tmp_path / "two").exists()
    logging.getLogger("datapruner").handlers.clear()


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        (("a", "b"), {}, "pair"),
        ((None, None), {}, "pair"),
        (42, {}, "pair"),
    ],
)
def test_what_is_no_model_is_refused(cache, model, options, said):
    rows = [{"question": "a", "answer": "b"}]
    with pytest.raises(DataPrunerError, match=said):
        dp.score(rows, scorers="perplexity", model=model, **options)


def test_options_of_loading_are_refused_for_a_model_that_is_loaded(cache, tiny_llama):
    pair = load_causal_lm(str(tiny_llama), device="cpu")
    for name, value in {"dtype": "bfloat16", "device": "cpu", "quantize": "4bit"}.items():
        with pytest.raises(DataPrunerError, match=name):
            dp.score([{"question": "a", "answer": "b"}], scorers="perplexity", model=pair, **{name: value})
