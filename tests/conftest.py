"""The fixture `framework`: each adapter of the registry in turn, absent ones as visible skips."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator

import pytest

from frameworks import FRAMEWORKS, adapter, installed, pip_line
from frameworks.protocol import Framework


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--frameworks", help=f"only these, comma-separated, of {', '.join(FRAMEWORKS)}")


def pytest_configure(config: pytest.Config) -> None:
    unknown = [name for name in _names(config) if name not in FRAMEWORKS]
    if unknown:
        raise pytest.UsageError(f"--frameworks: unknown {unknown[0]!r}; known: {', '.join(FRAMEWORKS)}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _no_skips() and terminalreporter.stats.get("skipped"):
        terminalreporter.write_line("GRADPARITY_NO_SKIPS is set, and tests were skipped", red=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if _no_skips() and reporter and reporter.stats.get("skipped") and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _no_skips() -> bool:
    """Continuous integration has every framework: there a skip is a test that silently never runs."""
    return os.environ.get("GRADPARITY_NO_SKIPS") == "1"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "framework" in metafunc.fixturenames:
        params = [_param(name) for name in _names(metafunc.config)]
        metafunc.parametrize("framework", params, indirect=True, scope="session")


def _names(config: pytest.Config) -> list[str]:
    option = config.getoption("--frameworks")
    return option.split(",") if option else list(FRAMEWORKS)


def _param(name: str):
    if name not in installed():
        return pytest.param(name, marks=pytest.mark.skip(reason=f"{name} is not installed; run: {pip_line(name)}"))
    if importlib.util.find_spec(FRAMEWORKS[name].module) is None:
        return pytest.param(name, marks=pytest.mark.skip(reason=f"{FRAMEWORKS[name].module} does not exist"))
    return name


@pytest.fixture(scope="session")
def framework_name(framework: Framework) -> str:
    return next(name for name, of in FRAMEWORKS.items() if of.module == getattr(framework, "__name__", ""))


@pytest.fixture(scope="session")
def framework(request: pytest.FixtureRequest) -> Iterator[Framework]:
    module = adapter(request.param)
    before = dict(module.environment())
    yield module
    assert dict(module.environment()) == before, "a process-wide setting was changed and not restored"
