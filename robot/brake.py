"""To rest as fast as acceleration and jerk allow: in closed form, each joint for itself.

The time-optimal stop has three parts of constant jerk: into the braking acceleration, held, and out of it (the
velocity part of Kröger and Wahl 2010, "Online trajectory generation").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfplanner.types import DFPlannerError
from dfplanner_robot.trajectory import Floats, JointTrajectory

if TYPE_CHECKING:
    from dfplanner_envs.arm.limits import JointLimits

MERGED_S = 2e-7
"""Seconds within which two changes of jerk are one: shorter segments would drown in rounding."""


class Stop(NamedTuple):
    """What the time-optimal stop from a state does, each (..., J)."""

    seconds: Floats
    below: Floats
    """How far it goes below where it began, at most 0."""
    above: Floats
    """How far it goes above, at least 0."""
    speed: Floats
    """Its highest speed."""


def _moved(q: Floats, v: Floats, a: Floats, jerk: Floats, t: Floats) -> tuple[Floats, Floats, Floats]:
    """A state after ``t`` seconds of constant jerk."""
    return q + t * (v + t * (a / 2 + t * jerk / 6)), v + t * (a + t * jerk / 2), a + t * jerk


def _phases(v: Floats, a: Floats, top: Floats, jerk: Floats) -> tuple[Floats, Floats]:
    """Durations and jerks (3, ..., J) of the time-optimal stop; |a| ≤ top."""
    sign = np.where(v + a * np.abs(a) / (2 * jerk) >= 0, 1.0, -1.0)
    v, a = sign * v, sign * a
    lose = np.maximum(v + a**2 / (2 * jerk), 0.0)
    peak = np.minimum(np.sqrt(jerk * lose), top)
    hold = np.where(peak >= top, np.maximum(lose - top**2 / jerk, 0.0) / top, 0.0)
    # Without a hold the acceleration falls to the peak from above it; -a > peak is rounding.
    durations = np.stack([np.maximum(a + peak, 0.0) / jerk, hold, peak / jerk])
    return durations, np.stack([-sign * jerk, np.zeros_like(sign), sign * jerk])


def stops(v: ArrayLike, a: ArrayLike, limits: JointLimits) -> Stop:
    """The time-optimal stops from velocities and accelerations (..., J); an |a| beyond its limit counts as at it."""
    v = np.asarray(v, np.float64)
    top, jerk = limits.acceleration, limits.jerk
    a = np.clip(np.asarray(a, np.float64), -top, top)
    durations, jerks = _phases(v, a, top, jerk)
    state = (np.zeros_like(v), v, a)
    left = v + a * np.abs(a) / (2 * jerk)  # the velocity once the acceleration is gone, if it goes at once
    fastest = np.maximum(np.abs(v), np.abs(left) * (left * a > 0))
    # Where it first turns round, the farthest point is not the last one: v + a t + j t^2 / 2 = 0, the earlier t > 0.
    inner = np.maximum(a**2 - 2 * jerks[0] * v, 0.0)
    turn = np.where(v * jerks[0] > 0, (np.abs(a) - np.sqrt(inner)) / jerk, 0.0)
    turned = _moved(*state, jerks[0], np.clip(turn, 0.0, durations[0]))[0]
    for jerk_now, t in zip(jerks, durations, strict=True):
        state = _moved(*state, jerk_now, t)
    ends = np.stack([np.zeros_like(v), turned, state[0]])
    return Stop(durations.sum(0), ends.min(0), ends.max(0), fastest)


def can_stop(
    q: ArrayLike, v: ArrayLike, a: ArrayLike, limits: JointLimits, tolerance: float = 1e-6
) -> NDArray[np.bool_]:
    """(...) whether from positions, velocities and accelerations (..., J) the time-optimal stop keeps every limit."""
    q, stop = np.asarray(q, np.float64), stops(v, a, limits)
    inside = (q + stop.below >= limits.lower - tolerance) & (q + stop.above <= limits.upper + tolerance)
    slow = (stop.speed <= limits.velocity * (1 + tolerance)) & (np.abs(a) <= limits.acceleration * (1 + tolerance))
    return np.asarray((inside & slow).all(-1))


def _hard(v: Floats, a: Floats, top: Floats, jerk: Floats) -> tuple[Floats, Floats]:
    """Durations and jerks (5, J): brake fully until nothing moves on, then come to rest: farther back, less far on."""
    sign = np.where(v >= 0, 1.0, -1.0)
    v, a = sign * v, sign * a
    until = (a + np.sqrt(a**2 + 2 * jerk * v)) / jerk  # the velocity is 0 if the jerk goes on so long
    full = (a + top) / jerk
    into = np.minimum(until, full)
    left = np.maximum(v + into * (a - into * jerk / 2), 0.0)
    hold = np.where(until > full, left / top, 0.0)
    durations, jerks = _phases(np.zeros_like(v), a - jerk * into, top, jerk)
    first = np.stack([into, hold])
    return np.concatenate([first, durations]), sign * np.concatenate([np.stack([-jerk, np.zeros_like(v)]), jerks])


def brake(
    names: Sequence[str], stamp: float, q: ArrayLike, v: ArrayLike, limits: JointLimits, a: ArrayLike | None = None
) -> JointTrajectory:
    """From positions, velocities and accelerations (J,) to rest, as fast as acceleration and jerk limits allow.

    A joint that would so pass its end brakes harder at first and comes back: that passes it only where every way does.
    Points lie where a jerk changes; with their accelerations the interpolation is exact. An acceleration beyond its
    limit counts as at it. Raises DFPlannerError on a wrong shape or what is not finite.
    """
    top, jerk = limits.acceleration, limits.jerk
    q, v, a = (np.asarray(x, np.float64) for x in (q, v, np.zeros(len(limits)) if a is None else a))
    if any(x.shape != (len(limits),) or not np.isfinite(x).all() for x in (q, v, a)) or len(names) != len(limits):
        raise DFPlannerError(f"cannot brake from {q}, {v}, {a}; expected {len(limits)} finite numbers for each")
    a = np.clip(a, -top, top)
    durations, jerks = (np.concatenate([x, np.zeros((2, len(q)))]) for x in _phases(v, a, top, jerk))
    stop = stops(v, a, limits)
    passes = (q + stop.below < limits.lower) | (q + stop.above > limits.upper)
    if passes.any():
        hard = _hard(v, a, top, jerk)
        durations, jerks = np.where(passes, hard[0], durations), np.where(passes, hard[1], jerks)
    ends = np.unique(np.append(0.0, durations.cumsum(0)))
    times = ends[np.append(True, np.diff(ends) > MERGED_S)]
    if ends[-1] > 0:
        times = np.append(times[: max(1, len(times) - 1)], max(ends[-1], MERGED_S))
    shape = len(times), len(q)
    state = np.broadcast_to(q, shape), np.broadcast_to(v, shape), np.broadcast_to(a, shape)
    begun = np.zeros(len(q))
    for jerk_now, t in zip(jerks, durations, strict=True):
        state = _moved(*state, jerk_now, np.clip(times[:, None] - begun, 0.0, t))
        begun = begun + t
    places, speeds, pushes = (np.array(x) for x in state)
    speeds[-1] = pushes[-1] = 0.0  # but for rounding they are
    return JointTrajectory(tuple(names), stamp, times, places, speeds, pushes)
