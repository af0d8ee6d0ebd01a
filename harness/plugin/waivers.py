"""Known differences that a test may have for a time: read from a TOML file, and never covering more than they say."""

from __future__ import annotations

import datetime
import math
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from annotated_types import Gt, MinLen

from harness.plugin import WAIVERS
from harness.plugin.discrepancy import Discrepancy

DAYS = 30
CLOSED: Any = {"extra": "forbid"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiver:
    """test: its node id. quantity: where it may differ, as the failure names it. cause: why; "unknown" is one.

    bound: the largest difference, relative to the tensor's largest entry (of a gradient check: to the gradient along a
    direction), that it covers; inf for what has no finite size alone. expires: the last day on which it holds.
    """

    test: Annotated[str, MinLen(1)]
    quantity: Annotated[list[str], MinLen(1)]
    cause: str
    reason: Annotated[str, MinLen(1)]
    bound: Annotated[float, Gt(0)]
    expires: datetime.date

    __pydantic_config__ = CLOSED

    @property
    def expired(self) -> bool:
        return datetime.date.today() > self.expires


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """The whole file: [[waiver]] entries and nothing else."""

    waiver: list[Waiver]

    __pydantic_config__ = CLOSED


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """used: (waiver, quantity) that were needed; open: what no waiver covers; why: of waivers that nearly do."""

    used: tuple[tuple[Waiver, str], ...]
    open: tuple[Discrepancy, ...]
    why: tuple[str, ...]


def rule(found: Iterable[Discrepancy], waivers: Sequence[Waiver]) -> Ruling:
    """Which of these discrepancies a test's waivers cover."""
    used, still_open = [], []
    why: dict[str, list[str]] = {}
    for discrepancy in found:
        near = [waiver for waiver in waivers if discrepancy.quantity in waiver.quantity]
        reasons = [_against(waiver, discrepancy) for waiver in near]
        covering = [waiver for waiver, reason in zip(near, reasons, strict=True) if not reason]
        if covering:
            used.append((covering[0], discrepancy.quantity))
        else:
            still_open.append(discrepancy)
            for reason in reasons:
                why.setdefault(reason, []).append(discrepancy.quantity)
    said = tuple(f"the waiver of {', '.join(places)} does not hold: {reason}" for reason, places in why.items())
    return Ruling(used=tuple(used), open=tuple(still_open), why=said)


def _against(waiver: Waiver, found: Discrepancy) -> str:
    """Why a waiver does not cover a discrepancy of a quantity that it names; empty where it does."""
    if waiver.expired:
        return f"it expired after {waiver.expires} ({waiver.reason})"
    if waiver.cause not in found.causes:
        return f"it is for {waiver.cause}, this is {' or '.join(found.causes)}"
    if math.isinf(waiver.bound) and math.isfinite(found.size):
        return f"its bound inf is for what has no finite size, this is {found.size:.3g} of {found.of}"
    if found.size > waiver.bound:
        return f"its bound is {waiver.bound:.3g} of {found.of}, this is {found.size:.3g}"
    return ""


def needless(waivers: Sequence[Waiver], used: Iterable[tuple[Waiver, str]]) -> list[str]:
    """What to take out of the file, because the difference is gone."""
    needed = {(id(waiver), quantity) for waiver, quantity in used}
    return [
        f"no difference at {quantity} any more: take it out of the waiver for {waiver.cause} ({waiver.reason})"
        for waiver in waivers
        for quantity in waiver.quantity
        if (id(waiver), quantity) not in needed
    ]


def of_test(config: pytest.Config, nodeid: str) -> list[Waiver]:
    """A test's waivers. Behind its id xdist's loadgroup writes @ and the group."""
    return [w for w in config.stash[WAIVERS] if nodeid == w.test or nodeid.startswith(f"{w.test}@")]


def read(path: Path) -> list[Waiver]:
    """The waivers of a file. Raises UsageError for a file that is wrong, or not there."""
    from pydantic import TypeAdapter, ValidationError

    try:
        content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        return TypeAdapter(File).validate_python(content).waiver
    except OSError as error:
        raise pytest.UsageError(
            f"cannot read {path}: {error.strerror}; write it or take out gradparity_waivers"
        ) from None
    except ValidationError as error:
        lines = [f"{_place(e['loc'])}: {e['msg'][0].lower()}{e['msg'][1:]}" for e in error.errors()]
        raise pytest.UsageError(f"{path.name}: {'; '.join(lines)}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise pytest.UsageError(f"{path.name}: {error}") from None


def _place(at: Sequence[int | str]) -> str:
    """Where in the file: entries are counted from 1."""
    return " ".join(f"{part + 1}:" if isinstance(part, int) else str(part) for part in at)


def proposed(test: str, found: Sequence[Discrepancy]) -> str:
    """What a waiver for these would say; its reason is left to write."""
    expires = datetime.date.today() + datetime.timedelta(days=DAYS)
    parts = []
    for cause in dict.fromkeys(one.causes[0] for one in found):
        ours = [one for one in found if one.causes[0] == cause]
        quantities = ", ".join(f"{_quoted(one.quantity)}" for one in ours)
        bound = _rounded_up(max(one.size for one in ours))
        parts.append(
            f"[[waiver]]\ntest = {_quoted(test)}\nquantity = [{quantities}]\ncause = {_quoted(cause)}\n"
            f'reason = ""  # to be written\nbound = {bound}  # of {ours[0].of}\nexpires = {expires}\n'
        )
    return "\n".join(parts)


def _quoted(text: str) -> str:
    """A TOML string: JSON's escapes are TOML's too."""
    import json

    return json.dumps(text, ensure_ascii=False)


def _rounded_up(size: float) -> str:
    if not math.isfinite(size):
        return "inf"
    if size == 0:
        return "1e-15"
    grain = 10.0 ** (math.floor(math.log10(size)) - 1)
    return f"{math.ceil(size / grain) * grain:.2g}"
