"""Policies to compare a planner with on the arm, and rollouts with what a real arm's readings suffer."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dfplanner.types import DFPlannerError
from dfplanner_envs.arm.env import HORIZON, VectorArmReach
from dfplanner_envs.arm.limits import Floats
from dfplanner_envs.arm.roadmap import reach_roadmap
from dfplanner_envs.arm.script import script

HELD_OUT = tuple(range(1_000_000_000, 1_000_000_100))
"""Seeds of 100 tasks that no data is drawn from."""


class ArmPolicy(Protocol):
    """What a rollout asks of a policy; N episodes run in lock step."""

    def reset(self, obs: NDArray, goal: NDArray, rng: np.random.Generator) -> None:
        """Begin N episodes at observations (N, 17) with goals (N, 3)."""
        ...

    def act(self, obs: NDArray, goal: NDArray, age: NDArray[np.int64]) -> NDArray:
        """Actions (N, 7) in [-1, 1]; called at every control step. ``age`` (N,): steps since each was observed."""
        ...


class ScriptPolicy:
    """The data's script, which knows the scene: the upper bound. It plans once, and then looks at nothing."""

    nfe_per_plan = 0.0
    planned = False

    def reset(self, obs: NDArray, goal: NDArray, rng: np.random.Generator) -> None:
        """Plans from observations (N, 17) to goals (N, 3); where no way is found the arm stays."""
        roadmap = reach_roadmap()
        limits = roadmap.task.arm.limits
        ends, _ = roadmap.task.posture(goal)
        self._t, self._commands = 0, []
        for q, end in zip(obs[:, 3 : 3 + len(limits)], ends, strict=True):
            way = script(roadmap, q, end)
            self._commands.append(np.zeros((1, len(limits))) if way is None else way / limits.velocity)

    def act(self, obs: NDArray, goal: NDArray, age: NDArray[np.int64]) -> NDArray:
        """The next commands (N, 7), zero after the last."""
        self._t += 1
        return np.stack([c[self._t - 1] if self._t <= len(c) else np.zeros(c.shape[1]) for c in self._commands])


