"""Rows on which a model, an embedder or a chat template fails: found, named, and left out where that is asked for."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import run_command
from hypothesis import given
from hypothesis import strategies as st

import datapruner as dp
from datapruner.errors import DataPrunerError
from datapruner.samples import load_samples
from datapruner.scorers import make_scorer
from datapruner.signals.failing import STREAK, Failing, RowsFailedError

BAD = "zebra"


def failing_on(bad):
    """What doubles a batch, and fails on one with a bad entry."""

    def run(batch):
        if found := set(batch) & bad:
            raise ValueError(f"cannot take {min(found)}\nfor a long reason")
        return [2 * entry for entry in batch]

    return run


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=12), st.sets(st.integers(0, 200), max_size=STREAK - 1)
)
def test_exactly_the_failing_rows_are_found_and_the_others_run_once_in_order(sizes, bad):
    rows = np.arange(sum(sizes)) * 10
    failing = Failing("the model", rows, collect=True)
    run, passed, start = failing_on(bad), [], 0
    for size in sizes:
        for some, doubled in failing.each(list(range(start, start + size)), run):
            assert doubled == [2 * entry for entry in some]
            passed += some
        start += size
    there = bad & set(range(start))
    assert passed == [place for place in range(start) if place not in bad]
    if not there:
        failing.end()
        return
    with pytest.raises(RowsFailedError) as error:
        failing.end()
    assert list(error.value.why) == [10 * place for place in sorted(there)]
    assert error.value.why[10 * min(there)] == f"ValueError: cannot take {min(there)}"


def test_the_first_is_an_error_where_rows_are_not_collected():
    failing = Failing("the model", np.arange(100) + 5)
    with pytest.raises(
        RowsFailedError, match="the model fails on row 48: ValueError: cannot take 43"
    ) as error:
        list(failing.each(list(range(64)), failing_on({43, 50})))
    assert isinstance(error.value.__cause__, ValueError)


@pytest.mark.parametrize("broken", [MemoryError(), RuntimeError("CUDA out of memory"), DataPrunerError("no")])
def test_what_is_no_rows_fault_passes_through(broken):
    def run(batch):
        raise broken

    with pytest.raises(type(broken)) as error:
        list(Failing("the model", collect=True).each([1, 2, 3], run))
    assert error.value is broken


def test_a_model_that_answers_no_more_is_no_reason_to_drop_all_that_is_left():
    failing = Failing("the model", np.arange(1000), collect=True)
    dead = []

    def run(batch):
        if dead:
            raise RuntimeError("device-side assert")
        return batch

    list(failing.each([0, 1, 2], run))
    dead.append(True)
    with pytest.raises(DataPrunerError, match=r"fails on 32 rows one after the other.*device-side assert"):
        list(failing.each(list(range(3, 900)), run))


def test_many_rows_in_a_row_may_fail_of_a_model_that_answers():
    failing = Failing("the model", collect=True)
    found = [some for some, _ in failing.each(list(range(200)), failing_on(set(range(20, 180))))]
    assert np.concatenate(found).tolist() == [*range(20), *range(180, 200)]


# Whole runs -------------------------------------------------------------------------------------------------------

PLANTED = [3, 11, 12]
RUNS: list[int] = []
"""Tokens of every run of the choosy model."""


def rows(planted=PLANTED, count=20):
    return [
        {
            "prompt": f"Say the {number}th thing about {'horses ' * (number % 5)}",
            "completion": f"Here is {BAD if number in planted else 'the'} answer number {number}",
        }
        for number in range(count)
    ]


@pytest.fixture
def choosy(tiny_llama, cache):
    """A tiny model that fails on every batch with a zebra, and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_llama).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    zebra = tokenizer(BAD, add_special_tokens=False)["input_ids"]

    def refuse(module, args, given):
        ids = given["input_ids"].flatten().tolist()
        RUNS.append(len(ids))
        if any(ids[at : at + len(zebra)] == zebra for at in range(len(ids))):
            raise RuntimeError("an index is out of range\nin some kernel")

    model.model.register_forward_pre_hook(refuse, with_kwargs=True)
    return model, tokenizer


def left(scores):
    """The rows that can be chosen."""
    return np.flatnonzero(scores.dropped_before()[0] < 0).tolist()


