"""``predict``: who plans when, together with whom, towards which goal; a rollout is in its state and nowhere else.

The world is ``dfplanner.testing.Circle``, whose plans are known, or a network that was never trained, whose plans
depend on all of their noise.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dfplanner.guidance import ReachGoal
from dfplanner.models import ModelConfig, build_model
from dfplanner.planner import Planner
from dfplanner.policy import DFPolicy, PlainAdapter, PlanState
from dfplanner.schedules import Schedule
from dfplanner.settings import POLICY_SETTINGS, PlannerSettings
from dfplanner.testing import Circle, Recorder, as_checkpoint
from dfplanner.types import DFPlannerError, TokenSpec

CIRCLE = Circle(replace(Circle().spec, chunk=4, act_code=8))
SETTINGS = PlannerSettings(horizon=4, steps=8, action_steps=4)
WILD = TokenSpec(obs_dim=3, act_dim=2, chunk=4, act_code=8, horizon=5, dt_s=0.1)


def circle_policy(replan_every: int = 4, **kwargs: Any) -> DFPolicy:
    return DFPolicy(Planner(CIRCLE.checkpoint(), SETTINGS), replan_every=replan_every, **kwargs)


def wild_policy(**how: Any) -> DFPolicy:
    """A network with random weights."""
    torch.manual_seed(0)
    model = build_model(ModelConfig(width=16, layers=2, heads=2, ff=32), WILD, 1000).eval().requires_grad_(False)
    for p in model.parameters():
        p.copy_(0.4 * torch.randn(p.shape))  # the output layer of a new model is zero
    planner = Planner(as_checkpoint(WILD, model, Schedule("cosine", 1000), "v"), replace(POLICY_SETTINGS, **how))
    return DFPolicy(planner, replan_every=3, seed=5)


def batches(policy: DFPolicy) -> list[int]:
    """Of how many problems each call of the model was."""
    return [len(x) for x, _ in cast(Recorder, policy.planner.checkpoint.model).calls]


def seen(at: Any, way: Any) -> dict[str, NDArray]:
    """What a goal environment shows of points at places (...), sent one way or the other."""
    here = CIRCLE.position(at)
    return {"observation": here, "achieved_goal": here, "desired_goal": CIRCLE.goal(at, way)}


def at_goal(at: Any, goal: NDArray) -> dict[str, NDArray]:
    return {"observation": CIRCLE.position(at), "desired_goal": goal}


def test_each_environment_goes_to_its_own_goal() -> None:
    at, way = np.array([0, 3, 11, 20]), np.array([1, -1, -1, 1])
    policy, state, starts = circle_policy(), None, at.copy()
    goal = CIRCLE.goal(at, way)
    for t in range(4):
        actions, state = policy.predict(at_goal(at, goal), state)
        np.testing.assert_allclose(actions, CIRCLE.action(at, way), atol=0.05)
        at = at + actions[:, 1].round().astype(int)
        assert state.at.tolist() == [t + 1] * 4 and state.plans.tolist() == [1] * 4
    np.testing.assert_array_equal(at, starts + 4 * way)
    assert state is not None
    np.testing.assert_allclose(state.states, CIRCLE.future(starts, way, 4)[0], atol=0.05)


def test_one_environment_is_a_vector_of_one_without_its_axis() -> None:
    policy = circle_policy()
    action, state = policy.predict(seen(3, -1), deterministic=True)
    assert action.shape == (2,) and action.dtype == np.float32 and state.actions.shape == (1, 4, 2)
    row, _ = policy.predict(seen(np.array([3]), -1), deterministic=True)
    np.testing.assert_array_equal(row, action[None])
    box, _ = circle_policy(goal=CIRCLE.goal(3, -1)).predict(CIRCLE.position(3), deterministic=True)
    np.testing.assert_array_equal(box, action)


def test_all_that_are_due_are_planned_as_one_batch_and_nobody_else() -> None:
    policy, at = circle_policy(), np.arange(5)
    obs = seen(at, 1)
    calls = len(batches(policy))
    _, state = policy.predict(obs)
    one_plan = len(batches(policy)) - calls
    assert set(batches(policy)) == {5}
    for t in range(1, 9):
        start = np.array([False, t == 2, False, t == 2, False])
        before = len(batches(policy))
        _, state = policy.predict(obs, state, episode_start=start)
        due = {2: 2, 4: 3, 6: 2, 8: 3}.get(t, 0)
        assert batches(policy)[before:] == [due] * (one_plan if due else 0), t
    assert state.plans.tolist() == [3, 2, 3, 2, 3]


def test_a_goal_that_moves_is_planned_for_at_once() -> None:
    policy, at, way = circle_policy(), np.array([2, 9, 15]), np.array([1, 1, -1])
    _, state = policy.predict(seen(at, way))
    before = len(batches(policy))
    way[1] = -1
    actions, state = policy.predict(seen(at, way), state)
    assert set(batches(policy)[before:]) == {1}
    assert actions[1, 1].round() == -1 and state.at.tolist() == [2, 1, 2] and state.plans.tolist() == [1, 2, 1]
    mine = circle_policy(goal=CIRCLE.goal(2, 1))
    _, kept = mine.predict(CIRCLE.position(2))
    mine.goal = CIRCLE.goal(2, -1)
    action, _ = mine.predict(CIRCLE.position(2), kept)
    assert action[1].round() == -1


def wild_obs(seed: int, n: int, steps: int) -> tuple[NDArray, NDArray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((steps, n, 3)), rng.standard_normal((n, 2))


HOW: list[dict[str, Any]] = [
    {},
    {"candidates": 4},
    {"eta": 1.0, "steps": 4},
    {"scheme": "pyramid", "samples": 3, "guidance": 2.0, "steps": 5, "near": 1},
]


@pytest.mark.parametrize("how", HOW, ids=["plain", "candidates", "DDPM", "futures"])
@settings(max_examples=4)
@given(data=st.data(), seed=st.integers(0, 99))
def test_a_vector_of_environments_is_what_they_are_one_by_one(how: dict[str, Any], data: Any, seed: int) -> None:
    """Whoever else is due in a step, and whenever: an environment's plans hang on what it saw alone."""
    n, steps = 3, 5
    starts = np.array(
        data.draw(st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=steps, max_size=steps))
    )
    policy = wild_policy(**how)
    if "samples" in how:
        policy.objective = lambda goal: ReachGoal(goal, "guidance")
    obs, goal = wild_obs(seed, n, steps)
    together, alone = [], []
    state = None
    policy.goal = goal
    for o, start in zip(obs, starts, strict=True):
        actions, state = policy.predict(o, state, start, deterministic=True)
        together.append(actions)
    for i in range(n):
        state, policy.goal = None, goal[i]
        for o, start in zip(obs[:, i], starts[:, i], strict=True):
            action, state = policy.predict(o, state, start, deterministic=True)
            alone.append(action)
    alone = np.array(alone).reshape(n, steps, 2).swapaxes(0, 1)
    np.testing.assert_allclose(np.array(together), alone, atol=2e-3)
    assert np.ptp(alone) > 0.1  # it does depend on something


