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
        starts, goals, ends = [], [], []
        while len(starts) < n:
            few = max(4, min(256, 2 * (n - len(starts))))
            from_q, ok = self.posture(places := self.places(few, rng))
            start = from_q + rng.normal(0, JITTER, from_q.shape)
            limits = self.arm.limits
            start = np.clip(start, limits.lower + INSET, limits.upper - INSET)
            to = np.roll(np.arange(few), 1)
            far = np.linalg.norm(self.chain.hand(start) - places[to], axis=1) >= APART
            for i in np.flatnonzero(ok & ok[to] & far):
                if self.checker.free(start[i]):
                    starts.append(start[i])
                    goals.append(places[to[i]])
                    ends.append(from_q[to[i]])
        return np.array(starts[:n]), np.array(goals[:n]), np.array(ends[:n])


@lru_cache(maxsize=1)
def reach_task() -> ReachTask:
    """The bundled arm's task; its model and checker are shared within a process."""
    arm = reach_arm()
    return ReachTask(arm, Chain.of(arm), CollisionChecker(arm, CLEARANCE, SELF_CLEARANCE))
