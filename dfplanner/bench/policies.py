"""The planner as the benchmark sees it: N episodes in lock step, one batch of plans."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from dfplanner.controller import RecedingHorizonController
from dfplanner.guidance import Objective, ReachGoal
from dfplanner.planner import Planner
from dfplanner.types import Plan

MakeObjective = Callable[[NDArray], Objective]


class PlannerPolicy:
    """A planner behind its receding-horizon controller, towards each episode's goal."""

    def __init__(
        self, planner: Planner, replan_every: int, *, objective: MakeObjective | None = None, actions: str = "diffused"
    ) -> None:
        self.planner = planner
        self.generator = torch.Generator(planner.device)
        self.controller = RecedingHorizonController(planner, replan_every, actions=actions, generator=self.generator)  # pyright: ignore[reportArgumentType]
        self.make_objective = objective or ReachGoal
        self._objective: Objective | None = None

    def reset(self, obs: NDArray, goal: NDArray, rng: np.random.Generator) -> None:
        """N episodes begin; the same rng gives the same plans."""
        del obs
        self.generator.manual_seed(int(rng.integers(2**62)))
        self.controller.reset()
        self._objective = self.make_objective(goal)

    def act(self, obs: NDArray, goal: NDArray) -> NDArray:
        """(N, 4), (N, 2) -> (N, 2). The goal is the one told at ``reset``: it does not move within an episode."""
        del goal
        return self.controller.act(obs, self._objective)

    @property
    def planned(self) -> bool:
        """Whether the last call planned."""
        return self.controller.planned

    @property
    def last_plan(self) -> Plan | None:
        """The plan being followed."""
        return self.controller.plan

    @property
    def nfe_per_plan(self) -> float:
        """Network evaluations of the last plan."""
        return float(self.planner.calls)
