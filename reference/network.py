"""A network's forward and backward pass: one call per node, in order and in reverse, on views of one flat row.

Nodes may hold any op of `harness.case` and `harness.ops`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from harness.case import Case, CategoricalCrossEntropy, parameter_names, reads_fused_logits, wire
from harness.layout import Layout, Shape
from reference.kinds import apply, backward_into, forward_into
from reference.losses import formula

Array = np.ndarray
Call = Callable[[], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensors:
    """The numbers of one step: a flat row in the storage order of `harness.layout`, and views of it by name.

    x, y: the batch, to be copied in before a pass; `activations["x"]` is x.
    """

    row: Array
    x: Array
    y: Array
    loss: Array
    activations: Mapping[str, Array]
    activation_gradients: Mapping[str, Array]
    parameters: Mapping[str, Array]
    gradients: Mapping[str, Array]


def tensors_of(case: Case, layout: Layout, x_shape: Shape, y_shape: Shape, dtype: np.dtype) -> Tensors:
    """Fresh tensors, all zero (and so filled: denormal garbage would slow BLAS)."""
    row = np.zeros(layout.recorded, dtype)
    views: dict[str, dict[str, Array]] = {}
    for quantity in layout.quantities:
        if quantity.kind not in ("slot", "update"):
            view = row[quantity.columns].reshape(quantity.shape)
            views.setdefault(quantity.kind, {})[quantity.tensor] = view
    x = np.zeros(x_shape, dtype)
    indices = isinstance(case.loss, CategoricalCrossEntropy) and case.loss.sparse
    return Tensors(
        row=row,
        x=x,
        y=np.zeros(y_shape, np.int64 if indices else dtype),
        loss=views["loss"]["L"],
        activations={"x": x, **views["activation"]},
        activation_gradients=views["activation_gradient"],
        parameters=views.get("parameter", {}),
        gradients=views.get("gradient", {}),
    )


def shapes(case: Case, x: Array, parameters: Mapping[str, Array]) -> tuple[dict[str, Shape], dict[str, Shape]]:
    """Shapes of the parameters and of all activations, by name, found by running the network once."""
    a = {"x": x}
    for node, reads in wire(case):
        a[node.name] = apply(node.op, [a[name] for name in reads], [parameters[name] for name in node.parameters])
    activations = {node.name: a[node.name].shape for node in case.nodes}
    return {name: parameters[name].shape for name in parameter_names(case)}, activations


def forward(case: Case, tensors: Tensors) -> list[Call]:
    """The calls that compute every node's output from x and the parameters, then the loss and its gradient."""
    a, W = tensors.activations, tensors.parameters
    calls: list[Call] = []
    for node, reads in wire(case):
        arrays = (a[node.name], *(a[name] for name in reads), *(W[name] for name in node.parameters))
        calls.append(partial(forward_into(node.op), node.op, *arrays))
    read = _read_by_loss(case)
    q, dq = a[read], tensors.activation_gradients.get(read)
    loss = formula(case.loss, reads_fused_logits(case))
    calls.append(partial(loss, case.loss, tensors.loss, np.zeros_like(q) if dq is None else dq, q, tensors.y))
    return calls


def backward(case: Case, tensors: Tensors, slopes: Mapping[str, Array] | None = None) -> list[Call]:
    """The calls that carry dL/d(output) back to every activation and parameter, last node first.

    Contributions to one gradient add: the first is written in place, each later one beside it and then added.
    A final activation that the loss skips takes no part, its gradient stays 0.

    slopes: by ReLU or LeakyReLU node, derivatives that replace the ordinary ones where they are not NaN.
    """
    a, W, da, dW = tensors.activations, tensors.parameters, tensors.activation_gradients, tensors.gradients
    calls: list[Call] = []
    sums: list[Call] = []
    written = {id(da.get(_read_by_loss(case)))}

    def into(total: Array | None) -> Array | None:
        if total is None or id(total) not in written:
            written.add(id(total))
            return total
        part = np.zeros_like(total)
        sums.append(partial(np.add, total, part, total))
        return part

    for node, reads in reversed(list(wire(case))[: -1 if reads_fused_logits(case) else None]):
        arrays = (a[node.name], *(a[name] for name in reads), *(W[name] for name in node.parameters))
        gradients = (*(into(da.get(name)) for name in reads), *(into(dW[name]) for name in node.parameters))
        chosen = {"slopes": slopes[node.name]} if slopes and node.name in slopes else {}
        calls += [partial(backward_into(node.op), node.op, da[node.name], *arrays, *gradients, **chosen), *sums]
        sums.clear()
    return calls


def _read_by_loss(case: Case) -> str:
    node, reads = list(wire(case))[-1]
    return reads[0] if reads_fused_logits(case) else node.name
