"""The arm's task as Gymnasium environments, single and vectorised: bring the hand to a goal, touching nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from dfplanner.types import DFPlannerError
from dfplanner_envs.arm.limits import Floats
from dfplanner_envs.arm.sim import DT_S, ArmSim, Happened
from dfplanner_envs.arm.task import ReachTask, at_goal, reach_task

HORIZON = 200
"""Control steps (10 s) after which an episode is truncated."""
REPORTED = ("success", "collision", "violation", "clamped")


def spaces(task: ReachTask) -> tuple[Any, Any]:
    """Observations (17,): hand in metres, joint positions and velocities; actions (7,) in [-1, 1]."""
    limits = task.arm.limits
    # Wider than the limits: a joint pushed against its end, or struck, is measured beyond them.
    high = np.concatenate([np.full(3, 2.0), limits.upper + 0.5, 10 * limits.velocity])
    low = np.concatenate([np.full(3, -2.0), limits.lower - 0.5, -10 * limits.velocity])
    return Box(low, high, dtype=np.float64), Box(-1.0, 1.0, (len(limits),), np.float32)


class VectorArmReach(VectorEnv[Floats, Floats, Floats]):
    """``num_envs`` arms, each bit for bit what a single environment with its seed and actions is.

    Observations (N, 17): hand x, y, z in metres, 7 joint positions in rad, 7 velocities in rad/s; actions (N, 7) in
    [-1, 1], clipped: the velocities to have at the end of the step (50 ms) as shares of the joints' limits; a change of
    velocity beyond the acceleration limit is cut to it. Reward 1 and the end where the hand is within 2 cm of the goal
    and every joint slower than 0.1 rad/s; reward 0 and the end on touching anything. ``info``: ``goal`` (N, 3) in
    metres, and (N,) ``success``, ``collision``, ``violation`` (a joint measured beyond a limit), ``clamped`` (the
    command asked for more than the limits allow). With ``autoreset`` an ended copy is reset by the step after,
    otherwise it moves on, ended, until it is reset. Raises DFPlannerError on no copies.
    """

    metadata: dict[str, Any] = {"render_modes": [], "render_fps": round(1 / DT_S)}

    def __init__(
        self, num_envs: int, *, autoreset: bool = True, nthread: int = 1, max_episode_steps: int | None = None
    ) -> None:
        if num_envs < 1:
            raise DFPlannerError(f"num_envs is the number of copies, at least 1, but {num_envs} came")
        self.num_envs, self.autoreset, self.task = num_envs, autoreset, reach_task()
        self.horizon = max_episode_steps or HORIZON
        mode = AutoresetMode.NEXT_STEP if autoreset else AutoresetMode.DISABLED
        self.metadata = {**self.metadata, "autoreset_mode": mode}
        self.single_observation_space, self.single_action_space = spaces(self.task)
        self.observation_space: Box = batch_space(self.single_observation_space, num_envs)  # pyright: ignore
        self.action_space: Box = batch_space(self.single_action_space, num_envs)  # pyright: ignore
        self.sim = ArmSim(self.task.arm, self.task.chain, num_envs, nthread)
        self.goal = np.zeros((num_envs, 3))
        self._rngs: list[np.random.Generator | None] = [None] * num_envs
        self._elapsed, self._ended = np.zeros(num_envs, np.int64), np.zeros(num_envs, bool)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Floats, dict[str, Any]]:
        """Start new episodes: observations (N, 17), info.

        ``seed``: one for each copy, or an int s for s, s+1, ...; options: ``start`` (7,) or (N, 7) joint positions,
        ``goal`` (3,) or (N, 3), ``reset_mask`` (N,) which copies to reset. Raises DFPlannerError on a wrong shape,
        a start that touches something or is beyond a joint's end, or a goal that is not finite.
        """
        n, options = self.num_envs, dict(options or {})
        seeds = (
            [seed + i for i in range(n)]
            if isinstance(seed, int | np.integer)
            else ([None] * n if seed is None else list(seed))
        )
        if len(seeds) != n:
            raise DFPlannerError(f"{len(seeds)} seeds came for {n} environments; give one for each")
        mask = np.asarray(options.pop("reset_mask", np.ones(n, bool)))
        if mask.shape != (n,) or mask.dtype != bool:
            raise DFPlannerError(f"reset_mask is ({n},) booleans, but {mask.dtype} {mask.shape} came")
        fixed = checked_options(self.task, options, n)
        for i in np.flatnonzero(mask):
            if seeds[i] is not None:
                self._rngs[i] = seeding.np_random(int(seeds[i]))[0]  # pyright: ignore[reportArgumentType]
        self._begin(np.flatnonzero(mask), fixed)
        return self.sim.observation(), self._info(None)

    def _begin(self, ids: NDArray[np.int64], fixed: dict[str, Floats]) -> None:
        for i in ids:
            if self._rngs[i] is None:
                self._rngs[i] = seeding.np_random(None)[0]
        starts, goals = self.task.draw_each([rng for i in ids if (rng := self._rngs[i]) is not None])
        self.goal[ids] = fixed["goal"][ids] if "goal" in fixed else goals
        self.sim.put(ids, fixed["start"][ids] if "start" in fixed else starts)
        self._elapsed[ids], self._ended[ids] = 0, False

    def step(self, actions: ArrayLike) -> tuple[Floats, Floats, NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """50 ms with actions (N, 7); raises DFPlannerError if they have another shape or hold NaN."""
        wanted = checked_action(actions, (self.num_envs, len(self.task.arm.limits))) * self.task.arm.limits.velocity
        anew = np.flatnonzero(self._ended) if self.autoreset else np.empty(0, np.int64)
        happened = self.sim.step(wanted)
        self._elapsed += 1
        if anew.size:  # what they did in this step is overwritten
            self._begin(anew, {})
            for flags in (happened.collision, happened.violation, happened.clamped):
                flags[anew] = False
        obs, info = self.sim.observation(), self._info(happened)
        info["success"][anew] = False
        terminated = info["success"] | info["collision"]
        truncated = self._elapsed >= self.horizon
        self._ended = terminated | truncated
        return obs, info["success"] * 1.0, terminated, truncated, info

    def _info(self, happened: Happened | None) -> dict[str, Any]:
        none, every = np.zeros(self.num_envs, bool), np.ones(self.num_envs, bool)
        facts: dict[str, Any] = {"goal": self.goal.copy(), "success": none.copy()}
        for name in REPORTED[1:]:
            facts[name] = none.copy() if happened is None else getattr(happened, name).copy()
        if happened is not None:
            facts["success"] = at_goal(self.sim.observation(), self.goal) & ~facts["collision"]
        return facts | {f"_{name}": every.copy() for name in facts}


class ArmReachEnv(gym.Env[Floats, NDArray[np.float32]]):
    """One arm; what it sees, does, earns and reports is said at ``VectorArmReach``, which it is a single lane of."""

    metadata: dict[str, Any] = {"render_modes": [], "render_fps": round(1 / DT_S)}

    def __init__(self, *, render_mode: str | None = None) -> None:
        if render_mode is not None:
            raise DFPlannerError(f"render_mode is {render_mode!r}; this environment has none")
        self.render_mode = None
        self._lane = VectorArmReach(1, autoreset=False, max_episode_steps=1 << 62)
        self.observation_space, self.action_space = spaces(self._lane.task)

    @property
    def goal(self) -> Floats:
        """(3,) the goal of this episode in metres."""
        return self._lane.goal[0].copy()

    @property
    def sim(self) -> ArmSim:
        """The simulation behind it."""
        return self._lane.sim

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Floats, dict[str, Any]]:
        """Start an episode; options ``start`` (7,) and ``goal`` (3,) replace what would be drawn."""
        super().reset(seed=seed)
        self._lane._rngs = [self.np_random]
        obs, info = self._lane.reset(options=options)
        return obs[0], _one(info)

    def step(self, action: ArrayLike) -> tuple[Floats, float, bool, bool, dict[str, Any]]:
        """50 ms with the action (7,); raises DFPlannerError on another shape or NaN."""
        action = checked_action(action, (len(self._lane.task.arm.limits),))
        obs, reward, terminated, _, info = self._lane.step(action[None])
        return obs[0], float(reward[0]), bool(terminated[0]), False, _one(info)


def _one(info: dict[str, Any]) -> dict[str, Any]:
    return {k: v[0].copy() if v.ndim > 1 else bool(v[0]) for k, v in info.items() if not k.startswith("_")}


def checked_action(action: ArrayLike, shape: tuple[int, ...]) -> Floats:
    """The action as float64 in [-1, 1]; raises DFPlannerError if its shape is another or it holds NaN."""
    try:
        array = np.asarray(action, np.float64)
    except (TypeError, ValueError):
        raise DFPlannerError(f"an action is an array of {shape} numbers, but {action!r} came") from None
    if array.shape != shape or np.isnan(array).any():
        raise DFPlannerError(f"an action of shape {array.shape} came; {shape} was expected, and no NaN")
    return np.clip(array, -1.0, 1.0)


def checked_options(task: ReachTask, options: dict[str, Any], n: int) -> dict[str, Floats]:
    """Those of ``start`` (n, J) and ``goal`` (n, 3) that ``options`` holds; raises DFPlannerError as ``reset`` says."""
    limits, found = task.arm.limits, {}
    for name, value in options.items():
        if name not in (widths := {"start": len(limits), "goal": 3}):
            raise DFPlannerError(f"reset has no option {name!r}; known ones are start, goal")
        if value is None:
            continue
        shape = np.shape(value)
        array = np.asarray(value, np.float64) if shape in ((widths[name],), (n, widths[name])) else np.array(np.nan)
        if not np.isfinite(array).all():
            raise DFPlannerError(f"option {name!r} is {widths[name]} finite numbers, but {value!r} came")
        found[name] = np.broadcast_to(array, (n, widths[name]))
    if "start" in found:
        for q in np.atleast_2d(options["start"]):
            if limits.exceeded(q).any():
                raise DFPlannerError(f"the start {q.tolist()} is beyond a joint's end; see the arm's JointLimits")
            if touching := [f"{a} and {b}" for a, b, distance in task.checker.touching(q) if distance < 0]:
                raise DFPlannerError(f"at the start there touch {', '.join(touching)}; choose another")
    return found
