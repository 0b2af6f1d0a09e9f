"""Actions under way: a plan begins with them, goes on from where they lead, and joins them as smoothly as it can.

The world is ``dfplanner.testing.Circle``; what is linear is tested on codes made for it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dfplanner.commitment import committed_actions, join, known_actions
from dfplanner.data.episodes import Episodes
from dfplanner.data.tokens import Tokenizer
from dfplanner.dynamics import LinearDynamics
from dfplanner.guidance import ReachGoal
from dfplanner.planner import Planner
from dfplanner.settings import PlannerSettings
from dfplanner.testing import Circle
from dfplanner.types import DFPlannerError, Plan, TokenSpec

CIRCLE = Circle()
CHUNK, HORIZON = CIRCLE.spec.chunk, CIRCLE.spec.horizon
PLANNER = Planner(CIRCLE.checkpoint(), PlannerSettings(steps=25, action_steps=4, action_chunks=5, warm_level=1000))
WAY = np.array([1, -1, -1])
AT = np.array([0, 7, 15])


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def goals(at: NDArray, way: NDArray = WAY) -> ReachGoal:
    return ReachGoal([CIRCLE.goal(a, w) for a, w in zip(at, way, strict=True)])


OLD = PLANNER.plan(CIRCLE.position(AT), goals(AT), generator=rng())


@given(st.integers(0, 9), st.integers(0, 10), st.booleans(), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_the_first_actions_are_the_committed_ones_to_the_bit(elapsed: int, n: int, known: bool, seed: int) -> None:
    """Whether they fill chunks or not, and whether it is known where they lead or not."""
    n = min(n, 10 - elapsed)
    at = AT + WAY * elapsed
    foreseen = CIRCLE.position(at + WAY * n) if known and n else None
    new = PLANNER.plan(CIRCLE.position(at), None, OLD, n, rng(seed), elapsed=elapsed, foreseen=foreseen)
    assert (new.actions[:, :n] == OLD.actions[:, elapsed : elapsed + n]).all()
    assert new.lead == (n if foreseen is not None else 0)
    assert new.actions.shape[1] == new.lead + (HORIZON - 1) * CHUNK and known_actions(new) == new.actions.shape[1]


@given(st.integers(1, 6), st.integers(0, 4), st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_a_plan_goes_on_from_where_the_committed_actions_lead(n: int, elapsed: int, seed: int) -> None:
    """However many they are: every action is the world's own, without a gap and without a place done twice."""
    at = AT + WAY * elapsed
    then = at + WAY * n
    new = PLANNER.plan(
        CIRCLE.position(at), goals(then), OLD, n, rng(seed), elapsed=elapsed, foreseen=CIRCLE.position(then)
    )
    states, actions = CIRCLE.future(then, WAY, HORIZON)
    np.testing.assert_allclose(new.states, states, atol=2e-3)
    np.testing.assert_allclose(new.actions[:, n:], actions, atol=2e-3)
    own = np.stack([CIRCLE.action(at + WAY * i, WAY) for i in range(n)], 1)
    np.testing.assert_allclose(new.actions[:, :n], own, atol=2e-3)


def test_nothing_committed_is_the_plain_plan() -> None:
    plain = PLANNER.plan(CIRCLE.position(AT), goals(AT), generator=rng(3))
    after = PLANNER.plan(CIRCLE.position(AT), goals(AT), OLD, 0, rng(3), elapsed=4)
    assert (plain.tokens == after.tokens).all() and (plain.actions == after.actions).all()


def test_the_next_plan_knows_where_one_with_a_lead_was_going() -> None:
    """From little noise it is the old plan, shifted by what has passed less what was under way before it."""
    then = AT + WAY * 3
    led = PLANNER.plan(CIRCLE.position(AT), goals(then), OLD, 3, rng(), foreseen=CIRCLE.position(then))
    low = replace(PLANNER.settings, warm_level=60)
    for elapsed in (3, 5):
        at = AT + WAY * elapsed
        new = PLANNER.plan(CIRCLE.position(at), None, led, 0, rng(1), elapsed=elapsed, settings=low)
        np.testing.assert_allclose(new.states[:, :3], CIRCLE.future(at, WAY, 3)[0], atol=0.02)


