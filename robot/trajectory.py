"""Joint trajectories as ros2_control's joint_trajectory_controller reads them: made, interpolated, joined, slowed.

Interpolation: between points that have accelerations a quintic, with velocities alone a cubic, with positions alone a
straight line (joint_trajectory_controller, ``interpolation_method: splines``).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfplanner.types import DFPlannerError

if TYPE_CHECKING:
    from dfplanner_envs.arm.limits import JointLimits

Floats = NDArray[np.float64]
ROUNDING_S = 1e-9
SAME_S = 1e-6
"""Seconds within which two times are one."""


@dataclass(frozen=True, eq=False)
class JointTrajectory:
    """What a ``trajectory_msgs/JointTrajectory`` holds, unchecked: N points of J joints.

    ``times`` (N,) in seconds after ``stamp``; positions (N, J) in rad, velocities and accelerations (N, J) by seconds,
    or None.
    """

    names: tuple[str, ...]
    stamp: float
    times: Floats
    positions: Floats
    velocities: Floats | None = None
    accelerations: Floats | None = None

    @property
    def curve(self) -> Curve:
        """Its interpolation, in absolute time."""
        return Curve(self.times, self.positions, self.velocities, self.accelerations, self.stamp)

    @property
    def end(self) -> float:
        """When its last point is due."""
        return self.stamp + float(self.times[-1])


class State(NamedTuple):
    """Position, velocity, acceleration and jerk, each (..., J)."""

    q: Floats
    v: Floats
    a: Floats
    j: Floats


class Peaks(NamedTuple):
    """What a curve reaches at most, each (J,): its range, and the sizes of its derivatives."""

    lower: Floats
    upper: Floats
    velocity: Floats
    acceleration: Floats
    jerk: Floats


class Curve:
    """The interpolation of N ≥ 1 points at ``times`` (N,), strictly increasing: positions (N, J) and derivatives.

    Times count from ``origin``, so that they stay exact where clocks count from 1970.
    Raises DFPlannerError where the shapes disagree or a time does not increase.
    """

    def __init__(
        self,
        times: ArrayLike,
        positions: ArrayLike,
        velocities: ArrayLike | None = None,
        accelerations: ArrayLike | None = None,
        origin: float = 0.0,
    ) -> None:
        t, q = np.asarray(times, np.float64), np.asarray(positions, np.float64)
        v, a = (None if x is None else np.asarray(x, np.float64) for x in (velocities, accelerations))
        if (
            q.ndim != 2
            or t.shape != q.shape[:1]
            or not len(t)
            or any(x is not None and x.shape != q.shape for x in (v, a))
        ):
            raise DFPlannerError(f"{t.shape} times and {q.shape} positions came; expected N and (N, J), N at least 1")
        if not (np.diff(t) > 0).all():
            raise DFPlannerError("the times of a trajectory's points must increase; sort them and drop doubles")
        self.origin, self._slack = origin, ROUNDING_S + 2 * float(np.spacing(abs(origin)))
        self.times, self.q, self.v, self.a = t, q, v, a if v is not None else None
        self._c, self._when = self._coefficients(), t.tolist()

    @property
    def start(self) -> float:
        """The time of the first point."""
        return self.origin + float(self.times[0])

    @property
    def end(self) -> float:
        """The time of the last point."""
        return self.origin + float(self.times[-1])

    def _coefficients(self) -> Floats:
        """(N - 1, 6, J) of the powers of the time since a segment began."""
        q, v, a = self.q, self.v, self.a
        c = np.zeros((len(q) - 1, 6, q.shape[1]))
        h = np.diff(self.times)[:, None]
        c[:, 0] = q[:-1]
        step = np.diff(q, axis=0)
        if v is None:
            c[:, 1] = step / h
        elif a is None:
            c[:, 1] = v[:-1]
            c[:, 2] = (3 * step / h - 2 * v[:-1] - v[1:]) / h
            c[:, 3] = (v[:-1] + v[1:] - 2 * step / h) / h**2
        else:
            # What is left at the end of the segment when position, velocity and acceleration just went on.
            r = step - v[:-1] * h - a[:-1] * h**2 / 2
            s, u = (v[1:] - v[:-1] - a[:-1] * h) * h, (a[1:] - a[:-1]) * h**2 / 2
            c[:, 1], c[:, 2] = v[:-1], a[:-1] / 2
            c[:, 3] = (10 * r - 4 * s + u) / h**3
            c[:, 4] = (-15 * r + 7 * s - 2 * u) / h**4
            c[:, 5] = (6 * r - 3 * s + u) / h**5
        return c

    def at(self, t: ArrayLike) -> State:
        """The state at times (...): before the first point and after the last it rests there.

        After the last point the controller reports the same position, but goes on reporting that point's velocity.
        """
        t = np.asarray(t, np.float64) - self.origin
        first, last = self.times[0] - self._slack, self.times[-1] + self._slack
        if t.ndim:
            inside = (t >= first) & (t <= last)
            i = np.clip(np.searchsorted(self.times, t, "right") - 1, 0, max(len(self.times) - 2, 0))
        else:  # the same for one time, which is what each tick asks
            inside = np.asarray(bool(first <= t <= last))
            i = min(max(bisect_right(self._when, float(t)) - 1, 0), max(len(self.times) - 2, 0))
        if len(self.times) == 1 or not np.any(inside):
            q = np.where((t > self.times[-1])[..., None], self.q[-1], self.q[0])
            return State(q, *(np.zeros_like(q) for _ in range(3)))
        u = np.clip(t - self.times[i], 0.0, self.times[i + 1] - self.times[i])
        f = _basis(u, 4) @ self._c[i]  # (..., 4, J)
        if not t.ndim or inside.all():
            return State(*(f[..., k, :] for k in range(4)))
        beyond = np.where((t > self.times[-1])[..., None], self.q[-1], self.q[0])
        inside = inside[..., None]
        return State(np.where(inside, f[..., 0, :], beyond), *(np.where(inside, f[..., k, :], 0.0) for k in (1, 2, 3)))

    def ends_at_rest(self, tolerance: float = 1e-6) -> bool:
        """Whether nothing moves at its last point."""
        v = self.at(self.end).v
        return bool((np.abs(v) <= tolerance).all())

    def peaks(self) -> Peaks:
        """Bounds on what it reaches anywhere, also between points: none is ever exceeded, and they are tight.

        Between samples δ apart a function exceeds them by at most the size of its second derivative times δ²/8.
        """
        if len(self.times) == 1:
            zero = np.zeros_like(self.q[0])
            return Peaks(self.q[0], self.q[0], zero, zero, zero)
        h = np.diff(self.times)
        pieces = np.clip(np.ceil(h / 0.004), 8, 400).astype(int)
        first = np.append(0, np.cumsum(pieces + 1)[:-1])  # of each segment's samples, S in all
        i = np.repeat(np.arange(len(h)), pieces + 1)
        u = h[i] * ((np.arange(len(i)) - first[i]) / pieces[i])
        f = np.moveaxis(_basis(u, 6) @ self._c[i], 1, 0)  # (6, S, J), from the values on to the fifth derivatives
        # (6, N - 1, J); of the fourth, which is linear, and the fifth, which is constant, exact
        size = np.maximum.reduceat(np.abs(f), first, axis=1)
        room = (h / pieces)[:, None] ** 2 / 8
        jerk = size[3] + room * size[5]
        acceleration = size[2] + room * size[4]
        velocity = size[1] + room * jerk
        beyond = room * acceleration
        return Peaks(
            (np.minimum.reduceat(f[0], first) - beyond).min(0),
            (np.maximum.reduceat(f[0], first) + beyond).max(0),
            velocity.max(0),
            acceleration.max(0),
            jerk.max(0),
        )


_POWER = np.arange(6)[None] - np.arange(6)[:, None]
_FACTOR = np.array([[math.perm(p, k) for p in range(6)] for k in range(6)], np.float64)
"""The k-th derivative of u^p is _FACTOR[k, p] times u to the power _POWER[k, p]."""


def _basis(u: Floats, derivatives: int) -> Floats:
    """(..., derivatives, 6) that coefficients (..., 6, J) are multiplied with: values and derivatives at u (...)."""
    return _FACTOR[:derivatives] * (u[..., None] ** np.arange(6.0))[..., np.maximum(_POWER[:derivatives], 0)]


def from_actions(
    names: Sequence[str],
    stamp: float,
    q: ArrayLike,
    v: ArrayLike,
    actions: ArrayLike,
    velocity: ArrayLike,
    dt_s: float,
    acceleration: ArrayLike | None = None,
) -> JointTrajectory:
    """The trajectory of H actions (H, J) from positions and velocities (J,): H + 1 points, ``dt_s`` seconds apart.

    An action is the velocity at the end of its step as a share of ``velocity`` (J,); within the step the velocity is
    linear, so the points are where the arm's environment puts its reference. ``acceleration`` (J,): the one to start
    with. Raises DFPlannerError on a wrong shape.
    """
    q, v, actions = (np.asarray(x, np.float64) for x in (q, v, actions))
    joints = (len(names),)
    if actions.ndim != 2 or actions.shape[1:] != joints or q.shape != joints or v.shape != joints or dt_s <= 0:
        raise DFPlannerError(
            f"actions {actions.shape} from positions {q.shape} and velocities {v.shape} came for {len(names)} joints; "
            f"expected (H, {len(names)}), and ({len(names)},) for both"
        )
    speeds = np.concatenate([v[None], actions * np.asarray(velocity, np.float64)])
    places = q + np.concatenate([np.zeros((1, *joints)), np.cumsum((speeds[:-1] + speeds[1:]) / 2 * dt_s, axis=0)])
    made = JointTrajectory(tuple(names), stamp, dt_s * np.arange(len(speeds), dtype=np.float64), places, speeds)
    return with_accelerations(made, acceleration)


def from_states(
    names: Sequence[str], stamp: float, positions: ArrayLike, velocities: ArrayLike, dt_s: float
) -> JointTrajectory:
    """The trajectory through planned states: positions and velocities (T, J), ``dt_s`` seconds apart."""
    q, v = np.asarray(positions, np.float64), np.asarray(velocities, np.float64)
    if q.ndim != 2 or q.shape != v.shape or q.shape[1] != len(names) or dt_s <= 0:
        raise DFPlannerError(f"positions {q.shape} and velocities {v.shape} came; expected (T, {len(names)}) for both")
    return with_accelerations(JointTrajectory(tuple(names), stamp, dt_s * np.arange(len(q), dtype=np.float64), q, v))


def with_accelerations(trajectory: JointTrajectory, first: ArrayLike | None = None) -> JointTrajectory:
    """The same points with accelerations, so that these do not jump: the mean of the slopes of the velocity beside.

    ``first`` (J,): the acceleration of the first point. A trajectory that has accelerations, or no velocities, is
    returned as it is.
    """
    v = trajectory.velocities
    if v is None or trajectory.accelerations is not None:
        return trajectory
    if len(v) < 2:
        return replace(trajectory, accelerations=np.zeros_like(v))
    h = np.diff(trajectory.times)[:, None]
    slope = np.diff(v, axis=0) / h
    a = np.empty_like(v)
    a[0] = slope[0] if first is None else first
    a[-1] = slope[-1] if v[-1].any() else 0.0
    a[1:-1] = (slope[:-1] * h[1:] + slope[1:] * h[:-1]) / (h[:-1] + h[1:])
    return replace(trajectory, accelerations=a)


def splice(old: JointTrajectory, new: JointTrajectory, at: float, blend_s: float = 0.0) -> JointTrajectory:
    """``old`` until the absolute time ``at``, then ``new``; position, velocity and acceleration are continuous.

    From the state that ``old`` has at ``at`` a quintic leads to the first point of ``new`` that is due more than
    ``blend_s`` seconds later. Stamped as ``old``. Raises DFPlannerError where the joints differ, ``new`` has no such
    point, lacks velocities, or ``old`` is over by then though it was still moving.
    """
    if old.names != new.names or new.velocities is None or old.velocities is None:
        raise DFPlannerError(f"joints {new.names} cannot follow {old.names}; expected the same, with velocities")
    curve, new = old.curve, with_accelerations(new)
    if at > old.end + SAME_S and not curve.ends_at_rest():
        raise DFPlannerError(f"the old trajectory is over at {old.end:.3f} s, still moving, and {at:.3f} s was asked")
    ahead, due = at - old.stamp, (new.stamp - old.stamp) + np.asarray(new.times)
    later = due > ahead + max(blend_s, SAME_S)
    if not later.any():
        raise DFPlannerError(f"the new trajectory is over at {new.end:.3f} s, before {at + blend_s:.3f} s")
    now, before = curve.at(at), np.asarray(old.times) < ahead - SAME_S
    old = with_accelerations(old)
    assert old.accelerations is not None and new.accelerations is not None and new.velocities is not None
    assert old.velocities is not None
    return JointTrajectory(
        old.names,
        old.stamp,
        np.concatenate([np.asarray(old.times)[before], [ahead], due[later]]),
        np.concatenate([old.positions[before], now.q[None], new.positions[later]]),
        np.concatenate([old.velocities[before], now.v[None], new.velocities[later]]),
        np.concatenate([old.accelerations[before], now.a[None], new.accelerations[later]]),
    )


def since(trajectory: JointTrajectory, t: float) -> JointTrajectory:
    """What is left of a trajectory at the absolute time ``t``: the segment under way and those after it."""
    i = min(
        max(0, int(np.searchsorted(trajectory.times, t - trajectory.stamp, "right")) - 1), len(trajectory.times) - 1
    )
    rest = {
        name: value[i:]
        for name in ("times", "positions", "velocities", "accelerations")
        if (value := getattr(trajectory, name)) is not None
    }
    return replace(trajectory, **rest)


def slowed(trajectory: JointTrajectory, factor: float) -> JointTrajectory:
    """The same path, ``factor`` times as slow."""
    v, a = trajectory.velocities, trajectory.accelerations
    return replace(
        trajectory,
        times=np.asarray(trajectory.times) * factor,
        velocities=None if v is None else v / factor,
        accelerations=None if a is None else a / factor**2,
    )


def slowdown(peaks: Peaks, limits: JointLimits) -> float:
    """How many times as slow a curve with these peaks must be for velocity, acceleration and jerk; at least 1."""
    ratios = (peaks.velocity / limits.velocity, peaks.acceleration / limits.acceleration, peaks.jerk / limits.jerk)
    return max(1.0, *(float(r.max()) ** (1 / n) for n, r in enumerate(ratios, 1)))


def fitted(trajectory: JointTrajectory, limits: JointLimits) -> tuple[JointTrajectory, float]:
    """The trajectory as slow as velocity, acceleration and jerk limits ask, everywhere, and how many times as slow."""
    trajectory = with_accelerations(trajectory)
    factor = slowdown(trajectory.curve.peaks(), limits)
    return (slowed(trajectory, factor * (1 + 1e-9)), factor) if factor > 1 else (trajectory, 1.0)
