"""Sketches of gradients: random projections whose inner products stand for those of the gradients.

The gradient of a row's loss by a linear layer's weight is a sum over tokens, G = sum_t g_t x_t^T, with the layer's
input x_t (d,) and the loss's derivative by its output g_t (V,). With random projections A (r, V) and B (s, d) of which
E A^T A = 1 and E B^T B = 1, the table S = sum_t (A g_t)(B x_t)^T has E <S_i, S_j> = <G_i, G_j>, and nothing of the size
of a weight is ever formed for a row. A third projection makes a row's table, or those of all layers, as short as was
asked for.

Derived: that this is unbiased. Ours: two sides that are longer than what is kept, and the third projection, since the
two sides' errors add up (with r = s = 64, 4096 numbers, ranks agree less with the gradients' than 1024 numbers made of
256 x 256 do); signs instead of normal numbers, whose errors are smaller where a few entries hold most of a vector, as
those of p - onehot(y) do. A side that would not become smaller is left as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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
SKETCH_OPTIONS = ("sketch_dimension", "sketch_seed")
GRADIENT_OPTIONS = (
    *SKETCH_OPTIONS,
    "sketch_layers",
    "sketch_lengths",
    "sketch_checkpoints",
    "sketch_rates",
    "sketch_moments",
)
"""The recipe's fields of the output layer's sketch, and of those of the body."""
CODE_VERSION = 1
GRADIENT_WORK = 2
"""What a token costs in the pass with a way back, in tokens of a forward pass."""
LESS = "pass a smaller --sketch-dimension"
OUTPUT_SIDES = (512, 1024)
"""r and s of the output layer: where its weight is no larger, that side is left as it is."""
BODY_SIDE = 16
"""r and s of every linear layer of the body: the errors of many layers even out."""
DENSE = 1 << 20
"""A table of so many signs is multiplied with; instead of a larger one, what falls into each sum is added up."""
ROWS = 32
"""Vectors that are added up together."""
LARGEST_EXACT = 1 << 22
"""Numbers a row that a sketch may have without projections."""


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


def _raw(seed: int, which: str, count: int) -> NDArray[np.uint64]:
    """Draw random words; a generator's raw bits stay the same from one version of numpy to the next."""
    words = np.frombuffer(which.encode(), dtype=np.uint8).tolist()
    generator = np.random.PCG64(np.random.SeedSequence([seed, *words]))
    return np.asarray(generator.random_raw(count), dtype="<u8")


