"""Parts are found by their files and their entry points; nothing else names them."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import datapruner
from datapruner import parts
from datapruner.errors import DataPrunerError
from datapruner.parts import SCORERS, SELECTORS, Kind
from datapruner.scorers.base import Scorer
from datapruner.selection.selector import Selector
from tests.plugin import install

ROOT = Path(datapruner.__file__).parent
HOMES = {"scorers": ROOT / "scorers", "selectors": ROOT / "selection" / "selectors"}


@pytest.mark.parametrize(
    ("kind", "base"), [(SCORERS, Scorer), (SELECTORS, Selector)], ids=["scorers", "selectors"]
)
def test_every_file_is_a_part_of_its_name(kind, base):
    word = next(word for word, one in parts.KINDS.items() if one is kind)
    files = {file.stem for file in HOMES[word].glob("[!_]*.py")} - {"base"}
    assert set(parts.built_in(kind)) == files
    for name in files:
        cls = parts.find_class(kind, name, base)
        assert cls.name == name
        assert cls.__module__ == f"{kind.package}.{name}"
        # And by the class's name, from the package.
        assert getattr(importlib.import_module(kind.package), cls.__name__) is cls
        assert cls.__name__ in dir(importlib.import_module(kind.package))


def test_all_subclasses_of_the_package_are_parts():
    """A class in a file of another name would be found by nobody."""
    for kind, base in ((SCORERS, Scorer), (SELECTORS, Selector)):
        found = {parts.find(kind, name) for name in parts.built_in(kind)}
        held, row = set(), [base]
        for cls in row:
            row += cls.__subclasses__()
            if cls.__module__.startswith(kind.package) and "name" in vars(cls):
                held.add(cls)
        assert held == found


def test_names_are_listed_without_importing_a_part():
    program = (
        "import sys\nfrom datapruner import parts\n"
        "names = {word: list(parts.available(kind)) for word, kind in parts.KINDS.items()}\n"
        "assert 'prototypes' in names['scorers'] and 'topk' in names['selectors'], names\n"
        "homes = tuple(kind.package + '.' for kind in parts.KINDS.values())\n"
        "print([name for name in sys.modules if name.startswith(homes) or name in ('torch', 'pandas', 'sklearn')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_parts_are_found_where_the_package_is_no_folder(tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for file in ROOT.rglob("*.py"):
            archive.write(file, file.relative_to(ROOT.parent))
    program = (
        "from datapruner import parts\n"
        "print(parts.__file__, *parts.built_in(parts.SCORERS), parts.find(parts.SELECTORS, 'topk').name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "all.zip")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    where, *names = done.stdout.split()
    assert where.startswith(str(tmp_path))
    assert names == [*parts.built_in(SCORERS), "topk"]


def test_a_kind_without_built_in_parts_has_those_of_plug_ins(tmp_path, monkeypatch):
    kind = Kind("engine", "datapruner.nowhere_at_all", "datapruner.nowhere")
    assert parts.available(kind) == {}
    install(
        tmp_path,
        monkeypatch,
        "theirs",
        "class Fast:\n    name = 'fast'",
        {kind.group: {"fast": "theirs:Fast"}},
    )
    assert parts.available(kind) == {"fast": "theirs:Fast"}
    assert parts.find(kind, "fast").__name__ == "Fast"
    with pytest.raises(
        DataPrunerError, match=r"there is no engine 'fsat'\. Did you mean 'fast'\? Available: fast"
    ):
        parts.find(kind, "fsat")


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(
        DataPrunerError, match=r"there is no selector 'tokp'\. Did you mean 'topk'\? Available: ccs, "
    ):
        parts.find(SELECTORS, "tokp")
    with pytest.raises(DataPrunerError, match="there is no scorer 'base'"):
        parts.find(SCORERS, "base")
    with pytest.raises(DataPrunerError, match="there is no scorer '_topology'"):
        parts.find(SCORERS, "_topology")


@pytest.mark.parametrize(
    ("body", "place", "said"),
    [
        ("raise RuntimeError('no licence')", "theirs:Odd", "cannot be imported from theirs:Odd: no licence"),
        ("x = 1", "theirs:Odd", "cannot be imported from theirs:Odd: "),
        (
            "class Odd:\n    name = 'even'",
            "theirs:Odd",
            "has the name 'even'; name and entry point must be the same",
        ),
        ("class Odd:\n    pass", "theirs:Odd", "has the name None"),
        ("class Odd:\n    name = 'odd'", "theirs:Odd", "does not derive from datapruner.scorers.base.Scorer"),
        ("class Odd:\n    name = 'odd'\nodd = Odd()", "theirs:odd", "does not derive from"),
    ],
)
def test_a_broken_plug_in_is_a_sentence(tmp_path, monkeypatch, body, place, said):
    install(tmp_path, monkeypatch, "theirs", body, {"datapruner.scorers": {"odd": place}})
    with pytest.raises(DataPrunerError, match="the scorer 'odd'") as raised:
        parts.make(SCORERS, Scorer, "odd")
    assert said in str(raised.value)


def test_a_built_in_part_wins_and_two_plug_ins_of_one_name_are_refused(tmp_path, monkeypatch):
    body = "class Own:\n    name = 'own'\nclass TopK:\n    name = 'topk'"
    points = {"datapruner.selectors": {"own": "first:Own", "topk": "first:TopK"}}
    install(tmp_path / "1", monkeypatch, "first", body, points)
    assert parts.find(SELECTORS, "topk").__module__ == "datapruner.selection.selectors.topk"
    assert parts.available(SELECTORS)["topk"] == "datapruner.selection.selectors.topk"
    assert parts.find(SELECTORS, "own").__module__ == "first"
    install(tmp_path / "2", monkeypatch, "second", body, {"datapruner.selectors": {"own": "second:Own"}})
    with pytest.raises(
        DataPrunerError, match=r"two plug-ins bring a selector 'own': .*uninstall one of them"
    ):
        parts.find(SELECTORS, "own")
    assert parts.find(SELECTORS, "topk")


@pytest.mark.parametrize("body", ["x = 1", "class A:\n    name = 'part'\nclass B:\n    name = 'part'"])
def test_a_built_in_file_holds_one_part(tmp_path, monkeypatch, body):
    (tmp_path / "of_tests").mkdir()
    (tmp_path / "of_tests" / "part.py").write_text(body)
    (tmp_path / "of_tests" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "of_tests", raising=False)
    monkeypatch.delitem(sys.modules, "of_tests.part", raising=False)
    with pytest.raises(
        DataPrunerError, match=r"of_tests\.part must define one part with the name 'part', and has"
    ):
        parts.find(Kind("thing", "of_tests", "of.tests"), "part")


def test_one_object_is_a_part_too(tmp_path, monkeypatch):
    (tmp_path / "objects_of_tests").mkdir()
    (tmp_path / "objects_of_tests" / "part.py").write_text(
        "class _A:\n    def __init__(self): self.name = 'part'\nHERE = _A()"
    )
    (tmp_path / "objects_of_tests" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    found = parts.find(Kind("thing", "objects_of_tests", "of.tests"), "part")
    assert found.name == "part"
    assert not isinstance(found, type)


def test_what_is_no_name_and_no_part_is_refused():
    with pytest.raises(DataPrunerError, match="a scorer is a name or a Scorer object, not 3"):
        parts.make(SCORERS, Scorer, 3)
    with pytest.raises(DataPrunerError, match=r"a selector is a name or a Selector object, .*write TopK\(\)"):
        parts.make(SELECTORS, Selector, parts.find(SELECTORS, "topk"))


def test_classes_are_found_by_name_as_they_are_spelt():
    scorers = importlib.import_module("datapruner.scorers")
    assert (scorers.D2.name, scorers.KCenter.name, scorers.QTuning.name) == ("d2", "k_center", "qtuning")
    for wrong in ("Kcenter", "Nothing", "base", "__wrapped__"):
        if wrong != "base":
            assert not hasattr(scorers, wrong)
    selectors = importlib.import_module("datapruner.selection.selectors")
    assert (selectors.EUPlaneSelector.name, selectors.TopK.name) == ("eu_plane", "topk")
    with pytest.warns(DeprecationWarning, match="SELECTORS goes"):
        assert selectors.SELECTORS["ccs"] is selectors.CCS
