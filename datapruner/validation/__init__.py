"""Whether a score means anything for a target, by training without the best rows and without the worst."""

from datapruner.validation.result import Validation
from datapruner.validation.run import validate

__all__ = ["Validation", "validate"]
