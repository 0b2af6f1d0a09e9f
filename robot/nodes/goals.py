"""Goals for the planner: looked at on a thread, the newest alone, for that takes longer than a tick. Imports no ROS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dfplanner.types import DFPlannerError
from dfplanner_robot.settings import JointReading
from dfplanner_robot.trajectory import Floats

if TYPE_CHECKING:
    from dfplanner_envs.arm.limits import JointLimits
    from dfplanner_envs.arm.task import ReachTask


@dataclass(frozen=True, eq=False)
class Goal:
    """Where the hand is to be: ``place`` (3,) in metres in the base frame; the ``posture`` (J,) that has it there.

    A ball's place (2,) is its posture.
    """

    place: Floats
    posture: Floats

    def as_planners_have_it(self, size: int) -> Floats:
        """Planners are told the place or the posture: that of so many numbers; raises DFPlannerError if none is."""
        for told in (self.place, self.posture):
            if len(told) == size:
                return told
        raise DFPlannerError(
            f"a goal of {size} numbers is wanted; expected {len(self.place)}, the hand's place, or "
            f"{len(self.posture)}, the arm's posture"
        )


class GoalDesk:
    """Takes goals of one body, such as an arm, in the frame of its base.

    ``at_place`` looks at a place (3,), ``at_posture`` at joints; each raises DFPlannerError on one that cannot be.
    ``wake`` is called from the desk's thread when a goal was looked at.
    """

    def __init__(
        self, at_place: Callable[[Floats], Goal], at_posture: Callable[[JointReading], Goal], wake: Callable[[], None]
    ) -> None:
        self.at_place, self.at_posture, self.wake = at_place, at_posture, wake
        self._thread = ThreadPoolExecutor(1, "goals")
        self._newest: Future[Goal] | None = None

    def place(self, frame: str, wanted: str, place: Sequence[float]) -> None:
        """Takes a place (3,) in metres, said to be in ``frame``; ``wanted`` is the frame of the base."""
        self._submit(lambda: self.at_place(in_frame(frame, wanted, place)))

    def posture(self, reading: JointReading) -> None:
        """Takes a posture, whose hand's place is the goal."""
        self._submit(lambda: self.at_posture(reading))

    def drop(self) -> None:
        """Forgets the goal that is being looked at."""
        self._newest = None

    def take(self) -> Goal | None:
        """The newest goal, once; None if there is none (yet). Raises DFPlannerError where it is refused."""
        newest = self._newest
        if newest is None or not newest.done():
            return None
        self._newest = None
        return newest.result()

    def close(self) -> None:
        """Ends the thread."""
        self.drop()
        self._thread.shutdown(cancel_futures=True)

    def _submit(self, look: Callable[[], Goal]) -> None:
        if self._newest is not None:
            self._newest.cancel()
        self._newest = self._thread.submit(look)
        self._newest.add_done_callback(lambda _: self.wake())


def in_frame(frame: str, wanted: str, place: Sequence[float]) -> Floats:
    """A goal (3,); raises DFPlannerError if it is in another frame, for there is no tf here, or not finite."""
    if frame != wanted:
        raise DFPlannerError(f"the goal is in the frame {frame!r}; expected {wanted!r}: transform it first")
    goal = np.array(place, np.float64)
    if not np.isfinite(goal).all():
        raise DFPlannerError(f"the goal is {goal.tolist()}; expected finite numbers, in metres")
    return goal


def reachable(task: ReachTask, place: Floats) -> Goal:
    """The goal with the hand at a place (3,); raises DFPlannerError if it cannot be there. Takes some 30 ms."""
    posture, able = task.posture(place[None])
    if not able[0]:
        where = ", ".join(f"{x:.3f}" for x in place)
        raise DFPlannerError(
            f"the goal ({where}) m is out of the arm's reach, or too near the table, an obstacle or the arm itself"
        )
    return Goal(place, posture[0])


def hand_of(task: ReachTask, reading: JointReading) -> Floats:
    """Where a posture, its joints in any order, has the hand (3,); raises DFPlannerError if it is none of the arm's."""
    return task.chain.hand(joints_of(task.arm.limits, reading))


def joints_of(limits: JointLimits, reading: JointReading) -> Floats:
    """The positions (J,) of a posture, its joints in any order; raises DFPlannerError if it is none within limits."""
    names, wanted = list(reading.names), limits.names
    if not set(wanted) <= set(names) or len(reading.positions) != len(names):
        raise DFPlannerError(
            f"a posture of {len(reading.positions)} numbers for {', '.join(names) or 'no joints'} came; "
            f"expected one for each of {', '.join(wanted)}"
        )
    q = np.asarray(reading.positions, np.float64)[[names.index(name) for name in wanted]]
    if beyond := [n for n, bad in zip(wanted, limits.exceeded(q), strict=True) if bad]:
        raise DFPlannerError(f"the posture is not finite, or beyond the ends of {', '.join(beyond)}; give another")
    return q


def at_rest(task: ReachTask) -> tuple[Floats, Goal]:
    """An observation and a goal to begin with: the arm in its rest posture, and to stay there."""
    q = task.arm.rest
    hand = task.chain.hand(q)
    return np.concatenate([hand, q, np.zeros_like(q)]), Goal(hand, q)
