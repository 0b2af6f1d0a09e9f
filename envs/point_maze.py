"""Gymnasium-Robotics' PointMaze: D4RL's mazes turned and centred, another goal radius, other resets.

It is another task than Maze2D, on the same map and with the same ball: its frame is an isometry of Maze2D's, x_D4RL =
(rows/2 - 0.7) - y and y_D4RL = x + (columns/2 - 0.7). So models for it live in Maze2D's frame, and this maps between.
Importing this needs no gymnasium-robotics; making an environment does (`pip install "dfplanner[robotics]"`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfplanner.data.episodes import Episodes
from dfplanner.types import DFPlannerError
from dfplanner_envs.mazes import CELL_OFFSET, MAZES, TITLES, Maze

SPREAD = 0.25
"""Metres on each axis by which starts and goals lie off their cell's middle, at most."""


def point_maze_of(env_id: str) -> Maze | None:
    """The maze that an id such as ``PointMaze_UMaze-v3`` names; None: no such id."""
    match = re.fullmatch(rf"pointmaze_({'|'.join(MAZES)})-v3", env_id.strip().lower())
    return MAZES[match[1]] if match else None


def make_point_maze(env_id: str, **kwargs: Any) -> Any:
    """Gymnasium-Robotics' environment; raises DFPlannerError on another id, or where the package is absent."""
    maze = point_maze_of(env_id)
    if maze is None:
        known = ", ".join(f"PointMaze_{title}-v3" for title in TITLES.values())
        raise DFPlannerError(f"PointMaze has no {env_id!r}; known are {known}")
    try:
        import gymnasium_robotics  # noqa: F401 (registers the environments)
    except ImportError as e:
        raise DFPlannerError(
            f'{env_id} needs gymnasium-robotics ({e}); install it: pip install "dfplanner[robotics]"'
        ) from e
    import gymnasium

    return gymnasium.make(f"PointMaze_{TITLES[maze.name]}-v3", **kwargs)


def to_maze2d(maze: Maze, xy: ArrayLike) -> NDArray[np.float64]:
    """Positions (..., 2) of PointMaze in Maze2D's frame."""
    p = np.asarray(xy, np.float64)
    rows, columns = maze.walls.shape
    return np.stack([(rows - 1) / 2 - CELL_OFFSET - p[..., 1], p[..., 0] + (columns - 1) / 2 - CELL_OFFSET], -1)


def from_maze2d(maze: Maze, xy: ArrayLike) -> NDArray[np.float64]:
    """The inverse of ``to_maze2d``."""
    p = np.asarray(xy, np.float64)
    rows, columns = maze.walls.shape
    return np.stack([p[..., 1] - (columns - 1) / 2 + CELL_OFFSET, (rows - 1) / 2 - CELL_OFFSET - p[..., 0]], -1)


def turn_to_maze2d(v: ArrayLike) -> NDArray[np.float64]:
    """Velocities or actions (..., 2) of PointMaze in Maze2D's frame."""
    w = np.asarray(v, np.float64)
    return np.stack([-w[..., 1], w[..., 0]], -1)


def turn_from_maze2d(v: ArrayLike) -> NDArray[np.float64]:
    """The inverse of ``turn_to_maze2d``."""
    w = np.asarray(v, np.float64)
    return np.stack([w[..., 1], -w[..., 0]], -1)


def collect_point_maze(
    env_id: str, steps: int, seed: int, stay: bool = True, progress: Callable[[int], Any] | None = None
) -> Episodes:
    """The waypoint controller's data on PointMaze's starts and goals, in Maze2D's frame (see ``collect``)."""
    from dfplanner_envs.collect import collect

    maze = point_maze_of(env_id)
    if maze is None:
        raise DFPlannerError(f"PointMaze has no {env_id!r}")
    return collect(maze, steps, seed, stay=stay, spread=SPREAD, progress=progress)
