"""D4RL's Maze2D as a Gymnasium environment: a ball is pushed through a maze; a step at the goal earns 1."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import ArrayLike, NDArray

from dfplanner.types import DFPlannerError
from dfplanner_envs.mazes import (
    DT_S,
    MAX_SPEED,
    Maze,
    draw_task,
    get_maze,
    in_wall,
    load_model,
    normalized_score,
    reward,
)

OPTIONS = ("start", "goal", "velocity")
SPEED_BOUND = 8.0
"""No ball is faster (m/s): a step adds 0.24 at most to the 5 that it starts with, and walls push gently."""


def spaces(maze: Maze) -> tuple[Any, Any]:
    """Observations (x, y, vx, vy) in metres and metres a second, float64; actions in [-1, 1] on both axes."""
    rows, columns = maze.walls.shape
    low = np.array([-0.7, -0.7, -SPEED_BOUND, -SPEED_BOUND])
    high = np.array([rows - 0.7, columns - 0.7, SPEED_BOUND, SPEED_BOUND])
    return Box(low, high, dtype=np.float64), Box(-1.0, 1.0, (2,), np.float32)


def checked_action(action: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The action as float64; raises DFPlannerError if its shape is another or it holds NaN."""
    try:
        array = np.asarray(action, np.float64)
    except (TypeError, ValueError):
        raise DFPlannerError(f"an action is an array of {shape} numbers, but {action!r} came") from None
    if array.shape != shape:
        raise DFPlannerError(f"an action of shape {array.shape} came, but {shape} was expected")
    if np.isnan(array).any():
        raise DFPlannerError("the action holds NaN; every number must be in [-1, 1] (others are clipped)")
    return array


def checked_options(
    maze: Maze, options: dict[str, Any] | None, shape: tuple[int, ...]
) -> dict[str, NDArray[np.float64]]:
    """Those of ``start``, ``goal``, ``velocity`` that ``options`` holds, as float64 arrays of ``shape``.

    Raises DFPlannerError on an unknown name, a shape that does not broadcast, numbers that are not finite, a
    place inside a wall, or a velocity that no ball has.
    """
    found: dict[str, NDArray[np.float64]] = {}
    for name, value in (options or {}).items():
        if name not in OPTIONS:
            raise DFPlannerError(f"reset has no option {name!r}; known ones are {', '.join(OPTIONS)}")
        if value is None:
            continue
        try:
            array = np.broadcast_to(np.asarray(value, np.float64), shape)
        except (TypeError, ValueError):
            array = np.array(np.nan)
        if np.shape(value)[-1:] != (2,) or not np.isfinite(array).all():
            raise DFPlannerError(f"option {name!r} is 2 finite numbers (x, y), but {value!r} came")
        if name == "velocity":
            if np.abs(array).max() > SPEED_BOUND:
                raise DFPlannerError(f"a velocity is at most {SPEED_BOUND:g} m/s on each axis, but {value!r} came")
        elif (bad := in_wall(maze, array)).any():
            place = tuple(array[bad][0].tolist()) if array.ndim > 1 else tuple(array.tolist())
            raise DFPlannerError(
                f"the {name} {place} is inside a wall of maze {maze.name}; free cells are {maze.free_cells}"
            )
        found[name] = array
    return found


