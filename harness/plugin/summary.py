"""What the session compared, at the end of pytest's output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from harness.plugin.witness import report_folder

GOOD = ("identical", "rounding", "gradient pass", "waived")
BAD = ("undecided", "different", "gradient inconclusive", "gradient fail")


def write_summary(reporter: pytest.TerminalReporter, found: Sequence[tuple[Any, Mapping[str, Any]]]) -> None:
    """A line of counts, one for each difference and each waived one, and where the pages are."""
    reporter.section("gradparity", sep="=", blue=True)
    counts = Counter("waived" if entry["waived"] else entry["verdict"] for _, entry in found)
    words = ", ".join(f"{counts[verdict]} {verdict}" for verdict in (*GOOD, *BAD) if counts[verdict])
    reporter.line(f"{len(found)} compared: {words}", red=any(verdict in counts for verdict in BAD))
    for report, entry in found:
        if entry["waived"]:
            reporter.line(f"waived: {_words(report, entry)}; {'; '.join(entry['waived'])}", yellow=True)
        elif entry["verdict"] in BAD:
            passed = "; the test passed all the same" if report.passed else ""
            reporter.line(f"{entry['verdict']}: {_words(report, entry)}{passed}", red=not passed, yellow=bool(passed))
    folder = report_folder(reporter.config)
    pages = [entry["page"] for _, entry in found if entry["page"]]
    if folder and pages:
        from harness.report.writing import write_index

        reporter.line(f"pages: {write_index(folder, pages)}")


def _words(report: Any, entry: Mapping[str, Any]) -> str:
    return f"{report.nodeid}: {entry['where']}" + (f", {entry['cause']}" if entry["cause"] else "")
