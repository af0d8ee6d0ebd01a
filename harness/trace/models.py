"""A user's own model, trained as `harness.compare` trains it, written down step by step; and steps read back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import frameworks as registry
from frameworks.protocol import Watched
from harness import recipe as recipes
from harness.case import PRECISIONS, HarnessError, Precision
from harness.feeding import feeds
from harness.following import Follower, Taken, states_after, take
from harness.planning import same_start
from harness.recipe import Recipe, Record, State
from harness.trace.header import Model, Parameter, Thinning
from harness.trace.reading import Trace, read_trace
from harness.trace.recorded import checksum_of, environment_of, keyed
from harness.trace.thinning import NUMBERS, Fingerprint
from harness.trace.writing import Writer

Key = tuple[str, str]
"""Kind and name of a quantity."""

Pair = tuple[np.ndarray, np.ndarray]
"""A tensor in float32 and in float64."""


def record_model(
    side: Recipe, folder: Path, x: Any, y: Any, *, steps: int, batch_size: int | None, thinning: Thinning
) -> Trace:
    """Train a model in both precisions and write every step. steps: 0 is inference only. Raises HarnessError."""
    kind = registry.framework_of(side)
    feed = feeds((side, side), x, y, steps, batch_size, None, None)[0]
    watched: dict[Precision, Watched] = {p: registry.recorder(kind)(side, p, steps == 0) for p in PRECISIONS}
    follower = Follower(name=side.name or kind, framework=kind, watched=watched, feed=feed)
    parameters = watched["float64"].parameters
    states, order = same_start((follower, follower))[0], dict[Key, None]()
    outputs: tuple[str, ...] = ()
    with Writer(folder) as writer:
        for step in range(max(steps, 1)):
            taken = take(follower, step, states)
            states, outputs = states_after(follower, taken), taken.records["float64"].outputs
            tensors = {}
            for (what, name), both in _shown(taken, parameters):
                order[what, name] = None
                if thinning.thins or what != "update":
                    tensors |= keyed(thinning, step, what, name, [of[None] for of in both])
            for (what, name), both in _state(taken.before, parameters) if step == 0 else ():
                tensors |= keyed(_start(thinning), 0, f"before_{what}", name, [of[None] for of in both])
            writer.add(step, 1, tensors)
        writer.finish(
            name=follower.name,
            framework=kind,
            model=Model(
                parameters=tuple(_plain(parameter) for parameter in parameters),
                outputs=outputs,
                order=tuple("/".join(key) for key in order),
                batch_size=batch_size,
                inference=steps == 0,
            ),
            data=checksum_of(*feed.inputs, *feed.targets, *([] if feed.weights is None else [feed.weights])),
            seed=None,
            steps=max(steps, 1),
            thinning=thinning,
            environment=environment_of(kind),
        )
    return read_trace(folder)


def _start(thinning: Thinning) -> Thinning:
    """The start is kept but for tensors that are too large."""
    return Thinning(above=thinning.above)


def _plain(parameter: recipes.Parameter) -> Parameter:
    return Parameter(**{name: getattr(parameter, name) for name in Parameter.model_fields})


def _shown(taken: Taken, parameters: tuple[recipes.Parameter, ...]) -> Iterator[tuple[Key, Pair]]:
    """All that a step showed, in the order of the computation: forward; loss; backward, each parameter's gradient
    behind its layer's; update; state."""
    low, high = (taken.records[p] for p in PRECISIONS)
    for name in high.activations:
        if name in low.activations:
            yield ("activation", name), (low.activations[name], high.activations[name])
    if low.loss is not None and high.loss is not None:
        yield ("loss", "loss"), (low.loss, high.loss)
    waiting = [p for p in parameters if high.gradients.get(p.name) is not None]
    for name in [*reversed([*high.activations]), None]:
        if name in high.cotangents and name in low.cotangents:
            yield ("activation_gradient", f"dL/d{name}"), (low.cotangents[name], high.cotangents[name])
        for parameter in [p for p in waiting if p.layer == name or name is None]:
            waiting.remove(parameter)
            one, other = low.gradients.get(parameter.name), high.gradients[parameter.name]
            if one is not None and other is not None:
                yield ("gradient", f"dL/d{parameter.name}"), (one, other)
    if high.after is None or low.after is None:
        return
    after = {precision: state for precision, state in zip(PRECISIONS, (low.after, high.after), strict=True)}
    for parameter in parameters:
        if not parameter.buffer:
            one, other = (after[p].values[parameter.name] - taken.before[p].values[parameter.name] for p in PRECISIONS)
            yield ("update", f"update:{parameter.name}"), (one, other)
    yield from _state(after, parameters)


