"""Policies to compare with that need no training: random actions, and the controllers that made the data."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfplanner_envs.controller import WaypointController
from dfplanner_envs.mazes import Maze, maze_of
from dfplanner_envs.ogbench_maze import next_cells


class RandomPolicy:
    """Actions uniform in [-1, 1]: the row that says what a score is worth."""

    nfe_per_plan = 0.0
    planned = False

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)

    def reset(self, obs: NDArray, goal: NDArray, rng: np.random.Generator) -> None:
        """Begin N episodes; actions come from ``rng``."""
        self._rng = rng

    def act(self, obs: NDArray, goal: NDArray) -> NDArray:
        """(N, 2) for N observations, whatever these are."""
        return self._rng.uniform(-1.0, 1.0, (len(obs), 2))


class DataController:
    """The waypoint controller that made D4RL's data: the path over cells is planned once, when an episode
    begins.

    It is given the map, which no learned policy sees.
    """

    nfe_per_plan = 0.0
    planned = False

    def __init__(self, env: str | Maze) -> None:
        self.maze = env if isinstance(env, Maze) else maze_of(env)[0]
        self._controller: WaypointController | None = None

    def reset(self, obs: NDArray, goal: NDArray, rng: np.random.Generator) -> None:
        """Plan paths from observations (N, 4) to goals (N, 2); ``rng`` displaces the waypoints."""
        self._controller = WaypointController(self.maze, len(obs), rng)
        self._controller.set_goals(np.arange(len(obs)), obs[:, :2], goal)

    def act(self, obs: NDArray, goal: NDArray) -> NDArray:
        """(N, 2) for observations (N, 4)."""
        if self._controller is None:
            raise RuntimeError("reset comes before act")
        return self._controller.act(obs)


class CellWalker:
    """What made OGBench's data, without its noise: at full speed to the next cell of the shortest path.

    In the goal's own cell it goes to the goal itself: a goal may lie out of reach of its cell's middle, and the data's
    walker finds it by its noise. ``env`` is OGBench's, unwrapped; its map is read.
    """

    nfe_per_plan = 0.0
    planned = False

    def __init__(self, env: Any) -> None:
        self._walls, self._unit = env.maze_map == 1, float(env._maze_unit)
        self._corner = np.array([env._offset_y, env._offset_x], float)
        self._routes: NDArray[np.int64] = np.zeros((0, *self._walls.shape, 2), np.int64)

    def _cells(self, xy: NDArray) -> NDArray[np.int64]:
        """The cells (N, 2) that positions (N, 2) are in."""
        return np.floor((xy[:, ::-1] + self._corner) / self._unit + 0.5).astype(int)

    def reset(self, obs: NDArray, goal: NDArray, rng: np.random.Generator) -> None:
        """Shortest paths to goals (N, 2); nothing is random."""
        del obs, rng
        ways = {cell: next_cells(self._walls, cell) for cell in map(tuple, self._cells(goal).tolist())}
        self._routes = np.stack([ways[cell] for cell in map(tuple, self._cells(goal).tolist())])

    def act(self, obs: NDArray, goal: NDArray) -> NDArray:
        """(N, 2) for observations (N, 2) and goals (N, 2)."""
        here, there = self._cells(obs), self._cells(goal)
        ahead = self._routes[np.arange(len(obs)), here[:, 0], here[:, 1]] * self._unit - self._corner
        aim = np.where((here == there).all(1, keepdims=True), goal, ahead[:, ::-1]) - obs
        return aim / np.maximum(np.linalg.norm(aim, axis=1, keepdims=True), 1e-6)
