"""Commands: what a user can cause is one line on stderr, and no traceback."""

import io
import sys
from collections.abc import Callable

import typer

from .metrics.features import MissingWeights
from .priors.network import out_of_memory

FEWER = "not enough memory; take fewer seeds, or a smaller size"


def run(command: Callable[[], None], name: str) -> None:
    """Run a command, and end with status 2 and one line after `name` for what a user can cause.
    Anything else is a fault of the library, and keeps its traceback.
    """
    for stream in (sys.stdout, sys.stderr):  # a console that lacks a letter stops nothing
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        command()
    except (ValueError, OSError, MemoryError, RuntimeError) as error:
        why, known = " ".join(str(error).split()), not isinstance(error, RuntimeError)
        if not known and out_of_memory(error):
            why, known = f"{FEWER} ({why[:200]})", True
        if not known and not isinstance(error, MissingWeights):
            raise
        typer.echo(f"{name}: {why or FEWER}", err=True)
        raise SystemExit(2) from None


def run_module(function: Callable[..., None]) -> None:
    """Run a function as the command of the module that was started by `python -m`, its parameters
    as typer reads them.
    """
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(function)
    run(app, f"python -m {sys.modules['__main__'].__spec__.name}")
