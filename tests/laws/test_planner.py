"""The planner, with an ideal denoiser in place of a network: what it should answer is known.

The world is ``dfplanner.testing.Circle``: a goal, a history or an action settles which way a plan goes round.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch

from dfplanner.guidance import ReachGoal, StayNear
from dfplanner.planner import Planner
from dfplanner.schedules import Schedule
from dfplanner.settings import PlannerSettings
from dfplanner.testing import Circle, Recorder
from dfplanner.types import DFPlannerError, Plan

CIRCLE = Circle()
PLACES, CHUNK, HORIZON = CIRCLE.places, CIRCLE.spec.chunk, CIRCLE.spec.horizon
SCHEMES = [("full-sequence", 0), ("autoregressive", 0), ("pyramid", 2), ("pyramid", 0.5), ("rolling", 2)]
place, quarter, future = CIRCLE.position, CIRCLE.goal, CIRCLE.future


def planner(causal: bool = True, **settings) -> Planner:
    return Planner(CIRCLE.checkpoint(causal), replace(PlannerSettings(steps=25, action_steps=4, overlap=3), **settings))


def asked(p: Planner) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """What the planner's model was asked: tokens and levels."""
    return cast(Recorder, p.checkpoint.model).calls


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def history(at: list[float], way: int = 1, length: int = 2) -> np.ndarray:
    """Observations a chunk apart up to the present, (B, length, 2): from two on they say which way it goes."""
    past = np.arange(1 - length, 1) * CHUNK * way
    return place(np.asarray(at)[:, None] + past)


def ways(plan: Plan, at: float) -> np.ndarray:
    """+1, -1 for each plan; fails where one is neither."""
    away = [np.abs(plan.states - future(np.array([at]), w, plan.states.shape[1])[0]).max((1, 2)) for w in (1, -1)]
    assert np.minimum(*away).max() < 0.02, "a plan must go one way or the other"
    return np.where(away[0] < away[1], 1, -1)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("scheme, scale", SCHEMES)
def test_a_plan_is_what_a_goal_in_front_leaves_to_do(scheme: str, scale: float, causal: bool) -> None:
    at, way = [0, 5, 13], [1, -1, 1]
    goal = ReachGoal([quarter(a, w) for a, w in zip(at, way, strict=True)])
    p = planner(causal, scheme=scheme, scale=scale, action_chunks=2)
    plan = p.plan(place(at), goal, generator=rng())
    states, actions = future(np.array(at), np.array(way), HORIZON)
    np.testing.assert_allclose(plan.states, states, atol=1e-3)
    np.testing.assert_allclose(plan.actions[:, : 2 * CHUNK], actions[:, : 2 * CHUNK], atol=1e-3)
    assert (plan.actions[:, 2 * CHUNK :] == 0).all(), "what is not denoised is not made up"
    assert plan.states.shape == (3, 6, 2) and plan.actions.shape == (3, 10, 2) and plan.levels.shape == (3, 6, 2)
    assert plan.states.dtype == plan.actions.dtype == np.float32
    assert (plan.chunk, plan.dt_s) == (CHUNK, 0.5) and plan.trace == ()
    assert (plan.levels[..., 0] == 0).all()
    assert (plan.levels[0, :, 1] == [1000, 0, 0, 1000, 1000, 1000]).all()
    score = goal(torch.from_numpy(plan.states), torch.zeros(3, 5, CHUNK, 2))
    np.testing.assert_allclose(plan.score, score, rtol=1e-5)
    assert p.calls == len(asked(p))


def test_one_goal_serves_all_and_none_scores_nothing() -> None:
    p = planner()
    one = p.plan(place([0, 0, 0]), ReachGoal(quarter(0, -1)), generator=rng())
    assert (ways(one, 0) == -1).all()
    assert (p.plan(place([0, 0]), generator=rng()).score == 0).all()


def test_without_a_goal_both_ways_are_equally_likely() -> None:
    plan = planner(scheme="autoregressive").plan(place(np.zeros(150)), generator=rng())
    assert abs((ways(plan, 0) == 1).mean() - 0.5) < 5 * 0.5 / 150**0.5


@pytest.mark.parametrize("length", [1, 2, 4])
def test_history_settles_the_way(length: int) -> None:
    """And the plan starts at the present, the last of it. With four observations two tokens of the model are left: the
    plan goes on, window by window, to the length asked for."""
    plan = planner(scheme="autoregressive").plan(history([3] * 40, -1, length), generator=rng())
    assert plan.states.shape[1] == HORIZON
    np.testing.assert_allclose(plan.states[:, 0], place([3] * 40), atol=1e-6)
    went = ways(plan, 3)
    assert (went == -1).all() if length > 1 else (went == 1).any() and (went == -1).any()


