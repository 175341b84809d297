"""Keep scores on disk, so that ``select`` and ``rebudget`` never need a model.

``scores.parquet`` has a row for every source row, its columns under the signals' plain names; what has
another shape lies in ``state/<scorer>.npz`` (read without pickle); ``recipe.yaml`` says where the rows are.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from datapruner.errors import DataPrunerError
from datapruner.outputs.dataset import arrow_array
from datapruner.outputs.folder import whole_folder
from datapruner.paths import expanded, is_file
from datapruner.recipe import load_recipe
from datapruner.samples.base import content_hash
from datapruner.scorers.base import Ranking, Scorer
from datapruner.selection.result import Scores
from datapruner.selection.vetoes import Vetoes

TABLE = "scores.parquet"
META = b"datapruner"


def save_scores(scores: Scores, path: Path, *, overwrite: bool = False) -> Path:
    """Write a folder of scores, whole or not at all.

    Parameters
    ----------
    scores : Scores
    path : Path
    overwrite : bool
        Replace an earlier folder of datapruner.
    """
    n = len(scores)
    columns: dict[str, pa.Array] = {
        "index": pa.array(np.arange(n)),
        "always_keep": pa.array(scores.forced),
        "veto": _dictionary([v.kind for v in scores.vetoes], scores.vetoes, n),
        "veto_row": _scattered([v.others for v in scores.vetoes], scores.vetoes, n, np.int64(-1)),
        "veto_measure": _scattered([v.measures for v in scores.vetoes], scores.vetoes, n, np.float64("nan")),
    }
    meta: dict[str, Any] = {
        "rows": n,
        "content": content_hash(scores.samples.dataset),
        "vetoes": [[vetoes.kind, vetoes.template] for vetoes in scores.vetoes],
        "tokens": {},
        "scorers": {},
    }

    def place(name: str, scorer: str, values: NDArray[Any]) -> str:
        """Store a column under its plain name, or beside another of that name that differs."""
        array = arrow_array(values)
        if name in columns and not columns[name].equals(array):
            name = f"{name}.{scorer}"
        columns[name] = array
        return name

    for name, values in scores.tokens.items():
        meta["tokens"][name] = place(name, "tokens", values)
    for name, ranking in scores.rankings.items():
        meta["scorers"][name] = {
            "values": place(f"score.{name}", name, ranking.values),
            "groups": None if ranking.groups is None else place("group", name, ranking.groups),
            "columns": {key: place(key, name, values) for key, values in ranking.columns.items()},
        }
    with whole_folder(path, overwrite=overwrite) as folder:
        table = pa.table(columns).replace_schema_metadata({META: json.dumps(meta).encode()})
        pq.write_table(table, folder / TABLE, compression="zstd")
        (folder / "state").mkdir()
        for name, ranking in scores.rankings.items():
            weights = {} if ranking.group_weights is None else {"group_weights": ranking.group_weights}
            np.savez(folder / "state" / f"{name}.npz", allow_pickle=False, **weights, **dict(ranking.state))
        (folder / "recipe.yaml").write_text(scores.recipe.save_yaml(path), encoding="utf-8")
    return path


def load_scores(path: str | Path, *, source: Any = None, scorers: Sequence[Scorer] = ()) -> Scores:
    """Read a folder of scores and the dataset they belong to.

    Parameters
    ----------
    path : str or Path
        What :func:`save_scores` wrote.
    source : optional
        The dataset, where it was in memory or has moved.
    scorers : sequence of Scorer
        Objects for scorers that are not installed under their name.

    Raises
    ------
    DataPrunerError
        It is no such folder, or the dataset is another one than was scored.
    """
    from datapruner.api import read_samples
    from datapruner.scorers import make_scorer

    folder = expanded(Path(path))
    if not is_file(folder / TABLE):
        raise DataPrunerError(
            f"{folder} is no folder of scores: it has no {TABLE}; make one with `datapruner score`"
        )
    recipe = load_recipe(folder / "recipe.yaml")
    try:
        table = pq.read_table(folder / TABLE)
        meta = json.loads(table.schema.metadata[META])
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise DataPrunerError(f"the scores in {folder} are damaged; score again") from error
    if source is None and recipe.source is None:
        raise DataPrunerError("these scores were made from data in memory; pass it as `source`")
    samples = read_samples(recipe, source)
    if len(samples) != meta["rows"] or content_hash(samples.dataset) != meta["content"]:
        raise DataPrunerError(f"{samples.source} has changed since it was scored; score it again")

    def column(name: str) -> NDArray[Any]:
        values: NDArray[Any] = table.column(name).to_numpy()
        return values

    rankings = {}
    for name, described in meta["scorers"].items():
        state = _load_state(folder / "state" / f"{name}.npz")
        rankings[name] = Ranking(
            column(described["values"]),
            groups=None if described["groups"] is None else column(described["groups"]),
            group_weights=state.pop("group_weights", None),
            columns={key: column(stored) for key, stored in described["columns"].items()},
            state=state,
        )
    kinds = np.asarray(table.column("veto").combine_chunks().fill_null("").to_pylist(), dtype=object)
    vetoes = []
    for kind, template in meta["vetoes"]:
        rows = np.flatnonzero(kinds == kind)
        vetoes.append(Vetoes(kind, rows, column("veto_row")[rows], column("veto_measure")[rows], template))
    made = {scorer.name: scorer for scorer in scorers}
    made |= {m.name: make_scorer(m.name, m.parameters) for m in recipe.scorers if m.name not in made}
    tokens = {name: column(stored) for name, stored in meta["tokens"].items()}
    return Scores(samples, recipe, made, rankings, vetoes, column("always_keep"), tokens)


def _load_state(file: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(file, allow_pickle=False) as archive:
            return dict(archive)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataPrunerError(f"the scores' state {file.name} is damaged; score again") from error


def _dictionary(kinds: list[str], vetoes: Any, n: int) -> pa.Array:
    codes = _codes(vetoes, n)
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), pa.array(kinds, pa.string())).cast(
        pa.string()
    )


def _codes(vetoes: Any, n: int) -> NDArray[np.int32]:
    codes = np.full(n, -1, dtype=np.int32)
    for number, step in enumerate(vetoes):
        codes[step.rows] = number
    return codes


def _scattered(parts: list[NDArray[Any]], vetoes: Any, n: int, empty: Any) -> pa.Array:
    out = np.full(n, empty)
    for part, step in zip(parts, vetoes, strict=True):
        out[step.rows] = part
    return pa.array(out)
