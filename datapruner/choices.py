"""Values that options choose among and that more than one module names."""

from typing import Literal, get_args

Match = Literal["exact", "text", "loose"]
"""What makes two rows exact duplicates; see :func:`datapruner.matching.match_form`."""
Templates = Literal["test", "both"]
"""Whose rows tell which words belong to a template and not to a leaked question."""
AutoPart = Literal["leaks", "copies", "rules", "noise", "shares"]
"""What the default recipe does; see :mod:`datapruner.recipe.auto`."""
AUTO_PARTS: tuple[str, ...] = get_args(AutoPart)
