"""The receding-horizon controller: execute the first actions of a plan, then plan again. No environment, no clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from dfplanner.types import ActionChunk, DFPlannerError, Plan

if TYPE_CHECKING:  # a planner of another runtime needs no torch
    import torch

    from dfplanner.guidance import Objective
    from dfplanner.planner import Planner

Actions = Literal["diffused", "inverse", "pd"]
ObjectiveFn = Callable[[NDArray[np.float64]], "Objective | None"]


@dataclass(frozen=True)
class PDGains:
    """action = clip(kp · (planned position - position) - kd · velocity, ±limit); by default the data's own."""

    kp: float = 10.0
    kd: float = 1.0
    limit: float = 1.0


class RecedingHorizonController:
    """Turns observations into actions, for a batch of B loops in lock step.

    Every ``replan_every`` steps it plans, warm-started from the last plan if ``warm_start``. How a plan becomes
    actions: ``diffused``, the plan's own action parts; ``inverse``, a learned inverse dynamics towards the next planned
    observation; ``pd``, a hand-written tracking law towards the planned positions.
    """

    def __init__(
        self,
        planner: Planner,
        replan_every: int,
        *,
        actions: Actions = "diffused",
        warm_start: bool = False,
        gains: PDGains | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        if actions not in ("diffused", "inverse", "pd"):
            raise DFPlannerError(f"actions can be 'diffused', 'inverse' or 'pd', not {actions!r}")
        span = (planner.settings.horizon or planner.spec.horizon) - 1
        chunks = min(planner.settings.action_chunks, span) if actions == "diffused" else span
        if not 1 <= replan_every <= chunks * planner.spec.chunk:
            raise DFPlannerError(
                f"replanning every {replan_every} steps does not fit: a plan holds {chunks * planner.spec.chunk} "
                "actions; choose fewer steps or plan more chunks"
            )
        if actions == "inverse" and planner.checkpoint.inverse is None:
            raise DFPlannerError("this checkpoint holds no inverse dynamics; take actions='diffused' or 'pd'")
        self.planner, self.replan_every, self.how, self.warm_start = (
            planner,
            replan_every,
            actions,
            warm_start,
        )
        self.gains, self.generator = gains or PDGains(), generator
        self.plan: Plan | None = None
        self.planned = False
        """Whether the last tick planned."""
        self._at = 0
        self._chunk = np.zeros((0, 0, 0), np.float32)

    def reset(self) -> None:
        """Forgets the plan: a new episode begins."""
        self.plan, self.planned, self._at = None, False, 0

    def act(self, observation: NDArray[np.float64], objective: Objective | None) -> NDArray[np.float32]:
        """The actions (B, act) for observations (B, obs); plans when one is due."""
        self.planned = self.plan is None or self._at >= self.replan_every
        if self.planned:
            self.plan = self.planner.plan(
                observation,
                objective,
                self.plan if self.warm_start else None,
                generator=self.generator,
                elapsed=self._at,
            )
            self._at = 0
        assert self.plan is not None
        action = self._action(self.plan, observation)
        self._at += 1
        return action

    def chunk(self) -> ActionChunk:
        """The actions of the present plan that are still to be executed before the next."""
        if self.plan is None:
            raise DFPlannerError("there is no plan yet; call act() first")
        return ActionChunk(self.plan.actions[:, self._at : self.replan_every], self._at, self.plan.dt_s)

    def _action(self, plan: Plan, observation: NDArray[np.float64]) -> NDArray[np.float32]:
        if self.how == "diffused":
            return plan.actions[:, self._at]
        token, step = divmod(self._at, plan.chunk)
        if self.how == "inverse":
            inverse = self.planner.checkpoint.inverse
            if inverse is not None and step == 0:  # from where it is, not from where it was planned to be
                self._chunk = inverse.chunk(
                    self.planner.tokenizer, np.asarray(observation, np.float32), plan.states[:, token + 1]
                )
            return self._chunk[:, step]
        pos = list(self.planner.spec.pos)
        g, d = self.gains, len(pos)
        # the law brakes to rest at what it aims at; aiming kd/kp seconds ahead it keeps the plan's own speed instead
        when = min((self._at + g.kd / g.kp / plan.dt_s) / plan.chunk, plan.states.shape[1] - 1)
        lo = min(int(when), plan.states.shape[1] - 2)
        aim = plan.states[:, lo, pos] + (when - lo) * (plan.states[:, lo + 1, pos] - plan.states[:, lo, pos])
        law = g.kp * (aim - observation[:, pos]) - g.kd * observation[:, d : 2 * d]
        return np.clip(law, -g.limit, g.limit).astype(np.float32)
