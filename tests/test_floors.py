"""The house has floors: no file imports one above its own, and no two files import each other.

Imports inside functions and under ``TYPE_CHECKING`` count too: a type that is named is an import.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parents[1] / "datapruner"
FLOORS = (
    (
        "ground",
        "arguments arrays budget choices drawing engines.base errors extras files guards html_tables intervals "
        "matching moved overlap parameters parts progress ragged ranking ranks reasons text version words",
    ),
    ("rows, models, geometry", "samples models geometry"),
    ("recipe", "recipe option_types inputs"),
    ("selection", "selection"),
    ("cleaning, signals", "cleaning signals"),
    ("scorers", "scorers"),
    ("engines, measuring, results", "engines measuring results"),
    ("outputs", "outputs"),
    ("verbs", "scores running api saved verbs instead foresight"),
    ("studies", "comparison integrations plots pruning_damage stability testing validation"),
    ("command line", "cli doctor __init__ __main__"),
)
"""From the ground up, and the files and folders on each; a longer name goes before the folder that it lies in."""
EXCEPTIONS: dict[str, str] = {}
"""``importer -> imported``, as the modules are called within the package, and why it is still there. Only to shrink."""


class Import(NamedTuple):
    """One import of one of the package's own modules; names are those within the package."""

    importer: str
    imported: str
    where: str
    """File and line."""

    def __str__(self) -> str:
        return f"{self.importer} -> {self.imported}"


def modules(package: Path) -> dict[str, Path]:
    """Give the modules of a package by their name within it; of a package itself, the folder's."""
    found = {}
    for file in sorted(package.rglob("*.py")):
        parts = list(file.relative_to(package).with_suffix("").parts)
        if len(parts) > 1 and parts[-1] == "__init__":
            del parts[-1]
        found[".".join(parts)] = file
    return found


@cache
def imports(package: Path) -> list[Import]:
    """Read the package's imports of itself, each pair of files once."""
    known = modules(package)
    found: dict[tuple[str, str], Import] = {}
    for importer, file in known.items():
        shown = file.relative_to(package.parent).as_posix()
        for line, name in _named(ast.parse(file.read_text(encoding="utf-8")), importer, file, package.name):
            imported = name.removeprefix(package.name).removeprefix(".") or "__init__"
            if imported not in known:  # a name inside a module
                imported = imported.rpartition(".")[0] or "__init__"
            if imported in known and imported != importer:
                one = Import(importer, imported, f"{shown}:{line}")
                found.setdefault((importer, imported), one)
    return list(found.values())


