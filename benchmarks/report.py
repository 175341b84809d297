"""How long does it take to write the report of a large set, how large is it, and how soon does it answer?

Rows are short texts in Arrow files that are mapped, with random scores in clusters; no model runs. Each size is written
in a process of its own, so that its peak memory is its own. In the browser the time runs from the start of the
navigation: ``table`` until the first rows stand in the table, ``answer`` until a typed search has changed the count of
rows, ``first plot`` and ``all plots`` until these are drawn. ``page_cpu_seconds`` is the processor time of the page's
process by then, all its threads together, which other work on the machine does not stretch; ``load_average`` counts
the processes that wanted a processor.

    python benchmarks/report.py --sizes 5600 100000 1000000
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, machine, timed, versions, write

SEED = 0
CLUSTERS = 300
KEEP = 0.3
LIMITS = {"write_seconds": 60, "file_mb": 15, "answer_seconds": 5, "first_plot_seconds": 5}
BLOCK = 100_000
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def write_rows(folder: Path, rows: int) -> None:
    """Short question-and-answer rows as a folder that `datasets` maps."""
    import pyarrow as pa
    from datasets import Dataset, Features, Value

    rng = np.random.default_rng(SEED)
    words = np.array([f"word{number}" for number in range(5000)])
    features = Features({name: Value("string") for name in ("question", "answer", "skill")})

    def block(start: int) -> pa.Table:
        count = min(BLOCK, rows - start)
        picked = words[rng.integers(0, len(words), (count, 24))]
        texts = [" ".join(line) for line in picked.tolist()]
        return pa.table(
            {
                "question": [text[:90] for text in texts],
                "answer": [
                    text[90 : 90 + int(size)]
                    for text, size in zip(texts, rng.integers(5, 90, count), strict=True)
                ],
                "skill": [f"skill {number}" for number in rng.integers(0, 12, count).tolist()],
            },
            schema=features.arrow_schema,
        )

    Dataset(pa.concat_tables([block(start) for start in range(0, rows, BLOCK)])).save_to_disk(str(folder))


def write_once(folder: Path, out: Path) -> dict[str, Any]:
    """Score, select and write one page; only the writing is timed."""
    from datapruner.outputs.report import write_report
    from datapruner.recipe import make_recipe
    from datapruner.samples import load_samples
    from datapruner.scorers import Ranking, make_scorer
    from datapruner.scores import Scores

    samples = load_samples(str(folder))
    n = len(samples)
    rng = np.random.default_rng(SEED)
    groups = rng.integers(0, CLUSTERS, n)
    ranking = Ranking(
        rng.normal(size=n) + rng.normal(size=CLUSTERS)[groups],
        groups=groups,
        group_weights=rng.random(CLUSTERS),
        columns={
            "cluster": groups,
            "log_ppl": rng.gamma(2.0, size=n),
            "entropy": rng.gamma(2.0, size=n),
            "manifold_1": rng.normal(size=n),
            "manifold_2": rng.normal(size=n),
        },
    )
    scorer = make_scorer("concept_complexity")
    scores = Scores(
        samples, make_recipe(), {scorer.name: scorer}, {scorer.name: ranking}, [], np.zeros(n, np.bool_)
    )
    selection = scores.select(keep=KEEP)
    cpu = time.process_time()
    seconds, _, memory = timed(lambda: write_report(out, [selection]))
    return {
        "rows": n,
        "write_seconds": round(seconds, 2),
        "write_cpu_seconds": round(time.process_time() - cpu, 2),
        "file_mb": round(out.stat().st_size / 1e6, 2),
        "peak_growth_mib": round(memory.grown / 2**20, 1),
        "peak_rss_mib": round(memory.peak / 2**20, 1),
    }


def open_once(file: Path, browser: str) -> dict[str, Any]:
    """Open the page and use it; seconds from the start of the navigation."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        running = driver.chromium.launch(
            executable_path=browser, args=["--no-sandbox", "--disable-gpu", "--disable-quic"]
        )
        page = running.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(300_000)
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable")

        def cpu() -> float:
            metrics = session.send("Performance.getMetrics")["metrics"]
            return next(one["value"] for one in metrics if one["name"] == "ProcessTime")

        page.goto("about:blank")
        before = cpu()
        # The page itself notes when its parts respond, so that the driver's own delay is not in the figures.
        page.add_init_script(
            """
            const seen = {};
            window.seen = seen;
            new MutationObserver(() => {
              if (!seen.table && document.querySelector("#table tbody tr")) {
                seen.table = performance.now();
                const query = document.getElementById("query");
                query.value = "word1";
                query.dispatchEvent(new Event("input"));
              }
              const count = document.getElementById("count");
              if (!seen.answer && count && /match/.test(count.textContent)) seen.answer = performance.now();
              if (!seen.plot && document.querySelector(".plot .main-svg")) seen.plot = performance.now();
              if (!seen.ready && document.documentElement.dataset.ready) seen.ready = performance.now();
            }).observe(document, { childList: true, subtree: true, attributes: true, characterData: true });
            """
        )
        page.goto(file.resolve().as_uri(), wait_until="commit")
        page.wait_for_selector("html[data-ready=true]")  # the page's policy forbids wait_for_function
        while not page.evaluate("seen.answer"):
            time.sleep(0.1)
        seen = page.evaluate("seen")
        used = cpu() - before
        running.close()
    names = {
        "table": "table_seconds",
        "plot": "first_plot_seconds",
        "answer": "answer_seconds",
        "ready": "all_plots_seconds",
    }
    return {long: round(seen[short] / 1000, 2) for short, long in names.items()} | {
        "page_cpu_seconds": round(used, 2)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[5600, 100_000, 1_000_000])
    parser.add_argument("--note", default="", help="what else the machine was doing")
    parser.add_argument("--out", type=Path, default=RESULTS / "report.json")
    parser.add_argument("--write", type=Path, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write:
        print(json.dumps(write_once(*arguments.write)))
        return
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    found = []
    for rows in arguments.sizes:
        with tempfile.TemporaryDirectory() as work:
            folder, page = Path(work) / "rows", Path(work) / "report.html"
            write_rows(folder, rows)
            ran = subprocess.run(
                [sys.executable, __file__, "--write", str(folder), str(page)],
                check=True,
                capture_output=True,
                text=True,
            )
            one = json.loads(ran.stdout.splitlines()[-1])
            if browser is not None:
                one |= open_once(page, browser)
            one["load_average"] = round(os.getloadavg()[0], 1)
            found.append(one)
            print("  ".join(f"{name} {value:,}" for name, value in one.items()), flush=True)
    write(
        arguments.out,
        {
            "question": "time, size and memory of a report, and how soon it answers in Chromium",
            "limits": LIMITS,
            "note": arguments.note,
            "sizes": found,
            **machine(),
            "versions": versions("datapruner", "plotly", "jinja2", "pyarrow", "datasets", "playwright"),
        },
    )


if __name__ == "__main__":
    main()