class RandomPolicy:
    """Uniform actions."""

    nfe_per_plan = 0.0
    planned = False

    def reset(self, obs: NDArray, goal: NDArray, rng: np.random.Generator) -> None:
        """Takes the generator that all actions come from."""
        self._rng, self._shape = rng, (len(obs), (obs.shape[1] - 3) // 2)

    def act(self, obs: NDArray, goal: NDArray, age: NDArray[np.int64]) -> NDArray:
        """Actions (N, 7), each number uniform in [-1, 1]."""
        return self._rng.uniform(-1, 1, self._shape)


@dataclass(frozen=True, eq=False)
class ArmRollout:
    """What N episodes came to, each until success, contact or the horizon."""

    seeds: tuple[int, ...]
    success: NDArray[np.bool_]
    collision: NDArray[np.bool_]
    violations: NDArray[np.int64]
    """(N,) steps in which a joint was measured beyond a limit."""
    clamped: NDArray[np.int64]
    """(N,) steps in which the command asked for more than the limits allow."""
    steps: NDArray[np.int64]
    """(N,) control steps the episode lasted."""
    distance: Floats
    """(N,) metres between hand and goal at its end."""
    trajectories: NDArray[np.float32]
    """(N, T + 1, 17) true observations; after an episode's end its last one repeats."""
    goals: Floats

    def summary(self) -> dict[str, float]:
        """Shares of episodes (success, collision, violation, clamped), mean steps of the successful, NaN without."""
        steps = float(self.steps[self.success].mean()) if self.success.any() else float("nan")
        return {
            "success": float(self.success.mean()),
            "collision": float(self.collision.mean()),
            "violation": float((self.violations > 0).mean()),
            "clamped": float((self.clamped > 0).mean()),
            "steps": steps,
        }


class Readings:
    """What a policy is shown of N arms: joints with noise, some readings lost (the last is held), all of them late."""

    def __init__(
        self, env: VectorArmReach, noise: float, noise_speed: float, drop: float, late: int, rng: np.random.Generator
    ) -> None:
        self._env, self._noise, self._noise_speed, self._drop, self._rng = env, noise, noise_speed, drop, rng
        self._queue: deque[tuple[Floats, NDArray[np.int64]]] = deque(maxlen=late + 1)
        self._held: Floats | None = None
        self._stamp, self._now = np.zeros(env.num_envs, np.int64), -1

    def of(self, obs: Floats) -> tuple[Floats, NDArray[np.int64]]:
        """Observations (N, 17) shown when the true ones are ``obs``, and their ages (N,) in steps, as stamps tell them.

        The hand follows from the joints as read.
        """
        self._now += 1
        j = (obs.shape[1] - 3) // 2
        q = obs[:, 3 : 3 + j] + self._noise * self._rng.standard_normal((len(obs), j))
        qd = obs[:, 3 + j :] + self._noise_speed * self._rng.standard_normal((len(obs), j))
        hand = self._env.task.chain.hand(q) if self._noise else obs[:, :3]
        read = np.concatenate([hand, q, qd], axis=1)
        lost = self._rng.random(len(obs)) < self._drop
        if self._held is None:
            lost[:] = False
        else:
            read[lost] = self._held[lost]
        self._held, self._stamp = read, np.where(lost, self._stamp, self._now)
        self._queue.append((read, self._stamp))
        shown, stamp = self._queue[0]
        return shown.copy(), self._now - stamp


def rollout_arm(
    policy: ArmPolicy,
    seeds: Sequence[int] = HELD_OUT,
    *,
    noise: float = 0.0,
    noise_speed: float = 0.0,
    drop: float = 0.0,
    latency_steps: int = 0,
    horizon: int = HORIZON,
    rng: np.random.Generator | None = None,
    threads: int = 1,
) -> ArmRollout:
    """One episode of ``policy`` for each seed, each until success, contact or ``horizon`` control steps of 50 ms.

    ``noise`` in rad and ``noise_speed`` in rad/s are standard deviations on each joint's readings, drawn at each step;
    ``drop`` is the share of readings lost, the last one being held; all are ``latency_steps`` steps late. ``rng`` (a
    fixed one by default) drives these and the policy. Raises DFPlannerError on no seeds or a negative amount.
    """
    if not len(seeds) or min(noise, noise_speed, drop, latency_steps) < 0 or drop >= 1 or horizon < 1:
        raise DFPlannerError("give at least one seed and one step, no negative amounts, and a drop below 1")
    rng = rng or np.random.default_rng(0)
    n = len(seeds)
    env = VectorArmReach(n, autoreset=False, nthread=threads, max_episode_steps=horizon)
    obs, info = env.reset(seed=list(seeds))
    goal, readings = info["goal"], Readings(env, noise, noise_speed, drop, latency_steps, rng)
    counted = {name: np.zeros(n, np.int64) for name in ("success", "collision", "violation", "clamped")}
    steps, running, seen = np.zeros(n, np.int64), np.ones(n, bool), [obs]
    shown, age = readings.of(obs)
    policy.reset(shown, goal, rng)
    for _ in range(horizon):
        now, _, terminated, _, info = env.step(policy.act(shown, goal, age))
        for name, count in counted.items():
            count += info[name] & running
        steps += running
        obs = np.where(running[:, None], now, seen[-1])
        seen.append(obs)
        running &= ~terminated
        if not running.any():
            break
        shown, age = readings.of(now)
    return ArmRollout(
        tuple(int(s) for s in seeds),
        counted["success"] > 0,
        counted["collision"] > 0,
        counted["violation"],
        counted["clamped"],
        steps,
        np.linalg.norm(obs[:, :3] - goal, axis=1),
        np.stack(seen, 1).astype(np.float32),
        goal,
    )
