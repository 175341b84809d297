"""Values that options choose among and that more than one module names."""

from typing import Literal, get_args

Match = Literal["exact", "text", "loose"]
"""What makes two rows exact duplicates; see :func:`datapruner.matching.match_form`."""
AutoPart = Literal["leaks", "copies", "rules", "noise", "shares"]
"""What the default recipe does; see :mod:`datapruner.recipe.auto`."""
AUTO_PARTS: tuple[str, ...] = get_args(AutoPart)
