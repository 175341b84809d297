"""What can be refused before a model runs is refused before it runs, by every verb and in the same words."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml

import datapruner as dp
from datapruner.scorers import Combined
from datapruner.selection.selectors import EUPlaneSelector

N = 30
TOPICS = ["maths"] * 15 + ["code"] * 10 + ["facts"] * 5


def rows(**more):
    """Thirty rows; 15 of maths, 10 of code, 5 of facts, the last two copies of the third and fourth."""
    said = [f"Question {number} about {topic}" for number, topic in enumerate(TOPICS)]
    out = [
        {"question": text, "answer": f"Answer {number} in a few words", "topic": topic, **more}
        for number, (text, topic) in enumerate(zip(said, TOPICS, strict=True))
    ]
    for copy, of in ((28, 3), (29, 4)):
        out[copy] = {**out[of], "topic": "facts"}
    return out


class Unasked:
    """An embedder that nobody may ask."""

    def encode(self, texts):
        pytest.fail("the embedder ran")


@pytest.fixture
def unasked(tiny_llama):
    """A model that nobody may run, and its tokenizer, which may count."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    model.forward = lambda *args, **given: pytest.fail("the model ran")
    return model, AutoTokenizer.from_pretrained(tiny_llama)


PER_TOPIC = {"keep": 10, "per_group": "topic"}
BY_VECTORS = {
    "more rows than there are": ({"keep": 1000}, "1000 rows are to be kept, but the dataset has 30"),
    "more rows than cleaning leaves": (
        {"keep": 29, "dedup": True},
        "29 rows are to be kept, but only 28 of 30 are left after cleaning",
    ),
    "more rows than are allowed": (
        {"keep": 26, "never_keep": [0, 1, 2, 3, 4]},
        "26 rows are to be kept, but only 25 of 30 are left",
    ),
    "more tokens than there are": ({"keep_tokens": 10**9}, "keep_tokens is 1000000000, but the dataset has"),
    "too few tokens": ({"keep_tokens": 1}, "no row fits into 1 supervised tokens; the shortest has"),
    "no budget": ({}, "say how much to keep"),
    "two budgets": ({"keep": 3, "keep_tokens": 5}, "give either keep= or keep_tokens="),
    "a budget that is none": ({"keep": 1.5}, "keep is 1.5; as a fraction it must lie above 0"),
    "always-kept rows above the budget": (
        {"keep": 2, "always_keep": [1, 2, 3]},
        "the always-kept rows cost 3 rows, more than the budget of 2",
    ),
    "always-kept tokens above the budget": (
        {"keep_tokens": 20, "always_keep": [1, 2, 3, 4, 5]},
        "the always-kept rows cost .* tokens, more than the budget of 20",
    ),
    "a row both ways": ({"keep": 9, "always_keep": [1], "never_keep": [1]}, "row 1 is to be kept always and"),
    "a group's column": ({"keep": 9, "per_group": "subject"}, "no column 'subject'"),
    "a quota without a column": ({"keep": 9, "quotas": {"maths": 1}}, "quotas= needs per_group="),
    "a quota's name": (
        {**PER_TOPIC, "quotas": {"math": 2}},
        "given for 'math', which column 'topic' does not",
    ),
    "a quota's size": ({**PER_TOPIC, "quotas": {"facts": 6}}, "of 'facts' is 6 rows, but only 5 can be kept"),
    "a quota after cleaning": (
        {**PER_TOPIC, "quotas": {"facts": 4}, "dedup": True},
        "the quota of 'facts' is 4 rows, but only 3 can be kept",
    ),
    "a quota below what must stay": (
        {**PER_TOPIC, "quotas": {"maths": 1}, "always_keep": [0, 1]},
        "the quota of 'maths' is 1 rows, but its always-kept rows cost 2",
    ),
    "quotas above the budget": (
        {**PER_TOPIC, "quotas": {"maths": 8, "code": 8}},
        "at least 16 rows are kept",
    ),
    "quotas below the budget": (
        {"keep": 29, "per_group": "topic", "quotas": {"maths": 0.5}},
        "at most 23 rows are kept, which does not fit the budget of 29",
    ),
    "quotas in tokens": (
        {"keep_tokens": 90, "per_group": "topic", "quotas": {"maths": 10**6}},
        "the quota of 'maths' is 1000000 tokens, but only",
    ),
    "a selector's name": ({"keep": 9, "selector": "top_k"}, "there is no selector 'top_k'"),
    "a selector of groups": (
        {"keep": 9, "selector": "group_quota"},
        "'group_quota' needs groups with weights",
    ),
    "a selector of damage": ({"keep": 9, "selector": "paser"}, "'paser' needs groups with weights"),
    "a selector of a plane": (
        {"keep": 9, "selector": "eu_plane"},
        "needs log_ppl and entropy of every row and",
    ),
    "a selector of a graph": ({"keep": 9, "selector": "message_passing"}, "needs every row's neighbours"),
    "a selector of a walk": ({"keep": 9, "selector": "coverage"}, "needs the rows' places on a walk"),
    "a scorer's name": ({"keep": 9, "scorer": "protypes"}, "there is no scorer 'protypes'"),
    "two scorers": ({"keep": 9, "scorer": ["prototypes", "d2"]}, "one scorer chooses, not 2"),
    "a scorer without its model": ({"keep": 9, "scorer": "perplexity"}, "name the model that you will train"),
    "a scorer without its target": ({"keep": 9, "scorer": "feature_mapping"}, "name one with target="),
    "vectors from two places": (
        {"keep": 9, "embeddings": np.ones((N, 3)), "embedding_column": "vector"},
        "give embeddings= or embedding_column=",
    ),
    "a test set's split alone": (
        {"keep": 9, "decontaminate_split": "test"},
        "has no split 'test' beside 'train'",
    ),
    "a target's columns alone": (
        {"keep": 9, "target_columns": {"text": "question"}},
        "target_columns= is given, and no scorer of this run reads a target",
    ),
    "an adapter alone": ({"keep": 9, "adapter": "somewhere"}, "adapter= is given, and no model="),
    "a mask of another length": ({"keep": 9, "always_keep": np.ones(9, bool)}, "always_keep has 9 entries"),
    "a longer mask": ({"keep": 9, "never_keep": np.zeros(31, bool)}, "never_keep has 31 entries"),
    "a row beyond the end": ({"keep": 9, "never_keep": [40]}, "never_keep names row 40"),
    "a column of a scorer": (
        {"keep": 9, "scorer": Combined(["length", "prototypes"], within="subject")},
        "no column 'subject'",
    ),
}


