"""Our planners as the core asks them: in this process, with torch or ONNX Runtime, or behind a socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from dfplanner.types import Plan
from dfplanner_robot.core import Answer, Request
from dfplanner_robot.trajectory import Floats


class Plans(Protocol):
    """``dfplanner.planner.Planner`` and ``dfplanner.runtime.OnnxPlanner``."""

    def plan(
        self, history: Any, objective: Any, previous: Plan | None, committed: int, generator: Any, *, elapsed: Any
    ) -> Plan:
        """A plan for a batch."""
        ...


class Infers(Protocol):
    """``dfplanner.serve.client.PlannerClient``."""

    def infer(self, observation: Any, goal: Any, *, committed: int, elapsed: int | None, reset: bool) -> Any:
        """The server's reply."""
        ...


class LocalPlanner:
    """A planner in this process. ``objective``: what it is asked for with a goal (g,); by default the goal itself,
    which ``OnnxPlanner`` takes. For ``Planner`` use ``torch_planner``.
    """

    def __init__(self, planner: Plans, objective: Callable[[Floats], Any] | None = None, generator: Any = None) -> None:
        self.planner, self.objective, self.generator = planner, objective or (lambda goal: goal), generator
        self._last: Plan | None = None

    def plan(self, observation: Floats, goal: Floats, committed: int, elapsed: int | None) -> Answer:
        """See ``ChunkPlanner``; a plan that was not made yet cannot be continued, and is not."""
        previous = self._last if elapsed is not None else None
        kept, age = (committed, elapsed or 0) if previous is not None else (0, 0)
        plan = self.planner.plan(
            np.asarray(observation)[None], self.objective(goal), previous, kept, self.generator, elapsed=age
        )
        self._last = plan
        known = plan.chunk * int(np.cumprod(plan.levels[0, 1:, 1] == 0).sum())
        return Answer(plan.actions[0, :known], plan.states[0], plan.levels[0, :, 0])


def torch_planner(planner: Any, generator: Any = None) -> LocalPlanner:
    """A ``dfplanner.planner.Planner``, asked to reach goals. Imports torch."""
    from dfplanner.guidance import ReachGoal

    return LocalPlanner(planner, lambda goal: ReachGoal(np.asarray(goal), pos=planner.spec.pos), generator)


def remote(client: Infers, request: Request) -> Answer:
    """The answer of a server whose actions are shares of the joints' velocities; raises the client's errors."""
    r, new = request, request.elapsed is None
    reply = client.infer(r.observation, r.goal, committed=0 if new else r.committed, elapsed=r.elapsed, reset=new)
    return Answer(reply.actions, reply.states, reply.levels)
