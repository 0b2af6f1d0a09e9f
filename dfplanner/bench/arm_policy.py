"""A planner over many arms in lock step, each reading late, lost or noisy."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from dfplanner.guidance import Objective, ReachGoal
from dfplanner.planner import Planner
from dfplanner.types import Plan
from dfplanner_envs.arm.ik import Chain
from dfplanner_envs.arm.limits import Floats
from dfplanner_envs.arm.sim import DT_S
from dfplanner_envs.arm.task import reach_task

LOOK_BACK = 20
"""Commands that are remembered, for readings as old as that."""


class ArmPlannerPolicy:
    """A planner behind N arms: each plan goes on from the last, and begins where readings and commands say the arm is.

    ``replan_every``: control steps between plans.
    """

    def __init__(
        self, planner: Planner, replan_every: int = 2, objective: Callable[[NDArray], Objective] | None = None
    ) -> None:
        self.planner, self.replan_every = planner, replan_every
        task = reach_task()
        # The model is told the posture that answers a goal, not the place of the hand: kinematics need not be learnt.
        self.make_objective = objective or (lambda goal: ReachGoal(task.posture(goal)[0], pos=planner.spec.pos))
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
        self._objective = self.make_objective(self._goal)
        still = np.zeros((len(obs), len(self.top)))
        self._sent = deque([still] * LOOK_BACK, maxlen=LOOK_BACK)

    def act(self, obs: NDArray, goal: NDArray, age: NDArray[np.int64]) -> NDArray:
        """Actions (N, 7) for observations (N, 17) that are ``age`` (N,) steps old."""
        del goal
        self.planned = self.plan is None or self._since >= self.replan_every
        if self.planned:
            here = self._present(np.asarray(obs, np.float64), age)
            self.plan = self.planner.plan(
                here, self._objective, self.plan, 0, self.generator, elapsed=self._since if self.plan else 0
            )
            self._since = 0
        assert self.plan is not None
        action = np.clip(self.plan.actions[:, self._since].astype(np.float64), -1, 1)
        self._since += 1
        self._sent.append(action * self.top)
        return action

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
