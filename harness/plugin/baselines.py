"""A side compared with what it was when its baseline was stored: a trace beside the test, each test's own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.plugin.witness import file_name, quoted

REGEN = "--gradparity-regen"


def check(item: pytest.Item, calls: Iterator[int], side: Any, *data: Any, **options: Any) -> None:
    """Compare a side with the test's baseline; raise AssertionError where more than rounding has changed.

    The arguments are those of `harness.trace.record`, less the folder. A second call in a test has a baseline of its
    own. A missing baseline is written, and the test fails. With --gradparity-regen one that is not bit for bit the same
    is replaced, and the test fails where more than rounding was. Raises HarnessError for what cannot be recorded or
    compared.
    """
    __tracebackhide__ = True
    from harness.asserting import raise_unless_accepted
    from harness.case import HarnessError
    from harness.trace import diff, record

    folder, regenerate = _folder(item, next(calls)), bool(item.config.getoption(REGEN))
    try:
        if not folder.exists():
            _ = record(side, folder, *data, **options)
            reason = f"there was no baseline, now there is: look at it, and add {folder} to version control"
            pytest.fail(reason, pytrace=False)
        with tempfile.TemporaryDirectory() as scratch:
            now = record(side, Path(scratch) / "now", *data, **options)
            result = replace(diff(folder, now), sides=("the baseline", "now"))
    except HarnessError as error:
        if not regenerate:
            raise error.with_traceback(None) from None
        _ = record(side, folder, *data, **options)
        pytest.fail(f"the baseline was replaced; it could not be compared: {error}", pytrace=False)
    meant = f"if that is meant: pytest {quoted(item.nodeid)} {REGEN}"
    if regenerate and result.verdict != "identical":
        _ = record(side, folder, *data, **options)
        meant = "the baseline was replaced"
    raise_unless_accepted(result, f"baseline: {folder}", meant)


def _folder(item: pytest.Item, call: int) -> Path:
    """A folder named after the test's module, in it one named after the test."""
    return item.path.with_suffix("") / file_name(item.location[2], f"-{call}" if call > 1 else "")
