"""How a user of torch writes what the reference computes, for advice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from frameworks import pytorch_words, pytorch_words_training
from frameworks.pytorch_words import Entry, source

_ROWS = {**pytorch_words.ROWS, **pytorch_words_training.ROWS}


def written(op: Any, fields: Sequence[str]) -> str:
    """With the arguments for these fields, for all that torch has where none is named; "" where it has none."""
    name, entries = _ROWS.get(type(op), ("", {}))
    chosen = [field for field in (fields or entries) if field in entries and hasattr(op, field)]
    if not name or (fields and not chosen):
        return ""
    said = dict.fromkeys(_said(entries[field], field, op) for field in chosen)
    ahead = "".join(f"{part} " for part in said if part.endswith("before"))
    behind = "".join(part for part in said if part.startswith((".", "[")))
    arguments = ", ".join(part for part in said if part and part not in ahead and part not in behind)
    called = name(op) if callable(name) else name
    if not called:
        return ""
    return ahead + (called if "(" in called else f"{called}({arguments})") + behind


def _said(entry: Entry, field: str, op: Any) -> str:
    return entry(op) if callable(entry) else f"{entry}={source(getattr(op, field))}"
