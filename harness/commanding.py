"""What the commands share: errors in one line, the frameworks asked for, imported without noise."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console


@contextlib.contextmanager
def reported_errors() -> Iterator[None]:
    """A HarnessError as one line on stderr and its exit code; no traceback."""
    from harness.case import HarnessError

    try:
        yield
    except HarnessError as error:
        click.echo(f"gradparity: {error}", err=True)
        sys.exit(error.exit_code)


def chosen_frameworks(option: str | None) -> list[str]:
    """The named frameworks, or all installed ones; each must be known and installed."""
    import frameworks as registry
    from harness.checking import choose

    names = [name.strip() for name in option.split(",")] if option is not None else registry.installed()
    for name in names:
        registry.require(choose("framework", name, registry.FRAMEWORKS))
    return list(dict.fromkeys(names))


def import_quietly(names: list[str]) -> None:
    """Import adapters; TensorFlow's notes about the machine, written by C++ whatever the log level, are dropped unless
    the import fails. Their half a million objects stay: looking for garbage among them would cost a second here, and
    another later."""
    import frameworks as registry

    with tempfile.TemporaryFile() as log:
        kept = os.dup(2)
        os.dup2(log.fileno(), 2)
        gc.disable()
        try:
            for name in names:
                _ = registry.adapter(name)
        except BaseException:
            _ = log.seek(0)
            _ = os.write(kept, log.read())
            raise
        finally:
            gc.freeze()
            gc.enable()
            os.dup2(kept, 2)
            os.close(kept)


def check_page(page: Path | None) -> None:
    """Refuse a page whose directory is not there, before the work is done."""
    from harness.case import HarnessError

    if page and not page.parent.is_dir():
        raise HarnessError(f"--html {page}: there is no directory {page.parent}")


def loaded(place: str, hint: str) -> Any:
    """What MODULE:NAME names, called if it is a plain function; modules are looked for in the working directory too."""
    import importlib
    import inspect

    from harness.case import HarnessError

    module, _, name = place.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise HarnessError(f"{place}: {error}; {hint}") from error
    try:
        return found() if inspect.isfunction(found) else found
    except Exception as error:  # the user's own code
        raise HarnessError(f"{place}() raised {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def stderr_console() -> Iterator[Console]:
    """A console on a copy of stderr, so that it goes on while `import_quietly` holds the original."""
    from rich.console import Console

    with os.fdopen(os.dup(2), "w") as copy:
        yield Console(file=copy)
