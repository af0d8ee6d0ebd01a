"""What a gradient check costs beside torch's own, and in bare evaluations of the function; memory in its own process.

python -m benchmarks.gradients.costs WHAT N runs one measurement and prints seconds and gigabytes.
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
MEASURED = (
    *((what, 10_000) for what in ("gradparity", POINT, "torch gradcheck, fast", "torch gradcheck")),
    *((what, 100_000) for what in ("gradparity", POINT, BARE, "torch gradcheck, fast")),
)


def mean_softplus() -> Callable[..., Any]:
    """A smooth loss of n elements, whose Jacobian is one row: gradcheck needs no n by n."""
    return torch_function(lambda xp, x: xp.mean(softplus(xp, x)), lambda xp, x, v: v * sigmoid(xp, x) / x.shape[0])


def measured(what: str, n: int) -> float:
    import torch

    f, x = mean_softplus(), torch.from_numpy(normal(n))
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
    for what, n in MEASURED:
        runs = [_in_a_process(what, n) for _ in range(rounds)]
        rows.append(
            {"what": what, "n": n, "seconds": median(s for s, _ in runs), "peak GB": median(gb for _, gb in runs)}
        )
    return rows


def _in_a_process(what: str, n: int) -> tuple[float, float]:
    command = [sys.executable, "-m", "benchmarks.gradients.costs", what, str(n)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, gigabytes = map(float, done.stdout.split())
    return seconds, gigabytes


if __name__ == "__main__":
    _ = measured(sys.argv[1], 10)  # imports and first calls
    seconds = measured(sys.argv[1], int(sys.argv[2]))
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
