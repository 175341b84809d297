"""From a row to token ids and the mask of what is supervised: the assistant's turns.

Three ways, chosen by the tokenizer:

- its chat template marks the assistant's text with ``{% generation %}``: that is the mask;
- it has another chat template: for every assistant turn, the text up to and with the generation prompt must be
  a beginning of the text up to the turn's end, and this one of the whole; the difference is supervised. Where a
  template has no generation prompt, the difference holds the assistant's header too;
- it has none: ``System:``, ``User:``, ``Tool:`` or ``Assistant:`` on a line of its own, the text below it, an
  empty line between turns. The assistant's text and the end-of-sequence token after it are supervised. The
  pieces are tokenised one by one, so the mask is exact.

A row is refused where its template leaves out or rewrites an assistant's text (white space aside): what is scored
would not be what the row says. A chat is tokenised once, as a whole; a token that runs over the edge of an answer
belongs to the side that its end lies on. The first token of a row is never supervised: nothing predicts it.

A plain ``text`` row is tokenised as it is, and all of it is supervised.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from datapruner.bounded import asked
from datapruner.errors import DataPrunerError
from datapruner.samples.sample import Sample
from datapruner.samples.templates import BEGIN, END, Handed, Template
from datapruner.text import safe_text

if TYPE_CHECKING:
    from datapruner.samples.samples import Samples

CODE_VERSION = 1
"""To be raised whenever the tokens or the mask of some row change: they are part of the keys of what is stored."""
BATCH = 256
EARLIER = "it drops or rewrites earlier turns once others follow"
REWRITTEN = "it drops or rewrites what an assistant turn says"
Ids = list[int]
Spans = Callable[[int], tuple[int, int]]


class Turn(NamedTuple):
    """A supervised turn, in characters of the text or in tokens of the row.

    Parameters
    ----------
    header
        Where the assistant's header before it begins; ``first`` where there is none that is known.
    first, stop
        Where what is supervised begins and ends.
    """

    header: int
    first: int
    stop: int


@dataclass(frozen=True)
class Rendered:
    """A row as a model is fed.

    Parameters
    ----------
    input_ids
        The token ids, int32.
    supervised
        Which tokens are targets of the loss; never the first.
    truncated
        Whether the row was cut at ``max_length``.
    turns
        One row of token positions for every supervised turn: where its header begins, where the turn begins
        and where it ends; int32 of shape (n, 3).
    plain
        A raw ``text`` row, which has no prompt.
    """

    input_ids: np.ndarray
    supervised: np.ndarray
    truncated: bool
    turns: np.ndarray
    plain: bool = False


@dataclass(frozen=True)
class Response:
    """An assistant turn without what came before it.

    Parameters
    ----------
    input_ids
        The start token where the row has one, the assistant's header and the turn; int32.
    supervised
        Which of these are targets of the loss.
    targets
        Where in the row the same targets stand, one for each; int64. A first token that nothing predicts here
        is in neither, so that both losses are over the same tokens.
    """

    input_ids: np.ndarray
    supervised: np.ndarray
    targets: np.ndarray


@dataclass(frozen=True)
class TokenCounts:
    """Each row's number of tokens and of supervised tokens (int64), and whether it was cut (bool)."""

    tokens: np.ndarray
    supervised: np.ndarray
    truncated: np.ndarray


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
    templates: dict[str, Template] = {}
    while batch := list(islice(rows, BATCH)):
        named = None if positions is None else list(islice(positions, len(batch)))
        made = _Batch(batch, tokenizer, named, templates, last_turn_only=last_turn_only).rows()
        for sample, (ids, turns) in zip(batch, made, strict=True):
            try:
                row = _rendered(ids, turns, max_length, plain=sample.plain)
            except OverflowError:
                raise DataPrunerError(
                    f"the tokenizer has a token of number {max(ids)}, which no model has"
                ) from None
            yield row


def responses(rendered: Rendered, bos: int | None = None) -> list[Response]:
    """Take every supervised turn out of its row: the assistant's header and the turn, nothing before them.

    Parameters
    ----------
    rendered
        A row.
    bos
        The tokenizer's ``bos_token_id``, put in front where the row itself begins with it.
    """
    ids, found = rendered.input_ids, []
    starts = bos is not None and len(ids) > 0 and ids[0] == bos
    for header, first, stop in rendered.turns.tolist():
        alone = ids[header:stop]
        before = int(starts and header > 0)
        # A target needs a token before it, here as in the row.
        targets = np.flatnonzero(rendered.supervised[first:stop]) + first
        targets = targets[targets - header + before > 0]
        supervised = np.zeros(before + len(alone), dtype=bool)
        supervised[targets - header + before] = True
        alone = np.concatenate([ids[:before], alone])
        found.append(Response(alone, supervised, targets))
    return found


