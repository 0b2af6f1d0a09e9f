"""Guidance, and Monte Carlo guidance, where the right answer has a closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dfplanner import matrices as mx
from dfplanner.sampler import Guidance, Sampler, guided_prediction
from dfplanner.schedules import eps_of
from dfplanner.testing import Recorder

T, C = 4, 2


class Problem:
    """Near tokens at low noise, far ones at high noise, and J = exp(u · x̂0) of the far ones.

    The far tokens' noisy values given the near ones' are Gaussian, x̂0 is affine in both, and so J is log-normal:
    E[∂J/∂x_near] = (∂x̂0/∂x_near)ᵀ u · exp(mean + variance / 2).
    """

    near = 2

    def __init__(self, gaussian, causal: bool) -> None:
        p = gaussian(T, C)
        self.sampler: Sampler = p.sampler("v", causal)
        self.now = torch.tensor([[300], [400], [600], [700]])
        alpha, sigma = self.sampler.schedule.rates(self.now[:, [0, 0]].flatten(), torch.float64)
        self.alpha_mean = alpha * p.mean.flatten()
        zero = torch.zeros(1, T, C, dtype=torch.float64)
        probes = torch.cat([zero, torch.eye(T * C, dtype=torch.float64).view(-1, T, C)])
        out = self.sampler.predict(probes, self.now)[0].flatten(1)
        self.offset, self.gain = out[0], (out[1:] - out[0]).T  # x̂0 = offset + gain x
        seen = alpha[:, None] * p.covariance * alpha + torch.diag(sigma**2)
        n, f = slice(0, self.near * C), slice(self.near * C, None)
        self.carry = torch.linalg.solve(seen[n, n], seen[n, f]).T
        self.spread = seen[f, f] - self.carry @ seen[n, f]
        self.u = torch.zeros(T * C, dtype=torch.float64)
        self.u[self.near * C :] = torch.tensor([0.5, 0.4, 1.0, -0.7])
        variance = self.u @ self.gain[:, f] @ self.spread @ self.gain[:, f].T @ self.u
        self.u /= variance.sqrt()  # so that log J has the variance 1 over futures
        self.n, self.f = n, f

    def objective(self, x0: torch.Tensor) -> torch.Tensor:
        return (x0.flatten(1) @ self.u).exp()

    def far(self, near: torch.Tensor) -> torch.Tensor:
        return self.alpha_mean[self.f] + (near - self.alpha_mean[self.n]) @ self.carry.T

    def expectation(self, near: torch.Tensor) -> torch.Tensor:
        mean = (self.offset + torch.cat([near, self.far(near)], 1) @ self.gain.T) @ self.u
        return (self.gain[:, self.n].T @ self.u) * (mean + 0.5).exp()[:, None]

    def guided(self, near: torch.Tensor, futures: torch.Tensor) -> torch.Tensor:
        """guided_prediction's gradient for near (B, ·), with futures (n, B, ·)."""
        x = torch.cat([near.expand(len(futures), -1, -1), futures], 2).view(-1, T, C)
        g = Guidance(self.objective, samples=len(futures), near=self.near)
        _, _, grad = guided_prediction(self.sampler, x, self.now, g, self.near, len(near))
        grad = grad.flatten(1)[:, self.n].unflatten(0, (len(futures), -1))
        assert torch.equal(grad[0], grad[-1]), "all futures pull the near tokens alike"
        return grad[0]

    def draw(self, near: torch.Tensor, n: int, seed: int) -> torch.Tensor:
        g, root = torch.Generator().manual_seed(seed), torch.linalg.cholesky(self.spread)
        noise = torch.randn(n, len(near), len(root), generator=g, dtype=torch.float64)
        return self.far(near) + noise @ root.T


def off(got: torch.Tensor, want: torch.Tensor) -> float:
    """Root mean square over problems of the relative error."""
    return ((got - want).norm(dim=1) / want.norm(dim=1)).square().mean().sqrt().item()


