"""Some rows on their way through one tokenizer: their token ids, and where the turns lie that are supervised.

The three ways of it are told in :mod:`datapruner.samples.rendering`, whose ``CODE_VERSION`` is raised where the tokens
or the mask of some row change.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from datapruner.errors import DataPrunerError, RowError
from datapruner.guards.bounded import asked
from datapruner.samples.rendered import Ids, Turn
from datapruner.samples.sample import Sample
from datapruner.samples.shown import Said, follows, header_start, holds, overlap, squeeze
from datapruner.samples.templates import BEGIN, END, Handed, Template
from datapruner.text import safe_text

EARLIER = "it drops or rewrites earlier turns once others follow"

REWRITTEN = "it drops or rewrites what an assistant turn says"

Spans = Callable[[int], tuple[int, int]]


class Batch:
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
        if self.numbers is None:
            return DataPrunerError(what)
        return RowError(f"Row {self.numbers[place]}: {what}", self.numbers[place])

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
                at = header_start(text, header, last, first)
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
        marked = Said(squeeze("".join(text[first:stop] for first, stop in spans)))
        for turn in turns:
            thoughts = map(squeeze, template.thoughts(messages[turn]))
            whole = all(thought in squeeze(text) for thought in thoughts)
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
                end, why = follows(end, start, whole), EARLIER
            if not end or (spans and len(start) < spans[-1][1]):
                raise self.unmasked(place, EARLIER)
            said = end[len(start) :]
            if not holds(said, template, messages[turn]):
                prompted = overlap(start, template, messages[turn])
                if not prompted or not holds(prompted + said, template, messages[turn]):
                    raise self.unmasked(place, why)
            spans.append((len(start), len(end)))
        return whole, spans

    def unmasked(self, place: int, why: str) -> DataPrunerError:
        """Return the error for a conversation whose template does not show what is supervised."""
        way = "write the row as the template keeps it"
        if len(self.answers(place)) > 1:
            way = "keep one assistant turn a row"
            last = Batch([self.samples[place]], self.tokenizer, None, self.templates, last_turn_only=True)
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

    def rendered(self, place: int, **options: Any) -> str | None:
        """Render a whole row by the chat template; None of one that is plain text, or where there is no template."""
        sample = self.samples[place]
        text = None if sample.plain else _chat_template(self.tokenizer, sample.tools)
        if text is None:
            return None
        if text not in self.templates:
            self.templates[text] = Template(self.tokenizer, text)
        template = self.templates[text]
        return self.apply(place, self.messages(place, template), template, **options)

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
