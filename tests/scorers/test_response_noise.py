from __future__ import annotations

import re

import numpy as np
import pytest
from scipy.stats import rankdata

from datapruner.scorers import make_scorer
from datapruner.signals import Signals


def planted(seed=0, n=600):
    """Two kinds of rows with different loss levels, well apart in the embedding; a tenth has each sort of noise."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(2, size=n)
    embedding = np.eye(8, dtype=np.float32)[kind] + 0.05 * rng.normal(size=(n, 8)).astype(np.float32)
    log_ppl = np.array([0.5, 3.0])[kind] * np.exp(0.1 * rng.normal(size=n))
    ratio = np.array([0.5, 0.8])[kind] * np.exp(0.05 * rng.normal(size=n))
    surprise = np.where(rng.random(n) < 0.5, 0.0, rng.normal(size=n))
    noise = rng.permutation(np.repeat([0, 1, 2, 3], [n - 3 * (n // 10), *[n // 10] * 3]))
    log_ppl[noise == 1] *= 2
    ratio[noise == 2] *= 1.4
    surprise[noise == 3] += 5
    measured = {
        "embedding": embedding,
        "log_ppl": log_ppl,
        "response_log_ppl": log_ppl / ratio,
        "number_surprise": surprise,
    }
    return Signals(n, measured), noise, kind


def auroc(values, noisy):
    ranks = rankdata(-values)
    m = noisy.sum()
    return (ranks[noisy].sum() - m * (m + 1) / 2) / (m * (~noisy).sum())


def test_each_kind_of_noise_comes_last():
    signals, noise, _ = planted()
    values = make_scorer("response_noise", {"n_clusters": 2}).score(signals).values
    for sort in (1, 2, 3):
        among = (noise == 0) | (noise == sort)
        assert auroc(values[among], noise[among] == sort) > 0.93
    # What ranks in the whole set say of the low-loss kind's noise.
    low = make_scorer("perplexity").score(signals).values
    assert auroc(low, noise == 1) < 0.8


def test_values_are_the_worst_of_the_three_ranks():
    signals, _, kind = planted(seed=1)
    ranking = make_scorer("response_noise", {"n_clusters": 2}).score(signals)
    ifd = signals["log_ppl"] / signals["response_log_ppl"]
    worst = np.ones(len(kind))
    for of in (0, 1):
        rows = kind == of
        for values in (signals["log_ppl"], ifd):
            worst[rows] = np.minimum(worst[rows], (rankdata(-values[rows]) - 0.5) / rows.sum())
    surprise = signals["number_surprise"]
    number = np.where(surprise > 0, 1 - (rankdata(surprise) - 0.5) / len(kind), 1)
    np.testing.assert_allclose(ranking.values, np.minimum(worst, number), atol=2e-9)


def test_numbers_can_be_left_out():
    signals, noise, _ = planted()
    scorer = make_scorer("response_noise", {"n_clusters": 2, "numbers": False})
    assert "number_surprise" not in scorer.requires
    without = {name: held for name, held in signals.measured.items() if name != "number_surprise"}
    values = scorer.score(Signals(signals.num_rows, without)).values
    assert auroc(values, noise == 3) < 0.6


@pytest.mark.parametrize("template", [True, False])
def test_number_surprise_reads_the_last_number(tiny_llama, template):
    from datapruner.models import load_causal_lm
    from datapruner.ragged import Ragged
    from datapruner.samples import load_samples
    from datapruner.signals.language_model import LanguageModel, number_surprise

    _, tokenizer = load_causal_lm(str(tiny_llama), device="cpu")
    if not template:
        tokenizer.chat_template = None
    answers = ["It is 12 + 30 = 42.", "none at all", "7", "first 3, then 456 and more", "١٢ apples"]
    rows = [{"question": "1 2 3?", "answer": answer} for answer in answers]
    samples = load_samples(rows)
    reader = LanguageModel(None, tokenizer, max_length=512)
    rendered = list(reader.render(samples, np.arange(len(rows))))
    rng = np.random.default_rng(0)
    nll, entropy = (
        Ragged.from_rows([rng.random(row.supervised.sum()) for row in rendered]) for _ in range(2)
    )
    found = number_surprise(samples, np.arange(len(rows)), reader, nll, entropy)
    for place, row in enumerate(rendered):
        pieces = [tokenizer.decode([id_]) for id_ in row.input_ids[row.supervised]]
        # The byte tokenizer cuts ASCII into single characters or merges of its corpus, which has no digits.
        marks = "".join("9" if re.search(r"\d", piece) else "_" for piece in pieces)
        runs = list(re.finditer("9+", marks))
        want = float((nll[place] - entropy[place])[runs[-1].start() : runs[-1].end()].max()) if runs else 0.0
        assert found[place] == want
    assert found[1] == 0
    assert found[0] != 0