@pytest.mark.parametrize("causal", [False, True])
def test_the_mean_over_futures_goes_to_the_expected_gradient(gaussian, causal: bool) -> None:
    """Error ~ sqrt((e - 1) / n), the relative deviation of a log-normal of variance 1. One future is far off; so is
    the expected future in place of futures, as J is curved; so are futures that ignore the near tokens."""
    p = Problem(gaussian, causal)
    near = torch.randn(64, p.near * C, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    want = p.expectation(near)
    for n in (16, 256, 4096):
        expected = math.sqrt((math.e - 1) / n)
        assert 0.5 * expected < off(p.guided(near, p.draw(near, n, n)), want) < 2 * expected
    assert off(p.guided(near, p.draw(near, 1, 1)), want) > 0.5
    assert off(p.guided(near, p.far(near)[None]), want) == pytest.approx(1 - math.exp(-0.5), rel=1e-6)
    anywhere = p.draw(near[torch.randperm(64, generator=torch.Generator().manual_seed(2))], 4096, 3)
    assert off(p.guided(near, anywhere), want) > 0.2, "futures must be those of these near tokens"


def test_far_tokens_follow_their_own_future(gaussian) -> None:
    p = Problem(gaussian, True)
    near = torch.randn(3, p.near * C, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    futures = p.draw(near, 5, 2)
    x = torch.cat([near.expand(5, -1, -1), futures], 2).view(-1, T, C)
    g = Guidance(p.objective, samples=5, near=p.near)
    _, _, all_grads = guided_prediction(p.sampler, x, p.now, g, p.near, 3)
    for i in range(5):
        alone = x[3 * i : 3 * i + 3]
        _, _, grad = guided_prediction(p.sampler, alone, p.now, g, p.near, 3)
        torch.testing.assert_close(all_grads[3 * i : 3 * i + 3, p.near :], grad[:, p.near :])


def run(
    sampler: Sampler, x: torch.Tensor, matrix: mx.Matrix, g: Guidance, eta: float = 0.0
) -> tuple[list, torch.Tensor]:
    model = Recorder(sampler.model)
    recorded = Sampler(model, sampler.schedule, sampler.prediction, sampler.parts)
    y, calls = recorded(x, matrix, guidance=g, eta=eta, generator=torch.Generator().manual_seed(4))
    assert calls == len(model.calls) == len(matrix) - 1, "n futures are one batched call a row"
    return [call[0] for call in model.calls], y


def pyramid(frozen: int = 1, steps: int = 6) -> mx.Matrix:
    inner = mx.pyramid(T - frozen, mx.level_list(1000, steps), 2)[:, :, None]
    return mx.with_prefix(inner, np.zeros((frozen, 1), np.int64))


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("near", [1, 2])
def test_futures_share_the_near_tokens_and_nothing_else(gaussian, causal: bool, eta: float, near: int) -> None:
    b, n, matrix = 3, 5, pyramid()
    x = torch.randn(b, T, C, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    g = Guidance(lambda x0: x0[:, -1].sum(1), 0.3, samples=n, near=near)
    seen, y = run(gaussian(T, C).sampler("v", causal), x, matrix, g, eta)
    for x_m, row in zip(seen, matrix, strict=False):
        assert x_m.shape == (n * b, T, C)
        futures = x_m.unflatten(0, (n, b))
        border = int(np.flatnonzero(row[:, 0] > 0)[0]) + near
        assert torch.equal(futures[:, :, :border], futures[:1, :, :border].expand(n, -1, -1, -1))
        for t in range(border, T):
            assert all((futures[0, :, t] - futures[i, :, t]).abs().min() > 0 for i in range(1, n))
    assert torch.equal(seen[0][:b], x), "the first future is the noise that was given"
    assert y.shape == x.shape and torch.equal(y[:, 0], x[:, 0])


def test_near_tokens_move_by_the_mean_gradient_of_the_futures(gaussian) -> None:
    """Row by row, against the futures' gradients taken one future at a time."""
    b, n, matrix = 3, 5, pyramid()
    sampler = gaussian(T, C).sampler("v", True)
    g = Guidance(lambda x0: x0[:, -1].sum(1).exp(), 0.3, samples=n, near=2)
    x = torch.randn(b, T, C, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    seen, y = run(sampler, x, matrix, g)
    rows, differs = torch.from_numpy(matrix), 0.0
    for m in range(len(matrix) - 1):
        border = int(np.flatnonzero(matrix[m, :, 0] > 0)[0]) + 2
        single = [guided_prediction(sampler, f, rows[m], g, border, b) for f in seen[m].unflatten(0, (n, b))]
        grad = torch.stack([s[2] for s in single])[:, :, :border]
        x0, x_m = single[0][0][:, :border], seen[m][:b, :border]
        alpha, sigma = sampler.schedule.rates(rows[m, :border, :], torch.float64)
        moved = x0 + 0.3 * sigma**2 / alpha.clamp(min=g.floor) * grad.mean(0)
        eps = eps_of(moved, x_m, alpha, sigma)
        want = sampler.step(x_m, moved, eps, rows[m, :border], rows[m + 1, :border], 0.0, None)
        got = seen[m + 1][:b] if m + 1 < len(seen) else y
        torch.testing.assert_close(got[:, :border], want, rtol=1e-9, atol=1e-9)
        differs = max(differs, (grad[0] - grad.mean(0)).abs().max().item())
    assert differs > 0.01, "one future would have moved them otherwise"


SCHEMES = {
    "full sequence": lambda levels: mx.full_sequence(T, levels),
    "autoregressive": lambda levels: mx.autoregressive(T, levels),
    "pyramid, a half": lambda levels: mx.pyramid(T, levels, (len(levels) - 1) / 2),
    "trapezoid": lambda levels: mx.trapezoid(T, levels, (len(levels) - 1) / 3),
}


@pytest.mark.parametrize("name, causal", [*((name, False) for name in SCHEMES), ("autoregressive", True)])
def test_a_linear_objective_tilts_a_gaussian_as_theory_says(gaussian, push, name: str, causal: bool) -> None:
    """p(x) exp(λ u·x) is N(m + λ Σ u, Σ): guidance through the model is exact here, whatever the matrix. Only the last
    token is wanted elsewhere; the others must come along as their correlation with it says."""
    p, strength = gaussian(T, C), 0.8
    u = torch.zeros(T, C, dtype=torch.float64)
    u[-1] = torch.tensor([1.0, -0.5])
    g = Guidance(lambda x0: (x0 * u).sum((1, 2)), strength, floor=1e-9)
    x, free = torch.zeros(T, C, dtype=torch.float64), torch.ones(T, C, dtype=torch.bool)
    some, many = (
        push(p.sampler("v", causal), SCHEMES[name](mx.level_list(1000, n))[:, :, None], x, free, g) for n in (50, 100)
    )
    mean, cov = (2 * b - a for a, b in zip(some, many, strict=True))
    shift = strength * p.covariance @ u.flatten()
    assert shift[: (T - 1) * C].abs().max() > 0.1
    torch.testing.assert_close(mean - p.mean.flatten(), shift, atol=0.01, rtol=0)
    torch.testing.assert_close(cov, p.covariance, atol=5e-3, rtol=0)


def test_the_default_floor_costs_little_of_it(gaussian, push) -> None:
    """Where α < floor the pull is cut, for x̂0 of a learned model says little there; most of the shift remains."""
    p = gaussian(T, C)
    u = torch.zeros(T, C, dtype=torch.float64)
    u[-1] = 1.0
    g = Guidance(lambda x0: (x0 * u).sum((1, 2)))
    x, free = torch.zeros(T, C, dtype=torch.float64), torch.ones(T, C, dtype=torch.bool)
    mean, _ = push(p.sampler("v"), mx.full_sequence(T, mx.level_list(1000, 100))[:, :, None], x, free, g)
    shift, want = mean - p.mean.flatten(), p.covariance @ u.flatten()
    assert torch.nn.functional.cosine_similarity(shift, want, dim=0) > 0.99
    assert 0.8 < (shift.norm() / want.norm()).item() < 1.02


def test_what_is_known_stays_and_what_follows_is_tilted_given_it(gaussian, push) -> None:
    p = gaussian(T, C)
    u = torch.zeros(T, C, dtype=torch.float64)
    u[-1] = 1.0
    seen = torch.randn(C, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    x = torch.cat([seen[None], torch.zeros(T - 1, C, dtype=torch.float64)])
    free = (torch.arange(T) > 0)[:, None].expand(-1, C)
    g = Guidance(lambda x0: (x0 * u).sum((1, 2)), floor=1e-9)
    some, many = (push(p.sampler("v"), pyramid(1, n), x, free, g) for n in (50, 100))
    mean, cov = p.given([0, 1], seen)
    torch.testing.assert_close(2 * many[0] - some[0], mean + cov @ u.flatten()[C:], atol=0.01, rtol=0)


def test_several_futures_tilt_no_further_unless_the_best_is_asked_for(gaussian) -> None:
    """With a linear J all futures have the same gradient, so n of them leave the distribution as one does; taking the
    best of them where tokens come near is a selection on top, which pulls even without a gradient."""
    p, n = gaussian(T, C), 500
    u = torch.zeros(T * C, dtype=torch.float64)
    u[-1] = 1.0
    x = torch.randn(n, T, C, generator=torch.Generator().manual_seed(5), dtype=torch.float64)

    def score(scale: float, samples: int, best: bool) -> torch.Tensor:
        g = Guidance(lambda x0: x0.flatten(1) @ u, scale, samples=samples, best=best)
        return run(p.sampler("v", True), x, pyramid(0), g)[1].flatten(1) @ u

    for scale in (1e-9, 0.5):
        one, several, chosen = score(scale, 1, True), score(scale, 6, False), score(scale, 6, True)
        torch.testing.assert_close(several, one, rtol=1e-9, atol=1e-9)
        assert (chosen.mean() - one.mean()).item() > 0.5


def test_futures_keep_what_is_known_or_half_known_far_off(gaussian) -> None:
    """Only pure noise is drawn afresh: a known end stays, and so does a plan that was re-noised to start warm."""
    x = torch.randn(2, T, C, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    g = Guidance(lambda x0: x0[:, -1].sum(1), 0.3, samples=4)
    levels = mx.level_list(1000, 4)
    ended = np.pad(mx.full_sequence(T - 1, levels), ((0, 0), (0, 1)))[:, :, None]
    warm = mx.warm(mx.full_sequence(T, levels)[:, :, None], np.array([[700], [700], [700], [1000]]))
    for matrix, kept in ((ended, [T - 1]), (warm, [0, 1, 2])):
        seen, _ = run(gaussian(T, C).sampler("v"), x, matrix, g)
        futures = seen[0].unflatten(0, (4, 2))
        fresh = [t for t in range(1, T) if t not in kept]
        assert torch.equal(futures[:, :, kept], x[:, kept].expand(4, -1, -1, -1))
        assert all((futures[0, :, t] != futures[i, :, t]).all() for i in range(1, 4) for t in fresh)
