"""A block of a user's model as one forward pass called it, in the words of the reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One block, read with all its attributes; every array float64 (indices and masks as they are).

    kind: the framework's own word for it (`BatchNorm2d`, `gelu`). ops: what it computes as the reference knows it, each
    reading the one before; () for what the reference does not know. inputs: what the first op reads, in canonical
    layout (`harness.ops`: channels first; sequences (batch, time, features)); for an unknown block as the side has
    them. parameters: for each op its arrays in canonical layout; names: the side's own names of them, "" for a
    constant. output: what the last op gives, canonical. canonical: brings an array in the side's own layout of the
    output (also a cotangent) into the canonical one.
    """

    kind: str
    ops: tuple[Any, ...]
    inputs: tuple[np.ndarray, ...]
    parameters: tuple[tuple[np.ndarray, ...], ...]
    names: tuple[tuple[str, ...], ...]
    output: np.ndarray
    canonical: Callable[[np.ndarray], np.ndarray]
