"""What pruning broke: damage planted for one kind of rows is found there; tables, files and the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import bootstrap

import datapruner as dp
from datapruner.errors import DataPrunerError
from tests.conftest import Ran, run_command, save_tiny_llama

KINDS = {"digits": "0123456789", "small": "abcdefghij", "capital": "KLMNOPQRST"}
PER_KIND = 20
N = PER_KIND * len(KINDS)
OF = np.repeat(np.arange(len(KINDS)), PER_KIND)


def rows() -> list[dict]:
    """Answers of letters that no other kind of rows has, behind questions of the same signs."""
    rng = np.random.default_rng(0)
    return [
        {
            "question": "".join(rng.choice(list("xyz ?"), size=12)),
            "answer": "".join(rng.choice(list(letters), size=int(rng.integers(8, 20)))),
            "capability": kind,
        }
        for kind, letters in KINDS.items()
        for _ in range(PER_KIND)
    ]


def vectors() -> np.ndarray:
    rng = np.random.default_rng(1)
    return (4 * np.eye(8)[OF] + 0.3 * rng.normal(size=(N, 8))).astype(np.float32)


@pytest.fixture(scope="module")
def dense(tmp_path_factory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("dense"))


@pytest.fixture(scope="module")
def blind(dense, tmp_path_factory) -> dict[str, Path]:
    """By kind, the model that no longer sees the letters of its answers, and is a little off everywhere."""
    import torch

    from datapruner.models import load_causal_lm

    made = {}
    for kind, letters in KINDS.items():
        model, tokenizer = load_causal_lm(str(dense))
        ids = [tokenizer.convert_tokens_to_ids(letter) for letter in letters]
        assert tokenizer.unk_token_id not in ids
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in model.model.layers.parameters():
                weight.add_(1e-3 * torch.randn(weight.shape, generator=generator))
            model.get_input_embeddings().weight[ids] = 0
        made[kind] = tmp_path_factory.mktemp(kind)
        model.save_pretrained(made[kind])
        tokenizer.save_pretrained(made[kind])
    return made


@pytest.fixture(scope="module")
def measured(dense, blind, tmp_path_factory):
    """The damage of each planting, by what was planted."""
    cache = tmp_path_factory.mktemp("cache")
    return {
        kind: dp.damage(
            rows(),
            model=str(dense),
            pruned_model=str(folder),
            by="capability",
            n_clusters=3,
            embeddings=vectors(),
            cache=cache,
            progress=False,
        )
        for kind, folder in blind.items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_planted_damage_comes_first(kind, measured):
    found = measured[kind]
    first, *others = found.by("capability")
    assert first.name == kind
    assert all(first.jsd_low > 10 * group.jsd_high for group in others)
    assert first.share > max(group.share for group in others)
    # The clusters are the capabilities, as planted in the vectors.
    worst = found.by()[0]
    assert worst.rows == PER_KIND
    assert {rows()[row]["capability"] for row in worst.typical} == {kind}
    assert found.cluster[list(worst.typical)].tolist() == [int(worst.name)] * 3


def test_groups_are_plain_means(measured):
    found = measured["digits"]
    assert found.rows.tolist() == list(range(N))
    for group in found.by("capability"):
        of = np.array([row["capability"] == group.name for row in rows()])
        assert group.rows == of.sum()
        assert group.jsd == pytest.approx(found.jsd[of].mean(), rel=1e-12)
        assert group.log_ppl == pytest.approx(found.log_ppl[of].mean(), rel=1e-12)
        assert group.pruned_log_ppl == pytest.approx(found.pruned_log_ppl[of].mean(), rel=1e-12)
        rise = np.maximum(found.pruned_log_ppl - found.log_ppl, 0)
        assert group.share == pytest.approx(rise[of].sum() / rise.sum(), rel=1e-9)
    for by in ("cluster", "capability"):
        held = found.by(by)
        assert [group.jsd for group in held] == sorted((group.jsd for group in held), reverse=True)
        assert sum(group.share for group in held) == pytest.approx(1)
        assert sum(group.rows for group in held) == N


def test_losses_are_those_of_the_two_models(measured, dense, blind):
    """One row, through transformers alone."""
    import torch

    from datapruner.models import load_causal_lm

    row = rows()[3]
    for folder, found in ((dense, "log_ppl"), (blind["digits"], "pruned_log_ppl")):
        model, tokenizer = load_causal_lm(str(folder))
        turns = [
            {"role": "user", "content": row["question"]},
            {"role": "assistant", "content": row["answer"]},
        ]
        ids = tokenizer.apply_chat_template(turns, tokenize=False)
        ids = tokenizer(ids, add_special_tokens=False, return_tensors="pt").input_ids
        start = tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
        start = len(tokenizer(start, add_special_tokens=False).input_ids)
        with torch.no_grad():
            told = torch.log_softmax(model(input_ids=ids).logits[0].double(), -1)
        nll = -told[torch.arange(start - 1, ids.shape[1] - 1), ids[0, start:]]
        assert getattr(measured["digits"], found)[3] == pytest.approx(float(nll.mean()), abs=1e-4)


def test_intervals_are_those_of_another_bootstrap(measured):
    found = measured["digits"]
    for group in found.groups:
        assert group.jsd_low <= group.jsd <= group.jsd_high
    for group in found.by("capability"):
        of = np.array([row["capability"] == group.name for row in rows()])
        other = bootstrap(
            (found.jsd[of],),
            np.mean,
            n_resamples=5000,
            method="percentile",
            random_state=np.random.default_rng(9),
        ).confidence_interval
        width = other.high - other.low
        assert group.jsd_low == pytest.approx(other.low, abs=0.15 * width)
        assert group.jsd_high == pytest.approx(other.high, abs=0.15 * width)


def test_many_rows_get_the_normal_interval(monkeypatch):
    from datapruner import intervals

    values = np.random.default_rng(0).beta(1, 6, size=400)
    drawn = intervals.mean_interval(values, 0)
    monkeypatch.setattr(intervals, "NORMAL_ROWS", 100)
    assert np.allclose(intervals.mean_interval(values, 0), drawn, atol=0.1 * (drawn[1] - drawn[0]))


def test_a_group_of_fewer_than_five_rows_has_no_interval(tmp_path, cache):
    data = [{"text": f"row {n}", "kind": "few" if n < 4 else "many"} for n in range(12)]
    jsd = np.random.default_rng(0).uniform(0, 0.5, 12)
    found = dp.damage(
        data, embeddings=np.eye(12), divergences=jsd, by="kind", n_clusters=2, progress=False, cache=cache
    )
    few, many = sorted(found.by("kind"), key=lambda group: group.rows)
    assert (few.rows, few.jsd_low, few.jsd_high) == (4, None, None)
    assert many.jsd_low < many.jsd < many.jsd_high
    line = next(line for line in found.describe().splitlines() if line.strip().startswith("few"))
    assert f"{jsd[:4].mean():.4f}" in line
    assert "[" not in line
    found.save(tmp_path / "out")
    held = json.loads((tmp_path / "out" / "damage.json").read_text())["groups"]
    assert next(group for group in held if group["name"] == "few")["jsd_low"] is None


def test_to_frame(measured):
    frame = measured["small"].to_frame()
    assert len(frame) == 6
    assert frame["by"].tolist() == ["cluster"] * 3 + ["capability"] * 3
    assert frame[frame["by"] == "capability"].iloc[0]["name"] == "small"
    assert (frame["jsd_low"] <= frame["jsd"]).all()


def test_by_what_it_was_not_broken_down(measured):
    with pytest.raises(DataPrunerError, match="known by cluster, capability, not by 'topic'"):
        measured["small"].by("topic")


def test_the_same_again(measured, dense, blind, tmp_path):
    again = dp.damage(
        rows(),
        model=str(dense),
        pruned_model=str(blind["small"]),
        by=["capability", "capability"],
        n_clusters=3,
        embeddings=vectors(),
        cache=tmp_path,
        progress=False,
        twins="in_turn",
    )
    assert again.groups == measured["small"].groups


HOSTILE = "\x1b[31mred\u202e\nteapot\u200b"


def hostile() -> list[dict]:
    return [
        {
            "question": f"{HOSTILE} q{row}",
            "answer": f"kettle {HOSTILE}",
            "kind": ["=1+1", HOSTILE, None][row % 3],
        }
        for row in range(N)
    ]


def given(source=None, **options):
    """The damage where divergences were measured before."""
    jsd = np.random.default_rng(2).uniform(0, 0.6, size=N)
    return dp.damage(
        hostile() if source is None else source,
        divergences=jsd,
        embeddings=vectors(),
        **{"by": "kind", "n_clusters": 3} | options,
    )


def test_hostile_text_is_escaped():
    found = given()
    told = found.describe(examples=2)
    assert all(character.isprintable() or character == "\n" for character in told)
    assert "\\x1b[31mred\\u202e⏎teapot\\u200b" in told
    assert "(none)" in told
    # Nothing of a row or of a value makes a line of its own: a head, and by group a title, heads, rows and examples.
    assert len(told.splitlines()) == 1 + 2 * 3 + 3 + 3 + 3 * 2
    assert found.excerpt(0).isprintable()
    assert len(given().describe(examples=-1).splitlines()) == 1 + 2 * 3 + 3 + 3


def test_without_models_losses_are_not_known():
    found = given()
    assert found.log_ppl is found.pruned_log_ppl is None
    assert all(group.log_ppl is None and group.pruned_log_ppl is None for group in found.groups)
    cells = [line.split() for line in found.describe(examples=0).splitlines() if line.rstrip().endswith("%")]
    assert len(cells) == 6
    assert all(cell[-3] == "-" for cell in cells)
    jsd = found.jsd
    for group in found.by("kind"):
        of = np.array([str(row["kind"] or "(none)") == group.name for row in hostile()])
        assert group.share == pytest.approx(jsd[of].sum() / jsd.sum())


def test_it_is_saved(tmp_path):
    found = given()
    found.save(tmp_path / "out")
    held = {file.name for file in (tmp_path / "out").iterdir()}
    assert held >= {"damage.json", "damage.csv", "rows.parquet"}
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
    saved = json.loads((tmp_path / "out" / "damage.json").read_text())
    assert [group["name"] for group in saved["groups"]] == [group.name for group in found.groups]
    assert str(tmp_path) not in (tmp_path / "out" / "damage.json").read_text()
    with (tmp_path / "out" / "damage.csv").open(newline="") as handle:
        table = list(csv.DictReader(handle))
    names = [line["name"] for line in table]
    assert "'=1+1" in names
    assert not any(cell.startswith(("=", "+", "-", "@")) for line in table for cell in line.values())
    assert [float(line["jsd"]) for line in table] == [group.jsd for group in found.groups]
    assert {line["log_ppl"] for line in table} == {""}
    parquet = tmp_path / "out" / "rows.parquet"
    assert pq.read_table(parquet).column("cluster").to_pylist() == found.cluster.tolist()
    again = dp.damage(hostile(), divergences=parquet, embeddings=vectors(), n_clusters=3, by="kind")
    np.testing.assert_array_equal(again.jsd, found.jsd)
    assert again.groups == found.groups
    kept = dp.prune(
        hostile(), scorer=dp.scorers.Paser(within="kind"), divergences=parquet, keep=5, tokenizer=None
    )
    assert len(kept.indices) == 5


def test_its_picture(tmp_path):
    pytest.importorskip("matplotlib")
    given().save(tmp_path / "out")
    assert (tmp_path / "out" / "damage.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_there_is_no_picture(tmp_path, monkeypatch):
    from datapruner.pruning_damage import result

    monkeypatch.setattr(result, "find_spec", lambda name: None)
    given().save(tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "checksums.txt",
        "damage.csv",
        "damage.json",
        "rows.parquet",
    ]


def test_it_is_saved_whole_or_not_at_all(tmp_path, monkeypatch):
    from datapruner.pruning_damage import result

    def full(*_):
        raise OSError(28, "No space left on device")

    found = given()
    monkeypatch.setattr(result, "write_csv", full)
    with pytest.raises(DataPrunerError, match="No space left"):
        found.save(tmp_path / "down" / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_foreign_folder_is_left_alone(tmp_path, overwrite):
    (tmp_path / "thesis.txt").write_text("do not lose this")
    (tmp_path / "damage.json").write_text("{}")
    with pytest.raises(DataPrunerError, match="other files"):
        given().save(tmp_path, overwrite=overwrite)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["damage.json", "thesis.txt"]


def test_an_earlier_damage_is_replaced(tmp_path):
    given().save(tmp_path / "out")
    with pytest.raises(DataPrunerError, match="overwrite"):
        given().save(tmp_path / "out")
    given(by=()).save(tmp_path / "out", overwrite=True)
    assert {
        group["by"] for group in json.loads((tmp_path / "out" / "damage.json").read_text())["groups"]
    } == {"cluster"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"keep": 0.3}, "takes no 'keep'"),
        ({"scorer": "paser"}, "takes no 'scorer'"),
        ({"by": "cluster"}, "rename that column"),
        ({"by": ["kin"]}, "'kind'"),
        ({"model": "no/where", "pruned_model": "no/where"}, "measured or given"),
    ],
)
def test_what_it_does_not_take(options, said):
    with pytest.raises(DataPrunerError, match=said):
        given(**options)


def test_a_column_that_is_not_there_is_refused_before_a_model_is_loaded(monkeypatch):
    from datapruner.signals import losses

    def loaded(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(losses, "open_language_model", loaded)
    with pytest.raises(DataPrunerError, match="'capability'"):
        dp.damage(rows(), model="no/where", pruned_model="no/where", by="capabilty", embeddings=vectors())


def test_the_module_does_not_hide_the_function():
    import datapruner.pruning_damage

    assert dp.damage is datapruner.pruning_damage.damage
    assert callable(dp.damage)


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """Run `datapruner damage` in this process, in a folder with rows, vectors and divergences."""
    place = tmp_path / "place"
    place.mkdir()
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    np.save(place / "E.npy", vectors())
    np.save(place / "jsd.npy", np.where(OF == 1, 0.5, 0.01))
    monkeypatch.chdir(place)
    monkeypatch.setenv("DATAPRUNER_CACHE", str(tmp_path / "cache"))

    def call(*arguments: object) -> Ran:
        line = ["damage", "rows.jsonl", "--embeddings", "E.npy", *map(str, arguments)]
        return run_command(monkeypatch, capfd, *line)

    return call


GIVEN = ["--divergences", "jsd.npy", "--n-clusters", 3]


def test_the_command_prints(run):
    ran = run(*GIVEN, "--by", "capability", "--examples", 0)
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0].startswith("What pruning changed in 60 rows: mean divergence 0.1733 nats")
    table = lines[lines.index("By capability, the most damaged first") :]
    assert table[2].split()[:3] == ["small", "20", "0.5000"]
    assert "row" not in ran.out.split("By cluster")[1].split("By capability")[0].replace("rows", "")
    assert sorted(file.name for file in Path().iterdir()) == ["E.npy", "jsd.npy", "rows.jsonl"]


def test_the_command_writes(run, dense, blind):
    models = ["--model", dense, "--pruned-model", blind["capital"], "--n-clusters", 3]
    ran = run(*models, "--by", "capability", "-o", "out")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.rstrip().endswith("out")
    saved = json.loads(Path("out/damage.json").read_text())
    assert next(group["name"] for group in saved["groups"] if group["by"] == "capability") == "capital"
    assert saved["recipe"]["source"] == "../rows.jsonl"
    quiet = run(*models, "-o", "again", "--quiet")
    assert quiet == Ran(0, "", "")
    first, second = (pq.read_table(f"{name}/rows.parquet") for name in ("out", "again"))
    assert first.equals(second)
    assert run("--divergences", "out/rows.parquet", "--n-clusters", 3).code == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ([], "--pruned-model with the model that was pruned"),
        (["--model", "anything"], "--pruned-model with the model that was pruned"),
        (["--pruned-model", "anything"], "--model with the dense model"),
        (["--model", "a", "--pruned-model", "b", *GIVEN], "measured or given"),
        ([*GIVEN, "--set", "degradation=loss"], "no --set"),
        ([*GIVEN, "--combine", "mean_rank"], "combine"),
        ([*GIVEN, "--by", "capabilty"], "'capability'?"),
        ([*GIVEN, "--by", "cluster"], "rename that column"),
        ([*GIVEN, "-o", "foreign"], "other files"),
        (["--divergences", "E.npy"], "one number for each of the 60 rows"),
        (["--model", "foreign", "--pruned-model", "foreign"], "foreign"),
    ],
)
def test_what_the_command_refuses(line, said, run):
    Path("foreign").mkdir()
    Path("foreign/thesis.txt").write_text("do not lose this")
    ran = run(*line)
    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.startswith("datapruner: ")
    assert len(ran.err.splitlines()) == 1
    assert said in ran.err
    assert [file.name for file in Path("foreign").iterdir()] == ["thesis.txt"]