def _state(states: Mapping[Any, State], parameters: tuple[recipes.Parameter, ...]) -> Iterator[tuple[Key, Pair]]:
    low, high = (states[p] for p in PRECISIONS)
    for slot, of in high.slots.items():
        for name in of:
            if name in low.slots.get(slot, {}):
                yield ("slot", f"{slot}:{name}"), (low.slots[slot][name], of[name])
    for parameter in parameters:
        both = low.values[parameter.name], high.values[parameter.name]
        yield ("buffer" if parameter.buffer else "parameter", parameter.name), both


# --- read back --------------------------------------------------------------------------------------------------

Entries = dict[Key, Pair | Fingerprint]


def entries(trace: Trace, step: int) -> Entries:
    """What was recorded of a step, updates included."""
    found: dict[Key, dict[str, np.ndarray]] = {}
    for block in trace.blocks(step, 1):
        found.setdefault((block.kind, block.name), {})[block.precision] = block.values[step - block.first]
    return {key: _entry(trace, key, of) for key, of in found.items()}


def with_updates(now: Entries, last: Entries) -> Entries:
    """With the updates that follow from the parameters; last: the step before, or for the first this one."""
    found = dict(now)
    for (kind, name), of in now.items():
        before = last.get(("before_parameter" if last is now else "parameter", name))
        if kind == "parameter" and isinstance(of, tuple) and isinstance(before, tuple):
            one, other = (a - b for a, b in zip(of, before, strict=True))
            _ = found.setdefault(("update", f"update:{name}"), (one, other))
    return found


def _entry(trace: Trace, key: Key, of: Mapping[str, np.ndarray]) -> Pair | Fingerprint:
    where = f"{trace.folder}: {'/'.join(key)[:99]}"
    if set(of) == set(PRECISIONS):
        low, high = (of[p] for p in PRECISIONS)
        fits = all(a.dtype.kind != "f" or a.dtype == p for a, p in zip((low, high), PRECISIONS, strict=True))
        if low.shape == high.shape and fits:
            return low, high
    elif set(of) == {"fingerprint", "digest"}:
        found = Fingerprint(of["fingerprint"], of["digest"])
        if found.numbers.shape == (2, NUMBERS) and found.digests.shape == (2, 16):
            return found
    raise HarnessError(f"{where} is neither a tensor in float32 and float64 nor a fingerprint; record it again")


def taken_at(trace: Trace, now: Entries, last: Entries) -> Taken:
    """A recorded step as it was taken; last: the step before, or for the first this one. Raises HarnessError where a
    fingerprint is all that was kept of a tensor."""
    for (kind, name), of in now.items():
        if isinstance(of, Fingerprint):
            raise HarnessError(f"{trace.folder} has only a fingerprint of {kind} {name}; record it in full")
    if last is now:
        last = {(kind[7:], name): of for (kind, name), of in now.items() if kind.startswith("before_")}
    model = trace.header.model
    assert model
    records = dict[Precision, Record]()
    for i, precision in enumerate(PRECISIONS):
        after = _state_of(now, i)
        records[precision] = Record(
            activations=_named(now, "activation", i),
            outputs=model.outputs,
            loss=_named(now, "loss", i).get("loss"),
            cotangents=_named(now, "activation_gradient", i),
            gradients=_named(now, "gradient", i),
            after=after if after.values else None,
        )
    before: dict[Precision, State] = {precision: _state_of(last, i) for i, precision in enumerate(PRECISIONS)}
    return Taken(before=before, records=records, updates=bool(_named(now, "slot", 0) or _named(now, "parameter", 0)))


def _named(found: Mapping[Key, Any], kind: str, i: int) -> dict[str, np.ndarray]:
    """The quantities of a kind, by the name of what they belong to."""
    return {name.removeprefix("dL/d"): of[i] for (what, name), of in found.items() if what == kind}


def _state_of(found: Mapping[Key, Any], i: int) -> State:
    slots: dict[str, dict[str, np.ndarray]] = {}
    for (kind, name), of in found.items():
        if kind == "slot":
            slot, _, parameter = name.partition(":")
            slots.setdefault(slot, {})[parameter] = of[i]
    values = {name: of[i] for (kind, name), of in found.items() if kind in ("parameter", "buffer")}
    return State(values=values, slots=slots)
