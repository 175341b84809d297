"""Models: loading them strictly, and the small ones that need no hub."""

from datapruner.models.loading import load_causal_lm
from datapruner.models.tokenizers import load_tokenizer
from datapruner.models.twins import load_pruned_lm

__all__ = ["load_causal_lm", "load_pruned_lm", "load_tokenizer"]
