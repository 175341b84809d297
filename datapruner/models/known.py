"""What opening a model showed, noted for later runs, so that what is stored is found without opening it again.

A note is about the bytes of the model's files, the options that it was opened with and the versions of the libraries
that opened it: all that decides what opening it shows. Models that come from code, a pickle or an object have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from datapruner.errors import DataPrunerError
from datapruner.files.notes import Notes
from datapruner.models import offline
from datapruner.models.files import folder_digest, local_folder
from datapruner.models.identity import LIBRARIES, model_identity, tokenizer_hash, versions
from datapruner.models.names import base_and_adapter
from datapruner.models.options import likely_device
from datapruner.models.sizes import positions

CODE_VERSION = 1


@dataclass(frozen=True)
class Known:
    """A language model as far as keys of records need it.

    Attributes
    ----------
    identity : str
        Of the model.
    tokenizer : str, optional
        The tokenizer's hash; None where the model came without one.
    positions : int, optional
        The longest input that the two name.
    device : str
        Its kind: cpu, cuda, mps.
    """

    identity: str
    tokenizer: str | None
    positions: int | None
    device: str


@dataclass(frozen=True)
class Opening:
    """The opening of a model by its name, and the note about it.

    Attributes
    ----------
    about : dict or None
        The files' hashes, the options and the libraries; None where nothing is known of the files.
    """

    about: dict[str, Any] | None
    notes: Notes

    def known(self) -> dict[str, Any] | None:
        """Give what was noted when these very files were opened so."""
        return None if self.about is None else self.notes.get(self.about)

    def note(self, facts: Mapping[str, Any], again: Opening) -> None:
        """Note what opening showed, unless the files have changed meanwhile: ``again`` describes them anew."""
        if self.about is not None and self.about == again.about:
            self.notes.put(self.about, facts)


def opening(
    kind: str,
    name: str | None,
    notes: Notes,
    *,
    adapter: str | None = None,
    weights: bool = True,
    **options: Any,
) -> Opening:
    """Describe the opening of a model by its files, the options and the libraries; nothing is loaded.

    Parameters
    ----------
    kind : str
        What is opened: a language model, a tokenizer, an embedder.
    name, adapter : str, optional
        As loading takes them; no name stands for a model that is no folder's.
    notes : Notes
        Where the hashes of files are remembered.
    weights : bool
        What is opened reads the weights too; a tokenizer does not, and they are gigabytes.
    **options
        What else loading is told; ``device`` as None is what it will likely be.
    """
    try:
        digests = None if name is None else _digests(name, adapter, notes, weights)
    except (OSError, DataPrunerError):  # loading says what is wrong
        digests = None
    if digests is None:
        return Opening(None, notes)
    if "device" in options:
        options["device"] = options["device"] or likely_device()
    libraries = versions(*LIBRARIES, "tokenizers", "safetensors")
    about = {"opening": kind, "version": CODE_VERSION, "files": digests, "libraries": libraries, **options}
    return Opening(about, notes)


def _digests(name: str, adapter: str | None, notes: Notes, weights: bool) -> list[str] | None:
    """Hash the folders of a model, of an adapter on top of it, and of the base of one that is an adapter itself."""
    folders = [local_folder(each) for each in (name, adapter) if each is not None]
    if folders[0] is not None and adapter is None and name not in offline.MODELS:
        base, own = base_and_adapter(str(folders[0]), None)
        folders += [] if own is None else [local_folder(base)]
    found = [folder for folder in folders if folder is not None]
    return None if len(found) < len(folders) else [folder_digest(folder, notes, weights) for folder in found]


def known_model(opening: Opening) -> Known | None:
    """Give what is known of a language model before it is opened."""
    facts = opening.known()
    try:
        return None if facts is None else Known(**facts)
    except TypeError:  # noted by another version
        return None


def learn_model(model: Any, tokenizer: Any, *, probe: bool) -> Known:
    """Tell of an opened language model what keys need; with ``probe``, what it answers is asked too.

    Raises
    ------
    DataPrunerError
        Some of its weights are not in memory.
    """
    if any(parameter.is_meta for parameter in model.parameters()):
        raise DataPrunerError(
            "some of the model's weights lie on a disk or in another device's memory until they are used, so that it "
            "cannot be told from others: load it without offloading"
        )
    return Known(
        model_identity(model, probe=probe),
        None if tokenizer is None else tokenizer_hash(tokenizer),
        positions(model, tokenizer),
        model.get_input_embeddings().weight.device.type,
    )
