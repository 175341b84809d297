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
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Floats
from datapruner.errors import DataPrunerError

if TYPE_CHECKING:
    import torch

    from datapruner.recipe.recipe import Recipe

OUTPUT_SKETCH = "output_sketch"
CODE_VERSION = 1
LOPSIDED = 4
"""How many times longer the one side of a sketch may be than the other."""
LARGEST_EXACT = 1 << 22
"""Numbers a row that nothing larger is made of without projections."""


@dataclass(frozen=True)
class Sketch:
    """A sketch as it is asked for.

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
    def sides(self) -> tuple[int, int] | None:
        """Give r and s, the shorter first; None where nothing is projected."""
        return None if self.dimension is None else sides_of(self.dimension)


def sketch_of(recipe: Recipe) -> Sketch:
    """Give the sketch that a recipe asks for."""
    sketch = Sketch(recipe.sketch_dimension or None, recipe.sketch_seed)
    assert sketch.sides is None or sketch.sides  # refuses what has no sides
    return sketch


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
    """A sketch of one layer's gradient: its two projections.

    Attributes
    ----------
    sketch : Sketch
    outputs, inputs : int
        Numbers that the layer gives (V), and takes (d).
    """

    sketch: Sketch
    outputs: int
    inputs: int
    _on: dict[tuple[torch.device, torch.dtype], tuple[torch.Tensor | None, torch.Tensor | None]] = field(
        default_factory=dict
    )

    def __post_init__(self) -> None:
        """Refuse what is too large."""
        if self.sketch.sides is None and self.outputs * self.inputs > LARGEST_EXACT:
            raise DataPrunerError(
                f"the output layer's whole gradient is {self.outputs:,} x {self.inputs:,} numbers a row, too many; "
                "pass a number with --sketch-dimension"
            )

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Give the sides of a row's sketch."""
        r, s = self.sketch.sides or (self.outputs, self.inputs)
        return min(r, self.outputs), min(s, self.inputs)

    def projections(self, like: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Give A (r, V) and B (s, d) where a tensor is, in its type; None for a side that is left as it is."""
        import torch

        place = (like.device, like.dtype)
        if place not in self._on:
            (r, s), seed = self.shape, self.sketch.seed
            drawn = (signs(r, self.outputs, seed, "outputs"), signs(s, self.inputs, seed, "inputs"))
            first, second = (None if one is None else torch.from_numpy(one).to(like) for one in drawn)
            self._on[place] = (first, second)
        return self._on[place]

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
        for out, whole, projection in zip(
            (self.left, self.right), (derivatives, inputs), self.of.projections(inputs), strict=True
        ):
            out[start:end] = (whole if projection is None else whole @ projection.T)[: end - start]

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
