"""Noise schedules, the three things a model may predict, and the weights of the loss."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dfplanner.sampler import Sampler
from dfplanner.schedules import Schedule, eps_of, loss_factor, target, to_x0_eps, x0_weight
from dfplanner.types import DFPlannerError

KINDS = ("linear", "cosine", "sigmoid")
PREDICTIONS = ("x0", "eps", "v")
WEIGHTINGS = ("elbo", "eps", "v", "x0", "min_snr")
schedules = st.builds(Schedule, st.sampled_from(KINDS), st.one_of(st.integers(1, 64), st.integers(1, 1500)))


def snr_of(schedule: Schedule, k: torch.Tensor) -> torch.Tensor:
    alpha, sigma = schedule.rates(k, torch.float64)
    return (alpha / sigma) ** 2


@given(schedules)
def test_rates_go_from_clean_to_noise(schedule: Schedule) -> None:
    alpha, sigma = schedule.rates(torch.arange(schedule.levels + 1), torch.float64)
    assert (alpha[0], sigma[0]) == (1, 0), "level 0 is exactly clean"
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(alpha), rtol=0, atol=1e-12)
    assert (alpha.diff() < 0).all() and (sigma.diff() > 0).all()
    assert alpha[-1] < 0.0065 and sigma[-1] > 0.9999, "level K is nearly pure noise"


def test_the_curves_are_those_of_their_papers() -> None:
    k = torch.tensor([0, 137, 500, 999, 1000])
    u = k / 1000.0
    torch.testing.assert_close(Schedule("cosine").alpha_bar(k).float(), (u * math.pi / 2).cos() ** 2)
    s3 = 1 / (1 + math.exp(-3))
    want = (s3 - (6 * u - 3).sigmoid()) / (2 * s3 - 1)
    torch.testing.assert_close(Schedule("sigmoid").alpha_bar(k).float(), want, atol=1e-6, rtol=0)
    product = math.prod(1 - (1e-4 + (0.02 - 1e-4) * i / 999) for i in range(137))
    assert Schedule("linear").alpha_bar(torch.tensor(137)).item() == pytest.approx(product, rel=1e-12)


@given(st.sampled_from(KINDS), st.integers(1, 8), st.integers(0, 20))
def test_the_curve_does_not_depend_on_the_number_of_levels(kind, factor: int, k: int) -> None:
    few, many = Schedule(kind, 20), Schedule(kind, 20 * factor)
    assert few.alpha_bar(torch.tensor(k)).item() == pytest.approx(many.alpha_bar(torch.tensor(k * factor)).item())


@given(schedules, st.integers(0, 2**32 - 1))
def test_noise_of_any_level_in_any_place(schedule: Schedule, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    x0, noise = torch.randn(2, 3, 4, generator=g).double(), torch.randn(2, 3, 4, generator=g).double()
    k = torch.randint(0, schedule.levels + 1, (2, 3, 1), generator=g)
    alpha, sigma = schedule.rates(k, torch.float64)
    torch.testing.assert_close(schedule.add_noise(x0, noise, k), alpha * x0 + sigma * noise)
    assert (schedule.add_noise(x0, noise, torch.zeros_like(k)) == x0).all()


@given(schedules, st.sampled_from(PREDICTIONS), st.integers(0, 2**32 - 1))
def test_every_prediction_stands_for_the_same_x0_and_noise(schedule: Schedule, kind, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    x0, noise = torch.randn(50, generator=g).double(), torch.randn(50, generator=g).double()
    k = torch.randint(0, schedule.levels + 1, (50,), generator=g)
    alpha, sigma = schedule.rates(k, torch.float64)
    x = alpha * x0 + sigma * noise
    got_x0, got_eps = to_x0_eps(target(x0, noise, alpha, sigma, kind), x, alpha, sigma, kind)
    tells_x0 = alpha > 1e-3 if kind == "eps" else alpha >= 0  # in ε a vanishing signal rate says nothing about x0
    tells_eps = sigma > 0 if kind == "x0" else sigma >= 0  # in x0 a clean token says nothing about its noise
    torch.testing.assert_close(got_x0[tells_x0], x0[tells_x0], atol=1e-9, rtol=0)
    torch.testing.assert_close(got_eps[tells_eps], noise[tells_eps], atol=1e-9, rtol=0)
    assert torch.isfinite(got_x0).all() and torch.isfinite(got_eps).all()
    back = alpha * got_x0 + sigma * got_eps
    torch.testing.assert_close(back[tells_x0], x[tells_x0], atol=1e-9, rtol=0)


def test_a_clean_token_has_no_noise() -> None:
    x = torch.randn(7, generator=torch.Generator().manual_seed(0))
    assert (eps_of(x + 1, x, torch.ones(7), torch.zeros(7)) == 0).all()


@given(st.sampled_from(KINDS), st.sampled_from(PREDICTIONS), st.sampled_from(WEIGHTINGS), st.integers(0, 2**32 - 1))
def test_any_prediction_trains_any_weighting(kind, prediction, weighting, seed: int) -> None:
    """factor · ‖pred - target‖² = weight · ‖x̂0 - x0‖²: the loss does not depend on what the model predicts."""
    schedule, g = Schedule(kind), torch.Generator().manual_seed(seed)
    k = torch.randint(0, 1001, (200,), generator=g)
    k = k[(k == 0) | (snr_of(schedule, k.clamp(min=1)) > 1e-4)]  # below this the ε form's factor is cut
    x0, noise, guess = (torch.randn(len(k), generator=g).double() for _ in range(3))
    alpha, sigma = schedule.rates(k, torch.float64)
    x = alpha * x0 + sigma * noise
    wrong = target(guess, eps_of(guess, x, alpha, sigma), alpha, sigma, prediction)
    error = (wrong - target(x0, noise, alpha, sigma, prediction)) ** 2
    got = loss_factor(schedule, k, prediction, weighting) * error
    want = x0_weight(schedule, k, weighting) * (guess - x0) ** 2
    noisy = k > 0
    torch.testing.assert_close(got[noisy], want[noisy], rtol=1e-4, atol=1e-9)
    assert (loss_factor(schedule, k, prediction, weighting)[~noisy] == 0).all(), "no loss on what is clean"


@given(st.sampled_from(KINDS))
def test_weights_are_their_formulas(kind) -> None:
    schedule, k = Schedule(kind), torch.arange(1, 1000)
    snr = snr_of(schedule, k)
    for weighting, want in {"eps": snr, "v": snr + 1, "x0": snr * 0 + 1, "min_snr": snr.clamp(max=5)}.items():
        torch.testing.assert_close(x0_weight(schedule, k, weighting).double(), want, rtol=1e-5, atol=0)  # pyright: ignore
    assert x0_weight(schedule, k, "min_snr", gamma=0.5).max() == 0.5
    assert all(x0_weight(schedule, torch.tensor([0]), w)[0] == 0 for w in WEIGHTINGS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_elbo_weight_is_the_kl_of_a_ddpm_step(kind) -> None:
    """K times KL(q(x_{k-1} | x_k, x0) ‖ p(x_{k-1} | x_k)), read off the sampler's own step at η = 1."""
    schedule = Schedule(kind, 50)
    sampler = Sampler(None, schedule, "x0", torch.zeros(1, dtype=torch.long))  # pyright: ignore[reportArgumentType]
    x, x0, guess = (torch.tensor([[[v]]], dtype=torch.float64) for v in (0.7, -0.4, 0.9))
    for k in range(2, 51):
        now, then = torch.tensor([[k]]), torch.tensor([[k - 1]])
        alpha, sigma = schedule.rates(now, torch.float64)

        def step(clean, seed, now=now, then=then, alpha=alpha, sigma=sigma):
            g = torch.Generator().manual_seed(seed)
            return sampler.step(x, clean, eps_of(clean, x, alpha, sigma), now, then, 1.0, g).item()

        shift = step(x0, 0) - step(guess, 0)
        noise = [torch.randn(1, 1, 1, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in (0, 1)]
        spread = (step(x0, 0) - step(x0, 1)) / (noise[0] - noise[1]).item()
        kl = shift**2 / (2 * spread**2)
        weight = x0_weight(schedule, torch.tensor([k]), "elbo").item()
        assert 50 * kl == pytest.approx(weight * 1.3**2, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_elbo_of_a_gaussian_is_its_closed_form(kind) -> None:
    """The weights telescope; and with the ideal error of N(0, s²), s² / (1 + s² SNR), their sum comes to the mutual
    information ½ log((1 + s² SNR(1)) / (1 + s² SNR(K))), from above as any bound should, the closer the more levels."""
    s2, gaps = 2.0, []
    first = snr_of(Schedule(kind, 40), torch.tensor(1)).item()
    for levels in (40, 400, 4000):
        schedule = Schedule(kind, levels)
        k = torch.arange(1, levels + 1)
        snr, w = snr_of(schedule, k), x0_weight(schedule, k, "elbo").double()
        assert w[1:].min() > 0
        assert w.mean().item() == pytest.approx(0.5 * (snr[0] - snr[-1]).item(), rel=1e-4)
        part = k >= levels // 40  # the same stretch of noise, cut finer
        exact = 0.5 * math.log((1 + s2 * first) / (1 + s2 * snr[-1].item()))
        inner = w * part * (k > levels // 40)
        gaps.append(((inner * s2 / (1 + s2 * snr)).mean() / exact - 1).item())
    assert 0 < gaps[2] < gaps[1] / 5 < gaps[0] / 25 and gaps[2] < 0.005


def test_an_unknown_name_is_a_sentence() -> None:
    x = torch.zeros(1)
    for call, known in [
        (lambda: Schedule("quadratic"), "linear, cosine, sigmoid"),  # pyright: ignore[reportArgumentType]
        (lambda: Schedule("cosine", 0), "at least 1"),
        (lambda: target(x, x, x, x, "score"), "x0, eps, v"),  # pyright: ignore[reportArgumentType]
        (lambda: to_x0_eps(x, x, x, x, "score"), "x0, eps, v"),  # pyright: ignore[reportArgumentType]
        (lambda: loss_factor(Schedule(), x.long(), "score", "x0"), "x0, eps, v"),  # pyright: ignore[reportArgumentType]
        (lambda: x0_weight(Schedule(), x.long(), "p2"), "elbo, eps, v, x0, min_snr"),  # pyright: ignore
    ]:
        with pytest.raises(DFPlannerError, match=known):
            call()
