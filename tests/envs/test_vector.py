"""The vector environment equals Gymnasium's own loop over single ones, bit for bit."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import dfplanner_envs  # noqa: F401  (registers the environments)
from dfplanner.types import DFPlannerError
from dfplanner_envs.vector import VectorMaze2D

N = 6
SEEDS: Any = [11, 3, None, 3, 8, 1]


def pair(env_id: str, steps: int, **kwargs):
    """Ours, and Gymnasium's SyncVectorEnv over the registered single environment."""
    ours = gym.make_vec(env_id, N, max_episode_steps=steps, **kwargs)
    assert isinstance(ours.unwrapped, VectorMaze2D)
    mode = ours.metadata["autoreset_mode"]
    theirs = gym.vector.SyncVectorEnv(
        [lambda: gym.make(env_id, max_episode_steps=steps) for _ in range(N)], autoreset_mode=mode
    )
    return ours, theirs


def same(a, b):
    *left, left_info = a
    *right, right_info = b
    assert all(np.array_equal(x, y) for x, y in zip(left, right, strict=True))
    assert np.array_equal(left_info["goal"], right_info["goal"])
    assert np.array_equal(left_info["_goal"], right_info["_goal"])


@pytest.mark.parametrize("env_id", ["dfplanner/Maze2D-UMaze-v0", "dfplanner/Multi2D-Large-v0"])
@pytest.mark.parametrize("nthread", [1, 2])
def test_equals_single_environments_through_resets(env_id, nthread):
    ours, theirs = pair(env_id, 70, nthread=nthread)
    assert ours.observation_space == theirs.observation_space and ours.action_space == theirs.action_space
    rng = np.random.default_rng(0)
    for seed in (5, SEEDS):
        same(ours.reset(seed=seed), theirs.reset(seed=seed))
        for t in range(250):
            if t % 15 == 0:
                action = rng.uniform(-1.5, 1.5, (N, 2)).astype(np.float32)
            step = ours.step(action)
            same(step, theirs.step(action))
            assert step[0] in ours.observation_space


def test_equals_single_environments_with_masked_resets():
    ours, theirs = pair("dfplanner/Multi2D-Medium-v0", 40, autoreset=False)
    same(ours.reset(seed=1), theirs.reset(seed=1))
    rng = np.random.default_rng(0)
    for t in range(120):
        action = rng.uniform(-1, 1, (N, 2)).astype(np.float32)
        step = ours.step(action)
        same(step, theirs.step(action))
        mask = step[3] | (np.arange(N) == t % 17)
        if mask.any():
            left, _ = ours.reset(options={"reset_mask": mask})
            right, _ = theirs.reset(options={"reset_mask": mask.copy()})
            assert np.array_equal(left, right)


def test_without_autoreset_a_copy_stays_truncated_and_moves_on():
    env = VectorMaze2D("umaze", 2, autoreset=False, max_episode_steps=3)
    env.reset(seed=0)
    ends = [env.step(np.ones((2, 2)))[3].tolist() for _ in range(5)]
    assert ends == [[False] * 2] * 2 + [[True] * 2] * 3


def test_bare_physics_are_the_physics():
    env, other = VectorMaze2D("large", N), VectorMaze2D("large", N)
    obs, _ = env.reset(seed=0)
    other.set_state(obs[:, :2], obs[:, 2:])
    rng = np.random.default_rng(0)
    for _ in range(200):
        action = rng.uniform(-2, 2, (N, 2))
        assert np.array_equal(env.step(action)[0], other.step_physics(action))


def test_a_state_set_is_the_whole_state():
    """What happened before leaves no trace, in contact with a wall either."""
    env, rng = VectorMaze2D("umaze", N), np.random.default_rng(0)
    env.reset(seed=0)
    actions = rng.uniform(-1, 1, (60, N, 2)).repeat(10, axis=0)
    start = np.tile([0.45, 1.0], (N, 1)), rng.uniform(-1, 1, (N, 2))
    runs = []
    for _ in range(2):
        env.set_state(*start)
        runs.append([env.step_physics(a) for a in actions])
    assert np.array_equal(*runs)


def test_options_hold_for_all_or_for_each():
    env = VectorMaze2D("large", 3, multi=True)
    goals = np.array([[1, 1], [3, 2], [7, 9]])
    obs, info = env.reset(seed=0, options={"start": (1.0, 2.0), "goal": goals, "velocity": (0, 0)})
    assert np.array_equal(obs, np.tile([1.0, 2.0, 0, 0], (3, 1)))
    assert np.array_equal(info["goal"], goals) and np.array_equal(env.goal, goals)
    info["goal"][:] = 0
    assert np.array_equal(env.step(np.zeros((3, 2)))[4]["goal"], goals)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda e: e.step(np.zeros(2)), "shape"),
        (lambda e: e.step(np.full((3, 2), np.nan)), "NaN"),
        (lambda e: e.reset(seed=[1, 2]), "2 seeds came for 3"),
        (lambda e: e.reset(options={"start": np.ones((2, 2))}), "2 finite numbers"),
        (lambda e: e.reset(options={"start": [(1, 1), (1, 2), (0, 0)]}), "inside a wall"),
        (lambda e: e.reset(options={"reset_mask": [1, 0, 1]}), "reset_mask"),
        (lambda e: e.set_state(np.ones((2, 2)), np.ones((3, 2))), "qpos"),
        (lambda e: e.set_state(np.ones((3, 2)), np.full((3, 2), np.nan)), "qvel"),
        (lambda e: VectorMaze2D("huge", 3), "umaze, medium, large"),
        (lambda e: VectorMaze2D("umaze", 0), "at least 1"),
        (lambda e: VectorMaze2D("umaze", 1, render_mode="human"), "rgb_array"),
    ],
)
def test_mistakes_are_told_in_a_sentence(call, sentence):
    env = VectorMaze2D("umaze", 3)
    env.reset(seed=0)
    with pytest.raises(DFPlannerError, match=sentence):
        call(env)


def test_frames_are_those_of_the_copies():
    env = VectorMaze2D("umaze", 3, render_mode="rgb_array")
    env.reset(seed=0)
    frames = env.render()
    assert frames is not None and len(frames) == 3
    assert not np.array_equal(frames[0], frames[1])
