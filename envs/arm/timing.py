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
MOST_S = 1.4
"""Seconds, at most, in which a velocity that leads elsewhere is given up."""
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


def velocities(path: Floats, dt_s: float, moving: Floats | None = None, fine: int = 10) -> Floats:
    """Joint velocities (T, J) at the ends of T control steps that lead along ``path`` (GRID, J) to rest at its end.

    They begin at rest, or with the velocity ``moving`` (J,): its part along the path is kept up, what is left of it is
    given up at a gentle rate. The velocity is linear within a step, as the environment has it.
    """
    du = 1.0 / (len(path) - 1)
    slope = np.gradient(path, du, axis=0)
    first = 0.0 if moving is None else max(0.0, float(moving @ slope[0] / np.maximum(slope[0] @ slope[0], 1e-9)))
    speed = np.sqrt(_bounded(slope, du, first))
    when = np.append(0.0, np.cumsum(2 * du / np.maximum(speed[:-1] + speed[1:], 1e-9)))
    tick, half = dt_s / fine, int(SOFT_S / dt_s * fine) // 2
    late = SOFT_S / 2 if moving is None else 0.0
    steps = int(np.ceil((when[-1] + late + SOFT_S / 2) / dt_s)) + 1
    if moving is not None:
        steps = max(steps, int(np.ceil(MOST_S / dt_s)))
    at = np.arange(-half, steps * fine + half + 1) * tick - late
    q = np.stack([np.interp(at, when, column) for column in path.T], 1)
    q += np.minimum(at, 0.0)[:, None] * slope[0] * float(speed[0])
    total = np.cumsum(q, axis=0)
    q = (total[2 * half :] - np.concatenate([np.zeros_like(q[:1]), total[: -2 * half - 1]])) / (2 * half + 1)
    if moving is None:
        return _exact(q[::fine], np.zeros(path.shape[1]), dt_s)
    q, t = q[::fine], dt_s * np.arange(steps + 1, dtype=np.float64)
    return _exact(q + _given_up(path[0] - q[0], moving - (q[1] - q[0]) / dt_s, t), moving, dt_s)


def _bounded(slope: Floats, du: float, first: float) -> Floats:
    """(GRID,) the square of the speed along a path, as great as SPEED and PUSH allow; it starts with ``first``."""
    bend = np.gradient(slope, du, axis=0)
    with np.errstate(divide="ignore"):
        top = np.min((SPEED / np.abs(slope)) ** 2, axis=1)
        top = np.minimum(top, np.min(0.6 * PUSH / np.abs(bend), axis=1))
        gain = 2 * du * np.min(0.8 * PUSH / np.abs(slope), axis=1)
    top[0], top[-1] = min(top[0], first**2), 0.0
    for order in (range(1, len(top)), range(len(top) - 2, -1, -1)):
        for i in order:
            j = i - order.step
            top[i] = min(top[i], top[j] + gain[j])
    return top


def _given_up(off: Floats, rate: Floats, t: Floats) -> Floats:
    """(T, J) at times t: from ``off``, changing at ``rate``, to nothing; a cubic in a time that keeps it gentle."""
    most = float(np.clip(max(4 * np.abs(rate / PUSH).max(), np.sqrt(6 * np.abs(off / PUSH).max())), 0.3, MOST_S))
    u = np.minimum(t / most, 1.0)[:, None]
    return off * (1 - 3 * u**2 + 2 * u**3) + rate * most * u * (1 - u) ** 2


def _exact(q: Floats, first: Floats, dt_s: float) -> Floats:
    """Velocities from ``first`` on whose integral by trapezoids passes by postures (T + 1, J) and ends at the last."""
    v = np.gradient(q, dt_s, axis=0)
    v[0], v[-1] = first, 0.0
    reached = dt_s * ((v[:-1] + v[1:]) / 2).sum(0)
    # What is missing (some 1e-4 rad) is spread over the motion.
    share = np.abs(v).sum(1, keepdims=True)
    share[0] = share[-1] = 0.0
    return (v + share / max(share.sum(), 1e-12) * (q[-1] - q[0] - reached) / dt_s)[1:]
