"""What words of the command line mean: names, amounts, pairs, values."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from datapruner.errors import DataPrunerError

if TYPE_CHECKING:
    from datapruner.cleaning.step import CleaningStep
    from datapruner.scorers.base import Scorer
    from datapruner.selection.selectors import Selector


def named(names: list[str], settings: list[str], *, combined: bool) -> list[str]:
    """Put the built-in scorers in the place of `all`, and plug-ins that --set names, so that it finds them."""
    if "all" not in names:
        return names
    # What compares is loaded where all are meant, by no other run.
    from datapruner.comparison.scorers import UNRANKED
    from datapruner.parts import SCORERS, available, built_in

    if combined:
        raise DataPrunerError("--combine joins the scorers that are named; name them instead of `all`")
    spoken_of = {setting.partition("=")[0].partition(".")[0] for setting in settings}
    here = {*built_in(SCORERS), *spoken_of} - {UNRANKED}
    every = [name for name in available(SCORERS) if name in here]
    return list(dict.fromkeys([*(name for name in names if name != "all"), *every]))


def combined(
    scorers: list[Scorer], by: str | None, within: str | None, n_clusters: int | None
) -> list[Scorer]:
    """Join scorers into one where that is asked for."""
    from datapruner.measuring.arguments import described
    from datapruner.scorers import make_scorer

    if by is None:
        if within is not None:
            raise DataPrunerError("--combine-within needs --combine: say how the scorers are joined")
        return scorers
    held = [described(scorer) for scorer in scorers]
    parameters: dict[str, Any] = {
        "scorers": [method.model_dump() if method.parameters else method.name for method in held],
        "by": by,
        "within": within,
    }
    if within == "cluster" and n_clusters is not None:
        parameters["n_clusters"] = n_clusters
    return [make_scorer("combined", parameters)]


def scorers_of(
    names: list[str], settings: list[str], n_clusters: int | None, *, clustering: bool = False
) -> list[Scorer]:
    """Make the scorers with the parameters that words set: refused now, not after a model has run."""
    from dataclasses import fields

    from datapruner.scorers import make_scorer, scorer_class

    out: dict[str, dict[str, Any]] = {name: {} for name in names}
    if len(out) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataPrunerError(f"the scorer '{twice}' is named twice; name every scorer once")
    _set(out, settings, "--set", "scorer")
    if n_clusters is not None:
        takers = [
            name for name in names if "n_clusters" in {spec.name for spec in fields(scorer_class(name))}
        ]
        if not takers and not clustering:
            raise DataPrunerError(f"--n-clusters is for scorers that cluster; {', '.join(names)} does not")
        refused = []
        for name in takers:
            try:  # of several, those that do not cluster as they are set go without
                make_scorer(name, {"n_clusters": n_clusters, **out[name]})
                out[name].setdefault("n_clusters", n_clusters)
            except DataPrunerError as error:
                refused.append(error)
        if refused and len(refused) == len(takers):
            raise refused[0]
    return [make_scorer(name, parameters) for name, parameters in out.items()]


def steps_of(names: list[str], settings: list[str]) -> list[CleaningStep]:
    """Make cleaning steps with the parameters that words set: refused now, not after the rows were read."""
    from datapruner.cleaning.stage import make_step

    out: dict[str, dict[str, Any]] = {name: {} for name in names}
    if len(out) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataPrunerError(f"the cleaning step '{twice}' is named twice")
    _set(out, settings, "--cleaning-set", "cleaning step")
    return [make_step(name, parameters) for name, parameters in out.items()]


def _set(out: dict[str, dict[str, Any]], settings: list[str], option: str, noun: str) -> None:
    """Set parameters of parts by ``[part.]name=value``."""
    for setting in settings:
        key, value = pair_of(setting, option)
        part, dot, parameter = key.partition(".")
        if not dot:
            if len(out) != 1:
                word = noun.rsplit(maxsplit=1)[-1].upper()
                raise DataPrunerError(f"say whose parameter it is: {option} {word}.{key}={value}")
            (part,), parameter = out, key
        if part not in out:
            raise DataPrunerError(f"{option} {setting}: the {noun} '{part}' is not in this run")
        out[part][parameter] = value_of(value)


def selector_of(name: str | None, settings: list[str] | None) -> Selector | None:
    """Make the selector with the parameters that words set."""
    from datapruner.selection.selectors import make_selector

    if name is None:
        if settings:
            raise DataPrunerError("--selector-set needs --selector")
        return None
    parameters = {
        key: value_of(value) for key, value in (pair_of(s, "--selector-set") for s in settings or [])
    }
    return make_selector(name, parameters)


def quotas_of(given: list[str], option: str) -> dict[str, float | int]:
    """Read ``GROUP=AMOUNT``."""
    from datapruner.budget import parse_amount

    pairs = (pair_of(one, option) for one in given)
    return {key: parse_amount(value, f"{option} {key}") for key, value in pairs}


def amount_of(text: str, option: str) -> float | int:
    """Read a fraction or a number of rows."""
    from datapruner.budget import parse_amount

    return parse_amount(text, option)


def mapping_of(text: str, option: str) -> dict[str, str] | None:
    """Read ``role=column,...``."""
    from datapruner.samples import parse_mapping

    del option
    return parse_mapping(text) if text else None


def one_or_of_tasks(given: list[str], option: str) -> str | dict[str, str]:
    """Read one text for all tasks, or ``task=text`` for each."""
    apart = [one.partition("=") for one in given]
    if not any(equals for _, equals, _ in apart):
        if len(given) > 1:
            raise DataPrunerError(
                f"{option} is given twice; say for which task each is: {option} TASK={given[-1]}"
            )
        return given[0]
    return dict(_of_task(name, text, equals, option) for name, equals, text in apart)


def columns_of_tasks(given: list[str], option: str) -> dict[str, str | dict[str, str]] | None:
    """Read ``role=column,...`` for all tasks, or ``task:role=column,...`` for each."""
    from datapruner.samples import parse_mapping

    out: dict[str, str | dict[str, str]] = {}
    for one in given:
        task, colon, rest = one.partition(":")
        if colon and "=" not in task and "," not in task:
            out[task] = parse_mapping(rest)
        elif one:
            out.update(parse_mapping(one))
    return out or None


def shares_of(given: list[str], option: str) -> dict[str, float]:
    """Read ``task=share``."""
    out = {}
    for name, value in (pair_of(one, option) for one in given):
        try:
            out[name] = float(value)
        except ValueError:
            raise DataPrunerError(
                f"{option} takes a number beside a name, such as math=0.3, not '{value}'"
            ) from None
    return out


def _of_task(name: str, text: str, equals: str, option: str) -> tuple[str, str]:
    if not equals or not name or not text:
        raise DataPrunerError(f"{option}: say for which task each is, as in {option} TASK={text or name}")
    return name, text


def numbers_of(text: str, option: str) -> list[float]:
    """Read numbers between commas."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise DataPrunerError(f"{option} takes numbers such as 0.25,0.5,1, not '{text}'") from None


def pair_of(text: str, option: str) -> tuple[str, str]:
    """Read ``name=value``."""
    key, equals, value = text.rpartition("=")
    if not equals or not key:
        raise DataPrunerError(f"{option} takes name=value, not '{text}'")
    return key, value


def value_of(text: str) -> Any:
    """Read a value as JSON does, and what is no JSON as text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
    except (ValueError, RecursionError):
        from datapruner.text import safe_text

        raise DataPrunerError(
            f"'{safe_text(text, 40)}' has more digits, or is nested deeper, than is read"
        ) from None
