"""The benchmark that tells a choice from a random draw: its sets, its top layers, its intervals."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import command

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def scripts():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import messy
        import top_layers
        import worth
        import worth_report

        yield messy, top_layers, worth, worth_report


@pytest.fixture(scope="module")
def moderated(scripts):
    return scripts[3].moderated


@pytest.fixture(scope="module")
def sets(scripts):
    """Small sets of made questions: the public data need not be there."""
    pytest.importorskip("reasoning_gym")
    return scripts[0].make_sets(700, seed=3, source="gym", held_out=70)


def test_census_is_what_was_asked_for(scripts, sets):
    messy = scripts[0]
    planted = Counter(row.planted for row in sets.messy)
    assert len(sets.messy) == 700
    assert [planted[kind] for kind in messy.COPY_KINDS] == messy.parts_of(70, [1] * 4)
    assert [planted[kind] for kind in messy.BROKEN_KINDS] == messy.parts_of(84, [1] * 8)
    assert planted["leaked"] == 14
    assert planted["empty"] + planted["one word"] == 21
    assert {row.planted for row in [*sets.clean, *sets.single, *sets.held_out]} == {""}
    assert len({row.capability for row in sets.single}) == 1
    assert sum(Counter(row.capability for row in sets.clean).values()) == 700
    own = Counter(row.capability for row in sets.messy if not row.planted.startswith(("copy", "leaked")))
    shares = sorted((count / sum(own.values()) for count in own.values()), reverse=True)
    assert shares == pytest.approx(messy.zipf_shares(7), abs=0.01)
    assert [shares[0], shares[-1]] == pytest.approx([0.4, 0.01], abs=0.01)


def test_what_a_source_says_twice_is_left_out(scripts):
    rng = np.random.default_rng(0)
    articles = [" ".join(f"w{word}" for word in rng.integers(0, 999, 30)) for _ in range(40)]
    first = [
        scripts[0].Row("a", f"Make a title for this article please: {text}", "A title.") for text in articles
    ]
    again = [
        scripts[0].Row("a", f"First sentence: {text} In a nutshell,", "A title.") for text in articles[::4]
    ]
    edited = scripts[0].Row(
        "a", f"Sum it up: {articles[1].replace(articles[1].split()[9], 'another')}", "Other."
    )
    assert scripts[0].distinct([*first, *again, edited]) == first
    # Rows of a template and a word share no more than the template.
    short = [
        scripts[0].Row("a", f"Is it of this kind or of another one: {word}", "Yes")
        for word in "abcdefghijklmnop"
    ]
    assert scripts[0].distinct(short) == short


def test_what_was_planted_is_there(sets):
    test = {row.prompt for row in sets.test}
    for row in sets.messy:
        if row.planted == "copy: exact":
            original = sets.messy[row.origin]
            assert (row.prompt, row.response) == (original.prompt, original.response)
            assert original.planted == ""
        if row.planted == "leaked":
            assert row.prompt in test
        if row.planted == "broken: echo":
            assert row.response == row.prompt


def test_held_out_rows_share_nothing_with_the_pool(scripts, sets):
    pool = [*sets.messy, *sets.clean, *sets.single]
    assert scripts[0].shared_answers(sets.held_out, pool) == 0
    assert not {row.prompt for row in sets.held_out} & {row.prompt for row in pool}
    assert len({row.capability for row in sets.held_out}) == 7


@pytest.mark.slow
def test_a_seed_makes_the_same_sets(scripts, sets):
    assert scripts[0].make_sets(700, seed=3, source="gym", held_out=70) == sets


@pytest.fixture(scope="module")
def tiny(tiny_llama):
    from datapruner.models import load_causal_lm

    model, tokenizer = load_causal_lm(str(tiny_llama), device="cpu")
    return model.float().eval(), tokenizer


@pytest.fixture
def rows(tiny):
    from finetune import Row

    rng = np.random.default_rng(0)
    size = tiny[0].config.vocab_size
    lengths = (5, 12, 9, 30)
    return [
        Row(rng.integers(1, size, n).astype(np.int32), np.arange(n) >= prompt)
        for n, prompt in zip(lengths, (2, 7, 0, 25), strict=True)
    ]


def with_states(top_layers, model, rows):
    """What the layers below the last give, one row at a time."""
    import torch

    lower = top_layers.part_of(model, slice(None, -top_layers.HELD_DEPTH))
    lower.model.norm = torch.nn.Identity()
    with torch.no_grad():
        return [
            row._replace(
                states=lower.model(input_ids=torch.tensor(row.ids)[None].long()).last_hidden_state[0].numpy()
            )
            for row in rows
        ]


def test_losses_above_the_states_are_the_whole_models(scripts, tiny, rows, one_thread, monkeypatch):
    import contextlib

    import torch

    top_layers, model = scripts[1], tiny[0]
    monkeypatch.setattr(top_layers, "fast", lambda *_: contextlib.nullcontext())
    head = top_layers.Head(model, None, "cpu")
    with torch.no_grad():
        found, counts = top_layers.losses_of(
            top_layers.top_of(model, 1), head, with_states(top_layers, model, rows), "cpu"
        )
        wanted = []
        for row in rows:
            ids = torch.tensor(row.ids).long()
            logits = model(input_ids=ids[None]).logits[0, :-1]
            losses = torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none")
            wanted.append(losses[torch.tensor(row.supervised[1:])])
        # With all layers above them, rows without states start from their embeddings.
        layers = model.config.num_hidden_layers
        whole, _ = top_layers.losses_of(top_layers.top_of(model, layers), head, rows, "cpu")
    assert counts.tolist() == [len(one) for one in wanted] == top_layers.counted(rows).tolist()
    torch.testing.assert_close(whole, torch.cat(wanted), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found, torch.cat(wanted), rtol=1e-4, atol=1e-5)


def test_a_head_over_the_targets_changes_losses_by_the_rest_of_the_softmax(scripts, tiny, rows, one_thread):
    import torch

    top_layers, model = scripts[1], tiny[0]
    vocabulary = top_layers.targets_of(rows)
    states = torch.randn(6, model.config.hidden_size)
    wanted = torch.from_numpy(vocabulary[:6])
    whole = torch.log_softmax(states @ model.lm_head.weight.T, 1)
    rest = whole[:, torch.from_numpy(vocabulary)].logsumexp(1)
    losses = top_layers.Head(model, vocabulary, "cpu").losses(states, wanted)
    torch.testing.assert_close(losses, rest - whole[torch.arange(6), wanted], rtol=1e-4, atol=1e-5)


def test_training_lowers_the_loss_and_leaves_the_model(scripts, tiny, rows, one_thread):
    top_layers, model = scripts[1], tiny[0]
    before = copy.deepcopy(model.state_dict())
    head, data = top_layers.Head(model, None, "cpu"), with_states(top_layers, model, rows)
    settings = {"steps": 4, "depth": 1, "rate": 1e-2, "device": "cpu"}
    top = top_layers.train(model, head, data, [0, 1, 2, 3], seed=0, **settings)
    again = top_layers.train(model, head, data, [0, 1, 2, 3], seed=0, **settings)
    start = top_layers.judged(top_layers.top_of(model, 1), head, data, "cpu")
    end = top_layers.judged(top, head, data, "cpu")
    assert end.sum() < start.sum()
    assert (end == top_layers.judged(again, head, data, "cpu")).all()
    assert all((before[name] == held).all() for name, held in model.state_dict().items())


@pytest.mark.parametrize("condition", ["none", "both"])
def test_what_is_chosen_in_training_is_what_the_trainer_chooses(
    scripts, tiny, one_thread, monkeypatch, condition
):
    """A batch of padded rows, scored by the whole model, against the hook on the states of the last layer."""
    import contextlib

    import torch
    from finetune import Row

    from datapruner.integrations.qtuning import QTuningSettings, prune_batch

    top_layers, model = scripts[1], tiny[0]
    monkeypatch.setattr(top_layers, "fast", lambda *_: contextlib.nullcontext())
    rng = np.random.default_rng(1)
    rows = [
        Row(rng.integers(1, model.config.vocab_size, n).astype(np.int32), np.arange(n) >= n // 3)
        for n in rng.integers(6, 30, 12).tolist()
    ]
    settings = QTuningSettings(sample_ratio=0.5, condition=condition)
    head = top_layers.Head(model, None, "cpu")
    found = scripts[2].inside(head, "cpu", settings)(
        top_layers.top_of(model, 1), with_states(top_layers, model, rows)
    )
    longest = max(len(row.ids) for row in rows)
    ids, mask, labels = torch.zeros(3, len(rows), longest, dtype=torch.long)
    labels[:] = -100
    for place, row in enumerate(rows):
        count, own = len(row.ids), torch.tensor(row.ids).long()
        ids[place, :count], mask[place, :count] = own, 1
        labels[place, :count][torch.tensor(row.supervised)] = own[torch.tensor(row.supervised)]
    batch, counts = prune_batch(model, {"input_ids": ids, "attention_mask": mask, "labels": labels}, settings)
    assert len(found) == counts["rows_kept"] == 6
    assert top_layers.counted(found).sum() == counts["tokens_kept"] < counts["tokens"]
    for row, own, wanted in zip(found, batch["input_ids"], batch["labels"], strict=True):
        assert own[: len(row.ids)].tolist() == row.ids.tolist()
        assert (np.flatnonzero(row.supervised[1:]) + 1).tolist() == [
            at for at in wanted.ne(-100).nonzero()[:, 0].tolist() if at
        ]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.data())
def test_steps_hold_every_row_once(scripts, tokens, data):
    steps = data.draw(st.integers(1, len(tokens)))
    rows = data.draw(st.permutations(range(len(tokens))))
    found = scripts[1].steps_of(rows, np.array(tokens), steps)
    assert len(found) == steps
    assert all(found)
    assert [row for step in found for row in step] == list(rows)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from("abc")), min_size=1, max_size=40),
    st.integers(0, 400),
)
def test_equal_tokens_spend_the_budget_in_equal_parts(scripts, rows, budget):
    tokens = np.array([count for count, _ in rows])
    names = [name for _, name in rows]
    kept = scripts[2].equal_tokens(range(len(rows)), names, tokens, budget, np.random.default_rng(0))
    assert len(set(kept)) == len(kept)
    assert tokens[kept].sum() <= budget
    assert (tokens[kept] > 0).all()
    # What is missing of a share is less than that group's largest row.
    for name in set(names):
        of = [place for place, other in enumerate(names) if other == name and tokens[place]]
        spent = int(tokens[[place for place in kept if names[place] == name]].sum())
        if of and spent < tokens[of].sum():
            assert budget // len(set(names)) - spent <= tokens[of].max()


def made(differences, rows=60):
    """A file of results in which an arm is so much better than random in each run, and held-out rows differ."""
    rng = np.random.default_rng(0)
    held_out = {"tokens": [10] * rows, "capability": ["a", "b"] * (rows // 2)}
    runs = {}
    for number, shift in enumerate(differences):
        base = rng.normal(20, 1, rows)
        runs[f"messy/random/0.1/sample{number % 2}/seed{number // 2}"] = {"losses": base.tolist()}
        runs[f"messy/arm/0.1/sample{number % 2}/seed{number // 2}"] = {"losses": (base + 10 * shift).tolist()}
    return {"held_out": held_out, "sets": {"messy": ["a", "b"], "single": ["b"]}, "runs": runs}


def test_a_difference_of_two_arms_is_welchs(scripts, monkeypatch):
    """Where held-out rows differ alike and variances are left as they are: scipy's t-test of unequal variances."""
    from scipy import stats

    values = np.random.default_rng(1).normal(2.0, [[0.01], [0.03]], (2, 6))
    done = made([0.0] * 6)
    for number, pair in enumerate(zip(*values, strict=True)):
        for arm, value in zip(("random", "arm"), pair, strict=True):
            key = f"messy/{arm}/0.1/sample{number % 2}/seed{number // 2}"
            done["runs"][key] = {"losses": [10 * value] * 60}
    monkeypatch.setattr(scripts[3], "moderated", lambda variances, freedom: (variances, freedom))
    found = scripts[3].Results(done).difference("messy", "arm", "random", 0.1)
    wanted = stats.ttest_ind(values[1], values[0], equal_var=False)
    low, high = wanted.confidence_interval(0.95)
    for weight in ("token", "capability"):
        assert found[weight]["difference"] == pytest.approx(values[1].mean() - values[0].mean())
        assert found[weight]["half"] == pytest.approx((high - low) / 2)
        assert found[weight]["p"] == pytest.approx(wanted.pvalue)


