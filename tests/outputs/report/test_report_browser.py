"""The page in Chromium: nothing planted runs, nothing is fetched, and it can be used with and without a mouse."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hostile import HOSTILE, hostile_selections

import datapruner as dp

pytest.importorskip("plotly", reason="the extra `report` is not installed")
pytest.importorskip("jinja2", reason="the extra `report` is not installed")
pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from playwright import sync_api as driver

from datapruner.outputs.report import write_report
from datapruner.scorers import Ranking, Scorer

pytestmark = pytest.mark.pages

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 375, "height": 812}
PATIENCE = 300_000  # milliseconds; of a machine that does other things too
SAID = re.compile(r"(?:([\d,]+) of )?([\d,]+) (?:shown )?rows?")


@pytest.fixture(scope="module")
def browser():
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser is installed ({', '.join(BROWSERS)})")
    with driver.sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=found,
            args=["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"],
            timeout=PATIENCE,
        )
        yield running
        running.close()


@pytest.fixture
def visit(browser):
    """Open a page and, at the end, require that it was silent: no console, no dialog, no request, no script."""
    driver.expect.set_options(timeout=PATIENCE)
    opened, noise = [], []

    def go(file: Path, viewport=DESKTOP, **options):
        context = browser.new_context(viewport=viewport, **options)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: noise.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: noise.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (noise.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on(
            "request",
            lambda request: (
                None
                if request.url == file.resolve().as_uri() or request.url.startswith("data:,")
                else noise.append(f"request: {request.url[:100]}")
            ),
        )
        page.goto(file.resolve().as_uri(), wait_until="commit")
        page.wait_for_selector("html[data-ready=true]", state="attached")
        opened.append((context, page))
        return page

    yield go
    for context, page in opened:
        assert page.evaluate("window.pwned") is None
        context.close()
    assert noise == []


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    rng = np.random.default_rng(0)
    n = 130
    vectors = np.concatenate([rng.normal(3, 1, (70, 4)), rng.normal(-3, 1, (60, 4))]).astype(np.float32)
    rows = [
        {
            "question": f"question {row}",
            "answer": "needle" if row % 13 == 0 else "hay " * (1 + row % 7),
            "skill": "ab"[row % 2],
        }
        for row in range(n)
    ]
    return dp.score(
        rows,
        scorers=["concept_complexity", "k_center", "random"],
        embeddings=vectors,
        cache=tmp_path_factory.mktemp("cache"),
        progress=False,
    )


@pytest.fixture(scope="module")
def single(scores, tmp_path_factory):
    selection = scores.select("concept_complexity", keep=0.3)
    return selection, selection.report(tmp_path_factory.mktemp("single") / "report.html")


@pytest.fixture(scope="module")
def several(scores, tmp_path_factory):
    chosen = [scores.select(name, keep=keep) for keep in (0.3, 13) for name in scores.rankings]
    return chosen, write_report(tmp_path_factory.mktemp("several") / "report.html", chosen)


@pytest.fixture(scope="module")
def duplicated():
    """Give chat rows of many lengths; six repeat others, one of which has no answer."""
    rows = [{"question": f"question {row}", "answer": "word " * (2 ** (row % 9))} for row in range(60)]
    rows[7]["answer"] = ""
    rows += [dict(row) for row in rows[5:11]]
    return rows


@pytest.fixture(scope="module")
def eight(duplicated):
    made = [type("Planted", (Planted,), {"name": f"planted_scorer_{seed}"})(seed) for seed in range(8)]
    return dp.score(duplicated, scorers=made, dedup=["exact"], on_empty="keep", progress=False)


@dataclass(frozen=True)
class Planted(Scorer):
    """Give random scores."""

    seed: int = 0
    name: ClassVar[str] = "planted"
    needs: ClassVar[frozenset[str]] = frozenset()

    def _score(self, signals: dp.Signals) -> Ranking:
        values = np.random.default_rng(self.seed).normal(size=signals.num_rows)
        return Ranking(values, groups=np.arange(signals.num_rows) % 3)


def count(page):
    """Read how many rows match, and of how many."""
    found, whole = SAID.match(page.inner_text("#count")).groups()
    return int((found or whole).replace(",", "")), int(whole.replace(",", ""))


def shown_rows(page):
    """Read the row numbers in the table."""
    cells = page.locator("#table tbody tr:not(.detail) td[data-label=Row]").all_inner_texts()
    return [int(cell.replace(",", "")) for cell in cells]


def test_nothing_planted_runs(visit, tmp_path):
    page = visit(write_report(tmp_path / "report.html", hostile_selections(tmp_path)))
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 3
    page.fill("#query", HOSTILE[0])
    driver.expect(page.locator("#count")).to_contain_text("match")
    for button in page.locator(".expand[aria-expanded=false]").all()[:1]:
        button.click()
    assert HOSTILE[0] in page.inner_text(".detail")
    page.fill("#query", "xxxxxxxx")
    driver.expect(page.locator("#count")).to_contain_text("1 of 41")
    page.click(".expand")
    driver.expect(page.locator(".detail")).to_contain_text("characters are not shown")
    assert "1,100," in page.inner_text(".detail .note")
    # Everything that shows names is used once: groups, plots and their colours, the other selection.
    page.click("#clear")
    for colour in page.locator("#clouds .segments button").all():
        colour.click()
    for choice in ("0", "1"):
        page.select_option("#selection", choice)
        page.locator("#bars button").first.click()
    page.hover("#clouds .plot", force=True)
    assert page.evaluate("window.pwned") is None
    page.set_viewport_size(PHONE)  # long names do not widen the page
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_it_is_searched_sorted_filtered_and_switched(visit, single):
    selection, file = single
    page = visit(file)
    n, values = len(selection.kept), selection.values
    assert page.evaluate("document.documentElement.scrollWidth") <= DESKTOP["width"]
    assert count(page) == (n, n)
    assert shown_rows(page) == list(range(25))

    page.fill("#query", "NEEDLE")
    driver.expect(page.locator("#count")).to_have_text("10 of 130 rows match")
    assert shown_rows(page) == list(range(0, n, 13))
    assert page.locator("#table mark").first.inner_text() == "needle"

    page.click("#status [data-value=kept]")
    wanted = [row for row in range(0, n, 13) if selection.kept[row]]
    assert shown_rows(page) == wanted
    page.click("#clear")
    assert count(page) == (n, n)
    page.click("#status [data-value=dropped]")
    assert count(page)[0] == int((~selection.kept).sum())
    page.click("#status [data-value=all]")

    page.click("[data-sort=score]")
    order = np.lexsort((np.arange(n), -values))
    assert shown_rows(page) == order[:25].tolist()
    assert page.get_attribute("th:has([data-sort=score])", "aria-sort") == "descending"
    page.click("[data-sort=score]")
    order = np.lexsort((np.arange(n), values))
    assert shown_rows(page) == order[:25].tolist()
    assert page.get_attribute("th:has([data-sort=score])", "aria-sort") == "ascending"
    page.click("#pager [data-go=last]")
    assert shown_rows(page) == order[125:].tolist()

    page.select_option("#facet", label="skill")
    page.select_option("#group", label="b")
    assert count(page)[0] == n // 2
    assert all(row % 2 for row in shown_rows(page))
    page.click("#clear")

    row = int(order[0])
    assert shown_rows(page)[0] == row
    page.click(f".expand[data-row='{row}']")
    detail = page.inner_text(f"#detail-{row}")
    assert f"question {row}" in detail
    assert f"score of concept_complexity\n{values[row]:.6g}"[:35] in detail

    plot = page.locator("#clouds .plot").first
    assert plot.locator(".point").count() == n
    page.locator("#clouds .segments [data-value=facet0]").first.click()
    sizes = np.bincount(selection.scores.rankings["concept_complexity"].groups)
    driver.expect(plot.locator(".legend")).to_contain_text(f"{sizes.argmax()} ({sizes.max()})")
    drawn = [int(found) for found in re.findall(r"\((\d+)\)", plot.locator(".legend").text_content())]
    largest = sorted(sizes.tolist(), reverse=True)[:7]
    assert drawn == [n - sum(largest), *largest]
    bars = page.locator("#spread-list .plot").first
    assert bars.locator(".point").count() > 0

    ink = "getComputedStyle(document.querySelector('#clouds .xtick text')).fill"
    light = page.evaluate(ink), page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="dark")
    driver.expect(page.locator("#clouds .xtick text").first).not_to_have_css("fill", light[0])
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light[1]
    page.click("[data-theme-choice=light]")
    driver.expect(page.locator("#clouds .xtick text").first).to_have_css("fill", light[0])


def test_a_comparison_on_a_phone(visit, several):
    chosen, file = several
    page = visit(file, PHONE, color_scheme="dark", has_touch=True, is_mobile=True, device_scale_factor=1)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    for number in (2, 4):
        page.select_option("#selection", str(number))
        page.tap("#status [data-value=kept]")
        assert count(page)[0] == len(chosen[number])
        page.select_option("#other", "d0" if number else "k0")
        assert count(page)[0] == int((chosen[number].kept & ~chosen[0].kept).sum())
        page.tap("#clear")
    page.select_option("#selection", "0")
    ranks = [
        chosen[k].scores.rankings[name].values.argsort().argsort()
        for k, name in ((0, "concept_complexity"), (1, "k_center"))
    ]
    apart = np.abs(ranks[0] - ranks[1])
    first = shown_rows(page)[0]
    assert apart[first] >= np.sort(apart)[-3]  # ties share a rank
    page.select_option("#sort", "rank1")
    page.tap("#direction")
    assert shown_rows(page)[0] == int(chosen[1].values.argmax())
    page.locator(".expand").first.tap()
    driver.expect(page.locator(".detail")).to_contain_text("kept by")
    card = page.locator("#table tbody tr").first.bounding_box()
    assert card["x"] >= 0
    assert card["x"] + card["width"] <= PHONE["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_what_is_seen_is_found_and_no_share_is_rounded_to_all(visit, tmp_path):
    """White space as it is shown, row numbers as they are written, and the second filter of two selections."""
    n = 1300
    rows = [
        {"text": f"alpha\n\n  beta {row} " + "x" * (9000 if row == 7 else 0), "kind": "abc"[row % 3]}
        for row in range(n)
    ]
    made = ["length", Planted(1), type("Two", (Planted,), {"name": "two"})(2)]
    scores = dp.score(rows, scorers=made, always_keep=[0], never_keep=[1], progress=False)
    chosen = [scores.select(name, keep=keep) for keep in (1, 0.125, 0.12) for name in ("planted", "two")]
    page = visit(write_report(tmp_path / "report.html", chosen))
    page.fill("#query", "ALPHA beta")
    driver.expect(page.locator("#count")).to_have_text(
        "1,300 rows; of long texts, only what the page holds is searched"
    )
    assert page.locator("#table mark").first.inner_text() == "alpha beta"
    page.click(".expand")
    assert page.locator(".detail mark").inner_text().split() == ["alpha", "beta"]
    page.fill("#query", "1,234")
    driver.expect(page.locator("#count")).to_contain_text("1 of 1,300 rows matches")
    assert shown_rows(page) == [1234]
    page.click("#clear")
    cells = page.locator("#bars td.heat").all_inner_texts()
    assert cells == ["0.2\u00a0%", "0.2\u00a0%", *["0\u00a0%"] * 4]
    page.select_option("#other", "k3")
    assert count(page)[0] == len(chosen[3])
    page.select_option("#selection", "2")
    assert page.input_value("#other") == "k3"
    page.click("#status [data-value=kept]")
    assert count(page)[0] == int((chosen[2].kept & chosen[3].kept).sum())
    heads = page.locator("#bars thead th").all_inner_texts()[2:]
    assert heads == ["planted, 12.5\u00a0%", "two, 12.5\u00a0%"]
    page.select_option("#selection", "3")
    assert page.input_value("#other") == ""


def test_a_page_of_one_selection_says_what_the_other_scorers_ranks_are(visit, eight, tmp_path):
    names = list(eight.rankings)
    page = visit(write_report(tmp_path / "report.html", [eight.select(names[2], keep=0.3)]))
    note = page.locator("#rows > .note").inner_text()
    assert note.startswith(
        f"The ranks of a row stand under the scorers' names; {names[2]} decided what is kept. Ranks apart:"
    )
    assert "bold" not in note


def test_eight_scorers_stand_side_by_side(visit, eight, tmp_path):
    chosen = [eight.select(name, keep=keep) for keep in (0.3, 9) for name in eight.rankings]
    page = visit(write_report(tmp_path / "report.html", chosen))
    page.select_option("#selection", "3")
    room = "document.querySelector('#rows .scroll')"
    page.click(".expand[data-row]")
    assert page.evaluate(f"{room}.scrollWidth <= {room}.clientWidth")
    row = shown_rows(page)[0]
    ranks = page.locator(f"#table tr:has([data-row='{row}']) td.number").all_inner_texts()[-8:]
    lines = page.locator(".verdicts li").all()
    assert len(lines) == 8
    for one, rank, line in zip(chosen[:8], ranks, lines, strict=True):
        place = 1 + int((one.values[np.isfinite(one.values)] > one.values[row]).sum())
        fate, reason = one.reason(row).split(": ", 1)
        assert line.inner_text().split("\n") == [
            f"{one.scorer}, 30\u00a0%",
            f"rank {place} of 60",
            fate,
            reason,
        ]
        assert rank == str(place)
    assert page.locator("#table .because").first.inner_text() == chosen[3].reason(row).split(": ", 1)[1]


def test_what_a_newcomer_stumbled_over(visit, duplicated, tmp_path):
    selection = dp.prune(
        duplicated, scorer=Planted(), keep=0.3, dedup=["exact"], on_empty="keep", progress=False
    )
    page = visit(selection.report(tmp_path / "report.html"))
    # Axes: whole numbers, and what they are.
    ticks = page.locator("#clouds .xtick text").all_text_contents()
    assert {"20", "50", "100", "200", "500", "1,000"} <= set(ticks)
    assert [int(tick.replace(",", "")) for tick in ticks] == sorted(int(t.replace(",", "")) for t in ticks)
    assert page.locator("#clouds .ytitle").text_content() == "percentile of the score"
    # Notes: as many rows as the legend has, and why.
    drawn = [int(n) for n in re.findall(r"\((\d+)\)", page.locator("#clouds .legend").text_content())]
    assert sum(drawn) == 60
    assert page.inner_text("#clouds .note") == "60 of 66 rows are drawn; 6 were dropped before scoring."
    counts = [one.inner_text() for one in page.locator("#spread-list .note").all()]
    assert counts == ["60 of 66 rows are counted; 6 were dropped before scoring.", "All 66 rows are counted."]
    assert "60 of 66 rows are counted; 6 were" in page.inner_text("#bars-note")
    # The reason is in sight, the answer apart, and what is empty says so.
    reason = page.locator("#table td.why").first
    assert reason.bounding_box()["x"] + reason.bounding_box()["width"] <= DESKTOP["width"]
    lines = page.locator("#table td.text").nth(1).locator(".snippet").all_inner_texts()
    assert lines == ["question 1", "answer word word"]
    page.click(".expand[data-row='7']")
    assert page.locator("#table tr:has([data-row='7']) .snippet").all_inner_texts()[1] == "answer (empty)"
    assert page.inner_text("#detail-7 .turn:nth-of-type(2)") == "assistant\n(empty)"
    # From a duplicate to what it repeats, whatever is filtered.
    page.fill("#query", "duplicate of row 9")
    driver.expect(page.locator("#count")).to_have_text("1 of 66 rows matches")
    page.locator(".to-row").focus()
    page.keyboard.press("Enter")
    assert "question 9" in page.inner_text("#detail-9")
    assert page.input_value("#query") == ""
    assert page.evaluate("document.activeElement.dataset.row") == "9"


def test_by_keyboard_alone(visit, single):
    selection, file = single
    page = visit(file)
    focused = "document.activeElement.id || document.activeElement.textContent"

    def tab_to(selector, most=80):
        for _ in range(most):
            page.keyboard.press("Tab")
            if page.evaluate(f"document.activeElement.matches({selector!r})"):
                outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert outline != "none", f"{selector} shows no focus"
                return
        pytest.fail(f"{selector} is not reached; the focus is at {page.evaluate(focused)}")

    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "Skip to the rows"
    page.keyboard.press("Enter")
    tab_to("#query", 3)
    page.keyboard.type("needle")
    driver.expect(page.locator("#count")).to_have_text("10 of 130 rows match")
    tab_to("#status [data-value=kept]", 5)
    page.keyboard.press("Space")
    assert page.get_attribute("#status [data-value=kept]", "aria-pressed") == "true"
    assert count(page)[0] == int(selection.kept[::13].sum())
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    assert count(page)[0] == 10
    tab_to("[data-sort=score]")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.dataset.sort") == "score"
    wanted = sorted(range(0, 130, 13), key=lambda row: -selection.values[row])
    assert shown_rows(page) == wanted
    tab_to(".expand")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.getAttribute('aria-expanded')") == "true"
    assert f"question {wanted[0]}" in page.inner_text(".detail")
    page.keyboard.press("Enter")
    assert page.locator(".detail").count() == 0


def test_paper_is_light_and_reduced_motion_is_kept(visit, single):
    page = visit(single[1], color_scheme="dark", reduced_motion="reduce")
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.is_visible("#filters")
    assert page.is_visible("#table")


def test_a_copy_stands_beside_its_original_and_the_recipe_is_copied(visit, duplicated, tmp_path):
    selection = dp.prune(duplicated, scorer="length", keep=0.3, dedup=["exact"], seed=5, progress=False)
    page = visit(selection.report(tmp_path / "report.html"))
    causes = page.locator("#cause option").all_text_contents()
    assert causes[0] == "any"
    chosen = next(text for text in causes if "exact duplicates" in text)
    page.select_option("#cause", label=chosen)
    count = int(re.search(r"\((\d+)\)", chosen)[1])
    driver.expect(page.locator("#count")).to_have_text(f"{count} of 66 rows match")
    page.locator("#table .expand").first.click()
    sides = page.locator(".beside > div")
    driver.expect(sides).to_have_count(2)
    copy, original = (sides.nth(side).locator("h4").text_content() for side in (0, 1))
    row, other = (int(re.search(r"Row (\d+)", title)[1]) for title in (copy, original))
    assert duplicated[row] == duplicated[other]
    assert duplicated[other]["answer"].strip() in sides.nth(1).text_content()
    assert not sides.locator("mark").count()  # nothing differs
    page.locator("#clear").click()
    driver.expect(page.locator("#count")).to_have_text("66 rows")
    recipe = page.locator("#recipe").text_content()
    assert "seed: 5\n" in recipe
    assert recipe == selection.recipe.save_yaml(None)
    page.locator("#copy").click()
    driver.expect(page.locator("#copy")).not_to_have_text("Copy")
    assert "Seed" in page.locator("dl.made").text_content()
