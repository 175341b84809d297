"""Sketches of gradients: two-sided random projections, whose inner products stand for those of the gradients.

The gradient of a row's loss by a linear layer's weight is a sum over tokens, G = sum_t g_t x_t^T, with the layer's
input x_t (d,) and the loss's derivative by its output g_t (V,). With random signs A (r, V) and B (s, d), scaled by
1 / sqrt(r) and 1 / sqrt(s), the sketch is S = sum_t (A g_t)(B x_t)^T, of r s numbers, and E <S_i, S_j> = <G_i, G_j>:
nothing of the size of a weight is ever formed for a row.

Derived: that this is unbiased (E A^T A = 1, E B^T B = 1). Ours: two sides, and signs instead of normal numbers, whose
errors are smaller where a few entries hold most of a vector, as those of p - onehot(y) do. A side that would not become
smaller is left as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Floats
from datapruner.errors import DataPrunerError

if TYPE_CHECKING:
    import torch

    from datapruner.recipe.recipe import Recipe

OUTPUT_SKETCH, GRADIENT_SKETCH = "output_sketch", "gradient_sketch"
CODE_VERSION = 1
GRADIENT_WORK = 3
"""What a token costs in the pass with a way back, in tokens of a forward pass."""
LESS = "pass a smaller --sketch-dimension"
LOPSIDED = 4
"""How many times longer the one side of a sketch may be than the other."""
LARGEST_EXACT = 1 << 22
"""Numbers a row that a sketch may have without projections."""

Sides = tuple[int, int] | None
"""r and s; None where nothing is projected."""


@dataclass(frozen=True)
class Sketch:
    """A sketch of the output layer's gradient, as it is asked for.

    Attributes
    ----------
    dimension : int, optional
        Numbers a row, at most; None for the whole gradient, of models that are tiny.
    seed : int
        Of the projections: sketches are comparable where it, the dimension and the model are the same.
    """

    dimension: int | None
    seed: int = 0

    @property
    def settings(self) -> dict[str, object]:
        """Give what the keys of stored sketches are made from, besides the pass."""
        return {"sketch": CODE_VERSION, "dimension": self.dimension, "seed": self.seed}

    @property
    def disk(self) -> int:
        """Give the bytes that a row's sketch takes in the store, at most: as it came, and once more in order."""
        return 2 * 4 * (self.dimension or 0)

    @property
    def sides(self) -> Sides:
        """Give r and s, the shorter first."""
        return None if self.dimension is None else sides_of(self.dimension)


@dataclass(frozen=True)
class GradientSketch(Sketch):
    """A sketch of the gradients of a body's linear layers, one after the other.

    Attributes
    ----------
    layers : str
        Which; see :func:`datapruner.signals.language_model.linear_layers.find_linear_layers`.
    alike : bool
        Every layer's part has length one, so that all count alike; else inner products stand for the gradients'.
    """

    layers: str = "all"
    alike: bool = True

    @property
    def settings(self) -> dict[str, object]:
        """Give what the keys of stored sketches are made from, besides the pass."""
        return {**super().settings, "layers": self.layers, "alike": self.alike}


def sketch_of(recipe: Recipe) -> Sketch:
    """Give the sketch of the output layer that a recipe asks for."""
    return Sketch(recipe.sketch_dimension or None, recipe.sketch_seed)


def gradient_sketch_of(recipe: Recipe) -> GradientSketch:
    """Give the sketch of the body that a recipe asks for."""
    return GradientSketch(
        recipe.sketch_dimension or None,
        recipe.sketch_seed,
        recipe.sketch_layers,
        recipe.sketch_lengths == "alike",
    )


def sides_of(dimension: int) -> tuple[int, int]:
    """Cut a dimension into two sides that are about as long, the shorter first.

    Raises
    ------
    DataPrunerError
        It is no such product.
    """
    short = next((side for side in range(math.isqrt(dimension), 0, -1) if dimension % side == 0), 0)
    if short < 1 or dimension // short > LOPSIDED * short:
        root = max(2, math.isqrt(max(dimension, 0)))
        raise DataPrunerError(
            f"--sketch-dimension={dimension} is no product of two numbers of like size, which a sketch has as its "
            f"sides; take {root**2} or {(root + 1) ** 2}"
        )
    return short, dimension // short


