"""The tables of a report: rows of ready text under their headings, the same for Markdown and for the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from harness.report.reading import Run

Table = list[dict[str, str]]

VERDICTS = ("different", "undecided", "rounding", "identical")  # the worst first
NONE = "–"


def answer(run: Run) -> str:
    """Is it the same? One sentence for the whole run, with counts."""
    verdicts = [entry["verdict"] for entry in run.header["summary"]]
    counts = ", ".join(f"{verdicts.count(v)} {v}" for v in dict.fromkeys([*VERDICTS, *verdicts]) if v in verdicts)
    total = len(verdicts)
    if not verdicts:
        return "Nothing was compared."
    if different := verdicts.count("different"):
        return (
            f"Not the same: {different} of {total} comparisons with the NumPy reference found a difference ({counts})."
        )
    if undecided := verdicts.count("undecided"):
        return f"No difference was found, but {undecided} of {total} comparisons could not be judged ({counts})."
    if verdicts.count("identical") == total:
        return f"The same, bit for bit, in all {total} comparisons with the NumPy reference."
    return (
        f"The same: rounding explains every difference from the NumPy reference in all {total} comparisons ({counts})."
    )


def worst_verdict(run: Run) -> str:
    """The run's worst verdict, `undecided` for a run that compared nothing."""
    verdicts = {entry["verdict"] for entry in run.header["summary"]}
    return next((verdict for verdict in VERDICTS if verdict in verdicts), "undecided")


def verdicts(run: Run) -> Table:
    """One row for each case and framework."""
    return [
        {
            "case": entry["case"],
            "framework": entry["framework"],
            "verdict": entry["verdict"],
            "because": entry["because"] or "",
            "mode": entry["mode"],
            "worst quantity": _at(entry["worst"], entry["step"]) if entry["worst"] else NONE,
            "ratio to budget": number(entry["ratio"]),
            "digits": digits(entry["digits"]),
            "final loss": number(entry["final_loss"], ".5g"),
            "accuracy": number(entry["accuracy"], ".1%"),
            "time per step": duration(entry["seconds_per_step"]),
        }
        for entry in run.header["summary"]
    ]


def divergences(run: Run) -> Table:
    """Where each pair that differs first does, with the frame's numbers there."""
    table: Table = []
    for entry in run.header["summary"]:
        stated = entry.get("first_divergence")
        row = run.divergences.get((entry["case"], entry["framework"]))
        if stated or row:
            table.append(_divergence(entry, stated or {}, row or {}))
    return table


def _divergence(entry: Mapping[str, Any], stated: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, str]:
    place = _at(stated.get("name") or row["name"], stated.get("step", row.get("step")))
    return {
        "case": entry["case"],
        "framework": entry["framework"],
        "first divergence": f"{place}, index {row['worst_index']}" if row.get("worst_index") else place,
        "because": row.get("because") or entry["because"] or "",
        "what was found": stated.get("text") or row.get("detail") or "",
        "reference": number(row.get("reference"), ".9g"),
        "candidate": number(row.get("candidate"), ".9g"),
        "difference in float64": number(row.get("d64")),
        "rounding explains": number(row.get("budget")),
        "ratio to budget": number(row.get("ratio")),
        "digits": digits(row.get("digits")),
    }


def judged(run: Run) -> Table:
    """How many quantities of how many steps had each verdict, and why, by framework."""
    keys = ["verdict", "because", "framework"]
    rows = run.counts.groupby(keys, observed=True, sort=False)["rows"].sum()
    return [
        {"verdict": verdict, "because": because} | {name: f"{count:,.0f}" for name, count in counts.items()}
        for (verdict, because), counts in rows.unstack(fill_value=0).iterrows()
    ]


def convergence(run: Run) -> Table:
    """Where each training ended and how soon it reached the stated losses."""
    return [
        {
            "case": entry["case"],
            "framework": entry["framework"],
            "final loss": number(entry["final_loss"], ".5g"),
            "end point": entry["end_point"] or NONE,
            "steps to reach a loss": "; ".join(
                f"{loss}: {'not reached' if steps is None else f'{steps:,}'}"
                for loss, steps in (entry["steps_to_loss"] or {}).items()
            )
            or NONE,
        }
        for entry in run.header["summary"]
    ]


def cases(run: Run) -> Table:
    """What was trained."""
    return [
        {
            "case": name,
            "what it is": case["summary"],
            "mode": case["mode"],
            "steps": f"{case['steps']:,}",
            "seed": str(case["seed"]),
            "loss": case["loss"],
            "optimizer": case["optimizer"],
        }
        for name, case in _cases(run)
    ]


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


def notes(run: Run) -> Table:
    """Remarks of the judge that change no verdict."""
    return [
        {"case": entry["case"], "framework": entry["framework"], "note": note}
        for entry in run.header["summary"]
        for note in entry["notes"]
    ]


def environment(run: Run) -> Table:
    """The machine, Python and each framework, with versions, device and flags."""
    known = dict(run.header["environment"])
    frameworks = known.pop("frameworks", {})
    return [{"what": what, "setting": _text(value)} for what, value in (known | frameworks).items()]


def number(value: float | None, form: str = ".3g") -> str:
    """A number as text, a dash for none."""
    return NONE if value is None or math.isnan(value) else format(value, form)


def digits(value: float | None) -> str:
    """Decimal digits in agreement."""
    return "all" if value == math.inf else number(value, ".1f")


def duration(seconds: float | None) -> str:
    """A time with the unit that suits it."""
    if seconds is None or not math.isfinite(seconds):
        return NONE
    return next((f"{seconds / unit:.3g} {name}" for unit, name in ((1, "s"), (1e-3, "ms")) if seconds >= unit), "") or (
        f"{seconds * 1e6:.3g} µs"
    )


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


def _at(name: str, step: int | None) -> str:
    return name if step is None else f"{name} at step {step}"


def _text(value: Any) -> str:
    """Nested header values on one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return f"({', '.join(_text(inner) for inner in value)})"
    return NONE if value is None else str(value)
