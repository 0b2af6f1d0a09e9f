"""Many copies of Maze2D stepped together: a Gymnasium vector environment on MuJoCo's batch of simulations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mujoco
import mujoco.batch
import numpy as np
from gymnasium.spaces import Box
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from dfplanner.types import DFPlannerError
from dfplanner_envs.maze2d import checked_action, checked_options, spaces
from dfplanner_envs.mazes import (
    DT_S,
    MAX_SPEED,
    Maze,
    draw_task,
    get_maze,
    load_model,
    normalized_score,
    reward,
)


class VectorMaze2D(VectorEnv[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]):
    """``num_envs`` copies of Maze2D, each bit for bit what a single environment with its seed and actions is.

    Observations (N, 4): x, y in metres, vx, vy in metres a second; actions (N, 2) in [-1, 1], clipped; goals
    (N, 2). With ``autoreset`` a truncated copy is reset by the step after (its action is ignored, its reward
    0), otherwise it stays truncated until it is reset. ``nthread`` threads step them (0: all cores), whatever
    their number to the same bits. Raises DFPlannerError on an unknown maze or render mode, or no copies.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": round(1 / DT_S)}

    def __init__(
        self,
        maze: str | Maze,
        num_envs: int,
        *,
        multi: bool = False,
        autoreset: bool = True,
        nthread: int = 1,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.maze = get_maze(maze)
        if num_envs < 1:
            raise DFPlannerError(f"num_envs is the number of copies, at least 1, but {num_envs} came")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise DFPlannerError(f"render_mode {render_mode!r} is unknown; known are None and 'rgb_array'")
        self.num_envs, self.multi, self.render_mode = num_envs, multi, render_mode
        self.horizon = max_episode_steps or self.maze.horizon
        self.autoreset = autoreset
        mode = AutoresetMode.NEXT_STEP if autoreset else AutoresetMode.DISABLED
        self.metadata = {**self.metadata, "autoreset_mode": mode}
        self.single_observation_space, self.single_action_space = spaces(self.maze)
        self.observation_space: Box = batch_space(self.single_observation_space, num_envs)  # pyright: ignore
        self.action_space: Box = batch_space(self.single_action_space, num_envs)  # pyright: ignore
        self._batch = mujoco.batch.Batch(load_model(self.maze), num_envs, nthread)
        self._qpos, self._qvel = self._batch.bind("qpos"), self._batch.bind("qvel")
        self._ctrl, self._warmstart = self._batch.bind("ctrl"), self._batch.bind("qacc_warmstart")
        self.goal = np.tile(np.array(self.maze.goal, np.float64), (num_envs, 1))
        self._rngs: list[np.random.Generator | None] = [None] * num_envs
        self._elapsed = np.zeros(num_envs, np.int64)
        self._truncated = np.zeros(num_envs, bool)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float64], dict[str, Any]]:
        """Start new episodes: observations (N, 4) and an info whose ``goal`` is (N, 2).

        ``seed`` is one for each copy, or an int s for s, s+1, ...; options are the single environment's
        (``start``, ``goal``, ``velocity``; (2,) or (N, 2)) and ``reset_mask`` (N,), which copies to reset.
        Raises DFPlannerError on any of the wrong shape, not finite, or inside a wall.
        """
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int | np.integer) else seed
        seeds = [None] * self.num_envs if seeds is None else list(seeds)
        if len(seeds) != self.num_envs:
            raise DFPlannerError(f"{len(seeds)} seeds came for {self.num_envs} environments; give one for each")
        options = dict(options or {})
        mask = np.asarray(options.pop("reset_mask", np.ones(self.num_envs, bool)))
        if mask.shape != (self.num_envs,) or mask.dtype != bool:
            raise DFPlannerError(f"reset_mask is ({self.num_envs},) booleans, but {mask.dtype} {mask.shape} came")
        fixed = checked_options(self.maze, options, (self.num_envs, 2))
        for i in np.flatnonzero(mask):
            if seeds[i] is not None:
                self._rngs[i] = seeding.np_random(int(seeds[i]))[0]  # pyright: ignore[reportArgumentType]
        self._begin(np.flatnonzero(mask), fixed)
        return self._obs(), self._info()

    def _begin(self, ids: NDArray[np.intp], fixed: dict[str, NDArray[np.float64]]) -> None:
        """Start episodes of copies ``ids``; ``fixed`` holds (N, 2) arrays that override what is drawn."""
        for i in ids:
            rng = self._rngs[i]
            if rng is None:
                rng = self._rngs[i] = seeding.np_random(None)[0]
            start, velocity, goal = draw_task(self.maze, self.multi, rng)
            self._qpos[i] = fixed["start"][i] if "start" in fixed else start
            self._qvel[i] = fixed["velocity"][i] if "velocity" in fixed else velocity
            self.goal[i] = fixed["goal"][i] if "goal" in fixed else goal
        self._warmstart[ids] = 0.0
        self._elapsed[ids] = 0
        self._truncated[ids] = False

    def step(
        self, actions: ArrayLike
    ) -> tuple[NDArray, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Ten milliseconds with actions (N, 2): observations (N, 4), rewards, two kinds of ends (N,), info.

        Raises DFPlannerError if the actions have another shape or hold NaN.
        """
        clean = checked_action(actions, (self.num_envs, 2))
        ended = np.flatnonzero(self._truncated) if self.autoreset else np.empty(0, np.intp)
        if ended.size:
            going = np.flatnonzero(~self._truncated)
            self._begin(ended, {})
            if going.size:
                self._advance(clean, going)
            rewards = np.zeros(self.num_envs)
            rewards[going] = reward(self._qpos[going], self.goal[going])
            self._elapsed[going] += 1
        else:
            self._advance(clean, None)
            rewards = reward(self._qpos, self.goal)
            self._elapsed += 1
        self._truncated = self._elapsed >= self.horizon
        return self._obs(), rewards, np.zeros(self.num_envs, bool), self._truncated.copy(), self._info()

    def step_physics(self, actions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Observations (N, 4) after 10 ms of actions (N, 2); nothing is checked, counted or reset."""
        self._advance(actions, None)
        return self._obs()

    def set_state(self, qpos: ArrayLike, qvel: ArrayLike) -> None:
        """Put all balls at qpos (N, 2) with velocities (N, 2); raises DFPlannerError on a shape or NaN."""
        for name, value, into in (("qpos", qpos, self._qpos), ("qvel", qvel, self._qvel)):
            array = np.asarray(value, np.float64)
            if array.shape != into.shape or not np.isfinite(array).all():
                raise DFPlannerError(f"{name} is {into.shape} finite numbers, but {array.shape} came; check for NaN")
            into[:] = array
        self._warmstart[:] = 0.0

    def get_normalized_score(self, ret: ArrayLike) -> NDArray[np.float64] | np.float64:
        """D4RL's score (0: its reference minimum, 100: its maximum) of raw returns."""
        return normalized_score(self.maze, ret)

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A frame (H, W, 3) of each copy if made with render_mode='rgb_array', else None."""
        if self.render_mode is None:
            return None
        from dfplanner_envs.render import paint  # needs OpenCV, stepping does not

        return tuple(paint(self.maze, xy, goal) for xy, goal in zip(self._qpos, self.goal, strict=True))

    def _advance(self, actions: NDArray[np.float64], ids: NDArray[np.intp] | None) -> None:
        moving = slice(None) if ids is None else ids
        self._qvel[moving] = np.clip(self._qvel[moving], -MAX_SPEED, MAX_SPEED)
        np.clip(actions, -1.0, 1.0, out=self._ctrl)
        self._batch.step(ids)

    def _obs(self) -> NDArray[np.float64]:
        return np.concatenate((self._qpos, self._qvel), axis=1)

    def _info(self) -> dict[str, Any]:
        return {"goal": self.goal.copy(), "_goal": np.ones(self.num_envs, bool)}
