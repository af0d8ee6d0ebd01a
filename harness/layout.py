"""Where each quantity of a training step stands in the flat row of numbers that every framework writes.

One row holds one step, in storage order

    activations | loss | activation gradients | parameter gradients | parameters | slots | updates

(nodes and parameters in network order, slots slot by slot). Frameworks write all but the updates, which are the
differences of consecutive parameters. Quantities are listed in *report* order, the order of the computation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from harness.case import Add, Case, Dense, HarnessError, Objective, Polynomial, parameter_names, slot_names, wire

Kind = Literal["activation", "loss", "activation_gradient", "gradient", "update", "parameter", "slot", "buffer"]
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """One tensor of a step. `name` is how the article writes it (`dL/dW1`); `batched` if axis 0 counts examples."""

    name: str
    kind: Kind
    tensor: str
    shape: Shape
    start: int
    batched: bool

    @property
    def columns(self) -> slice:
        return slice(self.start, self.start + math.prod(self.shape))


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The quantities of one case at one batch size. `recorded` is what frameworks write, `size` includes updates.

    state: parameters and slots, contiguous: what a step needs of the one before.
    """

    quantities: tuple[Quantity, ...]
    parameter_shapes: Mapping[str, Shape]
    activation_shapes: Mapping[str, Shape]
    gradients: slice
    parameters: slice
    state: slice
    updates: slice
    recorded: int
    size: int

    def find(self, name: str) -> Quantity:
        return next(quantity for quantity in self.quantities if quantity.name == name)


class Step(Mapping[str, np.ndarray]):
    """What one training step shows, by quantity name: read-only views, valid until the next step; `copy` keeps one."""

    __slots__ = ("layout", "row")

    def __init__(self, layout: Layout, row: np.ndarray) -> None:
        self.layout = layout
        self.row = row.view()
        self.row.flags.writeable = False

    def __getitem__(self, name: str) -> np.ndarray:
        try:
            quantity = self.layout.find(name)
        except StopIteration:
            raise KeyError(f"{name}; a step shows {', '.join(self)}") from None
        return self.row[quantity.columns].reshape(quantity.shape)

    def __iter__(self):
        return (quantity.name for quantity in self.layout.quantities)

    def __len__(self) -> int:
        return len(self.layout.quantities)

    def copy(self) -> Step:
        return Step(self.layout, self.row.copy())


def layout_of(case: Case, x_shape: Shape, shapes: tuple[dict[str, Shape], dict[str, Shape]] | None = None) -> Layout:
    """The layout for a batch of x_shape (batch, features). Raises HarnessError for shapes that do not fit.

    shapes: of parameters and of activations, by name, where nodes hold ops of `harness.ops`, which do not tell them.
    """
    parameter_shapes, activation_shapes = shapes or shapes_of(case, x_shape)
    slots = slot_names(case.optimizer)
    batched = not isinstance(case.loss, Objective)
    storage: list[tuple[str, str, str, Shape, bool]] = []
    for name, shape in activation_shapes.items():
        storage.append((name, "activation", name, shape, batched))
    storage.append(("L", "loss", "L", (), False))
    for name, shape in activation_shapes.items():
        storage.append((f"dL/d{name}", "activation_gradient", name, shape, batched))
    for name, shape in parameter_shapes.items():
        storage.append((f"dL/d{name}", "gradient", name, shape, False))
    for name, shape in parameter_shapes.items():
        storage.append((name, "parameter", name, shape, False))
    for slot in slots:
        for name, shape in parameter_shapes.items():
            storage.append((f"{slot}:{name}", "slot", name, shape, False))
    for name, shape in parameter_shapes.items():
        storage.append((f"update:{name}", "update", name, shape, False))

    placed: dict[tuple[str, str], Quantity] = {}
    start = 0
    for name, kind, tensor, shape, batched in storage:
        placed[kind, name] = Quantity(name=name, kind=kind, tensor=tensor, shape=shape, start=start, batched=batched)  # type: ignore[arg-type]
        start += math.prod(shape)
    weights = sum(math.prod(shape) for shape in parameter_shapes.values())
    state = weights * (1 + len(slots))
    parameters = start - weights - state
    return Layout(
        quantities=tuple(placed[key] for key in _report_order(case, tuple(parameter_shapes), slots)),
        parameter_shapes=parameter_shapes,
        activation_shapes=activation_shapes,
        gradients=slice(parameters - weights, parameters),
        parameters=slice(parameters, parameters + weights),
        state=slice(parameters, parameters + state),
        updates=slice(parameters + state, start),
        recorded=parameters + state,
        size=start,
    )


def shapes_of(case: Case, x_shape: Shape) -> tuple[dict[str, Shape], dict[str, Shape]]:
    """Shapes of all parameters and activations for a batch of x_shape, by name."""
    parameters: dict[str, Shape] = {}
    activations: dict[str, Shape] = {"x": x_shape}
    for node, reads in wire(case):
        missing = [name for name in reads if name not in activations]
        if missing:
            raise HarnessError(f"node {node.name} reads {missing[0]}, which no earlier node computes")
        inputs = [activations[name] for name in reads]
        match node.op:
            case Dense(units=units):
                wanted = [(units, inputs[0][-1]), (units,)]
                output: Shape = (*inputs[0][:-1], units)
            case Polynomial(points=points):
                wanted, output = [(points, 2)], (points,)
            case Add():
                try:
                    wanted, output = [], np.broadcast_shapes(*inputs)
                except ValueError:
                    raise HarnessError(f"node {node.name} adds {reads} of shapes {inputs}, which do not fit") from None
            case _:
                wanted, output = [], inputs[0]
        if len(node.parameters) != len(wanted):
            raise HarnessError(f"node {node.name} needs {len(wanted)} parameter names, not {len(node.parameters)}")
        for name, shape in zip(node.parameters, wanted, strict=True):
            if parameters.setdefault(name, shape) != shape:
                raise HarnessError(f"parameter {name} is shared at shapes {parameters[name]} and {shape}")
        if node.name in activations or node.name in parameter_names(case):
            raise HarnessError(f"node {node.name} needs a name of its own; x, another node or a parameter has it")
        activations[node.name] = output
    del activations["x"]
    return parameters, activations


def _report_order(case: Case, parameters: tuple[str, ...], slots: tuple[str, ...]) -> list[tuple[str, str]]:
    """Forward; loss; backward exactly as the chain rule goes (dL/dz3, dL/da2, dL/dW3, dL/db3, dL/dz2, ...); update."""
    wired = list(wire(case))
    uses = {name: [n.name for n in case.nodes if name in n.parameters] for name in parameter_names(case)}
    backward: dict[tuple[str, str], None] = {}
    for node, reads in reversed(wired):
        backward[("activation_gradient", f"dL/d{node.name}")] = None
        for name in reads:
            if name != "x":
                backward[("activation_gradient", f"dL/d{name}")] = None
        for name in node.parameters:  # a shared parameter's gradient is complete at its first use
            if uses[name][0] == node.name:
                backward[("gradient", f"dL/d{name}")] = None
    return [
        *(("activation", node.name) for node in case.nodes),
        ("loss", "L"),
        *backward,
        *(("slot", f"{slot}:{name}") for slot in slots for name in parameters),
        *(("update", f"update:{name}") for name in parameters),
        *(("parameter", name) for name in parameters),
    ]