def test_held_out_rows_widen_an_interval(scripts):
    """An arm that is better on some held-out rows and worse on others: their standard error, by the textbook."""
    done = made([0.0] * 4)
    shift = np.random.default_rng(2).normal(0, 1, 60)
    for run in range(4):
        for arm, by in (("random", 0.0), ("arm", 1.0)):
            key = f"messy/{arm}/0.1/sample{run % 2}/seed{run // 2}"
            done["runs"][key] = {"losses": (20 + by * shift + 1e-6 * run).tolist()}
    found = scripts[3].Results(done).difference("messy", "arm", "random", 0.1)["token"]
    inside = np.mean([shift[group::2].var() for group in (0, 1)])
    assert found["spread"] == pytest.approx(np.sqrt(inside / 60) / 10, rel=0.06)


def test_variances_are_drawn_to_what_arms_have_in_common(moderated):
    """Planted: true variances of arms are scaled inverse chi squared, the posterior is then known."""
    from scipy import stats

    rng = np.random.default_rng(0)
    prior, scale, freedom = 6.0, 4.0, rng.integers(1, 6, 600).astype(float)
    true = prior * scale / rng.chisquare(prior, 600)
    seen = true * rng.chisquare(freedom) / freedom
    found, degrees = moderated(seen, freedom)
    assert found == pytest.approx((prior * scale + freedom * seen) / (prior + freedom), rel=0.15)
    assert degrees == pytest.approx(prior + freedom, rel=0.25)
    # A difference over the root of what is found is Student's with those degrees.
    scores = rng.normal(0, np.sqrt(true)) / np.sqrt(found)
    assert np.mean(np.abs(scores) > stats.t.ppf(0.975, degrees)) == pytest.approx(0.05, abs=0.025)


