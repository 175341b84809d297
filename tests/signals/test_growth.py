"""A source that has grown costs its new rows only, whatever is measured of them."""

from __future__ import annotations

import json

import pytest

from datapruner.measuring.arguments import requested
from datapruner.measuring.measure import measure

OLD, NEW = 24, 5
ROWS = [
    {"prompt": f"what is the sum of {i} and {3 * i}?", "completion": f"it is {4 * i}, as {i} is small"}
    for i in range(OLD + NEW)
]
OF_TEXTS = ["concept_complexity", "prototypes", "d2", "k_center", "stratified"]
OF_LOSSES = ["ifd", "donod", "qtuning", "el2n", "grad_norm", "perplexity", "response_noise"]


@pytest.mark.parametrize(
    "scorers", [OF_TEXTS, OF_LOSSES, ["nearest_target"]], ids=["texts", "losses", "target"]
)
def test_only_new_rows_are_computed(tmp_path, tiny_llama, tiny_sentence_transformer, scorers):
    target = tmp_path / "dev.jsonl"
    target.write_text("".join(json.dumps(row) + "\n" for row in ROWS[:2]))
    given = {"embedder": str(tiny_sentence_transformer), "progress": False}
    given |= {} if scorers is OF_TEXTS else {"model": str(tiny_llama)}
    given |= {"target": str(target)} if scorers == ["nearest_target"] else {}

    def computed(rows: int, cache: str) -> int:
        return measure(requested(ROWS[:rows], scorers=scorers, cache=tmp_path / cache, **given)).store.made

    first = computed(OLD, "grown")
    assert first >= OLD
    assert first % OLD == 0 or scorers == ["nearest_target"]
    grown = computed(OLD + NEW, "grown")
    assert grown == computed(OLD + NEW, "fresh") - first
    assert grown >= NEW
    assert computed(OLD + NEW, "grown") == 0
