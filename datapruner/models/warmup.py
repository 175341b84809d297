"""The checkpoints of a short training: where they lie, how fast each was trained, what its optimiser knew.

They are those of transformers' trainer, and so of trl's: folders with a model or a LoRA adapter, ``trainer_state.json``
and ``optimizer.pt``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from datapruner.errors import DataPrunerError
from datapruner.files.paths import exists, expanded
from datapruner.models.names import ADAPTER
from datapruner.models.optimizers import OPTIMIZER
from datapruner.text import safe_text

STATE = "trainer_state.json"
SAVED = re.compile(r"checkpoint-(\d+)")
RATES = "say how much each counts with --sketch-rates, a number for every checkpoint"


class Checkpoint(NamedTuple):
    """A checkpoint.

    Attributes
    ----------
    folder : str
    adapter : bool
        It is a LoRA adapter, and no whole model.
    rate : float, optional
        Mean learning rate since the checkpoint before, as far as it was logged.
    optimizer : Path, optional
        The optimiser's state.
    """

    folder: str
    adapter: bool
    rate: float | None
    optimizer: Path | None


def find_checkpoints(named: Sequence[str]) -> list[Checkpoint]:
    """Find checkpoints in their order; a folder that a trainer wrote stands for all that are in it.

    Raises
    ------
    DataPrunerError
        A folder is not there, or is no checkpoint and has none; or the same is named twice.
    """
    folders = [folder for name in named for folder in _within(name)]
    found, before = [], 0
    for folder in folders:
        step, rates = _logged(folder)
        since = [rate for at, rate in rates if (before if before < step else 0) < at <= step]
        optimizer = folder / OPTIMIZER
        found.append(
            Checkpoint(
                str(folder),
                exists(folder / ADAPTER),
                math.fsum(since) / len(since) if since else None,
                optimizer if exists(optimizer) else None,
            )
        )
        before = step
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise DataPrunerError("--sketch-checkpoints names a checkpoint twice; name each once")
    return found


def shares_of(found: Sequence[Checkpoint], rates: Sequence[float] | None) -> list[float]:
    """Give how much each checkpoint counts, by its learning rate or as it was said; together 1.

    Raises
    ------
    DataPrunerError
        Learning rates are neither logged nor given, or say nothing.
    """
    if rates is None and len(found) == 1:
        return [1.0]
    if rates is None:
        if unknown := [one.folder for one in found if one.rate is None]:
            raise DataPrunerError(
                f"the {STATE} of '{safe_text(unknown[0], 200)}' has no learning rate since the checkpoint before (a "
                f"trainer logs it every --logging_steps); {RATES}"
            )
        rates = [one.rate or 0.0 for one in found]
    if len(rates) != len(found):
        raise DataPrunerError(
            f"--sketch-rates has {len(rates)} numbers, and there are {len(found)} checkpoints"
        )
    if not all(math.isfinite(rate) and rate >= 0 for rate in rates) or not any(rates):
        raise DataPrunerError(
            f"the checkpoints' learning rates are {', '.join(f'{rate:g}' for rate in rates)}: none may be below 0, and "
            f"one must be above; {RATES}"
        )
    return [rate / math.fsum(rates) for rate in rates]


def _within(name: str) -> Iterator[Path]:
    """Give the checkpoints of a trainer's folder by their steps, or the folder that is one itself."""
    folder = expanded(Path(name))
    if not (exists(folder) and folder.is_dir()):
        raise DataPrunerError(
            f"there is no folder '{safe_text(name, 200)}'; --sketch-checkpoints takes the folders of checkpoints, or "
            "the one that a trainer wrote them to"
        )
    saved = [(int(named[1]), one) for one in folder.iterdir() if (named := SAVED.fullmatch(one.name))]
    if saved:
        yield from (one for _, one in sorted(saved))
    elif exists(folder / ADAPTER) or exists(folder / "config.json"):
        yield folder
    else:
        raise DataPrunerError(
            f"'{safe_text(name, 200)}' is no checkpoint: it has neither {ADAPTER}, nor config.json, nor folders called "
            "checkpoint-100 and so on"
        )


def _logged(folder: Path) -> tuple[int, list[tuple[int, float]]]:
    """Read the step of a checkpoint, and the learning rates that were logged up to it."""
    try:
        state = json.loads((folder / STATE).read_text("utf-8"))
        rates = [
            (int(one["step"]), float(one["learning_rate"]))
            for one in state["log_history"]
            if "learning_rate" in one
        ]
        return int(state["global_step"]), rates
    except (OSError, ValueError, TypeError, KeyError):  # whoever needs rates says what is missing
        return 0, []
