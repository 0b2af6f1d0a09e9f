"""The optimisers: orthogonal steps, who gets which, the learning rate's course, and the average of weights."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from torch import nn

from dfplanner.models import ModelConfig, build_model
from dfplanner.optim import Muon, build_optimizers, ema_update, lr_factor, orthogonalise, split_parameters
from dfplanner.types import TokenSpec

SPEC = TokenSpec(obs_dim=4, act_dim=2, chunk=3, act_code=5, horizon=7, dt_s=0.1)


@pytest.mark.parametrize("shape", [(8, 8), (24, 8), (8, 24), (5, 12, 7)])
def test_orthogonalise_brings_singular_values_near_one_and_keeps_the_vectors(shape: tuple[int, ...]) -> None:
    m = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, s, v = torch.linalg.svd(m, full_matrices=False)
    s = s.clamp(min=0.1 * s.amax(-1, keepdim=True))  # five steps do not lift what is nearly zero
    m = u @ torch.diag_embed(s) @ v
    core = u.mT @ orthogonalise(m) @ v.mT
    values = core.diagonal(dim1=-2, dim2=-1)
    assert values.min() > 0.65 and values.max() < 1.25
    assert (core - torch.diag_embed(values)).abs().max() < 1e-9
    torch.testing.assert_close(orthogonalise(7 * m), orthogonalise(m), rtol=1e-5, atol=1e-5)


def test_muon_is_torchs_muon() -> None:
    """Three steps on matrices of several shapes; PyTorch orthogonalises in bfloat16, hence the width of the bound."""
    theirs_of = getattr(torch.optim, "Muon", None)
    if theirs_of is None:
        pytest.skip("this PyTorch has no Muon")
    g = torch.Generator().manual_seed(0)
    start = [torch.randn(6, 12, generator=g), torch.randn(12, 6, generator=g), torch.randn(6, 12, generator=g)]
    a, b = ([nn.Parameter(p.clone()) for p in start] for _ in range(2))
    ours, theirs = Muon(a, lr=0.1, momentum=0.9), theirs_of(b, lr=0.1, momentum=0.9, weight_decay=0.0)
    for _ in range(3):
        for p, q in zip(a, b, strict=True):
            p.grad = torch.randn(p.shape, generator=g)
            q.grad = p.grad.clone()
        ours.step()
        theirs.step()
    for p, q, s in zip(a, b, start, strict=True):
        assert (p - q).norm() < 0.03 * (q - s).norm()


@pytest.mark.parametrize("kind", ["transformer", "gru"])
def test_every_parameter_has_one_optimiser(kind) -> None:
    model = build_model(ModelConfig(kind, width=16, layers=2, heads=2, ff=32), SPEC, 50)
    matrices, rest = split_parameters(model)
    assert all(p.ndim == 2 for p in matrices) and bool(matrices) == (kind == "transformer")
    held = [p for o in build_optimizers(model, 1e-3, 0.02, 0.0) for g in o.param_groups for p in g["params"]]
    assert len(held) == len(matrices) + len(rest) == len(list(model.parameters()))
    assert {id(p) for p in held} == {id(p) for p in model.parameters()}


def test_the_optimisers_fit_something() -> None:
    torch.manual_seed(0)
    model = build_model(ModelConfig(width=16, layers=1, heads=2, ff=32), SPEC, 50)
    x, levels = torch.randn(16, 8, SPEC.width), torch.randint(0, 51, (16, 8, 2))
    optimisers, losses = build_optimizers(model, 1e-2, 0.02, 0.0), []
    for _ in range(60):
        loss = (model(x, levels) - x).square().mean()
        losses.append(loss.item())
        loss.backward()
        for o in optimisers:
            o.step()
            o.zero_grad()
    assert losses[-1] < 0.3 * losses[0]


def test_the_learning_rate_rises_stays_and_falls_to_zero() -> None:
    rate = [lr_factor(step, 1000, warmup=100, flat=0.5) for step in range(1000)]
    assert rate[0] == 0.01 and rate[99] == rate[100] == rate[499] == 1.0
    assert all(b >= a for a, b in pairwise(rate[:101]))
    assert all(b < a for a, b in pairwise(rate[501:]))
    assert rate[750] == pytest.approx(0.5) and 0 < rate[999] < 0.003


def test_the_average_forgets_where_it_began_and_then_moves_slowly() -> None:
    average, model = nn.Linear(3, 3), nn.Linear(3, 3)
    before = copy.deepcopy(average)
    ema_update(average, model, 0.999, 0)  # weight 0.1 of its own
    torch.testing.assert_close(average.weight, 0.1 * before.weight + 0.9 * model.weight)
    before = copy.deepcopy(average)
    ema_update(average, model, 0.999, 10**6)
    torch.testing.assert_close(average.weight, 0.999 * before.weight + 0.001 * model.weight)