def token_counts(
    samples: Samples,
    tokenizer: Any,
    rows: np.ndarray | None = None,
    *,
    last_turn_only: bool = False,
    max_length: int | None = None,
) -> TokenCounts:
    """Count each row's tokens and supervised tokens, as ``render`` gives them, and tell which rows were cut.

    Parameters
    ----------
    samples
        The source's rows.
    tokenizer, last_turn_only, max_length
        As for ``render``.
    rows
        The rows to count; all of them by default.
    """
    numbers = np.arange(len(samples)) if rows is None else np.asarray(rows, dtype=np.int64)
    counts = np.zeros((3, len(numbers)), dtype=np.int64)
    rendered = render_many(
        samples.iter_samples(rows, identity=False),
        tokenizer,
        last_turn_only=last_turn_only,
        max_length=max_length,
        numbers=numbers.tolist(),
    )
    for place, row in enumerate(rendered):
        counts[:, place] = len(row.input_ids), np.count_nonzero(row.supervised), row.truncated
    return TokenCounts(counts[0], counts[1], counts[2].astype(bool))


def count_tokens(
    samples: Samples,
    tokenizer: Any,
    rows: np.ndarray | None = None,
    *,
    last_turn_only: bool = False,
    max_length: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Count each row's tokens and supervised tokens: the first two of ``token_counts``."""
    counts = token_counts(samples, tokenizer, rows, last_turn_only=last_turn_only, max_length=max_length)
    return counts.tokens, counts.supervised


def _rendered(ids: Ids, turns: list[Turn], max_length: int | None, *, plain: bool) -> Rendered:
    """Cut a row and mask its turns."""
    length = len(ids) if max_length is None else min(len(ids), max_length)
    kept = [Turn(turn.header, turn.first, min(turn.stop, length)) for turn in turns if turn.first < length]
    supervised = np.zeros(length, dtype=bool)
    for turn in kept:
        supervised[turn.first : turn.stop] = True
    supervised[:1] = False
    return Rendered(
        input_ids=np.array(ids[:length], dtype=np.int32),
        supervised=supervised,
        truncated=length < len(ids),
        turns=np.array(kept, dtype=np.int32).reshape(-1, 3),
        plain=plain,
    )


class _Batch:
    """Some rows on their way through one tokenizer."""

    def __init__(
        self,
        samples: Sequence[Sample],
        tokenizer: Any,
        numbers: list[int] | None,
        templates: dict[str, Template],
        *,
        last_turn_only: bool,
    ) -> None:
        self.samples, self.tokenizer, self.numbers = samples, tokenizer, numbers
        self.templates, self.last_turn_only = templates, last_turn_only

    def rows(self) -> list[tuple[Ids, list[Turn]]]:
        """Return the ids and supervised turns of every row."""
        found: dict[int, tuple[Ids, list[Turn]]] = {}
        plain, bare, chats = [], [], []
        for place, sample in enumerate(self.samples):
            text = None if sample.plain else _chat_template(self.tokenizer, sample.tools)
            if sample.plain:
                plain.append(place)
            elif text is None:
                bare.append(place)
            else:
                if text not in self.templates:
                    self.templates[text] = Template(self.tokenizer, text)
                chats.append((place, self.templates[text]))
        for place, ids in zip(
            plain, self.ids([self.samples[place].part("both") for place in plain], special=True), strict=True
        ):
            found[place] = (ids, [Turn(0, 0, len(ids))])
        if bare:
            found |= zip(bare, self.without_template(bare), strict=True)
        if chats:
            found |= zip((place for place, _ in chats), self.with_template(chats), strict=True)
        return [found[place] for place in range(len(self.samples))]

    def ids(self, texts: list[str], *, special: bool = False) -> list[Ids]:
        """Tokenise texts in one call."""
        if not texts:
            return []
        # verbose=False: the tokenizer would warn of rows beyond the model's length, which max_length cuts.
        out = asked(self.tokenizer, texts, add_special_tokens=special, verbose=False)["input_ids"]
        return [list(ids) for ids in out]

    def error(self, place: int, what: str) -> DataPrunerError:
        """Return an error that names the row where the row is known."""
        where = "" if self.numbers is None else f"Row {self.numbers[place]}: "
        return DataPrunerError(where + what)

    def turns(self, place: int) -> list[int]:
        """Return the positions of the assistant turns that are supervised."""
        messages = self.samples[place].messages
        turns = [turn for turn in self.answers(place) if messages[turn].trained]
        return turns[-1:] if self.last_turn_only else turns

    def answers(self, place: int) -> list[int]:
        """Return the positions of the assistant turns."""
        messages = self.samples[place].messages
        return [turn for turn, message in enumerate(messages) if message.role == "assistant"]

    def without_template(self, places: list[int]) -> list[tuple[Ids, list[Turn]]]:
        """Lay out turns in the plain way, piece by piece."""
        heads = {
            (role, turn > 0): ("\n\n" if turn else "") + f"{role.capitalize()}:\n"
            for place in places
            for turn, role in enumerate(message.role for message in self.samples[place].messages)
        }
        contents = [message.text for place in places for message in self.samples[place].messages]
        distinct = list(dict.fromkeys([*heads.values(), *contents]))
        by_text = dict(zip(distinct, self.ids(distinct), strict=True))
        bos, eos = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        # A start token is given where the tokenizer itself gives one.
        start = [bos] if bos is not None and self.ids([""], special=True)[0][:1] == [bos] else []
        rows = []
        for place in places:
            supervised, ids, turns = set(self.turns(place)), list(start), []
            for turn, message in enumerate(self.samples[place].messages):
                header = len(ids)
                ids += by_text[heads[message.role, turn > 0]]
                first = len(ids)
                ids += by_text[message.text]
                ids += [eos] if message.role == "assistant" and eos is not None else []
                turns += [Turn(header, first, len(ids))] if turn in supervised else []
            rows.append((ids, turns))
        return rows

    def with_template(self, chats: list[tuple[int, Template]]) -> list[tuple[Ids, list[Turn]]]:
        """Render chats, find the turns in the text, and the tokens of these."""
        plans = []
        for place, template in chats:
            find = self.by_generation if template.marked else self.by_prefix
            plans.append((place, template, *find(place, template)))
        rows = []
        spanned = self.spanned([text for _, _, text, _ in plans])
        for (place, template, text, spans), (ids, where) in zip(plans, spanned, strict=True):
            header, turns, last = template.header, [], 0
            for first, stop in spans:
                at = _header_start(text, header, last, first)
                last = stop
                begin = self.edge(place, text, first, ids, where)
                end = self.edge(place, text, stop, ids, where)
                head = begin if at == first else min(self.edge(place, text, at, ids, where), begin)
                turns += [Turn(head, begin, end)] if begin < end else []
            rows.append((ids, turns))
        return rows

    def spanned(self, texts: list[str]) -> list[tuple[Ids, Spans | None]]:
        """Tokenise whole chats, each token with the characters it covers where the tokenizer can tell."""
        if not getattr(self.tokenizer, "is_fast", False):
            return [(ids, None) for ids in self.ids(texts)]
        out = asked(
            self.tokenizer,
            texts,
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        found: list[tuple[Ids, Spans | None]] = []
        for text, ids, encoding in zip(texts, out["input_ids"], out.encodings, strict=True):
            # Asked for one by one: a list of every token's span would take longer than the templates do.
            spans = encoding.token_to_chars
            # Spans that do not reach the end of the text are not about this text.
            reach = (spans(len(ids) - 1) or (0, 0))[1] if ids else 0
            found.append((ids, spans if reach >= len(text.rstrip()) else None))
        return found

    def edge(self, place: int, text: str, position: int, ids: Ids, spans: Spans | None) -> int:
        """Return the number of tokens that end before a position of the text, or there."""
        if position == len(text):
            return len(ids)
        if spans is not None:
            # Ends alone: byte-level tokenizers may take the blank before a word out of its span.
            return bisect_left(range(len(ids)), True, key=lambda token: spans(token)[1] > position)
        before = self.ids([text[:position]])[0]
        if ids[: len(before)] != before:
            raise self.error(
                place,
                "the tokenizer's chat template cannot be masked: the prompt's tokens are not a beginning of the"
                " whole's, because a token runs over the edge; use a fast tokenizer.",
            )
        return len(before)

    def by_generation(self, place: int, template: Template) -> tuple[str, list[tuple[int, int]]]:
        """Find the supervised text by the template's own ``{% generation %}`` marks.

        Transformers has a mask of its own, which loses tokens: those of an answer whose edge lies in white space
        that the offsets leave out.
        """
        messages, turns = self.messages(place, template), self.turns(place)
        text, spans = self.marked(place, messages, template)
        answers = self.answers(place)
        if turns != answers:
            # The marks do not tell turns apart: those before a turn are there without it too.
            before = []
            for turn in answers:
                marks = self.marked(place, messages[:turn], template)[1] if turn else []
                if turn in turns and spans[: len(marks)] != marks:
                    raise self.unmasked(place, EARLIER)
                before.append(len(marks))
            pieces = [
                spans[first:stop] for first, stop in zip(before, [*before[1:], len(spans)], strict=True)
            ]
            spans = [
                span for turn, found in zip(answers, pieces, strict=True) if turn in turns for span in found
            ]
        marked = _Said(_squeeze("".join(text[first:stop] for first, stop in spans)))
        for turn in turns:
            thoughts = map(_squeeze, template.thoughts(messages[turn]))
            whole = all(thought in _squeeze(text) for thought in thoughts)
            if not whole or not marked.says(template.claims(messages[turn]), template.called(messages[turn])):
                raise self.unmasked(place, REWRITTEN)
        # Some templates mark a turn in pieces, one behind the other.
        firsts = {first for first, _ in spans} - {stop for _, stop in spans}
        stops = {stop for _, stop in spans} - {first for first, _ in spans}
        return text, list(zip(sorted(firsts), sorted(stops), strict=True))

    def marked(
        self, place: int, messages: list[Handed], template: Template
    ) -> tuple[str, list[tuple[int, int]]]:
        """Render messages and tell where the marked text lies."""
        text = self.apply(place, messages, template)
        pieces = re.split(f"([{BEGIN}{END}])", template.render_marks(messages, **self.told(place)))
        if "".join(pieces[::2]) != text or pieces[1::2] != [BEGIN, END] * (len(pieces) // 4):
            raise self.unmasked(place, "its {% generation %} marks cannot be told from the text")
        edges = np.cumsum([len(piece) for piece in pieces[::2]]).tolist()
        spans = zip(edges[::2], edges[1::2], strict=False)
        return text, [(first, stop) for first, stop in spans if first < stop]

    def by_prefix(self, place: int, template: Template) -> tuple[str, list[tuple[int, int]]]:
        """Find the supervised text by the differences between the conversation's beginnings."""
        messages = self.messages(place, template)
        whole = self.apply(place, messages, template)
        spans: list[tuple[int, int]] = []
        for turn in self.turns(place):
            end = whole
            if turn + 1 < len(messages):
                end = template.beginning(self.apply(place, messages[: turn + 1], template), whole)
            start = self.prompt(place, messages, turn, end, template)
            why = REWRITTEN
            if not whole.startswith(end):
                end, why = _follows(end, start, whole), EARLIER
            if not end or (spans and len(start) < spans[-1][1]):
                raise self.unmasked(place, EARLIER)
            said = end[len(start) :]
            if not _holds(said, template, messages[turn]):
                prompted = _overlap(start, template, messages[turn])
                if not prompted or not _holds(prompted + said, template, messages[turn]):
                    raise self.unmasked(place, why)
            spans.append((len(start), len(end)))
        return whole, spans

    def unmasked(self, place: int, why: str) -> DataPrunerError:
        """Return the error for a conversation whose template does not show what is supervised."""
        way = "write the row as the template keeps it"
        if len(self.answers(place)) > 1:
            way = "keep one assistant turn a row"
            last = _Batch([self.samples[place]], self.tokenizer, None, self.templates, last_turn_only=True)
            try:
                helps = not self.last_turn_only and bool(last.rows())
            except DataPrunerError:
                helps = False
            if helps:
                way = "score the last turn of each row alone: --last-turn-only"
        return self.error(
            place,
            f"the tokenizer's chat template cannot be masked: {why}; use a tokenizer whose template has"
            f" {{% generation %}} and keeps all turns, or {way}.",
        )

    def prompt(self, place: int, messages: list[Handed], turn: int, end: str, template: Template) -> str:
        """Return the text before an assistant turn, with as much of the generation prompt as the turn follows."""
        if turn:
            start = self.apply(place, messages[:turn], template, add_generation_prompt=True)
            if end.startswith(start):
                return start
            # Some prompt with a thought or its beginning (DeepSeek R1's), which the turn need not have: what the
            # two have in common is the prompt, as in trl.
            bare = template.beginning(self.apply(place, messages[:turn], template), end)
            common = template.common(start, end)
            if common <= len(bare) or not end.startswith(bare):
                raise self.unmasked(
                    place, "an assistant turn does not begin with what the template prompts it with"
                )
            return end[:common]
        # A conversation that the assistant opens has no prompt to render: its header is that of any other.
        header = template.header
        at = end.find(header) if header else -1
        if at < 0:
            raise self.error(
                place,
                "the assistant opens the conversation and the chat template shows no assistant header to mask by;"
                " begin the row with a user turn.",
            )
        return end[: at + len(header)]

    def messages(self, place: int, template: Template) -> list[Handed]:
        """Return a row's messages as a template is handed them."""
        return [template.handed(message) for message in self.samples[place].messages]

    def told(self, place: int) -> dict[str, Any]:
        """Return what a template is told beside the messages."""
        return {**self.samples[place].options, "tools": self.samples[place].tools}

    def apply(self, place: int, messages: list[Handed], template: Template, **options: Any) -> str:
        """Apply a chat template."""
        try:
            return template.render(messages, **self.told(place), **options)
        except Exception as error:
            # A template is a program: it may raise on purpose ("roles must alternate") or fail in any way.
            reason = safe_text(" ".join(str(error).split()), 160)
            way = "change the row or the template"
            if not isinstance(error, DataPrunerError) and self.takes_all_but_system(
                place, messages, template
            ):
                way = "put the system turn's text before the first user turn's, or take it out"
            raise self.error(
                place, f"the tokenizer's chat template does not take this conversation ({reason}); {way}."
            ) from error

    def takes_all_but_system(self, place: int, messages: list[Handed], template: Template) -> bool:
        """Whether it is the system turn that a template refuses."""
        if messages[0]["role"] != "system" or len(messages) == 1:
            return False
        try:
            template.render(messages[1:], **self.told(place))
        except Exception:  # it refuses something else too
            return False
        return True


def _chat_template(tokenizer: Any, tools: list[Any] | None) -> str | None:
    """Return the template that apply_chat_template would use for a row with these tools."""
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, dict) and template:
        named = template.get("tool_use") if tools else None
        named = named or template.get("default")
        if named is None:
            raise DataPrunerError(
                f"the tokenizer has chat templates named {', '.join(sorted(template))} and none named default; "
                "set its chat_template to one of them"
            )
        template = named
    return template or None


def _header_start(text: str, header: str, lowest: int, first: int) -> int:
    """Return where the header before a turn begins; a marked turn may begin inside of it."""
    sizes = range(min(len(header), first - lowest), 0, -1)
    return first - next((size for size in sizes if text.endswith(header[:size], lowest, first)), 0)


def _follows(end: str, start: str, whole: str) -> str:
    """Return the text up to a turn's end where others follow; empty where the template rewrites the turn.

    Some templates put something before the answer that comes last (Qwen 3's empty thought) and take it out again
    once another follows.
    """
    if not (end.startswith(start) and whole.startswith(start)):
        return ""
    said = end[len(start) :]
    cut = next((at for at in range(len(said)) if whole.startswith(said[at:], len(start))), None)
    return "" if cut is None else start + said[cut:]


def _overlap(start: str, template: Template, message: Handed) -> str:
    """Return what a prompt says of the answer already: the beginning of its thought, in some templates."""
    said = template.claims(message)[:1] or [""]
    sizes = range(min(len(template.header), len(said[0])), 0, -1)
    return next((start[-size:] for size in sizes if start.endswith(said[0][:size])), "")


def _holds(text: str, template: Template, message: Handed) -> bool:
    """Tell whether a text says all of a turn, white space aside."""
    claims, called, thoughts = template.claims(message), template.called(message), template.thoughts(message)
    if len(claims) == 1 and not called and not thoughts and claims[0] in text:
        return True
    squeezed = _squeeze(text)
    return _Said(squeezed).says(claims, called) and all(_squeeze(thought) in squeezed for thought in thoughts)


class _Said:
    """A text without white space, read from its beginning to its end."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def says(self, contents: list[str], names: list[str]) -> bool:
        """Tell whether contents follow one another, and names stand somewhere else."""
        places = []
        for content in map(_squeeze, contents):
            at = self.text.find(content, self.at)
            if at < 0:
                return False
            places.append((at, at + len(content)))
            self.at = at + len(content)
        if not names:
            return True
        edges = [0, *(edge for place in places for edge in place), len(self.text)]
        rest = "\n".join(self.text[first:stop] for first, stop in zip(edges[::2], edges[1::2], strict=True))
        return all(_squeeze(name) in rest for name in names)


def _squeeze(text: str) -> str:
    """Return a text without white space, which templates may trim."""
    return "".join(text.split())
