"""What mkdocs does not do by itself: pages for the scripts, notes and notebooks that stand outside of docs/.

Links in docs/ are written as a reader of the repository follows them (``../benchmarks/noise.md``). On the site the
same file is a page under ``source/``.
"""

from __future__ import annotations

import html
import json
import os
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
SHOWN = ("benchmarks/*.md", "benchmarks/*.py", "notebooks/*.ipynb", "*.md", "LICENSE")
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")
NOT_SEARCHED = "---\nsearch:\n  exclude: true\n---\n\n"


def on_config(config: MkDocsConfig) -> None:
    """Put the notebooks into the navigation, after the guides."""
    notebooks = [
        site_page(path.relative_to(ROOT).as_posix()) for path in sorted(ROOT.glob("notebooks/*.ipynb"))
    ]
    if config.nav is not None and notebooks:
        config.nav.insert(2, {"Notebooks": notebooks})


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for every file outside of docs/ that a page may name."""
    for pattern in SHOWN:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, site_page(name), content=as_markdown(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links that leave docs/ to the pages under source/."""
    del config
    uri = page.file.src_uri
    for name, write in WRITTEN.items():
        if f"<!-- {name} -->" in markdown:
            markdown = markdown.replace(f"<!-- {name} -->", write())
    if uri.endswith((".py.md", "LICENSE.md")):
        return markdown  # whose brackets are no links
    inside = uri.startswith("source/")
    here = (ROOT / (uri.removeprefix("source/") if inside else f"docs/{uri}")).parent

    def link(found: re.Match[str]) -> str:
        path = Path(os.path.normpath(here / found[1]))
        if not path.is_relative_to(ROOT):
            return found[0]
        name = path.relative_to(ROOT).as_posix()
        target = name.removeprefix("docs/") if name.startswith("docs/") else site_page(name)
        if files.get_file_from_path(target) is None:
            return found[0]  # mkdocs says what is missing
        seen = os.path.relpath(target, Path(uri).parent)
        return f"]({Path(seen).as_posix()}{found[2] or ''})"

    return LINK.sub(link, markdown)


def commands() -> str:
    """Show every verb's --help."""
    from typer.main import get_command
    from typer.testing import CliRunner

    from datapruner.cli import app
    from datapruner.cli.app import verb_of

    shown = CliRunner().invoke(app, ["--help"], prog_name="datapruner", terminal_width=80)
    if shown.exit_code:
        raise RuntimeError(shown.output)
    told = [f"```text\n{shown.output.strip()}\n```\n"]
    for verb in get_command(app).commands:  # type: ignore[attr-defined]
        text = verb_of(verb).help(f"datapruner {verb}", everything=False)
        told.append(f"## {verb}\n\n```text\n{text}\n```\n")
    return "\n".join(told)


def options() -> str:
    """Tabulate every option by section: its names, its default, what it does, which verbs take it."""
    from datapruner.cli.app import VERBS, verb_of
    from datapruner.cli.help_layout import row_of
    from datapruner.recipe.option import declared, title_of
    from datapruner.recipe.options import SECTIONS, Running

    in_python = {one.name: one for section in (*SECTIONS, Running) for one in declared(section)}
    rows: dict[str, dict[tuple[str, str], list[str]]] = {
        title_of(section): {} for section in (*SECTIONS, Running)
    }
    for verb in " ".join(VERBS.values()).split():
        for one in verb_of(verb).options.values():
            row = row_of(one)
            flag = f"{row.names} {row.value}".strip()
            rows.setdefault(one.title, {}).setdefault((one.name, f"`{flag}` | {_cell(row)}"), []).append(verb)
    for name, one in in_python.items():
        if one.option.flags == "":
            rows[one.title].setdefault((name, f"| {_cell(row_of(one))}"), [])
    told = []
    for title, held in rows.items():
        told += [f"## {title}\n", "| Python, recipe | command line | | verbs |", "|---|---|---|---|"]
        for (name, what), verbs in held.items():
            python = f"`{name}`" if name in in_python else ""
            told.append(f"| {python} | {what} | {', '.join(verbs)} |")
        told.append("")
    return "\n".join(told)


def _cell(row: Any) -> str:
    """Write what an option does, and its default, into a cell of a table."""
    text = f"{row.told} [{row.more}]" if row.more else row.told
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|").replace("[", "\\[")


def signals() -> str:
    """Tabulate the signals that a scorer may read."""
    from datapruner.signals.plan import known_signals

    return "\n".join(
        [
            "| signal | |",
            "|---|---|",
            *(f"| `{name}` | {given.described()} |" for name, given in known_signals().items()),
        ]
    )


def reference(word: str) -> str:
    """Describe every built-in part of a kind, from the part itself."""
    from datapruner.cli.listing import facts
    from datapruner.parts import KINDS, built_in, find

    told = []
    for name in built_in(KINDS[word]):
        part = find(KINDS[word], name)
        place = part if isinstance(part, type) else type(part)
        told.append(
            f"::: {place.__module__}.{place.__qualname__}\n"
            f"    options: {{heading_level: 3, members: false, heading: {name}, toc_label: {name}}}\n"
        )
        told += [f"- {label}: {text}" for label, text in facts(KINDS[word], part)]
        told.append("")
    return "\n".join(told)


WRITTEN = {
    "commands": commands,
    "options": options,
    "signals": signals,
    **{word: partial(reference, word) for word in ("scorers", "selectors", "measurements", "cleaning")},
}
"""What a page asks for with a comment of that name."""


def site_page(name: str) -> str:
    """Return the page of a file outside of docs/, or of a folder."""
    if (ROOT / name).is_dir():
        name += "/README.md"
    # README would be taken for the folder's index, and other endings for files to download.
    return "source/" + (name.replace("README", "overview") if name.endswith(".md") else f"{name}.md")


def as_markdown(path: Path) -> str:
    """Return what a file's page says."""
    text = path.read_text("utf-8")
    if path.suffix == ".md":
        return text
    if path.suffix == ".ipynb":
        return "\n\n".join(cell_as_markdown(cell) for cell in json.loads(text)["cells"])
    language = "python" if path.suffix == ".py" else "text"
    return f"{NOT_SEARCHED}# {path.name}\n\n````{language}\n{text}\n````\n"


def cell_as_markdown(cell: dict[str, Any]) -> str:
    """Render a notebook's cell as it was committed: text, code, and what the code printed and drew."""
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return source
    return "\n\n".join([f"````python\n{source}\n````", *map(output_as_markdown, cell.get("outputs", []))])


def output_as_markdown(output: dict[str, Any]) -> str:
    """Show a picture, a table or a text."""
    data = output.get("data", {"text/plain": output.get("text", output.get("traceback", ""))})
    if "image/png" in data:
        picture = "".join("".join(data["image/png"]).split())
        return f'<img class="output" alt="the cell\'s picture" src="data:image/png;base64,{picture}">'
    if "text/html" in data:
        # A table of pandas, in the site's style and not in its own.
        return re.sub(
            r'<style.*?</style>| border="1" class="dataframe"', "", "".join(data["text/html"]), flags=re.S
        )
    return f'<pre class="output">{html.escape("".join(data.get("text/plain", "")))}</pre>'
