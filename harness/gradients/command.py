"""`gradparity check`: what the command line asks of `check_gradient`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from frameworks import functions
from harness.case import HarnessError
from harness.gradients.checks import check_gradient
from harness.gradients.result import GradientCheck

EXIT_CODES = {"pass": 0, "fail": 1, "inconclusive": 3}


def drawn(shapes: str, seed: int) -> list[np.ndarray]:
    """Normal float64 arrays of shapes such as 4x3,3 ("" between commas or `scalar` for a number)."""
    rng = np.random.default_rng(seed)
    found = []
    for shape in shapes.split(","):
        try:
            sizes = [] if shape.strip() in ("", "scalar") else [int(n) for n in shape.split("x")]
        except ValueError:
            raise HarnessError(f"--shapes {shape!r}: a shape is sizes joined by x, such as 4x3, or scalar") from None
        found.append(np.asarray(rng.standard_normal(sizes)))
    return found


def checked_in(
    f: Any, inputs: Sequence[np.ndarray], frameworks: Sequence[str], **options: Any
) -> dict[str, GradientCheck]:
    """A result for each framework: f is a function for all of them, or a mapping with one for each."""
    results = {}
    for name in frameworks or ("",):
        g: Any = f
        if isinstance(f, Mapping):
            if name not in f:
                raise HarnessError(f"there is no function for {name or 'it'}; there are {', '.join(map(str, f))}")
            g = f[name]
        given = [functions(name).array(x) for x in inputs] if name else inputs
        result = check_gradient(g, *given, **options)
        results[name or result.framework] = result
    return results


def exit_code(results: Mapping[str, GradientCheck]) -> int:
    """1 if any fails, else 3 if any is inconclusive, else 0."""
    codes = {EXIT_CODES[result.verdict] for result in results.values()}
    return 1 if 1 in codes else max(codes)
