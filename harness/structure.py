"""What a layer's kind says about its parameters: the pieces they consist of and the layout of each framework.

Layouts, from the installed sources (torch 2.13, Keras 3.15); torch's is taken as the common one:
torch/nn/modules/linear.py `Linear`: weight (out, in). keras/src/layers/core/dense.py: kernel (in, out).
torch/nn/modules/conv.py `_ConvNd`: (out, in/groups, *space), transposed (in, out/groups, *space).
keras/src/layers/convolutional/base_conv.py: (*space, in/groups, out); base_conv_transpose.py: (*space, out, in), no
flip; base_depthwise_conv.py: (*space, in, multiplier), output channel c * multiplier + j as torch's groups=in has it.
torch/nn/modules/rnn.py: weight_ih (gates * hidden, in), weight_hh alike, LSTM gates i, f, g, o, GRU gates r, z, n.
keras/src/layers/rnn/{simple_rnn,lstm,gru}.py: kernel (in, gates * units), LSTM i, f, c, o, GRU z, r, h; bias one, but
(2, 3 * units) in a GRU with reset_after: input's and recurrent.
torch/nn/modules/activation.py `MultiheadAttention`: in_proj_weight (3 * E, E): query, key, value; out_proj (E, E).
keras/src/layers/attention/multi_head_attention.py: query kernel (E, heads, key), output kernel (heads, key, E).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.evidence import axis_orders
from harness.recipe import Parameter, Shape
from harness.views import View, meeting, part_shape, plain

GATES: dict[str, tuple[str, str]] = {"SimpleRNN": ("h", "h"), "LSTM": ("ifgo", "ifco"), "GRU": ("rzn", "zrh")}
"""Gate blocks in their order: torch's, and everyone else's."""

KERAS_GATES = {"GRU": (1, 0, 2)}
"""Where torch's gates stand among Keras' blocks, for those in another order."""

CONVOLUTIONS = {"Conv", "DepthwiseConv"}
NORMS = {"BatchNorm", "LayerNorm", "GroupNorm", "RMSNorm"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Piece:
    """A parameter, or the part of it that has a role of its own. key: the role (with _reverse)."""

    key: str
    parameter: Parameter
    part: tuple[slice, ...] = ()

    @property
    def shape(self) -> Shape:
        return part_shape(self.part, self.parameter.shape)

    @property
    def base(self) -> str:
        return self.key.removesuffix("_reverse")

    @property
    def torch(self) -> bool:
        return self.parameter.framework == "pytorch"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Unit:
    """What one layer (one level of a stacked RNN) has, by role."""

    op: str
    layer: str
    pieces: dict[str, Piece]

    @property
    def parameters(self) -> list[Parameter]:
        return list({piece.parameter.name: piece.parameter for piece in self.pieces.values()}.values())


def plain_kind(parameter: Parameter) -> Parameter:
    """A parameter as one of a layer that is no compound: of an RNN's level (`kernel_l1`), of a separable convolution's
    two halves."""
    role = re.sub(r"_l\d+$", "", parameter.role)
    if parameter.op != "SeparableConv":
        return parameter if role == parameter.role else replace(parameter, role=role)
    depthwise = role.startswith("depthwise")
    return replace(parameter, op="DepthwiseConv" if depthwise else "Conv", role="kernel" if depthwise else role)


def units(parameters: Sequence[Parameter]) -> list[Unit]:
    """The layers of known kind in order of definition; parameters of unknown op or role belong to none."""
    found: list[Unit] = []
    latest: dict[tuple[str, str], Unit] = {}
    for parameter in map(plain_kind, parameters):
        if not (parameter.op and parameter.role):
            continue
        pieces = {piece.key: piece for piece in _pieces(parameter)}
        place = parameter.layer, parameter.op
        unit = latest.get(place) or (found[-1] if found and _one_layer(found[-1], parameter) else None)
        if unit is None or unit.pieces.keys() & pieces.keys():
            unit = Unit(op=parameter.op, layer=parameter.layer, pieces={})
            found.append(unit)
        latest[place] = unit
        unit.pieces.update(pieces)
    return found


def _one_layer(unit: Unit, parameter: Parameter) -> bool:
    """Whether a layer inside a layer (attention's projections, an RNN's directions) goes on with the last unit."""
    if unit.op != parameter.op or not (parameter.op in GATES or parameter.op == "MultiHeadAttention"):
        return False
    paths = [layer.replace("/", ".").split(".") for layer in (unit.layer, parameter.layer)]
    shorter = min(map(len, paths))
    return paths[0][:shorter] == paths[1][:shorter] or (
        len(paths[0]) == len(paths[1]) and paths[0][:-1] == paths[1][:-1]
    )


def _pieces(parameter: Parameter) -> list[Piece]:
    role, shape = parameter.role, parameter.shape
    if role in ("in_kernel", "in_bias"):
        third = shape[0] // 3
        what = role.removeprefix("in_")
        return [
            Piece(key=f"{name}_{what}", parameter=parameter, part=(slice(i * third, (i + 1) * third),))
            for i, name in enumerate(("query", "key", "value"))
        ]
    if parameter.op == "GRU" and role.startswith("bias") and len(shape) == 2:
        return [
            Piece(key=f"{recurrent}{role}", parameter=parameter, part=(slice(i, i + 1),))
            for i, recurrent in enumerate(("", "recurrent_"))
        ]
    return [Piece(key=role, parameter=parameter)]


def kin(reference: str, candidate: str) -> bool:
    """Whether layers of these kinds can stand for each other, one of them by the user's mistake or choice."""
    alike = ({reference, candidate} <= family for family in (CONVOLUTIONS, NORMS, {"Dense", "Conv"}))
    return reference == candidate or any(alike)


