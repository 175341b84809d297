"""What may be said of a run, whatever it was given."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from math import isfinite
from pathlib import Path
from typing import Any

from tests.faults.fork import tree
from tests.faults.fuzz.sources import PLACED

CODES = (0, 2, 130)
FRAME = re.compile(r'File ".*?/datapruner/([^"]+)", line \d+, in (\S+)')


def unsafe(said: str) -> str | None:
    """The first character that a terminal would act on."""
    for character in said:
        if character not in "\n\t" and unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
            return repr(character)
    return None


def faults(code: int, said: str, out: Path, before: dict[str, str] | None, litter: list[str]) -> list[str]:
    """What is wrong with an exit code, with what was printed, with an earlier result, and with what is left."""
    found = []
    if code not in CODES:
        frames = FRAME.findall(said)
        last = said.strip().splitlines()[-1:] or [""]
        where = "/".join(frames[-1]) if frames else ""
        found.append(f"exit code {code}: {where}: {re.sub(r'[0-9]+', '0', last[0])[:90]}")
    elif "Traceback (most recent call last)" in said:
        found.append("a traceback")
    if (character := unsafe(said)) is not None:
        found.append(f"{character} in the terminal")
    if code != 0 and tree(out) != before:
        found.append("the earlier result was touched" if before is not None else "half a result")
    found += [f"{name.split('-')[0]} is left" for name in litter]
    page = out / "report.html"
    if code == 0 and page.is_file() and PLACED in page.read_text("utf-8"):
        found.append("a text is markup on the page")
    return found


def same(one: Any, other: Any, apart: float = 0.0) -> bool:
    """Whether values are of one type and equal; NaN equals itself.

    ``apart`` is how far floats may be rounded, and then what is not finite may be none.
    """
    if apart and one is None and isinstance(other, float) and not isfinite(other):
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key], apart) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other, [apart] * len(one)))
    if isinstance(one, float) and isfinite(one) and isfinite(other):
        return abs(one - other) <= apart
    return repr(one) == repr(other)


def loads(out: Path, rows: list[Any] | None, cache: Path) -> str | None:
    """Whether a written folder loads as the rows that its table says were kept; None where all is well.

    Rows are those that the source was written from, if nothing of it was changed since; else those of the recipe's
    source as the library reads it.
    """
    import pyarrow.parquet as pq
    from datasets import load_dataset, load_from_disk

    if not (out / "selection.parquet").is_file():
        return None
    table = pq.read_table(out / "selection.parquet", columns=["kept"])
    kept = [at for at, one in enumerate(table["kept"].to_pylist()) if one]
    if (out / "data" / "dataset_dict.json").exists() or any(out.rglob("state.json")):
        folder = next(path.parent for path in out.rglob("state.json") if path.parent.name != "test")
        loaded = load_from_disk(str(folder))
    else:
        os.environ["HF_DATASETS_CACHE"] = str(cache)
        from datapruner.recipe import load_recipe

        split = load_recipe(out / "recipe.yaml").split or "train"
        loaded = load_dataset(str(out), split=split, cache_dir=str(cache))
    if len(loaded) != len(kept):
        return f"{len(loaded)} rows load, {len(kept)} were kept"
    from datapruner.recipe import load_recipe
    from datapruner.samples import load_samples

    recipe = load_recipe(out / "recipe.yaml").located()
    samples = load_samples(recipe.source, split=recipe.split, columns=recipe.columns, layout=recipe.layout)
    wanted = samples.dataset.select(kept).to_list()
    got = loaded.to_list()
    new = [name for name in loaded.column_names if name not in samples.dataset.column_names]
    got = [{name: value for name, value in row.items() if name not in new} for row in got]
    # Which `datasets` does, and we say so: numbers beside objects without a schema, in JSON lines.
    rounded = 1e-9 * any((out / "data").glob("*.jsonl"))
    if not same(got, wanted, rounded):
        return "other rows load than were kept"
    if rows is not None and str(recipe.source).endswith(".jsonl") and len(rows) == len(table):
        plain = json.loads(json.dumps([rows[at] for at in kept], default=str))
        short = [{name: value for name, value in row.items() if value is not None} for row in got]
        simple = all(isinstance(value, str | int) for row in plain for value in row.values())
        if simple and not same(short, plain):
            return "other values load than stand in the source"
    return None
