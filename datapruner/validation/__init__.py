"""Whether a selection is worth more than a random draw, or a score means anything, for a target: by training."""

from datapruner.validation.result import Validation
from datapruner.validation.run import validate

__all__ = ["Validation", "validate"]