@pytest.mark.parametrize("horizon", [2, 3, 5, 6, 7, 9, 14, 31])
@pytest.mark.parametrize("causal", [True, False])
def test_shorter_and_longer_than_trained(horizon: int, causal: bool) -> None:
    """Round the circle as far as asked, past any number of seams."""
    p = planner(causal, horizon=horizon, overlap=2)
    plan = p.plan(history([3, 20]), generator=rng())
    states, actions = future(np.array([3, 20]), 1, horizon)
    np.testing.assert_allclose(plan.states, states, atol=2e-3)
    np.testing.assert_allclose(plan.actions[:, :CHUNK], actions[:, :CHUNK], atol=2e-3)
    assert plan.levels.shape == (2, horizon, 2) and plan.actions.shape == (2, (horizon - 1) * CHUNK, 2)
    assert plan.tokens.shape == (2, horizon, CIRCLE.spec.width)
    assert p.calls == len(asked(p))


def test_a_generator_decides() -> None:
    p = planner(eta=1.0)
    plans = [p.plan(place(np.zeros(6)), generator=rng(seed)) for seed in (1, 1, 2)]
    assert (plans[0].tokens == plans[1].tokens).all() and (plans[0].tokens != plans[2].tokens).any()
    state = torch.random.get_rng_state()
    p.plan(place([0]), generator=rng())
    assert torch.equal(state, torch.random.get_rng_state()), "the global generator is left alone"


def test_problems_of_a_batch_do_not_touch_each_other() -> None:
    p = planner(scheme="pyramid")
    a = p.plan(place([0, 4, 9]), ReachGoal([quarter(0, 1), quarter(4, 1), quarter(9, -1)]), generator=rng())
    b = p.plan(place([0, 17, 2]), ReachGoal([quarter(0, 1), quarter(17, -1), quarter(2, -1)]), generator=rng())
    np.testing.assert_allclose(a.tokens[0], b.tokens[0], atol=1e-5)
    assert np.abs(a.tokens[1:] - b.tokens[1:]).max() > 0.1


def test_a_goal_held_at_the_last_token() -> None:
    target = place(0 + CHUNK * (HORIZON - 1))
    plan = planner(causal=False).plan(place(np.zeros(20)), ReachGoal(target, "last"), generator=rng())
    assert (ways(plan, 0) == 1).all()
    np.testing.assert_allclose(plan.states[:, -1], np.tile(target, (20, 1)), atol=1e-6)


def test_guidance_alone_finds_the_way_and_says_how_well() -> None:
    """The goal token is pure noise; the gradient of the score decides between ways that are equally likely."""
    for samples in (1, 4):
        p = planner(False, scheme="pyramid", scale=2, steps=20, guidance=0.5, samples=samples)
        goal = ReachGoal(place(10), "guidance")
        plan = p.plan(place(np.zeros(30)), goal, generator=rng())
        nearest = np.linalg.norm(plan.states - place(10), axis=-1)
        assert (nearest[:, -1] < nearest[:, 0]).mean() > 0.9
        told = {int(level) for _, levels in asked(p) for level in levels[:, 0, 0]}
        assert told == {1000}
        states = torch.from_numpy(plan.states)
        np.testing.assert_allclose(plan.score, goal(states, torch.zeros(30, 5, CHUNK, 2)), rtol=1e-5)
        assert {len(x) for x, _ in asked(p)} == {30 * samples, 30}, "futures are one batch; the actions need none"


def test_the_best_of_several_candidates_is_kept() -> None:
    wanted = StayNear(place(6))
    some = planner(scheme="autoregressive", guidance=0.0, candidates=8).plan(
        place(np.zeros(20)), wanted, generator=rng()
    )
    assert (ways(some, 0) == 1).mean() > 0.95, "one in 256 has no candidate that goes there"
    np.testing.assert_allclose(some.actions[ways(some, 0) == 1, 0, 1], 1, atol=1e-3)


