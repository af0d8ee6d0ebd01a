"""The pytest plugin: hooks, options and fixtures. What they do is in the modules beside, imported when it is needed,
so that a session that compares nothing pays nothing."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

import pytest

WAIVERS = pytest.StashKey[Sequence[Any]]()
ATTRIBUTE = "gradparity"
"""Of a test's report: what its assertions found, plain data, which xdist carries from a worker to the controller."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gradparity", "gradparity: the same numbers in several frameworks")
    names = "comma-separated; default: GRADPARITY_FRAMEWORKS, then ini, then what is installed"
    group.addoption("--gradparity-frameworks", metavar="NAMES", help=f"run gradparity_framework on these ({names})")
    group.addoption("--gradparity-report", metavar="DIR", help="write a page for each comparison that fails")
    replaces = "replace baselines that are no longer bit for bit the same"
    group.addoption("--gradparity-regen", action="store_true", help=replaces)
    parser.addini("gradparity_frameworks", "run gradparity_framework on these, comma-separated", default="")
    parser.addini("gradparity_waivers", "file of known differences (gradparity-waivers.toml, if it exists)", default="")


def pytest_configure(config: pytest.Config) -> None:
    marker = "gradparity_framework(*names): run a test that takes gradparity_framework on these frameworks only"
    config.addinivalue_line("markers", marker)
    from harness.plugin.selecting import asked, chosen

    if any(text for _, text in asked(config)):
        _ = chosen(config)
    if (folder := config.getoption("--gradparity-report")) and (config.invocation_params.dir / folder).is_file():
        raise pytest.UsageError(f"--gradparity-report {folder} is a file; name a folder")
    named = str(config.getini("gradparity_waivers"))
    path = config.rootpath / (named or "gradparity-waivers.toml")
    config.stash[WAIVERS] = ()
    if named or path.is_file():
        from harness.plugin.waivers import read

        config.stash[WAIVERS] = read(path)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    from harness.plugin.selecting import parametrize

    parametrize(metafunc)


@pytest.fixture(scope="session")
def gradparity_framework(request: pytest.FixtureRequest) -> str:
    """The name of a framework: the test runs once for each."""
    return request.param


@pytest.fixture
def gradparity_baseline(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Call it with a side, as harness.trace.record takes it: it is compared with the trace stored beside the test."""
    from functools import partial
    from itertools import count

    from harness.plugin.baselines import check

    return partial(check, request.node, count(1))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    if session.config.stash[WAIVERS]:
        from harness.plugin.orphans import add_orphans

        add_orphans(session, items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """What the test's assertions find goes through the plugin."""
    from functools import partial

    from harness import asserting
    from harness.plugin.witness import observe

    before, asserting.judge = asserting.judge, partial(observe, item)
    try:
        return (yield)
    finally:
        asserting.judge = before


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """A test that passes and did not need its waivers fails: they would hide the next difference."""
    result = yield
    if item.config.stash[WAIVERS]:
        from harness.plugin.waivers import needless, of_test
        from harness.plugin.witness import USED

        if lines := needless(of_test(item.config, item.nodeid), item.stash.get(USED, [])):
            pytest.fail("\n".join(lines), pytrace=False)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    from harness.plugin.witness import hand_over

    hand_over(item, report)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    found = [(report, entry) for report in reports for entry in getattr(report, ATTRIBUTE, ())]
    if found:
        from harness.plugin.summary import write_summary

        write_summary(terminalreporter, found)