@pytest.mark.parametrize("what", BY_VECTORS)
def test_prune_asks_no_embedder(what, cache):
    given, sentence = BY_VECTORS[what]
    with pytest.raises(dp.DataPrunerError, match=sentence):
        dp.prune(rows(), embedder=Unasked(), progress=False, **{"scorer": "k_center", **given})


BY_MODEL = {
    "more rows than there are": ({"keep": 1000}, "1000 rows are to be kept"),
    "more tokens than there are": ({"keep_tokens": 10**9}, "keep_tokens is 1000000000, but the dataset has"),
    "too few tokens": ({"keep_tokens": 1}, "no row fits into 1 supervised tokens"),
    "a quota's name": ({**PER_TOPIC, "quotas": {"math": 2}}, "given for 'math'"),
    "more rows than are answered": ({"keep": 30}, "30 rows are to be kept, but only 29 of 30 are left"),
    "a selector of groups": ({"keep": 9, "selector": "group_quota"}, "needs groups with weights"),
    "a selector of tokens": (
        {"keep": 9, "scorer": "donod", "selector": "eu_plane"},
        "log_ppl and entropy of every row and the loss of every token",
    ),
    "a column in the way": (
        {"keep": 9, "scorer": "qtuning"},
        "has a column 'labels' already, which token-pruned data needs",
    ),
    "a column in the way of a selector": (
        {"keep": 9, "scorer": "qtuning", "selector": EUPlaneSelector(token_keep=0.7)},
        "has a column 'labels' already",
    ),
}


@pytest.mark.parametrize("what", BY_MODEL)
def test_prune_runs_no_model(what, unasked, cache):
    given, sentence = BY_MODEL[what]
    held = rows(labels=1)
    held[7]["answer"] = ""
    with pytest.raises(dp.DataPrunerError, match=sentence):
        dp.prune(held, model=unasked, progress=False, **{"scorer": "perplexity", **given})


@pytest.mark.parametrize("selector", ["topk", "ccs", EUPlaneSelector(token_keep=1.0)])
def test_a_column_is_in_nobodys_way_where_no_token_is_pruned(selector, tiny_llama, cache, tmp_path):
    chosen = dp.prune(
        rows(labels="mine"),
        scorer="qtuning",
        selector=selector,
        keep=9,
        model=str(tiny_llama),
        progress=False,
    )
    chosen.save(tmp_path / "out")
    assert dp.load_selection(tmp_path / "out").dataset["labels"] == ["mine"] * 9


def test_scoring_writes_no_tokens(tiny_llama, cache, tmp_path):
    held = rows(labels="mine")
    scores = dp.score(held, scorers="qtuning", model=str(tiny_llama), progress=False)
    with pytest.raises(dp.DataPrunerError, match="has a column 'labels' already"):
        scores.select(keep=9).save(tmp_path / "out")
    assert len(scores.select(keep=9, selector="topk").dataset) == 9


