"""What was run, as tables: cases, networks, conventions, what was skipped, the machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from harness.report.reading import Run
from harness.report.tables import NONE, Table, filled


def cases(run: Run) -> Table:
    """What was trained."""
    return filled(
        {
            "case": name,
            "what it is": case["summary"],
            "mode": case["mode"],
            "steps": f"{case['steps']:,}",
            "data": _text(case.get("data")),
            "seed": _text(case["seed"]),
            "loss": _text(case["loss"]),
            "optimizer": _text(case["optimizer"]),
        }
        for name, case in _cases(run)
    )


def networks(run: Run) -> Table:
    """The nodes of each case's network, in forward order."""
    keys = ("node", "formula", "shape", "parameters")
    return _shared(
        {name: [{k: _text(node.get(k)) for k in keys} for node in case["network"]] for name, case in _cases(run)}
    )


def conventions(run: Run) -> Table:
    """What `native` meant: the number-changing conventions that the reference spoke beside each framework."""
    return _shared(
        {
            name: [
                {"framework": f, "conventions": _text(chosen)} for f, chosen in case["conventions"].items() if chosen
            ]
            for name, case in _cases(run)
        }
    )


def skips(run: Run) -> Table:
    """Cases that a framework did not run, with the reason."""
    return [
        {"case": name, "framework": framework, "skipped because": reason}
        for name, case in _cases(run)
        for framework, reason in case["skipped"].items()
    ]


def environment(run: Run) -> Table:
    """The machine, Python and each framework, with versions, device and flags."""
    known = dict(run.header["environment"])
    frameworks = known.pop("frameworks", {})
    return [{"what": what, "setting": _text(value)} for what, value in (known | frameworks).items()]


def _cases(run: Run) -> Iterable[tuple[str, Mapping[str, Any]]]:
    return run.header["cases"].items()


def _shared(tables: Mapping[str, Table]) -> Table:
    """The cases' tables one below the other, equal ones once; the first row of each names its cases."""
    merged: list[tuple[list[str], Table]] = []
    for name, table in tables.items():
        same = next((names for names, seen in merged if seen == table), None)
        if same is None:
            merged.append(([name], table))
        else:
            same.append(name)
    return [{"case": "" if i else ", ".join(names)} | row for names, table in merged for i, row in enumerate(table)]


def _text(value: Any) -> str:
    """Nested header values on one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return f"({', '.join(_text(inner) for inner in value)})"
    return NONE if value is None else str(value)