def test_equal_variances_are_pooled_and_one_arm_keeps_its_own(moderated):
    rng = np.random.default_rng(0)
    freedom = np.full(40, 3.0)
    seen = rng.chisquare(freedom) / freedom
    found, degrees = moderated(seen, freedom)
    assert found == pytest.approx(np.full(40, seen.mean()), rel=0.05)
    assert degrees.max() <= freedom.sum()
    found, degrees = moderated(np.array([4.0]), np.array([5.0]))
    assert (found[0], degrees[0]) == (pytest.approx(4.0, rel=1e-4), 5.0)


def test_a_draw_of_rows_is_a_mean_over_the_rows_drawn(scripts):
    results = scripts[3].Results(made([0.0, 0.0]))
    results.tokens = np.random.default_rng(0).integers(1, 9, 60).astype(float)
    losses = np.random.default_rng(1).random((2, 60))
    found = results.drawn("messy", losses)
    for at in range(5):
        rows = np.concatenate([np.repeat(rows, often[at].astype(int)) for rows, often in results.draws])
        groups, tokens = results.groups[rows], results.tokens[rows]
        by = np.bincount(groups, losses[1, rows]) / np.bincount(groups, tokens)
        assert found[0, 1, at] == pytest.approx(losses[1, rows].sum() / tokens.sum())
        assert found[1, 1, at] == pytest.approx(by.mean())
        # A set of one capability is judged by that alone, whatever it does to the others.
        assert results.drawn("single", losses)[:, 1, at] == pytest.approx(by[1])


