"""A result as a dataset repository on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from datapruner.errors import DataPrunerError
from datapruner.outputs.dataset import save_selection

if TYPE_CHECKING:
    from datapruner.results.selected import Selected


def check_repository(name: str) -> None:
    """Refuse a name that no repository can have, before a run whose result is to go there."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise DataPrunerError(f"the hub did not take '{name}': {error}") from error


def push_to_hub(selection: Selected, name: str, *, private: bool = True) -> str:
    """Upload what :func:`datapruner.outputs.dataset.save_selection` writes to a dataset repository on the hub.

    Parameters
    ----------
    selection : Selected
    name : str
        ``org/name``.
    private : bool
        A new repository is private unless this is False.

    Returns
    -------
    str
        The commit's address.

    Raises
    ------
    DataPrunerError
        The hub refused, or cannot be reached.
    """
    import tempfile

    from huggingface_hub import HfApi

    check_repository(name)
    with tempfile.TemporaryDirectory() as work:
        folder = save_selection(selection, Path(work) / "dataset", leaves=True)
        api = HfApi()
        try:
            api.create_repo(name, repo_type="dataset", private=private, exist_ok=True)
            commit = api.upload_folder(repo_id=name, repo_type="dataset", folder_path=str(folder))
        except (
            Exception
        ) as error:  # what the client's version and its HTTP library raise: no list is complete
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataPrunerError(f"the hub did not take '{name}': {reason}") from error
    return str(commit)
