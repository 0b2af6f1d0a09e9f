"""From an environment's observations, goals and actions to its model's, and back: for ``dfplanner.policy.DFPolicy``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfplanner.policy import PlainAdapter
from dfplanner_envs.mazes import Maze, maze_of
from dfplanner_envs.ogbench_maze import ogbench_size
from dfplanner_envs.point_maze import point_maze_of, to_maze2d, turn_from_maze2d, turn_to_maze2d


class UnitActions(PlainAdapter):
    """Maze2D and OGBench's pointmaze: the model's frame is their own. OGBench steps as far as it is told: so clip."""

    def action(self, planned: NDArray[np.float32]) -> NDArray[np.float32]:
        """Clipped to [-1, 1], as the data's were."""
        return np.clip(planned, -1.0, 1.0)


@dataclass(frozen=True)
class PointMazeAdapter(UnitActions):
    """PointMaze: the same ball in a frame turned by a quarter and centred; models live in Maze2D's."""

    maze: Maze

    def observation(self, raw: Any) -> NDArray[np.float64]:
        """(..., 4) position in metres and velocity in Maze2D's frame."""
        seen = np.asarray(super().observation(raw), np.float64)
        return np.concatenate([to_maze2d(self.maze, seen[..., :2]), turn_to_maze2d(seen[..., 2:])], -1)

    def goal(self, raw: Any, given: ArrayLike | None) -> ArrayLike | None:
        """(..., 2) metres in Maze2D's frame."""
        goal = super().goal(raw, given)
        return None if goal is None else to_maze2d(self.maze, goal)

    def action(self, planned: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turned back; a square is clipped the same after a quarter turn."""
        return turn_from_maze2d(super().action(planned)).astype(np.float32)


def adapter_for(env_id: str) -> PlainAdapter:
    """The adapter of an environment by its id; raises DFPlannerError on an unknown one."""
    if maze := point_maze_of(env_id):
        return PointMazeAdapter(maze)
    if ogbench_size(env_id) is None:
        maze_of(env_id)  # raises if there is no such one
    return UnitActions()
