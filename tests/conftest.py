"""The fixture `framework`: each adapter of the registry in turn, absent ones as visible skips."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest

from frameworks import FRAMEWORKS, adapter, installed, pip_line
from frameworks.protocol import Framework


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--frameworks", help=f"only these, comma-separated, of {', '.join(FRAMEWORKS)}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "framework" not in metafunc.fixturenames:
        return
    option = metafunc.config.getoption("--frameworks")
    names = option.split(",") if option else list(FRAMEWORKS)
    unknown = [name for name in names if name not in FRAMEWORKS]
    if unknown:
        raise pytest.UsageError(f"--frameworks: unknown {unknown[0]!r}; known: {', '.join(FRAMEWORKS)}")
    metafunc.parametrize("framework", [_param(name) for name in names], indirect=True, scope="session")


def _param(name: str):
    if name not in installed():
        return pytest.param(name, marks=pytest.mark.skip(reason=f"{name} is not installed; run: {pip_line(name)}"))
    if importlib.util.find_spec(FRAMEWORKS[name].module) is None:
        return pytest.param(name, marks=pytest.mark.skip(reason=f"{FRAMEWORKS[name].module} does not exist"))
    return name


@pytest.fixture(scope="session")
def framework(request: pytest.FixtureRequest) -> Iterator[Framework]:
    module = adapter(request.param)
    before = dict(module.environment())
    yield module
    assert dict(module.environment()) == before, "a process-wide setting was changed and not restored"
