"""The checks of a plan, each by name: what came, when, where it begins, how it moves, and what it would touch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from dfplanner.types import DFPlannerError
from dfplanner_robot.brake import can_stop
from dfplanner_robot.sensing import REACTION_S
from dfplanner_robot.settings import SafetySettings
from dfplanner_robot.states import Clamp, Reason
from dfplanner_robot.trajectory import (
    SAME_S,
    Curve,
    Floats,
    JointTrajectory,
    since,
    slowdown,
    splice,
    with_accelerations,
)

if TYPE_CHECKING:
    from dfplanner_envs.arm.limits import JointLimits

SLACK = 1e-6
"""Share of a limit that rounding may take."""


MOST = 500
"""Points of a plan: to check more takes longer than ticks may be late."""
ABSURD = 1e6
"""No time, position or derivative of a plan is as large; where they are much larger, powers of them overflow."""


class Refused(Exception):
    """A plan failed a check."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


class Obstacles(Protocol):
    """Who knows whether postures touch anything; ``dfplanner_envs.arm.collision.CollisionChecker`` is one."""

    def free(self, q: Floats) -> NDArray[np.bool_]:
        """(N,) whether each posture (N, J) is free."""
        ...


@dataclass(frozen=True, eq=False)
class Surroundings:
    """Where the arm may be: ``obstacles``, and the box (2, 3), lower and upper corner in metres, for the hand.

    ``hand``: positions (N, 3) of postures (N, J), such as ``dfplanner_envs.arm.ik.Chain.hand``. What is None is not
    checked. Raises DFPlannerError on a box without a hand, or an empty box.
    """

    obstacles: Obstacles | None = None
    hand: Callable[[Floats], Floats] | None = None
    box: Floats | None = None

    def __post_init__(self) -> None:
        if self.box is not None:
            box = np.asarray(self.box, np.float64)
            if self.hand is None or box.shape != (2, 3) or not (box[0] < box[1]).all():
                raise DFPlannerError(f"the box {box.tolist()} came; expected two corners (2, 3), and a hand")

    def check(self, path: Floats, step_rad: float) -> None:
        """Raises Refused where the arm, on its way along densely given postures (N, J), would be where it may not."""
        if self.obstacles is None and self.box is None:
            return
        along = np.append(0.0, np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1)))
        marks = np.linspace(0, along[-1], int(np.ceil(along[-1] / step_rad)) + 1)
        q = path[np.unique(np.append(np.searchsorted(along, marks[:-1]), len(path) - 1))]
        if self.box is not None and self.hand is not None:
            hand = self.hand(q)
            if not ((hand >= self.box[0]) & (hand <= self.box[1])).all():
                out = hand[((hand < self.box[0]) | (hand > self.box[1])).any(1)][0]
                raise Refused(Reason.WORKSPACE, f"the hand would be at {np.round(out, 3).tolist()} m, outside its box")
        if self.obstacles is not None and not (free := self.obstacles.free(q)).all():
            q = q[int(np.argmin(free))]
            raise Refused(Reason.COLLISION, f"something would touch at {np.round(q, 3).tolist()} rad")


def conform(trajectory: JointTrajectory, names: Sequence[str], s: SafetySettings) -> tuple[JointTrajectory, bool]:
    """The trajectory as arrays, its joints in our order, and whether they came in another. Raises Refused."""
    theirs = tuple(trajectory.names)
    if sorted(theirs) != sorted(names):
        raise Refused(Reason.NAMES, f"joints {list(theirs)[:20]} came; expected {list(names)}")
    try:
        if (points := max(len(trajectory.times), len(trajectory.positions))) > MOST:
            raise Refused(Reason.FORM, f"{points} points came; expected at most {MOST}: leave some out")
        t, q, v, a = (
            None if x is None else np.array(x, np.float64)
            for x in (trajectory.times, trajectory.positions, trajectory.velocities, trajectory.accelerations)
        )
        stamp = float(trajectory.stamp)
    except (TypeError, ValueError) as e:
        raise Refused(Reason.FORM, f"the points are no arrays of numbers ({e})") from e
    if t is None or q is None or v is None:
        raise Refused(Reason.FORM, "positions and velocities are needed at every point")
    shape = (t.size, len(names))
    if t.ndim != 1 or not t.size or any(x is not None and x.shape != shape for x in (q, v, a)):
        raise Refused(Reason.FORM, f"{t.shape} times with positions {q.shape} and velocities {v.shape} came")
    if not np.isfinite(stamp) or not all((np.abs(x) < ABSURD).all() for x in (t, q, v, a) if x is not None):
        raise Refused(Reason.NOT_FINITE, f"a number is NaN, infinite, or beyond ±{ABSURD:.0e}")
    if t[0] < -SAME_S or not (np.diff(t) > SAME_S).all() or t[-1] > s.longest_s:
        raise Refused(
            Reason.FORM, f"times run from {t[0]:.3f} to {t[-1]:.3f} s; expected increasing ones, 0 to {s.longest_s:g}"
        )
    order = [theirs.index(name) for name in names]
    q, v = q[:, order], v[:, order]
    made = JointTrajectory(tuple(names), stamp, t, q, v, None if a is None else a[:, order])
    return made, theirs != tuple(names)


MOVES = 0.2
"""rad/s from which on a plan begins in motion."""


def from_rest(v: Floats) -> None:
    """Refuses a plan that begins with velocities (J,) for an arm at rest: it was made before a brake that is over."""
    if np.abs(v).max() > MOVES:
        raise Refused(Reason.JUMP, f"the plan begins with {np.abs(v).max():.2f} rad/s, but the arm is at rest")


