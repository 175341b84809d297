"""Best first, near kept rows passed over: against a plain loop over all pairs, and through a run."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import datapruner as dp
from datapruner.errors import DataPrunerError
from datapruner.ranking import Ranking
from datapruner.selection.selectors import novel
from datapruner.selection.selectors.novel import Novel
from datapruner.testing.examples import portion, rng


def by_all_pairs(values, vectors, costs, budget, threshold):
    """What is kept, in order, and the kept row that each passed-over row resembles: float64, no blocks."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(norms > 0, norms, 1)
    kept, like, left = [], {}, budget
    order = sorted(range(len(values)), key=lambda row: (-values[row], row))
    for row in order:
        if left < min((costs[other] for other in order[order.index(row) :]), default=0):
            break
        cosines = [min(1.0, float(unit[row] @ unit[other])) for other in kept]
        if cosines and max(cosines) > threshold:
            like[row] = max(cosines), [kept[i] for i, c in enumerate(cosines) if c > max(cosines) - 1e-6]
        elif costs[row] <= left:
            kept.append(row)
            left -= costs[row]
    for row in order:
        if row not in kept and costs[row] <= left:
            kept.append(row)
            left -= costs[row]
    return kept, like


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 24),
    share=st.floats(0, 1),
    threshold=st.sampled_from([-0.313, 0.2137, 0.6171, 0.9013, 1.0]),
    tokens=st.booleans(),
    block=st.sampled_from([1, 3, 1024]),
)
def test_the_same_as_a_loop_over_all_pairs(seed, n, share, threshold, tokens, block):
    drawn = np.random.default_rng(seed)
    values = np.round(drawn.normal(size=n), 1)
    vectors = drawn.integers(-1, 2, size=(n, 3)).astype(np.float32)  # many equal ones, and zeros
    costs = drawn.integers(1, 9, size=n) if tokens else np.ones(n, np.int64)
    budget = int(share * costs.sum())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(novel, "BLOCK", block)
        choice = Novel(threshold).select(
            Ranking(values, state={"embedding": vectors}), portion(n, costs, budget), rng()
        )
    kept, like = by_all_pairs(values, vectors.astype(np.float64), costs, budget, threshold)
    assert np.flatnonzero(choice.kept).tolist() == sorted(kept)
    for row in range(n):
        said = choice.texts[choice.codes[row]]
        if row in like:
            cosine, rows = like[row]
            assert any(
                f"resembles row {other}, which is kept (cosine {round(cosine, 3) + 0.0:.3f})" in said
                for other in rows
            )
        else:
            assert "resembles row" not in said


def test_a_run_measures_what_the_selector_reads(tmp_path, monkeypatch):
    drawn = np.random.default_rng(0)
    rows = [{"prompt": f"q{row}", "response": "why " * (row + 1), "kind": "xy"[row % 2]} for row in range(30)]
    rows[7] = dict(rows[6])  # dropped by cleaning: the vectors' rows must not move
    vectors = drawn.normal(size=(30, 4)).astype(np.float32)
    vectors[28], vectors[27] = vectors[29] * 2, vectors[29]
    told = {"embeddings": vectors, "dedup": True, "progress": False}
    kept = dp.prune(rows, scorer="length", selector="novel", keep=10, **told)
    values = kept.values
    assert np.argmax(np.nan_to_num(values)) == 29
    assert {27, 28}.isdisjoint(kept.indices.tolist())
    assert "resembles row 29, which is kept (cosine 1.000)" in kept.reason(28)
    assert kept.recipe.selector.name == "novel"
    left = [row for row in range(30) if np.isfinite(values[row])]
    assert len(left) == 29
    expected, _ = by_all_pairs(values[left], vectors[left].astype(np.float64), [1] * 29, 10, 0.9)
    assert kept.indices.tolist() == sorted(left[place] for place in expected)
    again = dp.load_scores(kept.scores.save(tmp_path / "scores"), source=rows)
    assert again.select(keep=10, selector="novel").indices.tolist() == kept.indices.tolist()
    assert len(kept.rebudget(keep=5)) == 5
    grouped = dp.prune(rows, scorer="length", selector=Novel(0.5), keep=8, per_group="kind", **told)
    assert [rows[row]["kind"] for row in grouped.indices].count("x") == 4
    scores = dp.score(rows, scorers="length", progress=False, count_tokens=False)
    with pytest.raises(DataPrunerError, match="reads the signal 'embedding', which these scores do not hold"):
        scores.select(keep=10, selector="novel")
    with pytest.raises(DataPrunerError, match="a cosine between -1 and 1"):
        Novel(1.5)
