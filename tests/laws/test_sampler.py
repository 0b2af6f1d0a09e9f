"""What a sampler promises whatever the model: context stays, clean tokens are told as asked, no more is computed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dfplanner import matrices as mx
from dfplanner.sampler import Guidance, Sampler
from dfplanner.schedules import Schedule, eps_of, to_x0_eps
from dfplanner.testing import DataDenoiser, Recorder
from dfplanner.types import DFPlannerError

K, PARTS = 20, torch.tensor([0, 0, 1])


def denoiser(causal: bool, tokens: int = 5) -> DataDenoiser:
    items = torch.randn(4, tokens, 3, generator=torch.Generator().manual_seed(0))
    return DataDenoiser(items, Schedule("cosine", K), PARTS, "v", causal)


def sampler(model, stabilise: int = 0) -> Sampler:
    return Sampler(model, Schedule("cosine", K), "v", PARTS, stabilise)


def noise(b: int, tokens: int = 5, seed: int = 1) -> torch.Tensor:
    return torch.randn(b, tokens, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@st.composite
def matrices(draw: st.DrawFn, tokens: int = 5) -> mx.Matrix:
    """Any scheme of tokens with frozen ones in front, at the observations' or the actions' turn."""
    frozen = draw(st.integers(0, 2))
    levels = mx.level_list(K, draw(st.integers(1, 5)))
    name = draw(st.sampled_from(sorted(mx.SCHEMES)))
    scale = float(draw(st.integers(1, 3)))
    observations = mx.scheme(name, tokens - frozen, levels, scale)
    chunks = range(draw(st.integers(0, tokens - frozen)))
    if draw(st.booleans()):
        matrix = mx.observations_then_actions(observations, levels, chunks, K)
    else:
        matrix = mx.together(observations, chunks, K)
    held = draw(st.lists(st.tuples(st.integers(0, K), st.integers(0, K)), min_size=frozen, max_size=frozen))
    return mx.with_prefix(matrix, np.array(held, np.int64).reshape(-1, 2))


def reaches_high(x0: torch.Tensor) -> torch.Tensor:
    return x0[:, -1].sum(-1)


@settings(max_examples=40)
@given(matrices(), st.booleans(), st.sampled_from([0.0, 1.0]), st.sampled_from([0, 1, 3]), st.integers(0, 4))
def test_what_does_not_fall_does_not_change(matrix, causal, eta, futures, stabilise) -> None:
    """Context, bit for bit: under DDIM and DDPM, guided and not, with one future or several."""
    x = noise(2)
    guide = Guidance(reaches_high, 0.5, samples=futures) if futures else None
    y, calls = sampler(denoiser(causal), stabilise)(
        x, matrix, guidance=guide, eta=eta, generator=torch.Generator().manual_seed(2)
    )
    still = torch.from_numpy(matrix[0] == matrix[-1])[:, PARTS]
    if futures > 1:  # futures have noise of their own
        still &= torch.from_numpy(matrix[0] < K)[:, PARTS]
    assert torch.equal(y[:, still], x[:, still])
    assert torch.isfinite(y).all() and y.shape == x.shape and calls == len(matrix) - 1


@settings(max_examples=40)
@given(matrices(), st.booleans(), st.integers(0, K))
def test_the_model_is_told_the_rows_levels_and_clean_as_the_stabilisation_level(matrix, causal, stabilise) -> None:
    model = Recorder(denoiser(causal))
    sampler(model, stabilise)(noise(2), matrix)
    assert len(model.calls) == len(matrix) - 1
    for (x, told), row in zip(model.calls, torch.from_numpy(matrix), strict=False):
        want = torch.where(row == 0, stabilise, row)[: x.shape[1]]
        assert torch.equal(told, want.expand(2, -1, -1))


def test_stabilisation_changes_what_the_model_says_not_what_is_known() -> None:
    """A clean number that the model believes to be noisy still counts as clean when its answer is read."""
    s, x = sampler(denoiser(False), stabilise=8), noise(2)
    levels = torch.tensor([[0, 0], [0, 0], [9, 9], [20, 20], [20, 20]])
    x0, _ = s.predict(x, levels)
    assert torch.equal(x0[:, :2], x[:, :2])
    plain, _ = sampler(denoiser(False)).predict(x, levels)
    assert not torch.allclose(x0[:, 2:], plain[:, 2:])


@settings(max_examples=40)
@given(matrices(), st.integers(0, 3))
def test_a_causal_model_looks_no_further_than_it_must(matrix, stabilise) -> None:
    """Tokens after the last that moves are left out, and the result is the one with all of them."""
    saving, whole = Recorder(denoiser(True)), Recorder(denoiser(True))
    whole.causal = False  # asked for everything at every row
    (y, _), (want, _) = (sampler(m, stabilise)(noise(3), matrix) for m in (saving, whole))
    torch.testing.assert_close(y, want, rtol=0, atol=1e-12)
    moving = (np.diff(matrix, axis=0) != 0).any(-1)
    for (x, _), (full, _), row in zip(saving.calls, whole.calls, moving, strict=True):
        assert x.shape[1] == np.flatnonzero(row).max() + 1 if row.any() else x.shape[1] == 5
        assert full.shape[1] == 5


@settings(max_examples=30)
@given(matrices(), st.booleans(), st.sampled_from([0, 1, 3]))
def test_the_trace_has_an_entry_a_row(matrix, causal, futures) -> None:
    seen: list[tuple[torch.Tensor, mx.Matrix]] = []
    guide = Guidance(reaches_high, 0.5, samples=futures) if futures else None
    sampler(denoiser(causal))(
        noise(2), matrix, guidance=guide, generator=torch.Generator(), trace=lambda x, row: seen.append((x, row))
    )
    assert [row.tolist() for _, row in seen] == matrix[1:].tolist()
    assert all(x.shape == (2, 5, 3) and torch.isfinite(x).all() and not x.requires_grad for x, _ in seen)


@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_a_step_by_hand(eta: float) -> None:
    """Two parts of a token at levels of their own: x' = α' x̂0 + sqrt(σ'² - s²) ε̂ + s ξ for those that move."""
    s, x = sampler(denoiser(False)), noise(2)
    now = torch.tensor([[4, 20], [7, 7], [20, 3], [12, 20], [0, 20]])
    then = torch.tensor([[0, 20], [5, 6], [15, 3], [12, 11], [0, 20]])
    x0, eps = s.predict(x, now)
    y = s.step(x, x0, eps, now, then, eta, torch.Generator().manual_seed(3))
    xi = torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=x.dtype)
    bar = s.schedule.alpha_bar(torch.arange(K + 1)).tolist()
    for t in range(5):
        for c, part in enumerate(PARTS.tolist()):
            k, k2 = int(now[t, part]), int(then[t, part])
            if k == k2:
                assert torch.equal(y[:, t, c], x[:, t, c])
                continue
            var = eta**2 * (1 - bar[k2]) / (1 - bar[k]) * (1 - bar[k] / bar[k2])
            want = bar[k2] ** 0.5 * x0[:, t, c] + (1 - bar[k2] - var) ** 0.5 * eps[:, t, c] + var**0.5 * xi[:, t, c]
            torch.testing.assert_close(y[:, t, c], want, rtol=1e-9, atol=1e-9)


