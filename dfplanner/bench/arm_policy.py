"""A planner over many arms in lock step, each reading late, lost or noisy."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from dfplanner.guidance import Objective, ReachGoal
from dfplanner.planner import Planner
from dfplanner.types import Plan
from dfplanner_envs.arm.collision import CollisionChecker
from dfplanner_envs.arm.ik import Chain
from dfplanner_envs.arm.limits import Floats
from dfplanner_envs.arm.sim import DT_S, PUSH_SHARE
from dfplanner_envs.arm.task import reach_task

KEPT, SELF_KEPT = 0.015, 0.003
"""Metres that a guarded arm keeps from its surroundings, and links from one another."""
STILL = 1e-3
"""rad/s below which a joint counts as at rest."""
LOOK_BACK = 20
"""Commands that are remembered, for readings as old as that."""


class ArmPlannerPolicy:
    """A planner behind N arms: each plan goes on from the last, and begins where readings and commands say the arm is.

    ``replan_every``: control steps between plans. ``guarded``: an arm brakes where, after the next step, it could not
    stop any more without touching something, as ``dfplanner_robot.safety.Guard`` does it (``blocked``).
    """

    def __init__(self, planner: Planner, replan_every: int = 2, *, guarded: bool = True) -> None:
        self.planner, self.replan_every = planner, replan_every
        task = reach_task()
        self._checker = CollisionChecker(task.arm, KEPT, SELF_KEPT) if guarded else None
        self._push = DT_S * PUSH_SHARE * task.arm.limits.acceleration
        # The model is told the posture that answers a goal, not the place of the hand: kinematics need not be learnt.
        self.make_objective = lambda goal: ReachGoal(task.posture(goal)[0], pos=planner.spec.pos)
        self.chain: Chain = task.chain
        self.dt_s = DT_S
        self.top = task.arm.limits.velocity
        self.generator = torch.Generator(planner.device)
        self.planned = False

    @property
    def nfe_per_plan(self) -> float:
        """Network evaluations of the last plan."""
        return float(self.planner.calls)

    def reset(self, obs: NDArray, goal: NDArray, rng: np.random.Generator) -> None:
        """N episodes begin; the same rng gives the same plans."""
        self.generator.manual_seed(int(rng.integers(2**62)))
        self.plan: Plan | None = None
        self._since = 0
        self._goal = np.asarray(goal, np.float64)
        self._objective: Objective = self.make_objective(self._goal)
        still = np.zeros((len(obs), len(self.top)))
        self._sent = deque([still] * LOOK_BACK, maxlen=LOOK_BACK)

    def act(self, obs: NDArray, goal: NDArray, age: NDArray[np.int64]) -> NDArray:
        """Actions (N, 7) for observations (N, 17) that are ``age`` (N,) steps old."""
        del goal
        self.planned = self.plan is None or self._since >= self.replan_every
        here = self._present(np.asarray(obs, np.float64), age)
        if self.planned:
            self.plan = self.planner.plan(
                here, self._objective, self.plan, 0, self.generator, elapsed=self._since if self.plan else 0
            )
            self._since = 0
        assert self.plan is not None
        action = np.clip(self.plan.actions[:, self._since].astype(np.float64), -1, 1)
        self._since += 1
        speed = action * self.top
        if self._checker is not None:
            for i in range(len(here)):
                if not self._stoppable(here[i], speed[i], self._checker):
                    v = self._sent[-1][i]
                    speed[i] = np.sign(v) * np.maximum(np.abs(v) - self._push, 0)
        self._sent.append(speed)
        return speed / self.top

    def _stoppable(self, here: Floats, wanted: Floats, checker: CollisionChecker) -> bool:
        """Whether an arm at (17,) that takes the velocities (7,) for a step can then stop without touching anything."""
        j = len(self.top)
        q, v = here[3 : 3 + j], here[3 + j :]
        then = np.clip(wanted, v - self._push, v + self._push)
        q = q + DT_S * (v + then) / 2
        way = [q]
        while np.abs(then).max() > STILL:
            slower = np.sign(then) * np.maximum(np.abs(then) - self._push, 0)
            q = q + DT_S * (then + slower) / 2
            way.append(q)
            then = slower
        return bool(checker.free(np.array(way)).all())

    def futures(self, obs: NDArray, n: int) -> NDArray:
        """Places (n, T, 3) of the first arm's hand in n plans to its goal, as far as the model sees."""
        settings = replace(self.planner.settings, horizon=None, candidates=1)
        here, goal = np.tile(np.asarray(obs, np.float64)[:1], (n, 1)), self._goal[:1]
        plan = self.planner.plan(here, self.make_objective(goal), generator=self.generator, settings=settings)
        return self.chain.hand(plan.states[..., 3 : 3 + len(self.top)])

    def _present(self, obs: Floats, age: NDArray[np.int64]) -> Floats:
        """The observations (N, 17) now: since they were read, arms moved as they were commanded."""
        if not age.any():
            return obs
        j = len(self.top)
        q, v = obs[:, 3 : 3 + j].copy(), obs[:, 3 + j :].copy()
        sent = np.array(self._sent)  # (LOOK_BACK, N, J): velocities reached at the end of each step
        for n in range(len(obs)):
            k = min(int(age[n]), LOOK_BACK - 1)
            if k:
                ramp = sent[-k - 1 :, n]
                q[n] += DT_S * ((ramp[1:] + ramp[:-1]) / 2).sum(0)
                v[n] += ramp[-1] - ramp[0]
        return np.concatenate([self.chain.hand(q), q, v], axis=1)
