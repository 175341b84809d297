"""What every engine promises, a check each."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from datapruner.engines.base import Engine, Worker, WorkerLostError
from datapruner.engines.local import Local
from datapruner.errors import DataPrunerError
from datapruner.measuring.arguments import requested
from datapruner.measuring.measure import measure
from datapruner.models.names import DEFAULT_TOKENIZER

ROWS = 80


def check_engine(engine: Engine, tokenizer: str | Path = DEFAULT_TOKENIZER) -> None:
    """Run every check of :data:`ENGINE_CHECKS` on an engine, which starts workers.

    Parameters
    ----------
    engine : Engine
        With at least two workers.
    tokenizer : str or Path
        What the workers count tokens by; the bundled one by default.

    Raises
    ------
    AssertionError
        A promise of the contract is broken; the message says which.
    DataPrunerError
        The engine cannot be reached.
    """
    for check in ENGINE_CHECKS.values():
        check(engine, tokenizer)


def engine_describes_itself(engine: Engine, tokenizer: str | Path = DEFAULT_TOKENIZER) -> None:
    """A name, options that build it again, and more than the run's own process."""
    del tokenizer
    assert engine.name.isidentifier(), f"the name '{engine.name}' is not a plain word"
    held = {spec.name: getattr(engine, spec.name) for spec in fields(engine)}
    assert type(engine)(**held) == engine, "the options do not build the engine again"
    assert not engine.alone, "it asks for no worker; check it with workers=2"


def engine_carries_messages(engine: Engine, tokenizer: str | Path = DEFAULT_TOKENIZER) -> None:
    """What is asked is answered by the worker's service, word for word, until the worker is ended."""
    del tokenizer
    with tempfile.TemporaryDirectory() as folder:
        assert engine.open(folder) >= 1, "there will be no worker"
        worker = engine.start(0, None)
        try:
            for version in ("0 ä 你", "1\u2028"):
                answer = json.loads(worker.ask(json.dumps({"job": {"version": version, "limits": {}}})))
                assert version in answer["error"], f"the service was asked something else: {answer['error']}"
            assert isinstance(worker.log(), str), "the log is no text"
        finally:
            worker.end()
            worker.end()
            lost = _is_lost(worker)
            engine.close()
        assert lost, "a worker answers that was ended"


def engine_changes_no_row(engine: Engine, tokenizer: str | Path = DEFAULT_TOKENIZER) -> None:
    """The workers' rows are those that the run itself computes, and it finds them where it looks for its own."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "rows.jsonl"
        texts = [f"row {number} " + "word " * (number % 17) for number in range(ROWS)]
        source.write_text("".join(json.dumps({"prompt": text, "completion": text}) + "\n" for text in texts))

        def measured(cache: str, by: Engine) -> Any:
            return measure(
                requested(
                    str(source),
                    scorers="length",
                    tokenizer=str(tokenizer),
                    cache=Path(folder) / cache,
                    engine=by,
                    progress=False,
                )
            )

        alone, found = measured("alone", Local()), measured("shared", engine)
        for name, values in alone.tokens.items():
            assert np.array_equal(values, found.tokens[name]), f"workers give another signal '{name}'"
        assert not found.store.made, f"the run computed {found.store.made} rows that its workers should have"


def _is_lost(worker: Worker) -> bool:
    try:
        worker.ask("{}")
    except WorkerLostError:
        return True
    except DataPrunerError:
        raise
    except Exception as error:
        raise AssertionError(
            f"a worker that is gone ends in {type(error).__name__}, not in WorkerLostError"
        ) from error
    return False


ENGINE_CHECKS: dict[str, Callable[[Engine, str | Path], None]] = {
    check.__name__: check
    for check in (engine_describes_itself, engine_carries_messages, engine_changes_no_row)
}
"""By name; each takes an engine, and a tokenizer's name."""
