"""The tables of a report: rows of ready text under their headings, the same for Markdown and for the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # it would import pandas, which listing cases does without
    from harness.report.reading import Run

Table = list[dict[str, str]]

VERDICTS = ("different", "undecided", "rounding", "identical")  # the worst first
NONE = "–"
QUANTITIES = 500  # rows of a table that one can still search
CLIPPED = 120
UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def answer(header: Mapping[str, Any]) -> str:
    """Is it the same? One sentence for the whole run, with counts."""
    verdicts = [entry["verdict"] for entry in header["summary"]]
    counts = ", ".join(f"{verdicts.count(v)} {v}" for v in dict.fromkeys([*VERDICTS, *verdicts]) if v in verdicts)
    if not verdicts:
        return "Nothing was compared."
    if header.get("two_models"):
        return _of_two(header, verdicts[0])
    total, to = len(verdicts), "the NumPy reference"
    if different := verdicts.count("different"):
        return f"Not the same: {different} of {total} comparisons with {to} found a difference ({counts})."
    if undecided := verdicts.count("undecided"):
        return f"No difference was found, but {undecided} of {total} comparisons could not be judged ({counts})."
    if verdicts.count("identical") == total:
        return f"The same, bit for bit, in all {total} comparisons with {to}."
    return f"The same: rounding explains every difference from {to} in all {total} comparisons ({counts})."


def _of_two(header: Mapping[str, Any], verdict: str) -> str:
    one, other = header["reference"], header["summary"][0]["framework"]
    return {
        "different": f"Not the same: {other} differs from {one}, and not by rounding.",
        "undecided": f"Not decided: whether {other} computes what {one} does could not be judged.",
        "identical": f"The same, bit for bit: {other} computes what {one} does.",
    }.get(verdict, f"The same: rounding explains every difference of {other} from {one}.")


def worst_verdict(header: Mapping[str, Any]) -> str:
    """The run's worst verdict, `undecided` for a run that compared nothing."""
    verdicts = {entry["verdict"] for entry in header["summary"]}
    return next((verdict for verdict in VERDICTS if verdict in verdicts), "undecided")


def verdicts(header: Mapping[str, Any]) -> Table:
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
        }
        for entry in header["summary"]
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


