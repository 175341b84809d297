"""Put a page together: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from datapruner.errors import DataPrunerError
from datapruner.extras import how_to_install
from datapruner.files.paths import expanded
from datapruner.files.temporary import whole_file
from datapruner.outputs.report.facts import facts_of, title_of
from datapruner.outputs.report.made import Section, damage_sections
from datapruner.outputs.report.payload import payload
from datapruner.outputs.report.rows import ROOM, excerpts, script_json
from datapruner.outputs.report.shown import Shown
from datapruner.results.selected import Selected
from datapruner.text import safe_text

NEEDED = ("plotly", "jinja2")
CHARTS = "  // Here stands charts.js.\n"
"""The line of report.js that what draws the charts takes the place of: one script shares its state."""
LARGEST = 14_000_000
"""Bytes of a page, about; texts are cut until it fits."""


def has_report() -> bool:
    """Tell whether what a report needs is installed."""
    return not _missing()


def require_report() -> None:
    """Refuse, before any work is done, where what a report needs is not installed."""
    if missing := _missing():
        raise DataPrunerError(
            f"a report needs {' and '.join(missing)}, which {'are' if len(missing) > 1 else 'is'} not installed: "
            f"{how_to_install(*missing)}"
        )


def _missing() -> list[str]:
    return [name for name in NEEDED if find_spec(name) is None]


def write_report(
    file: Path,
    selections: Sequence[Selected],
    *,
    title: str | None = None,
    max_rows: int = 5000,
    sections: Sequence[Section] = (),
    by: Sequence[str] = (),
) -> Path:
    """Write one HTML file that shows selections of the same rows, and needs no network.

    Parameters
    ----------
    file : Path
        Where; its folder exists.
    selections : sequence of Selected
        One gives the page of a pruning, several a comparison; all from the same :class:`Scored`.
    title : str, optional
    max_rows : int
        Of more rows a stratified sample is shown, and the page says so.
    sections : sequence of Section
        Shown before the rows.
    by : sequence of str
        Columns whose values are groups, to be shown before those that are found.

    Returns
    -------
    Path
        ``file``. The same selections, under the same version of plotly, give the same bytes.

    Raises
    ------
    DataPrunerError
        Nothing to show, selections of different scores, or a missing package.
    """
    page = _page(selections, title, max_rows, sections, by)
    file.write_text(page, encoding="utf-8", newline="\n")
    return file


def _page(
    selections: Sequence[Selected],
    title: str | None,
    max_rows: int,
    sections: Sequence[Section],
    by: Sequence[str],
) -> str:
    require_report()
    if not selections:
        raise DataPrunerError("a report needs a selection to show")
    if any(selection.scores is not selections[0].scores for selection in selections):
        raise DataPrunerError(
            "a report shows selections of the same scores; select them all from one `Scores`"
        )
    if max_rows < 1:
        raise DataPrunerError(f"a report shows 1 row or more, not {max_rows}")
    return _html(Shown(selections, max_rows, by), title, sections)


def save_report(
    file: Path,
    selections: Sequence[Selected],
    *,
    overwrite: bool = False,
    max_rows: int = 5000,
    sections: Sequence[Section] = (),
    by: Sequence[str] = (),
) -> Path:
    """Write the page to a place of the user's: whole or not at all, and over nothing unless asked to.

    Parameters
    ----------
    file : Path
    selections, max_rows, sections, by
        As in :func:`write_report`.
    overwrite : bool
        Replace a file that is there.
    """
    file = expanded(file).absolute()
    try:
        if file.is_dir():
            raise DataPrunerError(f"the report {file} is a folder; name a file such as report.html")
        if file.exists() and not overwrite:
            raise DataPrunerError(f"there is a file {file} already; pass overwrite=True to replace it")
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(file) as handle:
            handle.write(_page(selections, None, max_rows, sections, by).encode("utf-8"))
    except OSError as error:
        raise DataPrunerError(f"the report {file} cannot be written: {error.strerror or error}") from error
    return file


def _html(shown: Shown, title: str | None, sections: Sequence[Section]) -> str:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    here = files(__package__ or "datapruner.outputs.report")
    script, charts, style, template = (
        (here / name).read_text(encoding="utf-8")
        for name in ("report.js", "charts.js", "report.css", "report.html.j2")
    )
    script = script.replace(CHARTS, charts)
    plotly = files("plotly").joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8")
    # What a browser hashes is the text after it has read every end of line as \n.
    plotly = plotly.replace("\r\n", "\n")
    policy = (
        f"default-src 'none'; script-src {_hash(plotly)} {_hash(script)}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    held = harmless(payload(shown))
    left = LARGEST - len(plotly.encode()) - len(script_json(held).encode())
    room = min(ROOM, left)
    both = excerpts(shown.scores.samples, np.concatenate([shown.rows, shown.originals]), room)
    held["texts"], held["originals"] = both[: len(shown.rows)], both[len(shown.rows) :]
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else safe_text(str(value)),
    )
    return environment.from_string(template).render(
        title=title or title_of(shown),
        policy=policy,
        # Ours, and data that was escaped for a script element.
        style=Markup(style),  # noqa: S704
        script=Markup(script),  # noqa: S704
        plotly=Markup(plotly),  # noqa: S704
        data=Markup(script_json(held)),  # noqa: S704
        newline=Markup("\n"),
        sections=[*damage_sections(shown.selections, shown.facets), *sections],
        **facts_of(shown),
    )


def harmless(held: Any) -> Any:
    """Make every text in plain values visible on one line, names of mappings included."""
    if isinstance(held, str):
        return held if held.isprintable() else safe_text(held)
    if isinstance(held, dict):
        return {safe_text(str(name)): harmless(value) for name, value in held.items()}
    return [harmless(value) for value in held] if isinstance(held, list) else held


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
