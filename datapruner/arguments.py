"""What a verb takes, told in full: its signature, its help, and what an argument that it does not have may mean."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from inspect import Parameter, cleandoc, signature
from typing import Any, TypeVar

from datapruner.errors import DataPrunerError
from datapruner.guards.limits import limited
from datapruner.text import did_you_mean, safe_text

Verb = TypeVar("Verb", bound=Callable[..., Any])

_FOREIGN = {
    "--keep=0.3 keeps that share of the rows, --keep=500 so many": "ratio fraction frac budget top_k topk k n n_rows "
    "num_rows num_samples n_samples size sample_size percent percentage proportion share keep_ratio "
    "keep_fraction subset_size max_rows max_samples",
    "--near-threshold is the similarity of near duplicates, --keep says how many rows stay": "threshold cutoff "
    "min_score similarity similarity_threshold",
    "--keep-tokens is a budget of supervised tokens": "tokens max_tokens token_budget num_tokens",
    "--scorer names the method": "method strategy algorithm metric scoring",
    "--out names the folder": "output output_dir output_path dest destination save_to",
    "--columns=question=COLUMN,answer=COLUMN says which column plays which role": "text_column text_field text_key "
    "column field prompt_column",
    "--model names the model": "model_name model_id model_path model_name_or_path base_model llm",
    "--embedder makes the vectors": "embedding_model encoder sentence_transformer",
    "--batch-tokens is the size of a batch, in tokens": "batch_size per_device_batch_size",
    "--seed sets everything random": "random_state random_seed rng",
    "--per-group names a column whose values share the budget": "group_by groups stratify stratify_by",
    "--dedup drops exact and near duplicates": "deduplicate dedupe duplicates",
    "--max-length cuts rows": "max_seq_length max_seq_len seq_length context_length",
    "--n-clusters is for the scorers that cluster": "clusters num_clusters k_means n_groups",
    "--overwrite replaces an earlier result": "force replace exist_ok",
    "--quiet shows no progress": "verbose silent disable_tqdm",
    "--decontaminate names the test set": "test_set benchmark eval_set holdout",
}
FOREIGN = {name: told for told, names in _FOREIGN.items() for name in names.split()}
"""What other tools call an option, and the sentence that says ours."""
_OPTION = re.compile(r"--([a-z-]+)")


def instead_of(name: str, known: Iterable[str]) -> str:
    """Say which option may be meant by one that is not there: ``": ..."``, ``". Did you mean ...?"`` or nothing."""
    known = list(known)
    told = FOREIGN.get(name.replace("-", "_").casefold())
    if told is not None and _OPTION.findall(told)[0].replace("-", "_") in known:
        return f": {told}"
    near = did_you_mean(name, known, cutoff=0.75)
    return f".{near}" if near else ""


def takes(
    *options: type, defaults: Mapping[str, Any], told: str = "", elsewhere: Mapping[str, str] | None = None
) -> Callable[[Verb], Verb]:
    """Give a verb whose options come as ``**options`` a signature that lists them, and refuse all others first.

    Its limits hold for as long as it runs.

    Parameters
    ----------
    options : TypedDict classes
        What ``**options`` may hold.
    defaults : mapping
        Of each of them.
    told : str
        What they mean: numpydoc of the verb's "Other Parameters".
    elsewhere : mapping, optional
        An argument of other verbs -> what to do instead.
    """

    def taught(verb: Verb) -> Verb:
        own = signature(verb)
        named = [one for one in own.parameters.values() if one.kind is not Parameter.VAR_KEYWORD]
        held = {name: note for of in options for name, note in _annotations(of).items()}
        more = [
            Parameter(name, Parameter.KEYWORD_ONLY, default=defaults[name], annotation=note)
            for name, note in held.items()
            if name not in own.parameters
        ]
        known = {one.name for one in (*named, *more)}

        @functools.wraps(verb)
        def checked(*args: Any, **given: Any) -> Any:
            for name in (name for name in given if name not in known):
                told = f": {elsewhere[name]}" if elsewhere and name in elsewhere else instead_of(name, known)
                raise DataPrunerError(f"{verb.__name__} takes no '{safe_text(name, 60)}'{told}")
            with limited(given.pop("limits", None)):
                return verb(*args, **given)

        checked.__signature__ = own.replace(parameters=[*named, *more])  # type: ignore[attr-defined]
        checked.__doc__ = _with_section(verb.__doc__ or "", told)
        return checked  # type: ignore[return-value]

    return taught


def _annotations(of: type) -> dict[str, Any]:
    """Give the items of a TypedDict, those that it inherits among them, with their types as they were written."""
    return {name: getattr(note, "__forward_arg__", note) for name, note in of.__annotations__.items()}


def _with_section(doc: str, told: str) -> str:
    """Put a section of more parameters behind those that a docstring has."""
    doc = cleandoc(doc)
    if not told:
        return doc
    section = f"Other Parameters\n----------------\n{told}\n\n"
    place = re.search(r"^(Returns|Raises)\n-+$", doc, re.MULTILINE)
    return (
        f"{doc}\n\n{section.rstrip()}"
        if place is None
        else doc[: place.start()] + section + doc[place.start() :]
    )