def _named(tree: ast.Module, importer: str, file: Path, package: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = [package, *importer.split(".")][: None if file.name == "__init__.py" else -1]
                base = ".".join([*here[: len(here) - node.level + 1], *([base] if base else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.partition(".")[0] == package)


def floor(module: str) -> int:
    """Give the number of a module's floor: that of the longest name which it has or lies in."""
    held = {name: number for number, (_, names) in enumerate(FLOORS) for name in names.split()}
    while module not in held:
        if not module:
            return -1
        module = module.rpartition(".")[0]
    return held[module]


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Give one circle of every knot of modules that reach each other, as short as can be."""

    def path(start: str, end: str) -> list[str] | None:
        came: dict[str, str] = {}
        row = [start]
        for here in row:
            for there in sorted(graph.get(here, ())):
                if there == end:
                    out = [here]
                    while out[-1] != start:
                        out.append(came[out[-1]])
                    return out[::-1]
                if there not in came and there != start:
                    came[there] = here
                    row.append(there)
        return None

    found: list[list[str]] = []
    for module in sorted(graph):
        if any(module in one for one in found):
            continue
        if (circle := path(module, module)) is not None:
            found.append(circle)
    return found


def findings(package: Path, exceptions: Mapping[str, str] = MappingProxyType({})) -> list[str]:
    """Say what breaks the rule, a sentence each."""
    held = [one for one in imports(package) if str(one) not in exceptions]
    names = [name for name, _ in FLOORS]
    out = [
        f"{file.relative_to(package.parent)} stands on no floor; name it in FLOORS"
        for module, file in modules(package).items()
        if floor(module) < 0
    ]
    level: list[Import] = []
    for one in held:
        low, high = floor(one.importer), floor(one.imported)
        if high > low >= 0:
            out.append(
                f"{one.where} imports {package.name}.{one.imported}, which is above it "
                f"({names[high]} over {names[low]})"
            )
        else:
            level.append(one)
    graph: dict[str, set[str]] = {}
    for one in level:
        graph.setdefault(one.importer, set()).add(one.imported)
    where = {(one.importer, one.imported): one.where for one in level}
    for circle in circles(graph):
        told = [
            f"{where[here, there]} imports {package.name}.{there}"
            for here, there in zip(circle, [*circle[1:], circle[0]], strict=True)
        ]
        out.append(f"files import each other in a circle: {', '.join(told)}")
    return out


def test_no_file_imports_one_above_it_and_none_each_other():
    found = findings(PACKAGE, EXCEPTIONS)
    assert not found, "\n".join(found)


def test_every_exception_is_still_there():
    held = {str(one) for one in imports(PACKAGE)}
    gone = sorted(set(EXCEPTIONS) - held)
    assert not gone, f"no longer imported: take these off EXCEPTIONS: {gone}"


@pytest.mark.parametrize("exception", EXCEPTIONS)
def test_every_exception_is_needed(exception):
    rest = {one: why for one, why in EXCEPTIONS.items() if one != exception}
    assert findings(PACKAGE, rest), f"{exception} breaks no rule any more: take it off EXCEPTIONS"


def plant(folder: Path, **files: str) -> Path:
    """Make a package of these modules; a double underscore stands for a folder."""
    package = folder / "datapruner"
    for name, text in {"__init__": "", **files}.items():
        parts = ["__init__"] if name == "__init__" else name.split("__")
        file = package.joinpath(*parts).with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        (file.parent / "__init__.py").touch()
        file.write_text(text)
    return package


@pytest.mark.parametrize(
    ("there", "back"),
    [
        ("from datapruner.samples.second import B", "from datapruner.samples.first import A"),
        ("def f():\n    from datapruner.samples import second", "import datapruner.samples.first"),
        ("if TYPE_CHECKING:\n    from .second import B", "from . import first"),
    ],
)
def test_a_planted_circle_is_found(tmp_path, there, back):
    package = plant(tmp_path, samples__first=there, samples__second=back, text="import os")
    (said,) = findings(package)
    line = 1 + there.count("\n")
    assert said == (
        f"files import each other in a circle: datapruner/samples/first.py:{line} imports datapruner.samples.second, "
        "datapruner/samples/second.py:1 imports datapruner.samples.first"
    )


def test_a_planted_circle_of_three_is_found(tmp_path):
    package = plant(
        tmp_path,
        text="from datapruner import words",
        words="from datapruner.errors import E",
        errors="def f():\n    import datapruner.text as t",
    )
    (said,) = findings(package)
    assert said.count(" imports ") == 3
    assert "datapruner/errors.py:2 imports datapruner.text" in said


@pytest.mark.parametrize("imported", ["from datapruner.api import run", "from ..api import run"])
@pytest.mark.parametrize("guard", ["", "def f():\n    ", "if TYPE_CHECKING:\n    "])
def test_a_planted_import_that_points_up_is_found(tmp_path, imported, guard):
    package = plant(
        tmp_path, outputs__card=f"import os\n{guard}{imported}", api="from datapruner.outputs import card"
    )
    (said,) = findings(package)
    line = 2 + guard.count("\n")
    assert (
        said
        == f"datapruner/outputs/card.py:{line} imports datapruner.api, which is above it (verbs over outputs)"
    )


def test_the_package_itself_is_the_top(tmp_path):
    package = plant(tmp_path, version="V = 1", outputs__card="from datapruner import __version__")
    (said,) = findings(package)
    assert "datapruner/outputs/card.py:1 imports datapruner.__init__" in said


def test_what_points_down_is_let_pass(tmp_path):
    package = plant(
        tmp_path,
        cli="from datapruner.api import run",
        api="from datapruner.errors import E",
        errors="import ast",
    )
    assert findings(package) == []


def test_a_file_without_a_floor_is_named(tmp_path):
    (said,) = findings(plant(tmp_path, somewhere="x = 1"))
    assert said == "datapruner/somewhere.py stands on no floor; name it in FLOORS"
