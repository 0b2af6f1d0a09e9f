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
from dfplanner_envs.wrappers import is_arm


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


class ArmAdapter(UnitActions):
    """ArmReach: a place of the hand becomes the posture that answers it, which is what its models are told."""

    def __init__(self) -> None:
        from dfplanner_envs.arm.task import reach_task

        self._task = reach_task()
        self._known: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None

    def goal(self, raw: Any, given: ArrayLike | None) -> ArrayLike | None:
        """(..., 7) rad for places (..., 3) in metres; a posture (..., 7) is left as it is."""
        goal = super().goal(raw, given)
        places = None if goal is None else np.asarray(goal, np.float64)
        if places is None or places.ndim not in (1, 2) or places.shape[-1] != 3 or not np.isfinite(places).all():
            return goal
        if self._known is None or not np.array_equal(self._known[0], places):  # it takes longer than a plan
            self._known = places, self._task.posture(np.atleast_2d(places))[0].reshape(*places.shape[:-1], -1)
        return self._known[1]


def adapter_for(env_id: str) -> PlainAdapter:
    """The adapter of an environment by its id; raises DFPlannerError on an unknown one."""
    if is_arm(env_id):
        return ArmAdapter()
    if maze := point_maze_of(env_id):
        return PointMazeAdapter(maze)
    if ogbench_size(env_id) is None:
        maze_of(env_id)  # raises if there is no such one
    return UnitActions()
