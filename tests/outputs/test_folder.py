"""What a killed run leaves beside the output is cleared by the next one; what may still be wanted is not."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from datapruner.errors import DataPrunerError
from datapruner.outputs.folder import whole_folder

KILLED = """
import os, signal, sys
from pathlib import Path
from datapruner.outputs.folder import whole_folder
with whole_folder(Path(sys.argv[1]), overwrite=False) as folder:
    (folder / "half").write_text("written")
    os.kill(os.getpid(), signal.SIGKILL)
"""


SWEEP = """
import sys
from pathlib import Path
from datapruner.outputs.folder import _sweep
_sweep(Path(sys.argv[1]))
"""


def beside(path):
    return sorted(entry.name for entry in path.parent.iterdir())


def test_a_killed_writers_folder_goes_with_the_next_run(tmp_path):
    out = tmp_path / "out"
    subprocess.run([sys.executable, "-c", KILLED, str(out)], check=False)
    assert len(beside(out)) == 1
    assert not out.exists()
    with whole_folder(out, overwrite=False) as folder:
        (folder / "recipe.yaml").write_text("")
    assert beside(out) == ["out"]


def test_a_living_writers_folder_stays(tmp_path):
    out = tmp_path / "out"
    with whole_folder(out, overwrite=False) as folder:
        subprocess.run([sys.executable, "-c", SWEEP, str(out)], check=True)
        assert folder.exists()
        (folder / "recipe.yaml").write_text("")
    assert out.exists()


def test_an_earlier_result_survives_a_swap_that_fails_twice(tmp_path, monkeypatch):
    out = tmp_path / "out"
    with whole_folder(out, overwrite=False) as folder:
        (folder / "recipe.yaml").write_text("first")
        (folder / "selection.parquet").write_text("x")
    replace, moves = os.replace, []

    def failing(source, target):
        moves.append(target)
        if len(moves) > 1:
            raise OSError(5, "Input/output error")
        replace(source, target)

    monkeypatch.setattr("pathlib.Path.replace", failing)
    with (
        pytest.raises(DataPrunerError, match="Input/output error"),
        whole_folder(out, overwrite=True) as folder,
    ):
        (folder / "recipe.yaml").write_text("second")
    monkeypatch.undo()
    (kept,) = tmp_path.glob(".out.old.*")
    assert (kept / "was" / "recipe.yaml").read_text() == "first"
