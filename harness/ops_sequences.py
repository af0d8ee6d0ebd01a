"""Recurrent layers and attention as plain frozen data; the conventions are those of `harness.ops`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Gt

# --- recurrence -------------------------------------------------------------------------------------------------

Returns = Literal["all", "last", "final", "state"]
"""What a recurrent layer hands on: the output of every step, at the step's own place (also in reverse); the output at
the last place of the sequence; the output of the last step that was run (with reverse that of place 0); the state h
after it, which is another one where that step was masked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimpleRNN:
    """h_t = activation(W x_t + b + U h_{t-1} + c).

    Inputs: x (batch, time, features), then the mask (batch, time) if masked, then h_0 (batch, units) if initial (else
    0).
    Parameters: W (units, features), U (units, units), b (units,) if biases > 0, c (units,) if biases = 2.
    time_axis: the axis of x and of the result along which the recurrence runs, 1; 0 is the mistake.
    masked: a step whose mask is false leaves the state; its output is the one before ("carry", at first 0: Keras) or 0
    ("zero": torch's packed sequences, Keras's zero_output_for_mask).
    """

    activation: Any
    biases: Literal[0, 1, 2]
    time_axis: Literal[0, 1]
    reverse: bool
    masked: bool
    masked_output: Literal["carry", "zero"]
    initial: bool
    returns: Returns


@dataclass(frozen=True, slots=True, kw_only=True)
class LSTM:
    """a = W x_t + b + U h_{t-1} + c in four blocks of units; with s = recurrent_activation
    i = s(a_i), f = s(a_f + forget_offset), g = activation(a_g), o = s(a_o),
    c_t = f c_{t-1} + i g, h_t = o output_activation(c_t).

    gates: the order of the blocks in W, U, b, c, any of 24: "ifgo" in torch and Keras; g is Keras's c.
    Inputs as in SimpleRNN, with (h_0, c_0) if initial; parameters as there, with 4 units rows. returns "cell": c after
    the last step.
    """

    activation: Any
    recurrent_activation: Any
    output_activation: Any
    gates: Literal["ifgo", "igfo", "iofg", "ifog", "figo", "fiog"] | str
    forget_offset: float
    biases: Literal[0, 1, 2]
    time_axis: Literal[0, 1]
    reverse: bool
    masked: bool
    masked_output: Literal["carry", "zero"]
    initial: bool
    returns: Literal["all", "last", "final", "state", "cell"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GRU:
    """r = s(W_r x + b_r + U_r h + c_r), z = s(W_z x + b_z + U_z h + c_z), s = recurrent_activation, h = h_{t-1};
    n = activation(W_n x + b_n + r (U_n h + c_n)) if reset_after, else activation(W_n x + b_n + U_n (r h) + c_n);
    h_t = z h + (1 - z) n.

    gates: the order of the blocks: "rzn" in torch, "zrn" in Keras (n is its h).
    update: "keeps" as above (torch, Keras); "replaces" h_t = (1 - z) h + z n.
    Inputs and parameters as in SimpleRNN, with 3 units rows.
    """

    activation: Any
    recurrent_activation: Any
    gates: Literal["rzn", "zrn", "rnz", "znr", "nrz", "nzr"]
    reset_after: bool
    update: Literal["keeps", "replaces"]
    biases: Literal[0, 1, 2]
    time_axis: Literal[0, 1]
    reverse: bool
    masked: bool
    masked_output: Literal["carry", "zero"]
    initial: bool
    returns: Returns


# --- attention --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """softmax(scale q kᵀ + mask) v; inputs q (..., queries, d), k (..., keys, d), v (..., keys, e), then the mask.

    score: "dot", or "additive" Σ_d w_d tanh(q_d + k_d) with parameter w (d,) if weighted (Keras AdditiveAttention).
    mask: "none" (no mask input); "attend": boolean, true may be attended to; "ignore": boolean, true may not;
    "additive": numbers added to the scores. Shapes broadcast to (..., queries, keys).
    causal: query i attends to keys j <= i + causal_offset only.
    masked_value: what a forbidden score becomes ("fill") or what is added to it ("add"): -inf in torch, a large
    negative number in Keras. masking: "fill" or "add".
    empty_row: all scores forbidden: what the formula gives ("formula": NaN with -inf), or "zero".
    """

    score: Literal["dot", "additive"]
    weighted: bool
    scale: float
    mask: Literal["none", "attend", "ignore", "additive"]
    causal: bool
    causal_offset: int
    masked_value: float
    masking: Literal["fill", "add"]
    empty_row: Literal["formula", "zero"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiHeadAttention:
    """z = W_o (heads side by side) + b_o, each head an Attention of its rows of W_q q + b_q, W_k k + b_k, W_v v + b_v.

    Inputs q (batch, queries, features), k, v (batch, keys, features), then the mask, to broadcast to
    (batch, heads, queries, keys). Parameters W_q (heads d, features), W_k (key_heads d, features),
    W_v (key_heads e, features), W_o (out, heads e), then b_q, b_k, b_v if bias, b_o if out_bias.
    key_heads: heads of k and v, each serving heads/key_heads of q (grouped-query attention); = heads in the usual one.
    scale (usually 1/sqrt(d)) and what follows: as in Attention.
    """

    heads: Annotated[int, Gt(0)]
    key_heads: Annotated[int, Gt(0)]
    bias: bool
    out_bias: bool
    scale: float
    mask: Literal["none", "attend", "ignore", "additive"]
    causal: bool
    causal_offset: int
    masked_value: float
    masking: Literal["fill", "add"]
    empty_row: Literal["formula", "zero"]
