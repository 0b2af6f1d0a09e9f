"""Fakes as library code: ideal denoisers, which need no training, so that a sampler or a planner can be tested exactly.

An ideal denoiser is the exact posterior mean E[x0 | x] of a known distribution when every part of every token has a
noise level of its own; the causal form conditions token t on tokens ≤ t alone. With it a sampler's result is known.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from dfplanner.checkpoint import Checkpoint
from dfplanner.data.tokens import Tokenizer
from dfplanner.models.build import Denoiser, ModelConfig
from dfplanner.schedules import Prediction, Schedule, eps_of, target
from dfplanner.types import DFPlannerError, TokenSpec


class IdealDenoiser(nn.Module, ABC):
    """A posterior mean behind the call of a model: (x (B, T, C), levels (B, T, P)) -> (B, T, C).

    parts (C,): which part each of a token's numbers belongs to. It computes in float64, answers in x's type, and takes
    any number of tokens up to its own. In ε form a level with α = 0 says nothing about x0: take a schedule without.
    """

    def __init__(self, schedule: Schedule, parts: Tensor, prediction: Prediction = "x0", causal: bool = False) -> None:
        super().__init__()
        self.schedule, self.parts, self.causal = schedule, parts, causal
        self.prediction: Prediction = prediction

    def forward(self, x: Tensor, levels: Tensor) -> Tensor:
        alpha, sigma = self.schedule.rates(levels[..., self.parts], torch.float64)
        wide = x.double()
        x0 = self.posterior_mean(wide, alpha, sigma)
        return target(x0, eps_of(x0, wide, alpha, sigma), alpha, sigma, self.prediction).to(x.dtype)

    @abstractmethod
    def posterior_mean(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """E[x0 | x] (B, T, C) for rates shaped like x, in float64."""


class GaussianDenoiser(IdealDenoiser):
    """The posterior mean of a Gaussian over whole sequences: mean (T, C), covariance (T·C, T·C), positive definite."""

    def __init__(
        self,
        mean: Tensor,
        covariance: Tensor,
        schedule: Schedule,
        parts: Tensor,
        prediction: Prediction = "x0",
        causal: bool = False,
    ) -> None:
        super().__init__(schedule, parts, prediction, causal)
        if covariance.shape != (mean.numel(), mean.numel()):
            raise DFPlannerError(
                f"a covariance of shape {tuple(covariance.shape)} does not fit a mean of shape {tuple(mean.shape)}; "
                f"expected ({mean.numel()}, {mean.numel()})"
            )
        self.mean, self.covariance = mean.double(), covariance.double()

    def posterior_mean(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        alpha, sigma = alpha.flatten(1), sigma.flatten(1)
        rates, which = torch.cat([alpha, sigma], 1)[:1], torch.zeros(len(x), dtype=torch.long)
        if not ((alpha == alpha[:1]).all() and (sigma == sigma[:1]).all()):
            rates, which = torch.unique(torch.cat([alpha, sigma], 1), dim=0, return_inverse=True)
        mean, flat = self.mean[: x.shape[1]].flatten(), x.flatten(1)
        out = torch.empty_like(flat)
        for i, row in enumerate(rates):
            a, s = row.chunk(2)
            out[which == i] = mean + (flat[which == i] - a * mean) @ self._gain(a, s, x.shape[2]).T
        return out.view_as(x)

    def _gain(self, a: Tensor, s: Tensor, width: int) -> Tensor:
        """G of E[x0 | x] = m + G (x - a m), for rates (n,) of x = a x0 + s ε."""
        n = len(a)
        cross = self.covariance[:n, :n] * a
        seen = cross * a[:, None] + torch.diag(s**2)
        if not self.causal:
            return torch.linalg.solve(seen, cross, left=False)
        gain = torch.zeros_like(seen)
        for end in range(width, n + 1, width):  # the last token's rows, given everything up to it
            own = slice(end - width, end)
            gain[own, :end] = torch.linalg.solve(seen[:end, :end], cross[own, :end], left=False)
        return gain


class DataDenoiser(IdealDenoiser):
    """The posterior mean of a small data set: items (N, T, C) with weights (N,), equal by default.

    A clean part that is no item's is taken for the nearest one's: σ is never less than ``floor``.
    """

    def __init__(
        self,
        items: Tensor,
        schedule: Schedule,
        parts: Tensor,
        prediction: Prediction = "x0",
        causal: bool = False,
        weights: Tensor | None = None,
        floor: float = 1e-3,
    ) -> None:
        super().__init__(schedule, parts, prediction, causal)
        self.items, self.floor = items.double(), floor
        self.log_weights = torch.zeros(len(items), dtype=torch.float64) if weights is None else weights.double().log()

    def posterior_mean(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        items = self.items[:, : x.shape[1]]
        miss = (x[:, None] - alpha[:, None] * items) / sigma[:, None].clamp(min=self.floor)  # (B, N, T, C)
        fit = -0.5 * miss.square().sum(-1)
        fit = fit.cumsum(2) if self.causal else fit.sum(2, keepdim=True).expand_as(fit)
        share = (fit + self.log_weights[:, None]).softmax(1)
        return torch.einsum("bnt,ntc->btc", share, items)


class Recorder(nn.Module):
    """A denoiser that remembers what it was asked: ``calls`` holds (x, levels) of every call."""

    def __init__(self, model: Denoiser) -> None:
        super().__init__()
        self.model, self.causal = model, model.causal
        self.calls: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor, levels: Tensor) -> Tensor:
        self.calls.append((x.detach().clone(), levels.clone()))
        return self.model(x, levels)


def plain_tokenizer(spec: TokenSpec) -> Tokenizer:
    """A tokenizer that changes nothing: tokens are observations and flattened chunks; act_code is chunk · act_dim."""
    flat = spec.chunk * spec.act_dim
    if spec.act_code != flat:
        raise DFPlannerError(f"act_code is {spec.act_code}; a tokenizer that changes nothing needs {flat}")
    ones, zeros = np.ones(max(spec.obs_dim, flat), np.float32), np.zeros(max(spec.obs_dim, flat), np.float32)
    stats = {"obs_mean": zeros[: spec.obs_dim], "obs_std": ones[: spec.obs_dim], "act_mean": zeros[:flat]}
    return Tokenizer(spec, {**stats, "act_basis": np.eye(flat, dtype=np.float32), "act_scale": ones[:flat]})


def as_checkpoint(spec: TokenSpec, model: nn.Module, schedule: Schedule, prediction: Prediction = "x0") -> Checkpoint:
    """A checkpoint around any denoiser of tokens in the environment's own units, an ideal one say; not to be saved."""
    return Checkpoint(spec, schedule, prediction, ModelConfig(), model, plain_tokenizer(spec))


