"""Environments made ready for a goal-conditioned policy, whichever family they are of: ``make`` and its wrappers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import ArrayLike, NDArray

from dfplanner.types import DFPlannerError
from dfplanner_envs.mazes import MAZES, TITLES, maze_of

GoalDict = dict[str, NDArray[Any]]


ARM, ARM_ID = "arm-reach", "dfplanner/ArmReach-v0"


def is_arm(env_id: str) -> bool:
    """Whether the id is the arm's, as its checkpoint has it or as Gymnasium does."""
    return env_id.lower() in (ARM, ARM_ID.lower())


class GoalObservation(gym.Wrapper, RecordConstructorArgs):
    """``info["goal"]`` in the observation: a Dict of observation, achieved_goal and desired_goal.

    ``pos``: which numbers of the observation are what a goal is a value for. The goal of a reset holds until an info
    has another.
    """

    def __init__(self, env: gym.Env, pos: Sequence[int] = (0, 1)) -> None:
        RecordConstructorArgs.__init__(self, pos=pos)
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, Box) or len(space.shape) != 1:
            raise DFPlannerError(f"a goal is put beside an observation that is a flat Box, but {space} came")
        self._pos = list(pos)
        place = Box(space.low[self._pos], space.high[self._pos], dtype=space.dtype.type)  # pyright: ignore
        self.observation_space = Dict({"observation": space, "achieved_goal": place, "desired_goal": place})
        self._goal = np.zeros(len(self._pos), space.dtype)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[GoalDict, dict[str, Any]]:
        """As the environment's; raises DFPlannerError if its info names no goal."""
        obs, info = self.env.reset(seed=seed, options=options)
        if "goal" not in info:
            raise DFPlannerError(f"the environment's info holds {', '.join(info) or 'nothing'}, but no goal")
        return self._with_goal(obs, info), info

    def step(self, action: Any) -> tuple[GoalDict, SupportsFloat, bool, bool, dict[str, Any]]:
        """As the environment's."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self._with_goal(obs, info), reward, terminated, truncated, info

    def _with_goal(self, obs: NDArray[Any], info: dict[str, Any]) -> GoalDict:
        goal = np.array(info.get("goal", self._goal), obs.dtype)
        if goal.shape != self._goal.shape:
            raise DFPlannerError(
                f"the goal in info has the shape {goal.shape}; expected {self._goal.shape}, a value for {self._pos}"
            )
        self._goal = goal
        return {"observation": obs, "achieved_goal": obs[self._pos], "desired_goal": goal.copy()}


class ActionNoise(gym.Wrapper, RecordConstructorArgs):
    """Gaussian noise of standard deviation ``std`` on every action, clipped to the action space.

    Its stream is split from the environment's ``np_random`` at every reset: the seed fixes it, and resets draw what
    they draw without it.
    """

    def __init__(self, env: gym.Env, std: float) -> None:
        RecordConstructorArgs.__init__(self, std=std)
        super().__init__(env)
        if not std >= 0 or not isinstance(env.action_space, Box):
            raise DFPlannerError(f"action noise is a number >= 0 on a Box, but {std} came for {env.action_space}")
        self._space, self._std = env.action_space, std
        self._rng = np.random.default_rng(0)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As the environment's."""
        out = self.env.reset(seed=seed, options=options)
        self._rng = self.unwrapped.np_random.spawn(1)[0]
        return out

    def step(self, action: ArrayLike) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """As the environment's, with the noisy action."""
        noisy = np.asarray(action, np.float64) + self._std * self._rng.standard_normal(self._space.shape)
        return self.env.step(np.clip(noisy, self._space.low, self._space.high).astype(self._space.dtype))


