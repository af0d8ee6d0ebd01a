"""How a user of torch writes what the reference computes, for advice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from frameworks import pytorch_words, pytorch_words_training
from frameworks.writing import written_by

_ROWS = {**pytorch_words.ROWS, **pytorch_words_training.ROWS}


def written(op: Any, fields: Sequence[str]) -> str:
    """`nn.BatchNorm2d(eps=0.001, momentum=0.1)`; "" for what torch has no words for."""
    return written_by(_ROWS, op, fields)
