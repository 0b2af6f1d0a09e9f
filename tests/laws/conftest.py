"""A Gaussian problem that several laws share: three tokens and more, of two numbers, all of them correlated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from dfplanner.matrices import Matrix
from dfplanner.sampler import Guidance, Sampler
from dfplanner.schedules import Prediction, Schedule
from dfplanner.testing import GaussianDenoiser


@dataclass
class Gaussian:
    """mean (T, C) and covariance (T·C, T·C), unit variances, of a distribution over sequences."""

    mean: Tensor
    covariance: Tensor
    parts: Tensor

    @classmethod
    def make(cls, tokens: int, width: int, seed: int = 0, parts: list[int] | None = None) -> Gaussian:
        g, n = torch.Generator().manual_seed(seed), tokens * width
        a = torch.randn(n, n, generator=g, dtype=torch.float64)
        cov = a @ a.T / n + 0.1 * torch.eye(n, dtype=torch.float64)
        std = cov.diag().sqrt()
        mean = torch.randn(tokens, width, generator=g, dtype=torch.float64)
        return cls(mean, cov / std[:, None] / std, torch.tensor(parts or [0] * width))

    def sampler(self, prediction: Prediction = "x0", causal: bool = False, kind: str = "cosine") -> Sampler:
        schedule = Schedule(kind, 1000)  # pyright: ignore[reportArgumentType]
        model = GaussianDenoiser(self.mean, self.covariance, schedule, self.parts, prediction, causal)
        return Sampler(model, schedule, prediction, self.parts)

    def given(self, known: list[int], values: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and covariance of the other numbers, given some of the T·C."""
        rest = [i for i in range(self.mean.numel()) if i not in known]
        cov, mean = self.covariance, self.mean.flatten()
        gain = torch.linalg.solve(cov[known][:, known], cov[known][:, rest]).T
        return mean[rest] + gain @ (values - mean[known]), cov[rest][:, rest] - gain @ cov[known][:, rest]


def pushed(
    sampler: Sampler, matrix: Matrix, x: Tensor, free: Tensor, guidance: Guidance | None = None
) -> tuple[Tensor, Tensor]:
    """Mean and covariance of what a DDIM run makes of standard normal noise in the free (T, C) numbers of x (T, C).

    On a Gaussian with its ideal denoiser the run is an affine map, so they follow from its columns without any error.
    """
    where = free.flatten().nonzero()[:, 0]
    starts = x.flatten().repeat(len(where) + 1, 1)
    starts[:, where] = 0
    starts[torch.arange(len(where)) + 1, where] = 1
    ends, _ = sampler(starts.view(-1, *x.shape), matrix, guidance=guidance)
    ends = ends.flatten(1)[:, where]
    columns = ends[1:] - ends[0]
    return ends[0], columns.T @ columns


@pytest.fixture
def gaussian() -> Callable[..., Gaussian]:
    return Gaussian.make


@pytest.fixture
def push() -> Callable[..., tuple[Tensor, Tensor]]:
    return pushed
