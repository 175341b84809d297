"""A verb: the sections of options that it takes, and the function that carries it out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from inspect import Parameter, Signature, cleandoc, signature
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from datapruner.cli.beside_recipe import Words
from datapruner.cli.help_layout import of_verb
from datapruner.cli.parameters import fields_of, options_of, parameter
from datapruner.guards.limits import limited, parse_limits
from datapruner.recipe.option import declared
from datapruner.recipe.options import SECTIONS

if TYPE_CHECKING:
    from datapruner.recipe.option import Declared, Section

MOST = 20
"""Options that ``--help`` shows at most, itself among them; beyond that a verb says which are common."""


class Verb:
    """A verb of the command line.

    Parameters
    ----------
    function : callable
        Its docstring's first line is what it does; its parameters are the options that it reads itself, as written. As
        ``fields`` it gets all others, as fields of a recipe.
    sections : sequence of Section
        What it takes; an option of a later one replaces one of the same name.
    common : str
        The names of the options that ``--help`` shows, where not all are shown.
    instead : mapping, optional
        An option that other verbs have -> what to say of it.
    """

    def __init__(
        self,
        function: Callable[..., None],
        sections: tuple[type[Section], ...],
        common: str = "",
        instead: Mapping[str, str] | None = None,
    ) -> None:
        self.function, self.sections = function, sections
        self.common, self.instead = common.split(), dict(instead or {})
        self.name = function.__name__
        self.__doc__ = cleandoc(function.__doc__ or "")

    @property
    def summary(self) -> str:
        """What it does, in a line."""
        return (self.__doc__ or "").partition("\n")[0]

    @cached_property
    def options(self) -> dict[str, Declared]:
        """Its options by name."""
        return options_of(self.sections)

    @property
    def hidden(self) -> set[str]:
        """The names of the options that only ``--help-all`` shows."""
        return set(self.options) - set(self.common) if self.common else set()

    def help(self, path: str, *, everything: bool) -> str:
        """Give the help of all options, or of those that most people need; ``path`` are the words that call it."""
        return of_verb(path, self.__doc__ or "", self.options.values(), self.hidden, everything=everything)

    def __call__(self, **given: Any) -> None:
        """Carry it out with what was written."""
        limits = given.get("limits")
        own = signature(self.function).parameters
        mine = {name: given[name] for name in own if name != "fields"}
        if "fields" in own:
            mine["fields"] = self._fields(given)
        with limited(parse_limits(limits)):
            self.function(**mine)

    @cached_property
    def _words(self) -> list[type[Words]]:
        """The sections of what the command line writes in another way than the recipe holds it."""
        return [section for section in self.sections if issubclass(section, Words)]

    @cached_property
    def _of_recipe(self) -> dict[str, Any]:
        """The fields of a recipe that its options give as they are, and what each is where nothing is said."""
        in_words = {name for section in self._words for name in section.__annotations__}
        own = signature(self.function).parameters
        return {
            one.name: one.default
            for section in SECTIONS
            for one in declared(section)
            if one.name in self.options and one.name not in in_words and one.name not in own
        }

    def unsaid(self, name: str) -> bool:
        """Whether an option that nobody wrote is left to the recipe: the verb has no default of its own for it."""
        return name in self._of_recipe and self.options[name].default == self._of_recipe[name]

    def _fields(self, given: dict[str, Any]) -> dict[str, Any]:
        """Make fields of a recipe of what the verb does not read itself."""
        out = fields_of((self.options[name] for name in given if name in self._of_recipe), given)
        for section in self._words:
            out |= section.fields(given)
        return out

    @cached_property
    def command(self) -> TyperCommand:
        """What typer runs: made once, for whoever calls the command line from a process of his own."""
        parameters = [parameter(one) for one in self.options.values()]
        if self.hidden:
            parameters.append(
                Parameter("help_all", Parameter.KEYWORD_ONLY, default=False, annotation=HelpAll)
            )

        def run(**given: Any) -> None:
            self(**given)

        run.__name__, run.__doc__ = self.name, self.__doc__
        run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
        app.command(self.name, cls=Command)(run)
        command = typer.main.get_command(app)
        assert isinstance(command, Command)
        command.verb = self
        return command


def settled(parameters: list[Any]) -> list[Any]:
    """Give typer's own switches the default that they mean: with None, it loads pydantic to make a switch of it."""
    for held in parameters:
        if getattr(held, "is_flag", False) and held.default is None and not held.secondary_opts:
            held.default = False
    return parameters


class Command(TyperCommand):
    """A verb as typer's command, with our help."""

    verb: Verb

    def get_params(self, ctx: Any) -> list[Any]:
        """Give the options."""
        return settled(super().get_params(ctx))

    def invoke(self, ctx: Any) -> Any:
        """Carry the verb out; what nobody wrote is the recipe's to decide, which may have a better default by then."""
        for name in ctx.params:
            if self.verb.unsaid(name) and ctx.get_parameter_source(name).name == "DEFAULT":
                ctx.params[name] = None
        return super().invoke(ctx)

    def get_help(self, ctx: Any) -> str:
        """Give the help: of the common options."""
        return self.verb.help(ctx.command_path, everything=False)


def _show_all(ctx: typer.Context, given: bool) -> None:
    if given and not ctx.resilient_parsing:
        typer.echo(ctx.command.verb.help(ctx.command_path, everything=True))  # type: ignore[attr-defined]
        raise typer.Exit


HelpAll = Annotated[
    bool,
    typer.Option(
        "--help-all", is_eager=True, expose_value=False, callback=_show_all, help="Show all options."
    ),
]


def verb(
    *sections: type[Section], common: str = "", instead: Mapping[str, str] | None = None
) -> Callable[[Callable[..., None]], Verb]:
    """Make a function a verb; see :class:`Verb`."""
    return lambda function: Verb(function, sections, common, instead)
