"""Whether a chat template can be stopped while it runs, told by its text."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

NAMES = frozenset({"varargs", "kwargs", "dict", "lipsum", "cycler", "joiner"})
FILTERS = frozenset(
    [
        "abs",
        "capitalize",
        "count",
        "d",
        "default",
        "e",
        "escape",
        "first",
        "float",
        "indent",
        "int",
        "items",
        "join",
        "last",
        "length",
        "list",
        "lower",
        "map",
        "max",
        "min",
        "reject",
        "rejectattr",
        "replace",
        "reverse",
        "safe",
        "select",
        "selectattr",
        "string",
        "sum",
        "title",
        "tojson",
        "trim",
        "unique",
        "upper",
        "wordcount",
    ]
)
"""What does not put values into containers of its own."""
CALLED = frozenset({"fromkeys", "maketrans"})


@lru_cache(maxsize=16)
def stops(text: str) -> bool:
    """Whether everything that a template does lets itself be interrupted, soon and in little memory.

    Python looks for alarms between its own steps. One step of C that takes for ever lets no alarm through: a power, a
    product, or a comparison of containers that hold themselves many times over, each level twice the one below. So a
    template that counts or repeats, or puts what it was given into containers, is not of those.

    Parameters
    ----------
    text : str
        As Jinja; a text that cannot be read is not of those either.
    """
    from jinja2 import TemplateError, nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    try:
        tree = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"]).parse(text)
        return not any(_may_not(node) for node in tree.find_all(nodes.Node))
    except (TemplateError, RecursionError):
        return False


def _may_not(node: Any) -> bool:
    from jinja2 import nodes

    if isinstance(node, nodes.Pow | nodes.Mul):
        return True
    if isinstance(node, nodes.Name):
        return node.name in NAMES
    if isinstance(node, nodes.Getattr):
        return node.attr in CALLED
    if isinstance(node, nodes.Getitem):  # an attribute by another way
        return isinstance(node.arg, nodes.Const) and node.arg.value in CALLED
    if isinstance(node, nodes.Filter):
        return node.name not in FILTERS or (node.name == "map" and not _known(node))
    if isinstance(node, nodes.Tuple | nodes.List) and getattr(node, "ctx", "load") == "load":
        return not all(isinstance(item, nodes.Const) for item in node.items)
    if isinstance(node, nodes.Dict):
        return not all(isinstance(pair.value, nodes.Const) for pair in node.items)
    return False


def _known(node: Any) -> bool:
    """Whether a map's filter, if it names one, is among those that are taken."""
    from jinja2 import nodes

    return all(isinstance(arg, nodes.Const) and arg.value in FILTERS for arg in node.args[:1])
