"""The way in: one sentence and an exit code for whatever ends a command."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import typer

from datapruner.arguments import instead_of
from datapruner.cli.app import app
from datapruner.cli.terminal import is_styled
from datapruner.errors import DataPrunerError, flags, in_words

# The base of what typer says of a command line; the click package's own or typer's copy of it, by version.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]
INTERRUPTED = 130
PIPE_CLOSED = 141


def main() -> None:
    """Run the command line: one sentence and exit code 2 for whatever the user can put right."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    # One bar for the one long pass is ours; the libraries' own for loading weights and writing files are noise.
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    _open_closed()
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
        sys.stderr.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    if len(sys.argv) > 2 and not {"--help", "--help-all"}.intersection(sys.argv):
        _make_warnings_harmless()
    told: list[int] = []
    try:
        with flags(), _terminated(told):
            code = app(prog_name="datapruner", standalone_mode=False)
    except DataPrunerError as error:
        with flags():
            _quit(str(error), 2)
    except UsageError as error:
        _quit(usage(error), 2)
    except typer.Abort as error:
        if isinstance(error.__cause__, EOFError):  # typer takes it for a terminal's Ctrl-D
            _quit(f"something that is read ends too early ({error.__cause__}); get it anew", 2)
        code = INTERRUPTED
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        os._exit(PIPE_CLOSED)
    except SystemExit as error:  # which is how typer tells of a closed pipe
        if isinstance(error.__context__, BrokenPipeError):
            os._exit(PIPE_CLOSED)
        raise
    except MemoryError as error:
        _quit(out_of_memory(error), 2)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO, errno.EDQUOT) or error.filename is not None:
            raise
        _quit(f"what is shown cannot be written: {error.strerror}", 2)
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # what a library in Rust gives up with
            raise
        _quit(f"a library gave up on a file or a row ({error}); is the model's or the tokenizer's whole?", 2)
    if code == INTERRUPTED:  # which is how later versions of typer tell of Ctrl-C
        how = "terminated" if told and told[0] != signal.SIGINT else "interrupted"
        code = 128 + told[0] if told else INTERRUPTED
        _quit(f"{how}; what was computed so far is kept and the same command goes on from there", code)
    sys.exit(code)


def _open_closed() -> None:
    """Open what was closed before the start (``>&-``) on nothing, or the next file that is opened gets its output."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, os.O_RDWR)
            if handle != number:
                os.dup2(handle, number)
                os.close(handle)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))


def _make_warnings_harmless() -> None:
    """Write what is warned of, by us and by libraries, without what a terminal would act on."""
    import logging

    from datapruner.text import safe_lines

    class Harmless(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return safe_lines(super().format(record))

    if logging.lastResort is not None:
        logging.lastResort.setFormatter(Harmless())


@contextmanager
def _terminated(told: list[int]) -> Iterator[None]:
    """Let SIGTERM, and SIGHUP where it is not ignored, end a run as Ctrl-C does; a second one ends it at once.

    So does a second Ctrl-C, which would otherwise show where in the clearing up it came.
    """
    owner = os.getpid()

    def stop(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        if os.getpid() != owner:  # a forked child
            os.kill(os.getpid(), number)
            return
        told.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        for number, was in before.items():
            if was is not signal.SIG_IGN:  # nohup, and what a shell starts in the background
                signal.signal(number, stop)
        yield
    finally:
        for number, was in before.items():
            if number not in told:
                signal.signal(number, was)


def out_of_memory(error: MemoryError) -> str:
    """Say that memory ran out, what for where that is known, and what takes less."""
    found = re.match(r"Unable to allocate (\S+ \S+) for", str(error))  # numpy's words
    asked = f" ({found[1]} more were asked for)" if found else ""
    return (
        f"there is not enough memory{asked}; what was measured so far is kept. Use a machine with more, fewer rows, or "
        "a smaller --batch-tokens or --max-length where a model was running"
    )


def usage(error: Any) -> str:
    """Give what is wrong with a command line, and where to read on."""
    if error.ctx is None:
        return str(error.format_message())
    unknown = getattr(error, "option_name", None)
    if type(error).__name__ == "NoSuchOption" and unknown:
        sentence = _unknown(unknown, error.ctx)
    else:
        sentence = error.format_message().rstrip(".")
    where = f"see `{error.ctx.command_path} --help`"
    return f"{sentence} S{where[1:]}" if sentence.endswith("?") else f"{sentence}; {where}"


def _unknown(name: str, context: Any) -> str:
    """Name an option that is not there, and the one that may be meant."""
    verb = getattr(context.command, "verb", None)
    if verb is not None and (told := verb.instead.get(name.lstrip("-"))) is not None:
        return str(told)
    opts = [opt for held in context.command.get_params(context) for opt in held.opts if opt.startswith("--")]
    known = {opt[2:].replace("-", "_"): opt for opt in opts}
    with flags():
        told = in_words(instead_of(name.lstrip("-").replace("-", "_"), known))
    for plain, opt in known.items():
        told = told.replace(f"'{plain}'", f"'{opt}'")
    return f"there is no option {name}{told}"


def _quit(sentence: str, code: int) -> None:
    from datapruner.text import safe_text

    with suppress(OSError):
        name = typer.style("datapruner:", fg="red", bold=True) if is_styled(sys.stderr) else "datapruner:"
        sys.stderr.write(f"{name} {safe_text(sentence)}\n")
        sys.stderr.flush()
    sys.exit(code)
