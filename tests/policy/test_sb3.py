"""Stable-Baselines3's own ``evaluate_policy`` runs a checkpoint, on one environment and on many; so do Gymnasium's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dfplanner.checkpoint import bundled
from dfplanner.planner import Planner
from dfplanner.policy import DFPolicy
from dfplanner.settings import PlannerSettings
from dfplanner.testing import Circle
from dfplanner_envs import make, make_vec
from dfplanner_envs.adapters import adapter_for

evaluation = pytest.importorskip("stable_baselines3.common.evaluation", reason="needs stable-baselines3")
vec_env = pytest.importorskip("stable_baselines3.common.vec_env", reason="needs stable-baselines3")


def policy_for(env_id: str) -> DFPolicy:
    """Its own weights, or Maze2D's for PointMaze: it is the same ball in a turned frame."""
    name = env_id.replace("multi2d", "maze2d")
    if name not in bundled() and name.startswith("PointMaze_"):
        name = f"maze2d-{name[10:-3].lower()}"
    if name not in bundled():
        pytest.skip(f"the weights {name} are not bundled")
    return DFPolicy.from_pretrained(name, adapter=adapter_for(env_id))


def returns(policy: DFPolicy, env: Any, episodes: int) -> tuple[list[float], list[int]]:
    return evaluation.evaluate_policy(
        policy, env, n_eval_episodes=episodes, deterministic=True, return_episode_rewards=True, warn=False
    )


def vector(env_id: str, n: int, **kwargs: Any) -> Any:
    env = vec_env.DummyVecEnv([lambda: make(env_id, **kwargs)] * n)
    env.seed(0)
    return env


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("env_id", ["multi2d-umaze", "PointMaze_UMaze-v3"])
def test_many_environments_each_with_its_own_goal(env_id: str, noise: float) -> None:
    """From anywhere to anywhere, with noise on the actions too, all arrive and stay; few would by chance."""
    if env_id.startswith("PointMaze"):
        pytest.importorskip("gymnasium_robotics", reason="needs gymnasium-robotics")
    got, lengths = returns(policy_for(env_id), vector(env_id, 5, noise=noise), 5)
    assert lengths == [300] * 5
    assert min(got) > 30 and np.mean(got) > 120


def test_one_environment_through_a_reset() -> None:
    env = make("maze2d-umaze", max_episode_steps=120)
    env.reset(seed=1)
    got, lengths = returns(policy_for("maze2d-umaze"), env, 2)
    assert lengths == [120, 120] and len(got) == 2


def test_a_box_observation_and_a_goal_that_is_known() -> None:
    import gymnasium

    policy = policy_for("maze2d-umaze")
    policy.goal = (1.0, 1.0)  # D4RL's own
    env = gymnasium.make("dfplanner/Maze2D-UMaze-v0", max_episode_steps=200)
    obs, _ = env.reset(seed=0, options={"start": (3, 1)})
    total, state = 0.0, None
    for _ in range(200):
        action, state = policy.predict(obs, state, deterministic=True)
        assert action in env.action_space
        obs, reward, *_ = env.step(action)
        total += float(reward)
    assert total > 20


@pytest.mark.parametrize("env_id", ["multi2d-umaze", "PointMaze_UMaze-v3"])
def test_a_vector_of_gymnasiums_through_resets(env_id: str) -> None:
    """``terminated | truncated`` is ``episode_start``: every plan begins where, and leads where, its episode does."""
    if env_id.startswith("PointMaze"):
        pytest.importorskip("gymnasium_robotics", reason="needs gymnasium-robotics")
    envs, policy = make_vec(env_id, 3, max_episode_steps=8), policy_for(env_id)
    policy.replan_every = 5
    obs, _ = envs.reset(seed=3)
    state, starts, planned = None, np.ones(3, bool), 0
    for t in range(30):
        actions, state = policy.predict(obs, state, starts, deterministic=True)
        assert actions.shape == (3, 2) and actions.dtype == envs.action_space.dtype
        here = np.asarray(policy.adapter.observation(obs))
        goals: Any = policy.adapter.goal(obs, None)
        np.testing.assert_allclose(state.goal, goals, rtol=1e-6)
        new = state.at == 1
        assert new[starts].all()
        np.testing.assert_allclose(state.states[new, 0], here[new], atol=1e-3)
        planned += new.sum()
        obs, _, terminated, truncated, _ = envs.step(actions)
        starts = terminated | truncated
        assert starts.all() == (t % 8 == 7)
    assert planned == 3 * 2 * 4  # 8, 8, 8 and 6 steps


def test_goals_that_move_on_are_followed() -> None:
    """PointMaze with ``reset_target``: on arrival there is a new goal, and a reward for each."""
    pytest.importorskip("gymnasium_robotics", reason="needs gymnasium-robotics")
    env, policy = make("PointMaze_UMaze-v3", reset_target=True), policy_for("PointMaze_UMaze-v3")
    obs, _ = env.reset(seed=2)
    state, arrived, goals = None, 0.0, []
    for _ in range(300):
        action, state = policy.predict(obs, state, deterministic=True)
        goals.append(state.goal[0])
        obs, reward, *_ = env.step(action)
        arrived += float(reward)
    assert arrived >= 2 and len(np.unique(goals, axis=0)) >= arrived


def test_ogbench_takes_any_checkpoint_of_its_shapes() -> None:
    """Not to arrive, but to run: observations, goals and actions of two numbers each, through resets."""
    pytest.importorskip("ogbench", reason="needs ogbench")
    planner = Planner(Circle().checkpoint(), PlannerSettings(horizon=4, steps=2, action_steps=2))
    policy = DFPolicy(planner, adapter=adapter_for("pointmaze-medium-navigate-v0"))
    for env in (
        make("pointmaze-medium-v0", max_episode_steps=6),
        vector("pointmaze-medium-v0", 3, max_episode_steps=6),
    ):
        got, lengths = returns(policy, env, 4)
        assert lengths == [6] * 4 and got == [0] * 4


OGBENCH = [f"pointmaze-{size}-navigate-v0" for size in ("medium", "large", "giant")]


@pytest.mark.parametrize("env_id", OGBENCH)
@pytest.mark.parametrize("how", [{}, {"resample": True}], ids=["tasks", "resampled"])
def test_ogbench_is_solved(env_id: str, how: dict[str, Any]) -> None:
    """Its five tasks, or starts and goals anywhere with noise on the actions; an episode's return is its success."""
    pytest.importorskip("ogbench", reason="needs ogbench")
    policy = policy_for(env_id)
    env = vector(env_id, 5, noise=0.2 if how else 0.0)
    env.set_options([how or {"task_id": k} for k in range(1, 6)])
    got, _ = returns(policy, env, 5)
    assert sum(got) >= 3  # by chance: none
