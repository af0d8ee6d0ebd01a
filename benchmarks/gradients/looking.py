"""An item looked at by harness.check_gradient: what it said, and whether that is right."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.gradients import Item, Subject

FAIL, INCONCLUSIVE, RAISED = "fail", "inconclusive", "raised"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a checker said of an item. verdict: "pass", "fail", "inconclusive" or "raised"; seconds: wall clock."""

    verdict: str
    seconds: float
    pattern: str = ""
    where: tuple[int, tuple[int, ...]] | None = None
    evaluations: int = 0
    reason: str = ""


def tensors(subject: Subject, framework: str) -> list[Any]:
    """The inputs as the framework's own tensors; what is one already stays."""
    return [value if not isinstance(value, np.ndarray) else _tensor(value, framework) for value in subject.inputs]


def _tensor(value: np.ndarray, framework: str) -> Any:
    if framework == "torch":
        import torch

        return torch.from_numpy(value.copy())
    if framework == "tensorflow":
        import tensorflow as tf

        return tf.constant(value)
    if framework == "jax":
        import jax.numpy as jnp

        return jnp.asarray(value)
    return value.copy(order="K")


def looked_at(item: Item) -> Found:
    """By harness.check_gradient; whatever it raises is a result here."""
    import harness

    check: Any = harness.check_gradient  # pyright: ignore[reportAttributeAccessIssue]
    subject = item.build()
    inputs = tensors(subject, item.framework)
    began = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # overflowing backwards are among the mistakes
            result = check(subject.function, *inputs, **subject.options)
    except Exception as error:
        return Found(verdict=RAISED, seconds=time.perf_counter() - began, reason=f"{type(error).__name__}: {error}")
    return Found(
        verdict=result.verdict,
        seconds=time.perf_counter() - began,
        pattern=result.pattern,
        where=None if result.where is None else (int(result.where[0]), tuple(map(int, result.where[2]))),
        evaluations=int(result.evaluations),
        reason=result.reason,
    )


def missed(item: Item, found: Found) -> bool:
    """A wrong gradient that is not called wrong."""
    return item.kind == "wrong" and found.verdict != FAIL


def false_alarm(item: Item, found: Found) -> bool:
    """A correct gradient that is called wrong, or sets off an exception."""
    return item.kind != "wrong" and found.verdict in (FAIL, RAISED)


def pattern_right(item: Item, found: Found) -> bool:
    return found.verdict == FAIL and found.pattern in item.patterns


def place_right(item: Item, found: Found) -> bool:
    return found.where is not None and found.where == item.at
