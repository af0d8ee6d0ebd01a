"""Keras's regularizers in the reference's words: Keras 3.15, keras/src/regularizers/regularizers.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import regularizers

from frameworks.keras_copies import shortest
from harness.objectives import Penalty


def read_penalty(of: Mapping[str, Any]) -> Penalty | None:
    """The regularizers of weights, by name; None where there is none, they are not alike, or one is not Keras's own."""
    kinds = (regularizers.L1, regularizers.L2, regularizers.L1L2)
    if not of or any(type(regularizer) not in kinds for regularizer in of.values()):
        return None
    factors = {(_factor(regularizer, "l1"), _factor(regularizer, "l2")) for regularizer in of.values()}
    if len(factors) > 1:
        return None
    l1, l2 = factors.pop()
    return Penalty(l1=l1, l2=l2, half=False, rooted=False, scope=tuple(of))


def _factor(regularizer: Any, name: str) -> float:
    """As it was typed: some regularizers keep it in a float32 tensor."""
    value = getattr(regularizer, name, 0.0)
    return float(value) if isinstance(value, float) else float(shortest(np.float32(value)))
