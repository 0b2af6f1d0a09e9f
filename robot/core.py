"""Joint readings and a goal in, joint trajectories out: what a planner node does, without ROS, time being a number.

The loop of a node: ``read`` each reading; when ``due``, ``ask`` for a request, plan it wherever that is done, ``adopt``
the answer and publish the trajectory. What will be executed before the answer can be there is committed: the plan is
told so, begins with it, and joins the motion without a jump (real-time chunking, as ``dfplanner.asynchronous`` does).
Every trajectory ends at rest, so an arm that is given no further one stops.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfplanner.types import DFPlannerError
from dfplanner_robot.seams import ending, followed
from dfplanner_robot.sensing import REACTION_S
from dfplanner_robot.settings import JointReading
from dfplanner_robot.trajectory import SAME_S, Floats, JointTrajectory, from_actions

if TYPE_CHECKING:
    from dfplanner_envs.arm.limits import JointLimits

SLEW = 0.5
"""Of the push that actions may ask for, how much it may change in a step: else there is more between two points."""
BACK_HZ, BACK_STEPS, BACK_SHARE = 8.0, 8, 0.4
"""How fast a near posture is gone to, actions of such a plan, and how much of that push they take."""


class Answer(NamedTuple):
    """A plan. actions (H, J): joint velocities as shares of the limits, those alone that may be executed."""

    actions: NDArray[np.floating]
    states: NDArray[np.floating] | None = None
    """(T, obs) the observations foreseen."""
    levels: NDArray[np.int64] | None = None
    """(T,) the noise level each was left at."""


class ChunkPlanner(Protocol):
    """Who makes plans for one arm; ``dfplanner_robot.planners`` has those that wrap ours."""

    def plan(self, observation: Floats, goal: Floats, committed: int, elapsed: int | None) -> Answer:
        """A plan from an observation (obs,) to a goal.

        ``elapsed``: it continues the last plan, which began so many steps ago, and whose next ``committed`` actions are
        executed in any case; None: it continues none. Raises what went wrong.
        """
        ...


@dataclass(frozen=True)
class CoreSettings:
    """How the core plans."""

    dt_s: float = 0.05
    """Seconds an action lasts."""
    replan_every: int = 2
    """Actions after which the next plan is asked for."""
    expected_s: float = 0.05
    """Seconds a plan is thought to take until the first ones are there; then it is the longest of the last ten."""
    oldest_s: float = 0.25
    """Age of a reading from which a plan may still begin."""
    astray_rad: float = 0.05
    """An arm farther than this, and 0.1 s of its motion, from where the last trajectory has it is planned for anew.

    It must be less than the guard's ``jump_rad``, which refuses plans that begin elsewhere.
    """
    still: float = 0.02
    """rad/s below which a measured joint counts as at rest when planned for anew."""
    brake_share: float = 0.4
    """Of the acceleration and jerk limits, for the stop that ends a trajectory."""
    speed_share: float = 0.9
    push_share: float = 0.36
    """Of the velocity and acceleration limits, what actions may ask for, less than the guard allows; they get that."""
    end_rad: float = 0.03
    """So far before a joint's end actions stop."""

    def __post_init__(self) -> None:
        if not (self.dt_s > 0 and self.replan_every >= 1 and self.expected_s >= 0 and 0 < self.brake_share <= 1):
            raise DFPlannerError(f"{self} came; expected dt_s above 0, at least 1 action, and a share up to 1")


@dataclass(frozen=True, eq=False)
class Request:
    """What is asked of a planner: the arguments of ``ChunkPlanner.plan``, and when the plan begins."""

    begins: float
    observation: Floats
    goal: Floats
    committed: int
    elapsed: int | None
    q: Floats
    v: Floats
    a: Floats
    """(J,) the state that the plan's motion begins with."""
    held: Floats | None = None
    """(committed, J) the actions that are executed in any case; None: none are."""


