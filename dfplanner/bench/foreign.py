"""Tasks of other packages: Gymnasium-Robotics' PointMaze and OGBench's pointmaze, one environment an episode."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfplanner.bench.baselines import CellWalker, DataController
from dfplanner.bench.stats import mean_interval, wilson
from dfplanner.bench.tasks import Lanes, Task
from dfplanner.types import DFPlannerError
from dfplanner_envs.adapters import adapter_for
from dfplanner_envs.maze2d import checked_action
from dfplanner_envs.mazes import CELL_OFFSET, TITLES
from dfplanner_envs.ogbench_maze import TASKS, make_ogbench, ogbench_size
from dfplanner_envs.point_maze import point_maze_of
from dfplanner_envs.wrappers import make

if TYPE_CHECKING:
    from dfplanner.bench.rollout import RolloutPolicy, RolloutResult


class GymTask(Task):
    """A task of single Gymnasium environments; an adapter stands between their frame and the models'."""

    def lanes(self, n: int) -> Lanes:
        return _GymLanes(self, n)

    def options(self, seed: int) -> dict[str, Any] | None:
        """What the reset of a seed's episode is told."""
        return None


class _GymLanes:
    """n single environments; one that has ended is stepped no further."""

    def __init__(self, task: GymTask, n: int) -> None:
        self._task, self._adapter = task, adapter_for(task.name)
        self._envs = [make(task.name, disable_env_checker=True) for _ in range(n)]

    def reset(self, seeds: Sequence[int]) -> tuple[NDArray, NDArray]:
        raw = [
            env.reset(seed=int(seed), options=self._task.options(int(seed)))[0]
            for env, seed in zip(self._envs, seeds, strict=True)
        ]
        self._ended = np.zeros(len(raw), bool)
        self._obs = np.array([self._adapter.observation(r) for r in raw], np.float64)
        return self._obs.copy(), np.array([self._adapter.goal(r, None) for r in raw], np.float64)

    def step(self, actions: NDArray) -> tuple[NDArray, NDArray, NDArray[np.bool_]]:
        wanted = self._adapter.action(checked_action(actions, (len(self._envs), 2)).astype(np.float32))
        rewards = np.zeros(len(self._envs))
        for i in np.flatnonzero(~self._ended):
            raw, reward, terminated, truncated, _ = self._envs[i].step(wanted[i])
            self._obs[i], self._ended[i] = self._adapter.observation(raw), terminated or truncated
            rewards[i] = float(reward)
        return self._obs.copy(), rewards, self._ended.copy()


class PointMazeTask(GymTask):
    """Gymnasium-Robotics' PointMaze, in Maze2D's frame: starts and goals at random, a reward a step within 0.45 m.

    An episode goes on when the goal is reached (``continuing_task``, the task's default).
    """

    goal_radius: ClassVar[float] = 0.45

    def __init__(self, env_id: str) -> None:
        maze = point_maze_of(env_id)
        if maze is None:
            raise DFPlannerError(f"PointMaze has no {env_id!r}")
        self.maze, self.horizon = maze, maze.horizon
        self.name = self.weights = f"PointMaze_{TITLES[maze.name]}-v3"

    @property
    def rows(self) -> Sequence[str]:
        return self.maze.rows

    def controller(self) -> RolloutPolicy:
        return DataController(self.maze)

    def score(self, result: RolloutResult) -> NDArray[np.float64]:
        return result.returns

    def estimates(self, result: RolloutResult) -> dict[str, Any]:
        return {"raw_return": mean_interval(result.returns, 0, self.horizon).to_dict()}

    def headline(self, run: dict[str, Any]) -> str:
        return f"return {run['raw_return']['mean']:.0f}"


class OGBenchTask(GymTask):
    """OGBench's pointmaze: its five tasks take turns (a seed has task seed mod 5 + 1), start and goal as it draws them.

    An episode ends at the goal, or after 1000 steps; what counts is whether it got there.
    """

    obs_dim: ClassVar[int] = 2
    goal_radius: ClassVar[float] = 0.25  # 1.0 where a cell is 4 wide
    controller_note: ClassVar[str] = "what made the data, without its noise; in the goal's cell to the goal itself"

    def __init__(self, env_id: str) -> None:
        size = ogbench_size(env_id)
        if size is None:
            raise DFPlannerError(f"OGBench's pointmaze has no {env_id!r}")
        self.name = self.weights = f"pointmaze-{size}-navigate-v0"
        self.horizon = 1000

    @cached_property
    def _env(self) -> Any:
        return make_ogbench(self.name).unwrapped

    @property
    def rows(self) -> Sequence[str]:
        return ["".join("#" if wall else "O" for wall in row) for row in self._env.maze_map]

    def options(self, seed: int) -> dict[str, Any]:
        return {"task_id": task_id(seed)}

    def controller(self) -> RolloutPolicy:
        return CellWalker(self._env)

    def score(self, result: RolloutResult) -> NDArray[np.float64]:
        return np.where(result.success, 100.0, 0.0)

    def estimates(self, result: RolloutResult) -> dict[str, Any]:
        tasks = np.array([task_id(seed) for seed in result.seeds])
        own = {t: result.success[tasks == t] for t in range(1, TASKS + 1)}
        return {"tasks": {f"task{t}": wilson(int(ok.sum()), len(ok)).to_dict() for t, ok in own.items()}}

    def headline(self, run: dict[str, Any]) -> str:
        return f"success {100 * run['success_rate']['mean']:.0f} %"

    def drawn(self, points: ArrayLike) -> NDArray[np.float64]:
        xy = np.asarray(points, np.float64)[..., :2] + (self._env._offset_x, self._env._offset_y)
        return xy[..., ::-1] / self._env._maze_unit - CELL_OFFSET


def task_id(seed: int) -> int:
    """Which of OGBench's five tasks an episode is; consecutive seeds take turns."""
    return seed % TASKS + 1
