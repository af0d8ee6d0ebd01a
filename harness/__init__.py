"""gradparity's job: run one case in several frameworks, compare every quantity, say rounding or bug, write reports."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.asserting import assert_equivalent as assert_equivalent
    from harness.asserting import assert_gradient as assert_gradient
    from harness.case import Case as Case
    from harness.case import HarnessError as HarnessError
    from harness.cases import CASES as CASES
    from harness.comparison import Comparison as Comparison
    from harness.data import Data as Data
    from harness.explanation import explain_case as explain_case
    from harness.gradients.checks import check_gradient as check_gradient
    from harness.investigating import Result as Result
    from harness.investigating import investigate as investigate
    from harness.porting import compare as compare
    from harness.porting import side as side
    from harness.porting import transfer as transfer
    from harness.report.frames import read_report as read_report

_HOMES = {
    "CASES": "harness.cases",
    "Case": "harness.case",
    "Comparison": "harness.comparison",
    "Data": "harness.data",
    "HarnessError": "harness.case",
    "Result": "harness.investigating",
    "assert_equivalent": "harness.asserting",
    "assert_gradient": "harness.asserting",
    "check_gradient": "harness.gradients.checks",
    "compare": "harness.porting",
    "explain_case": "harness.explanation",
    "investigate": "harness.investigating",
    "read_report": "harness.report.frames",
    "side": "harness.porting",
    "transfer": "harness.porting",
}
"""Public names, loaded at first use: `import harness` imports nothing heavy."""

__all__ = [*_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"harness has no {name}; it has {', '.join(_HOMES)}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