def test_committed_actions_are_kept_to_the_bit_and_bind_the_plan() -> None:
    """A plan's next actions, from the step that is now reached on, are said to be under way: the new plan holds them at
    level 0, returns them as they were, and goes the way they lead, though it could go either."""
    p = planner(scheme="autoregressive", action_chunks=3, warm_level=1000)
    old = p.plan(place(np.zeros(16)), ReachGoal(quarter(0, -1)), generator=rng())
    for elapsed, n in ((0, 2), (2, 2), (2, 4), (1, 3), (0, 5)):
        new = p.plan(place([-elapsed] * 16), None, old, n, rng(1), elapsed=elapsed)
        assert (new.actions[:, :n] == old.actions[:, elapsed : elapsed + n]).all()
        assert (new.levels[:, 1 : 1 + n // CHUNK, 1] == 0).all()
        if elapsed % CHUNK == 0:
            assert (ways(new, -elapsed) == -1).all()
        held = asked(p)[-1][1][0, 2 : 2 + n // CHUNK, 1]
        assert (held == 0).all()
    free = p.plan(place(np.zeros(16)), None, old, 0, rng(1))
    assert (ways(free, 0) == 1).any() and (ways(free, 0) == -1).any()


def test_a_warm_start_goes_on_with_the_last_plan() -> None:
    """From little noise the plan is the old one, shifted; from pure noise it is a new one; and it costs fewer rows."""
    p = planner(scheme="autoregressive")
    old = p.plan(place(np.zeros(60)), ReachGoal(quarter(0, -1)), generator=rng())
    cold = p.calls
    share, calls = [], []
    for level in (60, 1000):
        s = replace(p.settings, warm_level=level)
        new = p.plan(place(np.full(60, -2)), None, old, generator=rng(1), elapsed=2, settings=s)
        away = np.abs(new.states - future(np.full(60, -2), -1, HORIZON)[0]).max((1, 2))
        share.append((away < 0.02).mean())
        calls.append(p.calls)
    assert share[0] == 1 and share[1] < 0.9
    assert calls[1] == cold and calls[0] < cold


def test_a_doubtful_observation_is_denoised_and_an_exact_one_is_left() -> None:
    at, level = np.arange(PLACES, dtype=float), 150
    alpha, sigma = (float(r) for r in Schedule("cosine", 1000).rates(torch.tensor(level)))
    noise = np.random.default_rng(0).normal(size=(PLACES, 1, 2)) * sigma / alpha * 0.15
    seen = history(at.tolist(), 1, 1) + noise
    p = planner()
    told = p.plan(seen, ReachGoal([quarter(a, 1) for a in at]), trust=level, generator=rng())
    np.testing.assert_allclose(told.states[:, 0], place(at), atol=5e-3)
    assert (told.levels[:, 0, 0] == 0).all()
    exact = p.plan(seen, ReachGoal([quarter(a, 1) for a in at]), generator=rng())
    np.testing.assert_allclose(exact.states[:, 0], seen[:, 0], atol=1e-6)


def test_the_trace_shows_every_row_and_the_near_future_first() -> None:
    p = planner(scheme="pyramid", scale=2)
    plan = p.plan(place([3, 9]), ReachGoal([quarter(3, 1), quarter(9, 1)]), generator=rng(), trace=True)
    assert len(plan.trace) == p.calls
    rows = np.stack([levels for _, levels in plan.trace])
    assert (np.diff(rows, axis=0) <= 0).all() and (rows[-1] == plan.levels[0]).all()
    assert (np.diff(rows[..., 0], axis=1) >= 0).all()
    np.testing.assert_allclose(plan.trace[-1][0], plan.states, atol=1e-6)


def test_the_stabilisation_level_reaches_the_model() -> None:
    p = planner(stabilise=40)
    p.plan(history([3]), generator=rng())
    told = torch.cat([levels[:, 1:3, 0] for _, levels in asked(p)])
    assert (told == 40).all()


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda p: p.plan(np.zeros((2, 3))), r"history has the shape \(2, 3\); expected"),
        (lambda p: p.plan(np.zeros(2)), "history has the shape"),
        (lambda p: p.plan(np.full((1, 2), np.nan)), "NaN"),
        (lambda p: p.plan(np.zeros((1, 6, 2))), "6 observations of history .* at most 5"),
        (lambda p: p.plan(place([0]), ReachGoal([[0, 0], [1, 1]])), "2 goals .* batch of 1"),
        (lambda p: p.plan(place([0]), committed=2), "no previous plan"),
        (lambda p: p.plan(place([0, 0]), None, p.plan(place([0]), generator=rng())), "batch of 1, the history for 2"),
        (lambda p: p.plan(place([0]), None, p.plan(place([0]), generator=rng()), 5), "previous plan holds 2"),
        (lambda p: p.plan(place([0]), settings=PlannerSettings(horizon=1)), "at least 2 tokens"),
        (lambda p: p.plan(place([0]), settings=PlannerSettings(steps=0)), "expected 1 to 1000"),
        (lambda p: p.plan(place([0]), settings=PlannerSettings(scheme="spiral")), "known: full-sequence"),
        (lambda p: p.plan(place([0]), settings=PlannerSettings(candidates=2)), "needs an objective"),
    ],
)
def test_what_cannot_be_planned_is_a_sentence(call: Callable[[Planner], Plan], says: str) -> None:
    with pytest.raises(DFPlannerError, match=says):
        call(planner())