class ArmCore:
    """The planner's side of an arm. ``hand``: positions (..., 3) of postures (..., J); None: observations are q and v.

    Observations are [hand, q, v], as the arm's environment gives them. Times are seconds of the clock that stamps
    readings. ``counts``: readings ``read``, ``bad``, ``old``, and of other joints (``foreign``); observations made from
    an old one (``held``); requests that no reading was fresh enough for (``blind``); plans that came ``late``,
    ``expired`` or were ``refused``; plans made ``anew`` where the arm was not where it should be.
    """

    def __init__(
        self, limits: JointLimits, hand: Callable[[Floats], Floats] | None, settings: CoreSettings | None = None
    ) -> None:
        self.limits, self.hand, self.settings = limits, hand, settings or CoreSettings()
        self._gentle = replace(
            limits,
            acceleration=self.settings.brake_share * limits.acceleration,
            jerk=self.settings.brake_share * limits.jerk,
        )
        self._recent: deque[float] = deque([self.settings.expected_s], maxlen=10)
        self.counts: Counter[str] = Counter()
        self.goal: Floats | None = None
        self.reset()

    def reset(self) -> None:
        """A new beginning: readings and the plan are forgotten; the goal, counts and delays are kept."""
        self._reading: tuple[float, Floats, Floats] | None = None
        self.forget()

    def forget(self) -> None:
        """The arm was stopped: the next plan begins where it is then."""
        self.trajectory: JointTrajectory | None = None
        """The last one that was given out."""
        self._begun: float | None = None
        self._actions: Floats | None = None
        self._asked: float | None = None
        self._pending: Request | None = None

    def set_goal(self, goal: ArrayLike | None) -> None:
        """Where to go, as the planner understands it (the hand's position in metres); None: nowhere, plan no more."""
        value = None if goal is None else np.array(goal, np.float64)
        if value is not None and (value.ndim != 1 or not np.isfinite(value).all()):
            raise DFPlannerError(f"the goal is {goal!r}; expected a few finite numbers")
        self.goal, self._asked = value, None

    @property
    def expected_s(self) -> float:
        """Seconds until a plan is there: the longest of the last ten delays."""
        return max(self._recent)

    def read(self, reading: JointReading) -> bool:
        """Takes a reading, its joints in any order; what is older, lacks joints or is not finite is counted and left.

        Returns whether it was taken.
        """
        names, wanted = tuple(reading.names), self.limits.names
        if set(wanted).isdisjoint(names):
            self.counts["foreign"] += 1
            return False
        if not set(wanted) <= set(names) or len(np.atleast_1d(reading.positions)) != len(names):
            self.counts["bad"] += 1
            return False
        order = [names.index(name) for name in wanted]
        q = np.asarray(reading.positions, np.float64)[order]
        v = np.zeros_like(q)
        if reading.velocities is not None and len(reading.velocities) == len(names):
            v = np.asarray(reading.velocities, np.float64)[order]
        elif self._reading is not None and reading.stamp > self._reading[0]:
            v = (q - self._reading[1]) / (reading.stamp - self._reading[0])
        if not (np.isfinite(q).all() and np.isfinite(v).all() and math.isfinite(reading.stamp)):
            self.counts["bad"] += 1
            return False
        if self._reading is not None and reading.stamp <= self._reading[0]:
            if self._reading[0] - reading.stamp <= self.settings.oldest_s:
                self.counts["old"] += 1
                return False
            self.reset()  # the arm's clock began anew
        self.counts["read"] += 1
        self._reading = (reading.stamp, q, v)
        return True

    @property
    def posture(self) -> Floats | None:
        """Positions (J,) as last read, if they were."""
        return None if self._reading is None else self._reading[1]

    def estimate(self, t: float) -> tuple[Floats, Floats] | None:
        """Positions and velocities (J,) at time ``t``, or None if the last reading is too old.

        Since the reading the arm moved as it was commanded, or, where it was not, went on at its velocity.
        """
        if self._reading is None:
            return None
        stamp, q, v = self._reading
        age = t - stamp
        if age > self.settings.oldest_s:
            return None
        if age <= 0:
            return q, v
        if self.trajectory is None or stamp < self.trajectory.stamp - SAME_S:
            return q + age * v, v
        place, speed, _, _ = self.trajectory.curve.at([stamp, t])
        return q + place[1] - place[0], v + speed[1] - speed[0]

    def observation(self, t: float) -> Floats | None:
        """[hand, q, v] at time ``t``, or None if the last reading is too old."""
        state = self.estimate(t)
        if state is None:
            return None
        hand = [] if self.hand is None else [self.hand(state[0])]
        return np.concatenate([*hand, *state])

    def due(self, now: float) -> bool:
        """Whether a plan should be asked for: there is a goal, none is under way, and the last is old enough."""
        if self.goal is None or self._pending is not None:
            return False
        if self._begun is not None and now < self._begun + self.settings.dt_s:
            return False  # two plans must not begin at the same time
        return self._asked is None or now - self._asked >= self.settings.replan_every * self.settings.dt_s - SAME_S

    def ask(self, now: float) -> Request | None:
        """The next request, or None if no goal is set or no reading is fresh enough. Supersedes one under way."""
        if self.goal is None:
            return None
        self._pending = self._request(now, self.goal)
        if self._pending is None:
            self.counts["blind"] += 1
            return None
        self._asked = now
        if self._reading is not None and now - self._reading[0] > self.settings.dt_s:
            self.counts["held"] += 1
        return self._pending

    def _request(self, now: float, goal: Floats) -> Request | None:
        dt, last = self.settings.dt_s, self.trajectory
        if last is not None and self._begun is not None and self._actions is not None and now < last.end:
            elapsed = max(0, math.floor((now - self._begun) / dt + SAME_S))
            begins = self._begun + elapsed * dt
            left = len(self._actions) - elapsed
            state, seen, here = last.curve.at(begins), self.estimate(begins), self.observation(begins)
            if seen is None or here is None:
                return None
            astray = (np.abs(seen[0] - state.q) - REACTION_S * np.abs(state.v)).max() > self.settings.astray_rad
            if left > 0 and not astray:
                committed = min(max(0, math.ceil((now + self.expected_s - begins) / dt - SAME_S)), left)
                held = self._actions[elapsed : elapsed + committed]
                return Request(begins, here, goal, committed, elapsed, state.q, state.v, state.a, held)
            self.counts["anew"] += left > 0
        seen, here = self.estimate(now), self.observation(now)
        if seen is None or here is None:
            return None
        moving = np.abs(seen[1]).max() > self.settings.still
        return Request(now, here, goal, 0, None, seen[0], seen[1] * moving, np.zeros_like(seen[0]))

    def adopt(self, now: float, request: Request, answer: Answer, *, at_once: bool = False) -> JointTrajectory | None:
        """The trajectory to publish for an answer, or None if it is of no use any more.

        Its stamp is when the plan begins, its first points lie in the past, and from what is committed on it is the new
        plan. ``at_once``: it was not waited for, which says nothing of the next. Raises DFPlannerError where the answer
        is misshapen or not finite.
        """
        if request is not self._pending:
            self.counts["expired"] += 1
            return None
        self._pending = None
        dt = self.settings.dt_s
        actions = np.array(answer.actions, np.float64)
        if actions.ndim != 2 or actions.shape[1] != len(self.limits) or not np.isfinite(actions).all():
            self.counts["refused"] += 1
            raise DFPlannerError(
                f"the plan's actions are {actions.shape}; expected finite ones (H, {len(self.limits)})"
            )
        if not at_once:
            self._recent.append(now - request.begins)
        if request.elapsed is None and not request.v.any():  # from rest it may as well begin now
            request = replace(request, begins=now)
        if now >= request.begins + len(actions) * dt or len(actions) <= request.committed:
            self.counts["expired"] += 1
            return None
        continues = request.elapsed is not None and self._actions is not None
        actions = self._able(request, actions)
        new = self._path(request, actions)
        joins = request.begins + request.committed * dt
        if continues and self.trajectory is not None:
            self.counts["late"] += now > joins + SAME_S
            at = joins if now <= joins + SAME_S else min(now + dt, new.end - dt)
            if at > request.begins:
                blend = 0.0 if at == joins else dt / 2
                new = followed(self.trajectory, new, at, request.begins, blend)
        self._begun, self._actions = request.begins, actions
        self.trajectory = ending(new, self._gentle, self.settings.dt_s)
        return self.trajectory

    def _path(self, request: Request, actions: Floats) -> JointTrajectory:
        """Actions (H, J) as a trajectory from where the request's plan begins."""
        names, limit, dt = self.limits.names, self.limits.velocity, self.settings.dt_s
        return from_actions(names, request.begins, request.q, request.v, actions, limit, dt, request.a)

    def _able(self, request: Request, actions: Floats) -> Floats:
        """Actions (H, J) that the arm can follow, as its environment does; those that are held stay as they are.

        A model may ask for more where it was seldom trained: after a goal that changed in motion.
        """
        return self._led(request, len(actions), lambda k, _: actions[k] * self.limits.velocity)

    def towards(self, request: Request, place: Floats) -> Answer:
        """A plan straight to a posture (J,) that is near, slowly, without a planner."""
        steps = request.committed + BACK_STEPS
        return Answer(self._led(request, steps, lambda _, q: BACK_HZ * (place - q), BACK_SHARE))

    def _led(self, request: Request, steps: int, wanted: Callable[[int, Floats], Floats], share: float = 1.0) -> Floats:
        """Actions (steps, J) as near to velocities that are wanted, of step and position, as the arm can.

        ``share``: of the push that actions may ask for.
        """
        s, limits, held = self.settings, self.limits, request.held
        slew = SLEW * s.push_share * limits.acceleration
        q, v, a = request.q, request.v, request.a
        made = np.empty((steps, len(limits)))
        for k in range(steps):
            if held is not None and k < len(held):
                then = held[k] * limits.velocity
            else:
                able = limits.reachable(q, v, wanted(k, q), s.dt_s, s.speed_share, share * s.push_share, s.end_rad)
                then = v + s.dt_s * np.clip((able - v) / s.dt_s, a - slew, a + slew)
            q, v, a = q + (v + then) / 2 * s.dt_s, then, (then - v) / s.dt_s
            made[k] = then / limits.velocity
        return made

    def step(self, now: float, planner: ChunkPlanner) -> JointTrajectory | None:
        """Ask, plan and adopt in one, if a plan is due: for who can wait for it."""
        request = self.ask(now) if self.due(now) else None
        if request is None:
            return None
        answer = planner.plan(request.observation, request.goal, request.committed, request.elapsed)
        return self.adopt(now, request, answer)

    def failed(self, request: Request) -> None:
        """A request was not answered: the next may be asked for."""
        if request is self._pending:
            self._pending = None
