"""Noise schedules, and x0 / ε / v in one place.

A level k in 0..K has a signal rate α_k and a noise rate σ_k with α² + σ² = 1: x_k = α_k x_0 + σ_k ε.
Level 0 is exactly clean (σ = 0); level K is (nearly) pure noise. Ho et al. 2020; Nichol & Dhariwal 2021 (cosine);
Jabri et al. 2022 (sigmoid); Salimans & Ho 2022 (v).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from dfplanner.types import DFPlannerError

Kind = Literal["linear", "cosine", "sigmoid"]
Prediction = Literal["x0", "eps", "v"]
Weighting = Literal["elbo", "eps", "v", "x0", "min_snr"]


@lru_cache(maxsize=16)
def _alpha_bar(kind: str, levels: int) -> Tensor:
    """ᾱ_k for k = 0..K in float64 (K+1,)."""
    k = torch.arange(levels + 1, dtype=torch.float64) / levels
    if kind == "linear":
        betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
        if levels != 1000:  # keep the same ᾱ curve whatever K is
            log_bar = torch.cat([torch.zeros(1, dtype=torch.float64), torch.log1p(-betas).cumsum(0)])
            pos = k * 1000
            lo = pos.floor().long().clamp(max=999)
            return torch.exp(log_bar[lo] + (pos - lo) * (log_bar[lo + 1] - log_bar[lo]))
        return torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - betas, 0)])
    if kind == "cosine":
        return torch.cos(k * math.pi / 2) ** 2
    if kind == "sigmoid":
        lo, hi = -3.0, 3.0
        s = torch.sigmoid(lo + (hi - lo) * k)
        return (torch.sigmoid(torch.tensor(hi, dtype=torch.float64)) - s) / (s[-1] - s[0])
    raise DFPlannerError(f"unknown noise schedule {kind!r}; known: linear, cosine, sigmoid")


@dataclass(frozen=True)
class Schedule:
    """A noise schedule with K = ``levels`` noise levels above clean."""

    kind: Kind = "cosine"
    levels: int = 1000

    def __post_init__(self) -> None:
        if self.levels < 1:
            raise DFPlannerError(f"a schedule needs at least 1 noise level, got {self.levels}")
        _alpha_bar(self.kind, self.levels)

    def alpha_bar(self, k: Tensor) -> Tensor:
        """ᾱ at integer levels k of any shape, float64."""
        return _alpha_bar(self.kind, self.levels).to(k.device)[k]

    def rates(self, k: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Signal and noise rates (α_k, σ_k), shaped like k."""
        bar = self.alpha_bar(k)
        return bar.sqrt().to(dtype), (1 - bar).clamp(min=0).sqrt().to(dtype)

    def add_noise(self, x0: Tensor, noise: Tensor, k: Tensor) -> Tensor:
        """x_k = α x_0 + σ ε, for levels broadcastable to x0."""
        a, s = self.rates(k, x0.dtype)
        return a * x0 + s * noise


def to_x0_eps(pred: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor, kind: Prediction) -> tuple[Tensor, Tensor]:
    """The clean sample and the noise that a model's output stands for, all shaped like x.

    Where the division is by a vanishing rate the other quantity is left as the prior says (ε = x at pure noise).
    """
    if kind == "v":
        return alpha * x - sigma * pred, sigma * x + alpha * pred
    if kind == "x0":
        return pred, eps_of(pred, x, alpha, sigma)
    if kind == "eps":
        return (x - sigma * pred) / alpha.clamp(min=1e-3), pred
    raise DFPlannerError(f"unknown prediction {kind!r}; known: x0, eps, v")


def eps_of(x0: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """ε = (x - α x0) / σ, and 0 where σ = 0."""
    return torch.where(sigma > 0, (x - alpha * x0) / sigma.clamp(min=1e-12), torch.zeros_like(x))


def target(x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor, kind: Prediction) -> Tensor:
    """What a model of this kind should output."""
    if kind == "v":
        return alpha * noise - sigma * x0
    if kind == "x0":
        return x0
    if kind == "eps":
        return noise
    raise DFPlannerError(f"unknown prediction {kind!r}; known: x0, eps, v")


def x0_weight(schedule: Schedule, k: Tensor, weighting: Weighting, gamma: float = 5.0) -> Tensor:
    """Weight of ‖x̂0 - x0‖² at level k, shaped like k (0 at level 0).

    ``elbo`` is the variational bound itself, K/2 · (SNR(k-1) - SNR(k)) (Kingma et al. 2021, eq. 13), and 0 at level 1,
    where SNR(0) is infinite (the bound's reconstruction term); the others are re-weightings of it: ``eps`` = SNR,
    ``v`` = SNR + 1, ``x0`` = 1, ``min_snr`` = min(SNR, γ) (Hang et al. 2023).
    """
    bar = schedule.alpha_bar(k)
    snr = bar / (1 - bar).clamp(min=1e-12)
    if weighting == "elbo":
        before = schedule.alpha_bar((k - 1).clamp(min=1))
        w = 0.5 * schedule.levels * (before / (1 - before) - snr)
    elif weighting == "eps":
        w = snr
    elif weighting == "v":
        w = snr + 1
    elif weighting == "min_snr":
        w = snr.clamp(max=gamma)
    elif weighting == "x0":
        w = torch.ones_like(snr)
    else:
        raise DFPlannerError(f"unknown loss weighting {weighting!r}; known: elbo, eps, v, x0, min_snr")
    return torch.where(k > 0, w, torch.zeros_like(w)).float()


def loss_factor(schedule: Schedule, k: Tensor, prediction: Prediction, weighting: Weighting) -> Tensor:
    """Factor on ‖pred - target‖² that makes it the weighted x0 error, so any prediction can train any weighting."""
    bar = schedule.alpha_bar(k)
    snr = bar / (1 - bar).clamp(min=1e-12)
    errors = {"v": snr + 1, "eps": snr, "x0": torch.ones_like(snr)}
    if prediction not in errors:
        raise DFPlannerError(f"unknown prediction {prediction!r}; known: x0, eps, v")
    per_x0 = errors[prediction]  # error in pred = per_x0 · error in x0
    if weighting == prediction:
        return (k > 0).float()
    return x0_weight(schedule, k, weighting) / per_x0.clamp(min=1e-4).float()
