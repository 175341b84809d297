"""What is asked of gradients: of which model or checkpoints, by which layers, and how their cosines are summed.

Published (LESS, arXiv 2402.04333): the influence of a row on a query is the sum over checkpoints of the mean learning
rate times the cosine of what Adam would make of the row's gradient and the query's own gradient. Vectors of length one,
each times the root of its checkpoint's share, lie beside each other here, so that one cosine is that sum (*derived*).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError
from datapruner.geometry.blocks import Matrix, SideBySide
from datapruner.models.files import file_digest, local_folder
from datapruner.models.names import ADAPTER
from datapruner.models.optimizers import OPTIMIZER, WITHOUT, Moments
from datapruner.models.warmup import find_checkpoints, shares_of
from datapruner.signals.language_model.sketch import GRADIENT_WORK, GradientSketch
from datapruner.signals.losses import reader_of
from datapruner.signals.open_checkpoint import known_checkpoint, open_checkpoint
from datapruner.text import safe_text

if TYPE_CHECKING:
    from datapruner.recipe.recipe import Recipe
    from datapruner.samples.samples import Samples
    from datapruner.signals.language_model.reader import Reader
    from datapruner.signals.run import Run

FORMED = 3
"""What a token costs where every row's gradient by the model's own layers is formed, in tokens of a forward pass."""


class Part(NamedTuple):
    """One model whose gradients are sketched.

    Attributes
    ----------
    name : str, optional
        The model's; None for the one that reads the rows anyway.
    adapter : str, optional
        On top of it, and not merged.
    sketch : GradientSketch
    optimizer : Path, optional
        The state that the rows' gradients are scaled by.
    share : float
        Of its cosine.
    """

    name: str | None
    adapter: str | None
    sketch: GradientSketch
    optimizer: Path | None = None
    share: float = 1.0

    @property
    def work(self) -> int:
        """What a token costs, in tokens of a forward pass."""
        return GRADIENT_WORK if self.optimizer is None or self.sketch.layers == "lora" else FORMED

    @property
    def of_target(self) -> Part:
        """The same for the rows of the target, whose gradients are taken as they are."""
        return self._replace(optimizer=None)


def parts_of(recipe: Recipe) -> list[Part]:
    """Tell whose gradients a recipe asks for; nothing is opened.

    Raises
    ------
    DataPrunerError
        A checkpoint, its learning rate or its optimiser's state is not there; or options do not fit together.
    """
    sketch = GradientSketch(recipe.sketch_dimension or None, recipe.sketch_seed)
    if recipe.sketch_checkpoints is None:
        if recipe.sketch_rates is not None:
            raise DataPrunerError("--sketch-rates are of --sketch-checkpoints, and there are none")
        sketch = replace(
            sketch,
            layers="all" if recipe.sketch_layers == "auto" else recipe.sketch_layers,
            alike=recipe.sketch_lengths != "own",
        )
        return [_own_part(recipe, sketch)]
    found = find_checkpoints(recipe.sketch_checkpoints)
    adapters = {one.adapter for one in found}
    if len(adapters) > 1:
        raise DataPrunerError(
            "some of --sketch-checkpoints are adapters and some are whole models; name one kind"
        )
    adapter = adapters.pop()
    auto = "lora" if adapter else "all"
    layers = auto if recipe.sketch_layers == "auto" else recipe.sketch_layers
    sketch = replace(sketch, layers=layers, alike=recipe.sketch_lengths == "alike")
    without = [one.folder for one in found if one.optimizer is None]
    scaled = recipe.sketch_moments == "adam" or (
        recipe.sketch_moments == "auto" and len(without) < len(found)
    )
    if scaled and without:
        raise DataPrunerError(_no_state(without[0]))
    if scaled and adapter:
        _check_layers(layers)
    base = _base_of(recipe)
    parts = [
        Part(
            base if adapter and base is not None else one.folder,
            one.folder if adapter and base is not None else None,
            sketch,
            one.optimizer if scaled else None,
            share,
        )
        for one, share in zip(found, shares_of(found, recipe.sketch_rates), strict=True)
    ]
    return [part for part in parts if part.share]


def _own_part(recipe: Recipe, sketch: GradientSketch) -> Part:
    """Give the part of the recipe's own model, with its adapter apart where that one's layers are asked for."""
    named = recipe.adapter or recipe.model
    folder = None if named is None else local_folder(named)
    optimizer = None
    if recipe.sketch_moments == "adam":
        optimizer = None if folder is None else folder / OPTIMIZER
        if optimizer is None or not optimizer.is_file():
            raise DataPrunerError(_no_state(named or "given"))
        if (optimizer.parent / ADAPTER).is_file():
            _check_layers(sketch.layers)
    apart = recipe.model is not None and recipe.quantize is None and "lora" in sketch.layers
    return Part(recipe.model if apart else None, recipe.adapter if apart else None, sketch, optimizer)


def _no_state(folder: str) -> str:
    return (
        f"'{safe_text(folder, 200)}' has no {OPTIMIZER}, the state of Adam that rows' gradients are scaled by (a "
        f"trainer leaves it beside a checkpoint unless save_only_model is set); {WITHOUT}"
    )


def _check_layers(layers: str) -> None:
    if "lora" not in layers:
        raise DataPrunerError(
            f"--sketch-layers={safe_text(layers, 60)} takes the model's own layers, and an adapter's optimiser has "
            f"moments of the adapter's alone; pass --sketch-layers=lora, or {WITHOUT}"
        )


def _base_of(recipe: Recipe) -> str | None:
    """Name the model that checkpoints are adapters of; None where they name it themselves."""
    from datapruner.models.names import base_and_adapter

    return None if recipe.model is None else base_and_adapter(recipe.model, recipe.adapter)[0]


def measure_parts(
    run: Run, samples: Samples, rows: Ints, parts: Sequence[Part], *, num_tokens: Ints | None = None
) -> Matrix:
    """Sketch rows' gradients of all parts; float32 (m, parts x d), read from the store a block at a time."""
    from datapruner.signals.language_model.gradients import measure_gradients

    found = []
    for part in parts:
        found.append(
            measure_gradients(
                samples,
                rows,
                _reader(run, part),
                run.store,
                part.sketch,
                moments=_moments(run, part),
                num_tokens=num_tokens,
                progress=run.progress,
                ahead=run.ahead,
                work=part.work,
            )
        )
    if len(found) == 1:
        return found[0]
    return SideBySide(found, [math.sqrt(part.share) for part in parts])


