"""Plans with positions alone, as people send them: given velocities, from rest to rest."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from dfplanner_robot.checks import clipped, conform
from dfplanner_robot.settings import SafetySettings
from dfplanner_robot.trajectory import SAME_S, Floats, JointTrajectory, fitted

if TYPE_CHECKING:
    from dfplanner_envs.arm.limits import JointLimits

SOON_S = 0.1
"""A single point that is due at once is due after so long."""


def filled(trajectory: JointTrajectory, here: Floats, limits: JointLimits, s: SafetySettings) -> JointTrajectory:
    """One with positions alone, with velocities: from rest at ``here`` (J,) through its points to rest at the last.

    Between points it is monotone in each joint, so that none is passed over; it is as slow as ``limits`` ask. One that
    has velocities is returned as it is. Raises Refused on one that is malformed, or far beyond the limits.
    """
    if trajectory.velocities is not None or trajectory.accelerations is not None:
        return trajectory
    form, _ = conform(replace(trajectory, velocities=np.zeros_like(trajectory.positions)), limits.names, s)
    form = clipped(form, limits, s)
    t, q = form.times, form.positions
    if len(t) == 1:
        t = np.maximum(t, SOON_S)
    if t[0] > SAME_S:
        t, q = np.append(0.0, t), np.concatenate([here[None], q])
    return fitted(replace(form, times=t, positions=q, velocities=_monotone(t, q)), limits)[0]


def _monotone(t: Floats, q: Floats) -> Floats:
    """Velocities (N, J) at points (N, J): 0 at the ends and where the motion turns, else Fritsch and Butland's mean."""
    h = np.diff(t)[:, None]
    slope, v = np.diff(q, axis=0) / h, np.zeros_like(q)
    before, after = slope[:-1], slope[1:]
    w, u = 2 * h[1:] + h[:-1], h[1:] + 2 * h[:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        v[1:-1] = np.where(before * after > 0, (w + u) / (w / before + u / after), 0.0)
    return v
