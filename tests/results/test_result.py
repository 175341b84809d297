"""Selections: budgets, reasons, rebudgeting, saving; over planted data with embeddings given."""

from __future__ import annotations

import filecmp
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from datasets import Dataset, DatasetDict, load_dataset, load_from_disk

import datapruner as dp
from datapruner.scorers import ConceptComplexity, Prototypes, Random
from datapruner.selection.selectors.ccs import CCS
from datapruner.selection.selectors.topk import TopK

N = 240


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(6, 16))
    return (centres[rng.integers(0, 6, N)] + 0.4 * rng.normal(size=(N, 16))).astype(np.float32)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(1)
    words = [f"w{number}" for number in range(500)]
    return [
        {
            "question": " ".join(rng.choice(words, 12)),
            "answer": " ".join(rng.choice(words, int(rng.integers(1, 40)))),
            "skill": "math" if row % 3 else "code",
            "kept": row,  # a column named like one of ours
        }
        for row in range(N)
    ]


@pytest.fixture
def source(tmp_path, rows, vectors):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    np.save(tmp_path / "vectors.npy", vectors)
    return tmp_path / "rows.jsonl"


def options(source):
    return {"embeddings": source.parent / "vectors.npy", "progress": False}


@pytest.mark.parametrize(
    "scorer", ["concept_complexity", "prototypes", "random", ConceptComplexity(n_clusters=5)]
)
@pytest.mark.parametrize("keep", [1, 7, 0.1, 0.3, 1.0, N])
def test_rows_are_exact_in_source_order_with_all_columns(source, rows, scorer, keep):
    selection = dp.prune(source, scorer=scorer, keep=keep, **options(source))
    expected = keep if isinstance(keep, int) else round(keep * N)
    assert len(selection) == expected == len(selection.dataset)
    assert selection.dataset.to_list() == [rows[row] for row in selection.indices]
    assert (np.diff(selection.indices) > 0).all()


def test_every_row_has_a_reason_that_says_what_became_of_it(source):
    selection = dp.prune(source, keep=0.3, **options(source))
    for row in range(N):
        reason = selection.reason(row)
        assert reason.startswith("kept" if selection.kept[row] else "dropped")
        cluster = selection.explain(row)["cluster"]
        assert f"that cluster {cluster} keeps" in reason
    assert sum(selection.counts().values()) == N
    with pytest.raises(dp.DataPrunerError, match="no row 240"):
        selection.reason(N)


def test_rebudget_equals_a_fresh_run(source):
    selection = dp.prune(source, keep=0.3, **options(source))
    for keep in (0.1, 5, 0.9):
        fresh = dp.prune(source, keep=keep, **options(source))
        assert np.array_equal(selection.rebudget(keep).kept, fresh.kept)


def test_rebudget_keeps_what_is_not_said_and_changes_what_is(source, tmp_path):
    def fresh(**budget):
        return dp.prune(source, scorer="length", count_tokens=True, progress=False, **budget)

    def same(one, other):
        assert one.budget == other.budget
        assert np.array_equal(one.kept, other.kept)

    quotas = {"code": 0.75}
    first = fresh(keep=0.3, per_group="skill", quotas=quotas)
    first.save(tmp_path / "out")
    for held, more in ((first, {}), (dp.load_selection(tmp_path / "out"), {"progress": False})):
        same(held.rebudget(0.4, **more), fresh(keep=0.4, per_group="skill", quotas=quotas))
        same(held.rebudget(per_group=False, **more), fresh(keep=0.3))
        same(held.rebudget(keep=50, quotas={}, **more), fresh(keep=50, per_group="skill"))
        same(
            held.rebudget(quotas={"math": 3}, **more), fresh(keep=0.3, per_group="skill", quotas={"math": 3})
        )
        # Quotas are of one column's groups: another column has none.
        same(held.rebudget(per_group="kept", **more), fresh(keep=0.3, per_group="kept"))
        with pytest.raises(dp.DataPrunerError, match="quotas= needs per_group="):
            held.rebudget(per_group=False, quotas=quotas, **more)
    same(fresh(keep=0.3).rebudget(per_group="skill", quotas=quotas), first)
    same(first.rebudget(keep_tokens=900, per_group=False), fresh(keep_tokens=900))


