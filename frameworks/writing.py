"""An op of the reference in a framework's own words, from the framework's table.

A row for each kind of op: what is called, then an entry for each field that the framework has. An entry is the argument
that takes the same value, or a function of the op that gives text: an argument, "" for what the name says already,
`(x, training=True)`, `.eval()` or `[0]` for what follows the call, and what is to be written ahead of it with " then"
at its end; None for a value that the framework does not have. Where nothing is called (None), entries are calls.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Entry = str | Callable[[Any], str | None]
Row = tuple[str | Callable[[Any], str] | None, Mapping[str, Entry]]
Rows = Mapping[type, Row]


def written_by(rows: Rows, op: Any, fields: Sequence[str]) -> str:
    """With the arguments for these fields, for all that the framework has where none is named; "" where it has none."""
    name, entries = rows.get(type(op), ("", {}))
    name = name(op) if callable(name) else name
    chosen = [field for field in (fields or entries) if field in entries and hasattr(op, field)]
    texts = dict.fromkeys(_said(entries[field], field, op) for field in chosen)
    if name == "" or (fields and not chosen) or None in texts:
        return ""
    said = [text for text in texts if text]
    ahead = [text for text in said if text.endswith(" then")]
    behind = [text for text in said if text[0] in "([."]
    arguments = ", ".join(text for text in said if text not in ahead and text not in behind)
    call = arguments if name is None else name if "(" in name else f"{name}({arguments})"
    return " ".join([*ahead, call + "".join(behind)])


def _said(entry: Entry, field: str, op: Any) -> str | None:
    return entry(op) if callable(entry) else f"{entry}={source(getattr(op, field))}"


def source(value: Any) -> str:
    """A value as Python writes it; one number for a tuple of equal ones."""
    if isinstance(value, tuple) and value and not isinstance(value[0], tuple) and len(set(value)) == 1:
        value = value[0]
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    return json.dumps(value) if isinstance(value, str) else repr(value)


def given(argument: str, value: Callable[[Any], Any]) -> Callable[[Any], str]:
    """An entry: the argument with a value computed from the op."""
    return lambda op: f"{argument}={source(value(op))}"


def named(*fields: str) -> dict[str, Entry]:
    """Entries of fields that the name tells."""
    return dict.fromkeys(fields, lambda op: "")


def only(field: str, value: Any) -> Callable[[Any], str | None]:
    """An entry of a field that has one value in the framework."""
    return lambda op: "" if getattr(op, field) == value else None
