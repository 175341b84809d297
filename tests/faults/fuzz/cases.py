"""Cases: a folder of inputs and a command line, valid first, then mutated; all of it follows from seed and number."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from tests.faults.fuzz import sources
from tests.faults.fuzz.mutations import VALUES, change, change_file, change_rows, change_words
from tests.faults.fuzz.tables import odd_table

OUT = "out"
VECTORS = ("concept_complexity", "prototypes", "k_center", "d2", "topoprune")
LOSSES = ("perplexity", "mid_perplexity", "ifd", "el2n", "grad_norm", "donod", "qtuning", "response_noise")
PLAIN = ("random", "length", "stratified", "auto", "unranked")
SETS = [
    "keep=hard",
    "keep=easy",
    "keep=low",
    "keep=high",
    "n_clusters=3",
    "temperature=0.1",
    "balance=0",
    "n_neighbors=3",
    "within=column:topic",
    "token_keep=0.3",
    "shortest=true",
    "centres=4",
    "variant=ifd",
    "weights=[1,2]",
    "step_size=0.1",
]
SELECTORS = (
    "topk",
    "group_quota",
    "power_allocation",
    "ccs",
    "moderate",
    "eu_plane",
    "message_passing",
    "coverage",
    "paser",
)
RARE = {
    "--device": "cuda|meta|cpu|none:9",
    "--device-map": "auto",
    "--quantize": "4bit|8bit",
    "--adapter": "llama|.",
    "--pooling": "last|mean",
    "--embedder-max-length": "1|100000",
    "--twins": "in_turn",
    "--second-embeddings": "vectors.npy",
    "--embedders": "embedder,llama|minilm",
    "--push-to-hub": "me/it|../..",
    "--noise": "0,inf|nan|-1",
    "--seeds": "0|1|3",
    "--pruned-model": "os:system|llama|vectors.npy",
    "--target": "rows.jsonl|target.jsonl|.",
    "--target-split": "x",
    "--decontaminate": ".|rows.jsonl|vectors.npy|me/it|text|json",
    "--decontaminate-columns": "text=text",
    "--model": ".|llama|minilm|rows.jsonl",
    "--embedder": "llama|.|rows.jsonl|me/it",
    "--tokenizer": "llama|.|me/it",
    "--embeddings": "rows.jsonl|rows.parquet|vectors.npy|jsd.npy",
    "--divergences": "vectors.npy|rows.parquet",
}


def reading(draw: Random) -> list[list[str]]:
    """Options about how rows are read and cleaned, each with a valid value."""
    return [
        ["--dedup"],
        ["--match", draw.choice(("exact", "text", "loose"))],
        ["--near-threshold", draw.choice(("0.5", "0.9", "1"))],
        ["--near-ngram", draw.choice(("1", "5"))],
        ["--near-numbers"],
        ["--similarity-context"],
        ["--on-empty", draw.choice(("drop", "error", "keep"))],
        ["--always-keep", "flag"],
        ["--never-keep", "never"],
        ["--decontaminate", "test.jsonl"],
        ["--decontaminate-ngram", "3"],
        ["--decontaminate-share", "0.2"],
        ["--seed", str(draw.randrange(2**32))],
        ["--split", "train"],
    ]


def roles(draw: Random) -> list[list[str]]:
    """Options that few sources fit."""
    return [
        [
            "--columns",
            draw.choice(("text=text", "prompt=instruction,answer=output", "question=prompt,answer=chosen")),
        ],
        ["--layout", draw.choice(("text", "alpaca", "messages", "preference", "prompt_completion"))],
        ["--row", "1"],
        ["--where", "topic=math"],
        ["--examples", "2"],
        ["--changed-source"],
        ["--overwrite"],
    ]


def measuring(draw: Random) -> list[list[str]]:
    return [
        ["--max-length", draw.choice(("2", "16", "64"))],
        ["--last-turn-only"],
        ["--no-packing"],
        ["--batch-tokens", draw.choice(("1", "64"))],
        ["--manifold", "pca"],
        ["--manifold-dimensions", draw.choice(("1", "3"))],
        ["--n-neighbors", "4"],
        ["--n-clusters", draw.choice(("1", "2", "5"))],
        ["--embed", draw.choice(("prompt", "response"))],
        ["--embedding-column", "vector"],
        ["--dedup-semantic"],
        ["--semantic-eps", "0.2"],
        ["--set", draw.choice(SETS)],
        [
            "--combine",
            draw.choice(("worst_rank", "mean_rank", "topsis")),
            "--scorer",
            "random",
            "--scorer",
            "length",
        ],
        ["--combine", "worst_rank", "--combine-within", "topic", "--scorer", "length", "--scorer", "random"],
        ["--dtype", draw.choice(("float32", "bfloat16"))],
    ]


def budgets(draw: Random) -> list[list[str]]:
    return [
        ["--per-group", draw.choice(("topic", "flag"))],
        ["--per-group", "topic", "--quota", draw.choice(("math=0.5", "code=1", "math=0"))],
        ["--selector", draw.choice(SELECTORS)],
        ["--selector", "ccs", "--selector-set", draw.choice(("strata=3", "beta=0.2", "beta=0"))],
        ["--selector", "topk", "--selector-set", "balance=0.5"],
        ["--format", draw.choice(("jsonl", "arrow", "parquet"))],
        ["--report"],
    ]


def rare(draw: Random) -> list[list[str]]:
    """Options that need what is not there, or that a verb does not have."""
    return [
        *([name, value] for name, values in RARE.items() for value in values.split("|")),
        ["--trust-code"],
        ["--stability"],
        *roles(draw),
        *budgets(draw),
    ]


def amount(draw: Random) -> list[str]:
    if draw.random() < 0.2:
        return ["--keep-tokens", draw.choice(("50", "300", "5000"))]
    return ["--keep", draw.choice(("0.1", "0.5", "0.9", "1.0", "1", "3", "10"))]


def some(draw: Random, options: list[list[str]], most: int = 3) -> list[str]:
    return [word for option in draw.sample(options, k=draw.randint(0, most)) for word in option]


class Case:
    """What one number of one seed is: inputs in a folder, and the words of a command line run there."""

    def __init__(self, seed: int, number: int, folder: Path, stock: Path) -> None:
        self.draw = Random(f"{seed}/{number}")
        self.folder, self.stock = folder, stock
        self.words: list[str] = []
        self.rows: list[Any] | None = None
        """The source's rows, where nothing of it was changed after it was written."""

    def build(self) -> None:
        draw = self.draw
        self.folder.mkdir(parents=True)
        draw.choice((self.fresh, self.fresh, self.fresh, self.fresh, self.saved, self.recipe))()
        if draw.random() < 0.25:  # an earlier result, which nothing may harm unless the run succeeds
            shutil.copytree(self.stock / "pruned" / OUT, self.folder / OUT, dirs_exist_ok=True)
            self.words += ["--overwrite"] if draw.random() < 0.9 and "-o" in self.words else []
        if draw.random() < 0.03:
            change_file(draw, self.stock.parent / "cache", [])
        mutations = draw.choice((0, 0, 0, 1, 1, 1, 2, 3))
        for _ in range(mutations):
            if draw.random() < 0.55:
                known = {
                    "select": budgets(draw),
                    "clean": reading(draw)[:-1],
                    "inspect": roles(draw)[:2],
                    "explain": [["--text"], ["--scorer", "random"]],
                    "run": [["--report"], ["--changed-source"], ["-q"]],
                }.get(self.words[0], [*reading(draw), *measuring(draw), *budgets(draw)])
                change_words(draw, self.words, known if draw.random() < 0.7 else rare(draw))
            else:
                self.change_inputs()
        self.words = [word.replace("\x00", "") for word in self.words]

    def change_inputs(self) -> None:
        aside = self.folder / OUT
        hidden = self.folder.with_name(self.folder.name + ".aside")
        if aside.exists():  # the earlier result is no input
            aside.rename(hidden)
        change_file(self.draw, self.folder, self.words)
        self.rows = None
        if self.draw.random() < 0.7:
            self.sign()
        if hidden.exists():
            hidden.rename(aside)

    def sign(self) -> None:
        """Make the digests of an earlier result fit what it is now, so that what reads it sees the change."""
        import xxhash

        was = self.folder / "was"
        if (was / "checksums.txt").is_file():
            names = [
                line.partition("  ")[2]
                for line in (was / "checksums.txt").read_text("utf-8", "replace").splitlines()
            ]
            here = [name for name in names if (was / name).is_file()]
            lines = [f"{xxhash.xxh3_128_hexdigest((was / name).read_bytes())}  {name}\n" for name in here]
            (was / "checksums.txt").write_text("".join(lines), "utf-8")

    def source(self) -> list[Any]:
        """Write a source; give its rows. Its name is the first word."""
        draw = self.draw
        form = draw.choice(sources.FORMATS)
        made: list[Any] = sources.rows(draw, arrow=sources.needs_arrow(form))
        for _ in range(draw.choice((0, 0, 0, 0, 0, 1, 1, 2))):
            made = copy.deepcopy(made)
            change_rows(draw, made)
        named = draw.choice(("rows", "rows", "daten ü", "-rows", "a[1]"))
        odd = [lambda table: odd_table(draw, table)] if draw.random() < 0.4 else []
        name = sources.write(made, form, self.folder, named, *odd)
        self.words.append(f"./{name}" if name.startswith("-") else name)
        return made

    def test_set(self, name: str, like: list[Any]) -> None:
        draw = self.draw
        made = sources.rows(draw, arrow=False, most=4)
        if like and draw.random() < 0.7:
            made = [draw.choice(like) for _ in range(3)]
        sources.write(made, "jsonl", self.folder, name)

    def give_vectors(self, name: str, number: int) -> None:
        draw = self.draw
        made = sources.vectors(draw, number)
        if draw.random() < 0.1:
            made[draw.randrange(number) if number else 0 :] = draw.choice((np.nan, np.inf, 0, 1e38, -1))
        if draw.random() < 0.05:
            made = made.astype(draw.choice((np.float16, np.float64, np.int8, np.complex64)))
        if draw.random() < 0.04:
            made = made[:-1] if draw.random() < 0.5 else made[..., None]
        np.save(self.folder / name, made)

    def fresh(self) -> None:
        draw = self.draw
        verb = draw.choice(("prune", "prune", "prune", "score", "clean", "compare", "damage", "inspect"))
        made = self.source()
        number = len(made)
        if verb == "inspect":
            self.words = [verb, *self.words, *some(draw, [*roles(draw)[:2], ["--examples", "5"]], 2)]
            return
        options = some(draw, reading(draw))
        if verb == "clean":
            options += some(draw, [["--no-dedup"], ["--pairs", "5"], ["--format", "jsonl"], ["--report"]], 2)
        else:
            scorers = [draw.choice((*PLAIN, *VECTORS, *LOSSES, "paser"))]
            if verb in ("score", "compare"):
                scorers += draw.sample((*PLAIN, *VECTORS, *LOSSES), k=draw.randint(0, 2))
            if draw.random() < 0.06:
                scorers = ["feature_mapping"]
            if verb == "damage":
                scorers = ["paser"]
            else:
                options += [word for name in scorers for word in ("--scorer", name)]
            options += some(draw, measuring(draw), 2)
            if set(scorers) & {*VECTORS, "paser", "feature_mapping"} or "cluster" in options:
                if draw.random() < 0.8:
                    options += ["--embeddings", "vectors.npy"]
                else:
                    options += ["--embedder", "embedder"]
                    shutil.copytree(self.stock / "embedder" / "st", self.folder / "embedder")
            if {"topoprune"} & set(scorers) and draw.random() < 0.97:
                options += ["--manifold", "pca"]
            if set(scorers) & {*LOSSES, "paser"}:
                options += ["--model", "llama"]
                shutil.copytree(self.stock / "llama", self.folder / "llama")
            elif draw.random() < 0.8:
                options += ["--tokenizer", str(self.stock / "llama")]
            if "paser" in scorers and draw.random() < 0.3:
                options += ["--pruned-model", str(self.stock / "pruned-llama")]
            elif "paser" in scorers:
                options += ["--divergences", "jsd.npy"]
                np.save(self.folder / "jsd.npy", np.abs(sources.vectors(draw, number, 1)[:, 0]).clip(0, 0.69))
            if "feature_mapping" in scorers:
                options += ["--target", "target.jsonl", "--target-embeddings", "target.npy"]
                options += ["--set", "within=column:topic"]
                self.test_set("target", made)
                self.give_vectors("target.npy", sum(1 for _ in (self.folder / "target.jsonl").open("rb")))
        if "--embeddings" in options or "--dedup-semantic" in options:
            options += (
                [] if {"--embeddings", "--embedder"} & set(options) else ["--embeddings", "vectors.npy"]
            )
            self.give_vectors("vectors.npy", number)
        if "--decontaminate" in options:
            self.test_set("test", made)
        if verb in ("prune", "compare"):
            options += amount(draw)
        if verb == "prune":
            options += some(draw, budgets(draw), 2)
        if verb == "compare":
            plain = "--no-report" if draw.random() < 0.9 else "--report"
            options += [
                plain,
                *some(draw, [["--by", "topic"], ["--stability", "--seeds", "2"], ["--keep", "0.7"]], 1),
            ]
        if draw.random() < 0.3:
            options += ["-q"]
        self.words = [verb, *self.words, "-o", OUT, *options]
        self.rows = made

    def saved(self) -> None:
        """A run over an earlier result."""
        draw = self.draw
        kept = draw.choice(("scored", "scored", "pruned", "kept", "tokens"))
        shutil.copytree(self.stock / kept, self.folder, dirs_exist_ok=True)
        (self.folder / OUT).rename(self.folder / "was")
        if draw.random() < 0.6 and kept == "scored":
            scorer = ["--scorer", draw.choice(("random", "prototypes", "length"))]
            self.words = ["select", "was", "-o", OUT, *scorer, *amount(draw), *some(draw, budgets(draw), 2)]
            return
        finds = [
            ["--row", "3"],
            ["--match", "the"],
            ["--where", "topic=math"],
            ["--row", "29"],
            ["--row", "30"],
        ]
        self.words = ["explain", "was", *draw.choice(finds), *(["--text"] if draw.random() < 0.6 else [])]

    def recipe(self) -> None:
        """A saved recipe, with other values."""
        import yaml

        draw = self.draw
        kept = draw.choice(("pruned", "kept", "tokens"))
        shutil.copytree(self.stock / kept, self.folder, dirs_exist_ok=True)
        (self.folder / OUT).rename(self.folder / "was")
        path = self.folder / "was" / "recipe.yaml"
        held = yaml.safe_load(path.read_text("utf-8"))
        for _ in range(draw.choice((0, 1, 1, 2))):
            if draw.random() < 0.6:
                change(draw, held)
            else:
                from datapruner.recipe import Recipe

                fitting = (
                    True,
                    False,
                    1,
                    2,
                    3,
                    0.5,
                    "topic",
                    "random",
                    "llama",
                    [0, 1],
                    {"rows": "0-3"},
                    {"math": 0.5},
                )
                value = draw.choice(VALUES if draw.random() < 0.4 else fitting)
                held[draw.choice(list(Recipe.model_fields))] = value
        path.write_text(yaml.dump(held, allow_unicode=True), "utf-8", errors="backslashreplace")
        self.sign()
        self.words = [
            "run",
            "was/recipe.yaml",
            "-o",
            OUT,
            *some(draw, [["--report"], ["--changed-source"], ["-q"]], 2),
        ]

    def describe(self) -> str:
        return json.dumps(self.words)