def test_per_group_and_quotas(source, rows):
    selection = dp.prune(source, keep=0.3, per_group="skill", scorer="concept_complexity", **options(source))
    skills = np.array([row["skill"] for row in rows])
    for skill in ("math", "code"):
        assert selection.kept[skills == skill].sum() == round(0.3 * (skills == skill).sum())
    selection = dp.prune(
        source,
        keep=0.3,
        per_group="skill",
        quotas={"code": 0.75},
        scorer="concept_complexity",
        **options(source),
    )
    assert selection.kept[skills == "code"].sum() == 60
    assert len(selection) == 72
    assert selection.shares() == {"code": (60, 80, "rows"), "math": (12, 160, "rows")}
    assert "code 0.75 of its own" in selection.budget.describe()


def tokens_of(rows, tokens):
    """Rows with so many supervised tokens each (the first of a text is not), counted by one that cuts at spaces."""
    return [
        {"text": " ".join(["w"] * (count + 1)), "group": group}
        for count, group in zip(tokens, rows, strict=True)
    ]


@pytest.fixture(scope="module")
def word_tokenizer(tmp_path_factory):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"[UNK]": 0, "w": 1}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder = tmp_path_factory.mktemp("words")
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("budget", [100, 5000, 19000, 49999])
def test_token_budgets_per_group_spend_what_the_groups_leave_over(word_tokenizer, budget):
    rows = tokens_of([f"g{number // 5}" for number in range(500)], [100] * 500)
    selection = dp.prune(
        rows, scorer="random", keep_tokens=budget, per_group="group", tokenizer=word_tokenizer
    )
    assert len(selection) == budget // 100
    assert all(selection.reason(row).startswith("kept") for row in selection.indices)


@pytest.mark.parametrize("per_group", [None, "group"])
def test_token_budgets_leave_less_than_the_shortest_dropped_row(word_tokenizer, per_group):
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 60, size=300)
    rows = tokens_of(rng.choice(["a", "b", "c"], size=300), tokens)
    for budget in (50, 700, 3000):
        selection = dp.prune(
            rows, scorer="length", keep_tokens=budget, per_group=per_group, tokenizer=word_tokenizer
        )
        left = budget - tokens[selection.kept].sum()
        assert 0 <= left < tokens[~selection.kept].min()
        assert sum(share[0] for share in selection.shares().values()) == budget - left


def test_always_kept_rows_without_supervised_tokens_stay(word_tokenizer):
    rows = [{"question": "w w", "answer": "w w w"} for _ in range(9)]
    rows[2] = {"question": "w", "answer": ""}
    rows[3] = {"question": "w", "answer": ""}
    selection = dp.prune(
        rows, scorer="random", keep_tokens=6, always_keep=[2], tokenizer=word_tokenizer, on_empty="keep"
    )
    assert selection.kept[2]
    assert selection.reason(3) == "dropped: no supervised tokens"
    assert selection.counts()["no_supervised_tokens"] == 1


def test_score_and_prune_refuse_each_others_arguments(source):
    with pytest.raises(dp.DataPrunerError, match="score takes no 'keep'"):
        dp.score(source, keep=0.3)
    with pytest.raises(dp.DataPrunerError, match="one `scorer`"):
        dp.prune(source, scorers=["random"], keep=0.3)


def test_errors_after_cleaning_name_the_source_row(rows):
    class Encoder:
        def encode(self, texts):
            vectors = np.ones((len(texts), 4))
            vectors[[number for number, text in enumerate(texts) if text == "odd one out"]] = np.nan
            return vectors

    texts = (
        [{"text": "same"}] * 9
        + [{"text": f"text {number}"} for number in range(9)]
        + [{"text": "odd one out"}]
    )
    with pytest.raises(dp.DataPrunerError, match=r"[Rr]ow 18 "):
        dp.prune(texts, keep=3, dedup=["exact"], embedder=Encoder(), progress=False)


def test_always_and_never(source):
    never = np.arange(N) % 5 == 0
    always = [1, 2, 3, 239]
    selection = dp.prune(
        source, scorer="random", keep=50, always_keep=always, never_keep=never, **options(source)
    )
    assert selection.kept[always].all()
    assert not selection.kept[never].any()
    assert len(selection) == 50
    assert selection.reason(1) == "kept: on the always-keep list"
    assert selection.reason(0) == "dropped: on the never-keep list"
    with pytest.raises(dp.DataPrunerError, match="row 0 is to be kept always and never"):
        dp.prune(source, scorer="random", keep=50, always_keep=[0], never_keep=never, **options(source))
    with pytest.raises(dp.DataPrunerError, match="always-kept rows cost 4"):
        dp.prune(source, scorer="random", keep=3, always_keep=always, **options(source))


