"""D4RL's waypoint controller, over many lanes: it made the data, and is the baseline `data-controller`.

Source: the recipe of Fu et al. 2020, "D4RL", for Maze2D (plan over cells, displaced waypoints, a PD law).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfplanner.types import DFPlannerError
from dfplanner_envs.mazes import CELL_OFFSET, Maze, shortest_path

Floats = NDArray[np.float64]

P_GAIN, D_GAIN = 10.0, 1.0
REACH = 0.1
"""Metres within which a waypoint, or the goal, counts as reached."""
SHIFT = 0.2
"""Waypoints are their cell minus U(0, SHIFT) on each axis."""


@lru_cache(maxsize=32)
def _paths(maze: Maze) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Free cells (F, 2); for all pairs the cells after the start (F, F, L, 2), padded; their number."""
    cells = maze.free_cells
    routes = [[shortest_path(maze, a, b)[1:] or [b] for b in cells] for a in cells]
    count = np.array([[len(route) for route in row] for row in routes])
    longest = int(count.max())
    padded = [[route + [route[-1]] * (longest - len(route)) for route in row] for row in routes]
    return np.array(cells, float), np.array(padded, float), count


class WaypointController:
    """Drives n balls through ``maze``, each to its goal: the shortest path over cells, and a clipped PD law.

    n: lanes; rng: displaces the waypoints. Every lane needs a goal (``set_goals``) before ``act``.
    """

    def __init__(self, maze: Maze, n: int, rng: np.random.Generator):
        self.n, self.rng = n, rng
        self.cells, self._route, self._count = _paths(maze)
        self.goals: Floats = np.full((n, 2), np.nan)
        self.arrived: NDArray[np.bool_] = np.zeros(n, bool)
        """(n,) whether the lane was within 0.1 m of its goal at some ``act`` since the goal was set."""
        self._points: Floats = np.zeros((n, self._route.shape[2], 2))
        self._last = np.zeros(n, np.int64)
        self._at = np.zeros(n, np.int64)

    def _cell(self, position: Floats) -> NDArray[np.int64]:
        """Index (k,) of the free cell that each position (k, 2) is in, or of the nearest one."""
        gap = np.abs(position[:, None] + CELL_OFFSET - self.cells).max(-1)
        return gap.argmin(1)

    def set_goals(self, lanes: ArrayLike, position: ArrayLike, goals: ArrayLike) -> None:
        """Plans for ``lanes`` (a mask (n,) or k indices) from ``position`` (k, 2) to ``goals`` (k, 2).

        Raises DFPlannerError when the shapes disagree or a number is not finite.
        """
        index = np.arange(self.n)[np.asarray(lanes)]
        here, there = np.asarray(position, float), np.asarray(goals, float)
        if here.shape != (len(index), 2) or there.shape != (len(index), 2):
            raise DFPlannerError(
                f"positions {here.shape} and goals {there.shape} for {len(index)} lanes; give (x, y) each"
            )
        if not (np.isfinite(here).all() and np.isfinite(there).all()):
            raise DFPlannerError("a position or goal is not finite; give (x, y) in metres")
        start, end = self._cell(here), self._cell(there)
        points = self._route[start, end] - self.rng.uniform(0, SHIFT, (len(index), *self._points.shape[1:]))
        last = self._count[start, end] - 1
        beyond = np.arange(points.shape[1]) >= last[:, None]
        self._points[index] = np.where(beyond[..., None], there[:, None], points)
        self.goals[index], self._last[index] = there, last
        self._at[index], self.arrived[index] = 0, False

    def act(self, obs: ArrayLike) -> Floats:
        """Actions (n, 2) in [-1, 1] for observations (n, 4) in m and m/s; moves on to the next waypoints.

        Raises DFPlannerError for another shape, or when a lane has no goal yet.
        """
        state = np.asarray(obs, float)
        if state.shape != (self.n, 4):
            raise DFPlannerError(f"observations of shape {state.shape} came for {self.n} lanes; give ({self.n}, 4)")
        if np.isnan(self.goals).any():
            raise DFPlannerError("a lane has no goal; call set_goals for every lane before act")
        position, velocity = state[:, :2], state[:, 2:]
        # Latched: the ball may overshoot out of reach again, and then the goal is still what it is to hold.
        self.arrived |= np.linalg.norm(position - self.goals, axis=1) < REACH
        target = np.where(self.arrived[:, None], self.goals, self._points[np.arange(self.n), self._at])
        near = np.linalg.norm(position - target, axis=1) < REACH
        self._at = np.minimum(self._at + near, self._last)
        return np.clip(P_GAIN * (target - position) - D_GAIN * velocity, -1, 1)
