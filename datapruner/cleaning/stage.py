"""The cleaning steps in their order: what is dropped before any scorer looks at a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Flags, Ints
from datapruner.choices import Match
from datapruner.cleaning.decontamination import contaminated
from datapruner.cleaning.exact import exact_duplicates
from datapruner.cleaning.near import near_duplicates
from datapruner.cleaning.own_text import OwnText
from datapruner.cleaning.rows import without
from datapruner.cleaning.semantic import semantic_duplicates
from datapruner.cleaning.vetoes import Vetoes
from datapruner.errors import DataPrunerError
from datapruner.matching import match_form
from datapruner.samples.column_kinds import TEXT, kinds_of
from datapruner.samples.layouts import LAYOUTS
from datapruner.selection.budget import encode_labels
from datapruner.signals.shared import Shared
from datapruner.text import safe_text

if TYPE_CHECKING:
    from datapruner.geometry.blocks import Matrix
    from datapruner.recipe import Recipe
    from datapruner.samples.samples import Samples


_BLOCK = 100_000


def unanswered(samples: Samples, rows: Ints) -> Ints:
    """Give the rows whose answer says nothing, see :attr:`Sample.unanswered`.

    A chat template supervises the end of an empty turn too, so that counting supervised tokens does not find them.
    """
    rows = rows[~_says_something(samples)[rows]]
    read = samples.iter_samples(rows, identity=False)
    return rows[np.fromiter((sample.unanswered for sample in read), np.bool_, len(rows))]


def _says_something(samples: Samples) -> Flags:
    """Tell the rows, bool [n], whose answer is seen to hold a visible character without reading them as turns."""
    import pyarrow.compute as pc
    from datasets import Value

    said = np.zeros(len(samples), dtype=np.bool_)
    layout = samples.layout
    roles = LAYOUTS[layout.name]
    role = "text" if layout.name == "text" else roles.answers
    column = layout.columns.get(role or "")
    if column is None or samples.dataset.features[column] not in (Value("string"), Value("large_string")):
        return said
    texts = samples.dataset.select_columns([column]).with_format("arrow")
    for start in range(0, len(said), _BLOCK):
        block = texts[start : start + _BLOCK].column(column)
        seen = pc.match_substring_regex(block, pattern="[!-~]")
        said[start : start + _BLOCK] = pc.fill_null(seen, False).to_numpy()
    return said


def clean_texts(
    recipe: Recipe,
    samples: Samples,
    test_texts: Sequence[str] | None,
    rows: Ints,
    protected: NDArray[np.bool_],
    own: OwnText | None = None,
) -> tuple[list[Vetoes], Ints]:
    """Drop rows without an answer (or refuse them), decontaminate, then drop exact and near duplicates.

    What would be dropped anyway goes first: were it last, such a row could have dropped its better copy. Each
    step reads the rows anew, a block at a time, so that no list of all texts is held. Exact duplicates
    agree in roles, turns and tools too; the other two steps compare the words of all turns but the system's,
    without what many rows share.

    Parameters
    ----------
    recipe : Recipe
    samples : Samples
        The source, whole.
    test_texts : sequence of str, optional
        The prompts of the test rows.
    rows : ndarray, int64, ascending
        What is left so far.
    protected : ndarray, bool, shape (n,)
    own : OwnText, optional
        What of the rows' texts is compared, where that is known already.

    Returns
    -------
    vetoes, rows
        Each step's, and what is left.

    Raises
    ------
    DataPrunerError
        A row has no answer, where that is an error.
    """
    found: list[Vetoes] = []
    own = OwnText(samples, recipe.similarity_context) if own is None else own
    if recipe.on_empty != "keep" and samples.layout.has_text:
        empty = unanswered(samples, rows)
        if recipe.on_empty == "error" and empty.size:
            raise DataPrunerError(
                f"row {empty[0]} has no answer ({empty.size:,} such rows); give it one, or leave such rows out with "
                "--on-empty=drop"
            )
        empty = empty[~protected[empty]]
        if empty.size and empty.size == len(rows):
            raise DataPrunerError(
                f"no row has an answer: column '{safe_text(samples.layout.answers, 60)}' holds none in any of "
                f"{len(rows):,} rows; name the column that does with --columns, or keep them with --on-empty=keep"
            )
        if empty.size:
            found.append(
                Vetoes("no_answer", empty, np.full(empty.size, -1), np.zeros(empty.size), "no answer")
            )
            rows = without(rows, found[-1])
    if test_texts is not None:
        left = rows[~protected[rows]]
        found.append(
            contaminated(
                own.texts("both", left),
                own.others(test_texts),
                left,
                ngram=recipe.decontaminate_ngram,
                share=recipe.decontaminate_share,
            )
        )
        rows = without(rows, found[-1])
    if "exact" in recipe.dedup:
        found.append(exact_duplicates(samples.iter_keys(rows), rows, protected, recipe.match))
        rows = without(rows, found[-1])
    if "near" in recipe.dedup:
        found.append(
            near_duplicates(
                own.texts("both", rows),
                rows,
                threshold=recipe.near_threshold,
                ngram=recipe.near_ngram,
                seed=recipe.seed,
                protected=protected,
                numbers=recipe.near_numbers,
                apart=apart(samples, rows, recipe.match),
                whole=own.turns("both", rows) if own.leaves_out else None,
            )
        )
        rows = without(rows, found[-1])
    return found, rows


def apart(samples: Samples, rows: Ints, match: Match) -> NDArray[np.int64] | None:
    """Give rows a number for what they are besides their texts: the rejected answer, the label, images, sounds.

    Near and semantic duplicates compare texts or vectors, which say nothing of these: rows that differ there are
    kept, however alike they read.

    Returns
    -------
    ndarray, int64, shape (len(rows),), or None
        None where a row is its text alone.
    """
    from xxhash import xxh3_64_intdigest

    layout = samples.layout
    # Messages may hold images themselves.
    kinds = kinds_of(samples.dataset)
    texts = all(kinds[column] == TEXT for column in layout.spoken) and layout.has_text
    if not layout.beside and (texts or not layout.has_text):
        return None
    if not layout.has_text:
        return encode_labels(samples.column(layout.columns["label"]))[1][rows]
    asides = (
        match_form(sample.aside(), match).encode("utf-8", "surrogatepass")
        for sample in samples.iter_samples(rows)
    )
    hashes = np.fromiter(map(xxh3_64_intdigest, asides), np.uint64, len(rows))
    numbers: NDArray[np.int64] = np.unique(hashes, return_inverse=True)[1].astype(np.int64)
    return numbers if numbers.any() else None


def clean_embeddings(
    recipe: Recipe,
    samples: Samples,
    embeddings: Matrix,
    rows: Ints,
    protected: NDArray[np.bool_],
    unread: NDArray[np.bool_] | None = None,
    shared: Shared | None = None,
) -> tuple[list[Vetoes], Ints]:
    """Drop semantic duplicates (SemDeDup) among the rows that are left.

    Parameters
    ----------
    recipe : Recipe
    samples : Samples
        The source, whole.
    embeddings : Matrix, shape (len(rows), d)
        In the order of ``rows``.
    rows : ndarray, int64, ascending
    protected : ndarray, bool, shape (n,)
    unread : ndarray, bool, shape (n,), optional
        Rows whose vectors say nothing: they are no duplicates of anything.
    shared : Shared, optional
        What was made of the vectors before, and where their clusters are left for scorers.
    """
    if "semantic" not in recipe.dedup:
        return [], rows
    clusters = (shared or Shared()).clusters(embeddings, seed=recipe.seed)
    local = semantic_duplicates(
        embeddings,
        clusters.assignment if unread is None else np.where(unread[rows], -1, clusters.assignment),
        clusters.centroids,
        np.arange(len(rows)),
        eps=recipe.semantic_eps,
        protected=protected[rows],
        apart=apart(samples, rows, recipe.match),
    )
    others = np.where(local.others >= 0, rows[local.others], -1)
    vetoes = Vetoes(local.kind, rows[local.rows], others, local.measures, local.template)
    return [vetoes], without(rows, vetoes)
