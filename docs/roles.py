"""Sphinx roles in docstrings (``:func:`score```) as links of the site; a griffe extension."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

ROLE = re.compile(r":\w+:`~?([\w.]+)`")


class Roles(Extension):
    """Turn every role into a link to what it names, or into code where the site has no page of it."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Rewrite an object's docstring before it is parsed."""
        del kwargs
        if obj.docstring is not None:
            obj.docstring.value = ROLE.sub(lambda found: link(found[1], obj), obj.docstring.value)


def link(name: str, obj: Object) -> str:
    """Write a role as mkdocs-autorefs reads it; a bare name is the module's, or a method of the object's class."""
    whole = name
    if "." not in name:
        owner = obj if name in obj.members else obj.parent
        whole = f"{owner.path if owner is not None and name in owner.members else obj.module.path}.{name}"
    return f'<autoref optional identifier="{whole}"><code>{name.rpartition(".")[2]}</code></autoref>'
