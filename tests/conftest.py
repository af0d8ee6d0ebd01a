"""The fixture `framework`: the adapter of each framework that the plugin names, absent ones as visible skips."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from frameworks import adapter
from frameworks.protocol import Framework

pytest_plugins = ["pytester"]


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


@pytest.fixture(scope="session")
def framework_name(gradparity_framework: str) -> str:
    return gradparity_framework


@pytest.fixture(scope="session")
def framework(framework_name: str) -> Iterator[Framework]:
    module = adapter(framework_name)
    before = dict(module.environment())
    yield module
    assert dict(module.environment()) == before, "a process-wide setting was changed and not restored"
