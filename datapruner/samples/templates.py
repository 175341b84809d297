"""What a chat template does with a message: found out from its text, or by showing it a message of a word."""

from __future__ import annotations

import logging
import re
from functools import cached_property, partial
from typing import Any

from datapruner.errors import DataPrunerError
from datapruner.guards.apart import Apart
from datapruner.guards.bounded import bounded
from datapruner.samples.sample import REASONING, Message, json_text
from datapruner.samples.template_cost import stops

logger = logging.getLogger(__name__)

GENERATION = re.compile(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}")
# Two characters that Unicode keeps out of any text stand where {% generation %} begins and ends.
BEGIN, END = "\ufdd0", "\ufdd1"
WORD = "qzxjv"
"""A word that no template has of its own."""
MOST_CHARACTERS = 1 << 28
"""Of a rendered row."""

Handed = dict[str, Any]

_TOLD: set[tuple[str, str]] = set()


class Template:
    """A tokenizer's chat template.

    Parameters
    ----------
    tokenizer
        A Hugging Face tokenizer.
    text
        The template, as Jinja.
    """

    def __init__(self, tokenizer: Any, text: str) -> None:
        self.tokenizer, self.text = tokenizer, text
        self.marked = GENERATION.search(text) is not None
        self._roles: dict[str, bool] = {}

    def render(self, messages: list[Handed], tools: list[Any] | None = None, **options: Any) -> str:
        """Apply the template; it is a program and may raise anything."""
        return self._apply(self.text, messages, tools, **options)

    def render_marks(self, messages: list[Handed], tools: list[Any] | None = None, **options: Any) -> str:
        """Apply the template with the edges of ``{% generation %}`` visible in the text."""
        return self._apply(self._visible, messages, tools, **options)

    def _apply(self, text: str, messages: list[Handed], tools: list[Any] | None, **options: Any) -> str:
        told = {"tools": tools or None, "chat_template": text, **options}
        if self._apart is not None:
            made = self._apart(messages, **told)
        else:
            with bounded("the chat template"):
                made = _applied(self.tokenizer, messages, **told)
        if len(made) > MOST_CHARACTERS:
            raise DataPrunerError(f"the chat template makes {len(made):,} characters of a row")
        return made

    @cached_property
    def _apart(self) -> Apart | None:
        """Where the template runs, if not here; a mark of where an answer begins costs nothing."""
        if stops(GENERATION.sub("", self.text)):
            return None
        return Apart("the chat template", partial(_applied, self.tokenizer))

    @cached_property
    def _visible(self) -> str:
        """The template with a block in each mark's place: white space around a block is stripped as around a mark."""

        def mark(found: re.Match[str]) -> str:
            left, ends, right = found.groups()
            return f"{{%{left} if true %}}{END if ends else BEGIN}{{% endif {right}%}}"

        return GENERATION.sub(mark, self.text)

    def beginning(self, text: str, whole: str) -> str:
        """Take off the end-of-sequence token that some templates (Phi 3's) put after whatever comes last."""
        eos = self.tokenizer.eos_token
        return text if whole.startswith(text) or not eos else text.removesuffix(eos)

    def common(self, prompt: str, text: str) -> int:
        """Return how many characters two texts have in common, without half of one of the tokenizer's own words."""
        pairs = enumerate(zip(prompt, text, strict=False))
        common = next((at for at, (one, other) in pairs if one != other), min(len(prompt), len(text)))
        for word in self.tokenizer.get_added_vocab():
            at = prompt.rfind(word, 0, common + len(word) - 1)
            if 0 <= at < common < at + len(word):
                return at
        return common

    @cached_property
    def header(self) -> str:
        """What stands before an assistant's text; empty where the template does not tell."""
        probe = [{"role": "user", "content": "x"}]
        bare, asked = (self._shown(probe, add_generation_prompt=prompt) for prompt in (False, True))
        bare = self.beginning(bare, asked)
        return asked[len(bare) :] if asked.startswith(bare) else ""

    @cached_property
    def reads_parts(self) -> bool:
        """Whether a content may be a list of parts; other templates refuse it or print it as Python does."""
        shown = self._shown([{"role": "user", "content": [{"type": "text", "text": WORD}]}])
        return WORD in shown and not re.search(rf"text['\"]\s*:\s*['\"]{WORD}", shown)

    @cached_property
    def parts_alone(self) -> bool:
        """Whether a content must be a list of parts, as in some vision models' templates, which pass over a text."""
        return WORD not in self._shown([{"role": "user", "content": WORD}]) and self.reads_parts

    @cached_property
    def reads_calls(self) -> bool:
        """Whether the template looks at a turn's calls."""
        return re.search(r"\btool_calls\b", self._code) is not None

    @cached_property
    def reads_reasoning(self) -> bool:
        """Whether the template looks at a turn's reasoning, under any of its names: transformers hands over all."""
        return re.search(rf"\b(?:{'|'.join(REASONING)})\b", self._code) is not None

    @cached_property
    def _code(self) -> str:
        return re.sub(r"\{#.*?#\}", "", self.text, flags=re.DOTALL)

    def knows(self, role: str) -> bool:
        """Whether a turn of a role that not all templates have is rendered."""
        if role not in self._roles:
            user = {"role": "user", "content": "x"}
            turn = {"role": role, "content": WORD}
            turns = [turn, user] if role == "developer" else [user, turn]
            self._roles[role] = WORD in self._shown(turns)
        return self._roles[role]

    def _shown(self, messages: list[Handed], **options: Any) -> str:
        try:
            return self.render(messages, **options)
        except DataPrunerError:  # a program without end
            raise
        except Exception:  # a template may refuse such a conversation; then it does not tell
            return ""

    def handed(self, message: Message) -> Handed:
        """Return a message as this template is handed it.

        That is as the source has it, and hence as a trainer hands it over, except where nobody would want what the
        template makes of it: parts that it would print as Python are joined, a role that it does not render becomes
        the usual one, and calls that it never looks at are written into the content. A text becomes a part where
        the template takes nothing else.
        """
        if not message.fields and not self.parts_alone:
            return {"role": message.role, "content": message.content}
        given = message.handed()
        if given["role"] != message.role and not self.knows(given["role"]):
            given["role"] = message.role
        if isinstance(given["content"], list) and not self.reads_parts:
            given["content"] = message.content
        if "tool_calls" in given and not self.reads_calls:
            calls = json_text(given.pop("tool_calls"))
            given["content"] = f"{message.content}\n{calls}" if message.content else calls
            self._tell("tool calls", "they are scored as JSON in the content; a trainer would leave them out")
        if isinstance(given["content"], str) and self.parts_alone:
            given["content"] = [{"type": "text", "text": given["content"]}]
        if not self.reads_reasoning and any(given.get(key) for key in REASONING):
            self._tell("reasoning", "rows are scored without it, as they would be trained on")
        return given

    def claims(self, given: Handed) -> list[str]:
        """Return the texts that a turn must show once it is rendered; the order is of the content's parts alone."""
        content = given["content"]
        return [content] if isinstance(content, str) else [part.get("text", "") for part in content or []]

    def thoughts(self, given: Handed) -> list[str]:
        """Return the reasoning that a turn must show, if the template looks at any."""
        found = [given[key] for key in REASONING if isinstance(given.get(key), str)]
        return found[:1] if self.reads_reasoning else []

    def called(self, given: Handed) -> list[str]:
        """Return the names of the functions that a turn calls, which it must show beside its content."""
        found = []
        for call in given.get("tool_calls") or []:
            function = call.get("function", call) if isinstance(call, dict) else None
            name = function.get("name") if isinstance(function, dict) else None
            found += [name] if isinstance(name, str) else []
        return found

    def _tell(self, what: str, how: str) -> None:
        """Say once what the template leaves out."""
        if (self.text, what) not in _TOLD:
            _TOLD.add((self.text, what))
            logger.warning("the tokenizer's chat template does not render a turn's %s: %s", what, how)


def _applied(tokenizer: Any, messages: list[Handed], **told: Any) -> str:
    return str(tokenizer.apply_chat_template(messages, tokenize=False, **told))
