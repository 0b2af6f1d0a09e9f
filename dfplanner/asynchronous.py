"""The controller that never waits: it executes one plan while the next is being made.

A plan asked for at tick t, of the observation at t, arrives d ticks later. Until then the old plan is executed, so its
next actions are *committed*: the new plan is told them, begins with them, and joins them without a jump (real-time
chunking; Black et al. 2025). Time is counted in ticks, calls of ``act``; the caller keeps the rate.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from dfplanner.commitment import committed_actions, known_actions
from dfplanner.dynamics import STEPS_STUCK, Dynamics, Step
from dfplanner.guidance import Objective
from dfplanner.planner import Planner
from dfplanner.types import DFPlannerError, Plan


@dataclass(frozen=True)
class PlanRequest:
    """What a worker needs to make the next plan; the arguments of ``Planner.plan`` for B loops in lock step."""

    tick: int
    """When it was asked for; the plan begins there."""
    observation: NDArray[np.float64]
    """(B, obs)"""
    objective: Objective | None
    previous: Plan | None
    elapsed: int
    """Ticks since ``previous`` began."""
    committed: int
    """Actions of ``previous`` from there on that will be executed before an answer can arrive."""
    foreseen: NDArray[np.float64] | None = None
    """(B, obs) what they will lead to, if that is known."""


MakePlan = Callable[[PlanRequest], Plan]


class PlanWorker(Protocol):
    """Who makes the plans: a thread, a simulated delay, or a client of a server."""

    def submit(self, request: PlanRequest) -> None:
        """Begin to plan; returns at once. What is still being made is of no use any more."""
        ...

    def poll(self, tick: int) -> tuple[PlanRequest, Plan] | None:
        """A plan that has arrived by now, with what was asked, or None; never waits. Raises what went wrong."""
        ...

    def close(self) -> None:
        """End; nothing is submitted afterwards."""
        ...


def plans_of(planner: Planner, generator: torch.Generator | None = None) -> MakePlan:
    """Requests answered by a planner in this process."""

    def make(r: PlanRequest) -> Plan:
        return planner.plan(
            r.observation,
            r.objective,
            r.previous,
            r.committed,
            generator,
            elapsed=r.elapsed,
            foreseen=r.foreseen,
        )

    return make


class SimulatedWorker:
    """Plans that arrive a given number of ticks after they were asked for, whatever they took: for tests and studies.

    ``delay``: ticks, 0 or more; or one for each plan in turn.
    """

    def __init__(self, make: MakePlan, delay: int | Iterable[int]) -> None:
        self.make = make
        self._delays: Iterator[int] = repeat(delay) if isinstance(delay, int) else iter(delay)
        self._due: tuple[int, PlanRequest] | None = None

    def submit(self, request: PlanRequest) -> None:
        """It will be there ``delay`` ticks later."""
        self._due = request.tick + next(self._delays), request

    def poll(self, tick: int) -> tuple[PlanRequest, Plan] | None:
        """Plans now what is due by ``tick``."""
        if self._due is None or tick < self._due[0]:
            return None
        request, self._due = self._due[1], None
        return request, self.make(request)

    def close(self) -> None:
        """Forgets what is due."""
        self._due = None


class ThreadWorker:
    """Plans made on a thread of their own; of several requests that wait, the last one is answered."""

    def __init__(self, make: MakePlan) -> None:
        self.make = make
        self._asked: queue.SimpleQueue[PlanRequest | None] = queue.SimpleQueue()
        self._made: queue.SimpleQueue[tuple[PlanRequest, Plan | Exception]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="dfplanner-plans", daemon=True)
        self._thread.start()

    def submit(self, request: PlanRequest) -> None:
        """Returns at once; raises DFPlannerError after ``close``."""
        if not self._thread.is_alive():
            raise DFPlannerError("this worker is closed; make a new one for more plans")
        self._asked.put(request)

    def poll(self, tick: int) -> tuple[PlanRequest, Plan] | None:
        """The oldest plan that is done; a failure in the thread is raised here, as a DFPlannerError."""
        try:
            request, plan = self._made.get_nowait()
        except queue.Empty:
            return None
        if isinstance(plan, Exception):
            raise DFPlannerError(f"the plan asked for at tick {request.tick} could not be made: {plan}") from plan
        return request, plan

    def close(self) -> None:
        """Waits for the plan being made, then ends the thread; may be called twice."""
        self._asked.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (request := self._asked.get()) is not None:
            while not self._asked.empty():
                if (newer := self._asked.get()) is None:
                    return
                request = newer
            try:
                self._made.put((request, self.make(request)))
            except Exception as e:  # whatever it is, the control loop must learn of it
                self._made.put((request, e))


Fallback = Literal["zero", "hold"] | Callable[[NDArray[np.float64], NDArray[np.float32]], NDArray[np.float32]]
"""What is done without a plan: nothing, the last action again, or what f(observation (B, obs), last (B, act)) says."""


class AsynchronousController:
    """Turns observations into actions at a fixed rate, for B loops in lock step, while a worker plans.

    Every ``replan_every`` ticks, or as often as plans arrive if that is rarer, it asks for a plan, committed to what
    will be executed meanwhile: the longest of the last ten delays (at first ``expected_delay``), in ticks. A plan that
    arrives later than that is entered at its right place; one jump may show, and is counted in ``late``. Where the old
    plan ends before a new one is there, ``fallback`` acts and ``stalls`` counts; so it does until the first plan.
    With ``dynamics`` a plan goes on from where the committed actions are predicted to lead; without, whole chunks of
    them are held, and the model says where. ``commit=False`` tells plans nothing of what is under way. ``act``,
    ``reset`` and ``close`` may come from several threads.
    """

    def __init__(
        self,
        worker: PlanWorker,
        replan_every: int,
        act_dim: int,
        *,
        dynamics: Dynamics | None = None,
        fallback: Fallback = "zero",
        commit: bool = True,
        expected_delay: int = 0,
    ) -> None:
        if replan_every < 1 or act_dim < 1 or expected_delay < 0:
            raise DFPlannerError(
                f"replan_every {replan_every}, act_dim {act_dim} and expected_delay {expected_delay} were given; "
                "expected at least 1, 1 and 0"
            )
        if not callable(fallback) and fallback not in ("zero", "hold"):
            raise DFPlannerError(f"the fallback is {fallback!r}; expected 'zero', 'hold' or a function")
        self.worker, self.replan_every, self.act_dim = worker, replan_every, act_dim
        self.fallback: Fallback = fallback
        self.commit, self.dynamics = commit, dynamics
        self._recent: deque[int] = deque([expected_delay], maxlen=10)
        self._lock = threading.RLock()
        self.reset()

    def reset(self) -> None:
        """A new episode begins: plans and counts are forgotten, also the one under way; delays are remembered."""
        with self._lock:
            self.plan: Plan | None = None
            """The plan being executed."""
            self.switched = self.stalled = False
            """Whether the last tick was the first of another plan, and whether it had none."""
            self.plans = self.stalls = self.late = 0
            """Plans that arrived, ticks without one, plans that came later than they were committed for."""
            self._tick = self._begun = self._stalled_since = 0
            self._asked: int | None = None
            self._pending: PlanRequest | None = None
            self._last: NDArray[np.float32] | None = None
            self._steps: deque[Step] = deque(maxlen=STEPS_STUCK)

    @property
    def expected_delay(self) -> int:
        """Ticks until a plan is there: the longest of the last ten delays."""
        return max(self._recent)

    @property
    def place(self) -> int:
        """Which of its plan's actions the last tick executed, counted from 0."""
        return self._tick - 1 - self._begun

    def act(self, observation: NDArray[np.float64], objective: Objective | None = None) -> NDArray[np.float32]:
        """The actions (B, act) of this tick for observations (B, obs). Raises what the worker raises, once."""
        with self._lock:
            tick, self.switched = self._tick, False
            self._receive(tick)
            if self._pending is None and self._due(tick):
                self._ask(tick, observation, objective)
                self._receive(tick)
            action = self._action(tick)
            self.stalled = action is None
            if action is None:
                self.stalls += 1
                self._stalled_since += 1
                action = self._fall_back(observation)
            self._last, self._tick = action, tick + 1
            self._steps.append((np.array(observation), action))
            return action

    def close(self) -> None:
        """Ends the worker."""
        self.worker.close()

    def __enter__(self) -> AsynchronousController:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _due(self, tick: int) -> bool:
        return self._asked is None or tick - self._asked >= self.replan_every

    def _ask(self, tick: int, observation: NDArray[np.float64], objective: Objective | None) -> None:
        previous, elapsed = (self.plan, tick - self._begun) if self.commit and self.plan else (None, 0)
        left = known_actions(previous) - elapsed if previous is not None else 0
        committed = max(0, min(self.expected_delay, left))
        self._asked, self._stalled_since = tick, 0
        # the caller may write the next observation into the same array while the worker reads this one
        seen = np.array(observation)
        foreseen = None
        if previous is not None and committed and self.dynamics is not None:
            under_way = committed_actions(previous, elapsed, committed)
            foreseen = self.dynamics.predict(seen, under_way, list(self._steps))
        self._pending = PlanRequest(tick, seen, objective, previous, elapsed, committed, foreseen)
        self.worker.submit(self._pending)

    def _receive(self, tick: int) -> None:
        try:
            while (answer := self.worker.poll(tick)) is not None:
                request, plan = answer
                if request is self._pending:  # not one of an episode that is over
                    self._pending = None
                    self._recent.append(tick - request.tick)
                    self.late += self.commit and self.plan is not None and tick - request.tick > request.committed
                    self._adopt(plan, request, tick)
        except Exception:
            self._pending = None
            raise

    def _adopt(self, plan: Plan, request: PlanRequest, tick: int) -> None:
        """From this tick on ``plan`` is executed; it began when it was asked for, and stood still during a stall."""
        self.plan, self._begun, self.switched = plan, request.tick + self._stalled_since, True
        self.plans += 1

    def _action(self, tick: int) -> NDArray[np.float32] | None:
        """The plan's actions for this tick, if it has any."""
        at = tick - self._begun
        return None if self.plan is None or at >= known_actions(self.plan) else self.plan.actions[:, at]

    def _fall_back(self, observation: NDArray[np.float64]) -> NDArray[np.float32]:
        last = self._last if self._last is not None else np.zeros((len(observation), self.act_dim), np.float32)
        if callable(self.fallback):
            return np.asarray(self.fallback(observation, last), np.float32)
        return last if self.fallback == "hold" else np.zeros_like(last)
