"""From a row to token ids and the mask of what is supervised: the assistant's turns.

Three ways, chosen by the tokenizer:

- its chat template marks the assistant's text with ``{% generation %}``: that is the mask;
- it has another chat template: for every assistant turn, the ids up to and with the generation prompt must be
  a prefix of the ids up to the turn's end, and these a prefix of the whole; the difference is supervised;
- it has none: ``System:``, ``User:``, ``Tool:`` or ``Assistant:`` on a line of its own, the text below it, an
  empty line between turns. The assistant's text and the end-of-sequence token after it are supervised. The
  pieces are tokenised one by one, so the mask is exact.

A plain ``text`` row is tokenised as it is, and all of it is supervised.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from datapruner.errors import DataPrunerError
from datapruner.samples.base import Sample
from datapruner.text import safe_text

if TYPE_CHECKING:
    from datapruner.samples.base import Samples

BATCH = 256
GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")

Ids = list[int]
Masked = tuple[Ids, list[bool]]


@dataclass(frozen=True)
class Rendered:
    """A row as a model is fed.

    Parameters
    ----------
    input_ids
        The token ids, int32.
    supervised
        Which tokens are targets of the loss.
    truncated
        Whether the row was cut at ``max_length``.
    """

    input_ids: np.ndarray
    supervised: np.ndarray
    truncated: bool


def render(
    sample: Sample, tokenizer: Any, *, last_turn_only: bool = False, max_length: int | None = None
) -> Rendered:
    """Tokenise one row and mask what is supervised.

    Parameters
    ----------
    sample
        The row.
    tokenizer
        A Hugging Face tokenizer.
    last_turn_only
        Supervise the last assistant turn alone.
    max_length
        Cut the row after this many tokens.
    """
    return next(render_many([sample], tokenizer, last_turn_only=last_turn_only, max_length=max_length))


def render_many(
    samples: Iterable[Sample],
    tokenizer: Any,
    *,
    last_turn_only: bool = False,
    max_length: int | None = None,
    numbers: Iterable[int] | None = None,
) -> Iterator[Rendered]:
    """Tokenise rows in batches; the same as ``render`` on each, and faster.

    Parameters
    ----------
    samples
        The rows.
    tokenizer, last_turn_only, max_length
        As for ``render``.
    numbers
        The rows' positions in the source, for the errors.
    """
    if max_length is not None and max_length < 1:
        raise DataPrunerError(f"max_length is {max_length}; it must be 1 or more.")
    rows = iter(samples)
    positions = None if numbers is None else iter(numbers)
    while batch := list(islice(rows, BATCH)):
        named = None if positions is None else list(islice(positions, len(batch)))
        for ids, mask in _Batch(batch, tokenizer, named, last_turn_only=last_turn_only).masked():
            yield Rendered(
                input_ids=np.array(ids[:max_length], dtype=np.int32),
                supervised=np.array(mask[:max_length], dtype=bool),
                truncated=max_length is not None and len(ids) > max_length,
            )


def count_tokens(
    samples: Samples, tokenizer: Any, rows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Count each row's tokens and supervised tokens, as ``render`` gives them.

    Parameters
    ----------
    samples
        The source's rows.
    tokenizer
        A Hugging Face tokenizer.
    rows
        The rows to count; all of them by default.
    """
    numbers = np.arange(len(samples)) if rows is None else np.asarray(rows, dtype=np.int64)
    counts = np.zeros((2, len(numbers)), dtype=np.int64)
    rendered = render_many(samples.iter_samples(rows), tokenizer, numbers=numbers.tolist())
    for place, row in enumerate(rendered):
        counts[0, place] = len(row.input_ids)
        counts[1, place] = np.count_nonzero(row.supervised)
    return counts[0], counts[1]


