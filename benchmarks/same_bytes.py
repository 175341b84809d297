"""Did a change to the program change what it writes?

Some ninety small runs (every scorer, selector, budget, cleaning step, kind of source and output, comparisons, damage)
are done in a temporary folder, and the digest of every file that they leave is recorded; two records are compared.
Only the public names are used, so that the same script records an older tree and a newer one:

    PYTHONPATH=OLD python same_bytes.py --out before.json --keep kept
    PYTHONPATH=NEW python same_bytes.py --out after.json
    PYTHONPATH=NEW python same_bytes.py --recipes kept --out again.json
    python same_bytes.py --compare before.json after.json
    python same_bytes.py --compare before.json again.json

``--keep`` leaves the sources and all results, and ``--recipes`` runs the recipes that lie there and records what they
give under the names of the runs that saved them. ``--compare`` lists every file that is another, with the columns of
a table that differ, and exits with 1 if there is one. Pages, pictures and the digests of them (``shown``), and what
was printed (``said``), may be reworded on purpose: they are listed, and count with ``--strict`` alone. Bytes depend on
the versions of the libraries and on the CPU's type (``about``): where these differ, so may the bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import runpy
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LIBRARIES = (
    "datapruner",
    "datasets",
    "faiss-cpu",
    "gudhi",
    "matplotlib",
    "numba",
    "numpy",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "scipy",
    "tokenizers",
    "torch",
    "transformers",
    "umap-learn",
)
SHOWN = (".html", ".png", "checksums.txt")
SELECTORS = ("topk", "group_quota", "ccs", "moderate", "eu_plane", "message_passing", "coverage", "paser")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def settle() -> None:
    """Set what torch, faiss and transformers read once, when they are imported."""
    for name in [name for name in os.environ if name.startswith("DATAPRUNER_")]:
        del os.environ[name]
    os.environ |= dict.fromkeys(THREADS, "1")
    os.environ |= {"HF_HUB_OFFLINE": "1", "COLUMNS": "120", "TERM": "dumb", "NO_COLOR": "1", "TZ": "UTC"}
    os.environ |= {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def about() -> dict[str, Any]:
    """What bytes legitimately depend on, and what was run."""
    import datapruner

    cpu = Path("/proc/cpuinfo")
    models = cpu.read_text().splitlines() if cpu.exists() else []
    found = {}
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return {
        "tree": str(Path(str(datapruner.__file__)).parent),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpu": next((line.partition(": ")[2] for line in models if line.startswith("model name")), ""),
        "libraries": found,
    }


def columns(path: Path) -> dict[str, str]:
    """The digest of every column's type and values, whichever way the file holds them."""
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    return {
        name: sha(f"{table.schema.field(name).type} {table.column(name).to_pylist()!r}".encode())
        for name in table.column_names
    }


def content(path: Path) -> bytes:
    """What a file says: of a recipe all but the number of its format, which is the version's and not the run's."""
    data = path.read_bytes()
    if path.name == "recipe.yaml":
        return b"".join(line for line in data.splitlines(True) if not line.startswith(b"recipe_format:"))
    return data


def files_of(out: Path) -> dict[str, Any]:
    """What a run left: digests of files, of what is to be looked at, and of the columns of tables."""
    held: dict[str, Any] = {"files": {}, "shown": {}, "columns": {}}
    for path in sorted(out.rglob("*")):
        if path.is_file():
            name = path.relative_to(out).as_posix()
            held["shown" if name.endswith(SHOWN) else "files"][name] = sha(content(path))
            if path.suffix == ".parquet":
                held["columns"][name] = columns(path)
    return held


class Captured(io.TextIOWrapper):
    """A stream in memory that is one in all that a program asks of its output."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)

    def text(self) -> str:
        return self.buffer.getvalue().decode()  # type: ignore[attr-defined,no-any-return]


def command(words: list[str]) -> tuple[int, str]:
    """``python -m datapruner`` in this process: its exit code and all that it printed."""
    out, err = Captured(), Captured()
    before = sys.argv
    sys.argv = ["datapruner", *words]
    code: Any = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            runpy.run_module("datapruner", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code or 0
    except Exception:
        code = 1
        err.write(traceback.format_exc())
    finally:
        sys.argv = before
    return int(code), out.text() + (err.text() if code else "")


def by_python(run: Any, out: Path) -> tuple[int, str]:
    printed = Captured()
    out.mkdir(parents=True)
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(Captured()):
            run(out)
    except Exception:
        return 1, traceback.format_exc()
    return 0, printed.text()


@contextlib.contextmanager
def workshop() -> Iterator[Path]:
    """A temporary working folder with a cache of its own."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="same-bytes-") as name:
        folder = Path(name).resolve()
        os.environ["DATAPRUNER_CACHE"] = str(folder / "cache")
        os.chdir(folder)
        try:
            yield folder
        finally:
            os.chdir(before)


