"""A planner of its own process: streams chunks at 10 Hz and beats at 50 Hz, to and fro, until it is killed."""

from __future__ import annotations

import sys

import numpy as np
import rclpy
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import JointState
from std_msgs.msg import Header, String
from trajectory_msgs.msg import JointTrajectory

from dfplanner_envs.arm.model import reach_arm
from dfplanner_robot.core import ArmCore
from dfplanner_robot.fakes import FakeChunks
from dfplanner_robot.nodes import names
from dfplanner_robot.nodes.convert import (
    BEATS,
    COMMANDS,
    LATCHED,
    SENSORS,
    reading_of,
    time_message,
    trajectory_message,
)

ARM = reach_arm()
AWAY = np.array([0.5, 0.1, 0.2, 0.2, 0.3, -0.2, 0.6])


def main(topic: str) -> None:
    """Plans on ``topic``."""
    rclpy.init()
    node = rclpy.create_node("streamer")
    core, planner = ArmCore(ARM.limits, None), FakeChunks(ARM.limits)
    plans = node.create_publisher(JointTrajectory, topic, COMMANDS)
    beats = node.create_publisher(Header, names.HEARTBEAT, BEATS)

    def now() -> float:
        return node.get_clock().now().nanoseconds / 1e9

    begun = now()

    paused = [True]

    def heard(state: String) -> None:
        paused[0] = state.data not in ("ready", "active")
        if paused[0]:
            core.forget()  # the arm is stopped: the next plan begins where it is then

    def work() -> None:
        if paused[0]:
            return
        goal = ARM.rest + AWAY * (-0.5 if int((now() - begun) / 2.0) % 2 else 1.0)
        if core.goal is None or (goal != core.goal).any():
            core.set_goal(goal)
        made = core.step(now(), planner)
        if made is not None:
            plans.publish(trajectory_message(made))

    def read(message: JointState) -> None:
        core.read(reading_of(message))

    node.create_subscription(JointState, names.JOINT_STATES, read, SENSORS)
    node.create_subscription(String, names.GUARD_STATE, heard, LATCHED)
    node.create_timer(0.02, lambda: beats.publish(Header(stamp=time_message(now()))))
    node.create_timer(0.01, work)
    rclpy.spin(node)


if __name__ == "__main__":
    main((*remove_ros_args(sys.argv)[1:], names.COMMAND)[0])