def test_holm_is_the_step_down_of_the_textbook(scripts):
    # Holm 1979: the smallest against level / m, the next against level / (m - 1), and so on to the first above.
    values = [0.01, 0.04, 0.03, 0.005]
    adjusted = scripts[3].holm(values)
    for level in (0.01, 0.02, 0.03, 0.05, 0.06, 0.08):
        order, rejected = np.argsort(values), set()
        for rank, place in enumerate(order):
            if values[place] > level / (len(values) - rank):
                break
            rejected.add(int(place))
        assert {place for place, value in enumerate(adjusted) if value <= level} == rejected


def test_the_share_of_random_tokens_is_interpolated(scripts):
    done = made([0.0, 0.0])
    for budget, loss in ((0.2, 1.9), (0.4, 1.8)):
        for sample in (0, 1):
            done["runs"][f"messy/random/{budget}/sample{sample}/seed0"] = {"losses": [10 * loss] * 60}
    results = scripts[3].Results(done)
    found = scripts[3].share_of_tokens(results, "messy", 1.85, 0)
    assert found == pytest.approx(np.sqrt(0.2 * 0.4))
    assert np.isnan(scripts[3].share_of_tokens(results, "messy", 1.0, 0))


@pytest.mark.parametrize("whole", [False, True])
def test_a_run_is_the_same_with_all_layers_or_the_last(
    scripts, sets, tiny_llama, tmp_path, one_thread, monkeypatch, whole
):
    """From files to losses, in one process: equal budgets and steps, the planted truth, one loss a held-out row."""
    from argparse import Namespace

    messy, _, worth, _ = scripts
    monkeypatch.setattr(worth, "MODEL", str(tiny_llama))
    for name in worth.HELD:
        messy.write_set(tmp_path, name, getattr(sets, name)[:60], truth=True)
    worth.truths.cache_clear()
    bench = worth.Bench(Namespace(folder=tmp_path, whole=whole, depth=1, rate=1e-3, step_tokens=200), "cpu")
    for chunk in bench.states.chunks():
        bench.states.fill(bench.model, chunk, "cpu")
    found = {arm: bench(worth.Run("messy", arm, 0.3, 0, 0)) for arm in ("random", "oracle")}
    layers = bench.model.config.num_hidden_layers
    for run in found.values():
        assert len(run["losses"]) == 60
        assert run["depth"] == (layers if whole else 1)
        assert run["tokens"] <= run["budget"]
    assert found["random"]["steps"] == found["oracle"]["steps"]
    assert found["random"]["losses"] != found["oracle"]["losses"]


def test_the_commands_that_the_page_shows_are_the_arms(scripts, tmp_path, monkeypatch):
    """By the recipe that each way in makes, before anything runs."""
    import report_worth
    import worth_arms

    from datapruner.cli import prune
    from datapruner.measuring.arguments import requested
    from datapruner.scorers import make_scorer

    recipes = []
    monkeypatch.setattr(prune, "carry_out", lambda asked, *_, **__: recipes.append(asked.recipe))
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": "1 + 1?", "answer": "2"}\n' * 3)
    for arm, told in worth_arms.ARMS.items():
        words = report_worth.words(told).split()
        assert command(monkeypatch, "prune", rows, "--keep-tokens", 3, *words, "-o", tmp_path / "out") == 0
        options = {name: one for name, one in told.items() if name not in ("scorer", "parameters", "dtype")}
        scorers = make_scorer(told["scorer"], told["parameters"]) if "scorer" in told else None
        asked = requested(
            str(rows), scorers=scorers, budget={"keep_tokens": 3}, selects=True, progress=False, **options
        )
        assert recipes.pop() == asked.recipe, arm
    assert not recipes
