"""Between messages and our words: trajectories, readings, times, poses, diagnostics; and the QoS that topics have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration, Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseStamped
from numpy.typing import ArrayLike
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory as TrajectoryMessage
from trajectory_msgs.msg import JointTrajectoryPoint

from dfplanner_robot.settings import JointReading
from dfplanner_robot.trajectory import Floats, JointTrajectory

NS = 1_000_000_000


def _qos(depth: int, reliable: bool = True, latched: bool = False) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


SENSED = _qos(5)
"""For publishers of sensors: reliable, so that any subscriber fits."""
SENSORS = _qos(1, reliable=False)
"""For subscribers to sensors and clocks: only the newest matters."""
COMMANDS = _qos(10)
"""Trajectories and goals, on both sides."""
BEATS = _qos(1)
"""Heartbeats, on the publisher's side; listen with ``SENSORS``."""
LATCHED = _qos(1, latched=True)
"""What late comers must know too, on both sides."""
EACH = _qos(100, latched=True)
"""For subscribers who want to hear the short-lived ones of these, too."""


def seconds(stamp: Time | Duration) -> float:
    """A stamp or a duration in seconds; from 1970, doubles are good to 0.3 µs."""
    return stamp.sec + stamp.nanosec / NS


def time_message(t: float) -> Time:
    """Seconds as a stamp; a time before 0 is 0."""
    whole = max(0, round(t * NS))
    return Time(sec=whole // NS, nanosec=whole % NS)


def trajectory_of(message: TrajectoryMessage) -> JointTrajectory:
    """A message's trajectory, unchecked: what is ragged stays so, and the guard refuses it. A stamp of 0 means now."""
    points = message.points
    return JointTrajectory(
        tuple(message.joint_names),
        seconds(message.header.stamp),
        np.array([seconds(p.time_from_start) for p in points], np.float64),
        _rows([p.positions for p in points]),
        _optional([p.velocities for p in points]),
        _optional([p.accelerations for p in points]),
    )


def _rows(rows: list[Any]) -> Floats:
    """(N, J); rows of several lengths as an array of objects, which is no array of numbers to whoever checks."""
    if len({len(row) for row in rows}) <= 1:
        return np.array(rows, np.float64).reshape(len(rows), len(rows[0]) if rows else 0)
    ragged = np.empty(len(rows), object)
    ragged[:] = [list(row) for row in rows]
    return ragged


def _optional(rows: list[Any]) -> Floats | None:
    return _rows(rows) if any(len(row) for row in rows) else None


def trajectory_message(trajectory: JointTrajectory, frame: str = "") -> TrajectoryMessage:
    """A trajectory as a message. A stamp of 0 means now."""
    message = TrajectoryMessage(joint_names=list(trajectory.names))
    message.header.stamp, message.header.frame_id = time_message(trajectory.stamp), frame
    columns = trajectory.positions, trajectory.velocities, trajectory.accelerations
    points = []
    for i, t in enumerate(trajectory.times):
        whole = round(float(t) * NS)
        point = JointTrajectoryPoint(time_from_start=Duration(sec=whole // NS, nanosec=whole % NS))
        point.positions, point.velocities, point.accelerations = ([] if x is None else x[i].tolist() for x in columns)
        points.append(point)
    message.points = points
    return message


def reading_of(message: JointState) -> JointReading:
    """A message's reading, unchecked; velocities are None where it has none."""
    velocities = np.array(message.velocity, np.float64) if len(message.velocity) else None
    return JointReading(
        tuple(message.name), seconds(message.header.stamp), np.array(message.position, np.float64), velocities
    )


def reading_message(reading: JointReading, frame: str = "") -> JointState:
    """A reading as a message."""
    message = JointState(name=list(reading.names), position=np.asarray(reading.positions).tolist())
    message.header.stamp, message.header.frame_id = time_message(reading.stamp), frame
    if reading.velocities is not None:
        message.velocity = np.asarray(reading.velocities).tolist()
    return message


def pose_message(
    t: float, frame: str, position: ArrayLike, quaternion: ArrayLike = (1.0, 0.0, 0.0, 0.0)
) -> PoseStamped:
    """A pose at time ``t``: position (3,) in metres, quaternion (w, x, y, z)."""
    message = PoseStamped()
    message.header.stamp, message.header.frame_id = time_message(t), frame
    p, o = message.pose.position, message.pose.orientation
    p.x, p.y, p.z = (float(x) for x in np.asarray(position))
    o.w, o.x, o.y, o.z = (float(x) for x in np.asarray(quaternion))
    return message


OK, WARN, ERROR, STALE = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR, DiagnosticStatus.STALE
"""Levels of a diagnostic status."""


def status(name: str, level: bytes, message: str, values: Mapping[str, object], hardware: str = "") -> DiagnosticStatus:
    """A diagnostic status; values are told as ``str`` has them, floats with six digits."""
    told = {k: f"{v:.6g}" if isinstance(v, float) else str(v) for k, v in values.items()}
    pairs = [KeyValue(key=k, value=v) for k, v in told.items()]
    return DiagnosticStatus(level=level, name=name, message=message, hardware_id=hardware, values=pairs)


def diagnostics(t: float, statuses: Sequence[DiagnosticStatus]) -> DiagnosticArray:
    """Several statuses at time ``t``, as the topic wants them."""
    message = DiagnosticArray(status=list(statuses))
    message.header.stamp = time_message(t)
    return message
