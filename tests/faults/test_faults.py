"""Nothing is lost or half-written, whatever call fails and wherever a run dies; `make test-faults`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.telling import told_by

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


def test_every_call_that_changes_a_file_may_fail_or_be_the_last(shim, tmp_path):
    told = told_by("crash", **shim, DATAPRUNER_CACHE=str(tmp_path))
    assert set(told["stories"]) == {"a new result", "over an earlier result", "the store"}
    for name, story in told["stories"].items():
        # As many places as there are: a harness that sees none of them would pass.
        assert story["calls"] > (20 if shim else 5), name
        assert story["violations"] == [], name
