"""What the assertions of one test found: judged by its waivers, kept for the reports, written as pages."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.plugin import ATTRIBUTE

if TYPE_CHECKING:
    from harness.asserting import Compared
    from harness.gradients.result import GradientCheck
    from harness.plugin.discrepancy import Discrepancy
    from harness.plugin.waivers import Waiver

REPORT = "--gradparity-report"
PROPOSAL = "gradparity: if this may stay for a time, a waiver"

FOUND = pytest.StashKey[list[dict[str, Any]]]()
USED = pytest.StashKey[list[tuple["Waiver", str]]]()
COUNT = pytest.StashKey[int]()


def observe(item: pytest.Item, result: Compared | GradientCheck) -> list[str] | None:
    """Keep a result for the test's report; None where it passes or is waived, else the lines to add to its words."""
    from harness.asserting import GOOD
    from harness.gradients.result import GradientCheck
    from harness.plugin.discrepancy import discrepancies, of_gradient

    entry = {"verdict": result.verdict, "waived": [], "where": "", "cause": "", "page": "", "waiver": ""}
    lines: list[str] | None = None if result.verdict in GOOD else []
    if isinstance(result, GradientCheck):
        entry |= {"verdict": f"gradient {result.verdict}", "where": _of_gradient(result), "cause": result.pattern}
        if lines is not None:
            lines = _ruled(item, [of_gradient(result)], entry)
    elif lines is not None:
        found = discrepancies(result)
        entry["where"] = f"{found[0].quantity} at step {found[0].step}"
        entry["cause"] = ", ".join(f"{c.id or 'no cause'} ({c.status})" for c in result.causes) or result.because
        lines = _ruled(item, found, entry)
        if lines is not None:
            lines += _paged(item, result, entry)
    item.stash.setdefault(FOUND, []).append(entry)
    words = entry["verdict"] + (" (waived)" if entry["waived"] else "")
    item.user_properties.append(("gradparity.verdict", words))
    for name, key in (("first_divergence", "where"), ("cause", "cause")):
        if entry[key]:
            item.user_properties.append((f"gradparity.{name}", entry[key]))
    return lines


def _of_gradient(result: GradientCheck) -> str:
    if result.where is None:
        return result.reason
    given, output, index = result.where
    return f"input {given} {list(index)}, output {output}"


def hand_over(item: pytest.Item, report: pytest.TestReport) -> None:
    """Move what was found in a phase of a test to its report."""
    found = item.stash.get(FOUND, [])
    if found:
        setattr(report, ATTRIBUTE, found)
        report.sections += [(PROPOSAL, entry["waiver"]) for entry in found if entry["waiver"]]
        item.stash[FOUND] = []


def _ruled(item: pytest.Item, found: Sequence[Discrepancy], entry: dict[str, Any]) -> list[str] | None:
    """What does not pass by itself, by the test's waivers."""
    from harness.plugin.waivers import of_test, proposed, rule

    waivers = of_test(item.config, item.nodeid)
    ruling = rule(found, waivers)
    item.stash.setdefault(USED, []).extend(ruling.used)
    if not ruling.open:
        covering = {id(waiver): waiver for waiver, _ in ruling.used}
        entry["waived"] = [f"until {w.expires}: {w.reason}" for w in covering.values()]
        return None
    entry["waiver"] = proposed(item.nodeid, ruling.open)
    covered = ", ".join(dict.fromkeys(quantity for _, quantity in ruling.used))
    return [*([f"waived: {covered}; not waived: {_places(ruling.open)}"] if covered else []), *ruling.why]


def _places(found: Any) -> str:
    return ", ".join(dict.fromkeys(discrepancy.quantity for discrepancy in found))


def _paged(item: pytest.Item, result: Compared, entry: dict[str, Any]) -> list[str]:
    """Write the page of a failure where a folder was given, else say how to get it."""
    from harness.case import HarnessError

    folder = report_folder(item.config)
    if folder is None:
        return [f"page: pytest {quoted(item.nodeid)} {REPORT}=DIR writes one"]
    item.stash[COUNT] = item.stash.get(COUNT, 0) + 1
    place = folder / file_name(item.nodeid, f"-{item.stash[COUNT]}" if item.stash[COUNT] > 1 else "")
    try:
        entry["page"] = result.save(place).name
    except (HarnessError, OSError) as error:  # the finding itself must not be lost with its page
        return [f"page: not written: {error}"]
    return [f"page: {place / 'report.html'}"]


def report_folder(config: pytest.Config) -> Path | None:
    """Where the pages go, told from where pytest was called."""
    folder = config.getoption(REPORT)
    return config.invocation_params.dir / folder if folder else None


def file_name(nodeid: str, ending: str = "") -> str:
    """A file name for a test: readable, safe in every file system, and its own."""
    safe = re.sub(r"[^A-Za-z0-9_.]+", "-", nodeid.replace(".py::", "-"))[-80:].strip("-.")
    return f"{safe or 'test'}-{hashlib.sha256(nodeid.encode()).hexdigest()[:8]}{ending}"


def quoted(nodeid: str) -> str:
    """A test's id as a shell wants it."""
    import shlex

    return shlex.quote(nodeid)
