"""Values that options choose among and that more than one module names."""

from typing import Literal

Match = Literal["exact", "text", "loose"]
"""What makes two rows exact duplicates; see :func:`datapruner.matching.match_form`."""
