"""What a run measures: the fewest measurements that give what its readers want, each after those it needs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from datapruner.errors import DataPrunerError
from datapruner.parts import MEASUREMENTS, available, built_in, find_class
from datapruner.signals import COLUMN
from datapruner.signals.measurement import LANGUAGE_MODEL, Given, Measurement, Readers
from datapruner.signals.run import TOKENS_A_ROW
from datapruner.text import did_you_mean, safe_text

if TYPE_CHECKING:
    from datapruner.recipe import Recipe

logger = logging.getLogger(__name__)

SUPERVISED = "num_supervised_tokens"
TOKENS = frozenset({"num_tokens", SUPERVISED})
"""What a budget in tokens counts by."""


class Step(NamedTuple):
    """A measurement of a run, and those of its signals that somebody reads."""

    measurement: Measurement
    wanted: frozenset[str]


@dataclass(frozen=True)
class Plan:
    """The measurements of a run in their order.

    Attributes
    ----------
    steps : tuple of Step
    first : int
        So many of them come before the cleaning steps that read signals; the others after.
    required : frozenset of str
        What somebody cannot do without; other signals are left out where the rows have none.
    """

    steps: tuple[Step, ...]
    first: int = 0
    required: frozenset[str] = frozenset()

    @property
    def counting(self) -> list[Step]:
        """What counts tokens."""
        return [step for step in self.steps if step.wanted & TOKENS]

    @property
    def wanted(self) -> frozenset[str]:
        """All signals that somebody reads."""
        return frozenset().union(*(step.wanted for step in self.steps))

    @property
    def of_text(self) -> frozenset[str]:
        """Those that rows without text have not."""
        return frozenset().union(*(step.wanted for step in self.steps if step.measurement.reads_text))

    @property
    def columns(self) -> list[str]:
        """The dataset's columns among them."""
        return sorted(signal.removeprefix(COLUMN) for signal in self.wanted if signal.startswith(COLUMN))

    @property
    def names(self) -> list[str]:
        """The measurements' names, in their order."""
        return [step.measurement.name for step in self.steps]

    def models(self, recipe: Recipe) -> set[str]:
        """Give the kinds of models that read the rows."""
        return {kind for step in self.steps if (kind := step.measurement.model(recipe)) is not None}

    def feeds(self, recipe: Recipe) -> bool:
        """Whether a language model reads the rows."""
        return LANGUAGE_MODEL in self.models(recipe)


def measurements() -> Iterator[Measurement]:
    """Give all built-in measurements, by their names."""
    for name in built_in(MEASUREMENTS):
        yield find_class(MEASUREMENTS, name, Measurement)()


def plugged(beside: Sequence[Measurement]) -> Iterator[Measurement]:
    """Give the measurements that plug-ins bring, by their names; one that cannot be used is left out and told.

    Raises
    ------
    DataPrunerError
        One gives a signal that a built-in one gives.
    """
    for name in sorted(available(MEASUREMENTS).keys() - set(built_in(MEASUREMENTS))):
        try:
            one: Measurement = find_class(MEASUREMENTS, name, Measurement)()
        except DataPrunerError as error:  # whoever needs it is told that nobody gives the signal
            logger.warning("%s; this run does without it", error)
            continue
        for given in one.gives:
            if any(other.given(given.name) is not None for other in beside):
                raise DataPrunerError(
                    f"the measurement '{safe_text(name, 60)}' gives a signal '{safe_text(given.name, 60)}', which is "
                    "built in; it needs another name"
                )
        yield one


def known_signals() -> dict[str, Given]:
    """Give the signals that there are, by name: the built-in ones, and then those of plug-ins."""
    own, out = list(measurements()), dict[str, Given]()
    for one in (*own, *plugged(own)):
        for given in one.gives:
            out.setdefault(given.name, given)
    return out


