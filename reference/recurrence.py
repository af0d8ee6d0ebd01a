"""Recurrent layers, and backpropagation through time.

    forward(op, x, mask, *initial states, W, U, b, c) -> y
    backward(op, dy, y, ...the same) -> gradients in that order, None for the mask

Every cell reads a_t = W x_t + b, computed for all steps at once, and the states before; only this file's `_run` and
`_run_back` know about time, masks and direction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.ops import GRU, LSTM, SimpleRNN
from reference.pointwise import pulled, value
from reference.shaping import masks_apart

Array = np.ndarray
States = tuple[Array, ...]
Op = SimpleRNN | LSTM | GRU

# --- cells ------------------------------------------------------------------------------------------------------
# step(op, a, states, U, c) -> (next states, what the backward step needs)
# step_back(op, d(next states), states, U, c, kept) -> (da, d(states), dU, dc)


def simple_step(op: SimpleRNN, a: Array, states: States, U: Array, c: Array) -> tuple[States, Any]:
    # h' = f(a + U h + c)
    s = a + states[0] @ U.T + c
    h = value(op.activation, s)
    return (h,), (s, h)


def simple_step_back(op: SimpleRNN, d: States, states: States, U: Array, c: Array, kept: Any) -> tuple[Any, ...]:
    s, h = kept
    ds = pulled(op.activation, d[0], h, s)
    return ds, (ds @ U,), ds.T @ states[0], ds.sum(axis=0)


def lstm_step(op: LSTM, a: Array, states: States, U: Array, c: Array) -> tuple[States, Any]:
    h, cell = states
    s = _blocks(op.gates, a + h @ U.T + c)
    s["f"] = s["f"] + op.forget_offset
    gate = {name: value(op.activation if name == "g" else op.recurrent_activation, z) for name, z in s.items()}
    # c' = f c + i g, h' = o φ(c')
    new = gate["f"] * cell + gate["i"] * gate["g"]
    squashed = value(op.output_activation, new)
    return (gate["o"] * squashed, new), (s, gate, new, squashed)


def lstm_step_back(op: LSTM, d: States, states: States, U: Array, c: Array, kept: Any) -> tuple[Any, ...]:
    (dh, dnew), (h, cell), (s, gate, new, squashed) = d, states, kept
    # h' = o φ(c'): do = dh φ, dc' += dh o φ'
    dnew = dnew + pulled(op.output_activation, dh * gate["o"], squashed, new)
    # c' = f c + i g
    dgate = {"i": dnew * gate["g"], "f": dnew * cell, "g": dnew * gate["i"], "o": dh * squashed}
    ds = {
        name: pulled(op.activation if name == "g" else op.recurrent_activation, dgate[name], gate[name], s[name])
        for name in op.gates
    }
    da = _joined(op.gates, ds)
    return da, (da @ U, dnew * gate["f"]), da.T @ h, da.sum(axis=0)


def gru_step(op: GRU, a: Array, states: States, U: Array, c: Array) -> tuple[States, Any]:
    (h,) = states
    s, k = _blocks(op.gates, a), _blocks(op.gates, h @ U.T + c)
    sr, sz = s["r"] + k["r"], s["z"] + k["z"]
    r, z = value(op.recurrent_activation, sr), value(op.recurrent_activation, sz)
    if op.reset_after:
        inner = k["n"]
        sn = s["n"] + r * inner
    else:
        inner = r * h
        sn = s["n"] + inner @ _rows(op, U, "n").T + (c if c.ndim == 0 else _rows(op, c, "n"))
    n = value(op.activation, sn)
    new = z * h + (1 - z) * n if op.update == "keeps" else (1 - z) * h + z * n
    return (new,), (sr, sz, sn, r, z, n, inner)


def gru_step_back(op: GRU, d: States, states: States, U: Array, c: Array, kept: Any) -> tuple[Any, ...]:
    (dnew,), (h,), (sr, sz, sn, r, z, n, inner) = d, states, kept
    # h' = z h + (1 - z) n, or with z and 1 - z changed about
    keep, sign = (z, 1) if op.update == "keeps" else (1 - z, -1)
    dsz = pulled(op.recurrent_activation, sign * dnew * (h - n), z, sz)
    dsn = pulled(op.activation, dnew * (1 - keep), n, sn)
    if op.reset_after:
        # sn = a_n + r k_n, k = U h + c
        dsr = pulled(op.recurrent_activation, dsn * inner, r, sr)
        dk = _joined(op.gates, {"r": dsr, "z": dsz, "n": dsn * r})
        dh, dU, dc = dk @ U, dk.T @ h, dk.sum(axis=0)
    else:
        # sn = a_n + U_n (r h) + c_n
        dinner = dsn @ _rows(op, U, "n")
        dsr = pulled(op.recurrent_activation, dinner * h, r, sr)
        read = {"r": h, "z": h, "n": inner}
        ds = {"r": dsr, "z": dsz, "n": dsn}
        dU = np.concatenate([ds[name].T @ read[name] for name in op.gates])
        dc = _joined(op.gates, ds).sum(axis=0)
        dh = dinner * r + dsr @ _rows(op, U, "r") + dsz @ _rows(op, U, "z")
    return _joined(op.gates, {"r": dsr, "z": dsz, "n": dsn}), (dnew * keep + dh,), dU, dc


def _blocks(gates: str, a: Array) -> dict[str, Array]:
    return dict(zip(gates, np.split(a, len(gates), axis=-1), strict=True))


def _joined(gates: str, parts: Mapping[str, Array]) -> Array:
    return np.concatenate([parts[name] for name in gates], axis=-1)


def _rows(op: GRU, U: Array, gate: str) -> Array:
    units = len(U) // len(op.gates)
    return U[op.gates.index(gate) * units :][:units]


CELLS: Mapping[type, tuple[int, Callable[..., tuple[States, Any]], Callable[..., tuple[Any, ...]]]] = {
    SimpleRNN: (1, simple_step, simple_step_back),
    LSTM: (2, lstm_step, lstm_step_back),
    GRU: (1, gru_step, gru_step_back),
}
"""Number of states, step, step backward."""

# --- time -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Unrolled:
    """What a layer reads, time first: x (time, batch, features), mask (time, batch, 1) or None; c is 0 where there is
    none. masks, states: how many are given, used or not. order: the steps as they are run."""

    x: Array
    mask: Array | None
    initial: States
    W: Array
    U: Array
    b: Array
    c: Array
    masks: int
    states: int
    order: Sequence[int]


def _read(op: Op, x: Array, rest: Sequence[Array]) -> Unrolled:
    masks, given = masks_apart(op.masked, rest)
    split = len(given) - op.biases - 2
    states, (W, U, *biases) = given[:split], given[split:]
    x = np.moveaxis(x, op.time_axis, 0)
    zero = np.zeros((), x.dtype)
    b, c = (*biases, zero, zero)[:2]
    start = np.zeros((x.shape[1], U.shape[1]), x.dtype)
    return Unrolled(
        x=x,
        mask=np.moveaxis(masks[0], op.time_axis, 0).astype(bool)[..., None] if op.masked else None,
        initial=states if op.initial else (start,) * CELLS[type(op)][0],
        W=W,
        U=U,
        b=b,
        c=c,
        masks=len(masks),
        states=len(states),
        order=range(len(x))[:: -1 if op.reverse else 1],
    )


def _run(op: Op, by: Unrolled) -> tuple[Array, States, list[tuple[States, Any]]]:
    """Outputs (time, batch, units), the last states, and of each step run the states before and what it kept."""
    step = CELLS[type(op)][1]
    a = by.x @ by.W.T + by.b
    states, output = by.initial, np.zeros_like(by.initial[0])
    outputs = np.empty((len(by.x), *output.shape), output.dtype)
    steps = []
    for t in by.order:
        new, kept = step(op, a[t], states, by.U, by.c)
        steps.append((states, kept))
        if by.mask is None:
            states, output = new, new[0]
        else:
            output = np.where(by.mask[t], new[0], output if op.masked_output == "carry" else np.zeros_like(output))
            states = tuple(np.where(by.mask[t], n, old) for n, old in zip(new, states, strict=True))
        outputs[t] = output
    return outputs, states, steps


def recurrent(op: Op, x: Array, *rest: Array) -> Array:
    by = _read(op, x, rest)
    outputs, states, _ = _run(op, by)
    match op.returns:
        case "all":
            return np.moveaxis(outputs, 0, op.time_axis)
        case "last":
            return outputs[-1]
        case "final":
            return outputs[by.order[-1]]
        case "state":
            return states[0]
        case "cell":
            return states[1]


def recurrent_backward(op: Op, dy: Array, y: Array, x: Array, *rest: Array) -> tuple[Array | None, ...]:
    by = _read(op, x, rest)
    outputs, states, steps = _run(op, by)
    doutputs, dstates = np.zeros_like(outputs), [np.zeros_like(state) for state in states]
    match op.returns:
        case "all":
            doutputs[...] = np.moveaxis(dy, op.time_axis, 0)
        case "last":
            doutputs[-1] = dy
        case "final":
            doutputs[by.order[-1]] = dy
        case "state":
            dstates[0] = dy
        case "cell":
            dstates[1] = dy
    da, dstates, dU, dc = _run_back(op, by, steps, doutputs, dstates)
    # a_t = W x_t + b
    rows, da_rows = by.x.reshape(-1, by.x.shape[-1]), da.reshape(-1, da.shape[-1])
    dx = np.moveaxis(da @ by.W, 0, op.time_axis)
    biases = (da_rows.sum(axis=0), dc)[: op.biases]
    dinitial = [d * op.initial for d in dstates[: by.states]]
    return (dx, *(None,) * by.masks, *dinitial, da_rows.T @ rows, dU, *biases)


def _run_back(
    op: Op, by: Unrolled, steps: list[tuple[States, Any]], doutputs: Array, dstates: list[Array]
) -> tuple[Array, list[Array], Array, Array]:
    """da of every step, the gradients of the initial states, dU and dc: each step adds its own part to the last two."""
    step_back = CELLS[type(op)][2]
    da = np.empty((*doutputs.shape[:2], len(by.W)), doutputs.dtype)
    dU, dc = np.zeros_like(by.U), np.zeros(len(by.U), by.U.dtype)
    dcarried = np.zeros_like(doutputs[0])
    for t, (states, kept) in zip(reversed(by.order), reversed(steps), strict=True):
        doutput, passed = doutputs[t], [np.zeros_like(d) for d in dstates]
        if by.mask is not None:
            # a masked step handed on the states, and with "carry" the output, before it
            zero = np.zeros_like(doutput)
            doutput = doutput + dcarried
            dcarried = np.where(by.mask[t], zero, doutput) if op.masked_output == "carry" else zero
            doutput = np.where(by.mask[t], doutput, zero)
            passed = [np.where(by.mask[t], zero, d) for d in dstates]
            dstates = [np.where(by.mask[t], d, zero) for d in dstates]
        dnew = (dstates[0] + doutput, *dstates[1:])
        da[t], dbefore, dU_t, dc_t = step_back(op, dnew, states, by.U, by.c, kept)
        dstates = [past + d for past, d in zip(passed, dbefore, strict=True)]
        dU += dU_t
        dc += dc_t
    return da, dstates, dU, dc


# --- the table --------------------------------------------------------------------------------------------------

LAYERS: Mapping[type, tuple[Callable[..., Array], Callable[..., tuple[Any, ...]]]] = {
    op: (recurrent, recurrent_backward) for op in CELLS
}