def in_time(trajectory: JointTrajectory, now: float, last: float | None, s: SafetySettings) -> None:
    """Raises Refused unless the stamp is new, and neither too old nor too far ahead."""
    if last is not None and trajectory.stamp <= last:
        raise Refused(Reason.ORDER, f"the stamp is {last - trajectory.stamp:.3f} s before the last plan's, or the same")
    if now - trajectory.stamp > s.late_s or trajectory.end <= now:
        raise Refused(
            Reason.LATE, f"the plan is {now - trajectory.stamp:.3f} s old, and over at {trajectory.end - now:.3f} s"
        )
    if trajectory.stamp + trajectory.times[0] - now > s.ahead_s:
        raise Refused(Reason.AHEAD, f"the plan begins {trajectory.stamp + trajectory.times[0] - now:.3f} s from now")


def away(new: JointTrajectory, now: Curve, tau: float, at: float, measured: Floats | None, s: SafetySettings) -> float:
    """How far a plan begins, at ``at``, from the motion ``now``, in radians.

    Raises Refused if that, or what is left then from where the arm is ``measured`` (J,) at ``tau``, is too far.
    """
    begin, here = new.curve.at(at), now.at(at)
    if at > now.end and not now.ends_at_rest():
        raise Refused(Reason.JUMP, "the plan begins after the one before is over, which ends in motion")
    allowed = s.jump_rad + REACTION_S * np.abs(here.v)
    far, seen = np.abs(begin.q - here.q), here.q if measured is None else measured
    moved = np.abs(here.q - now.at(tau).q)  # until then it goes on
    off = np.maximum(far, np.abs(begin.q - seen) - moved)
    if (off > allowed).any():
        joint = int((off - allowed).argmax())
        raise Refused(Reason.JUMP, f"{new.names[joint]} would have to jump by {off[joint]:.3f} rad")
    return float(far.max())


def clipped(trajectory: JointTrajectory, limits: JointLimits, s: SafetySettings) -> JointTrajectory:
    """Points a little beyond a joint's end put on it, to rest there; raises Refused on points far beyond."""
    q, v, a = trajectory.positions, trajectory.velocities, trajectory.accelerations
    inside = np.clip(q, limits.lower, limits.upper)
    over = np.abs(q - inside)
    if over.max() > s.clip_rad:
        joint = trajectory.names[int(over.max(0).argmax())]
        raise Refused(Reason.POSITION, f"{joint} would be {over.max():.3f} rad beyond its end")
    if over.max() <= SLACK or v is None:
        return trajectory
    out = over > SLACK
    return replace(
        trajectory,
        positions=inside,
        velocities=np.where(out, 0.0, v),
        accelerations=a if a is None else np.where(out, 0.0, a),
    )


def joined(
    path: JointTrajectory, new: JointTrajectory, at: float, limits: JointLimits, s: SafetySettings
) -> tuple[JointTrajectory, list[Clamp]]:
    """``path``, and from ``at`` on ``new``, so slow and so gently joined that velocity, acceleration and jerk are kept.

    Raises Refused where that needs more than the settings allow.
    """
    factor = 1.0
    for _ in range(5):
        found: list[tuple[float, JointTrajectory, float]] = []
        for blend in s.blends_s:
            try:
                whole = splice(path, _slower(new, at, factor), at, blend)
            except DFPlannerError:  # the new one is too short for this blend
                continue
            need = slowdown(since(whole, at).curve.peaks(), limits)
            found.append((need, whole, blend))
            if need <= 1 + SLACK:
                changed = [Clamp.SLOWED] * (factor > 1) + [Clamp.BLENDED] * (blend > s.blends_s[0])
                return whole, changed
        if not found:
            raise Refused(Reason.JUMP, "the plan is over before the arm could join it")
        factor *= min(need for need, *_ in found) * 1.02
        if factor > s.max_slowdown:
            break
    if factor > s.max_slowdown:
        why = f"it would have to be {factor:.2f} times as slow; at most {s.max_slowdown} is allowed"
    else:  # what is wrong is how it begins, and to be slower does not mend that
        why = f"it cannot be joined within {s.blends_s[-1]:g} s and keep the limits of velocity, acceleration and jerk"
    raise Refused(Reason.SPEED, why)


def _slower(new: JointTrajectory, at: float, factor: float) -> JointTrajectory:
    """What comes of ``new`` after ``at``, so many times as slow, seen from there."""
    due = new.times - (at - new.stamp)
    later = due > 0
    v, a = new.velocities, new.accelerations
    if not later.any() or v is None:
        raise DFPlannerError("the new trajectory is over")
    if a is None:
        a = with_accelerations(new).accelerations
    assert a is not None
    return JointTrajectory(
        new.names, at, due[later] * factor, new.positions[later], v[later] / factor, a[later] / factor**2
    )


def inside(path: JointTrajectory, at: float, limits: JointLimits, s: SafetySettings) -> Floats:
    """The postures (N, J), tick by tick from ``at`` on; raises Refused where they, or a stop, would pass a limit."""
    rest = since(path, at).curve
    peaks = rest.peaks()
    low, high = peaks.lower - limits.lower, limits.upper - peaks.upper
    if min(low.min(), high.min()) < -1e-4:
        joint = path.names[int(np.minimum(low, high).argmin())]
        raise Refused(Reason.POSITION, f"{joint} would be {-min(low.min(), high.min()):.4f} rad beyond its end")
    ticks = rest.at(np.append(np.arange(at, rest.end, s.dt_s), rest.end))
    able = can_stop(ticks.q, ticks.v, ticks.a, limits, SLACK)
    if not able.all():
        late = int(np.argmin(able)) * s.dt_s
        raise Refused(Reason.POSITION, f"after {late:.2f} s the arm could not stop before a joint's end")
    return ticks.q
