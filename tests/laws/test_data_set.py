"""With the ideal denoiser of a small data set, every scheduling matrix draws its items, as often as they occur."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dfplanner import matrices as mx
from dfplanner.sampler import Sampler
from dfplanner.schedules import Prediction, Schedule
from dfplanner.testing import DataDenoiser

T, C, N = 4, 2, 1500
SCHEMES = {
    "full sequence": lambda t, levels: mx.full_sequence(t, levels),
    "autoregressive": lambda t, levels: mx.autoregressive(t, levels),
    "pyramid, an eighth": lambda t, levels: mx.pyramid(t, levels, (len(levels) - 1) / 8),
    "pyramid, a half": lambda t, levels: mx.pyramid(t, levels, (len(levels) - 1) / 2),
    "rolling": lambda t, levels: mx.rolling(t, levels, 3),
    "trapezoid": lambda t, levels: mx.trapezoid(t, levels, (len(levels) - 1) / 3),
}
WEIGHTS = torch.tensor([0.3, 0.1, 0.2, 0.2, 0.1, 0.1], dtype=torch.float64)
LIMIT = 33.0
"""Of χ² with at most 5 degrees of freedom: p < 4e-6."""


def items() -> torch.Tensor:
    """Six sequences; 0 and 1 begin alike for two tokens, 2 and 3 for one."""
    x = torch.randn(6, T, C, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[1, :2], x[3, :1] = x[0, :2], x[2, :1]
    return x


def sampler(causal: bool, prediction: Prediction = "v") -> Sampler:
    schedule, parts = Schedule("cosine", 1000), torch.zeros(C, dtype=torch.long)
    return Sampler(DataDenoiser(items(), schedule, parts, prediction, causal, WEIGHTS), schedule, prediction, parts)


def nearest(y: torch.Tensor, tokens: slice = slice(None)) -> tuple[torch.Tensor, torch.Tensor]:
    """Distance to the nearest item, and which it is."""
    away = (y[:, None, tokens] - items()[:, tokens]).flatten(2).norm(dim=-1)
    return away.min(1).values, away.argmin(1)


def chi2(which: torch.Tensor, share: torch.Tensor) -> float:
    count, expected = torch.bincount(which, minlength=len(share)).double(), share * len(which)
    return float(((count - expected) ** 2 / expected)[share > 0].sum())


def sample(name: str, causal: bool, eta: float, seed: int = 1) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(N, T, C, generator=g, dtype=torch.float64)
    matrix = SCHEMES[name](T, mx.level_list(1000, 50))[:, :, None]
    return sampler(causal)(x, matrix, eta=eta, generator=g)[0]


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("name", SCHEMES)
def test_samples_are_items_as_often_as_they_should_be(name: str, eta: float) -> None:
    away, which = nearest(sample(name, False, eta))
    assert (away > 0.02).double().mean() < 2e-3
    assert chi2(which, WEIGHTS) < LIMIT


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_causal_model_draws_items_one_token_after_another(eta: float) -> None:
    away, which = nearest(sample("autoregressive", True, eta))
    assert (away > 0.02).double().mean() < 2e-3
    assert chi2(which, WEIGHTS) < LIMIT


def test_a_causal_model_all_at_once_mixes_items() -> None:
    """Tokens that fall together cannot agree if the earlier may not see the later: most sequences are no item. With a
    wait between them they do agree again, though not yet in the right proportions."""
    away, _ = nearest(sample("full sequence", True, 0.0))
    assert (away > 0.5).double().mean() > 0.3
    away, which = nearest(sample("pyramid, an eighth", True, 0.0))
    assert (away > 0.02).double().mean() < 2e-3
    assert chi2(which, WEIGHTS) > 1.5 * LIMIT
    first, which = nearest(sample("full sequence", True, 0.0), slice(0, 1))  # the first token has nothing to wait for
    own = torch.stack([WEIGHTS[0] + WEIGHTS[1], WEIGHTS[2] + WEIGHTS[3], WEIGHTS[4], WEIGHTS[5]])
    assert first.max() < 0.02 and chi2(torch.tensor([0, 0, 1, 1, 2, 3])[which], own) < LIMIT


@pytest.mark.parametrize("causal", [False, True])
def test_known_beginnings_leave_the_right_endings(causal: bool) -> None:
    """Two tokens of context that items 0 and 1 share: those two, three to one, and no other."""
    g = torch.Generator().manual_seed(2)
    x = torch.randn(N, T, C, generator=g, dtype=torch.float64)
    x[:, :2] = items()[0, :2]
    name = "autoregressive" if causal else "pyramid, a half"
    inner = SCHEMES[name](T - 2, mx.level_list(1000, 50))[:, :, None]
    y, _ = sampler(causal)(x, mx.with_prefix(inner, np.zeros((2, 1), np.int64)))
    assert torch.equal(y[:, :2], x[:, :2])
    away, which = nearest(y)
    assert (away > 0.02).double().mean() < 2e-3
    assert which.max() <= 1 and chi2(which, torch.tensor([0.75, 0.25], dtype=torch.float64)) < LIMIT


def test_the_denoiser_against_bayes_by_hand() -> None:
    """Token by token: log-likelihoods of Gaussians summed over what may be seen, and the items' weighted mean."""
    schedule, g = Schedule("sigmoid", 10), torch.Generator().manual_seed(3)
    parts = torch.tensor([0, 1])
    x, levels = torch.randn(3, T, C, generator=g).double(), torch.randint(1, 11, (3, T, 2), generator=g)
    alpha, sigma = schedule.rates(levels, torch.float64)
    for causal in (False, True):
        got = DataDenoiser(items(), schedule, parts, "x0", causal, WEIGHTS)(x, levels)
        for b in range(3):
            for t in range(T):
                to = t + 1 if causal else T
                noise = torch.distributions.Normal(alpha[b, :to] * items()[:, :to], sigma[b, :to])
                p = WEIGHTS * noise.log_prob(x[b, :to]).sum((1, 2)).exp()
                torch.testing.assert_close(got[b, t], (p[:, None] * items()[:, t]).sum(0) / p.sum())


@pytest.mark.parametrize("prediction", ["x0", "eps", "v"])
def test_what_it_predicts_is_one_and_the_same(prediction) -> None:
    """The trajectory does not depend on the form in which the denoiser answers (from α > 0, where ε has a meaning)."""
    x = torch.randn(20, T, C, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    matrix = mx.pyramid(T, mx.level_list(900, 9), 2)[:, :, None]
    y, _ = sampler(False, prediction)(x, matrix)
    want, _ = sampler(False, "x0")(x, matrix)
    torch.testing.assert_close(y, want, atol=1e-6, rtol=0)
