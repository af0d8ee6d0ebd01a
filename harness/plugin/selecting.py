"""On which frameworks a test runs: option, then environment variable, then ini, then all that are installed."""

from __future__ import annotations

import os
from typing import Any

import pytest

OPTION, VARIABLE, INI = "--gradparity-frameworks", "GRADPARITY_FRAMEWORKS", "gradparity_frameworks"
FIXTURE = MARKER = "gradparity_framework"


def parametrize(metafunc: pytest.Metafunc) -> None:
    """A test for each framework; those that are not installed are skipped, with the line that installs them."""
    if FIXTURE not in metafunc.fixturenames:
        return
    from harness.case import HarnessError

    marker = metafunc.definition.get_closest_marker(MARKER)
    try:
        allowed = _known(marker.args, f"pytest.mark.{MARKER}") if marker else None
    except HarnessError as error:
        pytest.fail(str(error), pytrace=False)
    names = [name for name in chosen(metafunc.config) if allowed is None or name in allowed]
    metafunc.parametrize(FIXTURE, [_parameter(name) for name in names], indirect=True, scope="session")


def chosen(config: pytest.Config) -> list[str]:
    """The names asked for, or all of the registry. Raises UsageError for an unknown one."""
    from frameworks import FRAMEWORKS
    from harness.case import HarnessError

    for source, text in asked(config):
        if text:
            try:
                return _known([name.strip() for name in text.split(",")], source)
            except HarnessError as error:
                raise pytest.UsageError(str(error)) from None
    return list(FRAMEWORKS)


def asked(config: pytest.Config) -> list[tuple[str, str]]:
    """Where names may be given, the first that counts first, and what is given there."""
    return [
        (OPTION, config.getoption(OPTION) or ""),
        (VARIABLE, os.environ.get(VARIABLE, "")),
        (INI, str(config.getini(INI))),
    ]


def _known(names: Any, source: str) -> list[str]:
    from frameworks import FRAMEWORKS
    from harness.checking import choose

    return list(dict.fromkeys(choose(f"framework in {source}", name, FRAMEWORKS) for name in names))


def _parameter(name: str) -> Any:
    from frameworks import installed, pip_line

    if name in installed():
        return name
    return pytest.param(name, marks=pytest.mark.skip(reason=f"{name} is not installed; run: {pip_line(name)}"))
