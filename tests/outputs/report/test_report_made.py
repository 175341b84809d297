"""What a page says of how it was made, of duplicates, of causes, and of a pruned model's damage."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency

import datapruner as dp
from datapruner.recipe import load_recipe

pytest.importorskip("plotly", reason="the extra `report` is not installed")
pytest.importorskip("jinja2", reason="the extra `report` is not installed")

from datapruner.outputs.facets import Facet
from datapruner.outputs.report.made import damage_sections, how_it_was_made, recipe_text
from datapruner.outputs.report.payload import payload
from datapruner.outputs.report.shown import Shown
from datapruner.outputs.report.summary import groups_words, independence
from datapruner.reasons import reason_of


def rows(count=40):
    rng = np.random.default_rng(1)
    return [
        {
            "question": f"question {n}?",
            "answer": " ".join(map(str, rng.integers(0, 99, 9))),
            "kind": "ab"[n % 2],
        }
        for n in range(count)
    ]


def pruned(data, **options):
    return dp.prune(data, **{"scorer": "length", "keep": 0.3, "progress": False, **options})


def test_how_a_result_was_made(tmp_path, tiny_llama, cache):
    data = [*rows(), rows()[3]]
    made = dict(
        how_it_was_made(
            pruned(data, scorer="perplexity", model=str(tiny_llama), dedup=True, seed=7, max_length=64)
        )
    )
    assert made["Language model"] == f"{tiny_llama.name}, rows cut at 64 tokens"
    assert made["Cleaning"].startswith(
        "exact duplicates (match text); near duplicates (Jaccard 0.7 of 3 words)"
    )
    assert made["Seed"] == "7"
    assert f"datapruner {dp.__version__}, Python " in made["Versions"]
    assert re.search(r"torch \d", made["Versions"])
    assert made["Rows"] == "read as question_answer (question: question, answer: answer)"
    assert {"Vectors", "Pruned model", "Target"}.isdisjoint(made)
    given = dict(how_it_was_made(pruned(data, scorer="k_center", embeddings=np.eye(41))))
    assert given["Vectors"] == "embeddings given in memory"
    assert not any("/" in text for text in (*made.values(), *given.values()))  # no path of this machine


def test_the_recipe_of_a_page_can_be_run(tmp_path, cache):
    pd.DataFrame(rows()).to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    selection = pruned(str(tmp_path / "rows.jsonl"), seed=3, per_group="kind")
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe_text(selection))
    assert load_recipe(file).seed == 3
    assert np.array_equal(dp.run(file, progress=False).kept, selection.kept)


def test_a_copy_stands_beside_its_original_also_where_that_is_not_sampled(cache):
    data = rows(200)
    data += [dict(data[0]) for _ in range(100)]
    selection = pruned(data, dedup=["exact"])
    whole = Shown([selection], 5000)
    assert whole.copied.tolist() == [-1] * 200 + [0] * 100
    assert not whole.originals.size
    few = next(
        shown
        for most in range(5, 60)
        if 0 not in (shown := Shown([selection], most)).rows and shown.copied.max() == 0
    )
    assert few.originals.tolist() == [0]
    held = payload(few)
    assert held["original_rows"] == [0]
    assert held["copied"] == [0 if row >= 200 else -1 for row in held["rows"]]


def test_every_shown_row_has_its_cause(cache):
    data = rows()
    data += [dict(data[0]), {"question": "?", "answer": " ", "kind": "a"}]
    selection = pruned(data, dedup=["exact"])
    (held,) = payload(Shown([selection], 5000))["selections"]
    told = [held["causes"][code] for code in held["cause"]]
    assert told[40:] == [reason_of(code).label for code in ("exact_duplicate", "no_answer")]
    assert [one == "1" for one in held["kept"]] == [code == 0 for code in held["cause"]]


def test_damage_by_group_is_that_of_the_columns(tmp_path, tiny_llama, cache):
    import torch
    from transformers import AutoModelForCausalLM

    from datapruner.models import load_causal_lm

    model, tokenizer = load_causal_lm(str(tiny_llama), device="cpu")
    other = AutoModelForCausalLM.from_pretrained(tiny_llama)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if "mlp" in name:
                parameter.mul_(0.5)
    vectors = np.repeat(np.eye(3), [20, 17, 3], axis=0) + np.random.default_rng(0).normal(size=(40, 3)) * 0.01
    selection = pruned(
        rows(), scorer=dp.scorers.Paser(within="kind"), model=(model, tokenizer), pruned_model=(other, tokenizer),
        embeddings=vectors, max_length=64,
    )  # fmt: skip
    shown = Shown([selection], 5000)
    (section,) = damage_sections(shown.selections, shown.facets)
    assert section.head[1:] == [
        "rows",
        "divergence, nats [95 %]",
        "loss before",
        "loss after",
        "rise",
        "kept",
        "share kept",
    ]
    columns = selection.scores.rankings["paser"].columns
    frame = pd.DataFrame({name: columns[name] for name in ("cluster", "jsd", "log_ppl", "pruned_log_ppl")})
    means = frame.groupby("cluster").mean().sort_values("jsd", ascending=False)
    for line, (_, expected) in zip(section.rows[1:], means.iterrows(), strict=True):
        assert line[2].startswith(f"{expected['jsd']:.4f} [")
        assert line[3:5] == [f"{expected['log_ppl']:.3f}", f"{expected['pruned_log_ppl']:.3f}"]
    assert section.rows[0][:2] == ["all scored rows", "40"]
    assert not damage_sections([pruned(rows())], [])


@given(st.lists(st.tuples(st.integers(30, 200), st.floats(0.2, 0.8)), min_size=2, max_size=6))
def test_the_chance_is_that_of_scipy(groups):
    sizes = np.array([size for size, _ in groups])
    taken = np.array([round(size * share) for size, share in groups])
    expected = chi2_contingency([taken, sizes - taken], correction=False)
    if expected.expected_freq.min() >= 5:
        assert independence(taken, sizes) == pytest.approx(expected.pvalue, rel=1e-9, abs=1e-300)


def test_groups_that_differ_together_are_not_called_chance(cache):
    selection = pruned(
        [{"text": f"{n}" * (n % 7 + 1), "kind": "x"} for n in range(600)], scorer="random", keep=300
    )
    share = [59, 58, 57, 43, 42, 41]  # of 100 each: none is two standard errors away
    kept = np.concatenate([np.arange(100) < count for count in share])
    facet = Facet("kind", list("abcdef"), np.repeat(np.arange(6), 100))
    held = replace(selection, kept=kept)
    assert chi2_contingency([share, [100 - count for count in share]]).pvalue == pytest.approx(
        0.00836, abs=1e-5
    )
    assert groups_words(facet, held) == [
        "By kind, the shares kept differ by more than chance allows, taken together (chi-square, p = 0.0084), although "
        "no one group stands out: the most of “a” (59 of 100, 59\u00a0%) and the least of “f” (41 of 100, 41\u00a0%)."
    ]
    flat = Facet("kind", list("ab"), np.tile([0, 1], 300))
    assert "no group's share kept is further from the whole than chance allows" in groups_words(flat, held)[0]