@pytest.mark.parametrize("packing", [True, False])
def test_a_language_model_s_failing_rows_are_dropped_and_the_others_have_their_bits(choosy, packing, caplog):
    given = {"model": choosy, "packing": packing, "progress": False, "dedup": False}
    found = dp.score(rows(), scorers=["perplexity", "ifd"], on_error="drop", **given)
    well = [row for row in range(20) if row not in PLANTED]
    assert left(found) == well
    alone = dp.score([rows()[row] for row in well], scorers=["perplexity", "ifd"], **given)
    for name in ("perplexity", "ifd"):
        assert found.rankings[name].values[well].tobytes() == alone.rankings[name].values.tobytes()
    said = "the language model fails on it: RuntimeError: an index is out of range"
    selection = found.select("perplexity", keep=5)
    assert [selection.reason(row) for row in PLANTED] == [f"dropped: {said}"] * 3
    assert selection.counts()["not_measured"] == 3
    assert "the language model fails on 3 of 20 rows, which were left out; row 3 first" in caplog.text


def test_what_was_measured_beside_a_failing_row_is_not_measured_again(choosy):
    given = {"model": choosy, "scorers": "perplexity", "progress": False, "on_error": "drop"}
    RUNS.clear()
    dp.score(rows(), **given)
    once = len(RUNS)
    dp.score(rows(), **given)
    # The failing rows are tried again, the others are not.
    assert 0 < len(RUNS) - once < once


def test_the_first_failing_row_is_named(choosy, tiny_llama):
    with pytest.raises(
        DataPrunerError, match=r"the language model fails on row \d+: RuntimeError.*on_error='drop'"
    ):
        dp.score(rows(), scorers="perplexity", model=choosy, progress=False)


def test_no_row_is_left_or_one_must_be_kept(choosy):
    given = {"scorers": "perplexity", "model": choosy, "progress": False, "on_error": "drop"}
    with pytest.raises(DataPrunerError, match="the language model fails on every row: RuntimeError"):
        dp.score(rows(range(20)), **given)
    with pytest.raises(
        DataPrunerError, match="row 11 is to be kept always, and the language model fails on it"
    ):
        dp.score(rows(), always_keep=[11], **given)
    with pytest.raises(DataPrunerError, match="18 rows are to be kept, but only 17 of 20 are left"):
        dp.prune(rows(), scorer="perplexity", model=choosy, keep=18, progress=False, on_error="drop")


@pytest.mark.parametrize("scorer", ["perplexity", "nearest_target"])
def test_rows_without_a_finite_number(tiny_llama, cache, tmp_path, scorer):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_llama).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    (odd,) = tokenizer("Z", add_special_tokens=False)["input_ids"]
    model.get_input_embeddings().weight.data[odd] = float("nan")
    said = [{**row, "completion": row["completion"].replace(BAD, "Z")} for row in rows()]
    given = {"model": (model, tokenizer), "scorers": scorer, "progress": False}
    if scorer == "nearest_target":
        (tmp_path / "target.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows([])[:2]))
        given["target"] = str(tmp_path / "target.jsonl")
    with pytest.raises(DataPrunerError, match="the model gives no finite"):
        dp.score(said, **given)
    found = dp.score(said, on_error="drop", **given)
    assert sorted(set(range(20)) - {*left(found)}) == PLANTED


@pytest.mark.parametrize("twins", ["together", "in_turn"])
def test_a_pruned_model_s_failing_rows(choosy, tiny_llama, twins):
    found = dp.score(
        rows(),
        scorers=make_scorer("paser", {"within": "cluster", "n_clusters": 2, "concepts": 0}),
        model=str(tiny_llama),
        pruned_model=choosy,
        embedder=Lengths(),
        twins=twins,
        on_error="drop",
        progress=False,
    )
    assert sorted(set(range(20)) - {*left(found)}) == PLANTED


class Lengths:
    """An embedder that takes everything."""

    identity = "lengths"

    def encode(self, texts):
        return np.array([[len(text), text.count("e"), 1] for text in texts], dtype=np.float32)


class Choosy(Lengths):
    """An embedder that takes no zebra."""

    identity = "choosy"

    def encode(self, texts):
        if any(BAD in text for text in texts):
            raise KeyError(BAD)
        return super().encode(texts)


def test_an_embedder_s_failing_rows(cache):
    found = dp.score(rows(), scorers="prototypes", embedder=Choosy(), on_error="drop", progress=False)
    assert sorted(set(range(20)) - {*left(found)}) == PLANTED
    with pytest.raises(DataPrunerError, match="the embedder fails on row 3: KeyError: 'zebra'"):
        dp.score(rows(), scorers="prototypes", embedder=Choosy(), progress=False)


class Blind(Lengths):
    """An embedder that gives no direction to zebras."""

    def __init__(self, gives: float, identity: str | None = None, word: str = BAD):
        self.gives, self.identity, self.word = gives, identity, word

    def encode(self, texts):
        found = np.array(super().encode(texts), np.float32)
        found[[self.word in text for text in texts]] = self.gives
        return found


@pytest.mark.parametrize("identity", [None, "blind"])
@pytest.mark.parametrize(
    ("gives", "said"),
    [(np.nan, "no finite vector"), (np.inf, "no finite vector"), (0.0, "a vector of zeros")],
)
def test_rows_of_which_an_embedder_gives_no_direction(cache, gives, said, identity):
    given = {"scorers": "prototypes", "embedder": Blind(gives, identity), "progress": False}
    with pytest.raises(DataPrunerError, match="Row 3 of the embeddings"):
        dp.score(rows(), **given)
    for _ in range(2):  # whether they are computed, or lie in the store
        found = dp.score(rows(), on_error="drop", **given)
        assert sorted(set(range(20)) - {*left(found)}) == PLANTED
        assert found.select(keep=4).reason(3) == f"dropped: the embedder fails on it: {said}"
    with pytest.raises(DataPrunerError, match=f"the embedder fails on every row: {said}"):
        dp.score(rows(), **{**given, "embedder": Blind(gives, identity, " ")}, on_error="drop")


def test_the_first_row_may_fail(cache):
    class First(Lengths):
        identity = None

        def encode(self, texts):
            if first in texts:
                raise ValueError("not this one")
            return super().encode(texts)

    first = load_samples(rows()).texts()[0]
    found = dp.score(rows(), scorers="prototypes", embedder=First(), on_error="drop", progress=False)
    assert left(found) == list(range(1, 20))


def test_an_embedder_that_fails_on_what_tells_its_answers(cache):
    class Broken(Lengths):
        identity = "broken"

        def encode(self, texts):
            raise KeyError("weights")

    for on_error in ("stop", "drop"):
        with pytest.raises(DataPrunerError, match=r"Broken\.encode fails on a text \(KeyError: 'weights'\)"):
            dp.score(rows(), scorers="prototypes", embedder=Broken(), on_error=on_error, progress=False)


def test_rows_that_the_chat_template_refuses(tiny_llama, cache):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_llama).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    tokenizer.chat_template = (
        "{% for message in messages %}{% if 'zebra' in message['content'] %}{{ raise_exception('no zebras here') }}"
        "{% endif %}{% endfor %}" + tokenizer.chat_template
    )
    given = {"model": (model, tokenizer), "scorers": "perplexity", "progress": False}
    with pytest.raises(DataPrunerError, match="no zebras here"):
        dp.score(rows(), **given)
    selection = dp.score(rows(), on_error="drop", **given).select("perplexity", keep=4)
    assert {row for row in range(20) if "the chat template fails on it" in selection.reason(row)} == {
        *PLANTED
    }
    assert "no zebras here" in selection.reason(3)


