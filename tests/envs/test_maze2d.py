"""The single environment: Gymnasium's checks, the task's laws, errors as sentences."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

import dfplanner_envs  # noqa: F401  (registers the environments)
from dfplanner.types import DFPlannerError
from dfplanner_envs.maze2d import Maze2DEnv
from dfplanner_envs.mazes import MAZES

HORIZON = {"UMaze": 300, "Medium": 600, "Large": 800}
IDS = [f"dfplanner/{task}-{maze}-v0" for task in ("Maze2D", "Multi2D") for maze in HORIZON]


@pytest.mark.parametrize("env_id", IDS)
def test_gymnasiums_checker_finds_nothing(env_id):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*no window can be shown")  # on a machine without a display
        check_env(gym.make(env_id, render_mode="rgb_array").unwrapped)


@pytest.mark.parametrize("env_id", IDS)
def test_an_episode_is_truncated_never_terminated(env_id):
    env = gym.make(env_id)
    env.reset(seed=0)
    env.action_space.seed(0)
    ends = [env.step(env.action_space.sample())[2:4] for _ in range(HORIZON[env_id.split("-")[1]])]
    assert [t for t, _ in ends] == [False] * len(ends)
    assert [t for _, t in ends] == [False] * (len(ends) - 1) + [True]


@given(st.sampled_from(list(MAZES)), st.booleans(), st.integers(0, 2**31), st.integers(1, 60))
@settings(max_examples=25, deadline=None)
def test_laws_of_a_step(name, multi, seed, hold):
    """The reward is for the position after the step; the goal stands still; the ball stays out of walls."""
    env = Maze2DEnv(name, multi=multi)
    rng = np.random.default_rng(seed)
    obs, info = env.reset(seed=seed)
    goal = info["goal"]
    assert np.array_equal(env.goal, goal)
    for t in range(300):
        if t % hold == 0:
            action = rng.uniform(-2, 2, 2)
        obs, rew, _, _, info = env.step(action)
        assert obs in env.observation_space and np.array_equal(info["goal"], goal)
        assert rew == float(np.hypot(*(obs[:2] - goal)) <= 0.5)
        r, c = np.rint(obs[:2] + 0.2).astype(int)
        assert not env.maze.walls[r, c]


@given(st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_actions_and_velocities_are_clipped(seed):
    rng = np.random.default_rng(seed)
    env, other = Maze2DEnv("large"), Maze2DEnv("large")
    velocity, action = rng.uniform(-8, 8, 2), rng.uniform(-9, 9, 2)
    env.reset(seed=seed, options={"velocity": velocity})
    other.reset(seed=seed, options={"velocity": np.clip(velocity, -5, 5)})
    assert np.array_equal(env.step(action)[0], other.step(np.clip(action, -1, 1))[0])


def test_a_seed_means_the_same_episode_with_and_without_options():
    env = Maze2DEnv("large", multi=True)
    obs, info = env.reset(seed=7)
    again, same = env.reset(seed=7, options={"start": (1.0, 1.0)})
    assert again[:2].tolist() == [1.0, 1.0] and np.array_equal(again[2:], obs[2:])
    assert np.array_equal(same["goal"], info["goal"])
    fixed, given_goal = env.reset(seed=7, options={"goal": (3, 1), "velocity": (0.5, 0)})
    assert np.array_equal(fixed, [*obs[:2], 0.5, 0]) and given_goal["goal"].tolist() == [3, 1]
    assert not np.array_equal(env.reset()[0], fixed)


def test_the_goal_handed_out_is_a_copy():
    env = Maze2DEnv("umaze")
    _, info = env.reset(seed=0)
    info["goal"][:] = 99
    assert env.goal.tolist() == [1, 1] and env.step((0, 0))[4]["goal"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"start": (0.0, 0.0)}, "inside a wall"),
        ({"goal": (2.0, 1.0)}, "inside a wall"),
        ({"goal": (50.0, 1.0)}, "inside a wall"),
        ({"start": (np.nan, 1.0)}, "finite"),
        ({"goal": (1.0, np.inf)}, "finite"),
        ({"start": 1.0}, "2 finite numbers"),
        ({"start": (1.0, 1.0, 1.0)}, "2 finite numbers"),
        ({"goal": "there"}, "2 finite numbers"),
        ({"velocity": (99.0, 0.0)}, "velocity is at most"),
        ({"gaol": (1.0, 1.0)}, "known ones are start, goal, velocity"),
    ],
)
def test_bad_options_are_told_in_a_sentence(options, sentence):
    with pytest.raises(DFPlannerError, match=sentence):
        Maze2DEnv("umaze").reset(seed=0, options=options)


@pytest.mark.parametrize(
    ("action", "sentence"),
    [
        ((np.nan, 0.0), "NaN"),
        ((0.0,), "shape"),
        (0.5, "shape"),
        (np.zeros((1, 2)), "shape"),
        (("left", "right"), "numbers"),
        (None, "shape|NaN"),
    ],
)
def test_bad_actions_are_told_in_a_sentence(action, sentence):
    env = Maze2DEnv("umaze")
    env.reset(seed=0)
    with pytest.raises(DFPlannerError, match=sentence):
        env.step(action)


def test_unknown_mazes_and_render_modes_list_the_known_ones():
    with pytest.raises(DFPlannerError, match="umaze, medium, large"):
        Maze2DEnv("giant")
    with pytest.raises(DFPlannerError, match="rgb_array"):
        Maze2DEnv("umaze", render_mode="ascii")


def test_what_the_bare_environment_offers():
    env = gym.make("dfplanner/Multi2D-Large-v0")
    _, info = env.reset(seed=0)
    bare = env.unwrapped
    assert isinstance(bare, Maze2DEnv) and np.array_equal(bare.goal, info["goal"])
    assert bare.get_normalized_score(273.99) == pytest.approx(100)
