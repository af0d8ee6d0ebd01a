"""Clocks put round the product's functions from outside, so that nothing in the product knows of them."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

Parts = Mapping[str, Sequence[str]]
"""Part -> its functions as their callers see them, each "module:name" or "module:Class.name". A part may speak of a
function's first argument: "running {0.name}"."""


class Clocks:
    """Seconds by part, each without the parts inside it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner = [0.0]

    @contextmanager
    def running(self, part: str) -> Iterator[None]:
        self._inner.append(0.0)
        began = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - began
            self.seconds[part] = self.seconds.get(part, 0.0) + took - self._inner.pop()
            self._inner[-1] += took

    def clocked(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            with self.running(part.format(*arguments)):
                return function(*arguments, **named)

        return timed

    @contextmanager
    def around(self, parts: Parts) -> Iterator[None]:
        with ExitStack() as patches:
            for part, places in parts.items():
                for place in places:
                    owner, name = owner_of(place)
                    _ = patches.enter_context(patch.object(owner, name, self.clocked(part, getattr(owner, name))))
            yield


def owner_of(place: str) -> tuple[Any, str]:
    """The module or class that holds a function, and the function's name there."""
    module, _, path = place.partition(":")
    *classes, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for each in classes:
        owner = getattr(owner, each)
    return owner, name
