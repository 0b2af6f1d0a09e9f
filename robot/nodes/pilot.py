"""What the planner node does, without ROS: when to ask for plans, when the hand has arrived, how to stop."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from dfplanner.types import DFPlannerError
from dfplanner_robot.brake import brake
from dfplanner_robot.core import Answer, ArmCore, CoreSettings, Request
from dfplanner_robot.nodes.goals import Goal
from dfplanner_robot.nodes.patience import Patience
from dfplanner_robot.nodes.trail import Trail
from dfplanner_robot.nodes.worker import Worker
from dfplanner_robot.settings import JointReading
from dfplanner_robot.states import Mode
from dfplanner_robot.trajectory import Floats, JointTrajectory

if TYPE_CHECKING:
    from dfplanner_envs.arm.limits import JointLimits

LEAVES = 1.5
"""Times the tolerance: an arm that arrived and is moved farther away is planned for again."""
TURNS_S = 0.05
"""Seconds from a brake's end to the first plan of the way back: one that begins then is refused as from before."""
RESTS_S = 0.3
"""And from the stop at that way's end to a plan of the worker's."""
LOOK_S = 0.03
"""Seconds between two looks at where the hand is."""
EASE_S, HOLDS_S, LASTS_S = 0.05, 0.1, 0.35
"""A stop sets in over so many seconds; so many of rest follow it; and it lasts so many at least.

A guard refuses what is over before it could be joined, and brakes for what goes on long after it came.
"""
TAKES_PLANS = ("", Mode.READY.value, Mode.ACTIVE.value)
"""What a guard says that follows plans; empty: there is none, or it has not spoken yet."""


@dataclass(frozen=True, eq=False)
class Move:
    """A trajectory to publish; with the answer that it was made of, if it is a plan that begins at ``begins``."""

    trajectory: JointTrajectory
    begins: float = 0.0
    answer: Answer | None = None


