"""Figures in README and docs are those of benchmarks/results/*.json, and none is typed by hand."""

from __future__ import annotations

import copy
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Seconds, memory and deviations are measured; a page that a person writes has none.
MEASURED = re.compile(r"\d ?(?:s|MiB|GiB|minutes|rows/s)(?![\w-])|± ?\d")


@pytest.fixture(scope="module")
def bench():
    """The generator's modules; benchmarks/ is no package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import report_blocks
        import report_tables

        yield report_tables, report_blocks
        for name in [name for name in sys.modules if name.startswith("report_")]:
            del sys.modules[name]


def test_pages_hold_what_the_json_says(bench):
    tables, _ = bench
    pages = tables.pages()
    assert ROOT / "README.md" in pages
    used = []
    for page in pages:
        text = page.read_text("utf-8")
        used += tables.MARKED.findall(text)
        name = page.relative_to(ROOT).as_posix()
        assert tables.fill(text, name) == text, f"{name} is stale: make bench-report"
    assert {"figures", "recovery", "fashion", "noise_mixture"} <= set(used)
    assert set(used) == set(tables.BLOCKS), "a block that no page shows"


def test_no_figure_is_typed_by_hand(bench):
    tables, _ = bench
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = tables.MARKED.sub("", page.read_text("utf-8"))
        text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
        assert not MEASURED.findall(text), page.name
    page = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
    section = page.split("\n## Time, memory, exactness\n")[1].split("\n## ")[0]
    assert "|" not in tables.MARKED.sub("", section), "a row of the table outside the marks"


def test_a_new_measurement_makes_the_page_stale(bench, monkeypatch):
    tables, blocks = bench
    import report_blocks

    found = copy.deepcopy(blocks.result("topology"))
    found["step"]["ours"]["seconds_median"] = 1.25
    real = report_blocks.result
    text = tables.fill((ROOT / "docs" / "benchmarks.md").read_text("utf-8"))
    monkeypatch.setattr(report_blocks, "result", lambda name: found if name == "topology" else real(name))
    changed = tables.fill(text)
    assert "1.25 s" in changed
    moved = [b for a, b in zip(text.splitlines(), changed.splitlines(), strict=True) if a != b]
    assert len(moved) == 1
    assert moved[0].startswith("| one step of persistent homology")


def test_marks(bench):
    tables, _ = bench
    page = "before\n\n<!-- bench-report: target -->\nold, of any length\n\n<!-- /bench-report -->\n\nafter\n"
    filled = tables.fill(page, "docs/methods.md")
    assert filled.startswith("before\n\n<!-- bench-report: target -->\n\nWith the questions of gsm8k")
    assert filled.endswith("<!-- /bench-report -->\n\nafter\n")
    assert "old, of any length" not in filled
    # A link is written as seen from the page that it stands on.
    assert "(../benchmarks/target.py)" in filled
    assert "(benchmarks/target.py)" in tables.fill(page, "README.md")
    assert tables.fill(filled, "docs/methods.md") == filled
    with pytest.raises(SystemExit, match="no block 'nothing'"):
        tables.fill(page.replace("target", "nothing"))
    with pytest.raises(SystemExit, match="no partner"):
        tables.fill(page.replace("<!-- /bench-report -->", ""))


def test_table(bench):
    _, blocks = bench
    assert blocks.table(["", "a|b"], [["x", ""]]) == "| | a\\|b |\n|---|---|\n| x | |"
    assert blocks.power(1.5e-7) == "1.5e-7"
    assert blocks.percent(0.986) == "98.6 %"
    assert blocks.percent(0.3) == "30 %"
    assert blocks.about(277_902) == "280,000"
