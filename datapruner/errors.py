"""The one exception family: a sentence for the user, with the way out."""

from __future__ import annotations


class DataPrunerError(Exception):
    """Anything the user can put right; the command line prints the sentence and exits with 2."""
