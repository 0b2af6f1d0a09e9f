"""Trajectories put together: one after another, and a stop after that."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from dfplanner_robot.brake import brake
from dfplanner_robot.trajectory import SAME_S, JointTrajectory, splice

if TYPE_CHECKING:
    from dfplanner_envs.arm.limits import JointLimits

AT_REST_S = 1e-3
"""A motion that can be stopped sooner is rest."""


def followed(old: JointTrajectory, new: JointTrajectory, at: float, begins: float, blend: float) -> JointTrajectory:
    """``old`` until ``at``, then, within about ``blend`` seconds, ``new``; stamped ``begins``."""
    whole = splice(old, new, at, blend)
    due = whole.times - (begins - whole.stamp)
    keep = due >= -SAME_S
    first = old.curve.at(begins)
    rows = (first.q, first.v, first.a)
    points = (whole.positions, whole.velocities, whole.accelerations)
    lead = due[keep][0] > SAME_S  # the plan begins between two of the old one's points
    joined = [
        np.concatenate([[row], x[keep]] if lead else [x[keep]])
        for row, x in zip(rows, points, strict=True)
        if x is not None
    ]
    times = np.where(due[keep] > SAME_S, due[keep], 0.0)
    return JointTrajectory(new.names, begins, np.append(0.0, times) if lead else times, *joined)


def ending(new: JointTrajectory, gentle: JointLimits, dt_s: float) -> JointTrajectory:
    """A trajectory, and then a stop within the ``gentle`` limits, its points ``dt_s`` / 2 apart or nearer."""
    assert new.velocities is not None and new.accelerations is not None
    stop = brake(new.names, 0.0, new.positions[-1], new.velocities[-1], gentle, new.accelerations[-1])
    if stop.end < AT_REST_S:  # points so near one another are none
        rest = [np.concatenate([x[:-1], np.zeros_like(x[:1])]) for x in (new.velocities, new.accelerations)]
        return replace(new, velocities=rest[0], accelerations=rest[1])
    # A few even points say it well enough; the ends of its parts can lie less than a microsecond apart.
    pieces = max(2, math.ceil(stop.end / (dt_s / 2))) if stop.end > 0 else 0
    t = stop.end * np.arange(pieces + 1) / max(1, pieces)
    q, v, a, _ = stop.curve.at(t)
    v[-1] = a[-1] = 0.0
    return replace(
        new,
        times=np.concatenate([new.times, new.times[-1] + t[1:]]),
        positions=np.concatenate([new.positions, q[1:]]),
        velocities=np.concatenate([new.velocities, v[1:]]),
        # at the seam the stop's, which is as much as its limits allow
        accelerations=np.concatenate([new.accelerations[:-1], a]),
    )


def lasting(ends: JointTrajectory, seconds: float) -> JointTrajectory:
    """A trajectory that ends at rest, and so many seconds of that rest."""
    assert ends.velocities is not None and ends.accelerations is not None
    rest = np.zeros_like(ends.velocities[-1:])
    return replace(
        ends,
        times=np.append(ends.times, ends.times[-1] + seconds),
        positions=np.concatenate([ends.positions, ends.positions[-1:]]),
        velocities=np.concatenate([ends.velocities, rest]),
        accelerations=np.concatenate([ends.accelerations, rest]),
    )
