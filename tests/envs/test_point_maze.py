"""Gymnasium-Robotics' PointMaze is Maze2D in another frame: the oracle for the maps between them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dfplanner.types import DFPlannerError
from dfplanner_envs.mazes import MAZES, TITLES, Maze
from dfplanner_envs.point_maze import (
    SPREAD,
    collect_point_maze,
    from_maze2d,
    make_point_maze,
    point_maze_of,
    to_maze2d,
    turn_from_maze2d,
    turn_to_maze2d,
)
from dfplanner_envs.vector import VectorMaze2D

EACH = pytest.mark.parametrize("maze", MAZES.values(), ids=list(MAZES))


def made(maze: Maze) -> Any:
    pytest.importorskip("gymnasium_robotics", reason="needs gymnasium-robotics")
    return make_point_maze(f"PointMaze_{TITLES[maze.name]}-v3")


def turned(maze: Maze, obs: np.ndarray) -> np.ndarray:
    return np.concatenate([to_maze2d(maze, obs[..., :2]), turn_to_maze2d(obs[..., 2:])], -1)


@EACH
def test_the_maps_are_isometries_with_inverses(maze: Maze) -> None:
    rng = np.random.default_rng(0)
    p = rng.normal(size=(50, 2)) * 3
    np.testing.assert_allclose(from_maze2d(maze, to_maze2d(maze, p)), p, atol=1e-12)
    np.testing.assert_allclose(turn_from_maze2d(turn_to_maze2d(p)), p, atol=1e-12)
    np.testing.assert_allclose(turn_to_maze2d(p[1:] - p[:-1]), np.diff(to_maze2d(maze, p), axis=0), atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(turn_to_maze2d(p), axis=1), np.linalg.norm(p, axis=1), rtol=1e-12)


@EACH
def test_the_maps_and_cells_are_the_same(maze: Maze) -> None:
    theirs = made(maze).unwrapped.maze
    assert np.array_equal([[c == 1 for c in row] for row in theirs.maze_map], maze.walls)
    for cell in np.argwhere(~maze.walls):
        centre = to_maze2d(maze, theirs.cell_rowcol_to_xy(cell))
        np.testing.assert_allclose(centre, cell - 0.2, atol=1e-12)  # where our walls have the cell's middle


@EACH
def test_the_same_actions_lead_the_same_way(maze: Maze) -> None:
    """To rounding, for a dozen steps from rest in a cell's middle: too short to touch a wall, where margins differ."""
    env, ours = made(maze), VectorMaze2D(maze, 1)
    for seed in range(4):
        obs, _ = env.reset(seed=seed)
        start = turned(maze, obs["observation"])
        ours.set_state(start[None, :2], start[None, 2:])
        for action in np.random.default_rng(seed).uniform(-1, 1, (12, 2)).astype(np.float32):
            obs, *_ = env.step(action)
            there = ours.step_physics(turn_to_maze2d(action)[None])[0]
            np.testing.assert_allclose(turned(maze, obs["observation"]), there, atol=1e-9)


@EACH
def test_walls_stand_at_the_same_places(maze: Maze) -> None:
    """Pushed straight at a wall from each side, the ball rests where ours does, but for the walls' softness."""
    env, ours = made(maze), VectorMaze2D(maze, 1)
    for seed, push in enumerate([(1, 0), (-1, 0), (0, 1), (0, -1)]):
        action = np.array(push, np.float32)
        obs, _ = env.reset(seed=seed)
        start = turned(maze, obs["observation"])
        ours.set_state(start[None, :2], start[None, 2:])
        for _ in range(500):
            obs, *_ = env.step(action)
            there = ours.step_physics(turn_to_maze2d(action)[None])[0]
        np.testing.assert_allclose(turned(maze, obs["observation"])[:2], there[:2], atol=0.02)
        assert np.abs(there[2:]).max() < 0.05  # it stopped


@EACH
def test_data_begin_and_end_where_resets_and_goals_lie(maze: Maze) -> None:
    name = f"PointMaze_{TITLES[maze.name]}-v3"
    episodes = collect_point_maze(name, 3000, 0)
    starts, goals = episodes.observations[episodes.starts, :2], episodes.goals[episodes.starts]
    for at in (starts, goals):
        off = at + 0.2 - np.rint(at + 0.2)
        assert np.abs(off).max() <= SPREAD + 1e-6
        assert not maze.walls[tuple(np.rint(at + 0.2).astype(int).T)].any()


def test_ids_in_whatever_case_and_nothing_else() -> None:
    assert point_maze_of("pointmaze_umaze-V3") is MAZES["umaze"]
    for other in ("PointMaze_Open-v3", "PointMaze_UMaze-v2", "pointmaze-medium-navigate-v0", "maze2d-umaze"):
        assert point_maze_of(other) is None
        with pytest.raises(DFPlannerError, match="known are PointMaze_UMaze-v3"):
            make_point_maze(other)