def test_pictures_that_cannot_be_read(tiny_vit, tmp_path, cache):
    import datasets
    from PIL import Image

    for number in range(6):
        Image.new("RGB", (16, 16), (40 * number, 9, 9)).save(tmp_path / f"{number}.png")
    (tmp_path / "4.png").write_bytes(b"no picture")
    paths = [str(tmp_path / f"{number}.png") for number in range(6)]
    held = datasets.Dataset.from_dict({"image": paths}).cast_column("image", datasets.Image())
    given = {"scorers": "prototypes", "embedder": str(tiny_vit), "progress": False}
    with pytest.raises(DataPrunerError, match="row 4"):
        dp.score(held, **given)
    found = dp.score(held, on_error="drop", **given)
    assert left(found) == [0, 1, 2, 3, 5]


def test_the_command_line_names_the_row_and_goes_on_where_it_may(
    tiny_llama, tmp_path, cache, monkeypatch, capfd, caplog
):
    from transformers import AutoTokenizer

    folder = tmp_path / "model"
    folder.mkdir()
    for path in tiny_llama.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = (
        "{% for message in messages %}{% if 'zebra' in message['content'] %}{{ raise_exception('no zebras here') }}"
        "{% endif %}{% endfor %}" + tokenizer.chat_template
    )
    tokenizer.save_pretrained(folder)
    source, out = tmp_path / "rows.jsonl", tmp_path / "out"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    words = ["prune", source, "--scorer", "perplexity", "--model", folder, "--keep", "5", "-o", out]
    ran = run_command(monkeypatch, capfd, *words)
    assert ran.code == 2
    assert "no zebras here" in ran.err
    assert not out.exists()
    ran = run_command(monkeypatch, capfd, *words, "--on-error", "drop")
    assert ran.code == 0
    assert "the chat template fails on 3 of 20 rows, which were left out; row 3 first" in caplog.text
    again = dp.load_selection(out)
    assert "the chat template fails on it" in again.reason(12)
    assert again.recipe.on_error == "drop"
