"""Environments of every family made alike: the goal in the observation, noise on actions, resets that a seed fixes."""

from __future__ import annotations

import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from dfplanner.types import DFPlannerError
from dfplanner_envs import make, make_vec
from dfplanner_envs.adapters import PointMazeAdapter, UnitActions, adapter_for
from dfplanner_envs.arm.task import reach_task
from dfplanner_envs.mazes import MAZES
from dfplanner_envs.point_maze import from_maze2d, turn_from_maze2d
from dfplanner_envs.wrappers import ActionNoise, GoalObservation, OGBenchResets, known_ids

PACKAGE = {"PointMaze": "gymnasium_robotics", "pointmaze": "ogbench"}
IDS = [known_ids()[i] for i in (0, 4, 6, 8, 9, 11)]


def made(env_id: str, **kwargs: Any) -> Any:
    for start, package in PACKAGE.items():
        if env_id.startswith(start):
            pytest.importorskip(package, reason=f"needs {package}")
    return make(env_id, **kwargs)


def rollout(env: Any, seed: int, steps: int = 12, **options: Any) -> list[np.ndarray]:
    """Everything observed in two episodes, of which the first is seeded."""
    rng, out = np.random.default_rng(seed), []
    for s in (seed, None):
        obs, _ = env.reset(seed=s, options=options or None)
        out.append(np.concatenate([obs[k] for k in sorted(obs)]))
        for _ in range(steps):
            obs, *_ = env.step(rng.uniform(-1, 1, 2).astype(np.float32))
            out.append(np.concatenate([obs[k] for k in sorted(obs)]))
    return out


@pytest.mark.parametrize("env_id", IDS)
def test_every_family_shows_its_goal(env_id: str) -> None:
    env = made(env_id)
    assert set(env.observation_space.spaces) == {"observation", "achieved_goal", "desired_goal"}
    obs, info = env.reset(seed=0)
    assert obs in env.observation_space and env.action_space.shape == (2,)
    np.testing.assert_array_equal(obs["achieved_goal"], obs["observation"][:2])
    if "goal" in info:
        np.testing.assert_array_equal(obs["desired_goal"], info["goal"])
    for _ in range(5):
        after, *_ = env.step(env.action_space.sample())
        assert after in env.observation_space
        np.testing.assert_array_equal(after["desired_goal"], obs["desired_goal"])
    other, _ = env.reset(seed=1)
    if env_id != "maze2d-umaze":  # whose goal is fixed
        assert not np.array_equal(other["desired_goal"], obs["desired_goal"])


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_a_seed_fixes_an_environment_and_nothing_else_does(env_id: str, noise: float) -> None:
    env = made(env_id, noise=noise)
    np.random.seed(1)  # noqa: NPY002 (it is what must not matter)
    first = rollout(env, 7)
    np.random.seed(2)  # noqa: NPY002
    before = np.random.get_state()  # noqa: NPY002
    np.testing.assert_array_equal(first, rollout(env, 7))
    np.testing.assert_array_equal(first, rollout(made(env_id, noise=noise), 7))
    assert pickle.dumps(before) == pickle.dumps(np.random.get_state())  # noqa: NPY002
    assert not np.array_equal(first[0], rollout(env, 8)[0])


@pytest.mark.parametrize("env_id", IDS)
def test_noise_leaves_resets_alone_and_moves_the_rest(env_id: str) -> None:
    still, noisy = rollout(made(env_id), 3), rollout(made(env_id, noise=0.4), 3)
    np.testing.assert_array_equal(still[0], noisy[0])
    np.testing.assert_array_equal(still[13], noisy[13])  # the second reset, which no seed was given for
    assert not np.allclose(still[12], noisy[12])


