"""Denoise tokens along a scheduling matrix: one loop, which knows no scheme by name.

Row m of the matrix holds every part's level before step m, row m+1 after it. Each step asks the model for the clean
sample, lets guidance move it, and re-noises every part to its next level (Song et al. 2021, eq. 12; η 0 DDIM, 1 DDPM).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dfplanner.matrices import Matrix
from dfplanner.models.build import Denoiser
from dfplanner.noise import Generators, draw
from dfplanner.schedules import Prediction, Schedule, eps_of, to_x0_eps
from dfplanner.types import DFPlannerError

Objective = Callable[[Tensor], Tensor]
"""Clean tokens (B, T, C) -> a score (B,), to be maximised; differentiable."""
Trace = Callable[[Tensor, Matrix], None]


@dataclass(frozen=True)
class Guidance:
    """How an objective pulls: x̂0 moves by scale · σ² / max(α, floor) · ∂J/∂x_k, the gradient *through the model*.

    ``samples`` > 1 is Monte Carlo guidance (Chen et al. 2024, section 3.4): that many futures share the ``near`` tokens
    still being denoised and run their own noise beyond; the near tokens follow the mean of the futures' gradients.
    """

    objective: Objective
    scale: float = 1.0
    floor: float = 0.15
    samples: int = 1
    near: int = 1
    """Tokens, from the first one not yet clean, that all futures share."""
    best: bool = True
    """Which future a token that comes near is taken from: the one that scores best (so that even without a gradient the
    plan is the best of several, one token after another), or, if False, the first: then only the gradient pulls."""


@dataclass(frozen=True)
class Sampler:
    """What stays the same from plan to plan: the model, what it predicts, and its schedule.

    parts (C,): which part each of a token's numbers belongs to. ``stabilise``: the level the model is told instead of 0
    for tokens that are clean, so that it does not trust its own output too much (section 3.3 of the paper).
    """

    model: Denoiser
    schedule: Schedule
    prediction: Prediction
    parts: Tensor
    stabilise: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.stabilise <= self.schedule.levels:
            raise DFPlannerError(
                f"the stabilisation level is {self.stabilise}; expected a noise level, 0 to {self.schedule.levels}"
            )

    def predict(self, x: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        """x̂0 and ε̂ (B, T, C) of tokens at levels (T, P)."""
        told = torch.where(levels == 0, self.stabilise, levels) if self.stabilise else levels
        out = self.model(x, told.expand(x.shape[0], -1, -1))
        alpha, sigma = self.schedule.rates(levels[:, self.parts], x.dtype)
        return to_x0_eps(out, x, alpha, sigma, self.prediction)

    def step(
        self,
        x: Tensor,
        x0: Tensor,
        eps: Tensor,
        now: Tensor,
        then: Tensor,
        eta: float,
        generator: Generators,
    ) -> Tensor:
        """Moves x (B, T, C) from levels ``now`` (T, P) to ``then``; what does not change level stays as it is."""
        k, k2 = now[:, self.parts], then[:, self.parts]
        a2, s2 = self.schedule.rates(k2, x.dtype)
        if eta > 0:
            a, s = self.schedule.rates(k, x.dtype)
            spread = eta * (s2 / s.clamp(min=1e-12)) * (1 - (a / a2.clamp(min=1e-12)) ** 2).clamp(min=0).sqrt()
            noise = draw(x.shape, generator, x.device, x.dtype)
            new = a2 * x0 + (s2**2 - spread**2).clamp(min=0).sqrt() * eps + spread * noise
        else:
            new = a2 * x0 + s2 * eps
        return torch.where(k == k2, x, new)

    def __call__(
        self,
        x: Tensor,
        matrix: Matrix,
        *,
        guidance: Guidance | None = None,
        eta: float = 0.0,
        generator: Generators = None,
        trace: Trace | None = None,
    ) -> tuple[Tensor, int]:
        """Denoises x (B, T, C), given at the levels of matrix[0], to those of matrix[-1]; also the model's calls.

        Columns that never change are context. Raises DFPlannerError on a matrix that does not fit x.
        """
        if matrix.ndim != 3 or matrix.shape[1:2] != x.shape[1:2] or x.shape[2] != len(self.parts):
            raise DFPlannerError(
                f"a matrix of shape {matrix.shape} does not fit tokens {tuple(x.shape)}; expected (rows, {x.shape[1]}, "
                f"parts) and {len(self.parts)} numbers a token"
            )
        if matrix.shape[2] <= int(self.parts.max()) or matrix.min() < 0 or matrix.max() > self.schedule.levels:
            raise DFPlannerError(
                f"a matrix of {matrix.shape[2]} parts with levels from {matrix.min()} to {matrix.max()} was given; "
                f"expected at least {int(self.parts.max()) + 1} parts, and levels from 0 to {self.schedule.levels}"
            )
        if guidance is not None:
            with torch.enable_grad():
                return self._guided(x, matrix, guidance, eta, generator, trace)
        rows = torch.from_numpy(matrix).to(x.device)
        moving = (np.diff(matrix, axis=0) != 0).any(-1)  # (M, T)
        with torch.no_grad():
            for m, moves in enumerate(moving):
                # a causal model need not look past the last token that moves
                t = int(np.flatnonzero(moves)[-1]) + 1 if self.model.causal and moves.any() else x.shape[1]
                x0, eps = self.predict(x[:, :t], rows[m, :t])
                x = torch.cat([self.step(x[:, :t], x0, eps, rows[m, :t], rows[m + 1, :t], eta, generator), x[:, t:]], 1)
                if trace:
                    trace(x0 if t == x.shape[1] else torch.cat([x0, x[:, t:]], 1), matrix[m + 1])
        return x, len(moving)

    def _guided(
        self,
        x: Tensor,
        matrix: Matrix,
        g: Guidance,
        eta: float,
        generator: Generators,
        trace: Trace | None,
    ) -> tuple[Tensor, int]:
        """As above with an objective; n futures are one batch of n·B, never n passes."""
        rows, n, b = torch.from_numpy(matrix).to(x.device), max(1, g.samples), x.shape[0]
        free = (np.diff(matrix, axis=0) != 0).any((0, 2))
        x = x.detach().repeat(n, 1, 1)
        if n > 1:  # futures differ beyond the near tokens only
            x = _own_futures(
                x,
                rows[0][:, self.parts] == self.schedule.levels,
                self._first(matrix[0], free) + g.near,
                b,
                generator,
            )
        for m in range(len(matrix) - 1):
            now, then = rows[m], rows[m + 1]
            border = self._first(matrix[m], free) + g.near
            x0, eps, grad = guided_prediction(self, x, now, g, border, b)
            alpha, sigma = self.schedule.rates(now[:, self.parts], x.dtype)
            moved = x0 + g.scale * sigma**2 / alpha.clamp(min=g.floor) * grad
            eps = torch.where(grad != 0, eps_of(moved, x, alpha, sigma), eps)
            x = self.step(x, moved, eps, now, then, eta, generator)
            if n > 1:  # who comes near next must be one and the same for all
                after = self._first(matrix[m + 1], free) + g.near
                x = _agree(x, x0, g.objective if g.best else None, after, b)
            if trace:
                trace(x0[:b].detach(), matrix[m + 1])
        return x[:b], len(matrix) - 1

    def _first(self, row: Matrix, free: np.ndarray) -> int:
        """The first free token that is not yet clean in its observation."""
        open_ = np.flatnonzero(free & (row[:, 0] > 0))
        return int(open_[0]) if len(open_) else len(free)


def guided_prediction(
    s: Sampler, x: Tensor, now: Tensor, g: Guidance, border: int, b: int
) -> tuple[Tensor, Tensor, Tensor]:
    """x̂0, ε̂ and the objective's gradient by x (n·B, T, C), averaged over the n futures before ``border``."""
    x = x.detach().requires_grad_(True)
    x0, eps = s.predict(x, now)
    (grad,) = torch.autograd.grad(g.objective(x0).sum(), x)
    grad = torch.where(now[:, s.parts] > 0, grad, torch.zeros_like(grad))
    if len(x) > b and border > 0:
        futures = grad.unflatten(0, (-1, b))
        near = futures[:, :, :border].mean(0, keepdim=True).expand(len(futures), -1, -1, -1)
        grad = torch.cat([near, futures[:, :, border:]], 2).flatten(0, 1)
    return x0.detach(), eps.detach(), grad


def _own_futures(x: Tensor, noise_only: Tensor, border: int, b: int, generator: Generators) -> Tensor:
    """Fresh noise beyond the border, where there is only noise (T, C), in all futures but the first: x (n·B, T, C)."""
    far = noise_only & (torch.arange(x.shape[1], device=x.device) >= border)[:, None]
    noise = draw((len(x) - b, *x.shape[1:]), generator, x.device, x.dtype)
    return torch.cat([x[:b], torch.where(far, noise, x[b:])])


def _agree(x: Tensor, x0: Tensor, objective: Objective | None, border: int, b: int) -> Tensor:
    """Gives every future the tokens before ``border`` of the best one, or of the first one."""
    with torch.no_grad():
        futures = x.unflatten(0, (-1, b))
        best = objective(x0).unflatten(0, (-1, b)).argmax(0) if objective else 0
        near = futures[best, torch.arange(b, device=x.device), :border]
        return torch.cat([near.expand(len(futures), *near.shape), futures[:, :, border:]], 2).flatten(0, 1)
