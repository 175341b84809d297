"""Write every measured figure of README, docs and benchmarks/*.md from benchmarks/results/*.json.

``make bench-report``, or ``python benchmarks/report_tables.py``; ``--check`` writes nothing and says what is stale.
A page marks where a block of :mod:`report_blocks` goes; the lines between the marks are written over::

    <!-- bench-report: figures -->
    <!-- /bench-report -->
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
from pathlib import Path

from report_blocks import BLOCKS

MODULES = ("aimed", "costs", "docs", "duplicates", "engines", "noise", "recovery", "worth")
for module in MODULES:
    importlib.import_module(f"report_{module}")  # each adds its blocks

ROOT = Path(__file__).resolve().parents[1]
MARKED = re.compile(r"^<!-- bench-report: (\w+) -->\n(?:.*?\n)??<!-- /bench-report -->$", re.M | re.S)
MARK = re.compile(r"<!-- /?bench-report")
LINK = re.compile(r"\]\((?!\w+:)([\w./-]+)")


def pages(root: Path = ROOT) -> list[Path]:
    """Every page that may hold figures."""
    return [
        root / "README.md",
        *sorted((root / "docs").glob("*.md")),
        *sorted((root / "benchmarks").glob("*.md")),
    ]


def fill(text: str, page: str = "README.md") -> str:
    """Return a page's text with every marked block as the JSON has it.

    Links of a block count from the top of the repository, and are written as seen from the page.
    """
    here = Path(page).parent

    def link(found: re.Match[str]) -> str:
        return "](" + Path(os.path.relpath(found[1], here)).as_posix()

    def write(found: re.Match[str]) -> str:
        if found[1] not in BLOCKS:
            raise SystemExit(f"{page}: there is no block '{found[1]}', only {', '.join(BLOCKS)}")
        # A narrow cell is not broken between a figure and its deviation.
        body = LINK.sub(link, BLOCKS[found[1]]()).replace(" ± ", "\u00a0±\u00a0")
        return f"<!-- bench-report: {found[1]} -->\n\n{body}\n\n<!-- /bench-report -->"

    if len(MARK.findall(text)) != 2 * len(MARKED.findall(text)):
        raise SystemExit(f"{page}: a mark of bench-report has no partner")
    return MARKED.sub(write, text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 where a page is stale")
    arguments = parser.parse_args()
    stale = []
    for page in pages():
        text = page.read_text("utf-8")
        name = page.relative_to(ROOT).as_posix()
        filled = fill(text, name)
        if filled != text:
            stale.append(name)
            if not arguments.check:
                page.write_text(filled, "utf-8")
    print(
        "\n".join(f"{page} {'is stale' if arguments.check else 'written'}" for page in stale)
        or "nothing is stale"
    )
    sys.exit(bool(stale and arguments.check))


if __name__ == "__main__":
    main()
