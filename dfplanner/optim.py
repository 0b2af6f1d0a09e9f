"""The optimisers of a run: Muon on the blocks' matrices, AdamW on the rest, and an average of the weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn


def orthogonalise(m: Tensor, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrices to m (..., r, c) by a quintic Newton-Schulz iteration (Jordan et al. 2024).

    In float32, unlike torch.optim.Muon: bfloat16 products are slow on CPUs without matrix units.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = m.shape[-2] > m.shape[-1]
    x = m.mT if tall else m
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        g = x @ x.mT
        x = a * x + (b * g + c * g @ g) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum whose step is orthogonalised; matrices of one shape are updated together."""

    def __init__(self, params: Iterable[Tensor], lr: float = 0.02, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # the loss is computed by the loop
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault(p.shape, []).append(p)
            for shape, ps in by_shape.items():
                mu = group["momentum"]
                steps = []
                for p in ps:
                    grad = cast(Tensor, p.grad)
                    buf = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
                    steps.append(grad.lerp(buf.lerp_(grad, 1 - mu), mu))
                scale = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
                for p, u in zip(ps, orthogonalise(torch.stack(steps)), strict=True):
                    p.sub_(u, alpha=scale)


def split_parameters(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """The blocks' matrices, and everything else."""
    matrices, rest = [], []
    for name, p in model.named_parameters():
        (matrices if p.ndim == 2 and name.startswith("blocks.") else rest).append(p)
    return matrices, rest


def build_optimizers(model: nn.Module, lr: float, muon_lr: float, weight_decay: float) -> list[torch.optim.Optimizer]:
    """Muon (if the model has blocks of matrices) and AdamW."""
    matrices, rest = split_parameters(model)
    adamw = torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.99), weight_decay=weight_decay)
    return [Muon(matrices, lr=muon_lr), adamw] if matrices else [adamw]


def lr_factor(step: int, total: int, warmup: int = 100, flat: float = 0.5) -> float:
    """Rises over ``warmup`` steps, stays, then falls linearly to zero over the last 1 - ``flat`` of the run."""
    if step < warmup:
        return (step + 1) / warmup
    return min(1.0, (total - step) / max(1.0, (1 - flat) * total))


@torch.no_grad()
def ema_update(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Moves the average towards the model; early on the decay is smaller, so that it forgets the initial weights."""
    d = min(decay, (1 + step) / (10 + step))
    for a, p in zip(average.parameters(), model.parameters(), strict=True):
        a.lerp_(p, 1 - d)
