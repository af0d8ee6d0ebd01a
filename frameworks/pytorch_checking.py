"""Whether a torch recipe can be watched, and errors in one line: what, where, and what to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn, optim
from torch.nn.parameter import is_lazy
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from frameworks.pytorch_describing import named
from frameworks.pytorch_updating import moved
from harness.case import HarnessError
from harness.recipe import Recipe

_INDICES = re.compile("indices|index tensor")
_TYPES = re.compile(f"{_INDICES.pattern}|dtype|scalar type|Input type|not implemented for '")


def check(recipe: Recipe, inference: bool) -> None:
    """Raises HarnessError for what cannot be watched."""
    model, optimizer, schedule = recipe.model, recipe.optimizer, recipe.schedule
    if not isinstance(model, nn.Module):
        raise HarnessError(f"the torch model is a {type(model).__name__}; it must be a torch.nn.Module")
    tensors = named(model)
    for name, of in tensors.items():
        if is_lazy(of.tensor):
            raise HarnessError(f"{name} of the torch model has no shape yet; run the model once on an input")
        if of.tensor.is_meta:
            raise HarnessError(f"{name} of the torch model lies on the meta device, without values; load its weights")
        if not of.buffer and not bool(of.tensor.isfinite().all()):
            raise HarnessError(f"{name} of the torch model holds NaN or infinity; it must be finite: initialise it")
    devices = sorted({str(of.tensor.device) for of in tensors.values()})
    if len(devices) > 1:
        raise HarnessError(f"the torch model lies on {' and '.join(devices)}; move it to one device with model.to()")
    if any(str(getattr(part.train, "__module__", "")).startswith("torch.export") for part in model.modules()):
        raise HarnessError("the torch model is a torch.export graph, its mode is fixed; give the module exported")
    if inference:
        return
    if recipe.loss is not None and (isinstance(recipe.loss, type) or not callable(recipe.loss)):
        given = f"the class {recipe.loss.__name__}" if isinstance(recipe.loss, type) else repr(recipe.loss)
        raise HarnessError(f"a torch loss is callable(output, target), such as nn.CrossEntropyLoss(), not {given}")
    if optimizer is None:
        return
    if not isinstance(optimizer, optim.Optimizer):
        raise HarnessError(f"the torch optimizer is a {type(optimizer).__name__}; it must be a torch.optim.Optimizer")
    if not {id(of.tensor) for of in tensors.values()} & {id(tensor) for tensor in moved(optimizer)}:
        raise HarnessError("the torch optimizer holds none of the model's parameters; make it of model.parameters()")
    if isinstance(optimizer, optim.LBFGS) and recipe.train_step is None:
        raise HarnessError("LBFGS evaluates the loss several times in a step; give the loop body as train_step")
    if isinstance(schedule, ReduceLROnPlateau) or not (
        schedule is None or callable(schedule) or isinstance(schedule, LRScheduler)
    ):
        raise HarnessError(
            f"schedule is a {type(schedule).__name__}; it must be an lr_scheduler without metrics or a callable "
            "(count) -> rate; else give the loop body as train_step"
        )


@contextmanager
def naming(place: str | Callable[[], str], inputs: Sequence[Tensor] = ()) -> Iterator[None]:
    """Errors within become one HarnessError that says where; inputs: what a layer may have wanted of another type."""
    try:
        yield
    except HarnessError:
        raise
    except Exception as error:
        where = place if isinstance(place, str) else place()
        lines = str(error).strip().splitlines() or [""]
        advice = _advice(lines[0], inputs)
        raise HarnessError(f"{where} raised {type(error).__name__}: {lines[0]}{advice}") from error


def _advice(message: str, inputs: Sequence[Tensor]) -> str:
    if not inputs or not _TYPES.search(message):
        return ""
    kinds = " and ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in inputs}))
    if not all(tensor.is_floating_point() for tensor in inputs):
        return f"; x holds {kinds}, most layers take floats: x.astype('float32')"
    if _INDICES.search(message):
        return f"; x holds {kinds}, an embedding takes integers: x.astype('int64')"
    return "; where the model names a dtype itself, let it say x.dtype"