class Told(gym.Env[Any, Any]):
    """Remembers the actions it was given."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Box(-1, 1, (2,))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.told: list[np.ndarray] = []
        return np.array([0.1, 0.2, 0.3], np.float32), {"goal": np.array([0.5])}

    def step(self, action: Any) -> Any:
        self.told.append(action)
        return np.array([0.1, 0.2, 0.3], np.float32), 0.0, False, False, {"goal": np.array([len(self.told)])}


def test_action_noise_is_gaussian_of_its_width_and_clipped() -> None:
    inner = Told()
    env = ActionNoise(inner, 0.2)
    env.reset(seed=0)
    for _ in range(4000):
        env.step(np.array([0.1, 0.9]))
    told = np.array(inner.told)
    assert told.dtype == np.float32 and told.max() == 1
    assert abs(told[:, 0].mean() - 0.1) < 4 * 0.2 / 4000**0.5
    assert abs(told[:, 0].std() - 0.2) < 4 * 0.2 / 8000**0.5
    assert abs((told[:, 1] == 1).mean() - 0.3085) < 0.03  # P(N > 0.5)


def test_a_goal_may_move_and_be_of_any_part_of_the_observation() -> None:
    env = GoalObservation(Told(), pos=(2,))
    obs, _ = env.reset(seed=0)
    assert obs["achieved_goal"].tolist() == [np.float32(0.3)] and obs["desired_goal"].tolist() == [0.5]
    goals = [env.step(np.zeros(2))[0]["desired_goal"].tolist() for _ in range(2)]
    assert goals == [[1], [2]]
    with pytest.raises(DFPlannerError, match=r"shape \(1,\); expected \(2,\)"):
        GoalObservation(Told()).reset()


@pytest.mark.filterwarnings("ignore:.*(different from the unwrapped|Box observation space)")
@pytest.mark.parametrize("env_id", ["maze2d-umaze", "pointmaze-medium-navigate-v0"])
def test_gymnasiums_own_checker_is_content(env_id: str) -> None:
    check_env(made(env_id, noise=0.1), skip_render_check=True, skip_close_check=True)


def test_wrappers_work_by_gymnasiums_own_make_vec() -> None:
    envs = gym.make_vec("dfplanner/Multi2D-UMaze-v0", 3, vectorization_mode="sync", wrappers=[GoalObservation])
    obs, info = envs.reset(seed=4)
    np.testing.assert_array_equal(obs["desired_goal"], info["goal"])
    ours = make_vec("multi2d-umaze", 3)
    for key, value in ours.reset(seed=4)[0].items():
        np.testing.assert_array_equal(value, obs[key])


@pytest.mark.parametrize("maze", MAZES.values(), ids=list(MAZES))
def test_point_maze_is_seen_in_maze2ds_frame(maze: Any) -> None:
    """What the adapter does to observations and goals is undone by the maps back, for one and for many."""
    adapter, rng = PointMazeAdapter(maze), np.random.default_rng(0)
    obs = rng.normal(size=(5, 4))
    goal = rng.normal(size=(5, 2))
    raw = {"observation": obs, "achieved_goal": obs[:, :2], "desired_goal": goal}
    seen, sought = adapter.observation(raw), adapter.goal(raw, None)
    np.testing.assert_allclose(from_maze2d(maze, seen[:, :2]), obs[:, :2], atol=1e-12)
    np.testing.assert_allclose(turn_from_maze2d(seen[:, 2:]), obs[:, 2:], atol=1e-12)
    assert sought is not None
    np.testing.assert_allclose(from_maze2d(maze, sought), goal, atol=1e-12)
    np.testing.assert_array_equal(adapter.observation({k: v[2] for k, v in raw.items()}), seen[2])
    np.testing.assert_array_equal(adapter.goal(obs[0], goal[1]), np.asarray(sought)[1])  # the policy's own goal
    assert adapter.goal(obs[0], None) is None


def test_actions_are_clipped_and_turned() -> None:
    planned = np.array([[0.5, -2.0], [3.0, 0.25]], np.float32)
    np.testing.assert_array_equal(UnitActions().action(planned), [[0.5, -1], [1, 0.25]])
    turned = PointMazeAdapter(MAZES["large"]).action(planned)
    assert turned.dtype == np.float32
    np.testing.assert_array_equal(turned, [[-1, -0.5], [0.25, -1]])


def test_a_place_of_the_arms_hand_becomes_a_posture_that_has_it_there() -> None:
    env, adapter = make("arm-reach"), adapter_for("dfplanner/ArmReach-v0")
    raw, info = env.reset(seed=3)
    np.testing.assert_array_equal(raw["desired_goal"], info["goal"])
    np.testing.assert_array_equal(raw["achieved_goal"], raw["observation"][:3])
    hand = reach_task().chain.hand
    posture = np.asarray(adapter.goal(raw, None))
    np.testing.assert_allclose(hand(posture), info["goal"], atol=1e-3)
    assert adapter.goal(raw, None) is posture  # it takes long: once is enough
    np.testing.assert_array_equal(adapter.goal(raw, posture), posture)
    many, _ = make_vec("arm-reach", 2).reset(seed=[3, 4])
    both = np.asarray(adapter.goal(many, None))
    np.testing.assert_allclose(both[0], posture, atol=1e-6)
    np.testing.assert_allclose(hand(both), many["desired_goal"], atol=1e-3)


def test_every_known_id_has_an_adapter_whatever_its_case() -> None:
    for env_id in [*known_ids(), *(i.upper() for i in known_ids())]:
        adapter = adapter_for(env_id)
        assert isinstance(adapter, PointMazeAdapter) == env_id.lower().startswith("pointmaze_"), env_id


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda: make("maze3d"), "known ones are maze2d-umaze, .*pointmaze-giant-navigate-v0"),
        (lambda: adapter_for("maze3d"), "no environment is called"),
        (lambda: make("maze2d-umaze", noise=-1.0), "a number >= 0"),
        (lambda: make_vec("maze2d-umaze", 0), "at least 1"),
        (lambda: GoalObservation(GoalObservation(Told(), (0,))), "a flat Box, but Dict"),
        (lambda: GoalObservation(gym.make("Pendulum-v1")).reset(), "holds nothing, but no goal"),
    ],
)
def test_mistakes_are_told_in_a_sentence(call: Any, sentence: str) -> None:
    with pytest.raises(DFPlannerError, match=sentence):
        call()


def test_ogbench_has_five_tasks() -> None:
    env = made("pointmaze-medium-navigate-v0")
    assert isinstance(env, GoalObservation) and isinstance(env.env, OGBenchResets)
    for task in (0, 6, "1"):
        with pytest.raises(DFPlannerError, match="tasks 1 to 5"):
            env.reset(options={"task_id": task})
