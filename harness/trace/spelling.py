"""A case as JSON and back: each part a dict with its kind, so that a ReLU is not read as a Tanh."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from typing import Any

from harness import case as parts
from harness.case import Case, HarnessError

KINDS = {name: kind for name, kind in vars(parts).items() if isinstance(kind, type) and is_dataclass(kind)}


def spelled(part: Any) -> Any:
    """Plain data; numbers that JSON has not are written as strings."""
    if is_dataclass(part):
        return {"kind": type(part).__name__} | {f.name: spelled(getattr(part, f.name)) for f in fields(part)}
    if isinstance(part, tuple | list):
        return [spelled(item) for item in part]
    return repr(part) if isinstance(part, float) and not math.isfinite(part) else part


def case_from(plain: Any, where: str) -> Case:
    """The case that was spelled so. Raises HarnessError for anything else."""
    found = _read(plain, where)
    if not isinstance(found, Case):
        raise HarnessError(f"{where} is no case; record it again")
    return found


def _read(plain: Any, where: str) -> Any:
    if isinstance(plain, dict):
        kind = KINDS.get(str(plain.get("kind")))
        given = {name: _read(value, where) for name, value in plain.items() if name != "kind"}
        try:
            if kind is None:
                raise TypeError(f"{plain.get('kind')!r} is no part of a case")
            return kind(**given)
        except TypeError as error:
            raise HarnessError(f"{where} is not valid: {error}; record it again") from None
    if isinstance(plain, list):
        return tuple(_read(item, where) for item in plain)
    return float(plain) if plain in ("inf", "-inf", "nan") else plain
