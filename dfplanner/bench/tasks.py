"""What policies are benchmarked on: a task by its id, whichever family it is of.

A task speaks in the frame and units that its models were trained in.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfplanner.bench.baselines import DataController
from dfplanner.bench.stats import mean_interval
from dfplanner.types import DFPlannerError, Plan
from dfplanner_envs.mazes import GOAL_RADIUS, maze_of, normalized_score
from dfplanner_envs.ogbench_maze import ogbench_size
from dfplanner_envs.point_maze import point_maze_of
from dfplanner_envs.vector import VectorMaze2D
from dfplanner_envs.wrappers import known_ids

if TYPE_CHECKING:
    from dfplanner.bench.rollout import RolloutPolicy, RolloutResult


class Lanes(Protocol):
    """N episodes side by side."""

    def reset(self, seeds: Sequence[int]) -> tuple[NDArray, NDArray]:
        """Begin one for each of the N seeds, on which alone it depends: observations (N, obs_dim), goals (N, 2)."""
        ...

    def step(self, actions: NDArray) -> tuple[NDArray, NDArray, NDArray[np.bool_]]:
        """Observations, rewards (N,), and whether each has ended (N,), after actions (N, 2), clipped to [-1, 1].

        An episode that has ended rests where it is, for no reward.
        """
        ...


class Task(ABC):
    """A task as the benchmark sees it: how it is run, what counts, how it is drawn."""

    name: str
    """``maze2d-large``, ``PointMaze_UMaze-v3``, ``pointmaze-giant-navigate-v0``..., however the id was spelt."""
    weights: str
    """The checkpoint trained for it; variants have a suffix."""
    horizon: int
    """Environment steps of an episode, at most."""
    obs_dim: ClassVar[int] = 4
    goal_radius: ClassVar[float] = GOAL_RADIUS
    """The goal's reach, in cells."""
    controller_note: ClassVar[str] = "what made the data: waypoints and PD on the true map"

    @property
    @abstractmethod
    def rows(self) -> Sequence[str]:
        """The map; ``#`` is a wall."""

    @abstractmethod
    def lanes(self, n: int) -> Lanes:
        """n environments; raises DFPlannerError where their package is absent."""

    @abstractmethod
    def controller(self) -> RolloutPolicy:
        """What made the data."""

    @abstractmethod
    def score(self, result: RolloutResult) -> NDArray[np.float64]:
        """(N,) the number that sums an episode up, higher is better; validation maximises its mean."""

    @abstractmethod
    def estimates(self, result: RolloutResult) -> dict[str, Any]:
        """What is told of a run beyond its success rate and the steps to the goal, JSON-ready."""

    @abstractmethod
    def headline(self, run: dict[str, Any]) -> str:
        """The run in two words."""

    def drawn(self, points: ArrayLike) -> NDArray[np.float64]:
        """Points (..., 2+) where pictures have them, the middle of cell (r, c) being at (r, c) - 0.2 as in D4RL."""
        return np.asarray(points, np.float64)


class Maze2DTask(Task):
    """D4RL's Maze2D and Diffuser's Multi2D, to the digit."""

    def __init__(self, env_id: str) -> None:
        self.maze, self.multi = maze_of(env_id)
        self.name = f"{'multi2d' if self.multi else 'maze2d'}-{self.maze.name}"
        self.weights = f"maze2d-{self.maze.name}"
        self.horizon = self.maze.horizon

    @property
    def rows(self) -> Sequence[str]:
        return self.maze.rows

    def lanes(self, n: int) -> Lanes:
        return _Maze2DLanes(VectorMaze2D(self.maze, n, multi=self.multi, autoreset=False))

    def controller(self) -> RolloutPolicy:
        return DataController(self.maze)

    def score(self, result: RolloutResult) -> NDArray[np.float64]:
        return np.asarray(normalized_score(self.maze, result.returns))

    def estimates(self, result: RolloutResult) -> dict[str, Any]:
        floor, ceiling = (float(normalized_score(self.maze, r)) for r in (0, self.horizon))
        latched = normalized_score(self.maze, result.latched)
        return {
            "raw_return": mean_interval(result.returns, 0, self.horizon).to_dict(),
            "normalized_score": mean_interval(self.score(result), floor, ceiling).to_dict(),
            "latched_score": mean_interval(latched, floor, ceiling).to_dict(),
        }

    def headline(self, run: dict[str, Any]) -> str:
        return f"score {run['normalized_score']['mean']:.1f}"


class _Maze2DLanes:
    """Our own vector environment as Lanes."""

    def __init__(self, env: VectorMaze2D) -> None:
        self._env = env

    def reset(self, seeds: Sequence[int]) -> tuple[NDArray, NDArray]:
        obs, info = self._env.reset(seed=list(seeds))
        return obs, info["goal"]

    def step(self, actions: NDArray) -> tuple[NDArray, NDArray, NDArray[np.bool_]]:
        obs, rewards, _, truncated, _ = self._env.step(actions)
        return obs, rewards, truncated


def drawn_plan(task: Task, plan: Plan) -> Plan:
    """The plan with its states, and those of its trace, where pictures have them."""
    trace = tuple((np.asarray(task.drawn(states), np.float32), levels) for states, levels in plan.trace)
    return replace(plan, states=np.asarray(task.drawn(plan.states), np.float32), trace=trace)


def task_of(env_id: str) -> Task:
    """The task of an id, in whatever case; raises DFPlannerError that lists the known ones."""
    from dfplanner.bench.foreign import OGBenchTask, PointMazeTask

    if ogbench_size(env_id):
        return OGBenchTask(env_id)
    if point_maze_of(env_id):
        return PointMazeTask(env_id)
    try:
        return Maze2DTask(env_id)
    except DFPlannerError as e:
        raise DFPlannerError(f"no environment is called {env_id!r}; known ones are {', '.join(known_ids())}") from e
