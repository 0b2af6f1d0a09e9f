"""The models: who sees whom, which shapes fit, and that levels are heard."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dfplanner.models import ModelConfig, build_model
from dfplanner.types import DFPlannerError, TokenSpec

SPEC = TokenSpec(obs_dim=4, act_dim=2, chunk=3, act_code=5, horizon=7, dt_s=0.1)
K, T = 50, SPEC.horizon + 1
CONFIGS = {
    "transformer": ModelConfig(width=16, layers=2, heads=2, ff=32),
    "non-causal transformer": ModelConfig(width=16, layers=2, heads=2, ff=32, causal=False),
    "relative": ModelConfig(width=16, layers=2, heads=2, ff=32, relative=3),
    "gru": ModelConfig("gru", width=16, layers=2),
}
CAUSAL = [name for name, c in CONFIGS.items() if c.causal]


def fresh(name: str, seed: int = 0) -> nn.Module:
    """A model in float64 whose head, zero at first, says something."""
    torch.manual_seed(seed)
    model = build_model(CONFIGS[name], SPEC, K).double()
    nn.init.normal_(model.get_submodule("head").weight)  # pyright: ignore[reportArgumentType]
    return model.requires_grad_(False)


def inputs(b: int = 3, t: int = T, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(b, t, SPEC.width, generator=g).double(), torch.randint(0, K + 1, (b, t, 2), generator=g)


@pytest.mark.parametrize("name", CONFIGS)
def test_any_number_of_tokens_up_to_the_horizon_and_the_goal(name: str) -> None:
    for t in range(1, T + 1):
        x, levels = inputs(2, t)
        assert fresh(name)(x, levels).shape == x.shape


@pytest.mark.parametrize("name", CONFIGS)
def test_a_fresh_model_predicts_nothing_yet(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(CONFIGS[name], SPEC, K)
    x, levels = inputs()
    assert (model(x.float(), levels) == 0).all()
    assert model.causal is CONFIGS[name].causal


@pytest.mark.parametrize("what", ["token", "level"])
@pytest.mark.parametrize("name", CAUSAL)
def test_a_causal_model_does_not_see_what_comes_later(name: str, what: str) -> None:
    model, (x, levels) = fresh(name), inputs()
    want = model(x, levels)
    for t in range(T):
        other, told = x.clone(), levels.clone()
        if what == "token":
            other[:, t] += 1
        else:
            told[:, t] = (told[:, t] + 7) % (K + 1)
        got = model(other, told)
        torch.testing.assert_close(got[:, :t], want[:, :t], rtol=0, atol=1e-12)
        assert ((got[:, t:] - want[:, t:]).abs().amax((0, 2)) > 1e-6).all(), "but all from then on does"


@pytest.mark.parametrize("name", CAUSAL)
def test_a_prefix_alone_gives_what_the_whole_gives(name: str) -> None:
    model, (x, levels) = fresh(name), inputs()
    for t in range(1, T):
        torch.testing.assert_close(model(x[:, :t], levels[:, :t]), model(x, levels)[:, :t], rtol=0, atol=1e-12)


def test_a_non_causal_model_sees_everything() -> None:
    model, (x, levels) = fresh("non-causal transformer"), inputs()
    want = model(x, levels)
    for t in range(T):
        other = x.clone()
        other[:, t] += 1
        assert ((model(other, levels) - want).abs().amax((0, 2)) > 1e-6).all()


@pytest.mark.parametrize("name", CONFIGS)
def test_the_level_of_either_part_is_heard(name: str) -> None:
    model, (x, levels) = fresh(name), inputs()
    want = model(x, levels)
    for part in range(2):
        told = levels.clone()
        told[:, 2, part] = (told[:, 2, part] + 1) % (K + 1)
        assert (model(x, told) - want)[:, 2].abs().max() > 1e-4
    swapped = model(x, levels.flip(-1))
    assert not torch.allclose(swapped, want), "and the parts are told apart"


@pytest.mark.parametrize("name", CONFIGS)
def test_places_are_told_apart_and_problems_are_not_mixed(name: str) -> None:
    model, (x, levels) = fresh(name), inputs()
    alike = model(x[:, :1].expand(-1, 4, -1), levels[:, :1].expand(-1, 4, -1))
    assert (alike[:, 1:] - alike[:, :-1]).abs().amax((0, 2)).min() > 1e-6
    whole = model(x, levels)
    for b in range(3):
        torch.testing.assert_close(model(x[b : b + 1], levels[b : b + 1]), whole[b : b + 1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_parameter_is_used_and_the_seed_decides(name: str) -> None:
    model = fresh(name).requires_grad_(True)
    x, levels = inputs()
    model(x, levels).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())
    again = fresh(name)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_what_cannot_be_built_is_a_sentence() -> None:
    with pytest.raises(DFPlannerError, match="causal by construction"):
        build_model(ModelConfig("gru", causal=False), SPEC, K)
    with pytest.raises(DFPlannerError, match="heads"):
        build_model(ModelConfig(width=10, heads=4), SPEC, K)
