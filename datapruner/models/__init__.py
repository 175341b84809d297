"""Models: loading them strictly, and the small ones that need no hub."""

from datapruner.models.loading import load_causal_lm, load_tokenizer

__all__ = ["load_causal_lm", "load_tokenizer"]
