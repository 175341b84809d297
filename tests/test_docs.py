"""The site builds without a warning, asks nobody else for anything, and no page of the repository has a dead link."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "benchmarks").glob("*.md")),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built as `make docs` does."""
    for module in ("mkdocs", "material", "mkdocstrings_handlers"):
        pytest.importorskip(module, reason=f"the site is built with {module}: pip install '.[docs]'")
    folder = tmp_path_factory.mktemp("docs") / "site"
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    return folder


class Loads(HTMLParser):
    """Collects what a browser fetches by itself when it shows a page: not the links that a person follows."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag == "link" and found.get("rel") not in ("canonical", "prev", "next"):
            self.urls.append(found.get("href") or "")
        if tag in ("script", "img", "iframe", "source", "video", "object"):
            self.urls += [found[name] for name in ("src", "data", "srcset") if found.get(name)]

    def handle_data(self, data):
        self.text.append(data)


def read(file: Path) -> Loads:
    page = Loads()
    page.feed(file.read_text("utf-8"))
    return page


@pytest.mark.pages
def test_no_page_asks_another_machine(site):
    files = sorted(site.rglob("*.html"))
    assert len(files) > 30
    for file in files:
        page = read(file)
        assert len(page.urls) > 3, file.name
        for url in page.urls:
            assert not re.match(r"(https?:)?//", url), f"{file.relative_to(site)} loads {url}"
    # A style sheet can ask, too.
    for file in site.rglob("*.css"):
        assert not re.findall(r"(?:@import|url\()\s*['\"]?(?:https?:)?//", file.read_text("utf-8")), file.name


@pytest.mark.pages
def test_every_page_of_docs_is_in_the_navigation(site):
    text = " ".join((site / "index.html").read_text("utf-8").split())
    for page in (ROOT / "docs").glob("*.md"):
        assert f'href="{page.stem}.html"' in text or page.stem == "index", page.name


def test_methods_name_files_that_are_there():
    text = (ROOT / "docs" / "methods.md").read_text("utf-8")
    named = set(re.findall(r"`((?:[a-z_0-9]+/)+(?:[a-z_0-9]+\.py)?)`", text))
    assert len(named) > 20
    places = (ROOT, ROOT / "datapruner")
    assert [name for name in sorted(named) if not any((place / name).exists() for place in places)] == []


@pytest.mark.pages
def test_reference_comes_from_the_code(site):
    from typer.main import get_command

    from datapruner.cli import app
    from datapruner.parts import KINDS, built_in, find
    from datapruner.signals.plan import known_signals

    pages = {
        "scorers": "reference_scorers.html",
        "selectors": "reference_selectors.html",
        "measurements": "reference_parts.html",
        "cleaning": "reference_selectors.html",
    }
    for word, page in pages.items():
        shown = (site / page).read_text("utf-8")
        for name in built_in(KINDS[word]):
            part = find(KINDS[word], name)
            assert f'id="{part.__module__}.{part.__name__}"' in shown, name
            assert f'<a href="#{part.__module__}.{part.__name__}"' in shown, f"{name} is not in the contents"
    assert "<li>needs: embedding, label, manifold, neighbours</li>" in (site / pages["scorers"]).read_text(
        "utf-8"
    )
    parts = " ".join(read(site / "reference_parts.html").text)
    assert all(name in parts for name in known_signals())
    commands = " ".join(read(site / "reference_commands.html").text)
    for name in get_command(app).commands:
        assert f"Usage: datapruner {name}" in commands
    # Sphinx's roles are links here.
    for file in site.glob("reference*.html"):
        assert not re.search(r":(func|class|meth|mod|data|attr):", " ".join(read(file).text)), file.name


@pytest.mark.pages
def test_public_names_have_a_reference(site):
    import datapruner as dp

    text = "".join(file.read_text("utf-8") for file in site.glob("reference*.html"))
    for name in set(dp.__all__) - {"plots", "scorers"}:
        value = getattr(dp, name)
        assert f'id="{value.__module__}.{value.__name__}"' in text, name


@pytest.mark.pages
def test_notebooks_are_pages(site):
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        html = (site / "source" / "notebooks" / f"{notebook.name}.html").read_text("utf-8")
        drawn = sum(
            "image/png" in output.get("data", {})
            for cell in json.loads(notebook.read_text("utf-8"))["cells"]
            for output in cell.get("outputs", [])
        )
        assert html.count("data:image/png;base64,") == drawn, notebook.name


def slug(heading: str) -> str:
    """GitHub's anchor of a heading."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_on_github(page):
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S)
    for link in re.findall(r"\]\((?!\w+:)([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        target = page if not path else page.parent / path
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)", target.read_text("utf-8"), re.M)
            assert anchor in map(slug, headings), link
