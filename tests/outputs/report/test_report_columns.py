"""Labels are found column by column, in rows of any order, at a cost that grows with the columns."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset, Features

import datapruner as dp
from datapruner.outputs.facets import find_labels


def pruned(dataset: Dataset):
    return dp.prune(dataset, scorer="random", keep=10, progress=False)


@pytest.mark.parametrize("shuffled", [False, True])
def test_every_rows_label_is_its_own(shuffled):
    values = [None if i % 11 == 0 else f"kind {i % 4}" for i in range(40)]
    dataset = Dataset.from_dict({"text": [f"row {i}" for i in range(40)], "kind": values})
    dataset = dataset.select(np.random.default_rng(0).permutation(40)) if shuffled else dataset
    (facet,) = find_labels([pruned(dataset)])
    assert [facet.names[code] for code in facet.codes] == [value or "(none)" for value in dataset["kind"]]


def test_columns_do_not_cost_their_square(monkeypatch):
    made = Features.__setitem__
    counted = []
    monkeypatch.setattr(Features, "__setitem__", lambda *args: (counted.append(1), made(*args))[1])

    def cost(columns: int) -> int:
        rows = {"text": [f"row {i}" for i in range(40)]}
        selection = pruned(
            Dataset.from_dict({**rows, **{f"c{j}": [str(i % 3) for i in range(40)] for j in range(columns)}})
        )
        counted.clear()
        assert len(find_labels([selection])) == columns
        return len(counted)

    few, many = cost(20), cost(80)
    assert many <= 4 * few + 40