def causes(header: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was found as the reason of a difference, the proven ones first; unknown ones only where no map of the
    weights is proven."""
    rank = {"proven": 0, "likely": 1}
    mapped = {own["place"] for own in header.get("own", ()) if own.get("why")}
    found = [c for c in header.get("causes") or () if c.get("status") in rank or c.get("where") not in mapped]
    return sorted(found, key=lambda cause: rank.get(cause.get("status", ""), 2))


def reasons(header: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Own errors whose reason is proven by a right map of the weights, where no cause says so already."""
    told = {cause.get("where") for cause in causes(header) if cause.get("status") == "proven"}
    return [own for own in header.get("own", ()) if own.get("why") and own["place"] not in told]


def own_errors(header: Mapping[str, Any]) -> Table:
    """Places that differ by themselves, not by what came before: of two models."""
    return [
        {
            "place": own["place"],
            "in the candidate": "" if own["candidate_place"] == own["place"] else own["candidate_place"],
            "step": f"{own['step']:,}",
            "what was found": own["text"],
            "why": own.get("why", ""),
        }
        for own in header.get("own", ())
    ]


def judged(run: Run) -> Table:
    """How many quantities of how many steps had each verdict, and why, by framework."""
    keys = ["verdict", "because", "framework"]
    rows = run.counts.groupby(keys, observed=True, sort=False)["rows"].sum()
    return [
        {"verdict": verdict, "because": because} | {name: f"{count:,.0f}" for name, count in counts.items()}
        for (verdict, because), counts in rows.unstack(fill_value=0).iterrows()
    ]


def convergence(header: Mapping[str, Any]) -> Table:
    """Where each training ended and how soon it reached the stated losses."""
    return filled(
        {
            "case": entry["case"],
            "framework": entry["framework"],
            "final loss": number(entry.get("final_loss"), ".5g"),
            "accuracy": number(entry.get("accuracy"), ".1%"),
            "final gradient norm": number(entry.get("gradient_norm")),
            "distance in float64": number(entry.get("distance64")),
            "end point": entry.get("end_point") or NONE,
            "steps to reach a loss": _reached(entry.get("steps_to_loss"), lambda steps: f"{steps:,}"),
            "time to reach it": _reached(entry.get("seconds_to_loss"), duration),
        }
        for entry in header["summary"]
    )


def cost(header: Mapping[str, Any]) -> Table:
    """Time and memory of each side's training."""
    return filled(
        {
            "case": entry["case"],
            "framework": entry["framework"],
            "mode": entry["mode"],
            "time per step": duration(entry.get("seconds_per_step")),
            "the reference's": duration(entry.get("reference_seconds_per_step")),
            "recorded per step": size(entry.get("bytes_per_step")),
            "memory grew by": size(entry.get("memory_growth")),
        }
        for entry in header["summary"]
    )


def quantities(run: Run) -> tuple[Table, int]:
    """Each quantity over all steps, at most QUANTITIES of them, the worst ones; and how many there are."""
    rows = run.quantities
    order = rows.sort_values(["bad", "worst"], ascending=False, kind="stable", na_position="last")
    shown = rows.loc[sorted(order.index[:QUANTITIES])]
    table = [
        {
            "case": clipped(row.case),
            "framework": clipped(row.framework),
            "kind": row.kind.replace("_", " "),
            "quantity": clipped(row.name),
            "verdict": row.verdict if row.bad else NONE,
            "because": clipped(row.because),
            "at step": f"{row.step:,.0f}",
            "median ratio": number(row.median),
            "worst ratio": number(row.worst),
            "digits": digits(row.digits),
        }
        for row in shown.itertuples()
    ]
    return table, len(rows)


def state(run: Run) -> Table:
    """Optimizer slots and running statistics, where there are any."""
    rows = run.quantities[run.quantities["kind"].isin(["slot", "buffer"])]
    return [
        {
            "case": clipped(row.case),
            "framework": clipped(row.framework),
            "kind": row.kind,
            "quantity": clipped(row.name),
            "verdict": row.verdict if row.bad else NONE,
            "median size": number(row.reference),
            "in the candidate": number(row.candidate),
            "worst ratio": number(row.worst),
            "digits": digits(row.digits),
        }
        for row in rows.iloc[:QUANTITIES].itertuples()
    ]


def notes(header: Mapping[str, Any]) -> Table:
    """Remarks of the judge that change no verdict."""
    return [
        {"case": entry["case"], "framework": entry["framework"], "note": note}
        for entry in header["summary"]
        for note in entry["notes"]
    ]


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


def size(count: float | None) -> str:
    """Memory with the unit that suits it."""
    if count is None or not math.isfinite(count):
        return NONE
    unit = next((unit for unit in ("GiB", "MiB", "KiB") if count >= UNITS[unit]), "B")
    return f"{count / UNITS.get(unit, 1):.3g} {unit}"


def clipped(text: str) -> str:
    """A long name's two ends: for tables that repeat it in every row."""
    return text if len(text) <= CLIPPED else f"{text[: CLIPPED // 2]}…{text[-CLIPPED // 2 :]}"


def _reached(goals: Mapping[str, Any] | None, form: Callable[[Any], str]) -> str:
    reached = [f"{loss}: {'not reached' if when is None else form(when)}" for loss, when in (goals or {}).items()]
    return "; ".join(reached) or NONE


def filled(rows: Iterable[dict[str, str]]) -> Table:
    """Without the columns in which nothing is known."""
    table = list(rows)
    empty = {heading for heading in (table[0] if table else {}) if all(row[heading] == NONE for row in table)}
    return [{heading: text for heading, text in row.items() if heading not in empty} for row in table]


def _at(name: str, step: int | None) -> str:
    return name if step is None else f"{name} at step {step}"
