"""What is asked of the arm: where goals lie, which posture answers one, and how a task is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfplanner_envs.arm.collision import CollisionChecker
from dfplanner_envs.arm.ik import Chain, solve
from dfplanner_envs.arm.limits import Floats
from dfplanner_envs.arm.model import Arm, reach_arm

CLEARANCE, SELF_CLEARANCE = 0.05, 0.01
"""Metres that starts, goals and the script's paths keep from the scene, and links from one another."""
ROUNDED = 0.7
"""Share of these distances that is kept where a path's corners are rounded."""
LEFT = 0.25
"""Share of them that an arm has left which was stopped before an obstacle, and shall leave it."""
RADIUS, AZIMUTH, HEIGHT = (0.3, 0.7), (-2.0, 2.0), (0.1, 0.7)
"""Where goals are drawn, in cylinder coordinates about the base: metres, radians, metres."""
INSET = 0.1
"""Radians that starts and goals keep from the joints' ends."""
JITTER = 0.2
"""Standard deviation, in radians on each joint, of a start round the posture that answers a goal."""
APART = 0.15
"""Metres between the hand at the start and the goal, at least."""
REACH, SLOW = 0.02, 0.1
"""Success: the hand within so many metres of the goal while no joint is faster than so many rad/s."""


@dataclass(frozen=True, eq=False)
class ReachTask:
    """The arm, its kinematics and what it must keep away from."""

    arm: Arm
    chain: Chain
    checker: CollisionChecker
    rounded: CollisionChecker
    """The same with the distances that rounded corners keep."""
    near: CollisionChecker
    """The same with what is left of them before an obstacle."""

    def posture(self, goals: ArrayLike) -> tuple[Floats, NDArray[np.bool_]]:
        """The posture (N, J) that answers each goal (N, 3), and whether it reaches it and keeps its distance.

        It is the one nearest to the rest posture turned towards the goal: the same goal always has the same answer,
        near goals have near ones, and where that one is too near something, the goal counts as out of reach.
        """
        goals = np.asarray(goals, np.float64)
        rest = np.tile(self.arm.rest, (len(goals), 1))
        rest[:, 0] += np.arctan2(goals[:, 1], goals[:, 0])
        limits = self.arm.limits
        q, reached = solve(self.chain, goals, rest, rest, limits.lower + INSET, limits.upper - INSET)
        return q, reached & self.checker.free(q)

    def places(self, n: int, rng: np.random.Generator) -> Floats:
        """n points (n, 3) of the region that goals are drawn from, reachable or not."""
        radius, azimuth, height = (rng.uniform(*span, n) for span in (RADIUS, AZIMUTH, HEIGHT))
        return np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth), height], 1)

    def draw(self, n: int, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
        """n tasks: start postures (n, J), goals (n, 3) and the postures that answer these (n, J)."""
        found: list[tuple[Floats, Floats, Floats]] = []
        while len(found) < n:
            few = max(4, min(256, 2 * (n - len(found))))
            *tasks, fit = self._judged(*self._candidates(few, rng))
            found += [(tasks[0][i], tasks[1][i], tasks[2][i]) for i in np.flatnonzero(fit)]
        starts, goals, ends = (np.array(x) for x in zip(*found[:n], strict=True))
        return starts, goals, ends

    def draw_each(self, rngs: list[np.random.Generator]) -> tuple[Floats, Floats]:
        """A task from each of N generators: starts (N, J), goals (N, 3); each as if drawn alone."""
        n, few = len(rngs), 6
        starts, goals = np.empty((n, len(self.arm.limits))), np.empty((n, 3))
        missing = list(range(n))
        while missing:
            drawn = [self._candidates(few, rngs[i]) for i in missing]
            start, goal, _, fit = self._judged(*(np.concatenate(x) for x in zip(*drawn, strict=True)))
            for i, rows in zip(missing, np.arange(len(fit)).reshape(-1, few), strict=True):
                if fit[rows].any():
                    first = rows[fit[rows].argmax()]
                    starts[i], goals[i] = start[first], goal[first]
            missing = [i for i, rows in zip(missing, fit.reshape(-1, few), strict=True) if not rows.any()]
        return starts, goals

    def _candidates(self, n: int, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
        """Places (n, 3) of the hand to start near, places (n, 3) to go to, and how starts differ (n, J)."""
        begin, goal = self.places(n, rng), self.places(n, rng)
        return begin, goal, rng.normal(0, JITTER, (n, len(self.arm.limits)))

    def _judged(self, begin: Floats, goal: Floats, jitter: Floats) -> tuple[Floats, Floats, Floats, NDArray[np.bool_]]:
        """Start postures, goals, the postures that answer these, and which of these tasks can be asked."""
        limits = self.arm.limits
        q, able = self.posture(np.concatenate([begin, goal]))
        start, end = np.clip(q[: len(begin)] + jitter, limits.lower + INSET, limits.upper - INSET), q[len(begin) :]
        fit = able[: len(begin)] & able[len(begin) :]
        fit &= np.linalg.norm(self.chain.hand(start) - goal, axis=1) >= APART
        fit[fit] = self.checker.free(start[fit])
        return start, goal, end, fit


@lru_cache(maxsize=1)
def reach_task() -> ReachTask:
    """The bundled arm's task; its model and checker are shared within a process."""
    arm = reach_arm()
    keeps = (CollisionChecker(arm, share * CLEARANCE, share * SELF_CLEARANCE) for share in (1.0, ROUNDED, LEFT))
    return ReachTask(arm, Chain.of(arm), *keeps)


def at_goal(observations: Floats, goals: Floats) -> NDArray[np.bool_]:
    """(...) whether the hand of observations (..., 3 + 2 J) is within reach of goals (..., 3), and the arm is slow."""
    joints = (observations.shape[-1] - 3) // 2
    near = np.linalg.norm(observations[..., :3] - goals, axis=-1) <= REACH
    return near & (np.abs(observations[..., 3 + joints :]).max(-1) <= SLOW)
