"""What a comparison found that a test must answer for, one by one, so that none hides behind another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.asserting import Compared
    from harness.comparison import Comparison
    from harness.gradients.result import GradientCheck

RUN = "run"
"""The quantity of what is judged on a run as a whole."""

OF_A_RUN = ("chaotic", "nondeterministic")
UNKNOWN = "unknown"
GRADIENT = "gradient"


@dataclass(frozen=True, slots=True, kw_only=True)
class Discrepancy:
    """A quantity that differs by itself, or that could not be judged, for one cause.

    quantity: the place of the divergence (`forward:conv1`), the name of an undecided quantity, or "run". causes: ids of
    the table of causes, or the reason, of which any may be named. size: the largest difference in either precision, of
    any step, over the quantity's largest entry; infinite where a number is not finite. of: what size is relative to.
    """

    quantity: str
    causes: tuple[str, ...]
    size: float
    step: int
    of: str = "the largest element"


def discrepancies(result: Compared) -> list[Discrepancy]:
    """All that keeps a comparison from being `identical` or `rounding`.

    Of two models, inherited differences follow from their own errors, and are left out. Of traces it cannot be told
    what was inherited: each quantity stands for itself, with any cause that was found.
    """
    from harness.asserting import GOOD
    from harness.comparison import Comparison

    frame = _with_sizes(result.frame)
    found = list(_own(result, frame)) if isinstance(result, Comparison) else []
    if not found:
        causes = dict.fromkeys(id for cause in result.causes for id in (cause.id or UNKNOWN, *cause.same))
        found += _rows(frame[frame["verdict"] == "different"], tuple(causes))
    undecided = frame[frame["verdict"] == "undecided"]
    whole = undecided["because"].isin(OF_A_RUN)
    for because, rows in undecided[whole].groupby("because", observed=True):
        size, step = float(rows["size"].max()), int(rows["step"].min())
        found.append(Discrepancy(quantity=RUN, causes=(str(because),), size=size, step=step))
    found += _rows(undecided[~whole])
    if not found and result.verdict not in GOOD:  # whatever it is, it is not to pass unseen
        return [Discrepancy(quantity=RUN, causes=(result.because or UNKNOWN,), size=float("inf"), step=0)]
    return found


def _with_sizes(frame: Any) -> Any:
    """The rows that count, with the relative size of each difference."""
    import numpy as np

    judged = frame[(frame["kind"] != "slot") & (frame["because"] != "missing")]
    largest = judged[["reference", "candidate"]].abs().max(axis=1).to_numpy(float)
    gaps = judged[["d32", "d64"]].max(axis=1, skipna=False).to_numpy(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        sizes = np.where(gaps == 0, 0.0, gaps / largest)
    return judged.assign(size=np.nan_to_num(sizes, nan=np.inf, posinf=np.inf))


def _own(result: Comparison, frame: Any) -> Iterator[Discrepancy]:
    """Each own error with each cause found there; one without a cause of its own goes with the causes found."""
    places = [own.place for own in result.own]
    at: dict[str, list[tuple[str, ...]]] = {place: [] for place in places}
    for cause in result.causes:
        at[cause.where if cause.where in at else places[0]].append((cause.id or UNKNOWN, *cause.same))
    everywhere = tuple(dict.fromkeys(id for ids in at.values() for one in ids for id in one))
    for own in result.own:
        rows = frame[frame["name"] == own.name]
        because = rows.loc[rows["step"] == own.step, "because"].iloc[0] if len(rows) else ""
        for causes in at[own.place] or [everywhere or (because or UNKNOWN,)]:
            yield Discrepancy(quantity=own.place, causes=causes, size=_largest(rows), step=own.step)


def _largest(rows: Any) -> float:
    return float(rows["size"].max()) if len(rows) else float("inf")


def _rows(frame: Any, causes: tuple[str, ...] = ()) -> list[Discrepancy]:
    """Quantities of the frame that stand for themselves; causes: of any of them."""
    return [
        Discrepancy(
            quantity=name, causes=causes or (because or UNKNOWN,), size=_largest(rows), step=int(rows["step"].min())
        )
        for (name, because), rows in frame.groupby(["name", "because"], sort=False, observed=True)
    ]


def of_gradient(result: GradientCheck) -> Discrepancy:
    """What a check of a gradient that does not pass must answer for: the input and the kind of error."""
    quantity = GRADIENT if result.where is None else f"{GRADIENT} of input {result.where[0]}"
    cause = result.pattern or (UNKNOWN if result.verdict == "fail" else result.verdict)
    size = result.error if result.verdict == "fail" else float("inf")
    return Discrepancy(quantity=quantity, causes=(cause,), size=size, step=0, of="the gradient along a direction")
