"""The runs of ``same_bytes.py``: command lines, and what is done from Python, by name.

Everything runs in a folder with ``sources/`` and writes to ``outs/NAME``, so that every path in it is relative.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np

VECTORS = "--embeddings sources/rows.npy"
ROWS = f"prune sources/rows.jsonl {VECTORS}"
DENSE = f"{ROWS} --model sources/dense"
TWINS = "--model sources/dense --pruned-model sources/pruned"
AIMED = "--scorer nearest_target --target sources/target.jsonl"
SCORE = f"score sources/rows.jsonl {VECTORS}"

COMMANDS = {
    # Each scorer; those that read vectors have them given.
    "concept_complexity": f"{ROWS} --scorer concept_complexity --keep 0.3 --report",
    "concept_complexity-easy": f"{ROWS} --scorer concept_complexity --set keep=easy --n-clusters 5 --keep 40 "
    "--seed 3",
    "prototypes": f"{ROWS} --scorer prototypes --keep 0.3",
    "prototypes-easy": f"{ROWS} --scorer prototypes --set keep=easy --set balance=0.2 --n-clusters 7 --keep 31",
    "k_center": f"{ROWS} --scorer k_center --set centres=0.2 --keep 0.25",
    "d2": f"{ROWS} --scorer d2 --set n_neighbors=6 --keep 0.3",
    "d2-of-losses": f"{DENSE} --scorer d2 --set scorer=perplexity --keep 0.3",
    "stratified": f"{ROWS} --scorer stratified --n-clusters 6 --keep 0.3",
    "topoprune": f"{ROWS} --scorer topoprune --set within=topic --manifold pca --keep 0.3",
    "topoprune-displacement": f"{ROWS} --scorer topoprune --set within=topic --set value=displacement "
    "--manifold pca --keep 0.3",
    "entanglement": f"{ROWS} --scorer entanglement --set within=topic --manifold pca --keep 0.3",
    "topoprune-umap": f"{ROWS} --scorer topoprune --manifold umap --n-neighbors 10 --keep 0.3",
    "feature_mapping": f"{ROWS} --scorer feature_mapping --set within=topic --target sources/target.jsonl "
    "--target-embeddings sources/target.npy --keep 0.3",
    "label_mapping": f"{ROWS} --scorer label_mapping --n-clusters 5 --target sources/target.jsonl "
    "--target-embeddings sources/target.npy --keep 0.3",
    "random": "prune sources/rows.jsonl --scorer random --keep 0.5 --seed 11",
    "length": "prune sources/rows.jsonl --scorer length --set shortest=true --keep 0.5",
    "unranked": "prune sources/rows.jsonl --scorer unranked --keep 0.5",
    "perplexity": f"{DENSE} --scorer perplexity --keep 0.3 --report",
    "perplexity-high": f"{DENSE} --scorer perplexity --set keep=high --keep 0.3 --no-packing --max-length 64",
    "mid_perplexity": f"{DENSE} --scorer mid_perplexity --keep 0.3",
    "el2n": f"{DENSE} --scorer el2n --keep 0.3",
    "grad_norm": f"{DENSE} --scorer grad_norm --set keep=low --keep 0.3",
    "ifd": f"{DENSE} --scorer ifd --keep 0.3",
    "ifd-low": f"{DENSE} --scorer ifd --set keep=low --set drop_above_one=false --keep 0.3",
    "donod": f"{DENSE} --scorer donod --keep 0.3",
    "donod-grow": f"{DENSE} --scorer donod --set don=grow --set length_correction=true --keep 0.3",
    "qtuning-tokens": f"{DENSE} --scorer qtuning --keep 0.4 --report",
    "qtuning-tokens-jsonl": f"{DENSE} --scorer qtuning --set token_keep=0.3 --keep 0.4 --format jsonl",
    "excess_loss": f"{DENSE} --reference-model sources/pruned --scorer excess_loss --set token_keep=0.3 --keep 0.5 "
    "--report",
    "excess_loss-of-rows": f"{DENSE} --reference-model sources/pruned --scorer excess_loss --set over=row "
    "--keep-tokens 900",
    "implicit-margin": "prune sources/pairs.jsonl --model sources/dense --reference-model sources/pruned "
    "--scorer preference_margin --set reward=implicit --keep 0.5",
    "nearest_target": f"{DENSE} {AIMED} --keep 0.3 --report",
    "nearest_target-embedding": f"{ROWS} {AIMED} --set representation=embedding --set selection=mean "
    "--target-embeddings sources/target.npy --keep 0.3",
    "nearest_target-sketch": f"{DENSE} {AIMED} --set representation=sketch --sketch-dimension 256 --keep 0.3",
    "nearest_target-gradient": f"{DENSE} {AIMED} --set representation=gradient --sketch-dimension 256 --keep 0.3",
    "k_center-gradient": "prune sources/rows.jsonl --model sources/dense --vectors gradient --sketch-dimension 256 "
    "--scorer k_center --keep 0.3",
    "response_noise": f"{DENSE} --scorer response_noise --keep 0.7",
    "paser": f"{ROWS} {TWINS} --scorer paser --keep 0.3 --report",
    "paser-in-turn": f"{ROWS} {TWINS} --twins in_turn --scorer paser --set within=topic --keep-tokens 900",
    "paser-divergences": f"{ROWS} --divergences sources/divergences.npy --scorer paser --keep 0.3",
    # Joined scorers.
    "combine-worst-rank": f"{DENSE} --scorer perplexity --scorer ifd --scorer prototypes --combine worst_rank "
    "--keep 0.3",
    "combine-mean-rank-within": f"{DENSE} --scorer el2n --scorer length --combine mean_rank "
    "--combine-within topic --keep 0.3",
    "combine-topsis-clusters": f"{DENSE} --scorer donod --scorer prototypes --combine topsis "
    "--combine-within cluster "
    "--n-clusters 4 --keep 0.3",
    # Each selector.
    "select-topk": f"{ROWS} --scorer concept_complexity --selector topk --keep 0.3",
    "select-group_quota": f"{ROWS} --scorer stratified --selector group_quota --selector-set floor_share=0.1 "
    "--keep 0.3",
    "select-ccs": f"{ROWS} --scorer prototypes --selector ccs --selector-set beta=0.2 --selector-set strata=8 "
    "--keep 0.3",
    "select-moderate": f"{ROWS} --scorer prototypes --selector moderate --keep 0.3",
    "select-eu_plane": f"{DENSE} --scorer qtuning --selector eu_plane --keep 0.3",
    "select-message_passing": f"{ROWS} --scorer d2 --selector message_passing --keep 30",
    "select-coverage": f"{ROWS} --scorer topoprune --manifold pca --set within=topic --selector coverage --keep 30",
    "select-paser": f"{ROWS} --scorer paser --divergences sources/divergences.npy --selector paser --keep 30",
    # Budgets.
    "budget-tokens": f"{ROWS} --scorer prototypes --keep-tokens 700",
    "budget-tokens-of-model": f"{DENSE} --scorer perplexity --keep-tokens 1500 --tokenizer sources/dense",
    "budget-per-group": f"{ROWS} --scorer prototypes --keep 0.3 --per-group topic",
    "budget-quotas": f"{ROWS} --scorer prototypes --keep 40 --per-group topic --quota maths=0.5 --quota code=7",
    "budget-quotas-tokens": f"{ROWS} --scorer length --keep-tokens 800 --per-group topic --quota maths=100 "
    "--quota code=0.1",
    "budget-lists": f"{ROWS} --scorer concept_complexity --keep 0.2 --always-keep must --never-keep never",
    # Cleaning.
    "clean": "clean sources/rows.jsonl --report",
    "clean-exact-bytes": "clean sources/rows.jsonl --match exact",
    "clean-loose": "clean sources/rows.jsonl --match loose --near-threshold 0.9 --near-ngram 2",
    "clean-numbers": "clean sources/rows.jsonl --near-numbers --near-threshold 0.6",
    "clean-semantic": f"clean sources/rows.jsonl {VECTORS} --dedup-semantic --semantic-eps 0.1",
    "clean-leaks": "clean sources/rows.jsonl --decontaminate sources/leaks.jsonl "
    "--decontaminate-columns text=question "
    "--decontaminate-share 0.4",
    "clean-lists": "clean sources/rows.jsonl --always-keep must --never-keep never --on-empty keep",
    "clean-context": "clean sources/chats.jsonl --similarity-context --format jsonl",
    "clean-refused": "clean sources/rows.jsonl --on-empty error",
    "prune-all-cleaning": f"{DENSE} --scorer ifd --dedup --dedup-semantic --decontaminate sources/leaks.jsonl "
    "--keep 0.4 --report",
    # What is read, and what is written.
    "chats": "prune sources/chats.jsonl --scorer length --keep 0.5 --format jsonl",
    "chats-of-model": "prune sources/chats.jsonl --scorer ifd --model sources/dense --keep 0.5 --last-turn-only",
    "chats-arrow": "prune sources/chats.jsonl --scorer el2n --model sources/dense --keep 0.5 --format arrow",
    "arrow": f"{ROWS} --scorer prototypes --keep 0.3 --format arrow",
    "jsonl": f"{ROWS} --scorer prototypes --keep 0.3 --format jsonl",
    "vectors-in-a-column": "prune sources/with_vectors.parquet --embedding-column vector --scorer prototypes "
    "--keep 0.3",
    "columns-named": "prune sources/with_vectors.parquet --columns question=topic,answer=question "
    "--scorer length --keep 0.3",
    "pairs": "prune sources/pairs.jsonl --scorer perplexity --model sources/dense --keep 0.5",
    "alpaca": "prune sources/alpaca.jsonl --scorer ifd --model sources/dense --keep 0.5",
    "texts": "prune sources/texts.csv --scorer perplexity --model sources/dense --keep 0.5 --per-group lang",
    "splits": "prune sources/splits --split train --scorer random --keep 0.5",
    "pictures": "prune sources/pictures --embeddings sources/pictures.npy --scorer concept_complexity --keep 0.5",
    "minilm": "prune sources/alpaca.jsonl --scorer concept_complexity --keep 0.5 --embed prompt",
    "embedder-of-language": "prune sources/alpaca.jsonl --scorer k_center --embedder sources/dense "
    "--pooling mean --keep 0.5",
    # Scores that are kept, and spent.
    "score": f"{SCORE} --model sources/dense --scorer perplexity --scorer concept_complexity --scorer donod "
    "--scorer d2",
    "score-select": "select outs/score --scorer donod --keep 0.4 --report",
    "score-select-quotas": "select outs/score --scorer concept_complexity --keep 50 --per-group topic "
    "--quota facts=0.2",
    "score-select-tokens": "select outs/score --scorer d2 --keep-tokens 600 --format jsonl",
    "score-paser": f"{SCORE} {TWINS} --scorer paser --scorer topoprune --set topoprune.within=topic --manifold pca",
    "score-paser-select": "select outs/score-paser --scorer paser --keep 33",
    # Recipes done again.
    "again-prune": "run outs/prune-all-cleaning/recipe.yaml --report",
    "again-select": "run outs/score-select-quotas/recipe.yaml",
    "again-paser": "run outs/paser-in-turn/recipe.yaml",
    "again-tokens": "run outs/qtuning-tokens-jsonl/recipe.yaml",
    # Verbs that compare and break down.
    "compare": f"compare sources/rows.jsonl {VECTORS} --model sources/dense --scorer perplexity --scorer prototypes "
    "--scorer donod --keep 0.3 --keep 20 --keep-tokens 500 --by topic --dedup",
    "compare-all": f"compare sources/rows.jsonl {VECTORS} {TWINS} --scorer all --manifold pca --keep 0.3 --no-report",
    "compare-stability": f"compare sources/rows.jsonl {VECTORS} --scorer concept_complexity --scorer d2 "
    "--stability --seeds 3 "
    "--second-embeddings sources/rows-second.npy --keep 0.3",
    "damage": f"damage sources/rows.jsonl {VECTORS} {TWINS} --by topic --by must --examples 2",
    # Told alone.
    "explain-row": "explain outs/prune-all-cleaning --row 20 --text",
    "explain-where": "explain outs/paser --where id=r010",
    "explain-scores": "explain outs/score --row 9 --scorer donod",
    "inspect": "inspect sources/chats.jsonl",
    "scorers": "scorers",
    # Refused, with one sentence.
    "refused-budget": f"{ROWS} --keep 1000",
    "refused-column": f"{ROWS} --keep 0.3 --per-group nothing",
    "refused-scorer": "prune sources/rows.jsonl --scorer nothing --keep 0.3",
}
TOLD = ("explain", "inspect", "scorers")
"""Verbs that write nothing."""


def words(name: str) -> list[str]:
    """The command line of a run, with the folder that it writes."""
    given = shlex.split(COMMANDS[name])
    return given if given[0] in TOLD else [*given, "-o", f"outs/{name}"]


def rebudget(out: Path) -> None:
    import datapruner as dp

    scores = dp.load_scores("outs/score")
    first = scores.select("perplexity", keep=0.5)
    first.save(out / "first")
    first.rebudget(keep=0.25).save(out / "quarter")
    first.rebudget(keep_tokens=900).save(out / "tokens")
    chosen = scores.select("d2", keep=44, per_group="topic", quotas={"maths": 10})
    chosen.save(out / "quotas", report=True)
    dp.load_scores(out.parent / "score").select("donod", keep=12).save(out / "arrow", format="arrow")
    saved = dp.load_selection(out / "quotas")
    (out / "told.txt").write_text(f"{saved.summary}\n{dp.explain(out / 'quotas', 9)}\n", encoding="utf-8")


def in_memory(out: Path) -> None:
    """Rows and vectors of this process, an object for the scorer, masks in place of columns."""
    import datapruner as dp
    from datapruner.scorers import Prototypes

    rows = dp.load_samples("sources/rows.jsonl").dataset
    vectors = np.load("sources/rows.npy")
    banned = np.zeros(len(vectors), dtype=bool)
    banned[::17] = True
    chosen = dp.prune(
        list(rows),
        embeddings=vectors,
        scorer=Prototypes(n_clusters=5),
        keep=0.4,
        dedup=("exact", "semantic"),
        never_keep=banned,
        always_keep=[2, 9],
        progress=False,
    )
    chosen.save(out / "prototypes", report=True)
    chosen.to_pandas().to_csv(out / "prototypes.csv", index=False)


def pictures_in_memory(out: Path) -> None:
    import datapruner as dp

    dp.prune(
        dp.load_samples("sources/pictures").dataset,
        embeddings=np.load("sources/pictures.npy"),
        scorer="k_center",
        keep=15,
        progress=False,
    ).save(out / "k_center", report=True)


def preference(out: Path) -> None:
    import datapruner as dp

    chosen = dp.prune("sources/pairs.jsonl", scorer="length", keep=0.5, progress=False)
    chosen.preference().to_json(out / "preference.jsonl")
    dp.prune("sources/chats.jsonl", scorer="length", keep=0.5, progress=False).conversation().to_json(
        out / "conversation.jsonl"
    )


def model_objects(out: Path) -> None:
    """A model and its tokenizer that are loaded already."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import datapruner as dp

    pair = (
        AutoModelForCausalLM.from_pretrained("sources/dense"),
        AutoTokenizer.from_pretrained("sources/dense"),
    )
    dp.prune("sources/rows.jsonl", scorer="ifd", model=pair, keep=0.3, progress=False).save(out / "ifd")