def views_between(reference: Piece, candidate: Piece) -> tuple[View, View] | None:
    """The views by which two pieces of one role show the same thing, in the reference's layout; None where the sizes do
    not fit."""
    if reference.torch == candidate.torch and reference.shape == candidate.shape:
        return View(part=reference.part), View(part=candidate.part)
    sides = common(reference, candidate), common(candidate, reference)
    if sides[0] is None or sides[1] is None or _common_shape(sides[0]) != _common_shape(sides[1]):
        return None
    return meeting(sides[0], reference.parameter.shape, sides[1], candidate.parameter.shape)


def _common_shape(view: View) -> Shape:
    assert view.shape is not None
    assert view.axes is not None
    return tuple(view.shape[axis] for axis in view.axes)


def common(piece: Piece, other: Piece) -> View | None:
    """A piece in the common layout (shape and axes written out), as far as the other side's shape fixes it."""
    op, shape, n = piece.parameter.op, piece.shape, len(piece.shape)
    ops = {op, other.parameter.op}
    kernel = piece.base.endswith("kernel")
    if kernel and ops & {"Conv", "ConvTranspose", "DepthwiseConv"}:
        return _convolution(piece, other)
    if kernel and op == "MultiHeadAttention" and n > 1:
        heads_first = piece.base == "out_kernel"
        matrix = (math.prod(shape[:-1]), shape[-1]) if heads_first else (shape[0], math.prod(shape[1:]))
        return _view(piece, matrix, (0, 1) if piece.torch else (1, 0))
    if kernel and n == 2:
        return replace(_view(piece, shape, (0, 1) if piece.torch else (1, 0)), order=_gates(piece, 0))
    if op in GATES and piece.base.endswith("bias"):
        return replace(_view(piece, (math.prod(shape),), (0,)), order=_gates(piece, 0))
    if op == "MultiHeadAttention":
        return _view(piece, (math.prod(shape),), (0,))
    return _elementwise(piece, other)


def _convolution(piece: Piece, other: Piece) -> View | None:
    shape, n = piece.shape, len(piece.shape)
    last = (n - 1, n - 2, *range(n - 2))
    if "Dense" in (piece.parameter.op, other.parameter.op):  # a kernel of one place is a matrix
        matrix = (shape[:2] if piece.torch else shape[-2:]) if n > 2 else shape
        fits = math.prod(shape) == math.prod(matrix)
        return _view(piece, matrix, (0, 1) if piece.torch else (1, 0)) if fits else None
    keras = [one for one in (piece, other) if not one.torch]
    if not keras or keras[0].parameter.op != "DepthwiseConv":
        return _view(piece, shape, tuple(range(n)) if piece.torch else last)
    if not piece.torch and piece.parameter.op != "DepthwiseConv":
        return None
    if not piece.torch:
        return _view(piece, shape, (n - 2, n - 1, *range(n - 2)))
    channels = (*other.shape[-2:], *shape[2:])
    return _view(piece, channels, tuple(range(len(channels)))) if math.prod(channels) == math.prod(shape) else None


def _elementwise(piece: Piece, other: Piece) -> View | None:
    """What multiplies or shifts each feature: as many axes as features have; Keras has channels last."""
    own = _sizes(piece.shape)
    n = len(own)
    if piece.torch or own == _sizes(other.shape) or n < 2:
        return _view(piece, own, tuple(range(n)))
    return _view(piece, own, (n - 1, *range(n - 1)))


def _gates(piece: Piece, axis: int) -> tuple[int, np.ndarray] | None:
    places = None if piece.torch else KERAS_GATES.get(piece.parameter.op)
    if places is None:
        return None
    length = max(piece.shape) if piece.base.endswith("bias") else piece.shape[-1]
    return axis, np.arange(length).reshape(len(places), -1)[list(places)].ravel()


def _view(piece: Piece, shape: Shape, axes: tuple[int, ...]) -> View:
    return View(part=piece.part, shape=shape, axes=axes)


def guess(reference: Parameter, candidate: Parameter) -> View | None:
    """A candidate's view in the reference's layout where no kind is known: what the frameworks' habits make likely.

    Matrices and kernels are transposed between torch and the others where that fits; else the nearest order of axes.
    """
    shape, own, n = candidate.shape, reference.shape, len(candidate.shape)
    crossed = (reference.framework == "pytorch") != (candidate.framework == "pytorch")
    habits = [(n - 1, n - 2, *range(n - 2)), (*range(2, n), 1, 0)] if crossed and n >= 2 else []
    if candidate.framework == "pytorch":
        habits.reverse()
    for axes in [*habits[:1], *axis_orders(n)]:
        if _sizes(tuple(shape[axis] for axis in axes)) == _sizes(own):
            return plain(View(axes=axes, result=own), shape)
    return None


def _sizes(shape: Shape) -> Shape:
    return tuple(length for length in shape if length != 1)


def in_axis(piece: Piece) -> int | None:
    """The axis of a kernel that meets the layer's input, whose order another layer decides; None where it has none."""
    op, base, n = piece.parameter.op, piece.base, len(piece.shape)
    if base in ("query_kernel", "key_kernel", "value_kernel"):
        return 1 if piece.torch else 0
    if base != "kernel" or op not in {"Dense", "Conv", "ConvTranspose", *GATES} or n < 2:
        return None
    if op == "ConvTranspose":
        return 0 if piece.torch else n - 1
    return 1 if piece.torch else n - 2
