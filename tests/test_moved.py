"""What imports a name from where it stood goes on, and is told where it stands."""

from __future__ import annotations

import importlib

import pytest

MOVED = {
    "datapruner.signals.ragged": {"Ragged": "datapruner.ragged", "offsets_of": "datapruner.ragged"},
    "datapruner.selection.result": {"Scores": "datapruner.scores", "Selection": "datapruner.scores"},
    "datapruner.selection.explanation": {
        "Explanation": "datapruner.results.explanation",
        "Summary": "datapruner.results.explanation",
    },
    "datapruner.outputs.scores": {
        "load_scores": "datapruner.scores",
        "save_scores": "datapruner.outputs.score_files",
    },
    "datapruner.outputs.reading": {
        "SavedSelection": "datapruner.saved",
        "explain": "datapruner.saved",
        "load": "datapruner.saved",
        "load_selection": "datapruner.saved",
    },
}


@pytest.mark.parametrize(
    ("old", "name", "new"), [(o, n, w) for o, held in MOVED.items() for n, w in held.items()]
)
def test_an_old_name_gives_the_same_thing_and_says_where_it_is(old, name, new):
    module = importlib.import_module(old)
    with pytest.warns(DeprecationWarning, match=f"{old}.{name} has moved to {new}.{name};"):
        held = getattr(module, name)
    assert held is getattr(importlib.import_module(new), name)


@pytest.mark.parametrize("old", MOVED)
def test_what_never_was_there_is_not_found(old):
    with pytest.raises(AttributeError, match=f"module '{old}' has no attribute 'nothing'"):
        importlib.import_module(old).nothing  # noqa: B018
