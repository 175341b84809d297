"""Options of the command line that are no field of a recipe, or that write one in words of their own."""

# No `from __future__ import annotations`: what is said of an option is read from its annotation.

from pathlib import Path
from typing import Annotated, Any, Literal

from datapruner.choices import AutoPart
from datapruner.cli import words
from datapruner.cli.parameters import picked
from datapruner.errors import DataPrunerError
from datapruner.recipe.model_options import (
    Embedding,
    Judges,
    LanguageModel,
    PrunedModel,
    ReferenceModel,
    Sketches,
)
from datapruner.recipe.option import Option, Section
from datapruner.recipe.options import (
    DEFAULT_SCORER,
    Cleaning,
    Lists,
    Rows,
    Running,
    Source,
    Target,
)


class Words(Section):
    """Options that a verb turns into fields of a recipe together."""

    @staticmethod
    def fields(given: dict[str, Any]) -> dict[str, Any]:
        """Turn what was given into fields of a recipe."""
        raise NotImplementedError


class Sources(Words):
    """How rows are read."""

    source_name: Annotated[
        list[str] | None,
        Option(
            "What a source is called in the column of sources, once for each in their order; default: as its file is.",
            metavar="NAME",
        ),
    ] = None

    @staticmethod
    def fields(given: dict[str, Any]) -> dict[str, Any]:
        """Give the one source, or several by their names."""
        from datapruner.samples.origins import named_sources

        listed = given["source"]
        names = given["source_name"] or []
        return {
            "source": listed[0] if len(listed) == 1 and not names else named_sources(listed, names, sure=True)
        }


class Scorers(Words):
    """Scorers."""

    scorer: Annotated[
        list[str],
        Option(
            "Scorer's name; see `datapruner scorers`. None named: the default recipe, which cleans first.",
            metavar="NAME",
            complete="scorers",
        ),
    ] = []  # noqa: RUF012 - typer copies it
    without: Annotated[
        list[AutoPart] | None,
        Option(
            "Leave a part of the default recipe out: leaks, copies, rules, noise or shares; may be repeated. With a "
            "scorer, that one chooses, after the cleaning of the default recipe.",
            metavar="PART",
        ),
    ] = None
    set_: Annotated[
        list[str] | None,
        Option("Parameter of a scorer: [scorer.]name=value.", "--set", metavar="NAME=VALUE"),
    ] = None
    n_clusters: Annotated[int | None, Option("Number of clusters, for the scorers that cluster.")] = None
    combine: Annotated[
        Literal["worst_rank", "mean_rank", "topsis"] | None,
        Option("Join the scorers into one: worst_rank, mean_rank or topsis.", metavar="HOW"),
    ] = None
    combine_within: Annotated[
        str | None,
        Option(
            "Rank inside the groups of this column, or of `cluster`s of the embeddings.", metavar="COLUMN"
        ),
    ] = None

    @staticmethod
    def fields(given: dict[str, Any]) -> dict[str, Any]:
        """Give the scorers with their parameters, joined where that is asked for; None where there are none."""
        by, within, clusters = given["combine"], given["combine_within"], given["n_clusters"]
        names, settings, without = given["scorer"], given["set_"] or [], given["without"]
        if not names and by is None and within is None:
            if not settings and clusters is None:
                return {"scorers": None, "without": without}
            # Parameters of what the default recipe chooses by.
            if "shares" in (without or []):
                raise DataPrunerError(
                    "--set and --n-clusters say how --without=shares is to share; give one of them"
                )
            names, without = [DEFAULT_SCORER], without or []
        made = words.scorers_of(
            words.named(names, settings, combined=by is not None),
            settings,
            clusters,
            clustering=within == "cluster",
        )
        return {"scorers": words.combined(made, by, within, clusters), "without": without}


