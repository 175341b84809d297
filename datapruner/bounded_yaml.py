"""Read YAML of somebody else's: plain values of bounded size and depth, each fault a sentence with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from datapruner.errors import DataPrunerError
from datapruner.text import safe_text

MOST_BYTES = 64 << 20
MOST_NODES = 2_000_000
"""Values, those behind an alias counted each time: what 1.6 KB of nested aliases say is without end."""
DEEPEST = 50


class _Refused(yaml.YAMLError):
    """What is wrong, and where."""

    def __init__(self, what: str, mark: Any) -> None:
        super().__init__(what)
        self.what, self.problem_mark = what, mark


class _Loader(yaml.SafeLoader):
    """Composes no more than it may hold, and names the line of a value that cannot be made."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0
        self.sizes: dict[int, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        mark = event.start_mark
        self.depth += 1
        if self.depth > DEEPEST:
            raise _Refused(f"is nested more than {DEEPEST} levels deep", mark)
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
        loader = _Loader(raw.decode("utf-8"))
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
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