def test_guidance_moves_the_prediction_by_the_gradient_through_the_model() -> None:
    """x̂0 + scale · σ² / max(α, floor) · ∂J(x̂0(x))/∂x, by finite differences, then the same step."""
    s, x, scale, floor = sampler(denoiser(False)), noise(1), 0.7, 0.3
    matrix = np.array([[[9, 20], [9, 9], [14, 9], [20, 20], [16, 16]], [[6, 20], [7, 9], [11, 9], [15, 20], [16, 15]]])
    y, _ = s(x, matrix, guidance=Guidance(reaches_high, scale, floor))
    now, then = torch.from_numpy(matrix)
    x0, _ = s.predict(x, now)
    grad = torch.zeros_like(x)
    for t, c in np.ndindex(5, 3):
        d = torch.zeros_like(x)
        d[0, t, c] = 1e-5
        up, down = (reaches_high(s.predict(x + sign * d, now)[0]) for sign in (1, -1))
        grad[0, t, c] = (up - down) / 2e-5
    alpha, sigma = s.schedule.rates(now[:, PARTS], torch.float64)
    moved = x0 + scale * sigma**2 / alpha.clamp(min=floor) * grad
    want = s.step(x, moved, eps_of(moved, x, alpha, sigma), now, then, 0.0, None)
    torch.testing.assert_close(y, want, atol=1e-6, rtol=0)
    plain, _ = s(x, matrix)
    assert (y - plain).abs().max() > 0.01


@given(st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=10)
def test_a_generator_decides_and_batches_do_not_mix(seed: int, causal: bool) -> None:
    s, x, matrix = sampler(denoiser(causal)), noise(4), mx.together(mx.pyramid(5, mx.level_list(K, 5), 1), range(5), K)

    def run(x: torch.Tensor, seed: int, eta: float) -> torch.Tensor:
        return s(x, matrix, eta=eta, generator=torch.Generator().manual_seed(seed))[0]

    assert torch.equal(run(x, seed, 1.0), run(x, seed, 1.0))
    assert not torch.equal(run(x, seed, 1.0), run(x, seed + 1, 1.0))
    torch.testing.assert_close(run(x[1:3], seed, 0.0), run(x, seed, 0.0)[1:3], rtol=1e-9, atol=1e-9)


def test_float32_goes_in_and_comes_out() -> None:
    matrix = mx.together(mx.full_sequence(5, mx.level_list(K, 5)), range(5), K)
    y, _ = sampler(denoiser(True))(noise(2).float(), matrix, eta=1.0, generator=torch.Generator())
    assert y.dtype == torch.float32


def test_the_answer_of_a_model_is_read_at_the_true_levels() -> None:
    x, levels = noise(2), torch.tensor([[4, 20], [7, 7], [20, 3], [12, 20], [0, 20]])
    model = denoiser(False)
    alpha, sigma = Schedule("cosine", K).rates(levels[:, PARTS], torch.float64)
    want = to_x0_eps(model(x, levels.expand(2, -1, -1)), x, alpha, sigma, "v")
    got = sampler(model).predict(x, levels)
    torch.testing.assert_close(got[0], want[0])
    torch.testing.assert_close(got[1], want[1])


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((3, 4, 2), np.int64),  # a token too few
        np.zeros((3, 5), np.int64),  # no parts
        np.zeros((3, 5, 1), np.int64),  # a part too few
        np.full((3, 5, 2), K + 1),
        np.full((3, 5, 2), -1),
    ],
)
def test_a_matrix_that_does_not_fit_is_a_sentence(bad: mx.Matrix) -> None:
    with pytest.raises(DFPlannerError, match="expected"):
        sampler(denoiser(True))(noise(2), bad)


def test_a_token_of_another_width_is_a_sentence() -> None:
    with pytest.raises(DFPlannerError, match="3 numbers a token"):
        sampler(denoiser(True))(noise(2)[..., :2], np.zeros((3, 5, 2), np.int64))


@pytest.mark.parametrize("level", [-1, K + 1])
def test_a_stabilisation_level_that_is_none_is_a_sentence(level: int) -> None:
    with pytest.raises(DFPlannerError, match=r"stabilisation level is .* 0 to 20"):
        sampler(denoiser(True), level)
