"""What pruning broke: how far a pruned model's predictions have moved, by cluster and by column."""

from datapruner.pruning_damage.groups import CLUSTERS, GroupDamage
from datapruner.pruning_damage.result import Damage
from datapruner.pruning_damage.run import damage, damage_of

__all__ = ["CLUSTERS", "Damage", "GroupDamage", "damage", "damage_of"]
