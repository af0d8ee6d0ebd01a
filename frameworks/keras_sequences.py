"""Keras's recurrent and attention layers in the words of the reference (keras 3.15: src/layers/rnn and attention)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from frameworks.keras_functions import activation_of
from frameworks.keras_reading import Array, Reading, Seen, Weight, same
from harness import ops

Reader = Callable[[Seen], Reading | None]

# --- recurrence -------------------------------------------------------------------------------------------------


def _recurrent(seen: Seen) -> Reading | None:
    """Kernels are (features, gates units). A layer that goes backwards gives the steps as it takes them.

    Its further results are the states: h, and c of an LSTM.
    """
    layer: Any = seen.made
    cell = layer.cell
    build = _CELLS.get(type(cell))
    drops = seen.given["training"] and (cell.dropout or cell.recurrent_dropout) if build else False
    mask = seen.given["mask"]
    mask = mask[0] if isinstance(mask, list | tuple) else mask
    zero = mask is not None and layer.zero_output_for_mask
    if build is None or drops:
        return None
    shown = ("all" if layer.return_sequences else "final", "state", "cell")[seen.index]
    states = _initial(seen)
    given = _cell_weights(seen, cell)
    op = build(
        cell,
        biases=len(given) - 2,
        time_axis=1,
        reverse=layer.go_backwards,
        masked=mask is not None,
        masked_output="zero" if zero else "carry",
        initial=bool(states),
        returns=shown,
    )
    inputs = (seen.x[0], *([mask.astype(bool)] if mask is not None else []), *states)
    canonical = _backwards if shown == "all" and layer.go_backwards else same
    return op and Reading(ops=(op,), inputs=inputs, weights=(given,), canonical=canonical, image=False)


def _backwards(array: Array) -> Array:
    return array[:, ::-1]


def _initial(seen: Seen) -> list[Array]:
    """The states that a layer begins with, where they are not 0 by themselves."""
    given = seen.given["initial_state"]
    if given is None and seen.made.stateful:
        return [seen.value(state) for state in keras.tree.flatten(seen.made.states)]
    return [] if given is None else [np.asarray(state) for state in keras.tree.flatten(given)]


def _cell_weights(seen: Seen, cell: Any) -> tuple[Weight, ...]:
    """Kernels, then one bias, or the two rows of a GRU that resets after."""
    kernels = (seen.weight(cell.kernel, 1, 0), seen.weight(cell.recurrent_kernel, 1, 0))
    if cell.bias is None:
        return kernels
    value, name = seen.weight(cell.bias)
    return (*kernels, *((row, name) for row in np.atleast_2d(value)))


def _simple(cell: Any, **common: Any) -> Any:
    activation = activation_of(cell.activation)
    return activation and ops.SimpleRNN(activation=activation, **common)


def _lstm(cell: Any, **common: Any) -> Any:
    activation, recurrent = activation_of(cell.activation), activation_of(cell.recurrent_activation)
    if activation is None or recurrent is None:
        return None
    return ops.LSTM(
        activation=activation,
        recurrent_activation=recurrent,
        output_activation=activation,
        gates="ifgo",
        forget_offset=0.0,
        **common,
    )


def _gru(cell: Any, **common: Any) -> Any:
    activation, recurrent = activation_of(cell.activation), activation_of(cell.recurrent_activation)
    if activation is None or recurrent is None:
        return None
    return ops.GRU(
        activation=activation,
        recurrent_activation=recurrent,
        gates="zrn",
        reset_after=cell.reset_after,
        update="keeps",
        **common,
    )


_CELLS: Mapping[type, Callable[..., Any]] = {
    keras.layers.SimpleRNNCell: _simple,
    keras.layers.LSTMCell: _lstm,
    keras.layers.GRUCell: _gru,
}


def _bidirectional(seen: Seen) -> Reading | None:
    """What joins the two directions, which show their own results; the backward one's steps in the sequence's order."""
    layer: Any = seen.made
    parts = [seen.results.get(id(part)) for part in (layer.forward_layer, layer.backward_layer)]
    kinds: Mapping[str, Any] = {"sum": "add", "ave": "average", "mul": "multiply"}
    forward, backward = parts
    if forward is None or backward is None or layer.merge_mode is None or seen.index:
        return None
    op: Any = ops.Concat(axis=forward.ndim - 1)
    if layer.merge_mode != "concat":
        op = ops.Combine(kind=kinds[layer.merge_mode], tie="first")
    inputs = (forward, _backwards(backward) if layer.return_sequences else backward)
    return Reading(ops=(op,), inputs=inputs, image=False)


# --- attention --------------------------------------------------------------------------------------------------

_FILL = 3.38953e38 * -0.7
"""keras 3.15: backend/tensorflow/nn.py, _get_large_negative."""


def _scores(mask: Array | None, causal: bool, **given: Any) -> dict[str, Any]:
    """The fields of an attention; what nothing forbids has no masked value."""
    usual = {"mask": "none" if mask is None else "attend", "causal": causal, "causal_offset": 0}
    free = {} if mask is not None or causal else {"masked_value": -math.inf, "masking": "fill", "empty_row": "formula"}
    return usual | given | free


def _multi_head(seen: Seen) -> Reading | None:
    """Through one fused function without dropout and scores, which fills a huge number; else Softmax with a mask."""
    layer: Any = seen.made
    given = seen.given
    arrays = [given["query"], given["value"] if given["key"] is None else given["key"], given["value"]]
    drops = layer._dropout > 0
    kernels = [getattr(layer, f"_{part}_dense").kernel for part in ("query", "key", "value", "output")]
    if (
        any(array.ndim != 3 for array in arrays) or any(len(kernel.shape) != 3 for kernel in kernels)
        or layer._use_gate or layer._flash_attention or layer._attention_axes != (1,)
        or seen.index or (drops and given["training"])
    ):  # fmt: skip
        return None
    fused = not drops and not given["return_attention_scores"]
    mask, causal = _mask(seen, arrays), bool(given["use_causal_mask"])
    op = ops.MultiHeadAttention(
        heads=layer._num_heads,
        key_heads=layer._num_heads,
        bias=layer._use_bias,
        out_bias=layer._use_bias,
        **_scores(
            mask,
            causal,
            scale=layer._inverse_sqrt_key_dim,
            masked_value=_FILL if fused else -1e9,
            masking="fill",
            empty_row="formula" if fused else "zero",
        ),
    )
    weights = [_columns(seen.weight(kernel)) for kernel in kernels[:3]]
    value, name = seen.weight(kernels[3])
    weights.append((value.reshape(-1, value.shape[-1]).T, name))
    if layer._use_bias:
        biases = [getattr(layer, f"_{part}_dense").bias for part in ("query", "key", "value", "output")]
        weights += [(value.reshape(-1), name) for value, name in map(seen.weight, biases)]
    inputs = (*arrays, *([] if mask is None else [mask]))
    return Reading(ops=(op,), inputs=inputs, weights=(tuple(weights),), image=False)


def _columns(weight: Weight) -> Weight:
    value, name = weight
    return value.reshape(len(value), -1).T, name


def _mask(seen: Seen, arrays: list[Array]) -> Array | None:
    """True where a query may attend to a key: (batch, 1, queries, keys), or with heads."""
    given, window = seen.given, seen.made._sliding_window
    parts = [
        None if given["query_mask"] is None else given["query_mask"].astype(bool)[:, None, :, None],
        *(None if given[k] is None else given[k].astype(bool)[:, None, None, :] for k in ("value_mask", "key_mask")),
    ]
    if window is not None:
        rows, columns = np.arange(arrays[0].shape[1])[:, None], np.arange(arrays[1].shape[1])
        parts.append((abs(rows - columns) < window)[None, None])
    if (mask := given["attention_mask"]) is not None:
        parts.append(mask.astype(bool)[:, None] if mask.ndim == 3 else mask.astype(bool))
    known = [part for part in parts if part is not None]
    return np.logical_and.reduce(np.broadcast_arrays(*known)) if known else None


def _dot_attention(seen: Seen) -> Reading | None:
    """Attention and AdditiveAttention: 1e9 is taken from a forbidden score."""
    layer: Any = seen.made
    additive = isinstance(layer, keras.layers.AdditiveAttention)
    arrays, masks = list(seen.given["inputs"]), seen.given["mask"] or [None, None]
    q, v, k = arrays[0], arrays[1], arrays[2] if len(arrays) > 2 else arrays[1]
    trains = seen.given["training"] and layer.dropout > 0
    if (
        seen.index
        or trains
        or masks[0] is not None
        or (not additive and (layer.use_scale or layer.score_mode != "dot"))
    ):
        return None
    mask, causal = masks[1], bool(seen.given["use_causal_mask"])
    op = ops.Attention(
        score="additive" if additive else "dot",
        weighted=additive and layer.use_scale,
        **_scores(mask, causal, scale=1.0, masked_value=-1e9, masking="add", empty_row="formula"),
    )
    inputs = (q, k, v, *([] if mask is None else [mask.astype(bool)[:, None, :]]))
    weights = ((seen.weight(layer.scale),),) if op.weighted else ()
    return Reading(ops=(op,), inputs=inputs, weights=weights, image=False)


SEQUENCES: Mapping[type, Reader] = {
    keras.layers.RNN: _recurrent,
    keras.layers.SimpleRNN: _recurrent,
    keras.layers.LSTM: _recurrent,
    keras.layers.GRU: _recurrent,
    keras.layers.Bidirectional: _bidirectional,
    keras.layers.MultiHeadAttention: _multi_head,
    keras.layers.Attention: _dot_attention,
    keras.layers.AdditiveAttention: _dot_attention,
}
"""Readers by class; a user's subclass is unknown."""
