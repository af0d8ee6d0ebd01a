"""Readers of torch's recurrent functions and of attention.

Sequences come out as (batch, time, features), whatever torch's own layout: (time, batch, features) unless batch_first,
or packed. Source: torch 2.13, ATen/native/RNN.cpp (gates i f g o; r z n; two biases), torch/nn/functional.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from frameworks.pytorch_reading import Canonical, Read, Reading, one
from frameworks.pytorch_tensors import array
from harness.case import Sigmoid, Tanh
from harness.ops import GRU, LSTM, Attention, Concat, MultiHeadAttention, Rectifier, SimpleRNN, Stack

_RELU = Rectifier(negative_slope=0.0, threshold=0.0, maximum=math.inf, slope_at_threshold=0.0, slope_at_maximum=0.0)
_SWAPPED = (1, 0, 2)

# --- recurrence -------------------------------------------------------------------------------------------------


def _simple(activation: Any) -> Callable[..., Any]:
    return partial(SimpleRNN, activation=activation)


_LSTM = partial(
    LSTM, activation=Tanh(), recurrent_activation=Sigmoid(), output_activation=Tanh(), gates="ifgo", forget_offset=0.0
)
_GRU = partial(GRU, activation=Tanh(), recurrent_activation=Sigmoid(), gates="rzn", reset_after=True, update="keeps")


def recurrent(kind: Callable[..., Any], input: Tensor, second: Any, third: Any, *rest: Any) -> Read:
    """(input, hx, weights, has_biases, layers, dropout, training, bidirectional, batch_first), or packed:
    (data, batch_sizes, hx, weights, has_biases, layers, dropout, training, bidirectional)."""
    is_packed = len(rest) == 6 and isinstance(rest[0], list | tuple)
    if is_packed:
        states, (weights, biases, layers, dropout, training, bidirectional) = third, rest
        x, mask, canonical = _unpacked(input, second)
        inputs: tuple[Tensor, ...] = (x, mask)
    else:
        states, weights, (biases, layers, dropout, training, bidirectional, batch_first) = second, third, rest
        inputs = (input if batch_first else input.transpose(0, 1),)
        canonical = None if batch_first else _swapped
    initial = tuple(states) if isinstance(states, list | tuple) else (states,)
    is_zero = not any(state.requires_grad or state.any() for state in initial)
    each_layer = 2 + 2 * bool(biases)
    if (dropout and training) or len(weights) != layers * each_layer * (1 + bool(bidirectional)):
        return None
    if (bidirectional and (layers > 1 or is_packed or not is_zero)) or (layers > 1 and not is_zero):
        return None
    if not is_zero:
        inputs += tuple(state[0] for state in initial)
    parameters = tuple(tuple(weights[i : i + each_layer]) for i in range(0, len(weights), each_layer))
    op = partial(
        kind,
        biases=2 if biases else 0,
        time_axis=1,
        masked=is_packed,
        initial=not is_zero,
    )

    def both(returns: str, joined: Concat | Stack, canonical: Canonical | None) -> Reading:
        ways = tuple(
            Reading(
                ops=(op(returns=returns, masked_output="carry", reverse=backward),),
                inputs=inputs,
                parameters=(parameters[backward],),
            )
            for backward in (False, True)
        )
        return Reading(ops=(joined,), inputs=inputs, canonical=canonical, ways=ways)

    if bidirectional:
        stacked = tuple(both(returns, Stack(axis=0), None) for returns in ("final", "cell"))
        return (both("all", Concat(axis=2), canonical), *stacked[: len(initial)])

    def returning(returns: str, masked_output: str, canonical: Canonical | None) -> Reading | None:
        if layers > 1 and (is_packed or returns != "all"):  # those above read a mask as well; states come stacked
            return None
        ops = tuple(op(returns="all", masked_output=masked_output, reverse=False) for _ in range(layers - 1))
        last = op(returns=returns, masked_output=masked_output, reverse=False)
        return Reading(ops=(*ops, last), inputs=inputs, parameters=parameters, canonical=canonical)

    # a state is the output carried on to the end, as others say it
    lasts = [returning(returns, "carry", _only) for returns in ("final", "cell")]
    return (returning("all", "zero" if is_packed else "carry", canonical), *lasts[: len(initial)])


def _swapped(array: np.ndarray) -> np.ndarray:
    return array.transpose(_SWAPPED)


def _only(array: np.ndarray) -> np.ndarray:
    return array[0]


def _unpacked(data: Tensor, batch_sizes: Tensor) -> tuple[Tensor, Tensor, Canonical]:
    """A packed sequence as (batch, time, features), zero behind each end; its mask; how another one is unpacked."""
    mask = np.arange(int(batch_sizes[0])) < batch_sizes.numpy()[:, None]  # (time, batch), in the order of packing

    def unpacked(array: np.ndarray) -> np.ndarray:
        full = np.zeros((*mask.shape, *array.shape[1:]), array.dtype)
        full[mask] = array
        return full.swapaxes(0, 1)

    return torch.as_tensor(unpacked(array(data))), torch.as_tensor(mask.T.copy()), unpacked


def cell(kind: Callable[..., Any], input: Tensor, hx: Any, *weights: Tensor | None) -> Read:
    """One step of a recurrence; weights: w_ih, w_hh, b_ih, b_hh."""
    if input.ndim != 2:
        return None
    given = tuple(weight for weight in weights if weight is not None)
    states = tuple(hx) if isinstance(hx, list | tuple) else (hx,)
    op = partial(
        kind,
        biases=len(given) - 2,
        time_axis=1,
        reverse=False,
        masked=False,
        masked_output="carry",
        initial=True,
    )
    outputs = ("final", "cell")[: len(states)]
    return tuple(one(op(returns=returns), input.unsqueeze(1), *states, parameters=given) for returns in outputs)


# --- attention --------------------------------------------------------------------------------------------------


def _scores(scale: float, mask: str, causal: bool, empty_row: str) -> dict[str, Any]:
    """The fields that attention has with one head or many."""
    return {
        "scale": scale,
        "mask": mask,
        "causal": causal,
        "causal_offset": 0,
        "masked_value": -math.inf,
        "masking": "fill",
        "empty_row": empty_row,
    }


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Read:
    """A boolean mask says what may be attended to (ATen/native/transformers/attention.cpp); a row without any is 0
    (_safe_softmax)."""
    if dropout_p or (enable_gqa and query.shape[:-2] != key.shape[:-2]):
        return None
    used = 1 / math.sqrt(query.shape[-1]) if scale is None else float(scale)
    kind, masks = "none", ()
    if attn_mask is not None:
        kind, masks = ("attend" if attn_mask.dtype == torch.bool else "additive"), (attn_mask,)
    op = Attention(score="dot", weighted=False, **_scores(used, kind, is_causal, "zero"))
    return one(op, query, key, value, *masks)


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> Read:
    """Inputs (time, batch, features). A boolean mask says what is ignored; need_weights decides how it is computed."""
    unknown = [bias_k, bias_v, static_k, static_v]
    if query.ndim != 3 or add_zero_attn or (dropout_p and training) or any(part is not None for part in unknown):
        return None
    causal = is_causal and key_padding_mask is None and not need_weights
    shape = (query.shape[1], num_heads, query.shape[0], key.shape[0])
    kind, masks = _merged(None if causal else attn_mask, key_padding_mask, shape)
    if kind is None:
        return None
    if in_proj_weight is None or use_separate_proj_weight:
        kernels = (q_proj_weight, k_proj_weight, v_proj_weight)
    else:
        kernels = in_proj_weight.chunk(3)
    biases = () if in_proj_bias is None else in_proj_bias.chunk(3)
    scale = 1 / math.sqrt(query.shape[2] // num_heads)
    op = MultiHeadAttention(
        heads=num_heads,
        key_heads=num_heads,
        bias=in_proj_bias is not None,
        out_bias=out_proj_bias is not None,
        **_scores(scale, kind, causal, "formula" if need_weights else "zero"),
    )
    given = (*kernels, out_proj_weight, *biases, out_proj_bias)
    return Reading(
        ops=(op,),
        inputs=(*(x.transpose(0, 1) for x in (query, key, value)), *masks),
        parameters=(tuple(p for p in given if p is not None),),
        canonical=_swapped,
    )


def _merged(
    attn_mask: Tensor | None, key_padding_mask: Tensor | None, shape: Sequence[int]
) -> tuple[str | None, tuple[Tensor, ...]]:
    """Both masks as one of (batch, heads, queries, keys). torch adds them up, booleans as 0 and -inf: where they say
    nothing else, one boolean mask."""
    batch, heads, queries, keys = shape
    masks: list[Tensor] = []
    if attn_mask is not None:
        masks.append(attn_mask if attn_mask.ndim == 2 else attn_mask.reshape(batch, heads, queries, keys))
    if key_padding_mask is not None:
        masks.append(key_padding_mask.reshape(batch, 1, 1, keys))
    if not masks:
        return "none", ()
    if all(mask.dtype == torch.bool or bool(((mask == 0) | (mask == -math.inf)).all()) for mask in masks):
        ignored = [mask if mask.dtype == torch.bool else mask == -math.inf for mask in masks]
        return "ignore", (ignored[0] if len(ignored) == 1 else ignored[0] | ignored[1],)
    if any(mask.dtype == torch.bool for mask in masks):
        return None, ()
    return "additive", (masks[0] if len(masks) == 1 else masks[0] + masks[1],)


ROWS: Mapping[str, Any] = {
    "rnn_tanh": partial(recurrent, _simple(Tanh())),
    "rnn_relu": partial(recurrent, _simple(_RELU)),
    "lstm": partial(recurrent, _LSTM),
    "gru": partial(recurrent, _GRU),
    "rnn_tanh_cell": partial(cell, _simple(Tanh())),
    "rnn_relu_cell": partial(cell, _simple(_RELU)),
    "lstm_cell": partial(cell, _LSTM),
    "gru_cell": partial(cell, _GRU),
    "scaled_dot_product_attention": scaled_dot_product_attention,
    "multi_head_attention_forward": multi_head_attention_forward,
}
