"""Sequence classifiers and reward models: a few numbers a row, from a text, a pair or a conversation."""