def runs(kept: Path | None, only: list[str]) -> Iterator[tuple[str, Any]]:
    """By name the words of a command line, or a function; the recipes of what was kept, or all."""
    from same_bytes_runs import COMMANDS, FROM_PYTHON, words

    if kept is None:
        for name in [*COMMANDS, *FROM_PYTHON]:
            if not only or name in only:
                yield name, words(name) if name in COMMANDS else FROM_PYTHON[name]
        return
    for recipe in sorted((kept / "outs").rglob("recipe.yaml")):
        text = recipe.read_text(encoding="utf-8")
        name = recipe.parent.relative_to(kept / "outs").as_posix()
        # What was made with objects of the process says so, and what was only scored names no budget.
        if "\nin_memory:" not in text and "\nkeep" in text and (not only or name in only):
            yield name, ["run", str(recipe.relative_to(kept)), "-o", f"outs/{name}"]


def record(kept: Path | None, keep: Path | None, only: list[str]) -> dict[str, Any]:
    """Do the runs and give what they left."""
    from same_bytes_sources import write_sources

    kept, keep = (None if path is None else path.resolve() for path in (kept, keep))
    start = time.perf_counter()
    made: dict[str, Any] = {"about": about(), "recipes": kept is not None, "sources": {}, "runs": {}}
    texts: dict[str, str] = {}
    with workshop() as folder:
        if kept is None:
            write_sources(folder / "sources")
        else:
            shutil.copytree(kept / "sources", folder / "sources")
        made["sources"] = {
            path.relative_to(folder).as_posix(): sha(path.read_bytes())
            for path in sorted((folder / "sources").rglob("*"))
            if path.is_file()
        }
        for name, run in runs(kept, only):
            began = time.perf_counter()
            out = folder / "outs" / name
            if kept is not None:  # the recipe lies beside the result, as deep as it was saved
                place = folder / run[1].replace("outs", "recipes", 1)
                place.parent.mkdir(parents=True)
                shutil.copy(kept / run[1], place)
                run[1] = str(place.relative_to(folder))
                out.parent.mkdir(parents=True, exist_ok=True)
            code, text = command(run) if isinstance(run, list) else by_python(run, out)
            texts[name] = text.replace(str(folder), "FOLDER")
            made["runs"][name] = {"code": code, **files_of(out), "said": sha(texts[name].encode())}
            refused = name.split("-")[-1] == "refused" or name.startswith("refused-")
            wrong = code != (2 if refused else 0)
            taken = time.perf_counter() - began
            print(
                f"{name:32}{taken:6.1f} s  exit {code}{'  UNEXPECTED: ' + text[-1500:] if wrong else ''}",
                flush=True,
            )
        if keep is not None:
            for part in ("sources", "outs"):
                shutil.copytree(folder / part, keep / part, dirs_exist_ok=True)
            (keep / "said").mkdir(exist_ok=True)
            for name, text in texts.items():
                (keep / "said" / f"{name.replace('/', '+')}.txt").write_text(text, encoding="utf-8")
        if kept is None and not only:
            uncovered(command(["scorers"])[1])
    print(f"{len(made['runs'])} runs, {time.perf_counter() - start:.0f} s")
    return made


def uncovered(listed: str) -> None:
    """Say which scorers and selectors no run names."""
    from same_bytes_runs import COMMANDS

    scorers = [line for line in listed.splitlines() if line and not line.startswith(" ")]
    lines = [*COMMANDS.values()]
    missing = [
        name
        for name in scorers
        if name != "combined" and not any(f"--scorer {name} " in line for line in lines)
    ]
    missing += [name for name in SELECTORS if not any(f"--selector {name} " in line for line in lines)]
    if missing:
        print(f"NO RUN HAS: {', '.join(missing)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="JSON file of the record")
    parser.add_argument(
        "--keep", type=Path, help="folder for the sources, the results with their recipes, and texts"
    )
    parser.add_argument("--recipes", type=Path, help="run the recipes of such a folder instead")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these runs alone")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("BEFORE", "AFTER"))
    parser.add_argument("--strict", action="store_true", help="pages, pictures and printed lines count too")
    given = parser.parse_args()
    if given.compare:
        from same_bytes_compare import compare

        sys.exit(compare(*given.compare, given.only, strict=given.strict))
    if given.out is None:
        parser.error("--out or --compare is needed")
    settle()
    made = record(given.recipes, given.keep, given.only)
    given.out.write_text(json.dumps(made, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
