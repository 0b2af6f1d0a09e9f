"""Policies to compare with that need no training: random actions, and the controller that made the data."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dfplanner_envs.controller import WaypointController
from dfplanner_envs.mazes import maze_of


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
        """(N, 2) for observations (N, 4), whatever these are."""
        return self._rng.uniform(-1.0, 1.0, (len(obs), 2))


class DataController:
    """The waypoint controller that made D4RL's data: the path over cells is planned once, when an episode
    begins.

    It is given the map, which no learned policy sees.
    """

    nfe_per_plan = 0.0
    planned = False

    def __init__(self, env_id: str) -> None:
        self.maze, _ = maze_of(env_id)
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
