"""What imports a name from where it stood goes on, and is told where it stands."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from datapruner import moved

SELECTORS = "datapruner.selection.selectors"
MOVED = {
    "datapruner.apart": {"Raised": "datapruner.guards.apart"},
    "datapruner.bounded": {"bounded": "datapruner.guards.bounded"},
    "datapruner.bounded_yaml": {"load_yaml": "datapruner.guards.bounded_yaml"},
    "datapruner.cache": {"cache_folder": "datapruner.files.cache"},
    "datapruner.checksums": {"check_file": "datapruner.files.checksums"},
    "datapruner.limits": {"limit": "datapruner.guards.limits"},
    "datapruner.notes": {"Notes": "datapruner.files.notes"},
    "datapruner.paths": {"exists": "datapruner.files.paths"},
    "datapruner.patterns": {"Search": "datapruner.files.patterns"},
    "datapruner.temporary": {"whole_file": "datapruner.files.temporary"},
    "datapruner.scorers.baselines": {
        **{
            name.capitalize(): f"datapruner.scorers.{name}"
            for name in ("length", "random", "stratified", "unranked")
        },
        "BASELINES": "datapruner.scorers._baselines",
    },
    "datapruner.scorers.grouping": {"groups_of": "datapruner.scorers._grouping"},
    "datapruner.scorers.losses": {
        "Perplexity": "datapruner.scorers.perplexity",
        "MidPerplexity": "datapruner.scorers.mid_perplexity",
        "EL2N": "datapruner.scorers.el2n",
        "GradNorm": "datapruner.scorers.grad_norm",
    },
    "datapruner.scorers.target": {
        "FeatureMapping": "datapruner.scorers.feature_mapping",
        "LabelMapping": "datapruner.scorers.label_mapping",
    },
    "datapruner.recipe_formats": {
        "as_of_today": "datapruner.recipe.formats",
        "FORMAT": "datapruner.recipe.formats",
    },
    "datapruner.selection.coverage": dict.fromkeys(("WALK", "Coverage", "evenly"), f"{SELECTORS}.coverage"),
    "datapruner.selection.eu_plane": dict.fromkeys(
        ("EUPlaneSelector", "check_tokens"), f"{SELECTORS}.eu_plane"
    ),
    "datapruner.selection.message_passing": {"MessagePassingSelector": f"{SELECTORS}.message_passing"},
    "datapruner.selection.paser": dict.fromkeys(("PaserSelector", "proportional"), f"{SELECTORS}.paser"),
    "datapruner.signals.ragged": {"Ragged": "datapruner.ragged", "offsets_of": "datapruner.ragged"},
    "datapruner.signals.attention": {"Pack": "datapruner.signals.language_model.attention"},
    "datapruner.signals.concepts": {
        "Concepts": "datapruner.signals.texts.concepts",
        "extract_concepts": "datapruner.signals.texts.concepts",
    },
    "datapruner.signals.keywords": {"distinctive": "datapruner.signals.texts.keywords"},
    "datapruner.signals.stop_words": {"FUNCTION_WORDS": "datapruner.signals.texts.stop_words"},
    "datapruner.signals.divergence": {"Divergence": "datapruner.signals.language_model.divergence"},
    "datapruner.signals.output_layer": {
        "OutputLayer": "datapruner.signals.language_model.output_layer",
        "find_output_layer": "datapruner.signals.language_model.find_output_layer",
        "output_statistics": "datapruner.signals.language_model.token_statistics",
    },
    "datapruner.signals.readers": {"LanguageModel": "datapruner.signals.language_model.reader"},
    "datapruner.signals.records": {"numbers_of": "datapruner.signals.language_model.records"},
    "datapruner.signals.twins": {"measure_twins": "datapruner.signals.language_model.twins"},
    "datapruner.signals.language_model": {
        "Pass": "datapruner.signals.language_model.forward",
        "fetch": "datapruner.signals.language_model.measure",
    },
    "datapruner.signals.store": {"MAGIC": "datapruner.signals.store.shard_format"},
    "datapruner.selection.result": {"Scores": "datapruner.scores", "Selection": "datapruner.scores"},
    "datapruner.selection.budget": {
        "Budget": "datapruner.budget",
        "parse_amount": "datapruner.budget",
        "portions": "datapruner.selection.budget_rows",
        "encode_labels": "datapruner.samples.labels",
    },
    "datapruner.selection.explanation": {
        "Explanation": "datapruner.results.explanation",
        "Summary": "datapruner.results.summary",
    },
    "datapruner.comparison.plots": {"plot_overlap": "datapruner.comparison.pictures"},
    "datapruner.outputs.report.facets": {"Facet": "datapruner.outputs.facets"},
    "datapruner.outputs.report.words": {
        "percent": "datapruner.outputs.wording",
        "warning_words": "datapruner.outputs.warnings",
        "selection_words": "datapruner.outputs.report.summary",
        "comparison_words": "datapruner.outputs.report.contrasts",
    },
    "datapruner.options": {"Scoring": "datapruner.option_types"},
    "datapruner.outputs.scores": {
        "load_scores": "datapruner.scores",
        "save_scores": "datapruner.outputs.score_files",
    },
    "datapruner.explaining": {"explain_row": "datapruner.cli.explaining"},
    "datapruner.names": {"inspect": "datapruner.verbs", "missing": "datapruner.instead"},
    "datapruner.outputs.reading": {
        "SavedSelection": "datapruner.saved",
        "explain": "datapruner.verbs",
        "load": "datapruner.verbs",
        "load_selection": "datapruner.saved",
    },
    "datapruner.selection.cleaning": {
        "unanswered": "datapruner.cleaning.steps.no_answer",
    },
    "datapruner.selection.deduplication": {
        "exact_duplicates": "datapruner.cleaning.steps.exact",
        "near_duplicates": "datapruner.cleaning.steps.near",
        "semantic_duplicates": "datapruner.cleaning.steps.semantic",
    },
    "datapruner.selection.decontamination": {"contaminated": "datapruner.cleaning.steps.contaminated"},
    "datapruner.selection.telling": {"tell_drops": "datapruner.cleaning.telling"},
    "datapruner.selection.vetoes": {"Vetoes": "datapruner.cleaning.vetoes"},
    "datapruner.selection.pairs": {"Pair": "datapruner.cleaning.pairs"},
    "datapruner.selection.own_text": {"OwnText": "datapruner.cleaning.own_text"},
    "datapruner.selection.grams": {"hashed_ngrams": "datapruner.cleaning.grams"},
    "datapruner.selection.standing": {"Standing": "datapruner.results.standing"},
}


@pytest.mark.parametrize(
    ("old", "name", "new"), [(o, n, w) for o, held in MOVED.items() for n, w in held.items()]
)
def test_an_old_name_gives_the_same_thing_and_says_where_it_is(old, name, new):
    module = importlib.import_module(old)
    with pytest.warns(DeprecationWarning, match=f"{old}.{name} has moved to {new}.{name};"):
        held = getattr(module, name)
    assert held is getattr(importlib.import_module(new), name)


@pytest.mark.parametrize(
    ("old", "name", "new"),
    [
        ("datapruner.comparison.result", "AtBudget", "datapruner.comparison.compared"),
        ("datapruner.outputs.dataset", "push_to_hub", "datapruner.outputs.hub"),
        ("datapruner.results.explanation", "Summary", "datapruner.results.summary"),
        ("datapruner.saved", "load", "datapruner.verbs"),
        ("datapruner.saved", "explain", "datapruner.verbs"),
    ],
)
def test_a_name_that_left_its_file_is_still_found_there(old, name, new):
    with pytest.warns(DeprecationWarning, match=f"{old}.{name} has moved to {new}.{name};"):
        held = getattr(importlib.import_module(old), name)
    assert held is getattr(importlib.import_module(new), name)


@pytest.mark.parametrize("old", MOVED)
def test_what_never_was_there_is_not_found(old):
    with pytest.raises(AttributeError, match=f"module '{old}' has no attribute 'nothing'"):
        importlib.import_module(old).nothing  # noqa: B018


def test_the_table_names_modules_that_are_gone_and_places_that_are_there():
    for old, places in moved.MOVED.items():
        assert old in MOVED, "say in this file which names it had"
        assert not hasattr(importlib.import_module(old), "__file__")
        for place in places:
            importlib.import_module(place)


def test_a_module_that_never_was_is_still_missing():
    with pytest.raises(ModuleNotFoundError, match=r"datapruner\.signals\.nowhere"):
        importlib.import_module("datapruner.signals.nowhere")


def test_every_way_of_importing_an_old_name():
    program = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "from datapruner.outputs.scores import save_scores\n"
        "import datapruner.signals.ragged, datapruner.outputs.reading as reading\n"
        "from datapruner.selection import result\n"
        "from datapruner.ragged import Ragged\n"
        "assert datapruner.signals.ragged.Ragged is Ragged\n"
        "print(save_scores.__module__, reading.load.__module__, result.Scores.__module__)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["datapruner.outputs.score_files", "datapruner.verbs", "datapruner.scores"]