def test_cleaning_goes_before_scoring_and_names_the_kept_row(tmp_path, rows, vectors):
    planted = [
        *rows,
        {**rows[3], "question": rows[3]["question"].replace(" ", "\n")},
        {**rows[5], "question": rows[5]["question"] + " tail"},
    ]
    given = np.concatenate([vectors, vectors[[3, 5]]])
    selection = dp.prune(
        planted, keep=1.0, dedup=["exact", "near", "semantic"], embeddings=given, progress=False
    )
    assert selection.reason(N) == "dropped: exact duplicate of row 3"
    assert "near-duplicate of row 5" in selection.reason(N + 1)
    assert np.isnan(selection.values[[N, N + 1]]).all()
    assert selection.counts()["exact_duplicate"] == 1
    told = selection.explain(N)
    assert told["score"] is None
    assert told["cluster"] is None
    assert told["reason"] == "dropped: exact duplicate of row 3"


def test_a_column_of_vectors_serves_beside_text(rows, vectors, tmp_path):
    table = Dataset.from_list(
        [{**row, "vector": vector.tolist()} for row, vector in zip(rows, vectors, strict=True)]
    )
    by_column = dp.prune(table, keep=0.3, embedding_column="vector", dedup=True, progress=False)
    by_array = dp.prune(rows, keep=0.3, embeddings=vectors, dedup=True, progress=False)
    assert np.array_equal(by_column.kept, by_array.kept)
    table.to_parquet(str(tmp_path / "rows.parquet"))
    dp.prune(tmp_path / "rows.parquet", keep=0.3, embedding_column="vector", progress=False).save(
        tmp_path / "out"
    )
    again = dp.run(tmp_path / "out" / "recipe.yaml", progress=False)
    assert np.array_equal(again.kept, dp.prune(rows, keep=0.3, embeddings=vectors, progress=False).kept)
    with pytest.raises(dp.DataPrunerError, match="Did you mean 'vector'"):
        dp.prune(table, keep=0.3, embedding_column="vectr", progress=False)


def test_decontamination_names_the_test_row(tmp_path, rows, vectors):
    test = tmp_path / "test.jsonl"
    test.write_text(
        json.dumps({"question": "unlike anything that is in the training data at all", "answer": "x"}) + "\n"
    )
    with test.open("a") as file:
        file.write(json.dumps({"question": rows[17]["question"], "answer": "y"}) + "\n")
    selection = dp.prune(rows, keep=1.0, decontaminate=str(test), embeddings=vectors, progress=False)
    assert selection.counts() == {"kept": N - 1, "contaminated": 1}
    assert "test row 1" in selection.reason(17)
    asked = tmp_path / "asked.jsonl"
    asked.write_text(json.dumps({"asked": rows[17]["question"]}) + "\n")
    options = {"keep": 1.0, "decontaminate": str(asked), "embeddings": vectors, "progress": False}
    again = dp.prune(rows, decontaminate_columns={"text": "asked"}, **options)
    assert np.flatnonzero(~again.kept).tolist() == [17]
    with pytest.raises(dp.DataPrunerError, match=r"the test set: .*decontaminate_columns={'text': 'COLUMN'}"):
        dp.prune(rows, **options)


@pytest.mark.parametrize("format", ["parquet", "jsonl", "arrow"])
def test_saving_gives_a_dataset_and_the_recipe_gives_it_again(source, rows, tmp_path, format):
    out = tmp_path / "out"
    selection = dp.prune(source, keep=0.3, seed=3, **options(source))
    selection.save(out, format=format)
    if format == "arrow":
        read = load_from_disk(str(out / "data"))["train"]
    else:
        read = load_dataset(str(out), split="train", cache_dir=str(tmp_path / "hf"))
    assert read.to_list() == [rows[row] for row in selection.indices]
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md",
        "checksums.txt",
        "data",
        "recipe.yaml",
        "selection.parquet",
    ]
    reasons = Dataset.from_parquet(str(out / "selection.parquet"), cache_dir=str(tmp_path / "hf")).to_dict()
    assert reasons["index"] == list(range(N))
    assert reasons["kept"] == selection.kept.tolist()
    assert reasons["reason"] == [selection.reason(row) for row in range(N)]
    recipe = yaml.safe_load((out / "recipe.yaml").read_text())
    assert recipe["source"] == "../rows.jsonl"
    assert recipe["embeddings"] == "../vectors.npy"
    again = dp.run(out / "recipe.yaml", progress=False)
    again.save(tmp_path / "again", format=format)
    assert_same_files(out, tmp_path / "again")
    assert str(tmp_path) not in (out / "README.md").read_text()


