"""Read YAML of somebody else's: plain values of bounded size and depth, each fault a sentence with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.resolver import Resolver
from yaml.scanner import Scanner

from datapruner.errors import DataPrunerError
from datapruner.guards.bounded import bounded
from datapruner.text import safe_text

MOST_BYTES = 64 << 20
MOST_NODES = 2_000_000
"""Values, those behind an alias counted each time: what 1.6 KB of nested aliases say is without end."""
MOST_WRITTEN = 300_000
"""Values that stand in the file itself; each takes 10 microseconds and 1 KB."""
DEEPEST = 50
MOST_DIGITS = 4300
"""Of a whole number: what Python writes out in decimals. In other bases, and in base sixty, it would read more."""


class _Refused(yaml.YAMLError):
    """What is wrong, and where."""

    def __init__(self, what: str, mark: Any) -> None:
        super().__init__(what)
        self.what, self.problem_mark = what, mark


try:  # a hundred times as fast on long texts
    from yaml._yaml import CParser as _Parser
except ImportError:

    class _Parser(Reader, Scanner, Parser):  # type: ignore[no-redef]
        def __init__(self, text: str) -> None:
            for part in (Reader, Scanner, Parser):
                part.__init__(self, *[text][: part is Reader])


class _Loader(Composer, _Parser, SafeConstructor, Resolver):
    """Composes no more than it may hold, and names the line of a value that cannot be made."""

    def __init__(self, text: str) -> None:
        _Parser.__init__(self, text)
        for part in (Composer, SafeConstructor, Resolver):
            part.__init__(self)
        self.depth = self.written = 0
        self.sizes: dict[int, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()
        mark = event.start_mark
        self.depth += 1
        self.written += 1
        if self.depth > DEEPEST:
            raise _Refused(f"is nested more than {DEEPEST} levels deep", mark)
        if self.written > MOST_WRITTEN:
            raise _Refused(f"holds more than {MOST_WRITTEN:,} values", mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if id(node) not in self.sizes:
            if isinstance(event, yaml.AliasEvent):
                raise _Refused("holds an alias of itself", mark)
            if isinstance(node, yaml.MappingNode):
                parts = [part for pair in node.value for part in pair]
            else:
                parts = node.value if isinstance(node, yaml.SequenceNode) else []
            size = 1 + sum(self.sizes[id(part)] for part in parts)
            if size > MOST_NODES:
                raise _Refused(f"holds more than {MOST_NODES:,} values", mark)
            self.sizes[id(node)] = size
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise _Refused("holds a value that is not of its kind", node.start_mark) from error

    def construct_yaml_int(self, node: Any) -> int:
        """Make a whole number of bounded length."""
        if len(node.value) > MOST_DIGITS:
            raise ValueError("digits")
        made = int(super().construct_yaml_int(node))
        str(made)  # refused by Python itself
        return made


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)  # type: ignore[type-var]


def load_yaml(path: Path, what: str) -> Any:
    """Read a file of plain YAML.

    Parameters
    ----------
    path : Path
    what : str
        What the file is, for the sentence: ``the recipe``.

    Raises
    ------
    DataPrunerError
        There is none, it cannot be read, is not YAML, or is too large or too deep.
    """
    try:
        if path.exists() and not path.is_file():
            raise DataPrunerError(f"{what} {path} is no file")
        with path.open("rb") as handle:
            raw = handle.read(MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            raise DataPrunerError(f"{what} {path} has more than {MOST_BYTES >> 20} MB")
        with bounded(f"reading {what} {path}"):
            return _Loader(raw.decode("utf-8")).get_single_data()
    except FileNotFoundError:
        raise DataPrunerError(f"there is no recipe {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataPrunerError(f"{what} {path} cannot be read: {safe_text(str(error), 200)}") from error
    except RecursionError as error:
        raise DataPrunerError(f"{what} {path} is nested too deeply") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        said = error.what if isinstance(error, _Refused) else "is not valid YAML"
        raise DataPrunerError(f"{what} {path} {said}{where}") from error
