"""A recipe's loss on a torch model's output: as the user's function gives it, or by example where there are weights."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from harness.case import HarnessError
from harness.recipe import Recipe


def evaluate(recipe: Recipe, output: Any, targets: tuple[Tensor, ...], weights: Tensor | None) -> Tensor:
    """The loss, with the recipe's penalty; weights (batch,). Raises HarnessError where it is not one number.

    With weights, or class weights, each element's loss is multiplied by its example's factor, then reduced as the loss
    says: its `mean` divides by the number of elements (not by the sum of weights), its `batchmean` by the batch.
    """
    arguments = (output, single(targets)) if targets else (output,)
    if weights is None and not recipe.class_weight:
        loss = recipe.loss(*arguments)
    else:
        loss = _weighted(recipe.loss, arguments, _factors(recipe, targets, weights))
    if recipe.penalty:
        loss = loss + recipe.penalty(recipe.model)
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        found = f"has shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"is a {type(loss).__name__}"
        raise HarnessError(f"the torch loss {found}; it must be one number: reduce it, by mean() or sum()")
    return loss


def single(tensors: tuple[Tensor, ...]) -> Any:
    """One tensor as itself, several as a tuple, as users' functions take them; None for none."""
    return tensors[0] if len(tensors) == 1 else tensors or None


def _factors(recipe: Recipe, targets: tuple[Tensor, ...], weights: Tensor | None) -> Tensor:
    """Each example's factor (batch,), or each element's where the targets are classes by element."""
    if not recipe.class_weight:
        assert weights is not None
        return weights
    classes = targets[0]
    if classes.is_floating_point():
        classes = classes.argmax(-1) if classes.ndim > 1 and classes.shape[-1] > 1 else classes.round()
    factors = torch.ones(classes.shape, device=classes.device)
    for label, factor in recipe.class_weight.items():
        factors[classes == label] = factor
    return factors if weights is None else factors * weights.reshape(-1, *[1] * (factors.ndim - 1))


def _weighted(loss: Any, arguments: tuple[Any, ...], weights: Tensor) -> Tensor:
    """The loss by element, times its example's weight; `mean` divides by the number of elements, not of weights."""
    if isinstance(getattr(loss, "reduction", None), str):
        reduction, loss.reduction = loss.reduction, "none"  # the recipe's own loss: the attribute is lent
        by_element = loss(*arguments)
        loss.reduction = reduction
    elif "reduction" in inspect.signature(loss).parameters:
        reduction = inspect.signature(loss).parameters["reduction"].default
        by_element = loss(*arguments, reduction="none")
    else:
        raise HarnessError("weights need a torch loss by element: give one with a `reduction`, such as nn.MSELoss()")
    if by_element.shape[:1] != weights.shape[:1]:
        raise HarnessError(f"the torch loss by element has shape {tuple(by_element.shape)}, not one row an example")
    if by_element.shape != weights.shape:
        if weights.ndim > 1 and weights.numel() != len(weights):
            raise HarnessError(f"class weights {tuple(weights.shape)} do not fit a loss {tuple(by_element.shape)}")
        weights = weights.reshape(-1, *[1] * (by_element.ndim - 1))
    total = (by_element * weights).sum()
    return {"sum": total, "batchmean": total / len(by_element)}.get(reduction, total / by_element.numel())
