"""Objectives: their values by hand, their sums, their gradients, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dfplanner.guidance import Avoid, Field, Limits, Objective, ReachGoal, Smooth, StayNear
from dfplanner.types import DFPlannerError

B, T, D, CHUNK, ACT = 4, 6, 4, 3, 2
SEEDS = st.integers(0, 2**32 - 1)


def draw(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    states, actions = rng.normal(0, 1.5, (B, T, D)), rng.normal(0, 1.0, (B, T - 1, CHUNK, ACT))
    return torch.from_numpy(states), torch.from_numpy(actions)


def objectives(seed: int, batch: int | None = None) -> dict[str, Objective]:
    """One of each kind, for one point or a batch of them."""
    rng = np.random.default_rng([seed, 1])
    shape = (2,) if batch is None else (batch, 2)
    grid = rng.normal(size=(5, 4) if batch is None else (batch, 5, 4)).astype(np.float32)
    return {
        "goal": ReachGoal(rng.normal(size=shape), "guidance"),
        "stay": StayNear(rng.normal(size=shape), 0.5),
        "avoid": Avoid(rng.normal(size=shape), 2.0),
        "smooth": Smooth((0, 1)),
        "states": Limits([-1.0] * D, [0.5] * D),
        "actions": Limits(-0.8, 0.8, of="actions"),
        "field": Field(grid, (-2.0, -1.5), 0.75),
    }


def by_hand(name: str, o, states: np.ndarray, actions: np.ndarray, i: int) -> float:
    """The formula of the docstring, in plain loops, for problem i."""
    where = {"goal": "goal", "stay": "point", "avoid": "centre"}
    distance = []
    if name in where:
        points = getattr(o, where[name]).numpy().astype(float)
        point = points[i % len(points)]
        distance = [np.hypot(*(s[:2] - point)) for s in states[i]]
    if name == "goal":
        return -sum((d**2 + 0.05) ** 0.5 for d in distance)
    if name == "stay":
        return -sum(max(0.0, d - 0.5) ** 2 for d in distance)
    if name == "avoid":
        return -sum(max(0.0, 2.0 - d) ** 2 for d in distance)
    if name == "smooth":
        s = states[i, :, :2]
        return -sum(((s[t + 1] - 2 * s[t] + s[t - 1]) ** 2).sum() for t in range(1, T - 1))
    if name == "states":
        return -sum(max(0, -1 - x, x - 0.5) ** 2 for x in states[i].ravel())
    if name == "actions":
        return -sum(max(0, abs(a) - 0.8) ** 2 for a in actions[i].ravel())
    return sum(bilinear(o.values.numpy()[i % len(o.values)].astype(float), s[:2]) for s in states[i])


def bilinear(v: np.ndarray, p: np.ndarray) -> float:
    """Along x in the two columns next to p, then along y; beyond the grid its last cell is continued."""
    u = (p - np.array([-2.0, -1.5])) / 0.75
    i, j = (int(min(max(np.floor(x), 0), n - 2)) for x, n in zip(u, v.shape, strict=True))
    left, right = (v[i, c] + (u[0] - i) * (v[i + 1, c] - v[i, c]) for c in (j, j + 1))
    return left + (u[1] - j) * (right - left)


@settings(max_examples=25)
@given(SEEDS, st.sampled_from([None, 1, 2, 4]))
def test_values_are_those_of_the_formula(seed: int, batch: int | None) -> None:
    """For one point for all, and for points for a batch that came with several futures of each problem (4 = 2 · 2)."""
    states, actions = draw(seed)
    for name, o in objectives(seed, batch).items():
        got = o(states, actions)
        want = [by_hand(name, o, states.numpy(), actions.numpy(), i) for i in range(B)]
        torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64), rtol=1e-4, atol=1e-4, msg=name)


@settings(max_examples=3)
@given(SEEDS)
def test_gradients_are_finite_differences(seed: int) -> None:
    states, actions = draw(seed)
    for name, o in objectives(seed).items():
        # kinks aside (a limit, a cell's edge), which random numbers do not hit to 1e-6
        moving = [x.clone().requires_grad_((x is actions) == (name == "actions")) for x in (states, actions)]
        assert torch.autograd.gradcheck(o, moving, eps=1e-6, atol=1e-4), name


@given(SEEDS, st.lists(st.tuples(st.integers(0, 6), st.floats(-3, 3)), min_size=1, max_size=4))
def test_objectives_add_and_weigh(seed: int, picked: list[tuple[int, float]]) -> None:
    states, actions = draw(seed)
    all_ = list(objectives(seed).values())
    total, want = None, torch.zeros(B, dtype=torch.float64)
    for i, w in picked:
        term = w * all_[i]
        total = term if total is None else total + term
        want = want + w * all_[i](states, actions)
    assert total is not None
    torch.testing.assert_close(total(states, actions), want)
    torch.testing.assert_close((2 * total)(states, actions), (total * 2.0)(states, actions))
    torch.testing.assert_close((2 * total)(states, actions), 2 * want)
    assert [w for w, _ in total.terms] == [w for _, w in picked] and all(t in all_ for _, t in total.terms)


@given(SEEDS, st.integers(1, 3))
def test_several_futures_of_a_batch_share_its_points(seed: int, futures: int) -> None:
    states, actions = draw(seed)
    for name, o in objectives(seed, B).items():
        tiled = o(states.repeat(futures, 1, 1), actions.repeat(futures, 1, 1, 1))
        torch.testing.assert_close(tiled, o(states, actions).repeat(futures), msg=name)


def test_higher_is_better() -> None:
    """At the goal sooner, nearer, outside what is to be avoided, smoother, within limits: each scores more."""
    away = torch.tensor([3.0, 3.0, 0.0, 0.0], dtype=torch.float64)
    early, late = torch.zeros(2, 1, T, D, dtype=torch.float64)
    early[:, :2], late[:, :5] = away, away
    none = torch.zeros(1, T - 1, CHUNK, ACT, dtype=torch.float64)
    for o in (ReachGoal([0, 0]), StayNear([0, 0], 0.1)):
        assert o(early, none) > o(late, none)
    assert Avoid([0, 0], 1.0)(late, none) > Avoid([0, 0], 1.0)(early, none)
    assert Avoid([0, 0], 1.0)(away.expand(1, T, D), none) == 0 and StayNear([3, 3])(away.expand(1, T, D), none) > -1e-6
    straight = torch.arange(T)[None, :, None] * torch.ones(D, dtype=torch.float64)
    assert Smooth()(straight, none) == 0 > Smooth()(early, none)
    assert Limits([-1.0] * D, [4.0] * D)(early, none) == 0 > Limits([-1.0] * D, [2.0] * D)(early, none)
    assert Limits([-float("inf")] * D, [4.0] * D)(early, none) == 0


def test_a_position_elsewhere_in_the_observation() -> None:
    states, actions = draw(0)
    swapped = states[:, :, [2, 3, 0, 1]]
    for make in (
        lambda p: ReachGoal([1, 2], pos=p),
        lambda p: Avoid([1, 2], 3, pos=p),
        lambda p: StayNear([1, 2], pos=p),
    ):
        torch.testing.assert_close(make((2, 3))(swapped, actions), make((0, 1))(states, actions))
    assert not torch.equal(Smooth((2, 3))(states, actions), Smooth((0, 1))(states, actions))


def test_what_makes_no_sense_is_a_sentence() -> None:
    nan, flat = float("nan"), np.zeros((3, 3), np.float32)
    states, actions = draw(0)
    bad = [
        (lambda: ReachGoal([1, 2, 3]), r"the goal has the shape \(1, 3\); expected"),
        (lambda: ReachGoal([nan, 0]), "NaN"),
        (lambda: ReachGoal([0, 0], "telepathy"), "'token', 'guidance' or 'last'"),  # pyright: ignore[reportArgumentType]
        (lambda: Avoid([0, 0], 0), "radius > 0"),
        (lambda: Avoid([0, 0], nan), "radius > 0"),
        (lambda: StayNear([0, 0], -1), "radius"),
        (lambda: StayNear([[[0, 0]]]), "expected"),
        (lambda: Limits([1.0], [0.0]), "swap"),
        (lambda: Limits([nan], [0.0]), "NaN"),
        (lambda: Field(flat[0], (0, 0), 1), "shape"),
        (lambda: Field(flat * nan, (0, 0), 1), "finite"),
        (lambda: Field(flat[:1], (0, 0), 1), "at least 2"),
        (lambda: Field(flat, (0, 0), 0), "spacing"),
        (lambda: ReachGoal(np.zeros((3, 2)))(states, actions), "3 .* for a batch of 4"),
        (lambda: Avoid(np.zeros((8, 2)), 1)(states, actions), "8 .* for a batch of 4"),
        (lambda: Field(np.zeros((3, 2, 2), np.float32), (0, 0), 1)(states, actions), "3 .* for a batch of 4"),
    ]
    for call, says in bad:
        with pytest.raises(DFPlannerError, match=says):
            call()
