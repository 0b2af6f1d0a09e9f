"""The script that the data comes from: a free path to the goal's posture, timed, as joint velocities."""

from __future__ import annotations

from dfplanner_envs.arm.limits import Floats
from dfplanner_envs.arm.roadmap import Roadmap
from dfplanner_envs.arm.sim import DT_S
from dfplanner_envs.arm.task import ReachTask
from dfplanner_envs.arm.timing import rounded, velocities

RADII = (0.5, 0.25, 0.12)
"""Radians over which corners are rounded: the first that keeps the path free."""


def script(roadmap: Roadmap, start: Floats, end: Floats, moving: Floats | None = None) -> Floats | None:
    """Joint velocities (T, J) from posture ``start`` to rest in ``end``; None where no way was found.

    It starts at rest, or with the velocity ``moving`` (J,).
    """
    points = roadmap.path(start, end)
    if points is None:
        return None
    for radius in RADII:
        path = rounded(points, radius)
        if _keeps_away(roadmap.task, path[::2]):
            return velocities(path, DT_S, moving)
    return None


def _keeps_away(task: ReachTask, path: Floats) -> bool:
    """Whether a path (N, J) is free, what begins too near to something having left it for good."""
    left = next((i for i, q in enumerate(path) if task.rounded.free(q)), len(path))
    return task.near.path_free(path[: left + 1]) and task.rounded.path_free(path[left:])