def split_evenly(dimension: int | None, layers: int) -> Sides:
    """Give the sides of each of several layers' sketches, of a dimension all together."""
    if dimension is None:
        return None
    side = math.isqrt(dimension // layers)
    if not side:
        raise DataPrunerError(
            f"--sketch-dimension={dimension} has no number for each of {layers} linear layers; take {4 * layers} or "
            "more, or fewer layers with --sketch-layers"
        )
    return side, side


def signs(kept: int, width: int, seed: int, which: str) -> NDArray[np.float32] | None:
    """Draw a projection; float32 (kept, width) of +-1 / sqrt(kept), None where it would make nothing smaller.

    The generator's raw bits are taken: they stay the same from one version of numpy to the next.
    """
    if kept >= width:
        return None
    words = np.frombuffer(which.encode(), dtype=np.uint8).tolist()
    generator = np.random.PCG64(np.random.SeedSequence([seed, *words]))
    raw = np.asarray(generator.random_raw(-(-kept * width // 64)), dtype="<u8")
    bits = np.unpackbits(raw.view(np.uint8), count=kept * width).reshape(kept, width)
    size = np.float32(1 / math.sqrt(kept))
    return np.where(bits > 0, size, -size).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Sketched:
    """The two projections of one layer's gradient.

    Attributes
    ----------
    sides : (int, int) or None
        r and s, where they are no longer than what is projected.
    seed : int
    outputs, inputs : int
        Numbers that the layer gives (V), and takes (d).
    name : str
        Of the layer, which decides its projections too.
    """

    sides: Sides
    seed: int
    outputs: int
    inputs: int
    name: str = ""
    _on: dict[Any, tuple[torch.Tensor | None, torch.Tensor | None]] = field(default_factory=dict)

    @classmethod
    def of_output(cls, sketch: Sketch, outputs: int, inputs: int) -> Sketched:
        """Give those of an output layer, and refuse what is too large."""
        if sketch.sides is None and outputs * inputs > LARGEST_EXACT:
            raise DataPrunerError(
                f"the output layer's whole gradient is {outputs:,} x {inputs:,} numbers a row, too many; pass a number "
                "with --sketch-dimension"
            )
        return cls(sketch.sides, sketch.seed, outputs, inputs)

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Give the sides of a row's sketch."""
        r, s = self.sides or (self.outputs, self.inputs)
        return min(r, self.outputs), min(s, self.inputs)

    def projections(self, like: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Give A (r, V) and B (s, d) where a tensor is, in its type; None for a side that is left as it is."""
        import torch

        place = (like.device, like.dtype)
        if place not in self._on:
            (r, s), widths = self.shape, (self.outputs, self.inputs)
            drawn = (
                signs(kept, width, self.seed, f"{which} {self.name}".strip())
                for kept, width, which in zip((r, s), widths, ("outputs", "inputs"), strict=True)
            )
            first, second = (None if one is None else torch.from_numpy(one).to(like) for one in drawn)
            self._on[place] = (first, second)
        return self._on[place]

    def project(self, values: torch.Tensor, side: int) -> torch.Tensor:
        """Project what the layer gives (side 0) or takes (side 1), of any shape; (tokens, r or s), at least float32."""
        import torch

        flat = values.reshape(-1, values.shape[-1])
        flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
        projection = self.projections(flat)[side]
        return flat if projection is None else flat @ projection.T

    def empty(self, states: torch.Tensor) -> Tokens:
        """Make room for what projecting the tokens of some rows gives; states (m, d)."""
        r, s = self.shape
        return Tokens(self, states.new_empty(len(states), r), states.new_empty(len(states), s))


@dataclass(frozen=True, eq=False)
class Tokens:
    """Both factors of every token, projected: left (m, r) of the derivatives by outputs, right (m, s) of the inputs."""

    of: Sketched
    left: torch.Tensor
    right: torch.Tensor

    def add(self, start: int, end: int, derivatives: torch.Tensor, inputs: torch.Tensor) -> None:
        """Project a tile, of a fixed size whatever of it is filled; so a token's bits depend on itself alone."""
        self.left[start:end] = self.of.project(derivatives, 0)[: end - start]
        self.right[start:end] = self.of.project(inputs, 1)[: end - start]

    def rows(self, lengths: Sequence[int], miss: torch.Tensor, scale: float) -> Floats:
        """Give the sketches of rows of so many tokens each; float64 (rows, r s).

        Parameters
        ----------
        lengths : sequence of int
        miss : Tensor, shape (m,)
            1 - p_y, which derivatives were divided by.
        scale : float
            Of the logits.
        """
        found = np.empty((len(lengths), self.left.shape[1] * self.right.shape[1]))
        start = 0
        for row, length in enumerate(lengths):
            of = slice(start, start + length)
            weights = (miss[of].double() * (scale / length))[:, None]
            product = self.left[of].double().T @ (self.right[of].double() * weights)
            found[row] = product.reshape(-1).cpu().numpy()
            start += length
        return found
