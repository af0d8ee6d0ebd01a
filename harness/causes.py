"""The table of causes, and which of them a set of edits is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness import causes_forward, causes_training
from harness.cause import Cause, Near, signatures
from harness.editing import Edit, Parts, same_float32

TABLE: Mapping[str, Cause] = {cause.id: cause for cause in (*causes_forward.CAUSES, *causes_training.CAUSES)}
"""Every cause by its id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A cause and the edits that it is; same: other ids that are the same edit."""

    id: str
    same: tuple[str, ...]
    edits: tuple[Edit, ...]


def named(edits: Sequence[Edit], parts: Parts, near: Near = ((), ())) -> tuple[Named, ...]:
    """The causes that these edits of some parts are; each takes along the edits that go with it. near: what makes what
    the parts read, and what reads what they compute."""
    left, found = list(edits), []
    while left:
        first, rows = max(
            ((edit, rows_of(edit, parts, near)) for edit in left), key=lambda pair: _taken(*pair, left, parts)
        )
        covered = [edit for edit in left if edit is first or _goes_with(rows[0], edit, parts, near)]
        found.append(Named(id=rows[0].id, same=tuple(row.id for row in rows[1:]), edits=tuple(covered)))
        left = [edit for edit in left if edit not in covered]
    return tuple(found)


def rows_of(edit: Edit, parts: Parts, near: Near = ((), ())) -> list[Cause]:
    """The rows that name an edit by its most telling signature; at worst that a layer differs."""
    rounded = [TABLE["float32-constant"]] if same_float32(edit) else []
    for signature in signatures(edit, parts, near):
        rows = [row for row in TABLE.values() if signature in row.edits and (row.when is None or row.when(edit))]
        if rows:
            return [*rounded, *(row for row in rows if row not in rounded)]
    return [TABLE["layer-different"]]


def _taken(edit: Edit, rows: Sequence[Cause], left: Sequence[Edit], parts: Parts) -> int:
    return sum(_along(rows[0], other, parts) for other in left if other is not edit)


def _goes_with(row: Cause, edit: Edit, parts: Parts, near: Near) -> bool:
    return rows_of(edit, parts, near)[0] is row or _along(row, edit, parts)


def _along(row: Cause, edit: Edit, parts: Parts) -> bool:
    return any(signature in row.along for signature in signatures(edit, parts))
