"""Rows as a classifier reads them: a text, a pair of texts or a conversation, in tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from datapruner.errors import DataPrunerError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from datapruner.samples.sample import Sample

TYPE_BIT = 32
"""A token's type (which text of a pair it is of) travels above its number."""
Reads = Literal["auto", "chat", "text", "pair", "prompt", "response"]
Numbered = tuple[int, "Sample"]
"""A row's position in the source, for messages, and the row."""


def read_rows(
    rows: Sequence[Numbered],
    tokenizer: PreTrainedTokenizerBase,
    reads: Reads,
    *,
    typed: bool = False,
    templates: dict[str, Any] | None = None,
) -> list[list[int]]:
    """Tokenise rows as a classifier reads them.

    Parameters
    ----------
    rows : sequence of (int, Sample)
    tokenizer
    reads : {"auto", "chat", "text", "pair", "prompt", "response"}
        ``chat`` is the tokenizer's chat template over the whole row, without a generation prompt; a row that is plain
        text is read as text.
    typed : bool
        The model tells the two texts of a pair apart by types of tokens.
    templates : dict, optional
        Chat templates that were looked at before; new ones are put there.

    Returns
    -------
    list of list of int
        Token ids; of the second text of a pair with the type above :data:`TYPE_BIT`.

    Raises
    ------
    DataPrunerError
        The template does not take a row, or there is none and ``reads`` is ``chat``.
    """
    from datapruner.guards.bounded import asked
    from datapruner.samples.masking import Batch

    def tokens(texts: list[str], *more: list[str], special: bool = True) -> Any:
        return asked(
            tokenizer,
            texts,
            **({"text_pair": more[0]} if more else {}),
            add_special_tokens=special,
            truncation=False,
            padding=False,
            return_attention_mask=False,
            # Of a pair, as the tokenizer itself does: not all give types where a model could tell them.
            **({} if more else {"return_token_type_ids": False}),
            verbose=False,
        )

    if reads == "pair":
        sides = [[sample.part(side) for _, sample in rows] for side in ("prompt", "response")]
        read = tokens(*sides)
        if not typed or "token_type_ids" not in read:
            return [list(ids) for ids in read["input_ids"]]
        return [
            [token | kind << TYPE_BIT for token, kind in zip(ids, kinds, strict=True)]
            for ids, kinds in zip(read["input_ids"], read["token_type_ids"], strict=True)
        ]
    chats: dict[int, str] = {}
    if reads in ("auto", "chat"):
        held = {} if templates is None else templates
        numbers = [row for row, _ in rows]
        batch = Batch([sample for _, sample in rows], tokenizer, numbers, held, last_turn_only=False)
        found = ((place, batch.rendered(place)) for place in range(len(rows)))
        chats = {place: text for place, text in found if text is not None}
        if reads == "chat" and not chats and not all(sample.plain for _, sample in rows):
            raise DataPrunerError(
                "the classifier's tokenizer has no chat template; pass --classifier-reads text or pair"
            )
    side: Any = "both" if reads in ("auto", "chat") else {"text": "both"}.get(reads, reads)
    plain = [place for place in range(len(rows)) if place not in chats]
    out: dict[int, list[int]] = {}
    for places, texts, special in (
        (list(chats), list(chats.values()), False),
        (plain, [rows[place][1].part(side) for place in plain], True),
    ):
        if places:
            out |= dict(zip(places, map(list, tokens(texts, special=special)["input_ids"]), strict=True))
    return [out[place] for place in range(len(rows))]