def missing_of(run: Run, parts: Sequence[Part]) -> int | None:
    """Count the rows that some part's model has to read; unknown of a model that was given as an object."""
    main = reader_of(run)
    if main is None:  # of a name: never opened before, so that nothing of it is stored
        return None if run.objects.model is not None else len(run.rows)
    if main.known is None:
        return None
    return max(_missing(run, part, main) for part in parts)


def _missing(run: Run, part: Part, main: Reader) -> int:
    reader = (
        main if part.name is None else known_checkpoint(run.recipe, run.store, part.name, part.adapter, main)
    )
    if reader is None or reader.known is None:
        return len(run.rows)
    from datapruner.signals.language_model.records import asked_of_gradients

    asked = asked_of_gradients(reader, reader.known, part.sketch, _moments(run, part))
    return asked.missing(run.samples, run.rows, run.store)


def _reader(run: Run, part: Part) -> Reader:
    """Give the model of a part, which reads the rows as the run's own does."""
    main = run.language_model.reader
    if part.name is None:
        return main
    return open_checkpoint(run.recipe, run.store, part.name, part.adapter, main, progress=run.progress)


def _moments(run: Run, part: Part) -> Moments | None:
    if part.optimizer is None:
        return None
    called = part.adapter or part.name or run.recipe.adapter or run.recipe.model or "given"
    return Moments(called, part.optimizer, file_digest(part.optimizer, run.store.notes))