def test_deterministic_is_a_function_of_observation_and_state_and_the_rest_is_drawn() -> None:
    policy = wild_policy()
    policy.goal = [0.3, 0.1]
    obs = np.tile([0.1, -0.4, 0.2], (6, 1))
    fixed = [policy.predict(obs, deterministic=True)[0] for _ in range(2)]
    np.testing.assert_array_equal(fixed[0], fixed[1])
    np.testing.assert_allclose(fixed[0], fixed[0][:1].repeat(6, 0), atol=2e-3)
    drawn = [policy.predict(obs)[0] for _ in range(2)]
    assert len(np.unique(np.concatenate(drawn).round(3), axis=0)) == 12
    again = wild_policy()
    again.goal = policy.goal
    np.testing.assert_array_equal(again.predict(obs)[0], drawn[0])  # the draws are the seed's, too
    other = wild_policy()
    other.goal, other.seed = policy.goal, 6
    assert not np.allclose(other.predict(obs, deterministic=True)[0], fixed[0], atol=1e-2)


def test_a_later_plan_has_other_noise() -> None:
    policy = wild_policy()
    policy.goal = [0.3, 0.1]
    obs, state, actions = np.zeros((1, 3)), None, []
    for _ in range(6):
        action, state = policy.predict(obs, state, deterministic=True)
        actions.append(action)
    assert not np.allclose(actions[:3], actions[3:], atol=1e-2)


def test_two_rollouts_of_one_policy_know_nothing_of_each_other() -> None:
    policy = wild_policy()
    policy.goal = [0.3, 0.1]
    left, right = (wild_obs(seed, 2, 7)[0] for seed in (1, 2))

    def run(*rollouts: NDArray) -> list[list[NDArray]]:
        states: list[Any] = [None] * len(rollouts)
        out: list[list[NDArray]] = [[] for _ in rollouts]
        for t in range(7):
            for i, obs in enumerate(rollouts):
                action, states[i] = policy.predict(obs[t], states[i], deterministic=True)
                out[i].append(action)
        return out

    mixed, (a,), (b,) = run(left, right), run(left), run(right)
    np.testing.assert_array_equal(mixed, [a, b])


def test_a_state_is_left_as_it_was_and_may_be_a_copy_or_a_plain_tuple() -> None:
    policy = wild_policy()
    policy.goal = [0.3, 0.1]
    obs = wild_obs(3, 2, 4)[0]
    _, state = policy.predict(obs[0], deterministic=True)
    kept = copy.deepcopy(state)
    start = np.array([True, False])
    first, _ = policy.predict(obs[1], state, start, deterministic=True)
    for a, b in zip(state, kept, strict=True):
        np.testing.assert_array_equal(a, b)
    second, _ = policy.predict(obs[1], tuple(kept), start, deterministic=True)
    np.testing.assert_array_equal(first, second)