def assert_same_files(first: Path, second: Path):
    names = sorted(str(path.relative_to(first)) for path in first.rglob("*") if path.is_file())
    assert names == sorted(str(path.relative_to(second)) for path in second.rglob("*") if path.is_file())
    for name in names:
        # save_to_disk writes its own fingerprint, which has a digest of its own.
        own = ("state.json", "dataset_info.json") + ("checksums.txt",) * any("state.json" in n for n in names)
        if not name.endswith(own):
            assert filecmp.cmp(first / name, second / name, shallow=False), name


def test_other_splits_are_carried_over_untouched(rows, vectors, tmp_path):
    splits = DatasetDict({"train": Dataset.from_list(rows), "test": Dataset.from_list(rows[:9])})
    selection = dp.prune(splits, keep=12, embeddings=vectors, progress=False)
    selection.save(tmp_path / "out")
    read = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "hf"))
    assert {name: len(split) for name, split in read.items()} == {"train": 12, "test": 9}
    assert read["test"].to_list() == rows[:9]


def test_saved_scores_select_like_a_fresh_run(source, tmp_path):
    scorers = [ConceptComplexity(n_clusters=6), Prototypes(), Random()]
    dp.score(
        source, scorers=scorers, dedup=True, always_keep=[4], count_tokens=False, **options(source)
    ).save(tmp_path / "scores")
    scores = dp.load_scores(tmp_path / "scores")
    for scorer in scorers:
        for keep in (0.1, 30):
            fresh = dp.prune(source, scorer=scorer, keep=keep, dedup=True, always_keep=[4], **options(source))
            again = scores.select(scorer.name, keep=keep)
            assert np.array_equal(again.kept, fresh.kept)
            assert [again.reason(row) for row in range(N)] == [fresh.reason(row) for row in range(N)]
            assert again.explain(7) == fresh.explain(7)
    with pytest.raises(dp.DataPrunerError, match="say which scorer"):
        scores.select(keep=0.1)
    with pytest.raises(dp.DataPrunerError, match="Did you mean 'random'"):
        scores.select("randm", keep=0.1)
    source.write_text(source.read_text().replace("w1", "w2"))
    with pytest.raises(dp.DataPrunerError, match="has changed"):
        dp.load_scores(tmp_path / "scores")


def test_any_selector_works_with_any_score(source):
    for selector in ("ccs", "moderate", "topk", CCS(0.2, 10), TopK()):
        assert len(dp.prune(source, scorer="prototypes", selector=selector, keep=50, **options(source))) == 50
    with pytest.raises(dp.DataPrunerError, match="needs groups"):
        dp.prune(source, scorer="random", selector="group_quota", keep=50, **options(source))


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_load_dataset_never_gives_an_earlier_result_of_the_same_name(rows, tmp_path, format):
    first = dp.prune(rows, scorer="random", keep=20, seed=1)
    first.save(tmp_path / "out", format=format)
    load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "hf"))
    second = dp.prune(rows, scorer="random", keep=20, seed=2)
    assert not np.array_equal(first.kept, second.kept)
    second.save(tmp_path / "out", format=format, overwrite=True)
    second.save(tmp_path / "elsewhere" / "out", format=format)
    for folder in ("out", "elsewhere/out"):
        read = load_dataset(str(tmp_path / folder), split="train", cache_dir=str(tmp_path / "hf"))
        assert read.to_list() == [rows[row] for row in second.indices]


def test_an_earlier_result_is_replaced_only_on_request_and_other_files_never(source, tmp_path):
    selection = dp.prune(source, scorer="random", keep=5, **options(source))
    out = tmp_path / "out"
    selection.save(out)
    with pytest.raises(dp.DataPrunerError, match="earlier result"):
        selection.save(out)
    selection.rebudget(6).save(out, overwrite=True)
    assert len(load_dataset(str(out), split="train", cache_dir=str(tmp_path / "hf"))) == 6
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    with pytest.raises(dp.DataPrunerError, match="other files"):
        selection.save(mine, overwrite=True)
    assert [path.name for path in mine.iterdir()] == ["thesis.tex"]


def test_a_card_cannot_be_broken_by_names(rows, vectors, tmp_path):
    split = "a`b|c\n---"
    table = Dataset.from_list(rows)
    selection = dp.prune(table, keep=0.3, embeddings=vectors, per_group="skill", progress=False)
    object.__setattr__(selection.scores.samples, "source", split)
    from datapruner.outputs.card import dataset_card

    card = dataset_card(selection, "parquet", "0" * 16)
    assert card.count("\n---\n") == 1
    assert "`a'b/c⏎---`" in card
