"""From a polyline of postures to joint velocities in time: rounded, then as fast as gentle limits allow.

Source of the two passes: Kunz and Stilman 2012, "Time-optimal trajectory generation for path following with bounded
acceleration and velocity", here on a grid and with the bound split between turning and speeding up.
"""

from __future__ import annotations

import numpy as np

from dfplanner_envs.arm.limits import Floats

GRID = 200
"""Points that a path is looked at."""
SPEED = np.array([0.7, 0.7, 0.7, 0.7, 0.9, 0.9, 0.9])
"""rad/s that the script allows itself: about a third of what the arm may do."""
PUSH = np.array([1.6, 1.6, 1.6, 1.6, 2.0, 2.0, 2.0])
"""rad/s^2, likewise."""
SOFT_S = 0.2
"""Seconds over which accelerations set in."""


def _averaged(rows: Floats, width: int) -> Floats:
    """Moving average of (N, J) over 2·width + 1 rows, continued beyond its ends by reflection in the end points."""
    if width < 1:
        return rows
    before = 2 * rows[0] - rows[width:0:-1]
    behind = 2 * rows[-1] - rows[-2 : -width - 2 : -1]
    total = np.cumsum(np.concatenate([np.zeros_like(rows[:1]), before, rows, behind]), axis=0)
    return (total[2 * width + 1 :] - total[: -2 * width - 1]) / (2 * width + 1)


def rounded(points: Floats, radius: float) -> Floats:
    """(GRID, J) along the polyline through ``points`` (K, J), its corners rounded over about ``radius`` radians."""
    along = np.append(0.0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1)))
    where = np.linspace(0, along[-1], GRID)
    dense = np.stack([np.interp(where, along, column) for column in points.T], 1)
    if len(points) == 2:
        return dense
    width = min(int(radius / 2 / along[-1] * GRID), GRID // 4)
    return _averaged(_averaged(dense, width), width)


def velocities(path: Floats, dt_s: float, fine: int = 10) -> Floats:
    """Joint velocities (T, J) at the ends of T control steps that lead from rest along ``path`` (GRID, J) to rest.

    The velocity is linear within a step, as the environment has it.
    """
    du = 1.0 / (len(path) - 1)
    slope = np.gradient(path, du, axis=0)
    bend = np.gradient(slope, du, axis=0)
    with np.errstate(divide="ignore"):
        top = np.min((SPEED / np.abs(slope)) ** 2, axis=1)
        top = np.minimum(top, np.min(0.6 * PUSH / np.abs(bend), axis=1))
        gain = 2 * du * np.min(0.8 * PUSH / np.abs(slope), axis=1)
    top[0] = top[-1] = 0.0
    for order in (range(1, len(top)), range(len(top) - 2, -1, -1)):
        for i in order:
            j = i - order.step
            top[i] = min(top[i], top[j] + gain[j])
    speed = np.sqrt(top)
    when = np.append(0.0, np.cumsum(2 * du / (speed[:-1] + speed[1:])))
    tick, half = dt_s / fine, int(SOFT_S / dt_s * fine) // 2
    steps = int(np.ceil((when[-1] + SOFT_S) / dt_s)) + 1
    at = np.arange(-half, steps * fine + half + 1) * tick - SOFT_S / 2
    q = np.stack([np.interp(at, when, column) for column in path.T], 1)
    total = np.cumsum(q, axis=0)
    q = (total[2 * half :] - np.concatenate([np.zeros_like(q[:1]), total[: -2 * half - 1]])) / (2 * half + 1)
    return _exact(q[::fine], dt_s)


def _exact(q: Floats, dt_s: float) -> Floats:
    """Velocities whose integral by trapezoids, from rest, passes by postures (T + 1, J) and ends at the last."""
    v = np.gradient(q, dt_s, axis=0)
    v[0] = v[-1] = 0.0
    reached = dt_s * ((v[:-1] + v[1:]) / 2).sum(0)
    total = np.abs(v).sum()
    # What is missing (some 1e-4 rad) is spread over the motion.
    share = np.abs(v).sum(1, keepdims=True) / max(total, 1e-12)
    return (v + share * (q[-1] - q[0] - reached) / dt_s)[1:]