@dataclass(frozen=True)
class Circle:
    """A world whose plans are known: a point goes round a circle, one place a step, and what it does says which way.

    Observations are positions (x, y); an action is (cos(place) / 2, way), the way being +1 or -1; the goal of a window
    lies a quarter turn ahead of its start. A goal, a history of two or an action settles the way; without any of them
    both are equally likely.
    """

    spec: TokenSpec = field(default_factory=lambda: TokenSpec(2, 2, chunk=2, act_code=4, horizon=6, dt_s=0.5))
    places: int = 24

    def position(self, at: ArrayLike) -> NDArray[np.float32]:
        """Positions (..., 2) at places (...), counted from (1, 0) the positive way round."""
        angle = np.asarray(at) * 2 * np.pi / self.places
        return np.stack([np.cos(angle), np.sin(angle)], -1).astype(np.float32)

    def action(self, at: ArrayLike, way: ArrayLike) -> NDArray[np.float32]:
        """Actions (..., 2) that lead on from places (...)."""
        angle, way = np.broadcast_arrays(np.asarray(at) * 2 * np.pi / self.places, np.asarray(way))
        return np.stack([np.cos(angle) / 2, way], -1).astype(np.float32)

    def goal(self, at: ArrayLike, way: ArrayLike) -> NDArray[np.float32]:
        """The goals (..., 2) of who starts at places (...)."""
        return self.position(np.asarray(at) + np.asarray(way) * self.places / 4)

    def future(self, at: ArrayLike, way: ArrayLike, tokens: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """States (B, tokens, 2) and actions (B, (tokens - 1) · chunk, 2) from places (B,) on."""
        at, way = np.broadcast_arrays(np.asarray(at)[:, None], np.reshape(way, (-1, 1)))
        steps = at + way * np.arange((tokens - 1) * self.spec.chunk)
        return self.position(at + way * self.spec.chunk * np.arange(tokens)), self.action(steps, way)

    def checkpoint(self, causal: bool = True) -> Checkpoint:
        """Its ideal denoiser, as a checkpoint; the model is a Recorder."""
        at, way = np.repeat(np.arange(self.places), 2), np.tile([1, -1], self.places)
        states, actions = self.future(at, way, self.spec.horizon)
        chunks = actions.reshape(len(at), -1, self.spec.chunk, 2)
        tokenizer, schedule = plain_tokenizer(self.spec), Schedule("cosine", 1000)
        tokens = tokenizer.encode(*(torch.from_numpy(a) for a in (states, chunks, self.goal(at, way))))
        model = DataDenoiser(tokens, schedule, torch.from_numpy(tokenizer.part_of), "v", causal)
        return as_checkpoint(self.spec, Recorder(model), schedule, "v")