class Pilot:
    """One arm and its planner's worker. All of it belongs to one thread; times are as ``ArmCore`` has them.

    ``tolerance_m``: the hand has arrived within so many metres of the goal, while no joint is faster than ``slow``
    rad/s. It then stops, and nothing more is planned until the goal changes or the hand leaves it. What has no hand is
    where its joints say.
    """

    def __init__(self, core: ArmCore, worker: Worker, tolerance_m: float, slow: float = 0.1) -> None:
        self.core, self.worker, self.tolerance_m, self.slow = core, worker, tolerance_m, slow
        self.goal: Goal | None = None
        self.running = True
        """False after ``stop``, until ``resume``."""
        self.arrived = False
        self.guard = ""
        """What the guard last said."""
        self.why = ""
        """Why the guard last braked, a sentence; empty if it did not say."""
        self.patience = Patience()
        self.trail, self.backs_off = Trail(), True
        """Where it came from, and whether it may go back there by itself when it comes no further."""
        self.begun: float | None = None
        """When the last plan begins that was given out."""
        self.plans = 0
        self.error = ""
        """Why the last request came to nothing; empty if it did not."""
        self.times: deque[float] = deque(maxlen=200)
        """Seconds that the last answers took."""
        self._asked: Request | None = None
        self._led = False
        self._seen = self._looked = self._ticked = -math.inf

    @property
    def phase(self) -> str:
        """What it is about: waiting (for a goal), planning, arrived, blocked or held (by the guard), backing, stopped.

        Blocked: the guard cuts plan after plan off, so that the next ones are waited with. Backing: it came no further
        and goes back a little, to try again from there.
        """
        if not self.running:
            return "stopped"
        blocked = self.goal is not None and not self.arrived and self.patience.blocked
        if self.guard not in TAKES_PLANS and not (blocked and self.guard == Mode.BRAKING.value):
            return "held"
        if self.goal is None:
            return "waiting"
        if self.trail.back:
            return "backing"
        return "arrived" if self.arrived else "blocked" if blocked else "planning"

    @property
    def _goes(self) -> bool:
        """Whether there is a goal to go to, and a guard, if any, that lets it."""
        return self.running and self.goal is not None and self.guard in TAKES_PLANS

    @property
    def distance(self) -> float:
        """Metres from the hand to the goal, as last measured; NaN where one of them is not known."""
        state = self.core.estimate(self._seen)
        if state is None or self.goal is None:
            return math.nan
        place = state[0] if self.core.hand is None else self.core.hand(state[0])
        return float(np.linalg.norm(place - self.goal.place))

    def read(self, reading: JointReading) -> bool:
        """Takes a reading; whether it was of use."""
        if not self.core.read(reading):
            return False
        if reading.stamp < self._seen:
            self.trail.clear()
        elif self.core.posture is not None:
            self.trail.note(reading.stamp, self.core.posture)
        self._seen = reading.stamp
        self._looked = min(self._looked, reading.stamp)  # the arm's clock may have begun anew
        return True

    def set_goal(self, goal: Goal | None) -> None:
        """Where the hand is to go; None: nowhere."""
        self.goal = goal
        self.core.set_goal(None if goal is None else goal.as_planners_have_it(self.worker.goal_size))
        self.arrived, self._looked = False, -math.inf
        self.patience.forget()
        self.trail.forget()

    def guard_says(self, mode: str, now: float) -> None:
        """The guard's mode: while it takes no plans none are made, and the next begins where the arm is then."""
        last = self.core.trajectory
        # Its braking may have been too short to be heard of: then it is ready though the plan is not over.
        cut = (self.guard, mode) == (Mode.ACTIVE.value, Mode.READY.value) and last is not None and now < last.end
        if cut or (mode not in TAKES_PLANS and mode != self.guard):
            self.core.forget()
            self._led = False
            if self._goes:
                self.patience.cut(now)
                self._turned(now)
        self.guard = mode

    def tick(self, now: float) -> Move | None:
        """Takes what the worker answered, asks for the next plan if it is time; what to publish. Never waits."""
        if now < self._ticked:  # the clock went back
            self.core.reset()
            self.patience.forget()
            self.trail.clear()
        self._ticked = now
        move = self._collected(now)
        if self._arrives(now):
            return self._halted(now)
        able = self._goes and not self.arrived and self.worker.state == "ready" and not self.worker.busy
        if able and now >= self.patience.until and self.core.due(now) and self._settled(now):
            if self.trail.stuck(now) and self.backs_off:
                self.trail.turn()
            return self._asks(now) or move
        return move

    def _asks(self, now: float) -> Move | None:
        """Asks the worker for the next plan; or the next part of the way back, which needs none."""
        request = self._asked = self.core.ask(now)
        if request is None:
            return None
        if (place := self.trail.next(request.q)) is not None:
            self._led = True
            return self._adopted(now, request, self.core.towards(request, place), at_once=True)
        if self._led:  # the worker does not know what is under way: it is asked from rest
            self._led, self.patience.until = False, now + RESTS_S
            return self._halted(now)
        if not self.worker.ask(request):
            self.core.failed(request)
        return None

    def _turned(self, now: float) -> None:
        """A plan was cut off: who comes no further goes back; who does already makes for a place farther back."""
        if self.trail.back:
            self.trail.skip()
        elif self.patience.blocked and self.backs_off:
            self.trail.turn()
        if self.trail.back:
            self.patience.until = now + TURNS_S

    def stop(self, now: float) -> Move | None:
        """Plans no more until ``resume``; what brings the arm to rest, or None where it is at rest."""
        self.running = False
        return self._halted(now)

    def resume(self) -> None:
        """Plans again, from where the arm is."""
        self.running = True
        self.patience.forget()

    def reset(self, now: float) -> Move | None:
        """Forgets the goal, the plan and the readings; what brings the arm to rest, or None where it is at rest."""
        move = self._halted(now)
        self.core.reset()
        self.set_goal(None)
        self._seen, self.error = -math.inf, ""
        return move

    def swap(self, worker: Worker) -> Worker:
        """Asks another worker from now on; returns the last one, for the caller to close."""
        old, self.worker = self.worker, worker
        if self._asked is not None:
            self.core.failed(self._asked)
        self.set_goal(self.goal)
        return old

    def _collected(self, now: float) -> Move | None:
        move = None
        while self.worker.outcomes:
            outcome = self.worker.outcomes.popleft()
            if outcome.answer is None:
                self.error = outcome.error
                self.core.failed(outcome.request)
                continue
            self.times.append(outcome.took_s)
            move = self._adopted(now, outcome.request, outcome.answer) or move
            self.trail.plans += move is not None
        return move

    def _adopted(self, now: float, request: Request, answer: Answer, at_once: bool = False) -> Move | None:
        try:
            trajectory = self.core.adopt(now, request, answer, at_once=at_once)
        except DFPlannerError as e:
            self.error = str(e)
            return None
        self.error = ""
        if trajectory is None:
            return None
        self.begun, self.plans = request.begins, self.plans + 1
        return Move(trajectory, trajectory.stamp, answer)

    def _settled(self, now: float) -> bool:
        """Whether the arm has come to rest where a guard holds it; a plan from what it still moves would be refused."""
        if self.guard != Mode.READY.value or self.core.trajectory is not None:
            return True
        state = self.core.estimate(now)
        return state is None or bool(np.abs(state[1]).max() <= self.core.settings.still)

    def _arrives(self, now: float) -> bool:
        """Whether the hand has arrived just now. An arm that left again is not at its goal any more."""
        late = now - self._seen > self.core.settings.oldest_s
        if not self._goes or late or self._seen < self._looked + LOOK_S:
            return False
        self._looked = self._seen
        state, distance = self.core.estimate(self._seen), self.distance
        if state is None or math.isnan(distance):
            return False
        if self.patience.at(distance):
            self.trail.tries = 0
        if self.arrived:
            self.arrived = distance <= LEAVES * self.tolerance_m
            return False
        self.arrived = distance <= self.tolerance_m and bool(np.abs(state[1]).max() <= self.slow)
        return self.arrived

    def _halted(self, now: float) -> Move | None:
        """The way to rest from what is commanded now; the plan is forgotten, that way is what is commanded."""
        core, last, seen = self.core, self.core.trajectory, self.core.estimate(now)
        if last is not None:
            q, v, a, _ = last.curve.at(now)
            moves = v.any()
        elif seen is not None:
            q, v, a = *seen, np.zeros(len(core.limits))
            moves = np.abs(v).max() > core.settings.still
        else:
            return None
        core.forget()
        if not moves:
            return None
        core.trajectory = to_rest(core.limits, core.settings, now, q, v, a)
        return Move(core.trajectory)


def to_rest(
    limits: JointLimits, settings: CoreSettings, now: float, q: Floats, v: Floats, a: Floats
) -> JointTrajectory:
    """A smooth stop from positions, velocities and accelerations (J,), and a while of rest."""
    push = settings.brake_share * limits.acceleration
    gentle = replace(limits, acceleration=push, jerk=np.minimum(push / EASE_S, settings.brake_share * limits.jerk))
    stop = brake(limits.names, 0.0, q, v, gentle, a)
    # A few even points say it well enough; the ends of its parts can lie less than a microsecond apart.
    pieces = max(2, math.ceil(stop.end / (settings.dt_s / 2)))
    t = np.append(stop.end * np.arange(pieces + 1) / pieces, max(stop.end + HOLDS_S, LASTS_S))
    places, speeds, pushes, _ = stop.curve.at(np.minimum(t, stop.end))
    speeds[-2:] = pushes[-2:] = 0.0
    return JointTrajectory(tuple(limits.names), now, t, places, speeds, pushes)
