"""For tests: raise, with all that was found, unless two sides are the same, or a gradient is right.

Only the standard library at import: the pytest plugin loads this in every session.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.comparison import Comparison
    from harness.gradients.result import GradientCheck
    from harness.trace import Difference

    Compared = Comparison | Difference
    Judge = Callable[[Compared | GradientCheck], list[str] | None]

GOOD = ("identical", "rounding", "pass")

REMEDIES = {
    "chaotic": "compare fewer steps, or train at a smaller rate",
    "nondeterministic": "switch off what draws random numbers (dropout, shuffling), or seed it in train_step",
    "nonfinite": "look for what makes the first NaN or infinity, on both sides",
    "one precision": "make that place compute in the dtype it is given",
    "unconfirmed": "record it again with what is installed here, or compare the sides themselves",
    "follows or not": "put the first divergence right and compare again, or compare the sides themselves",
}
"""What to do about quantities that cannot be judged, by why they cannot."""


def unless_good(result: Compared | GradientCheck) -> list[str] | None:
    """None for a result that passes, else the lines to add to its words."""
    return None if result.verdict in GOOD else []


judge: Judge = unless_good
"""Who sees every result before it can raise: in a test run by pytest the plugin, which knows the test's waivers. Not a
context variable: a test's threads, and event loops that outlive a test, would see another test's, or none."""


def assert_equivalent(reference: Any, candidate: Any, x: Any = None, y: Any = None, **options: Any) -> None:
    """Raise AssertionError with the whole finding unless two sides are the same but for rounding.

    The arguments are those of `harness.compare`; a side may also be a case, a `harness.trace.Run` of one, or a trace or
    its folder. `undecided` raises like `different`: what could not be judged was not shown to be the same.
    Raises HarnessError for what cannot be compared.
    """
    __tracebackhide__ = True
    from harness.case import HarnessError
    from harness.comparison import Comparison

    try:
        result = _compared(reference, candidate, x, y, options)
    except HarnessError as error:
        raise error.with_traceback(None) from None  # one line for the user; where in the harness says nothing
    how = "harness.compare" if isinstance(result, Comparison) else "harness.trace.diff"
    raise_unless_accepted(result, f"result: what {how} gives for the same arguments")


def _compared(reference: Any, candidate: Any, x: Any, y: Any, options: dict[str, Any]) -> Compared:
    from pathlib import Path

    from harness.case import Case
    from harness.porting import compare
    from harness.trace import Run, Trace, diff

    if any(isinstance(side, Case | Run | Trace | Path | str) for side in (reference, candidate)):
        return diff(reference, candidate, *(each for each in (x, y) if each is not None), **options)
    return compare(reference, candidate, x, y, **options)


def raise_unless_accepted(result: Compared, *more: str) -> None:
    """Let the judge decide on a comparison; where it refuses, raise AssertionError with all its words, and more."""
    __tracebackhide__ = True
    said = judge(result)
    if said is not None:
        raise AssertionError("\n".join([str(result), *undecided(result), *said, *more]))


def assert_gradient(f: Any, *inputs: Any, **options: Any) -> None:
    """Raise AssertionError with the printed result unless `harness.check_gradient`, called alike, passes.

    `inconclusive` raises like `fail`. Raises HarnessError for what is no function or no array.
    """
    __tracebackhide__ = True
    from harness.case import HarnessError
    from harness.gradients.checks import check_gradient

    try:
        result = check_gradient(f, *inputs, **options)
    except HarnessError as error:
        raise error.with_traceback(None) from None
    said = judge(result)
    if said is not None:
        again = "result: what harness.check_gradient gives for the same arguments"
        raise AssertionError("\n".join([str(result), *said, again]))


def undecided(result: Compared) -> list[str]:
    """Which quantities could not be judged, why, and what to do about it; nothing where all could."""
    frame = result.frame
    lost = (frame["verdict"] == "undecided") & (frame["kind"] != "slot") & (frame["because"] != "missing")
    lines = []
    for because, rows in frame[lost].groupby("because", observed=True):
        first = rows.iloc[0]
        place = f"{len(rows):,} quantities, the first {first['name']} at step {first['step']}"
        lines.append(f"undecided ({because}): {place}; {REMEDIES.get(str(because), 'see the notes')}")
    return lines
