"""Sessions of pytest within a test, in this process: the libraries that they import stay, so the next one need not.

pytester takes away what a session imported, behind the session and behind the test; but torch cannot be imported twice.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest


class Imports:
    """A plugin: what a session has imported."""

    def __init__(self) -> None:
        self.modules = dict[str, ModuleType]()

    def pytest_unconfigure(self) -> None:
        self.modules = dict(sys.modules)


@pytest.fixture(autouse=True)
def imports() -> Iterator[Imports]:
    """Those of a test's sessions; as the first fixture it ends behind pytester."""
    found = Imports()
    yield found
    for name, module in found.modules.items():
        _ = sys.modules.setdefault(name, module)


def session(pytester: pytest.Pytester, imports: Imports, *arguments: Any) -> pytest.RunResult:
    """A session in pytester's folder."""
    new = Imports()
    done = pytester.runpytest_inprocess(*arguments, plugins=[new])
    folder = str(pytester.path)
    imports.modules |= {
        name: module
        for name, module in new.modules.items()
        if not (getattr(module, "__file__", None) or "").startswith(folder)
    }
    for name, module in imports.modules.items():
        _ = sys.modules.setdefault(name, module)
    return done