class Maze2DEnv(gym.Env[NDArray[np.float64], NDArray[np.float32]]):
    """One ball in one maze, 10 ms a step; observation (4,) x, y, vx, vy; action (2,) in [-1, 1], clipped.

    The reward is 1 where the ball is within 0.5 m of the goal after the step. An episode never terminates;
    the registered environments truncate it (300, 600, 800 steps). ``multi`` draws a goal at every reset
    (Multi2D). ``render_mode``: 'rgb_array', or 'human' (a window; only a warning where none can be had).
    Source: ``d4rl.pointmaze.maze_model.MazeEnv``.
    """

    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array"], "render_fps": round(1 / DT_S)}

    def __init__(self, maze: str | Maze = "umaze", *, multi: bool = False, render_mode: str | None = None) -> None:
        self.maze = get_maze(maze)
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise DFPlannerError(f"render_mode {render_mode!r} is unknown; known: None, 'rgb_array', 'human'")
        self.multi, self.render_mode = multi, render_mode
        self.observation_space, self.action_space = spaces(self.maze)
        self.model = load_model(self.maze)
        self.data = mujoco.MjData(self.model)  # pyright: ignore[reportAttributeAccessIssue]
        self.goal = np.array(self.maze.goal, np.float64)
        self._trace: list[NDArray[np.float64]] = []
        self._window: Any = None
        if render_mode == "human":
            from dfplanner_envs.render import Window

            try:
                self._window = Window(f"Maze2D {self.maze.name}")
            except DFPlannerError as e:
                # Only a warning: gymnasium's checker tries every mode, on servers too.
                gym.logger.warn(str(e))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float64], dict[str, Any]]:
        """Start an episode: the observation (4,) and an info whose ``goal`` is (2,).

        Options ``start``, ``goal`` (x, y) and ``velocity`` (vx, vy) replace what would be drawn. Raises
        DFPlannerError on an unknown option, numbers that are not finite or a place inside a wall.
        """
        super().reset(seed=seed)
        fixed = checked_options(self.maze, options, (2,))
        start, velocity, goal = draw_task(self.maze, self.multi, self.np_random)
        drawn = {"start": start, "velocity": velocity, "goal": goal} | fixed
        self.goal = drawn["goal"].copy()
        self.set_state(drawn["start"], drawn["velocity"])
        return self._shown()

    def set_state(self, qpos: ArrayLike, qvel: ArrayLike) -> None:
        """Put the ball at a position (2,) with a velocity (2,), as after a reset."""
        mujoco.mj_resetData(self.model, self.data)  # pyright: ignore[reportAttributeAccessIssue]
        self.data.qpos[:] = qpos
        self.data.qvel[:] = qvel
        self._trace = []

    def step(self, action: ArrayLike) -> tuple[NDArray[np.float64], float, bool, bool, dict[str, Any]]:
        """Ten milliseconds with the action (2,); raises DFPlannerError on another shape or NaN."""
        action = checked_action(action, (2,))
        np.clip(self.data.qvel, -MAX_SPEED, MAX_SPEED, out=self.data.qvel)
        self.data.ctrl[:] = np.clip(action, -1.0, 1.0)
        mujoco.mj_step(self.model, self.data)  # pyright: ignore[reportAttributeAccessIssue]
        obs, info = self._shown()
        return obs, float(reward(obs[:2], self.goal)), False, False, info

    def _shown(self) -> tuple[NDArray[np.float64], dict[str, Any]]:
        """Observation and info of this moment; draws it if there is a window."""
        obs = np.concatenate((self.data.qpos, self.data.qvel))
        if self.render_mode is not None:
            self._trace.append(obs[:2])
        if self._window is not None:
            self._window.show(self._frame(), self.metadata["render_fps"])
        return obs, {"goal": self.goal.copy()}

    def _frame(self) -> NDArray[np.uint8]:
        from dfplanner_envs.render import paint  # needs OpenCV, stepping does not

        return paint(self.maze, self.data.qpos, self.goal, np.array(self._trace))

    def render(self) -> NDArray[np.uint8] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A frame (H, W, 3) uint8 for 'rgb_array'; None otherwise (a window draws itself at every step)."""
        return self._frame() if self.render_mode == "rgb_array" else None

    def get_normalized_score(self, ret: ArrayLike) -> NDArray[np.float64] | np.float64:
        """D4RL's score (0: its reference minimum, 100: its maximum) of raw returns."""
        return normalized_score(self.maze, ret)

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._window is not None:
            self._window.close()
            self._window = None