def test_elapsed_steps_may_differ_within_a_batch() -> None:
    elapsed = np.array([0, 2, 4])
    at = AT + WAY * elapsed
    low = replace(PLANNER.settings, warm_level=60)
    new = PLANNER.plan(CIRCLE.position(at), None, OLD, 2, rng(), elapsed=elapsed, settings=low)
    for i, e in enumerate(elapsed):
        assert (new.actions[i, :2] == OLD.actions[i, e : e + 2]).all()
    np.testing.assert_allclose(new.states[:, :3], CIRCLE.future(at, WAY, 3)[0], atol=0.02)
    with pytest.raises(DFPlannerError, match="one for all or one for each of 3"):
        PLANNER.plan(CIRCLE.position(at), None, OLD, 2, rng(), elapsed=elapsed[:2])


@pytest.mark.parametrize("more", [{"committed": 2}, {"previous": OLD}])
def test_what_is_foreseen_needs_actions_that_lead_there(more: dict) -> None:
    with pytest.raises(DFPlannerError, match=r"no actions are committed|no previous plan"):
        PLANNER.plan(CIRCLE.position(AT), foreseen=CIRCLE.position(AT), **more)


# the join


SPEC = TokenSpec(4, 2, chunk=10, act_code=12, horizon=6, dt_s=0.01)


def smooth_code() -> Tokenizer:
    """A code fitted to chunks of slow waves."""
    g = np.random.default_rng(0)
    t = np.arange(10)[None, :, None]
    waves = sum(
        g.normal(size=(4000, 1, 2)) / (1 + k**2) * np.cos(np.pi * k * t / 10 + 7 * g.random((4000, 1, 2)))
        for k in range(10)
    )
    return Tokenizer.fit(SPEC, g.normal(size=(100, 4)).astype(np.float32), np.asarray(waves, np.float32))


TOKENIZER = smooth_code()
STATS = {k: v.numpy() for k, v in TOKENIZER.stats().items()}


def plan_of(actions: NDArray) -> Plan:
    b, n = actions.shape[:2]
    tokens = n // SPEC.chunk + 1
    zeros = np.zeros((b, tokens, 4), np.float32)
    levels = np.zeros((b, tokens, 2), np.int64)
    return Plan(
        zeros, actions, levels, np.zeros(b, np.float32), SPEC.chunk, 0.01, np.zeros((b, tokens, 16), np.float32)
    )


