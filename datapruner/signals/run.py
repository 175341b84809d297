"""What a measurement may look at: the rows that are left, what was measured of them, and what the run was given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from datapruner.arrays import Flags, Ints
from datapruner.models.files import local_folder
from datapruner.models.options import likely_device
from datapruner.ragged import Ragged
from datapruner.signals import OF_TARGET
from datapruner.signals.shared import Shared
from datapruner.signals.store import SignalStore

if TYPE_CHECKING:
    from datapruner.cleaning.own_text import OwnText
    from datapruner.inputs import Inputs
    from datapruner.models.encoders import Encoder, Named, TokenEmbedder
    from datapruner.option_types import SecondModel
    from datapruner.progress import Ahead
    from datapruner.recipe import Recipe
    from datapruner.samples.rendered import TokenCounts
    from datapruner.samples.samples import Samples
    from datapruner.signals.language_model.reader import Reader


TOKENS_A_ROW = 300
"""Taken for rows of which nothing is known."""
SOME_ROWS, LETTERS_A_TOKEN = 200, 3.5
"""Rows whose texts are looked at for a guess, and what is guessed from them."""
OPERATIONS = {"cpu": 4e10, "cuda": 5e13}
"""A second, taken for a device on which nothing was measured yet."""
UNKNOWN_MODEL = 2e-2
"""Seconds a token, taken for a model that is not on this machine."""


class Fed(NamedTuple):
    """A language model, and the tokens of every source row as it reads them."""

    reader: Reader
    counts: TokenCounts


@dataclass(frozen=True)
class Objects:
    """What stands in memory for something that a recipe names; None where the recipe's own is taken."""

    embeddings: Any = None
    embedder: Encoder | None = None
    model: tuple[Any, Any] | None = None
    pruned_model: SecondModel | None = None
    reference_model: SecondModel | None = None
    divergences: Any = None
    classifier: tuple[Any, Any] | None = None
    judge: tuple[Any, Any] | None = None
    trust_code: bool = False


@dataclass
class Run:
    """What a measurement may look at, and what was measured so far.

    Attributes
    ----------
    recipe : Recipe
        With what the run found out meanwhile, such as the tokens that its model reads.
    asked : Recipe
        As it was when the run began: what an earlier run noted is found by it.
    samples : Samples
        The source, whole.
    store : SignalStore
    own : OwnText
        What of the rows' texts is theirs alone.
    inputs : Inputs
        Is told what else is read.
    objects : Objects
    progress : bool
    rows : ndarray, int64, ascending
        The source rows that cleaning has left so far; signals are of these.
    signals : dict
        Name -> what was measured, of these rows.
    tokens : dict
        Tokens and supervised tokens of all source rows, where they were counted.
    unread : ndarray, bool, shape (source rows,)
        Source rows of which the embedder knows too little for a vector to say anything.
    part : bool
        Tokens are counted of ``rows`` alone, and not of every source row.
    helped : callable, optional
        Has others compute what is not stored of the measurement of that name, or with None of the tokens as the
        language model reads them.
    prepared : dict
        Measurement -> what its ``prepare`` gave.
    required : frozenset of str
        Signals that somebody cannot do without.
    feeds : bool
        A language model reads the rows in this run.
    fed : Fed, optional
        It, once it was taken and the rows were tokenised.
    shared : Shared
        What is made of the vectors once for all.
    reference : Reader, optional
        The reference model, between measurements that both read it.
    ahead : list of Ahead
        The passes of language models after the present measurement.
    """

    recipe: Recipe
    samples: Samples
    store: SignalStore
    own: OwnText
    inputs: Inputs
    rows: Ints
    objects: Objects = field(default_factory=Objects)
    progress: bool = True
    required: frozenset[str] = frozenset()
    feeds: bool = False
    signals: dict[str, Any] = field(default_factory=dict)
    tokens: dict[str, Ints] = field(default_factory=dict)
    unread: Flags = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    part: bool = False
    helped: Callable[[str | None], None] | None = None
    prepared: dict[str, Any] = field(default_factory=dict)
    fed: Fed | None = None
    shared: Shared = field(default_factory=Shared)
    embedder: Named[TokenEmbedder] | None = None
    reference: Reader | None = None
    ahead: list[Ahead] = field(default_factory=list)
    asked: Recipe = field(init=False)

    def __post_init__(self) -> None:
        """Keep what was asked."""
        self.asked = self.recipe

    @property
    def every(self) -> bool:
        """Whether cleaning left all rows of the source."""
        return len(self.rows) == len(self.samples)

    def keep(self, rows: Ints) -> None:
        """Go on with fewer rows: what was measured is of these."""
        if len(rows) == len(self.rows):
            return
        self.signals = narrowed(self.signals, np.searchsorted(self.rows, rows))
        self.rows = rows

    @cached_property
    def guessed_tokens(self) -> float:
        """A row's tokens as the lengths of some texts suggest, for estimates before any tokenizer is loaded."""
        if not (self.samples.layout.has_text and len(self.rows)):
            return TOKENS_A_ROW
        some = self.rows[np.linspace(0, len(self.rows) - 1, min(len(self.rows), SOME_ROWS)).astype(np.int64)]
        texts = self.samples.iter_samples(some, identity=False)
        return 10 + sum(len(sample.part("both")) for sample in texts) / len(some) / LETTERS_A_TOKEN

    @cached_property
    def guessed_token_seconds(self) -> float:
        """How long the language model takes for a token, by its size: two operations for every weight."""
        given = self.objects.model
        return self.token_seconds(self.recipe.model, None if given is None else given[0])

    def token_seconds(self, name: str | None, model: Any = None) -> float:
        """How long a language model takes for a token, by the size of one in memory or of its files."""
        if model is not None:
            weights: int = sum(weight.numel() for weight in model.parameters())
        else:
            folder = None if name is None else local_folder(name)
            if folder is None:
                return UNKNOWN_MODEL
            weights = sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) // 2
        device = (self.recipe.device or likely_device()).partition(":")[0]
        return 2 * weights / OPERATIONS.get(device, OPERATIONS["cuda"])

    @property
    def language_model(self) -> Fed:
        """The language model and how it is fed."""
        assert self.fed is not None
        return self.fed


def tokens_a_row(run: Run) -> float:
    """Give the mean number of a row's tokens, as far as that is known."""
    return run.guessed_tokens if run.fed is None else float(run.fed.counts.tokens.mean())


def narrowed(signals: Mapping[str, Any], places: Ints) -> dict[str, Any]:
    """Give some rows of all signals, but those of another set."""
    return {name: held if name in OF_TARGET else taken(held, places) for name, held in signals.items()}


def taken(signal: Any, places: Ints) -> Any:
    """Give some rows of a signal; of vectors a view, since they may not fit in memory."""
    if isinstance(signal, Ragged):
        return signal.take(places)
    if isinstance(signal, list):
        return [signal[place] for place in places]
    if len(signal.shape) == 2 and signal.dtype.kind == "f":
        from datapruner.geometry.blocks import RowView

        return RowView(signal, places)
    return signal[places]
