"""Losses of a model held against a reference's: rows, tokens and masks against a plain loop over both models."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import datapruner as dp
from datapruner.errors import DataPrunerError
from datapruner.models import load_causal_lm
from datapruner.samples import load_samples
from datapruner.samples.rendering import render_many
from datapruner.scorers.excess_loss import ExcessLoss
from tests.conftest import command, save_tiny_llama

pytestmark = pytest.mark.usefixtures("one_thread", "cache")

N = 24


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two random models of one tokenizer."""
    folder = tmp_path_factory.mktemp("models")
    return [save_tiny_llama(folder / name, seed=seed) for name, seed in (("own", 0), ("better", 1))]


def rows(n=N):
    drawn = np.random.default_rng(0)
    words = ["the sum", "of two", "sorts", "a list", "why", "Zoë"]
    return [
        {"prompt": f"say {row}", "completion": " ".join(drawn.choice(words, drawn.integers(1, 7)))}
        for row in range(n)
    ]


def losses(folder, some):
    """The loss of every supervised token, by transformers alone."""
    model, tokenizer = load_causal_lm(str(folder))
    found = []
    for rendered in render_many(load_samples(some), tokenizer):
        ids = torch.from_numpy(rendered.input_ids).long()
        targets = torch.from_numpy(np.flatnonzero(rendered.supervised))
        with torch.no_grad():
            log_p = torch.log_softmax(model(input_ids=ids[None]).logits[0].double(), -1)
        found.append(-log_p[targets - 1, ids[targets]].numpy())
    return found


@pytest.fixture(scope="module")
def excess(models):
    """The excess loss of every supervised token."""
    return [own - other for own, other in zip(*(losses(folder, rows()) for folder in models), strict=True)]


def options(models, **more):
    own, better = map(str, models)
    return {"model": own, "reference_model": better, "progress": False, **more}


def labelled(selection):
    """Which of each kept row's supervised tokens stay in the loss, as the written data says."""
    return {row: mask for row, mask in enumerate(selection.token_masks) if len(mask)}


