"""A package put where Python finds it, with entry points, as an installer would."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path


def install(folder: Path, monkeypatch, name: str, body: str, points: Mapping[str, Mapping[str, str]]) -> Path:
    """Install a package of one module for the length of a test; gives the folder to put on a child's path."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(body)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in held.items())
            for group, held in points.items()
        )
    )
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, name, raising=False)
    importlib.invalidate_caches()
    return folder