STUDIES = {
    "compare: rows": (dp.compare, {"keep": [0.5, 1000]}, "1000 rows are to be kept"),
    "compare: tokens": (dp.compare, {"keep_tokens": 10**9}, "keep_tokens is 1000000000"),
    "compare: rows left": (dp.compare, {"keep": 29, "dedup": True}, "only 28 of 30 are left"),
    "compare: forced": (dp.compare, {"keep": 1, "always_keep": [1, 2]}, "the always-kept rows cost 2 rows"),
    "compare: selector": (dp.compare, {"selector": "coverage"}, "the rows' places on a walk"),
    "compare: column": (dp.compare, {"by": "subject"}, "no column 'subject'"),
    "compare: twice": (dp.compare, {"scorers": ["k_center", "k_center"]}, "'k_center' is named twice"),
    "compare: second vectors": (
        dp.compare,
        {"stability": True, "embedders": ["minilm", "minilm"], "embeddings": np.ones((N, 4))},
        "the vectors are given, so no embedder runs",
    ),
    "stability: rows": (dp.compare_stability, {"keep": 1000}, "1000 rows are to be kept"),
    "stability: selector": (dp.compare_stability, {"selector": "group_quota"}, "needs groups with weights"),
    "stability: forced": (dp.compare_stability, {"keep": 1, "always_keep": [1, 2]}, "cost 2 rows"),
    "score: column": (dp.score, {"per_group": "subject"}, "no column 'subject'"),
    "score: mask": (dp.score, {"never_keep": [99]}, "never_keep names row 99"),
    "score: none": (dp.score, {"scorers": []}, "name a scorer"),
    "clean: semantic": (
        dp.clean,
        {"dedup": ["semantic"], "scorers": None, "always_keep": [3], "never_keep": [3]},
        "row 3 is to be kept always and never",
    ),
}


@pytest.mark.parametrize("what", STUDIES)
def test_the_other_verbs_ask_no_embedder(what, cache):
    verb, given, sentence = STUDIES[what]
    asked = {"scorers": ["k_center"], "embedder": Unasked(), "progress": False, **given}
    if "embedders" in asked or asked.get("scorers") is None:
        asked = {name: value for name, value in asked.items() if value is not None and name != "embedder"}
    if verb is dp.clean:
        asked["embedder"] = Unasked()
    with pytest.raises(dp.DataPrunerError, match=sentence):
        verb(rows(), **asked)


def test_damage_asks_nobody(cache):
    given = {"divergences": np.full(N, 0.1), "embedder": Unasked(), "progress": False}
    with pytest.raises(dp.DataPrunerError, match="no column 'subject'"):
        dp.damage(rows(), by="subject", **given)
    with pytest.raises(dp.DataPrunerError, match=r"the shape \(29,\) .* 30 rows"):
        dp.damage(rows(), **{**given, "divergences": np.full(29, 0.1)})


RECIPES = {
    "the scorer that chooses": (
        {"scorer": "length"},
        r"has no scorer 'length'\. It has k_center, prototypes",
    ),
    "no scorer that chooses": ({}, "say which scorer is to choose: k_center, prototypes"),
    "more rows than there are": ({"scorer": "k_center", "keep": 1000}, "1000 rows are to be kept"),
    "a selector": ({"scorer": "k_center", "selector": {"name": "coverage"}}, "places on a walk"),
    "no budget": ({"scorer": "k_center", "keep": None}, "say how much to keep"),
    "a quota's name": (
        {"scorer": "k_center", "per_group": "topic", "quotas": {"math": 2}},
        "given for 'math', which column 'topic' does not hold",
    ),
}


@pytest.mark.parametrize("what", RECIPES)
def test_run_asks_no_embedder(what, tmp_path, cache, monkeypatch):
    """By name, so that what is asked for must not even be opened."""
    given, sentence = RECIPES[what]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows())))
    held = {"source": "./rows.jsonl", "keep": 9, "scorers": [{"name": "k_center"}, {"name": "prototypes"}]}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(held | {"embedder": "./nothing", **given}))
    with pytest.raises(dp.DataPrunerError, match=sentence):
        dp.run(tmp_path / "recipe.yaml", progress=False)


def test_a_comparison_of_all_leaves_out_whom_the_selector_does_not_fit(cache):
    vectors = np.random.default_rng(0).normal(size=(N, 8))
    found = dp.compare(
        rows(),
        scorers="all",
        embeddings=vectors,
        manifold="pca",
        selector="group_quota",
        keep=0.5,
        progress=False,
    )
    assert "needs groups with weights" in found.left_out["k_center"]
    assert {"stratified", "concept_complexity", "random", "length"} <= set(found.names)
