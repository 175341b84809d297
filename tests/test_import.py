"""Importing the package, and asking for help, load nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "transformers",
    "sentence_transformers",
    "datasets",
    "faiss",
    "umap",
    "gudhi",
    "sklearn",
    "pandas",
    "pyarrow",
)


@pytest.mark.parametrize("code", ["import datapruner", "import datapruner.cli", "import datapruner.samples"])
def test_nothing_heavy_is_imported(code):
    check = f"{code}; import sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_help_loads_nothing_heavy():
    check = (
        "import sys; sys.argv = ['datapruner', '--help']\n"
        "import datapruner.cli as cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        f"print('loaded', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert "loaded []" in ran.stdout


def test_the_public_names_are_there():
    import datapruner

    for name in datapruner.__all__:
        assert getattr(datapruner, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = datapruner.nothing


def test_the_module_is_the_command():
    ran = subprocess.run(
        [sys.executable, "-m", "datapruner", "scorers"], capture_output=True, text=True, check=True
    )
    assert "concept_complexity" in ran.stdout
