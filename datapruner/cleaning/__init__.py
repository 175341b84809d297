"""Cleaning: what must not be trained on, dropped before any scorer looks at a row, each row with a reason."""
