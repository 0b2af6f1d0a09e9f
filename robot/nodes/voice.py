"""What the planner node publishes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from nav_msgs.msg import Path
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from rclpy.timer import Timer
from std_msgs.msg import Header
from trajectory_msgs.msg import JointTrajectory
from visualization_msgs.msg import MarkerArray

from dfplanner_robot.nodes import names
from dfplanner_robot.nodes.convert import BEATS, COMMANDS, diagnostics, time_message, trajectory_message
from dfplanner_robot.nodes.pictures import Drawn, markers_message, path_message
from dfplanner_robot.nodes.pilot import Move
from dfplanner_robot.trajectory import Floats

BEATS_HZ = 50.0
"""Heartbeats a second, at least."""
AFTER_S, LONGEST_S = 0.1, 1.5
"""The last heartbeats go on for so long after a stop's end, and in all for so long at most."""


class Voice:
    """A node's publishers: the arm's commands, heartbeats, the plan to look at, diagnostics. Times in seconds.

    ``drawn``: where a plan's states are drawn.
    """

    def __init__(self, node: Node, drawn: Drawn) -> None:
        self._drawn = drawn
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
            self._plan.publish(path_message(move.begins, dt_s, frame, move.answer, self._drawn))
            self._markers.publish(markers_message(move.begins, chunk, frame, move.answer, self._drawn))

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


class LastBeats:
    """Heartbeats from the control loop's end until the arm rests: a guard brakes hard for who falls silent in motion.

    ``beat`` sends one.
    """

    def __init__(self, node: Node, beat: Callable[[], None]) -> None:
        self._node, self._beat = node, beat
        self._timer: Timer | None = None
        self._until = 0.0

    def begin(self, seconds: float) -> None:
        """For a stop that lasts so long, by a steady clock: a node that ends hears no other."""
        self._until = time.monotonic() + min(seconds + AFTER_S, LONGEST_S)
        self._timer = self._node.create_timer(1 / BEATS_HZ, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def end(self) -> None:
        """At once."""
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
        self._timer = None

    def wait(self) -> None:
        """Returns when they are over; until then nothing else is done."""
        while self._timer is not None:
            self._tick()
            time.sleep(1 / BEATS_HZ)

    def _tick(self) -> None:
        self._beat()
        if time.monotonic() >= self._until:
            self.end()