class OGBenchResets(gym.Wrapper, RecordConstructorArgs):
    """OGBench's resets made a function of their seed, though they draw from NumPy's global state, which is left alone.

    Options are OGBench's (``task_id`` 1 to 5), and ``resample``: start and goal in free cells drawn anew. Not for
    several threads at once: for the time of a reset the global state is ours.
    """

    def __init__(self, env: gym.Env) -> None:
        RecordConstructorArgs.__init__(self)
        super().__init__(env)
        self._random = np.random.RandomState(np.random.MT19937())

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As OGBench's; without a seed the stream goes on. Raises DFPlannerError on a task that it has not."""
        if seed is not None:
            self._random = np.random.RandomState(np.random.MT19937(seed))
            self.env.action_space.seed(seed)
        options, env = dict(options or {}), self.unwrapped
        if "task_id" in options and options["task_id"] not in range(1, env.num_tasks + 1):  # pyright: ignore
            raise DFPlannerError(f"task_id is {options['task_id']!r}; this maze has tasks 1 to {env.num_tasks}")  # pyright: ignore
        if options.pop("resample", False):
            free = np.argwhere(env.maze_map == 0)  # pyright: ignore
            start, goal = free[self._random.choice(len(free), 2, replace=False)].tolist()
            options["task_info"] = {"task_name": "resampled", "init_ij": tuple(start), "goal_ij": tuple(goal)}
        outside = np.random.get_state()  # noqa: NPY002 (OGBench's randomness is global)
        np.random.set_state(self._random.get_state())  # noqa: NPY002
        try:
            return self.env.reset(seed=seed, options=options)
        finally:
            self._random.set_state(np.random.get_state())  # noqa: NPY002
            np.random.set_state(outside)  # noqa: NPY002


def known_ids() -> list[str]:
    """The environments that ``make`` makes, by the names that their checkpoints and benchmarks have."""
    from dfplanner_envs.ogbench_maze import SIZES

    ours = [f"{task}-{name}" for task in ("maze2d", "multi2d") for name in MAZES]
    theirs = [f"PointMaze_{title}-v3" for title in TITLES.values()]
    return [*ours, *theirs, *(f"pointmaze-{size}-navigate-v0" for size in SIZES), ARM]


def make(env_id: str, *, noise: float = 0.0, **kwargs: Any) -> gym.Env:
    """An environment whose observations hold their goal: Maze2D, Multi2D, PointMaze, OGBench's pointmaze or the arm.

    noise: standard deviation of Gaussian noise on actions. kwargs are ``gymnasium.make``'s, such as ``render_mode``
    and ``max_episode_steps``. Raises DFPlannerError on an unknown id, or where its package is absent.
    """
    env = _plain(env_id, kwargs)
    if not isinstance(env.observation_space, Dict):
        env = GoalObservation(env, (0, 1, 2) if is_arm(env_id) else (0, 1))
    return ActionNoise(env, noise) if noise else env


def _plain(env_id: str, kwargs: dict[str, Any]) -> gym.Env:
    from dfplanner_envs.ogbench_maze import make_ogbench, ogbench_size
    from dfplanner_envs.point_maze import make_point_maze, point_maze_of

    if is_arm(env_id):
        return gym.make(ARM_ID, **kwargs)
    if ogbench_size(env_id):
        return OGBenchResets(make_ogbench(env_id, **kwargs))
    if point_maze_of(env_id):
        return make_point_maze(env_id, **kwargs)
    try:
        maze, multi = maze_of(env_id)
    except DFPlannerError:
        raise DFPlannerError(f"no environment is called {env_id!r}; known ones are {', '.join(known_ids())}") from None
    return gym.make(f"dfplanner/{'Multi2D' if multi else 'Maze2D'}-{TITLES[maze.name]}-v0", **kwargs)


def make_vec(env_id: str, num_envs: int, *, noise: float = 0.0, **kwargs: Any) -> gym.vector.SyncVectorEnv:
    """``num_envs`` of ``make``'s in one Gymnasium vector environment.

    An episode's last step is answered with the next one's first observation (SAME_STEP), so that
    ``terminated | truncated`` is what ``predict`` calls ``episode_start``. Raises as ``make``, or without copies.
    """
    if num_envs < 1:
        raise DFPlannerError(f"num_envs is the number of copies, at least 1, but {num_envs} came")
    one = partial(make, env_id, noise=noise, **kwargs)
    return gym.vector.SyncVectorEnv([one] * num_envs, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)
