"""What the planner node publishes."""

from __future__ import annotations

import time
from collections import deque

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from nav_msgs.msg import Path
from rclpy.node import Node
from std_msgs.msg import Header
from trajectory_msgs.msg import JointTrajectory
from visualization_msgs.msg import MarkerArray

from dfplanner_robot.nodes import names
from dfplanner_robot.nodes.convert import BEATS, COMMANDS, diagnostics, time_message, trajectory_message
from dfplanner_robot.nodes.pictures import markers_message, path_message
from dfplanner_robot.nodes.pilot import Move
from dfplanner_robot.trajectory import Floats

BEATS_HZ = 50.0
"""Heartbeats a second, at least."""


class Voice:
    """A node's publishers: the arm's commands, heartbeats, the plan to look at, diagnostics. Times in seconds."""

    def __init__(self, node: Node) -> None:
        self._command = node.create_publisher(JointTrajectory, names.COMMAND, COMMANDS)
        self._heartbeat = node.create_publisher(Header, names.HEARTBEAT, BEATS)
        self._plan = node.create_publisher(Path, names.PLAN, BEATS)
        self._markers = node.create_publisher(MarkerArray, names.PLAN_MARKERS, BEATS)
        self._diagnostics = node.create_publisher(DiagnosticArray, names.DIAGNOSTICS, COMMANDS)

    def beat(self, now: float, frame: str) -> None:
        """The control loop is alive."""
        self._heartbeat.publish(Header(stamp=time_message(now), frame_id=frame))

    def move(self, move: Move, frame: str, dt_s: float, chunk: int) -> None:
        """A trajectory; and the plan it is of, its states ``dt_s`` seconds apart, ``chunk`` of them to a token."""
        self._command.publish(trajectory_message(move.trajectory, frame))
        if move.answer is not None:
            self._plan.publish(path_message(move.begins, dt_s, frame, move.answer))
            self._markers.publish(markers_message(move.begins, chunk, frame, move.answer))

    def report(self, now: float, status: DiagnosticStatus) -> None:
        """How it is."""
        self._diagnostics.publish(diagnostics(now, [status]))


class Pulse:
    """Of a control loop at ``rate_hz``: which of its ticks beat, and how far apart the last ones were."""

    def __init__(self, rate_hz: float = BEATS_HZ) -> None:
        self.every, self._ticks = max(1, int(rate_hz / BEATS_HZ)), 0
        self._when: deque[float] = deque(maxlen=int(2 * rate_hz))

    def tick(self) -> bool:
        """A tick; whether a heartbeat is due with it."""
        self._ticks += 1
        self._when.append(time.monotonic())
        return self._ticks % self.every == 0

    @property
    def gaps(self) -> Floats:
        """Seconds between the ticks of about two seconds, by a steady clock."""
        return np.diff(self._when)
