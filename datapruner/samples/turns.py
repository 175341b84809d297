"""One turn of a conversation: from what a source holds to the message that a chat template is handed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from datapruner.errors import DataPrunerError
from datapruner.samples.decoding import PARTS
from datapruner.samples.sample import REASONING, Message
from datapruner.text import safe_text

if TYPE_CHECKING:
    import pyarrow as pa

# What the turns of real datasets are called, in lower case and with underscores.
TURN_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "tool_calls": "assistant",
    "tool": "tool",
    "function": "tool",
    "ipython": "tool",
    "observation": "tool",
    "function_response": "tool",
    "tool_response": "tool",
    "tool_result": "tool",
}
CALL_ROLES = frozenset({"function_call", "tool_call", "tool_calls"})
"""Roles of turns that are calls, written as JSON in the content."""
OWN_ROLES = frozenset({"developer", "ipython"})
"""Roles that some chat templates know beside the four; a template that does not is handed the usual one."""

FIELDS = frozenset(
    {*REASONING, "name", "tool_call_id", "tool_plan", "tool_responses", "recipient", "channel", "end_turn"}
)
"""What chat templates read of a message beside its role, its content and its calls."""
WEIGHTS = frozenset({"weight", "train", "training", "trained", "trainable", "loss", "loss_mask"})
"""Keys that say whether a turn is trained on: no, where the value is 0 or false."""
MASKS = frozenset({"mask", "masked"})
"""Keys that say the opposite: the turn is not trained on where the value is true. A number may mean either."""
WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}

NULL: Any = object()
Shape = Any
"""What Arrow may have padded: keys and their shapes, a list of one shape, NULL for a type without values, or None."""
Error = Callable[[str], DataPrunerError]
Tools = Callable[[], "list[Any] | None"]


def shape_of(kind: pa.DataType) -> Shape:
    """Return where a column of this Arrow type may hold keys that a row did not have."""
    import pyarrow.types as t

    if t.is_struct(kind):
        return {kind.field(place).name: shape_of(kind.field(place).type) for place in range(kind.num_fields)}
    if t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind):
        inner = shape_of(kind.value_type)
        return None if inner is None else [inner]
    return NULL if t.is_null(kind) else None


def unpadded(value: Any, shape: Shape) -> Any:
    """Drop the null keys that Arrow added because other rows have them.

    Arrow gives every row of a column the same keys, so a null may be the row's own or padding. A key that has a
    value in some row is padding where it is null. A key that is null in every row cannot have come from a value
    elsewhere: somebody wrote the null, and it stays. What was JSON text has no padding.
    """
    if shape is None or shape is NULL:
        return value
    if isinstance(shape, list):
        return [unpadded(item, shape[0]) for item in value] if isinstance(value, list) else value
    if not isinstance(value, dict):
        return value
    return {
        key: unpadded(item, shape.get(key))
        for key, item in value.items()
        if item is not None or shape.get(key) is NULL
    }


def kind_of(value: Any) -> str:
    """Return what a value is, in the user's words."""
    names = {
        bool: "true/false",
        int: "a number",
        float: "a number",
        str: "a text",
        dict: "an object",
        list: "a list",
    }
    return "nothing" if value is None else names.get(type(value), f"a {type(value).__name__}")


def read_turns(
    messages: Sequence[Any], error: Error, shape: Shape = None, tools: Tools | None = None
) -> list[Message]:
    """Read a list of messages: ``role`` and ``content``, or ShareGPT's ``from`` and ``value``.

    A turn of calls alone (``tool_call``, ``function_call``) joins the assistant's turn before it, as templates and
    trainers have it.

    Parameters
    ----------
    messages
        What the source holds.
    error
        Makes the error for the row from what is wrong with it.
    shape
        What Arrow may have padded in ``messages``.
    tools
        Returns the row's tools, whose schemas tell which nulls of a call's arguments are its own.
    """
    inner = shape[0] if isinstance(shape, list) else None
    found: list[Message] = []
    for place, message in enumerate(messages):
        turn, calls_alone = _read_turn(message, place, error, inner, tools)
        last = found[-1] if found else None
        if calls_alone and last is not None and last.role == "assistant" and last.trained == turn.trained:
            calls = [*last.fields.get("tool_calls", []), *turn.fields["tool_calls"]]
            turn = Message("assistant", last.content, {**last.fields, "tool_calls": calls}, last.trained)
            found.pop()
        found.append(turn)
    return found


