"""The controller: it replans when due, executes the plan's own actions in order, and forgets when told to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike, NDArray

from dfplanner.controller import RecedingHorizonController
from dfplanner.guidance import ReachGoal
from dfplanner.planner import Planner
from dfplanner.settings import PlannerSettings
from dfplanner.testing import Circle
from dfplanner.types import DFPlannerError, Plan

CIRCLE = Circle()


def place(at: ArrayLike) -> NDArray[np.float64]:
    return CIRCLE.position(at).astype(np.float64)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Counting(Planner):
    """A planner that remembers what it was asked."""

    def __init__(self, action_chunks: int) -> None:
        super().__init__(CIRCLE.checkpoint(), PlannerSettings(steps=8, action_steps=4, action_chunks=action_chunks))
        self.asked: list[tuple[Plan | None, int]] = []
        self.given: list[Plan] = []

    def plan(self, history, objective=None, previous=None, committed=0, generator=None, **more) -> Plan:  # pyright: ignore
        self.asked.append((previous, more.get("elapsed", 0)))
        self.given.append(super().plan(history, objective, previous, committed, generator, **more))
        return self.given[-1]


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("every", [1, 2, 3, 4])
def test_the_controller_executes_the_plans_own_actions_and_replans_when_due(every: int, warm: bool) -> None:
    """Round the circle in closed loop: every action is the world's own, in order, and no plan is used for longer."""
    p = Counting(2)
    c = RecedingHorizonController(p, every, warm_start=warm, generator=rng())
    at, way = np.array([2, 15]), np.array([1, -1])
    for step in range(11):
        objective = ReachGoal([CIRCLE.goal(a, w) for a, w in zip(at, way, strict=True)])
        action = c.act(place(at), objective)
        assert c.planned == (step % every == 0) and len(p.given) == step // every + 1
        assert (action == p.given[-1].actions[:, step % every]).all()
        np.testing.assert_allclose(action, CIRCLE.action(at, way), atol=5e-3)
        left = c.chunk()
        assert (
            left.actions == p.given[-1].actions[:, step % every + 1 : every]
        ).all() and left.start == step % every + 1
        at = at + way
    for i, (previous, elapsed) in enumerate(p.asked):
        assert (previous is (p.given[i - 1] if warm and i else None)) and (elapsed == (every if i else 0))


def test_reset_forgets_the_plan() -> None:
    p = Counting(1)
    c = RecedingHorizonController(p, 2, warm_start=True, generator=rng())
    c.act(place([0]), None)
    c.reset()
    assert c.plan is None and not c.planned
    with pytest.raises(DFPlannerError, match="no plan yet"):
        c.chunk()
    c.act(place([7]), None)
    assert c.planned and [previous for previous, _ in p.asked] == [None, None] and p.asked[1][1] == 0


def test_a_controller_that_cannot_work_is_a_sentence() -> None:
    p = Counting(2)
    for every in (0, 5):
        with pytest.raises(DFPlannerError, match="holds 4 actions"):
            RecedingHorizonController(p, every)
    with pytest.raises(DFPlannerError, match="'diffused', 'inverse' or 'pd'"):
        RecedingHorizonController(p, 1, actions="telepathy")  # pyright: ignore[reportArgumentType]
    with pytest.raises(DFPlannerError, match="no inverse dynamics"):
        RecedingHorizonController(p, 1, actions="inverse")
