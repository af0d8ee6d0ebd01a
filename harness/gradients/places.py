"""Elements of all inputs under one number, directions that move only some of them, and the search for one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from frameworks.protocol import Arrays
from harness.gradients.telling import floating


def sizes(xs: Arrays) -> list[int]:
    return [x.size if floating(x) else 0 for x in xs]


def place_of(xs: Arrays, number: int) -> tuple[int, tuple[int, ...]]:
    """Input and index of an element's number, counted through the floating inputs in turn."""
    for i, (x, size) in enumerate(zip(xs, sizes(xs), strict=True)):
        if number < size:
            return i, tuple(map(int, np.unravel_index(number, x.shape)))
        number -= size
    raise IndexError(number)


def only(ds: Arrays, xs: Arrays, first: int, last: int) -> Arrays:
    """The direction with all elements but the numbers from first to below last at rest."""
    found = []
    start = 0
    for d, size in zip(ds, sizes(xs), strict=True):
        kept = np.zeros(d.size, d.dtype)
        low, high = np.clip([first - start, last - start], 0, size)
        kept[low:high] = d.reshape(-1)[low:high]
        found.append(kept.reshape(d.shape))
        start += size
    return tuple(found)


def single(xs: Arrays, number: int) -> Arrays:
    """The direction of one element, at least of size 1."""
    return only(tuple(np.maximum(np.abs(x), 1.0) * np.ones(x.shape) for x in xs), xs, number, number + 1)


def narrowed(total: int, excess: Callable[[int, int], float]) -> int | None:
    """The number of one element in which the excess over 1 lies, by halving; None where it is lost on the way."""
    first, last = 0, total
    while last - first > 1:
        middle = (first + last) // 2
        halves = [(excess(first, middle), first, middle), (excess(middle, last), middle, last)]
        most, first, last = max(halves)
        if not most > 1:
            return None
    return first


def searched(total: int, holds: Callable[[int, int], bool], limit: int) -> Iterator[int]:
    """Up to `limit` numbers of elements for which something holds, by halving; it may hold for several."""
    stack = [(0, total)]
    while stack and limit:
        first, last = stack.pop()
        if not holds(first, last):
            continue
        if last - first == 1:
            limit -= 1
            yield first
        else:
            middle = (first + last) // 2
            stack += [(middle, last), (first, middle)]