def readers_of(scorers: Iterable[Any], *, in_tokens: bool = False) -> Readers:
    """Tell what scorers read, and a budget in tokens, by what each is called in a sentence."""
    readers = {f"the scorer '{scorer.name}'": frozenset(scorer.requires) for scorer in scorers}
    return {**readers, "the budget": TOKENS} if in_tokens else readers


def without_unread(recipe: Recipe, signals: frozenset[str]) -> Recipe:
    """Give a recipe without the options of measurements that none of these signals needs."""
    unread = _unread(list(measurements()), signals)
    in_memory = [name for name in recipe.in_memory if name not in unread]
    fields = type(recipe).model_fields
    defaults = {name: fields[name].get_default(call_default_factory=True) for name in unread}
    return recipe.model_copy(update={**defaults, "in_memory": in_memory})


def _unread(able: Sequence[Measurement], signals: frozenset[str]) -> dict[str, Measurement]:
    """Give the options of measurements that nobody makes use of who reads these signals, and whose they are."""
    read = {option for one in able if one.reads(signals) for option in one.options}
    # Of several measurements, the first.
    return {option: one for one in reversed(able) for option in one.options if option not in read}


def _refuse_unread(recipe: Recipe, able: Sequence[Measurement], signals: frozenset[str]) -> None:
    """Refuse what was given for measurements that will not run."""
    fields = type(recipe).model_fields
    for option, one in sorted(_unread(able, signals).items()):
        if getattr(recipe, option) != fields[option].get_default(call_default_factory=True):
            raise DataPrunerError(
                f"--{option.replace('_', '-')} is given, and nothing in this run reads it: it is of the signal "
                f"{one.gives[0].name}; leave it out, or take a scorer that reads that"
            )


def make_plan(recipe: Recipe, readers: Readers, *, cleaning: Readers | None = None) -> Plan:
    """Work out what is measured for everybody who reads signals.

    Where several measurements give a signal, one that runs anyway gives it, and else the cheapest: so the pass of two
    models serves the losses of the first.

    Parameters
    ----------
    recipe : Recipe
    readers : mapping
        Who reads signals, such as ``the scorer 'd2'`` -> which.
    cleaning : mapping, optional
        The same of the cleaning steps that read signals: these are measured first.

    Raises
    ------
    DataPrunerError
        A signal that no measurement gives is needed, measurements need each other in a circle, or one cannot be made
        with this recipe.
    """
    cleaning = cleaning or {}
    everybody = {**readers, **cleaning}
    required = frozenset().union(*everybody.values())
    able = _able(everybody)
    givers = _givers(recipe, required, able)
    fed = any(one.model(recipe) == LANGUAGE_MODEL for one in givers.values())
    who_reads = everybody
    if recipe.count_tokens or (fed and recipe.tokenizer is None):  # whoever feeds a model has counted them
        who_reads = {**everybody, "counting tokens": TOKENS}
        givers = _givers(recipe, required | TOKENS, able)
    who_reads = {who: _with_needs(needs, givers) for who, needs in who_reads.items()}
    for one in sorted(able, key=lambda one: -_price(one)):
        one.check(recipe, _readers_of_one(one, who_reads))
    _refuse_unread(recipe, able, frozenset().union(*who_reads.values()))
    wanted: dict[str, set[str]] = {}
    for signal, giver in givers.items():
        wanted.setdefault(giver.name, set()).add(signal)
    reading = frozenset().union(*(who_reads[who] for who in cleaning))
    early = frozenset(givers[signal].name for signal in reading)
    order = in_order({giver.name: giver for giver in givers.values()}, givers, early)
    return Plan(tuple(Step(one, frozenset(wanted[one.name])) for one in order), len(early), required)