def signs(shape: tuple[int, ...], seed: int, which: str) -> NDArray[np.float32]:
    """Draw +-1 of a shape; float32."""
    count = math.prod(shape)
    bits = np.unpackbits(_raw(seed, which, -(-count // 64)).view(np.uint8), count=count)
    return np.where(bits > 0, np.float32(1), np.float32(-1)).reshape(shape)


@dataclass(frozen=True, eq=False)
class Projection:
    """A random projection of vectors, of fewer numbers than they have; A of the module's notation.

    Attributes
    ----------
    kept, width : int
        Numbers after and before.
    seed : int
    which : str
        Of several with this seed.
    """

    kept: int
    width: int
    seed: int
    which: str
    _on: dict[Any, tuple[torch.Tensor, ...]] = field(default_factory=dict)

    @property
    def dense(self) -> bool:
        """Whether it is a table."""
        return self.kept * self.width <= DENSE

    def _drawn(self) -> tuple[NDArray[Any], ...]:
        if self.dense:
            return (signs((self.kept, self.width), self.seed, self.which) / np.float32(math.sqrt(self.kept)),)
        each = -(-self.width // self.kept)
        # Every place falls into one of the sums, each of which takes as many; what is left over takes nothing.
        order = np.argsort(_raw(self.seed, f"{self.which} order", self.width), kind="stable")
        places, sign = np.zeros((2, self.kept * each))
        of = np.arange(self.width) % self.kept * each + np.arange(self.width) // self.kept
        places[of], sign[of] = order, signs((self.width,), self.seed, self.which)
        return places.astype(np.int64), sign.astype(np.float32)

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """Project vectors, shape (n, width), in their type; (n, kept)."""
        import torch

        place = (values.device, values.dtype)
        if place not in self._on:
            drawn = [torch.from_numpy(one).to(values.device) for one in self._drawn()]
            self._on[place] = tuple(
                one if one.dtype == torch.int64 else one.to(values.dtype) for one in drawn
            )
        if self.dense:
            return values @ self._on[place][0].T
        places, sign = self._on[place]
        return torch.cat(
            [
                part.index_select(1, places).mul_(sign).view(len(part), self.kept, -1).sum(2)
                for part in torch.split(values, ROWS)  # little memory, and one shape whatever the company is
            ]
        )


def projection(kept: int | None, width: int, seed: int, which: str) -> Projection | None:
    """Give a random projection, or None where it would make nothing smaller."""
    return None if kept is None or kept >= width else Projection(kept, width, seed, which)


def shortening(sketch: Sketch, width: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Give what makes tables of so many numbers, shape (rows, width), as short as a sketch is."""
    made = projection(sketch.dimension, width, sketch.seed, "sketch")
    return made if made is not None else lambda tables: tables


@dataclass(frozen=True, eq=False)
class Sketched:
    """The two projections of one layer's gradient.

    Attributes
    ----------
    sketch : Sketch
    outputs, inputs : int
        Numbers that the layer gives (V), and takes (d).
    name : str
        Of the layer, which decides its projections too.
    sides : (int, int)
        r and s, at most.
    """

    sketch: Sketch
    outputs: int
    inputs: int
    name: str = ""
    sides: tuple[int, int] = OUTPUT_SIDES

    @classmethod
    def of_output(cls, sketch: Sketch, outputs: int, inputs: int) -> Sketched:
        """Give those of an output layer, and refuse what is too large."""
        if sketch.dimension is None and outputs * inputs > LARGEST_EXACT:
            raise DataPrunerError(
                f"the output layer's whole gradient is {outputs:,} x {inputs:,} numbers a row, too many; pass a number "
                "with --sketch-dimension"
            )
        return cls(sketch, outputs, inputs)

    @cached_property
    def projections(self) -> tuple[Projection | None, Projection | None]:
        """Give A and B; None for a side that is left as it is."""
        if self.sketch.dimension is None:
            return None, None
        (r, s), seed = self.sides, self.sketch.seed
        return (
            projection(r, self.outputs, seed, f"outputs {self.name}".strip()),
            projection(s, self.inputs, seed, f"inputs {self.name}".strip()),
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Give the sides of a row's table."""
        first, second = self.projections
        return first.kept if first else self.outputs, second.kept if second else self.inputs

    @cached_property
    def shortened(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """Give what makes rows' tables as short as a sketch is, where the layer is the only one."""
        return shortening(self.sketch, self.shape[0] * self.shape[1])

    def project(self, values: torch.Tensor, side: int) -> torch.Tensor:
        """Project what the layer gives (side 0) or takes (side 1), of any shape; (tokens, r or s), at least float32."""
        import torch

        flat = values.reshape(-1, values.shape[-1])
        flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
        made = self.projections[side]
        return flat if made is None else made(flat)

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
        """Give the sketches of rows of so many tokens each; float64 (rows, d).

        Parameters
        ----------
        lengths : sequence of int
        miss : Tensor, shape (m,)
            1 - p_y, which derivatives were divided by.
        scale : float
            Of the logits.
        """
        found, start = [], 0
        for length in lengths:
            of = slice(start, start + length)
            weights = (miss[of] * (scale / length))[:, None]
            table = (self.left[of].T @ (self.right[of] * weights)).reshape(1, -1)
            found.append(self.of.shortened(table)[0].double().cpu().numpy())
            start += length
        return np.stack(found) if found else np.empty((0, 0))
