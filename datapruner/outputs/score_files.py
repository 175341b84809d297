"""Keep scores on disk, so that ``select`` and ``rebudget`` never need a model.

``scores.parquet`` has a row for every source row, its columns under the signals' plain names; what has
another shape lies in ``state/<scorer>.npz`` (read without pickle); ``recipe.yaml`` says where the rows are.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from datapruner.arrays import Flags
from datapruner.cleaning.vetoes import Vetoes
from datapruner.errors import MALFORMED, DataPrunerError
from datapruner.files.checksums import check
from datapruner.files.paths import expanded, is_file
from datapruner.outputs.dataset import files_read
from datapruner.outputs.folder import whole_folder
from datapruner.ranking import Ranking
from datapruner.reasons import SENTENCE, reason_of, saved_words
from datapruner.recipe import Recipe, load_recipe
from datapruner.results.columns import arrow_array, encoded, read_counted, steps_of
from datapruner.results.scored import Scored
from datapruner.signals import Ragged

TABLE = "scores.parquet"
META = b"datapruner"
STATE = "state/"
"""Stands before the names of a scorer's own arrays."""
VALUES, OFFSETS = "ragged-values/", "ragged-offsets/"
"""Stand before the names of a scorer's rows of different lengths."""


def save_scores(scores: Scored, path: Path, *, overwrite: bool = False) -> Path:
    """Write a folder of scores, whole or not at all.

    Parameters
    ----------
    scores : Scored
    path : Path
    overwrite : bool
        Replace an earlier folder of datapruner.
    """
    n = len(scores)
    steps = steps_of(scores.vetoes, n)
    columns: dict[str, pa.Array] = {
        "index": pa.array(np.arange(n)),
        "always_keep": pa.array(scores.forced),
        "veto": encoded(steps, [v.kind for v in scores.vetoes]).cast(pa.string()),
        "veto_step": pa.array(steps),
        "veto_row": _scattered([v.others for v in scores.vetoes], scores.vetoes, n, np.int64(-1)),
        "veto_measure": _scattered([v.measures for v in scores.vetoes], scores.vetoes, n, np.float64("nan")),
    }
    meta: dict[str, Any] = {
        "rows": n,
        "content": scores.samples.own_content,
        "vetoes": [[vetoes.kind, vetoes.reason.sentence] for vetoes in scores.vetoes],
        "tokens": {},
        "scorers": {},
    }

    if words := saved_words(scores.reasons_by_code):
        meta["reasons"] = words
    if scores.counted:
        meta["counted"] = dict(scores.counted)

    def place(name: str, scorer: str, values: NDArray[Any]) -> str:
        """Store a column under its plain name, or beside another of that name that differs."""
        array = arrow_array(values)
        for free in chain((name, f"{name}.{scorer}"), (f"{name}.{scorer}.{number}" for number in count(2))):
            if columns.setdefault(free, array).equals(array):
                return free
        raise AssertionError

    for name, values in scores.tokens.items():
        meta["tokens"][name] = place(name, "tokens", values)
    for name, ranking in scores.rankings.items():
        meta["scorers"][name] = {
            "values": place(f"score.{name}", name, ranking.values),
            "groups": None if ranking.groups is None else place("group", name, ranking.groups),
            "columns": {key: place(key, name, values) for key, values in ranking.columns.items()},
        }
    path = expanded(path)
    scores.samples.unchanged()
    with whole_folder(path, overwrite=overwrite, reads=files_read(scores)) as folder:
        table = pa.table(columns).replace_schema_metadata({META: json.dumps(meta).encode()})
        pq.write_table(table, folder / TABLE, compression="zstd")
        (folder / "state").mkdir()
        for name, ranking in scores.rankings.items():
            _save_state(ranking, folder / "state" / f"{name}.npz", name)
        recipe = scores.recipe.pinned(scores.samples).with_content(scores.samples)
        (folder / "recipe.yaml").write_text(recipe.save_yaml(path), encoding="utf-8")
    return path