class Selector(Words):
    """What is kept."""

    selector: Annotated[
        str | None,
        Option(
            "How rows are taken; default: as the method was published.", metavar="NAME", complete="selectors"
        ),
    ] = None
    selector_set: Annotated[
        list[str] | None, Option("Parameter of the selector: name=value.", metavar="NAME=VALUE")
    ] = None

    @staticmethod
    def fields(given: dict[str, Any]) -> dict[str, Any]:
        """Give the selector with its parameters."""
        return {"selector": words.selector_of(given["selector"], given["selector_set"])}


class Duplicates(Words):
    """Cleaning, before anything is scored."""

    dedup: Annotated[
        bool | None, Option("Drop exact and near duplicates; the default recipe does unless told not to.")
    ] = None
    dedup_semantic: Annotated[bool, Option("Drop semantic duplicates too (SemDeDup).")] = False

    @staticmethod
    def fields(given: dict[str, Any]) -> dict[str, Any]:
        """Name the kinds of duplicates that are dropped; nothing where nothing was said of them."""
        dedup, semantic = given["dedup"], given["dedup_semantic"]
        if dedup is None and not semantic:
            return {}
        return {"dedup": ["exact", "near"] * bool(dedup) + ["semantic"] * semantic}


class Steps(Words):
    """Cleaning, before anything is scored."""

    cleaning: Annotated[
        list[str] | None,
        Option(
            "A plug-in's cleaning step; see `datapruner parts cleaning`.", metavar="NAME", complete="cleaning"
        ),
    ] = None
    cleaning_set: Annotated[
        list[str] | None, Option("Parameter of such a step: [step.]name=value.", metavar="NAME=VALUE")
    ] = None

    @staticmethod
    def fields(given: dict[str, Any]) -> dict[str, Any]:
        """Give the steps with their parameters."""
        return {"cleaning": words.steps_of(given["cleaning"] or [], given["cleaning_set"] or [])}


class Folder(Section):
    """Result."""

    out: Annotated[
        Path,
        Option("Folder that is written, whole or not at all.", "--out -o", metavar="FOLDER"),
    ]
    overwrite: Annotated[bool, Option("Replace an earlier result of datapruner.")] = False


class Report(Section):
    """Result."""

    report: Annotated[bool, Option("Write report.html too: one page to look at.")] = False


class Ahead(Section):
    """How it runs."""

    dry_run: Annotated[
        bool,
        Option(
            "Say what would be measured, what of it is stored and how long it takes; run no model, write nothing."
        ),
    ] = False


class OfParts(Section):
    """How it runs."""

    shard: Annotated[
        str | None,
        Option(
            "Measure a part of the rows into the store, such as 2/8, and end: a task of an array of them. The same "
            "command without it, run last, finds all rows.",
            metavar="I/N",
        ),
    ] = None


class Saying(Section):
    """How it runs."""

    quiet: Annotated[bool, Option("No progress, no summary.", "--quiet -q")] = False


class Hub(Section):
    """Result."""

    push_to_hub: Annotated[
        str | None, Option("Upload the result to this dataset repository.", metavar="REPOSITORY")
    ] = None


class Engines(Running, Words):
    """How it runs."""

    __annotations__ = {
        name: Running.__annotations__[name] for name in ("engine", "workers", "ray_address", "num_gpus")
    }

    @staticmethod
    def fields(given: dict[str, Any]) -> dict[str, Any]:
        """Give what decides who measures; nothing of it goes into a recipe."""
        return {name: given[name] for name in Engines.__annotations__}


LIMITS = picked(Running, "limits")
RUNNING = (Ahead, Saying, Engines, picked(Running, "cache trust_code limits"))
CLEANING = (Duplicates, Cleaning, Steps)
READING = (
    Source,
    Sources,
    Rows,
    *CLEANING,
    Embedding,
    LanguageModel,
    PrunedModel,
    ReferenceModel,
    Judges,
    Sketches,
)
"""What every verb takes that measures rows."""
RANKING = (Lists, Scorers, *READING, Target)
"""And every one that ranks them."""