def test_actions_are_as_the_action_space_has_them() -> None:
    space = Box(-0.25, 0.25, (1, 2), np.float64)
    single, _ = circle_policy(action_space=space).predict(seen(0, 1))
    many, _ = circle_policy(action_space=space).predict(seen(np.arange(3), 1))
    assert single in space and many.shape == (3, 1, 2) and many.dtype == np.float64
    np.testing.assert_allclose(many, 0.25)


def test_an_adapter_maps_all_three() -> None:
    class Halved(PlainAdapter):
        """An environment in half units, with keys of its own, whose second action counts the other way."""

        def observation(self, raw: Any) -> NDArray:
            return 2 * raw["agent"]

        def goal(self, raw: Any, given: Any) -> NDArray:
            return 2 * np.asarray(raw["target"] if given is None else given)

        def action(self, planned: NDArray) -> NDArray:
            return (planned * [1, -1]).astype(np.float16)

    at, way = np.array([1, 8]), np.array([1, -1])
    obs = {"agent": CIRCLE.position(at) / 2, "target": CIRCLE.goal(at, way) / 2}
    actions, state = circle_policy(adapter=Halved()).predict(obs)
    assert actions.dtype == np.float16
    np.testing.assert_allclose(actions, CIRCLE.action(at, way) * [1, -1], atol=0.05)
    np.testing.assert_allclose(state.goal, CIRCLE.goal(at, way), rtol=1e-6)
    given, _ = circle_policy(adapter=Halved(), goal=CIRCLE.goal(1, -1) / 2).predict({"agent": CIRCLE.position(1) / 2})
    np.testing.assert_allclose(given, CIRCLE.action(1, -1) * [1, -1], atol=0.05)


BAD = np.array([np.nan, 0.0])
P0 = CIRCLE.position(np.zeros(2))
GOAL = CIRCLE.goal(0, 1)
WRONG: list[tuple[Any, dict[str, Any], str]] = [
    ((P0, {}), {}, r"gives \(observation, info\)"),
    (np.zeros(3), {}, r"shape \(3,\).*expects \(2,\)"),
    (np.zeros((2, 2, 2)), {}, r"shape \(2, 2, 2\)"),
    (np.zeros((0, 2)), {}, r"shape \(0, 2\)"),
    (BAD, {}, "observation holds a NaN"),
    ("north", {}, "expected an array of numbers"),
    ({"position": P0}, {}, "Dict of position, without 'observation'"),
    ({"observation": P0, "desired_goal": np.tile(BAD, (2, 1))}, {"goal": None}, "the goal holds a NaN"),
    ({"observation": P0, "desired_goal": np.zeros((3, 2))}, {"goal": None}, r"goal has the shape \(3, 2\)"),
    (P0, {"goal": None}, "no goal is known"),
    (P0, {"goal": [1.0, 2.0, 3.0]}, r"goal has the shape \(3,\)"),
    (P0, {"state": np.zeros(3)}, "predict did not give"),
    (P0, {"state": "of 3"}, "of 3 environments"),
    (P0, {"episode_start": [True, False, True]}, r"shape \(3,\)"),
]  # fmt: skip


@pytest.mark.parametrize("observation, how, sentence", WRONG)
def test_mistakes_are_told_in_a_sentence(observation: Any, how: dict[str, Any], sentence: str) -> None:
    policy = circle_policy(goal=how.get("goal", GOAL))
    state = how.get("state")
    if "episode_start" in how:
        state = policy.predict(P0)[1]
    elif isinstance(state, str):
        state = policy.predict(CIRCLE.position(np.zeros(3)))[1]
    with pytest.raises(DFPlannerError, match=sentence) as e:
        policy.predict(observation, state, how.get("episode_start"))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "how, sentence",
    [
        ({"replan_every": 5}, "a plan holds 4 actions"),
        ({"replan_every": 0}, "every 0 steps does not fit"),
        ({"action_space": Discrete(4)}, "need a Box"),
    ],
)
def test_what_cannot_be_a_policy_is_told_at_once(how: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DFPlannerError, match=sentence):
        DFPolicy(Planner(CIRCLE.checkpoint(), SETTINGS), **how)


def test_actions_that_do_not_fit_their_space_are_told() -> None:
    with pytest.raises(DFPlannerError, match="the action space is"):
        circle_policy(action_space=Box(-1, 1, (3,))).predict(seen(0, 1))


def test_every_state_is_a_tuple_of_arrays_of_its_environments() -> None:
    _, state = circle_policy().predict(seen(np.arange(3), 1))
    assert isinstance(state, tuple) and isinstance(state, PlanState)
    assert all(isinstance(a, np.ndarray) and len(a) == 3 for a in state)