class _Batch:
    """Some rows on their way through one tokenizer."""

    def __init__(
        self, samples: Sequence[Sample], tokenizer: Any, numbers: list[int] | None, *, last_turn_only: bool
    ) -> None:
        self.samples, self.tokenizer, self.numbers = samples, tokenizer, numbers
        self.last_turn_only = last_turn_only

    def masked(self) -> list[Masked]:
        """Return ids and mask of every row."""
        found: list[Masked | None] = [None] * len(self.samples)
        plain = [place for place, sample in enumerate(self.samples) if sample.plain]
        chats = [place for place, sample in enumerate(self.samples) if not sample.plain]
        if plain:
            texts = [self.samples[place].part("both") for place in plain]
            for place, ids in zip(plain, self.ids(texts, special=True), strict=True):
                found[place] = (ids, [True] * len(ids))
        if chats:
            template = _chat_template(self.tokenizer)
            if template is None:
                rows = self.without_template(chats)
            elif GENERATION.search(template):
                rows = [self.by_generation(place) for place in chats]
            else:
                rows = self.by_prefix(chats)
            for place, row in zip(chats, rows, strict=True):
                found[place] = row
        return [row for row in found if row is not None]

    def ids(self, texts: list[str], *, special: bool = False) -> list[Ids]:
        """Tokenise texts in one call."""
        if not texts:
            return []
        # verbose=False: the tokenizer would warn of rows beyond the model's length, which max_length cuts.
        out = self.tokenizer(texts, add_special_tokens=special, verbose=False)["input_ids"]
        return [list(ids) for ids in out]

    def error(self, place: int, what: str) -> DataPrunerError:
        """Return an error that names the row where the row is known."""
        where = "" if self.numbers is None else f"Row {self.numbers[place]}: "
        return DataPrunerError(where + what)

    def turns(self, place: int) -> list[int]:
        """Return the positions of the assistant turns that are supervised."""
        messages = self.samples[place].messages
        turns = [turn for turn, message in enumerate(messages) if message.role == "assistant"]
        return turns[-1:] if self.last_turn_only else turns

    def without_template(self, places: list[int]) -> list[Masked]:
        """Lay out turns in the plain way, piece by piece."""
        pieces: list[str] = []
        plan: list[list[tuple[int, bool]]] = []
        for place in places:
            supervised = set(self.turns(place))
            steps = []
            for turn, message in enumerate(self.samples[place].messages):
                head = ("\n\n" if turn else "") + f"{message.role.capitalize()}:\n"
                steps += [(len(pieces), False), (len(pieces) + 1, turn in supervised)]
                pieces += [head, message.content]
            plan.append(steps)
        distinct = list(dict.fromkeys(pieces))
        by_text = dict(zip(distinct, self.ids(distinct), strict=True))
        bos, eos = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        # A start token is given where the tokenizer itself gives one.
        start = [bos] if bos is not None and self.ids([""], special=True)[0][:1] == [bos] else []
        rows = []
        for place, steps in zip(places, plan, strict=True):
            ids, mask = list(start), [False] * len(start)
            for step, (piece, supervised_piece) in enumerate(steps):
                found = by_text[pieces[piece]]
                ended = step % 2 == 1 and self.samples[place].messages[step // 2].role == "assistant"
                found = [*found, eos] if ended and eos is not None else found
                ids += found
                mask += [supervised_piece] * len(found)
            rows.append((ids, mask))
        return rows

    def by_generation(self, place: int) -> Masked:
        """Take the mask from the template's own ``{% generation %}`` marks."""
        out = self.template(
            place, self.messages(place), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        ids, marks = out["input_ids"], out.get("assistant_masks", out.get("assistant_mask"))
        mask = [bool(mark) for mark in marks]
        if self.last_turn_only:
            turns = self.turns(place)
            if turns:
                # The marks do not tell turns apart: what stands before the last turn's prompt is not
                # supervised.
                text = (
                    self.template(place, self.messages(place)[: turns[0]], tokenize=False) if turns[0] else ""
                )
                before = len(self.ids([text])[0]) if text else 0
                mask = [mark and at >= before for at, mark in enumerate(mask)]
        return list(ids), mask

    def by_prefix(self, places: list[int]) -> list[Masked]:
        """Take the mask from the differences between the conversation's beginnings."""
        wholes: list[str] = []
        edges: list[list[tuple[str, str]]] = []
        for place in places:
            messages = self.messages(place)
            whole = self.template(place, messages, tokenize=False)
            wholes.append(whole)
            edges.append([])
            for turn in self.turns(place):
                end = whole
                if turn + 1 < len(messages):
                    end = self.template(place, messages[: turn + 1], tokenize=False)
                start = self.prompt(place, messages, turn, end)
                if not (end.startswith(start) and whole.startswith(end)):
                    raise self.error(
                        place,
                        "the tokenizer's chat template cannot be masked: the conversation up to an"
                        " assistant turn is"
                        " not a beginning of the whole conversation, because the template drops or"
                        " rewrites earlier"
                        " turns; use a template with {% generation %}, or keep one assistant turn a row.",
                    )
                edges[-1].append((start, end))
        texts = list(dict.fromkeys([*wholes, *(text for row in edges for edge in row for text in edge)]))
        by_text = dict(zip(texts, self.ids(texts), strict=True))
        rows = []
        for place, whole, row in zip(places, wholes, edges, strict=True):
            ids = by_text[whole]
            mask = [False] * len(ids)
            for start, end in row:
                first, last = self.edge(place, start, whole, by_text), self.edge(place, end, whole, by_text)
                mask[first:last] = [True] * (last - first)
            rows.append((ids, mask))
        return rows

    def edge(self, place: int, beginning: str, whole: str, by_text: dict[str, Ids]) -> int:
        """Return the number of the whole's tokens that a beginning of its text takes up."""
        ids, all_ids = by_text[beginning], by_text[whole]
        if all_ids[: len(ids)] == ids:
            return len(ids)
        # A token may straddle the edge, e.g. when an answer starts with line breaks that merge with the
        # prompt's
        # last one. As with {% generation %}, the token at the edge belongs to the side that its end lies on.
        if not getattr(self.tokenizer, "is_fast", False):
            raise self.error(
                place,
                "the tokenizer's chat template cannot be masked: the prompt's tokens are not a beginning"
                " of the"
                " whole's, because a token runs over the edge; use a fast tokenizer or a template with"
                " {% generation %}.",
            )
        spans = self.tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return sum(1 for _, stop in spans["offset_mapping"] if stop <= len(beginning))

    def prompt(self, place: int, messages: list[dict[str, str]], turn: int, end: str) -> str:
        """Return the text before an assistant turn, with the generation prompt."""
        if turn:
            return str(self.template(place, messages[:turn], tokenize=False, add_generation_prompt=True))
        # A conversation that the assistant opens has no prompt to render: the header is what the template
        # adds
        # to any other conversation.
        probe = [{"role": "user", "content": "x"}]
        asked = self.template(place, probe, tokenize=False, add_generation_prompt=True)
        bare = self.template(place, probe, tokenize=False)
        header = asked[len(bare) :] if asked.startswith(bare) else ""
        at = end.find(header) if header else -1
        if at < 0:
            raise self.error(
                place,
                "the assistant opens the conversation and the chat template shows no assistant header to"
                " mask by;"
                " begin the row with a user turn.",
            )
        return end[: at + len(header)]

    def messages(self, place: int) -> list[dict[str, str]]:
        """Return a row's messages as templates read them."""
        return [
            {"role": message.role, "content": message.content} for message in self.samples[place].messages
        ]

    def template(self, place: int, messages: list[dict[str, str]], **options: Any) -> Any:
        """Apply the chat template."""
        try:
            return self.tokenizer.apply_chat_template(messages, tools=self.samples[place].tools, **options)
        except Exception as error:
            # A template is a program: it may raise on purpose ("roles must alternate") or fail in any way.
            reason = safe_text(" ".join(str(error).split()), 160)
            raise self.error(
                place,
                f"the tokenizer's chat template does not take this conversation ({reason}); change the row or"
                f" the template.",
            ) from error


def _chat_template(tokenizer: Any) -> str | None:
    """Return the template that apply_chat_template would use."""
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, dict):
        # Several named templates: transformers takes 'default' (and 'tool_use' for rows with tools).
        template = template.get("default") or next(iter(template.values()), None)
    return template or None
