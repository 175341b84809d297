"""Nothing is lost or half-written, whatever call fails and wherever a run dies; `make test-faults`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="/proc and LD_PRELOAD are Linux's"),
]


@pytest.fixture(scope="module")
def shim(tmp_path_factory) -> dict[str, str]:
    """What preloads the shim; without a compiler Python's own calls alone are made to fail."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return {}
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-o", library, HERE / "shim.c", "-ldl"], check=True
    )
    return {"LD_PRELOAD": str(library)}


def told_by(module: str, environment: dict[str, str], cache: Path, *words: str) -> dict:
    ran = subprocess.run(
        [sys.executable, "-m", f"tests.faults.{module}", *words],
        cwd=HERE.parents[1],
        env={
            **os.environ,
            **environment,
            "DATAPRUNER_CACHE": str(cache),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    print(ran.stdout)
    return json.loads(ran.stdout)


def test_every_call_that_changes_a_file_may_fail_or_be_the_last(shim, tmp_path):
    told = told_by("crash", shim, tmp_path)
    assert set(told["stories"]) == {"a new result", "over an earlier result", "the store"}
    for name, story in told["stories"].items():
        # As many places as there are: a harness that sees none of them would pass.
        assert story["calls"] > (20 if shim else 5), name
        assert story["violations"] == [], name


KINDS = {
    "JSON": 50, "CSV": 17, "packed": 20, "pipes, devices and links": 23, "media": 17, "Parquet": 60, "Arrow": 57,
    "arrays": 29, "models": 50, "tokenizers": 18, "templates": 16, "adapters": 10, "recipes": 45, "saved": 48,
    "caches": 16, "arguments and outputs": 45,
}  # fmt: skip


# Every third case by default, for the two minutes that the faults have; all of them in `make test-all`.
@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_what_is_hostile_ends_soon_in_little_memory_with_a_result_or_a_sentence(tmp_path, every):
    told = told_by("corpus", {}, tmp_path, f"--every={every}")
    assert set(told["cases"]) == set(KINDS)
    for kind, least in KINDS.items():
        assert told["cases"][kind] >= least // every, kind
    assert told["ran"] == sum(told["cases"].values())
    # A harness in which nothing runs, or nothing is refused, would pass.
    assert told["codes"]["0"] > 50 // every
    assert told["codes"]["2"] > 200 // every
    assert told["violations"] == []
