"""Messages and our words mean the same, there and back; what is malformed stays so, for the guard to refuse."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: rclpy is not installed")

from builtin_interfaces.msg import Duration, Time
from hypothesis import given
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory as Message
from trajectory_msgs.msg import JointTrajectoryPoint

from dfplanner_robot.checks import Refused, conform
from dfplanner_robot.nodes import convert
from dfplanner_robot.settings import JointReading, SafetySettings
from dfplanner_robot.states import Reason
from dfplanner_robot.trajectory import JointTrajectory

NAMES = ("a", "b", "c")
NOW = 1_795_582_030.123456


def trajectory(points: int, *, velocities: bool = True, accelerations: bool = True) -> JointTrajectory:
    q, v, a = np.random.default_rng(points).normal(size=(3, points, len(NAMES)))
    times = 0.05 * np.arange(points, dtype=np.float64)
    return JointTrajectory(NAMES, NOW, times, q, v if velocities else None, a if accelerations else None)


@given(st.floats(0, 4e9))
def test_times_are_good_to_what_doubles_are(t: float) -> None:
    assert abs(convert.seconds(convert.time_message(t)) - t) <= max(1e-9, 2 * math.ulp(t))


def test_times_before_zero_are_zero_and_durations_may_be_negative() -> None:
    assert convert.time_message(-1.0) == Time()
    assert convert.seconds(Duration(sec=-1, nanosec=500_000_000)) == -0.5


@pytest.mark.parametrize("points", [1, 2, 17])
@pytest.mark.parametrize(("velocities", "accelerations"), [(True, True), (True, False), (False, False)])
def test_a_trajectory_survives_the_wire(points: int, velocities: bool, accelerations: bool) -> None:
    sent = trajectory(points, velocities=velocities, accelerations=accelerations)
    wire = serialize_message(convert.trajectory_message(sent))
    back = convert.trajectory_of(deserialize_message(wire, Message))
    assert back.names == sent.names
    assert abs(back.stamp - sent.stamp) < 1e-6
    np.testing.assert_allclose(back.times, sent.times, atol=1e-9)
    np.testing.assert_array_equal(back.positions, sent.positions)
    for ours, theirs in ((sent.velocities, back.velocities), (sent.accelerations, back.accelerations)):
        if ours is None:
            assert theirs is None
        else:
            np.testing.assert_array_equal(theirs, ours)


def message(points: int = 4, **spoiled: Any) -> Message:
    """A message whose second point has some fields replaced."""
    made = convert.trajectory_message(trajectory(points))
    for name, value in spoiled.items():
        setattr(list(made.points)[1], name, value)
    return made


def reason(message: Message) -> Reason:
    with pytest.raises(Refused) as refused:
        conform(convert.trajectory_of(message), NAMES, SafetySettings())
    return refused.value.reason


def test_what_is_malformed_is_refused_by_the_guard_not_here() -> None:
    assert reason(Message(joint_names=list(NAMES))) is Reason.FORM
    assert reason(Message(joint_names=list(NAMES), points=[JointTrajectoryPoint()] * 2)) is Reason.FORM
    assert reason(message(positions=[0.0, 0.0])) is Reason.FORM
    assert reason(message(velocities=[])) is Reason.FORM
    assert reason(message(time_from_start=Duration(sec=-1))) is Reason.FORM
    assert reason(message(positions=[0.0, math.nan, 0.0])) is Reason.NOT_FINITE
    assert reason(message(accelerations=[0.0, math.inf, 0.0])) is Reason.NOT_FINITE


@pytest.mark.parametrize("velocities", [True, False])
def test_a_reading_survives_the_wire(velocities: bool) -> None:
    q, v = np.random.default_rng(0).normal(size=(2, 3))
    sent = JointReading(NAMES, NOW, q, v if velocities else None)
    back = convert.reading_of(deserialize_message(serialize_message(convert.reading_message(sent)), JointState))
    assert (back.names, round(back.stamp, 6)) == (NAMES, NOW)
    np.testing.assert_array_equal(back.positions, q)
    assert back.velocities is None if not velocities else (back.velocities == v).all()


def test_statuses_tell_values_as_strings() -> None:
    made = convert.status("x", convert.WARN, "words", {"share": 0.123456789, "mode": "ready", "count": 3}, "arm")
    assert {v.key: v.value for v in made.values} == {"share": "0.123457", "mode": "ready", "count": "3"}
    assert convert.diagnostics(2.5, [made]).header.stamp == Time(sec=2, nanosec=500_000_000)


def test_a_sparing_log_tells_each_kind_once_a_second_and_how_many_came() -> None:
    from dfplanner_robot.nodes.guarded import Sparing

    said: list[str] = []
    now = [0.0]
    log = Sparing(said.append, lambda: now[0])
    for i in range(30):
        now[0] = i / 10
        log.note("form", f"plan {i}")
        if i == 4:
            log.note("jump", "too far")
    assert said == ["plan 0", "too far", "plan 10 (the last of 10)", "plan 20 (the last of 10)"]
    now[0] = 4.0
    log.tell()
    assert said[4:] == ["plan 29 (the last of 9)"]
    log.tell()
    assert len(said) == 5
