"""What works here: versions, threads, the cache, the bundled models."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from datapruner.extras import EXTRAS, bringing
from datapruner.text import safe_text

CORE = [
    "torch",
    "transformers",
    "sentence-transformers",
    "datasets",
    "faiss-cpu",
    "scikit-learn",
    "umap-learn",
    "gudhi",
    "datasketch",
]


def report() -> str:
    """Give the report of ``datapruner doctor`` as text."""
    from datapruner.files.cache import cache_at
    from datapruner.models import offline
    from datapruner.version import __version__

    lines = [
        f"datapruner {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}",
        f"cores {os.cpu_count()}, OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'not set')}, "
        f"accelerator {_device()}",
        "",
    ]
    for extra, names in {"core": CORE, **EXTRAS}.items():
        found = [f"{name} {_version(name)}" for name in names]
        missing = any(said.endswith("(missing)") for said in found)
        command = bringing(*[extra] * (extra != "core"))
        lines.append(f"{extra:>10}  {', '.join(found)}" + missing * f"; {command}")
    lines.append("")
    for alias, model in offline.MODELS.items():
        lines.append(f"{alias:>16}  {_state(alias)}  {model.origin}")
    cache = cache_at()
    sizes = []
    for place, _, names in os.walk(cache.folder):  # what cannot be read, or goes meanwhile, is passed over
        for name in names:
            with suppress(OSError):
                sizes.append(os.lstat(os.path.join(place, name)).st_size)  # noqa: PTH118
    lines += ["", f"cache {safe_text(str(cache.folder))}: {len(sizes)} files, {sum(sizes) / 1e6:,.0f} MB"]
    if cache.far is not None:
        lines.append(f"store {cache.far}: `datapruner cache` shows what lies there")
    return "\n".join(lines)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(missing)"


def _device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none"


def _state(alias: str) -> str:
    from datapruner.errors import DataPrunerError
    from datapruner.models import offline

    if not offline.is_installed(alias):
        return "not installed"
    try:
        offline.model_folder(alias)
    except DataPrunerError:
        return "not the pinned weights"
    return "ready"