def test_rows_are_ranked_by_the_mean_excess_of_their_tokens(models, excess):
    ranking = dp.score(rows(), scorers="excess_loss", **options(models)).rankings["excess_loss"]
    np.testing.assert_allclose(ranking.values, [row.mean() for row in excess], atol=1e-5)
    for found, wanted in zip(ranking.state["token_values"], excess, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    whole = dp.score(rows(), scorers=ExcessLoss(token_keep=1.0), **options(models)).rankings["excess_loss"]
    assert whole.state == {}
    assert whole.values.tolist() == ranking.values.tolist()


def test_masks_are_those_of_a_plain_loop_over_all_rows(models, excess):
    flat = np.concatenate(excess)
    count = round(0.2 * len(flat))
    cut = np.sort(flat)[-count]
    wanted = [row >= cut for row in excess]
    lost = [row for row, mask in enumerate(wanted) if not mask.any()]
    assert lost, "the case needs a row that loses all"
    selection = dp.prune(
        rows(), scorer=ExcessLoss(token_keep=0.2), keep=1.0, always_keep=[lost[0]], **options(models)
    )
    assert sorted(selection.indices.tolist()) == sorted({*range(N)} - {*lost[1:]})
    for row, mask in labelled(selection).items():
        assert mask.tolist() == wanted[row].tolist()
    assert selection.supervised_tokens_kept.sum() == count + len(excess[lost[0]])
    assert selection.counts() == {"kept": N - len(lost) + 1, "no_tokens_left": len(lost) - 1}
    assert selection.reason(lost[1]).startswith("dropped: none of its tokens is among the 20 % of highest")
    assert "with its tokens at or above" in selection.reason(selection.indices[0])
    with pytest.raises(
        DataPrunerError, match=r"24 rows are to be kept, but only \d+ are left, and \d+ were dropped"
    ):
        dp.prune(rows(), scorer=ExcessLoss(token_keep=0.2), keep=N, **options(models))


def test_each_row_keeps_its_share_and_a_budget_takes_rows_first(models, excess):
    selection = dp.prune(rows(), scorer=ExcessLoss(over="row", token_keep=0.5), keep=9, **options(models))
    best = np.argsort([-row.mean() for row in excess], kind="stable")[:9]
    assert selection.indices.tolist() == sorted(best.tolist())
    for row, mask in labelled(selection).items():
        stay = max(1, round(len(mask) / 2))
        assert set(np.flatnonzero(mask)) == set(np.argsort(-excess[row], kind="stable")[:stay])


def test_it_is_written_saved_and_chosen_again_from_the_command_line(models, excess, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    own, better = map(str, models)
    told = ["rows.jsonl", "--scorer", "excess_loss", "--model", own, "--reference-model", better, "-q"]
    assert command(monkeypatch, "score", *told, "--out", "scores") == 0
    chosen = ["--selector", "top_tokens", "--selector-set", "token_keep=0.3", "--keep", "0.5"]
    assert command(monkeypatch, "select", "scores", *chosen, "--out", "kept", "-q") == 0
    kept = dp.load_selection("kept")
    cut = np.sort(np.concatenate(excess))[-round(0.3 * sum(map(len, excess)))]
    for row, data in zip(kept.indices.tolist(), kept.dataset, strict=True):
        supervised = excess[row] >= cut
        labels = [label for label in data["labels"] if label != -100]
        assert len(labels) == supervised.sum()
    assert (
        command(monkeypatch, "prune", *told, "--set", "token_keep=0.3", "--keep", "0.5", "--out", "pruned")
        == 0
    )
    assert command(monkeypatch, "run", "pruned/recipe.yaml", "--out", "again", "-q") == 0
    for other in ("pruned", "again"):
        assert dp.load_selection(other).indices.tolist() == kept.indices.tolist()
    assert "reference_model" in (tmp_path / "pruned" / "recipe.yaml").read_text()


def test_losses_that_the_reference_left_as_a_model_are_found_again(models, monkeypatch):
    import datapruner.models.twins

    own, better = map(str, models)
    dp.score(rows(), scorers="perplexity", model=better, progress=False)
    first = dp.score(
        rows(), scorers="excess_loss", model=(load_causal_lm(own)), reference_model=better, progress=False
    )
    dp.score(rows(), scorers="perplexity", model=own, progress=False)

    def refuse(*_, **__):
        raise AssertionError("the reference was opened")

    monkeypatch.setattr(datapruner.models.twins, "load_pruned_lm", refuse)
    found = dp.score(rows(), scorers="excess_loss", **options(models))
    assert found.rankings["excess_loss"].values.tolist() == first.rankings["excess_loss"].values.tolist()
    ahead = dp.plan(rows(), scorers="excess_loss", **options(models))
    assert [one.missing for one in ahead.steps if one.name == "reference"] == [0]


def test_a_reference_of_another_template_reads_the_tokens_of_the_model(models, excess, tmp_path):
    model, tokenizer = load_causal_lm(str(models[1]))
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "other")
    for reference in (tmp_path / "other", lambda: (model, None)):
        told = options(models, reference_model=reference)
        found = dp.score(rows(), scorers="excess_loss", **told).rankings["excess_loss"]
        np.testing.assert_allclose(found.values, [row.mean() for row in excess], atol=1e-5)


@pytest.fixture(scope="module")
def strange(models, tmp_path_factory):
    """A model of one more token, and one that reads too little."""
    from tokenizers import AddedToken

    folder = tmp_path_factory.mktemp("strange")
    model, tokenizer = load_causal_lm(str(models[1]))
    model.config.max_position_embeddings = 64
    for part in (model, tokenizer):
        part.save_pretrained(folder / "short")
    model.config.max_position_embeddings = 512
    tokenizer.add_tokens([AddedToken("another")])
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    for part in (model, tokenizer):
        part.save_pretrained(folder / "vocabulary")
    return folder


def test_a_reference_may_have_more_tokens(models, strange):
    told = options(models, reference_model=strange / "vocabulary")
    found = dp.score(rows(3), scorers="excess_loss", **told).rankings["excess_loss"].columns
    wanted = [row.mean() for row in losses(strange / "vocabulary", rows(3))]
    np.testing.assert_allclose(found["reference_log_ppl"], wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"reference_model": None},
            "the scorer 'excess_loss' holds the model's losses against a reference's: pass ref",
        ),
        ({"model": None}, "the scorer 'excess_loss' reads a language model's losses: name the model"),
        ({"scorers": "perplexity"}, "reference_model= is given, and no scorer of this run reads a reference"),
        ({"reference_model": "own"}, "reference_model= is the model of model= itself"),
        (
            {"model": "vocabulary"},
            "the tokenizers of the model and its reference differ in 1 tokens",
        ),
        (
            {"reference_model": "short"},
            "the reference model reads 64 tokens and rows are cut at 512; pass max_length=64",
        ),
        ({"reference_model": 3}, "a reference model is a name, the pair .* not a int"),
        ({"reference_model": "nowhere"}, "there is no model 'nowhere'"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(models, strange, given, said):
    places = {"own": models[0], "vocabulary": strange / "vocabulary", "short": strange / "short"}
    given = {
        name: str(places.get(value, value)) if isinstance(value, str) else value
        for name, value in given.items()
    }
    told = {"scorers": "excess_loss", **options(models), **given}
    with pytest.raises(DataPrunerError, match=said):
        dp.score(rows(3), **told)
