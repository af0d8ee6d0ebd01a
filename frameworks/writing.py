"""An op of the reference in a framework's own words, from the framework's table.

A row for each kind of op: what is called, then an entry for each field that the framework has. An entry is the argument
that takes the same value, or a function of the op that gives text: an argument, "" for what the name says already,
`(x, training=True)`, `.eval()` or `[0]` for what follows the call, and what is to be written ahead of it with " then"
at its end.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Entry = str | Callable[[Any], str]
Row = tuple[str | Callable[[Any], str], Mapping[str, Entry]]
Rows = Mapping[type, Row]


def written_by(rows: Rows, op: Any, fields: Sequence[str]) -> str:
    """With the arguments for these fields, for all that the framework has where none is named; "" where it has none."""
    name, entries = rows.get(type(op), ("", {}))
    name = name(op) if callable(name) else name
    chosen = [field for field in (fields or entries) if field in entries]
    if not name or (fields and not chosen):
        return ""
    said = [text for text in dict.fromkeys(_said(entries[field], field, op) for field in chosen) if text]
    ahead = [text for text in said if text.endswith(" then")]
    behind = [text for text in said if text[0] in "([."]
    arguments = [text for text in said if text not in ahead and text not in behind]
    call = name if name.endswith(")") else f"{name}({', '.join(arguments)})"
    return " ".join([*ahead, call + "".join(behind)])


def _said(entry: Entry, field: str, op: Any) -> str:
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