class ScoresFolder(NamedTuple):
    """A folder of scores, opened.

    Attributes
    ----------
    folder : Path
    recipe : Recipe
    rows : int
        Of the dataset that was scored.
    content : str
        The hash of its rows.
    table : Table
        ``scores.parquet``.
    meta : dict
        What is what in it.
    """

    folder: Path
    recipe: Recipe
    rows: int
    content: Any
    table: pa.Table
    meta: dict[str, Any]

    def parts(self) -> tuple[dict[str, Ranking], list[Vetoes], dict[str, NDArray[Any]], Flags]:
        """Give the rankings, what cleaning dropped, the token counts, and the rows that are always kept.

        Raises
        ------
        DataPrunerError
            The folder is damaged.
        """
        try:
            rankings = {
                name: _load_ranking(self.table, described, self.folder, f"state/{name}.npz")
                for name, described in self.meta["scorers"].items()
            }
            steps, others, measures = (
                _column(self.table, f"veto_{name}") for name in ("step", "row", "measure")
            )
            vetoes = []
            for number, (kind, template) in enumerate(self.meta["vetoes"]):
                if not SENTENCE.fullmatch(template):
                    raise ValueError(template)
                reason = replace(reason_of(str(kind), self.meta.get("reasons")), sentence=template)
                vetoed = np.flatnonzero(steps == number)
                vetoes.append(Vetoes(reason, vetoed, others[vetoed], measures[vetoed]))
            tokens = {name: _column(self.table, stored) for name, stored in self.meta["tokens"].items()}
            forced = _column(self.table, "always_keep")
        except MALFORMED as error:
            raise DataPrunerError(f"the scores in {self.folder} are damaged; score again") from error
        return rankings, vetoes, tokens, forced

    def counted(self) -> dict[str, int]:
        """Give what cleaning counted and did not drop."""
        try:
            return read_counted(self.meta.get("counted", {}))
        except MALFORMED as error:
            raise DataPrunerError(f"the scores in {self.folder} are damaged; score again") from error


def open_scores(folder: Path) -> ScoresFolder:
    """Open a folder that :func:`save_scores` wrote.

    Raises
    ------
    DataPrunerError
        It is no such folder, or it is damaged.
    """
    if not is_file(folder / TABLE):
        raise DataPrunerError(
            f"{folder} is no folder of scores: it has no {TABLE}; make one with `datapruner score`"
        )
    check(folder, "recipe.yaml", TABLE)
    recipe = load_recipe(folder / "recipe.yaml")
    try:
        table = pq.read_table(folder / TABLE)
        meta = json.loads(table.schema.metadata[META])
        rows, content = int(meta["rows"]), meta["content"]
    except (pa.ArrowException, OSError, *MALFORMED) as error:
        raise DataPrunerError(f"the scores in {folder} are damaged; score again") from error
    return ScoresFolder(folder, recipe, rows, content, table, meta)


def _column(table: pa.Table, name: str) -> NDArray[Any]:
    values: NDArray[Any] = table.column(name).to_numpy()
    return values.astype(np.str_) if values.dtype == object else values  # text comes as Python's


def _load_ranking(table: pa.Table, described: dict[str, Any], folder: Path, name: str) -> Ranking:
    check(folder, name)
    state = _load_state(folder / name)
    return Ranking(
        _column(table, described["values"]),
        groups=None if described["groups"] is None else _column(table, described["groups"]),
        group_weights=state.get("group_weights"),
        columns={key: _column(table, stored) for key, stored in described["columns"].items()},
        state={
            **{key.removeprefix(STATE): array for key, array in state.items() if key.startswith(STATE)},
            **{
                (name := key.removeprefix(VALUES)): Ragged(array, state[f"{OFFSETS}{name}"])
                for key, array in state.items()
                if key.startswith(VALUES)
            },
        },
    )


def _save_state(ranking: Ranking, file: Path, name: str) -> None:
    """Write a ranking's arrays as ``np.load`` reads them; ``np.savez`` keeps some names to itself."""
    arrays: dict[str, NDArray[Any]] = {}
    for key, held in ranking.state.items():
        if isinstance(held, Ragged):
            arrays |= {f"{VALUES}{key}": held.values, f"{OFFSETS}{key}": held.offsets}
        else:
            arrays[f"{STATE}{key}"] = held
    if ranking.group_weights is not None:
        arrays["group_weights"] = ranking.group_weights
    with zipfile.ZipFile(file, "w") as archive:
        for key, array in arrays.items():
            try:
                with archive.open(f"{key}.npy", "w", force_zip64=True) as handle:
                    whole = array if isinstance(array, np.ndarray) else array[:]  # some rows of a matrix
                    np.lib.format.write_array(handle, np.asarray(whole), allow_pickle=False)
            except ValueError as error:
                raise DataPrunerError(f"the state of the scorer '{name}' cannot be saved: {error}") from error


def _load_state(file: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(file, allow_pickle=False) as archive:
            # Ours is not packed: what is may become any size.
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.zip.infolist()):
                raise zipfile.BadZipFile
            return dict(archive)
    except (OSError, EOFError, MemoryError, zipfile.BadZipFile, *MALFORMED) as error:
        raise DataPrunerError(f"the scores' state {file.name} is damaged; score again") from error


def _scattered(parts: list[NDArray[Any]], vetoes: Any, n: int, empty: Any) -> pa.Array:
    out = np.full(n, empty)
    for part, step in zip(parts, vetoes, strict=True):
        out[step.rows] = part
    return pa.array(out)