def in_order(
    chosen: Mapping[str, Measurement], givers: Mapping[str, Measurement], first: frozenset[str] = frozenset()
) -> list[Measurement]:
    """Sort measurements so that each comes after those it needs; of those that may come next the cheapest.

    Parameters
    ----------
    chosen : mapping
        By name.
    givers : mapping
        Signal -> the measurement that gives it.
    first : frozenset of str
        Names that come before all others; what these need is among them.

    Raises
    ------
    DataPrunerError
        Some need each other in a circle.
    """
    after = {name: {givers[need].name for need in one.needs} for name, one in chosen.items()}
    order: list[Measurement] = []
    done: set[str] = set()
    while len(done) < len(chosen):
        ready = [one for name, one in chosen.items() if name not in done and after[name] <= done]
        if not ready:
            left = ", ".join(safe_text(name, 60) for name in sorted(chosen.keys() - done))
            raise DataPrunerError(f"measurements need each other in a circle: {left}")
        one = min(ready, key=lambda one: (one.name not in first, _price(one), one.name))
        order.append(one)
        done.add(one.name)
    return order


def _able(everybody: Readers) -> list[Measurement]:
    """Give the measurements that there are: the plug-ins' too where the built-in ones do not give all signals."""
    able = list(measurements())
    more: list[Measurement] | None = None
    asked = [(who, need) for who, needs in everybody.items() for need in sorted(needs)]
    seen: set[str] = set()
    for who, need in asked:  # grows while it is gone through
        if need in seen:
            continue
        seen.add(need)
        if more is None and not any(one.given(need) for one in able):
            more = list(plugged(able))
            able += more
        giving = [one for one in able if one.given(need)]
        if not giving:
            names = list(dict.fromkeys(given.name for one in able for given in one.gives))
            raise DataPrunerError(
                f"{who} needs a signal '{safe_text(need, 60)}'; there are "
                f"{', '.join(safe_text(name, 60) for name in names)}.{did_you_mean(need, names)}"
            )
        asked += [(f"the measurement '{one.name}'", of) for one in giving for of in sorted(one.needs)]
    return able


def _givers(recipe: Recipe, signals: frozenset[str], able: Sequence[Measurement]) -> dict[str, Measurement]:
    """Choose who gives each signal, those included that measurements need themselves."""
    givers: dict[str, Measurement] = {}
    waiting = sorted(signals)

    def give(signal: str, one: Measurement) -> None:
        givers[signal] = one
        waiting.extend(sorted(one.needs - givers.keys() - set(waiting)))

    while waiting:
        choice = {signal: _who_can(recipe, signal, able) for signal in waiting}
        running = {giver.name for giver in givers.values()}
        # Those without a choice first, since they may serve the others too.
        signal = next(
            (signal for signal in waiting if len(choice[signal]) == 1),
            next((s for s in waiting if any(one.name in running for one in choice[s])), waiting[0]),
        )
        waiting.remove(signal)
        runs = [one for one in choice[signal] if one.name in running]
        give(signal, min(runs or choice[signal], key=lambda one: (_price(one), one.name)))
    return givers


def _who_can(recipe: Recipe, signal: str, able: Sequence[Measurement]) -> list[Measurement]:
    giving = [one for one in able if one.given(signal) is not None]
    return [one for one in giving if one.applies(recipe)] or giving[:1]  # whose check says what is missing


def _with_needs(signals: frozenset[str], givers: Mapping[str, Measurement]) -> frozenset[str]:
    """Give signals, and those that measuring them takes."""
    found, waiting = set(signals), list(signals)
    while waiting:
        more = givers[waiting.pop()].needs - found
        found |= more
        waiting += more
    return frozenset(found)


def _readers_of_one(one: Measurement, who_reads: Readers) -> Readers:
    """Tell who reads a measurement's signals, and which."""
    reading = {who: frozenset(filter(one.given, needs)) for who, needs in who_reads.items()}
    return {who: needs for who, needs in reading.items() if needs}


def _price(one: Measurement) -> float:
    return one.cost.seconds * (TOKENS_A_ROW if one.cost.of == "token" else 1)
