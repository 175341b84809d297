"""Attention inside packs: many rows in one sequence, each attending to itself and to the prefix they share.

Transformers lets a model's attention be replaced by name; the replacement reads the layout of the pack that is
running. Rows of one length share a call, so that its shape depends on the row alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from datapruner.arrays import Ints

if TYPE_CHECKING:
    import torch

NAME = "datapruner_packed"
ATTENTION = "_attn_implementation"


class Segment(NamedTuple):
    """Tokens of a pack that belong together."""

    start: int
    length: int


@dataclass
class Pack:
    """Rows laid out one after the other.

    Attributes
    ----------
    ids, positions : ndarray, int64, shape (n,)
        What lies behind the last segment is filling.
    segments : list of Segment
        The shared prefix first, where there is one.
    prefix : int
        Its length, 0 where there is none.
    """

    ids: Ints
    positions: Ints
    segments: list[Segment]
    prefix: int = 0
    _groups: dict[Any, list[tuple[int, torch.Tensor]]] = field(default_factory=dict)
    _masks: dict[Any, torch.Tensor] = field(default_factory=dict)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make this the pack that attention reads."""
        token = _ACTIVE.set(self)
        try:
            yield
        finally:
            _ACTIVE.reset(token)

    def groups(self, device: torch.device) -> list[tuple[int, torch.Tensor]]:
        """Give the segments of each length: what they see before themselves, and their places (rows, length)."""
        import torch

        if device not in self._groups:
            starts: dict[tuple[int, int], list[int]] = defaultdict(list)
            for segment in self.segments:
                starts[segment.length, self.prefix if segment.start else 0].append(segment.start)
            self._groups[device] = [
                (before, torch.tensor(of, device=device)[:, None] + torch.arange(length, device=device))
                for (length, before), of in starts.items()
            ]
        return self._groups[device]

    def mask(self, before: int, length: int, window: int | None, device: torch.device) -> torch.Tensor:
        """Give which of ``before + length`` keys each of ``length`` queries sees; bool."""
        import torch

        key = (before, length, window, device)
        if key not in self._masks:
            seen = torch.ones(length, before + length, dtype=torch.bool, device=device).tril(before)
            if window is not None:
                seen = seen.triu(before - window + 1)
            self._masks[key] = seen
        return self._masks[key]


_ACTIVE: ContextVar[Pack] = ContextVar("pack")


@contextmanager
def packed_attention(model: Any, *, on: bool = True) -> Iterator[None]:
    """Let a model's attention follow the active pack, and give it back its own afterwards.

    Raises
    ------
    NotImplementedError
        The model does not let its attention be replaced.
    """
    if not on:
        yield
        return
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    # Asked for beforehand: the setter would warn, and go on with the model's own attention.
    if not getattr(model, "_can_set_attn_implementation", lambda: True)():
        raise NotImplementedError("its attention cannot be replaced")
    ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
    configs = [module.config for module in model.modules() if hasattr(module, "config")]
    # Parts of a model may each have an attention of their own.
    before = [(config, config._attn_implementation) for config in configs if hasattr(config, ATTENTION)]
    try:
        model.set_attn_implementation(NAME)
        yield
    finally:
        for config, own in before:
            config._attn_implementation = own


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Compute attention inside each segment of the active pack.

    Parameters
    ----------
    query : Tensor, shape (1, heads, n, width)
    key, value : Tensor, shape (1, key heads, n, width)
    scaling, sliding_window, softcap
        As transformers hands them to its own functions.

    Returns
    -------
    Tensor, shape (1, n, heads, width)
        Zero at filling.
    """
    import torch

    pack = _ACTIVE.get()
    repeats = query.shape[1] // key.shape[1]
    out = query.new_zeros(query.shape[2], query.shape[1], value.shape[3])
    for before, places in pack.groups(query.device):
        q, k, v = (part[0][:, places].transpose(0, 1) for part in (query, key, value))
        if before:
            k, v = (
                torch.cat([part[:, :, :before].expand(len(places), -1, -1, -1), own], 2)
                for part, own in ((key, k), (value, v))
            )
        if repeats > 1:
            k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
        length = places.shape[1]
        window = sliding_window if sliding_window is not None and sliding_window < before + length else None
        if softcap is None:
            plain = not before and window is None
            mask = None if plain else pack.mask(before, length, window, query.device)
            seen = torch.nn.functional.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=plain, scale=scaling
            )
        else:
            weights = q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 if scaling is None else scaling)
            weights = softcap * torch.tanh(weights / softcap)
            weights = weights.masked_fill(~pack.mask(before, length, window, query.device), -torch.inf)
            wide = torch.float64 if weights.dtype == torch.float64 else torch.float32
            seen = torch.softmax(weights, -1, dtype=wide).to(v.dtype) @ v
        out[places] = seen.transpose(1, 2)
    return out[None], None