@given(st.integers(0, 12), st.integers(0, 8), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_a_join_changes_what_is_free_alone_and_lessens_jumps(elapsed: int, committed: int, seed: int) -> None:
    g = np.random.default_rng(seed)
    b = 64
    old = plan_of(TOKENIZER.decode_actions(torch.from_numpy(g.normal(size=(b, 3, 12))).float()).flatten(1, 2).numpy())
    fresh = TOKENIZER.decode_actions(torch.from_numpy(g.normal(size=(b, 3, 12))).float()).flatten(1, 2).numpy()
    actions = np.concatenate([committed_actions(old, elapsed, committed), fresh[:, : 30 - committed]], 1)
    before = actions.copy()
    join(actions, old, elapsed, committed, SPEC, STATS)
    window = slice(committed, committed + 10 - min(4, elapsed + committed))
    changed = (actions != before).any((0, 2))
    assert not changed[: window.start].any() and not changed[window.stop :].any()
    if elapsed + committed == 0:
        assert not changed.any()
    elif elapsed + committed > 1:
        last = old.actions[:, elapsed + committed - 1]
        jump = [np.linalg.norm(a[:, committed] - last, axis=1).mean() for a in (before, actions)]
        assert jump[1] < 0.6 * jump[0]


@given(st.integers(0, 12), st.integers(1, 8), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_what_is_smooth_already_is_left_as_it_is(elapsed: int, committed: int, seed: int) -> None:
    """Actions round the join that the code can express are its own fit."""
    g = np.random.default_rng(seed)
    n = min(4, elapsed + committed)
    chunk = TOKENIZER.decode_actions(torch.from_numpy(g.normal(size=(5, 1, 12))).float()).flatten(1, 2).numpy()
    path = g.normal(size=(5, 60, 2)).astype(np.float32)
    at = elapsed + committed
    path[:, at - n : at - n + 10] = chunk
    old = plan_of(path[:, :30])
    actions = path[:, elapsed : elapsed + 30].copy()
    join(actions, old, elapsed, committed, SPEC, STATS)
    np.testing.assert_allclose(actions, path[:, elapsed : elapsed + 30], atol=2e-4)


# a linear model of one step


def recorded(observations: NDArray, actions: NDArray, starts: NDArray) -> Episodes:
    n = len(observations)
    o, a = observations.astype(np.float32), actions.astype(np.float32)
    return Episodes(o, a, np.zeros((n, 1), np.float32), np.zeros(n, np.float32), starts)


@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_a_linear_world_is_predicted_exactly(obs: int, act: int, seed: int) -> None:
    """And a step from one episode's end to the next one's start teaches nothing."""
    g = np.random.default_rng(seed)
    a = g.normal(size=(obs, obs)) * 0.1 - 0.2 * np.eye(obs)
    b, c = g.normal(size=(act, obs)), g.normal(size=obs)

    def rollout(o: NDArray, actions: NDArray) -> list[NDArray]:
        path = [o]
        for u in actions:
            path.append(path[-1] + path[-1] @ a + u @ b + c)
        return path

    u = g.uniform(-1, 1, (6, 30, act))
    o = np.concatenate([rollout(g.normal(size=obs) * 3, x)[:30] for x in u])
    episodes = recorded(o, u.reshape(180, act), np.arange(0, 180, 30))
    model = LinearDynamics.fit(episodes)
    now, todo = g.normal(size=(2, obs)), g.uniform(-1, 1, (2, 8, act)) * np.abs(u).max((0, 1)) * 0.9
    todo = np.clip(todo, model.low, model.high)
    want = np.stack([rollout(x, y)[-1] for x, y in zip(now, todo, strict=True)])
    np.testing.assert_allclose(model.predict(now, todo), want, rtol=1e-3, atol=2e-3)
    np.testing.assert_array_equal(model.predict(now, todo[:, :0]), now)
    far = np.full((2, 1, act), 99.0)
    np.testing.assert_allclose(model.predict(now, far), model.predict(now, np.broadcast_to(model.high, (2, 1, act))))


def test_too_little_to_fit_is_a_sentence() -> None:
    few = recorded(np.zeros((4, 4)), np.zeros((4, 2)), np.array([0, 2]))
    with pytest.raises(DFPlannerError, match="2 steps within episodes were given to fit 7"):
        LinearDynamics.fit(few)


def test_what_runs_into_a_wall_is_predicted_to_stay_there() -> None:
    """Until it pushes the other way; and whoever moves freely, or has not been stuck for long enough, goes on."""
    g = np.random.default_rng(0)
    u = g.uniform(-1, 1, (500, 1)).astype(np.float32)
    u[:2] = [[1], [-1]]
    o = np.concatenate([[[0.0]], np.cumsum(0.1 * u, 0)[:-1]]).astype(np.float32)
    model = LinearDynamics.fit(recorded(o, u, np.array([0])))
    push = np.ones((2, 1))
    wall = [(np.array([[1.0], [0.1 * i]]), push) for i in range(3)]  # the first is stuck, the second is not
    now, ahead = np.array([[1.0], [0.3]]), np.ones((2, 4, 1))
    np.testing.assert_allclose(model.predict(now, ahead, wall), [[1.0], [0.7]], atol=1e-4)
    np.testing.assert_allclose(model.predict(now, -ahead, wall), [[0.6], [-0.1]], atol=1e-4)
    np.testing.assert_allclose(model.predict(now, ahead, wall[1:]), [[1.4], [0.7]], atol=1e-4)
    np.testing.assert_allclose(model.predict(now, ahead), [[1.4], [0.7]], atol=1e-4)
    still = [(np.ones((2, 1)), 0.1 * push)] * 3  # too little was done to tell
    np.testing.assert_allclose(model.predict(np.ones((2, 1)), ahead, still), [[1.4], [1.4]], atol=1e-4)
