"""Optimizers that a careful port writes by hand, to follow the other framework's formula."""

from __future__ import annotations

from typing import Any

import torch


class HatAdam(torch.optim.Optimizer):
    """Adam as Keras 3.15 writes it (optimizers/adam.py): epsilon before the bias correction."""

    def __init__(self, params: Any, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-7) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state.update(step=0, m=torch.zeros_like(p), v=torch.zeros_like(p))
                state["step"] += 1
                t, m, v = state["step"], state["m"], state["v"]
                m += (1 - beta1) * (p.grad - m)
                v += (1 - beta2) * (p.grad**2 - v)
                alpha = group["lr"] * (1 - beta2**t) ** 0.5 / (1 - beta1**t)
                p -= alpha * m / (v.sqrt() + group["eps"])
