"""With the ideal denoiser of a Gaussian, every scheduling matrix recovers the Gaussian."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from dfplanner import matrices as mx
from dfplanner.schedules import Schedule
from dfplanner.testing import GaussianDenoiser, Recorder

T, C = 4, 2
SCHEMES = {
    "full sequence": lambda t, levels: mx.full_sequence(t, levels),
    "autoregressive": lambda t, levels: mx.autoregressive(t, levels),
    "pyramid, 1 row": lambda t, levels: mx.pyramid(t, levels, 1),
    "pyramid, an eighth": lambda t, levels: mx.pyramid(t, levels, (len(levels) - 1) / 8),
    "pyramid, a half": lambda t, levels: mx.pyramid(t, levels, (len(levels) - 1) / 2),
    "rolling": lambda t, levels: mx.rolling(t, levels, 3),
    "trapezoid": lambda t, levels: mx.trapezoid(t, levels, (len(levels) - 1) / 3),
}
CAUSAL = [name for name in SCHEMES if name != "trapezoid"]


def matrix_of(name: str, steps: int, tokens: int = T) -> mx.Matrix:
    return SCHEMES[name](tokens, mx.level_list(1000, steps))[:, :, None]


def limit(push, sampler, make_matrix, x, free) -> tuple[torch.Tensor, torch.Tensor, float, float]:
    """Mean and covariance as the steps grow (Richardson's extrapolation), and the errors' ratio a doubling gives."""
    few, some, many = (push(sampler, make_matrix(n), x, free) for n in (25, 50, 100))
    mean, cov = (2 * b - a for a, b in zip(some, many, strict=True))
    ratio = (few[1] - cov).norm() / (some[1] - cov).norm()
    return mean, cov, ratio.item(), (many[1] - cov).abs().max().item()


def everything() -> dict[str, torch.Tensor]:
    return {"x": torch.zeros(T, C, dtype=torch.float64), "free": torch.ones(T, C, dtype=torch.bool)}


@pytest.mark.parametrize("causal", [False, True])
def test_the_denoiser_is_the_least_squares_estimate(gaussian, causal: bool) -> None:
    """An independent check of the oracle: it leaves a residual that nothing it may see can explain."""
    p = gaussian(T, C, parts=[0, 1])
    schedule, g = Schedule("cosine", 10), torch.Generator().manual_seed(1)
    levels = torch.randint(1, 11, (T, 2), generator=g)
    levels[1, 0] = 0
    alpha, sigma = schedule.rates(levels[:, p.parts].flatten(), torch.float64)
    root = torch.linalg.cholesky(p.covariance)
    # x0 and x as linear maps of white noise (T·C for x0, T·C for ε): then covariances are products of maps
    x0_map = torch.cat([root, torch.zeros_like(root)], 1)
    x_map = alpha[:, None] * x0_map + torch.cat([torch.zeros_like(root), sigma.diag()], 1)
    model = GaussianDenoiser(p.mean, p.covariance, schedule, p.parts, causal=causal)
    columns = x_map.T.reshape(-1, T, C) + (alpha * p.mean.flatten()).view(T, C)
    guess_map = (model(columns, levels.expand(len(columns), -1, -1)) - p.mean).flatten(1).T
    residual = (x0_map - guess_map) @ x_map.T  # (what is predicted, what is seen)
    for i in range(T * C):
        sees = (i // C + 1) * C if causal else T * C
        assert residual[i, :sees].abs().max() < 1e-10
    at_mean = model((alpha * p.mean.flatten()).view(1, T, C), levels[None])
    torch.testing.assert_close(at_mean[0], p.mean)


def test_levels_may_differ_from_one_of_the_batch_to_the_next(gaussian) -> None:
    p, g = gaussian(T, C, parts=[0, 1]), torch.Generator().manual_seed(2)
    levels = torch.randint(0, 11, (6, T, 2), generator=g)
    levels[3] = levels[0]
    x = torch.randn(6, T, C, generator=g, dtype=torch.float64)
    for prediction in ("x0", "eps", "v"):
        model = GaussianDenoiser(p.mean, p.covariance, Schedule("linear", 10), p.parts, prediction)
        alone = torch.cat([model(x[i : i + 1], levels[i : i + 1]) for i in range(6)])
        torch.testing.assert_close(model(x, levels), alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", SCHEMES)
def test_every_matrix_recovers_the_distribution(gaussian, push, name: str) -> None:
    """DDIM's mean and covariance, free of sampling error, go to the truth as 1 / steps."""
    p = gaussian(T, C)
    mean, cov, ratio, left = limit(push, p.sampler("v"), lambda n: matrix_of(name, n), **everything())
    torch.testing.assert_close(mean, p.mean.flatten(), atol=1e-6, rtol=0)
    torch.testing.assert_close(cov, p.covariance, atol=2e-3, rtol=0)
    assert 1.8 < ratio < 2.2 and 0.01 < left < 0.1


@pytest.mark.parametrize(
    "kind, prediction", [*product(("linear", "cosine", "sigmoid"), ("x0", "v")), ("linear", "eps")]
)
def test_nor_do_schedule_and_prediction_matter(gaussian, push, kind: str, prediction) -> None:
    """ε where the schedule begins at α > 0 only: at α = 0 it says nothing of x0, and the first step's mean is lost."""
    p = gaussian(T, C)
    sampler = p.sampler(prediction, kind=kind)
    mean, cov, *_ = limit(push, sampler, lambda n: matrix_of("pyramid, a half", n), **everything())
    slack = 0.02 if kind == "linear" else 1e-6  # it begins at α = 0.006, where noise alone is a little wrong
    torch.testing.assert_close(mean, p.mean.flatten(), atol=slack, rtol=0)
    torch.testing.assert_close(cov, p.covariance, atol=5e-3, rtol=0)


def fits(y: torch.Tensor, mean: torch.Tensor, cov: torch.Tensor) -> tuple[float, float]:
    """Hotelling's statistic of the mean over its degrees of freedom, and the covariances' largest error in its
    standard deviations, sqrt((Σii Σjj + Σij²) / n)."""
    y, n = y.flatten(1), len(y)
    off = y.mean(0) - mean
    t2 = n * off @ torch.linalg.solve(cov, off)
    z = (torch.cov(y.T) - cov) / ((torch.outer(cov.diag(), cov.diag()) + cov**2) / n).sqrt()
    return (t2 / len(mean)).item(), z.abs().max().item()


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("name", SCHEMES)
def test_samples_have_its_mean_and_covariance(gaussian, name: str, eta: float) -> None:
    """DDIM and DDPM, 2000 chains at once; the bounds are the sampling error's: p < 1e-5 for either."""
    p, g = gaussian(T, C), torch.Generator().manual_seed(5)
    x = torch.randn(2000, T, C, generator=g, dtype=torch.float64)
    y, _ = p.sampler("v")(x, matrix_of(name, 70), eta=eta, generator=g)
    t2, z = fits(y, p.mean.flatten(), p.covariance)
    assert t2 < 5 and z < 5


def test_samples_of_another_distribution_would_be_noticed(gaussian) -> None:
    p, g = gaussian(T, C), torch.Generator().manual_seed(5)
    x = torch.randn(2000, T, C, generator=g, dtype=torch.float64)
    y, _ = p.sampler("v", causal=True)(x, matrix_of("full sequence", 70))
    assert fits(y, p.mean.flatten(), p.covariance)[1] > 10
    y, _ = p.sampler("v")(x, matrix_of("full sequence", 70))
    assert fits(y, p.mean.flatten() + 0.2, p.covariance)[0] > 10


def test_a_causal_model_recovers_it_token_by_token(gaussian, push) -> None:
    """One token after another, what a causal model cannot see is pure noise anyway: the truth is recovered. In any
    other matrix it ignores what later tokens already say, so correlations fall short: least where the waits are long.
    """
    p = gaussian(T, C)
    sampler, gaps = p.sampler("v", causal=True), []
    for name in ("full sequence", "pyramid, an eighth", "pyramid, a half", "autoregressive"):
        mean, cov, *_ = limit(push, sampler, lambda n, name=name: matrix_of(name, n), **everything())
        torch.testing.assert_close(mean, p.mean.flatten(), atol=1e-6, rtol=0)
        first = slice(0, C)  # which sees all there is to see, itself
        torch.testing.assert_close(cov[first, first], p.covariance[first, first], atol=2e-3, rtol=0)
        gaps.append((cov - p.covariance).abs().max().item())
    assert gaps[3] < 2e-3 < gaps[2] < gaps[1] < gaps[0] and gaps[0] > 0.1


@pytest.mark.parametrize("name", SCHEMES)
def test_tokens_that_have_nothing_to_say_to_each_other_need_no_seeing(gaussian, push, name: str) -> None:
    p = gaussian(T, C)
    same = torch.block_diag(*torch.ones(T, C, C, dtype=torch.float64))
    p.covariance = p.covariance * same
    _, cov, *_ = limit(push, p.sampler("v", causal=True), lambda n: matrix_of(name, n), **everything())
    torch.testing.assert_close(cov, p.covariance, atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", CAUSAL)
def test_a_causal_models_near_future_does_not_depend_on_how_far_it_plans(gaussian, name: str) -> None:
    p, g = gaussian(T, C), torch.Generator().manual_seed(3)
    x = torch.randn(5, T, C, generator=g, dtype=torch.float64)
    matrix = matrix_of(name, 9)
    y, _ = p.sampler("v", causal=True)(x, matrix)
    short, _ = p.sampler("v", causal=True)(x[:, :2], mx.warm(matrix[:, :2], matrix[0, :2]))
    torch.testing.assert_close(y[:, :2], short, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", SCHEMES)
def test_frozen_context_gives_the_exact_conditional(gaussian, push, name: str) -> None:
    p = gaussian(T + 2, C)
    seen = torch.randn(2, C, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    x = torch.cat([seen, torch.zeros(T, C, dtype=torch.float64)])
    free = (torch.arange(T + 2) > 1)[:, None].expand(-1, C)
    mean, cov, *_ = limit(
        push, p.sampler("v"), lambda n: mx.with_prefix(matrix_of(name, n), np.zeros((2, 1), np.int64)), x, free
    )
    want_mean, want_cov = p.given([0, 1, 2, 3], seen.flatten())
    torch.testing.assert_close(mean, want_mean, atol=3e-3, rtol=0)
    torch.testing.assert_close(cov, want_cov, atol=3e-3, rtol=0)


def test_doubtful_context_counts_as_much_as_it_is_worth(gaussian, push) -> None:
    """A token held at level k gives the posterior under noise of that level; at K it gives nothing."""
    p = gaussian(T + 1, C)
    sampler = p.sampler("v")
    seen = torch.randn(C, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    free = (torch.arange(T + 1) > 0)[:, None].expand(-1, C)
    x = torch.cat([seen[None], torch.zeros(T, C, dtype=torch.float64)])
    for k in (300, 1000):
        alpha, sigma = sampler.schedule.rates(torch.tensor(k), torch.float64)
        held = np.full((1, 1), k)
        mean, cov, *_ = limit(
            push, sampler, lambda n, held=held: mx.with_prefix(matrix_of("pyramid, a half", n), held), x, free
        )
        near, far = slice(0, C), slice(C, None)
        cross, flat = alpha * p.covariance[far, near], p.mean.flatten()
        gain = cross @ torch.linalg.inv(alpha**2 * p.covariance[near, near] + sigma**2 * torch.eye(C))
        torch.testing.assert_close(mean, flat[far] + gain @ (seen - alpha * flat[near]), atol=3e-3, rtol=0)
        torch.testing.assert_close(cov, p.covariance[far, far] - gain @ cross.T, atol=3e-3, rtol=0)


@pytest.mark.parametrize("causal", [False, True])
def test_a_trapezoid_between_two_known_ends(gaussian, push, causal: bool) -> None:
    """Both ends are context. A causal model looks at the near one only."""
    p = gaussian(T, C)
    ends = torch.randn(2, C, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    x = torch.cat([ends[:1], torch.zeros(T - 2, C, dtype=torch.float64), ends[1:]])
    free = torch.tensor([False, True, True, False])[:, None].expand(-1, C)

    def matrix(n: int) -> mx.Matrix:
        levels = mx.level_list(1000, n)
        inner = mx.autoregressive(T - 2, levels) if causal else mx.trapezoid(T - 2, levels, n)
        return np.pad(inner, ((0, 0), (1, 1)))[:, :, None]

    mean, cov, *_ = limit(push, p.sampler("v", causal=causal), matrix, x, free)
    far = [] if causal else [6, 7]
    want_mean, want_cov = p.given([0, 1, *far], ends.flatten()[: 2 + len(far)])
    torch.testing.assert_close(mean, want_mean[:4], atol=3e-3, rtol=0)
    torch.testing.assert_close(cov, want_cov[:4, :4], atol=3e-3, rtol=0)


@pytest.mark.parametrize("causal", [False, True])
def test_observations_then_actions(gaussian, push, causal: bool) -> None:
    """Numbers 0, 1 of a token are the observation, 2 the action; only token 1's action is asked for."""
    p = gaussian(3, 3, parts=[0, 0, 1])

    def matrix(n: int) -> mx.Matrix:
        levels = mx.level_list(1000, n)
        return mx.observations_then_actions(mx.autoregressive(3, levels), levels, range(1, 2), 1000)

    x, free = torch.zeros(3, 3, dtype=torch.float64), torch.ones(3, 3, dtype=torch.bool)
    _, cov, *_ = limit(push, p.sampler("v", causal=causal), matrix, x, free)
    asked, later = [0, 1, 3, 4, 5, 6, 7], [6, 7]
    want = p.covariance.clone()
    if causal:  # the action was drawn given the observations before it: beyond these it knows nothing of later ones
        past = [0, 1, 3, 4]
        want[5, later] = want[5, past] @ torch.linalg.solve(want[past][:, past], want[past][:, later])
        want[later, 5] = want[5, later]
        assert (want - p.covariance).abs().max() > 0.1
    torch.testing.assert_close(cov[asked][:, asked], want[asked][:, asked], atol=3e-3, rtol=0)
    unasked = [2, 8]  # which stay the noise they were
    torch.testing.assert_close(cov[unasked][:, unasked], torch.eye(2, dtype=torch.float64))
    assert cov[asked][:, unasked].abs().max() < 1e-9


def test_the_model_is_asked_once_a_row(gaussian) -> None:
    p = gaussian(T, C)
    sampler = p.sampler()
    model = Recorder(sampler.model)
    matrix = matrix_of("pyramid, a half", 6)
    _, calls = type(sampler)(model, sampler.schedule, "x0", p.parts)(torch.zeros(7, T, C).double(), matrix)
    assert calls == len(model.calls) == len(matrix) - 1
