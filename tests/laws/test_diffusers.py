"""At equal levels the sampler is diffusers' DDIMScheduler, to 1e-9 in float64."""

from __future__ import annotations

import pytest
import torch

from dfplanner import matrices as mx
from dfplanner.sampler import Sampler
from dfplanner.schedules import Kind, Prediction, Schedule

diffusers = pytest.importorskip("diffusers", reason="diffusers, a test dependency, is not installed")
NAMES = {"x0": "sample", "eps": "epsilon", "v": "v_prediction"}


class Smooth(torch.nn.Module):
    """Some smooth function of tokens and levels that mixes both: what it says is no matter."""

    causal = False

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(0)
        n = tokens * width
        self.a, self.b = (torch.randn(n, n, generator=g, dtype=torch.float64) / n**0.5 for _ in range(2))

    def forward(self, x: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(x.flatten(1) @ self.a + levels[:, :1, 0] / 1000)
        return (h @ self.b).view_as(x)


RUNS = [(kind, steps, eta) for kind in ("linear", "cosine", "sigmoid") for steps in (50, 4) for eta in (0.0, 0.4)]
# at η = 1 and α near 0 theirs takes the root of a negative rounding error
RUNS += [("linear", 50, 1.0), ("linear", 4, 1.0), ("linear", 1000, 1.0), ("cosine", 1000, 0.0)]


@pytest.mark.parametrize("prediction", ["x0", "eps", "v"])
@pytest.mark.parametrize("kind, steps, eta", RUNS)
def test_a_whole_run_equals_diffusers(kind: Kind, prediction: Prediction, steps: int, eta: float) -> None:
    schedule, model, (b, t, c) = Schedule(kind, 1000), Smooth(3, 2), (2, 3, 2)
    theirs = diffusers.DDIMScheduler(
        1000, prediction_type=NAMES[prediction], clip_sample=False, set_alpha_to_one=True, timestep_spacing="trailing"
    )
    # their timestep t is our level t + 1; theirs keeps float32, so the levels' ᾱ are put in
    theirs.alphas_cumprod = schedule.alpha_bar(torch.arange(1, 1001))
    theirs.final_alpha_cumprod = schedule.alpha_bar(torch.tensor(0))
    theirs.set_timesteps(steps)
    # in ε form a level with α < 0.001 is not for dividing by: there ours keeps x0 finite, theirs does not
    skip = 0 if prediction != "eps" or kind == "linear" else 1
    timesteps = theirs.timesteps[skip:]
    levels = mx.level_list(1000, steps)
    levels = levels[: len(levels) - skip]
    assert (timesteps + 1).tolist() == levels[:0:-1].tolist()

    start = torch.randn(b, t, c, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    g, x, trail = torch.Generator().manual_seed(2), start, []
    for time in timesteps:
        out = model(x, torch.full((b, t, 1), int(time) + 1))
        noise = torch.randn(x.shape, generator=g, dtype=x.dtype) if eta > 0 else None
        step = theirs.step(out, int(time), x, eta=eta, variance_noise=noise)
        x = step.prev_sample
        trail.append(step.pred_original_sample)

    sampler = Sampler(model, schedule, prediction, torch.zeros(c, dtype=torch.long))
    seen: list[torch.Tensor] = []
    ours, calls = sampler(
        start,
        mx.full_sequence(t, levels)[:, :, None],
        eta=eta,
        generator=torch.Generator().manual_seed(2),
        trace=lambda x0, row: seen.append(x0),
    )
    assert calls == len(timesteps)
    assert (ours - x).abs().max() < 1e-9
    assert max((a - b).abs().max() for a, b in zip(seen, trail, strict=True)) < 1e-9


def test_the_spread_of_a_ddpm_step_is_diffusers_variance() -> None:
    schedule = Schedule("linear", 1000)
    theirs = diffusers.DDIMScheduler(1000)
    theirs.alphas_cumprod = schedule.alpha_bar(torch.arange(1, 1001))
    theirs.final_alpha_cumprod = schedule.alpha_bar(torch.tensor(0))
    theirs.set_timesteps(20)
    sampler = Sampler(Smooth(1, 1), schedule, "x0", torch.zeros(1, dtype=torch.long))
    zero, g = torch.zeros(1, 1, 1, dtype=torch.float64), torch.Generator()
    for k in range(100, 1001, 50):
        now, then = torch.tensor([[k]]), torch.tensor([[k - 50]])
        got = sampler.step(zero, zero, zero, now, then, 1.0, g.manual_seed(3))
        unit = torch.randn(1, 1, 1, generator=g.manual_seed(3), dtype=torch.float64)
        want = theirs._get_variance(k - 1, k - 51)
        assert (got / unit).item() ** 2 == pytest.approx(want.item(), rel=1e-9)
