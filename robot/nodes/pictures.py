"""A plan to look at in RViz: the hand's path, and a sphere a token that says how sure it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from geometry_msgs.msg import Point
from nav_msgs.msg import Path
from numpy.typing import NDArray
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from dfplanner_robot.core import Answer
from dfplanner_robot.nodes.convert import pose_message, time_message

NOISE = 1000
"""The noise level that is pure noise, in the models that ``dfplanner train`` makes."""
SMALL_M, LARGE_M = 0.015, 0.08
"""Diameters of a token that is certain, and of one that is pure noise."""
SHOWN_S = 1
"""A plan's markers vanish after so long."""


Drawn = Callable[[NDArray[Any]], NDArray[Any]]
"""States (T, obs) to where they are drawn, (T, 3)."""


def path_message(begins: float, dt_s: float, frame: str, answer: Answer, drawn: Drawn) -> Path:
    """A plan's states, one each ``dt_s`` seconds, as places; empty where it has none."""
    path = Path()
    path.header.frame_id, path.header.stamp = frame, time_message(begins)
    path.poses = [pose_message(begins + i * dt_s, frame, place) for i, place in enumerate(_places(answer, drawn))]
    return path


def markers_message(
    begins: float, chunk: int, frame: str, answer: Answer, drawn: Drawn, noise: int = NOISE
) -> MarkerArray:
    """A sphere for each token, ``chunk`` states apart: small and green is certain, large, pale and red is noise.

    ``noise``: the level that is pure noise. Without levels a token whose actions are in the answer counts as certain,
    a later one as halfway. The first marker deletes the last plan's.
    """
    markers, places = [Marker(action=Marker.DELETEALL)], _places(answer, drawn)
    for i in range(0, len(places), chunk):
        share = _share(answer, i, noise)
        marker = Marker(ns="plan", id=i // chunk, type=Marker.SPHERE, action=Marker.ADD)
        marker.header.frame_id, marker.header.stamp = frame, time_message(begins)
        marker.pose.position = Point(**dict(zip("xyz", map(float, places[i]), strict=True)))
        marker.pose.orientation.w = 1.0
        marker.scale.x = marker.scale.y = marker.scale.z = SMALL_M + share * (LARGE_M - SMALL_M)
        marker.color = ColorRGBA(r=share, g=1.0 - share, b=0.1, a=1.0 - 0.7 * share)
        marker.lifetime.sec = SHOWN_S
        markers.append(marker)
    return MarkerArray(markers=markers)


def _places(answer: Answer, drawn: Drawn) -> NDArray[Any]:
    """(T, 3); (0, 3) where there are no states that could be drawn."""
    states = answer.states
    return drawn(states) if states is not None and states.ndim == 2 and states.shape[1] >= 3 else np.zeros((0, 3))


def _share(answer: Answer, i: int, noise: int) -> float:
    """How uncertain state ``i`` is, from 0 to 1."""
    if answer.levels is None or len(answer.levels) <= i:
        return 0.0 if i <= len(answer.actions) else 0.5
    return min(1.0, max(0.0, float(answer.levels[i]) / noise))
