"""The application: which verbs there are, each read when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from datapruner.cli import help_layout as told
from datapruner.cli.verb import Verb, settled

VERBS = {
    "Choose rows": "prune clean score select run",
    "Compare and look into": "compare damage validate",
    "Look": "explain inspect parts scorers cache doctor",
}
"""Where the help lists which verbs. A verb is a module here of its name, which holds a :class:`Verb` of that name."""


def verb_of(name: str) -> Verb:
    """Give a verb."""
    verb: Verb = getattr(importlib.import_module(f"datapruner.cli.{name}"), name)
    return verb


class Commands(Mapping[str, Any]):
    """typer's commands by name, each made when it is first asked for."""

    def __init__(self) -> None:
        self._names = [name for names in VERBS.values() for name in names.split()]

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(name)
        return verb_of(name).command

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Program(TyperGroup):
    """The verbs together."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = Commands()  # type: ignore[assignment]

    def get_params(self, ctx: Any) -> list[Any]:
        """Give the options."""
        return settled(super().get_params(ctx))

    def get_help(self, ctx: Any) -> str:
        """Give the help: the verbs, and what each does."""
        groups = {
            title: {name: verb_of(name).summary for name in names.split()} for title, names in VERBS.items()
        }
        options = [
            told.Row(", ".join(held.opts), "", getattr(held, "help", "") or "")
            for held in self.get_params(ctx)
            if held.param_type_name == "option"
        ]
        return told.of_all(ctx.command_path, self.help or "", groups, options)


app = typer.Typer(
    name="datapruner",
    cls=Program,
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
