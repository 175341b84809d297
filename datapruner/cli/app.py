"""The application, and how its help sorts options."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperCommand

PANELS = {
    "What is kept": "keep keep_tokens per_group quota selector selector_set always_keep never_keep seed",
    "Scorers": "scorer set_ n_clusters combine combine_within by examples",
    "Stability": "stability seeds noise embedders second_embeddings",
    "Cleaning alone": "pairs",
    "How rows are read": "split columns layout on_empty last_turn_only max_length tokenizer count_tokens",
    "Cleaning, before anything is scored": "dedup dedup_semantic match near_threshold near_ngram "
    "near_numbers semantic_eps decontaminate decontaminate_split decontaminate_columns decontaminate_ngram "
    "decontaminate_share",
    "Embeddings": "embedder embed similarity_context pooling embedder_max_length embeddings embedding_column manifold "
    "manifold_dimensions n_neighbors",
    "Language model": "model adapter dtype device device_map quantize packing batch_tokens",
    "Pruned model (paser, damage)": "pruned_model twins divergences trust_code",
    "Target set (feature_mapping, label_mapping)": "target target_split target_columns target_embeddings",
    "Result": "out format overwrite report push_to_hub quiet limit help",
}
"""Where the help of a verb with many options shows which of them, by the parameters' names."""


class Panels(TyperCommand):
    """A command whose help sorts its options."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write them under their titles."""
        place = {name: title for title, names in PANELS.items() for name in names.split()}
        found: dict[str, list[tuple[str, str]]] = {title: [] for title in ("Arguments", *PANELS, "Other")}
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                argument = parameter.param_type_name == "argument"
                found["Arguments" if argument else place.get(parameter.name or "", "Other")].append(record)
        for title, records in found.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


app = typer.Typer(
    name="datapruner",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Prune and curate datasets for fine-tuning language models, with a reason for every row."""
    if version:
        from datapruner.version import __version__

        typer.echo(f"datapruner {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())
