"""Pictures: the walls are where the map has them, the ball where the ball is."""

import os

import gymnasium as gym
import numpy as np
import pytest

from dfplanner_envs.maze2d import Maze2DEnv
from dfplanner_envs.mazes import MAZES
from dfplanner_envs.render import BALL, WALL, paint, pixels


@pytest.mark.parametrize("name", MAZES)
def test_walls_and_ball_are_in_their_places(name):
    env = Maze2DEnv(name, render_mode="rgb_array")
    r, c = MAZES[name].free_cells[1]
    env.reset(seed=0, options={"start": (r - 0.2, c - 0.2)})
    frame = env.render()
    assert frame is not None and frame.dtype == np.uint8
    rows, columns = MAZES[name].walls.shape
    assert frame.shape == (rows * 48, columns * 48, 3)
    middles = frame[24::48, 24::48]
    assert np.array_equal((middles == WALL).all(-1), MAZES[name].walls)
    assert np.argwhere((middles == BALL).all(-1)).tolist() == [[r, c]]


def test_the_ball_moves_and_leaves_a_trace():
    env = Maze2DEnv("umaze", render_mode="rgb_array")
    env.reset(seed=0, options={"start": (1.0, 1.0)})
    before = env.render()
    for _ in range(60):
        env.step((0.0, 0.5))
    after = env.render()
    assert before is not None and after is not None
    changed = np.argwhere((before != after).any(-1))
    right, down = np.rint(pixels(env.data.qpos, 48)).astype(int)
    assert after[down, right].tolist() == list(BALL) != before[down, right].tolist()
    bare = paint(env.maze, env.data.qpos, env.goal)
    assert (bare != after).any() and changed[:, 1].max() >= right
    env.reset(seed=0, options={"start": (1.0, 1.0)})
    assert np.array_equal(env.render(), before)  # pyright: ignore[reportArgumentType]


def test_without_a_mode_nothing_is_drawn():
    env = Maze2DEnv("umaze")
    env.reset(seed=0)
    assert env.render() is None


@pytest.mark.skipif(bool(os.environ.get("DISPLAY")), reason="this machine has a display")
def test_human_without_a_display_is_a_sentence_and_no_crash():
    with pytest.warns(UserWarning, match="no window can be shown.*rgb_array"):
        env = gym.make("dfplanner/Maze2D-UMaze-v0", render_mode="human")
    env.reset(seed=0)
    env.step(np.zeros(2, np.float32))
    env.close()