def _read_turn(
    message: Any, place: int, error: Error, shape: Shape, tools: Tools | None
) -> tuple[Message, bool]:
    """Read one message, and tell whether it is a turn of calls alone."""
    if not isinstance(message, dict):
        raise error(f"holds {kind_of(message)} as message {place}, where a role and content are needed")
    speaker = message.get("role") if message.get("role") is not None else message.get("from")
    name = speaker.strip().lower().replace("-", "_").replace(" ", "_") if isinstance(speaker, str) else None
    if name is None or name not in TURN_ROLES:
        said = "no role" if speaker is None else f"the unknown role '{safe_text(str(speaker), 40)}'"
        raise error(f"has {said} in message {place} (system, user, assistant and tool are known)")
    role = TURN_ROLES[name]
    content = message.get("content") if message.get("content") is not None else message.get("value")
    fields: dict[str, Any] = {}
    trained = True
    for key, value in message.items():
        if value is None:
            continue
        if key in FIELDS and value != "":
            fields[key] = unpadded(value, _inner(shape, key))
        elif role == "assistant" and (key in WEIGHTS or key in MASKS):
            trained = trained and _trains(key, value)
    calls = _calls(message, shape, tools) if role == "assistant" else []
    calls_alone = False
    if name in CALL_ROLES and not calls and isinstance(content, str):
        calls = _calls_of_text(content)
        if calls:
            content, calls_alone = "", not fields
    if calls:
        fields["tool_calls"] = calls
    if name in OWN_ROLES:
        fields["role"] = name
    if isinstance(content, list):
        parts = [_part(part, place, error) for part in content]
        content, fields["content"] = "".join(text for text, _ in parts), [part for _, part in parts]
    elif content is None:
        # An answer that is not there is an empty one.
        if role != "assistant":
            raise error(f"has no content in message {place}")
        content, fields["content"] = "", None
    elif not isinstance(content, str):
        raise error(f"holds {kind_of(content)} as the content of message {place}")
    return Message(role, content, fields, trained), calls_alone


def _inner(shape: Shape, key: str | int) -> Shape:
    if isinstance(shape, dict):
        return shape.get(key)
    return shape[0] if isinstance(shape, list) else None


def _trains(key: str, value: Any) -> bool:
    """Whether a turn is trained on, as one of its keys has it; what is no flag says nothing."""
    if isinstance(value, str):
        value = WORDS.get(value.strip().lower())
    if key in MASKS:
        return value is not True
    return not isinstance(value, (bool, int, float)) or value > 0


def _calls(message: Mapping[str, Any], shape: Shape, tools: Tools | None) -> list[Any]:
    """Return a message's calls: ``tool_calls``, or the ``function_call`` that came before them."""
    value = message.get("tool_calls")
    if isinstance(value, str):
        value, shape = _parsed(value), None
    if isinstance(value, dict):
        return [value]
    if isinstance(value, list) and value:
        within = _inner(_inner(shape, "tool_calls"), 0)
        return [
            _parsed(call) if isinstance(call, str) else _unpadded_call(call, within, tools) for call in value
        ]
    legacy = message.get("function_call")
    if isinstance(legacy, str):
        return _calls_of_text(legacy)
    if isinstance(legacy, dict):
        call = _call(_unpadded_call(legacy, _inner(shape, "function_call"), tools))
        return [] if call is None else [call]
    return []


def _unpadded_call(call: Any, shape: Shape, tools: Tools | None) -> Any:
    """Take the padding out of one call; where the row's tools describe the function, by what they say.

    A null of an argument that the function requires is the call's own. So is one that is null in every row, if the
    function has such an argument.
    """
    found = unpadded(call, shape)
    if not isinstance(found, dict) or not isinstance(shape, dict):
        return found
    function, kinds, target = call, shape, found
    if isinstance(call.get("function"), dict):
        function, kinds, target = call["function"], _inner(shape, "function"), found["function"]
    arguments, kinds = function.get("arguments"), _inner(kinds, "arguments")
    if not isinstance(arguments, dict) or not isinstance(kinds, dict) or None not in arguments.values():
        return found
    schema = _schema((tools() if tools is not None else None) or [], function.get("name"))
    if schema is not None:
        listed, required = schema.get("properties") or {}, schema.get("required") or []
        target["arguments"] = {
            key: unpadded(value, kinds.get(key))
            for key, value in arguments.items()
            if value is not None or key in required or (key in listed and kinds.get(key) is NULL)
        }
    return found


def _schema(tools: list[Any], name: Any) -> Mapping[str, Any] | None:
    """Return the JSON schema of a function's arguments, if the tools hold it."""
    for tool in tools:
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if isinstance(function, dict) and function.get("name") == name:
            schema = function.get("parameters")
            return schema if isinstance(schema, dict) else None
    return None


def _calls_of_text(text: str) -> list[Any]:
    """Read calls that a source wrote as JSON: one, or a list of them; anything else is no call."""
    value = _parsed(text)
    calls = [_call(item) for item in (value if isinstance(value, list) else [value])]
    return [] if None in calls else calls


def _call(value: Any) -> dict[str, Any] | None:
    """Return a call as templates read it, its arguments an object; None for what is no call."""
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        return value
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters"))
    if isinstance(arguments, str):
        arguments = _parsed(arguments) if arguments.strip() else {}
    return {
        "type": "function",
        "function": {"name": value["name"], "arguments": {} if arguments is None else arguments},
    }


def _parsed(text: str) -> Any:
    """Return what JSON text says; the text itself where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _part(part: Any, place: int, error: Error) -> tuple[str, Any]:
    """Return the text of one content part and the part as a template is handed it."""
    if isinstance(part, str):
        return part, {"type": "text", "text": part}
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        return part["text"], {key: value for key, value in part.items() if value is not None}
    if isinstance(part, dict) and part.get("type") in (None, "text", "input_text", "output_text"):
        keys = ", ".join(safe_text(str(key), 40) for key in part)
        raise error(f"has a part without the key 'text' in message {place} (its keys: {keys})")
    if isinstance(part, dict) and str(part.get("type")) in PARTS:
        # An image or a sound: it tells rows apart, and has no text.
        return "", {key: value for key, value in part.items() if value is not None}
    found = part.get("type") if isinstance(part, dict) else kind_of(part)
    raise error(f"has a part of the unknown type '{safe_text(str(found), 40)}' in message {place}")
