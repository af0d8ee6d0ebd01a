"""The command `gradparity check`: custom gradients."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from harness.case import HarnessError
from harness.commanding import chosen_frameworks, import_quietly, reported_errors


@click.command()
@click.argument("function", metavar="MODULE:FUNCTION")
@click.option("--shapes", required=True, help="Of the inputs, drawn from a normal distribution: 4x3,3.")
@click.option("--frameworks", metavar="NAMES", help="Whose arrays it gets; by default the one that it answers in.")
@click.option("--against", metavar="MODULE:FUNCTION", help="The same in another framework, or in NumPy.")
@click.option("--order", type=click.IntRange(1, 2), default=1, show_default=True, help="2: the gradient's own too.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the inputs and the directions.")
def check(function: str, shapes: str, frameworks: str | None, against: str | None, order: int, seed: int) -> None:
    """Check a custom gradient against differences of the function.

    FUNCTION takes arrays; or it is a pair (f, f_vjp) for NumPy, or a dict with a function for each framework.
    Exit codes: 0 pass, 1 fail, 2 wrong usage, 3 inconclusive.
    """
    with reported_errors():
        names = chosen_frameworks(frameworks) if frameworks else []
        import_quietly(names)
        found = _named(function)
        other = _named(against) if against else None
        from harness.gradients.command import checked_in, drawn, exit_code

        results = checked_in(found, drawn(shapes, seed), names, against=other, order=order, seed=seed)
        for name, result in results.items():
            click.echo(f"{name}: {result}")
        sys.exit(exit_code(results))


def _named(place: str) -> Any:
    """What MODULE:NAME names; modules are looked for in the working directory too."""
    module, _, name = place.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise HarnessError(f"{place}: {error}; name a function, a pair (f, f_vjp) or a dict of functions") from error
