"""The scorers that stand beside those that were asked for, in every comparison."""

from datapruner.scorers.length import Length
from datapruner.scorers.random import Random

BASELINES = (Random.name, Length.name)
