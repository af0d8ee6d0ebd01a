"""What a gradient check costs beside torch's own, and in bare evaluations of the function; memory in its own process.

python -m benchmarks.gradients.costs FUNCTION WHAT N runs one measurement and prints seconds and gigabytes.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.gradients.data import normal
from benchmarks.gradients.rules import torch_function
from benchmarks.gradients.slopes import sigmoid, softplus
from benchmarks.tables import Row, median

EVALUATIONS = 33
POINT, BARE = "gradparity, sweep=False", f"{EVALUATIONS} bare evaluations"
FAST, SLOW = "torch gradcheck, fast", "torch gradcheck"
FUNCTIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "mean": (lambda xp, x: xp.mean(softplus(xp, x)), lambda xp, x, v: v * sigmoid(xp, x) / x.shape[0]),
    "elementwise": (softplus, lambda xp, x, v: v * sigmoid(xp, x)),
}
"""Of n numbers: a loss, whose Jacobian is one row, and an activation, whose Jacobian is n by n."""
AT = {10_000: ("gradparity", POINT, BARE, FAST, SLOW), 100_000: ("gradparity", POINT, BARE, FAST)}
MEASURED = [
    *((name, what, n) for name in FUNCTIONS for n, checkers in AT.items() for what in checkers),
    ("elementwise", "gradparity", 1_000_000),
]


def measured(name: str, what: str, n: int) -> float:
    import torch

    f, x = torch_function(*FUNCTIONS[name]), torch.from_numpy(normal(n))
    leaf = x.clone().requires_grad_()
    began = time.perf_counter()
    if what.startswith("torch"):
        if not torch.autograd.gradcheck(f, (leaf,), fast_mode=what.endswith("fast")):
            raise AssertionError(what)
    elif what.startswith("gradparity"):
        import harness

        began = time.perf_counter()
        check: Any = harness.check_gradient  # pyright: ignore[reportAttributeAccessIssue]
        if check(f, x, sweep=what != POINT).verdict != "pass":
            raise AssertionError(what)
    else:
        for _ in range(EVALUATIONS):
            f(x)
    return time.perf_counter() - began


def costs(rounds: int = 3) -> list[Row]:
    """Medians of several processes."""
    rows: list[Row] = []
    for name, what, n in MEASURED:
        seconds, gigabytes = zip(*(_in_a_process(name, what, n) for _ in range(rounds)), strict=True)
        rows.append({"softplus": name, "what": what, "n": n, "ms": 1e3 * median(seconds), "peak GB": median(gigabytes)})
    return rows


def _in_a_process(name: str, what: str, n: int) -> tuple[float, float]:
    command = [sys.executable, "-m", "benchmarks.gradients.costs", name, what, str(n)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, gigabytes = map(float, done.stdout.split())
    return seconds, gigabytes


if __name__ == "__main__":
    _, name, what, n = sys.argv
    _ = measured(name, what, 10 if what == SLOW else int(n))  # imports and first calls
    seconds = measured(name, what, int(n))
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
