"""What a run reads beside its source: test set, target, given vectors and divergences are the same as then, or told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from datapruner.errors import DataPrunerError
from datapruner.files.checksums import digest
from datapruner.files.paths import is_file
from datapruner.samples.samples import Samples
from datapruner.samples.stamps import Stamp, stamps
from datapruner.text import safe_text

WAY = "bring back what was there, or run its recipe with --changed-source, which makes it anew of what is there today"


class Inputs:
    """The contents of what a run reads, each compared with what a recipe says of it.

    Parameters
    ----------
    said : mapping of str to str
        The recipe's ``inputs_content``; a field that it does not name is taken as it is.

    Attributes
    ----------
    content : dict of str to str
        Of the recipe's fields that were read: for rows their hash, for a file of numbers that of its bytes.
    stamps : dict
        Of the files, as they were when they were read.
    """

    def __init__(self, said: Mapping[str, str]) -> None:
        self.said = said
        self.content: dict[str, str] = {}
        self.stamps: dict[str, Stamp] = {}

    def file(self, field: str, path: Path) -> None:
        """Note a file that is about to be read; what is none is left to its reader.

        Raises
        ------
        DataPrunerError
            It has changed, or cannot be read.
        """
        if not is_file(path):
            return
        self.stamps |= stamps([path])
        try:
            found = digest(path)
        except OSError as error:
            raise DataPrunerError(f"{safe_text(str(path), 200)} cannot be read: {error.strerror}") from error
        self._note(field, str(path), found)

    def rows(self, field: str, samples: Samples) -> None:
        """Note rows that were read.

        Raises
        ------
        DataPrunerError
            They are other rows.
        """
        self.stamps |= samples.stamps
        self._note(field, samples.source, samples.content)

    def _note(self, field: str, name: str, found: str) -> None:
        self.content[field] = found
        then = self.said.get(field, found)
        if then != found:
            raise DataPrunerError(
                f"{field}: {safe_text(name, 200)} is another than when this was made (content {found}, then "
                f"{safe_text(then, 40)}); {WAY}"
            )