def compared(out: Path) -> None:
    import datapruner as dp

    made = dp.compare(
        "sources/rows.jsonl",
        embeddings="sources/rows.npy",
        scorers=["k_center", "concept_complexity"],
        selector="ccs",
        keep=[0.2, 0.4],
        by=["topic"],
        progress=False,
    )
    made.save(out / "compared")


def steady(out: Path) -> None:
    import datapruner as dp

    options = {"embeddings": "sources/rows.npy", "progress": False}
    made = dp.compare_stability(
        "sources/rows.jsonl", scorers=["prototypes", "random"], seeds=3, noise=(0.5,), **options
    )
    made.to_frame().to_csv(out / "stability.csv", index=False)
    made.save(out / "stability")


def damaged(out: Path) -> None:
    import datapruner as dp

    made = dp.damage(
        "sources/rows.jsonl",
        embeddings="sources/rows.npy",
        divergences="sources/divergences.npy",
        by="topic",
        n_clusters=5,
        progress=False,
    )
    made.save(out / "damage")


FROM_PYTHON: dict[str, Callable[[Path], None]] = {
    "python-rebudget": rebudget,
    "python-in-memory": in_memory,
    "python-pictures": pictures_in_memory,
    "python-preference": preference,
    "python-model-objects": model_objects,
    "python-compare": compared,
    "python-stability": steady,
    "python-damage": damaged,
}
"""What needs objects, or has no verb."""
