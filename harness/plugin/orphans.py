"""Waivers of tests that are no more: each is a test that fails."""

from __future__ import annotations

from typing import NoReturn

import pytest

from harness.plugin import WAIVERS
from harness.plugin.waivers import Waiver


class Orphan(pytest.Item):
    """Stands for a waiver whose test was not found."""

    waiver: Waiver

    def runtest(self) -> NoReturn:
        pytest.fail(
            f"there is no test {self.waiver.test} to be waived ({self.waiver.reason}); take the waiver out, or name a "
            "test as pytest --collect-only -q prints it",
            pytrace=False,
        )

    def reportinfo(self) -> tuple[str, None, str]:
        return str(self.path), None, self.name


def add_orphans(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Add a failing test for each waiver of a test that is not there; parameters are left aside, for they may depend on
    the machine. It can be told only of a file that was collected as a whole, or is gone."""
    if session.config.getoption("lf", False) or any("::" in str(argument) for argument in session.config.args):
        return
    tests = {_without_parameters(item.nodeid) for item in items}
    files = {item.nodeid.partition("::")[0] for item in items}
    for number, waiver in enumerate(session.config.stash[WAIVERS], 1):
        file = waiver.test.partition("::")[0]
        known = file in files or not (session.config.rootpath / file).is_file()
        if known and _without_parameters(waiver.test) not in tests:
            orphan = Orphan.from_parent(session, name=f"waiver {number} of {file}", nodeid=f"waiver {number} of {file}")
            orphan.waiver = waiver
            items.append(orphan)


def _without_parameters(nodeid: str) -> str:
    return nodeid.partition("[")[0].partition("@")[0]
