"""Comparisons of scorers: figures against scipy and scikit-learn, chance where there is nothing but chance."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import jaccard_score

import datapruner as dp
from datapruner import stability
from datapruner.errors import DataPrunerError
from datapruner.outputs import tables
from datapruner.scorers import Random, Ranking, Scorer
from datapruner.signals import Signals
from tests.conftest import command, without_progress

N = 400
KEEP = 0.3
CHANCE = KEEP / (2 - KEEP)


@dataclass(frozen=True)
class Projection(Scorer):
    """The first coordinate, and no seed."""

    name: ClassVar[str] = "projection"
    needs: ClassVar[frozenset[str]] = frozenset({"embedding"})

    def _score(self, signals: Signals) -> Ranking:
        return Ranking(np.asarray(signals["embedding"][:])[:, 0].astype(np.float64))


@dataclass(frozen=True)
class Constant(Scorer):
    """Nothing to rank by."""

    name: ClassVar[str] = "constant"
    needs: ClassVar[frozenset[str]] = frozenset()

    def _score(self, signals: Signals) -> Ranking:
        return Ranking(np.zeros(signals.num_rows))


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    words = [f"w{number}" for number in range(200)]
    return [
        {"question": " ".join(rng.choice(words, 6)), "answer": " ".join(rng.choice(words, 5 + i % 37))}
        for i in range(N)
    ]


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(12, 16))
    return (centres[rng.integers(12, size=N)] + 0.4 * rng.normal(size=(N, 16))).astype(np.float32)


def of(result, scorer, varied, noise=None):
    (record,) = [r for r in result.records if (r.scorer, r.varied, r.noise) == (scorer, varied, noise)]
    return record


# The figures


def test_noise_has_the_deviation_of_every_dimension(vectors):
    vectors = np.concatenate([vectors * np.arange(1, 17), np.full((N, 1), 5)], axis=1).astype(np.float32)
    spread = stability.deviations(vectors)
    np.testing.assert_allclose(spread, vectors.std(axis=0), rtol=1e-5, atol=1e-7)
    tall = np.tile(vectors, (20, 1))
    added = stability.with_noise(tall, 0.5 * spread, 0, 0) - tall
    np.testing.assert_allclose(added.std(axis=0), 0.5 * spread, rtol=0.05, atol=1e-6)
    np.testing.assert_allclose(added.mean(axis=0), 0, atol=0.03 * spread.max())
    # A draw differs in scale alone from level to level, and from draw to draw in shape.
    np.testing.assert_allclose(stability.with_noise(tall, spread, 0, 0) - tall, 2 * added, atol=1e-4)
    other = stability.with_noise(tall, 0.5 * spread, 0, 1) - tall
    assert abs(np.corrcoef(added[:, 0], other[:, 0])[0, 1]) < 0.05


def test_records_equal_runs_of_the_public_functions(rows, vectors, cache):
    """Seeds and noise, again by whole runs of `prune` on vectors that were disturbed here."""
    found = dp.compare_stability(
        rows, scorers="prototypes", keep=KEEP, seeds=3, noise=(0.5,), embeddings=vectors, seed=7
    )
    runs = [dp.prune(rows, scorer="prototypes", keep=KEEP, embeddings=vectors, seed=7 + s) for s in range(3)]
    pairs = list(combinations(runs, 2))
    overlaps = [jaccard_score(a.kept, b.kept) for a, b in pairs]
    record = of(found, "prototypes", "seed")
    assert record.comparisons == 3
    assert record.jaccard == pytest.approx(np.mean(overlaps))
    assert record.jaccard_sd == pytest.approx(np.std(overlaps, ddof=1))
    assert record.spearman == pytest.approx(np.mean([spearmanr(a.values, b.values)[0] for a, b in pairs]))
    assert record.chance == pytest.approx(CHANCE)
    overlaps = []
    for draw in range(3):
        noise = np.random.default_rng([7, draw]).standard_normal(vectors.shape, dtype=np.float32)
        moved = vectors + np.float32(0.5) * vectors.std(axis=0) * noise
        run = dp.prune(rows, scorer="prototypes", keep=KEEP, embeddings=moved, seed=7)
        overlaps.append(jaccard_score(run.kept, runs[0].kept))
    assert of(found, "prototypes", "noise", 0.5).jaccard == pytest.approx(np.mean(overlaps), abs=0.02)


# What is known beforehand


def test_random_is_chance_and_length_does_not_move(rows, vectors, cache):
    found = dp.compare_stability(
        rows, scorers=["random", "length", "concept_complexity"], keep=KEEP, embeddings=vectors
    )
    random = of(found, "random", "seed")
    assert random.comparisons == 10
    assert random.chance == pytest.approx(CHANCE)
    assert random.jaccard == pytest.approx(CHANCE, abs=0.03)
    assert random.spearman == pytest.approx(0, abs=0.06)
    length = of(found, "length", "seed")
    assert (length.jaccard, length.jaccard_sd, length.spearman) == (1, 0, pytest.approx(1))
    for name in ("random", "length"):
        record = of(found, name, "noise", 0.5)
        assert (record.jaccard, record.comparisons, record.note) == (None, 0, "reads no embedding")
    falls = [of(found, "concept_complexity", "noise", level).jaccard for level in stability.NOISE]
    assert 1 > falls[0] > falls[1] > falls[2] > CHANCE


def test_a_scorer_without_a_seed_moves_with_noise_alone(rows, vectors, cache):
    found = dp.compare_stability(rows, scorers=Projection(), keep=KEEP, embeddings=vectors, noise=(1,))
    assert of(found, "projection", "seed").jaccard == 1
    noise = of(found, "projection", "noise", 1.0)
    # Signal and noise of equal variance: the ranks correlate by about 1 / sqrt(2).
    assert noise.spearman == pytest.approx(6 / np.pi * np.arcsin(0.5**0.5 / 2), abs=0.06)


def test_a_constant_score_has_no_rank_correlation(rows, cache):
    found = dp.compare_stability(rows, scorers=Constant(), keep=KEEP, seeds=2)
    record = of(found, "constant", "seed")
    assert (record.jaccard, record.spearman, record.spearman_sd) == (1, None, None)
    assert "-" in found.describe()


def test_two_embedders(rows, vectors, cache):
    class Encoder:
        def __init__(self, vectors):
            self.of = {row["question"]: vector for row, vector in zip(rows, vectors, strict=True)}

        def encode(self, texts):
            return [next(self.of[q] for q in text.splitlines() if q in self.of) for text in texts]

    turned = vectors[:, ::-1].copy()
    first, second = (
        dp.prune(rows, scorer=Projection(), keep=KEEP, embeddings=held) for held in (vectors, turned)
    )
    expected = jaccard_score(first.kept, second.kept)
    options = {"scorers": [Projection(), "length"], "keep": KEEP, "seeds": 2, "noise": ()}
    given = dp.compare_stability(rows, **options, embeddings=vectors, second_embeddings=turned)
    made = dp.compare_stability(
        rows, **options, embed="prompt", embedders=(Encoder(vectors), Encoder(turned))
    )
    for found in (given, made):
        record = of(found, "projection", "embedder")
        assert (record.comparisons, record.jaccard_sd) == (1, None)
        assert record.jaccard == pytest.approx(expected)
        assert of(found, "length", "embedder").note == "reads no embedding"
    assert given.embedders == ("given array", "given array")
    assert made.embedders == ("Encoder", "Encoder")


def test_dropped_and_forced_rows_count_for_what_they_are(rows, vectors, cache):
    doubled = [*rows[:300], *rows[:100]]
    found = dp.compare_stability(
        doubled,
        scorers=["random"],
        keep=100,
        dedup=["exact"],
        always_keep=np.arange(40),
        seeds=8,
        embeddings=vectors,
    )
    assert (found.rows, found.eligible, found.kept) == (400, 300, 100)
    overlap = 40 + 60 * 60 / 260
    record = of(found, "random", "seed")
    assert record.chance == pytest.approx(overlap / (200 - overlap))
    assert record.jaccard == pytest.approx(record.chance, abs=0.03)


# The comparison


def test_matrices_are_those_of_the_selections(rows, vectors, cache):
    found = dp.compare(rows, scorers=["prototypes", "concept_complexity"], keep=KEEP, embeddings=vectors)
    assert list(found.selections) == ["prototypes", "concept_complexity", "random", "length"]
    assert found.stability is None
    for (i, a), (j, b) in combinations(enumerate(found.selections.values()), 2):
        assert found.overlap[i, j] == found.overlap[j, i] == pytest.approx(jaccard_score(a.kept, b.kept))
        assert found.correlation[i, j] == pytest.approx(spearmanr(a.values, b.values)[0])
    assert (np.diag(found.overlap) == 1).all()
    alone = dp.prune(rows, scorer="prototypes", keep=KEEP, embeddings=vectors)
    assert np.array_equal(found.selections["prototypes"].kept, alone.kept)
    frame = found.to_frame()
    assert frame[["first", "second"]].to_numpy().tolist() == [
        list(pair) for pair in combinations(found.selections, 2)
    ]
    assert frame["chance"].tolist() == pytest.approx([CHANCE] * 6)
    assert set(frame["budget"]) == {"0.3 of the rows"}


def test_without_text_there_is_no_length(vectors, cache):
    found = dp.compare([{"v": vector.tolist()} for vector in vectors], keep=50, embedding_column="v")
    assert list(found.selections) == ["auto", "random"]
    held = [{"embedding": vector.tolist()} for vector in vectors]
    found = dp.compare_stability(held, keep=50, seeds=2, noise=(), second_embeddings=vectors[:, ::-1])
    assert found.embedders == ("column embedding", "given array")
    assert of(found, "auto", "embedder").comparisons == 1


def test_figures_of_a_table():
    assert [tables.figure(held) for held in (None, np.nan, -0.004, 0.126)] == ["-", "-", "0.00", "0.13"]


def test_the_selector_is_for_the_scorers_named(rows, vectors, cache):
    found = dp.compare(rows, scorers="prototypes", keep=KEEP, selector="moderate", embeddings=vectors)
    assert [one.selector.name for one in found.selections.values()] == ["moderate", "topk", "topk"]


def test_a_table_of_records(rows, cache):
    found = dp.compare_stability(rows, scorers=Random(), keep=KEEP, seeds=2, noise=(0.5,))
    frame = found.to_frame()
    assert frame["varied"].tolist() == ["seed", "noise"]
    assert frame["note"].tolist() == ["", "reads no embedding"]
    assert found.scorers == ("random",)


# The command line


@pytest.fixture
def place(tmp_path, rows, vectors, cache, monkeypatch):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    np.save(tmp_path / "a.npy", vectors)
    np.save(tmp_path / "b.npy", vectors[:, ::-1])
    np.save(tmp_path / "short.npy", vectors[:-1])
    monkeypatch.chdir(tmp_path)
    return tmp_path


COMMAND = ["compare", "rows.jsonl", "--scorer", "concept_complexity", "--embeddings", "a.npy"]


def test_end_to_end(place, monkeypatch, capsys):
    words = [*COMMAND, "--keep", "0.3", "--stability", "--seeds", "2", "--second-embeddings", "b.npy"]
    words.append("--no-report")
    assert command(monkeypatch, *words, "-o", "one") == 0
    said = capsys.readouterr()
    assert without_progress(said.err) == ""
    assert "(0.18 by chance)" in said.out
    assert "reads no embedding" in said.out
    assert "embedders: a.npy and b.npy" in said.out
    files = {file.name for file in (place / "one").iterdir()}
    assert files == {
        "comparison.json",
        "pairs.csv",
        "checksums.txt",
        "overlap.csv",
        "correlation.csv",
        "groups.csv",
        "balance.csv",
        "lengths.csv",
        "diversity.csv",
        "scores.csv",
        "disagreements.csv",
        "stability.json",
        "stability.csv",
        "stability.png",
    }
    held = json.loads((place / "one" / "comparison.json").read_text())
    assert [one["name"] for one in held["scorers"]] == ["concept_complexity", "random", "length"]
    (budget,) = held["budgets"]
    assert (held["rows"], budget["keep"], held["recipe"]["source"]) == (N, 0.3, "../rows.jsonl")
    assert budget["kept"] == {"concept_complexity": 120, "random": 120, "length": 120}
    table = list(csv.DictReader((place / "one" / "stability.csv").open()))
    records = json.loads((place / "one" / "stability.json").read_text())["records"]
    assert len(table) == len(records) == 3 * 5
    assert [float(row["jaccard"] or "nan") for row in table] == pytest.approx(
        [np.nan if record["jaccard"] is None else record["jaccard"] for record in records], nan_ok=True
    )
    matrix = list(csv.reader((place / "one" / "overlap.csv").open()))
    assert [row[0] for row in matrix] == ["scorer", "concept_complexity", "random", "length"]
    assert [[float(cell) for cell in row[1:]] for row in matrix[1:]] == budget["overlap"]

    assert command(monkeypatch, *words, "-o", "two", "--quiet") == 0
    assert capsys.readouterr().out == ""
    for name in files:
        assert (place / "one" / name).read_bytes() == (place / "two" / name).read_bytes(), name
    assert command(monkeypatch, *words, "-o", "one") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert command(monkeypatch, *COMMAND, "--keep", "50", "-o", "one", "--overwrite", "-q") == 0
    assert not (place / "one" / "stability.json").exists()


def test_embedders_by_their_paths(place, monkeypatch, capsys, tiny_sentence_transformer):
    """The same model twice moves nothing, and the files do not say where it lies."""
    words = ["compare", "rows.jsonl", "--scorer", "prototypes", "--keep", "0.3", "--stability", "-q"]
    words += ["--seeds", "2", "--noise", "1"]
    both = f"{tiny_sentence_transformer},{tiny_sentence_transformer}"
    assert command(monkeypatch, *words, "--embedders", both, "-o", "out") == 0
    text = (place / "out" / "stability.json").read_text()
    (record,) = [
        one
        for one in json.loads(text)["records"]
        if one["varied"] == "embedder" and one["scorer"] == "prototypes"
    ]
    assert (record["jaccard"], record["spearman"]) == (1, pytest.approx(1))
    assert json.loads(text)["embedders"] == ["st", "st"]
    assert f'"{tiny_sentence_transformer}' not in text


def test_losses_are_not_computed_again(rows, vectors, cache, monkeypatch, tiny_llama):
    """Seeds and noise need no more passes of a language model than a run without them."""
    from datapruner.signals import language_model

    calls = []
    measured = language_model.measure_language_model

    def counted(*arguments, **options):
        calls.append(options["what"])
        return measured(*arguments, **options)

    monkeypatch.setattr(language_model, "measure_language_model", counted)
    found = dp.compare_stability(
        rows[:60],
        scorers=["perplexity", "response_noise"],
        keep=KEEP,
        seeds=2,
        noise=(1,),
        model=tiny_llama,
        embeddings=vectors[:60],
    )
    assert calls == ["row", "response"]
    assert of(found, "perplexity", "noise", 1.0).note == "reads no embedding"
    assert of(found, "perplexity", "seed").jaccard == 1
    assert of(found, "response_noise", "noise", 1.0).jaccard < 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--keep", "0.3", "--scorer", "nothing"], "there is no scorer 'nothing'"),
        (["--keep", "0"], "keep"),
        (["--keep", "0.3", "--stability", "--noise", "-1"], "noise must be numbers above 0"),
        (["--keep", "0.3", "--stability", "--noise", "much"], "--noise takes numbers"),
        (["--keep", "0.3", "--stability", "--seeds", "1"], "seeds must be 2 or more"),
        (["--keep", "0.3", "--stability", "--seeds", "1001"], "seeds must be 1,000 at most, not 1,001"),
        (
            ["--keep", "0.3", "--stability", "--second-embeddings", "short.npy"],
            "short.npy holds 399 vectors, but the dataset has 400 rows",
        ),
        (["--keep", "0.3", "--stability", "--second-embeddings", "no.npy"], "there is no embeddings file"),
        (["--keep", "0.3", "--second-embeddings", "b.npy"], "--stability"),
        (["--keep", "0.3", "--stability", "--embedders", "minilm,other"], "--second-embeddings"),
        (["--keep", "0.3", "--stability", "--embedders", "minilm"], "--embedders must name two"),
    ],
)
def test_bad_input(place, monkeypatch, capsys, words, sentence):
    before = sorted(place.iterdir())
    assert command(monkeypatch, *COMMAND, *words, "-o", "out") == 2
    said = without_progress(capsys.readouterr().err)
    assert sentence in said
    assert said.startswith("datapruner: ")
    assert said.count("\n") == 1
    assert sorted(place.iterdir()) in (before, sorted([*before, place / "cache"]))


def test_a_folder_of_somebody_elses_stays(place, monkeypatch, capsys):
    for name in ("notes.txt", "stability.json"):
        folder = place / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_text("mine")
        assert command(monkeypatch, *COMMAND, "--keep", "5", "-o", folder, "--overwrite") == 2
        assert "holds other files" in capsys.readouterr().err
        assert (folder / name).read_text() == "mine"
    assert command(monkeypatch, *COMMAND, "--keep", "5", "-o", place / "a.npy") == 2


def test_what_compare_does_not_take(rows):
    with pytest.raises(DataPrunerError, match="compare takes no 'per_group'"):
        dp.compare(rows, scorers="random", per_group="question")
    with pytest.raises(DataPrunerError, match="compare_stability takes no 'keep_tokens'"):
        dp.compare_stability(rows, scorers="random", keep_tokens=5)
    with pytest.raises(DataPrunerError, match="leave embedder"):
        dp.compare_stability(rows, embedder="path", embedders=("minilm", "path"))
    with pytest.raises(DataPrunerError, match="made or given"):
        dp.compare_stability(rows, embedders=("minilm", "path"), second_embeddings=np.ones((N, 2)))
    held = [{"embedding": [1.0, float(number)]} for number in range(5)]
    with pytest.raises(DataPrunerError, match="no text to embed"):
        dp.compare_stability(held, keep=2, embedders=("minilm", "path"))
