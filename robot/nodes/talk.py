"""A word to the graph from a terminal: a goal for the planner, a call of a service; where no ``ros2`` command is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.utilities import try_shutdown
from std_srvs.srv import Trigger

from dfplanner.types import DFPlannerError
from dfplanner_robot.nodes import names
from dfplanner_robot.nodes.convert import COMMANDS, pose_message
from dfplanner_robot.nodes.running import begun

FOUND_S = 10.0
"""Seconds within which whoever is there is found."""
KNOWN_S = 0.3
"""From then until it has found us, too: an answer before that would be lost."""
STALE_S = 2.5
"""The planner speaks of itself once a second, at least."""
SERVICES = (*names.PLANNER_SERVICES, *names.GUARD_SERVICES, f"/{names.SIM}/reset")


class Talk(Node):
    """A client of the graph; use it as a context. Its methods wait, and raise DFPlannerError where nobody answers."""

    def __init__(self) -> None:
        begun()
        super().__init__("dfplanner_talk")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)
        self.planner: tuple[str, dict[str, str]] | None = None
        """The planner's words in its last status, and the values."""
        self.create_subscription(DiagnosticArray, names.DIAGNOSTICS, self._told, COMMANDS)

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()
        self.destroy_node()
        try_shutdown()

    def _told(self, message: DiagnosticArray) -> None:
        for s in message.status:
            if s.name == "planner":
                self.planner = s.message, {v.key: v.value for v in s.values}

    def _wait(self, wait_s: float, until: Callable[[], Any]) -> bool:
        end = time.monotonic() + wait_s
        while not until():
            if time.monotonic() > end:
                return False
            self._executor.spin_once(timeout_sec=0.05)
        return True

    def goal(self, place: Sequence[float], frame: str, wait_s: float) -> tuple[bool, str]:
        """Sends a goal (3,) in metres; whether it was reached within ``wait_s``, and in words what became of it."""
        out = self.create_publisher(PoseStamped, names.GOAL_POSE, COMMANDS)
        if not self._wait(FOUND_S, out.get_subscription_count):
            raise DFPlannerError(
                f"nobody listens to {names.GOAL_POSE}; start dfplanner ros planner --autostart, with the same "
                "ROS_DOMAIN_ID as here"
            )
        if not self._wait(FOUND_S, lambda: self.planner):
            raise DFPlannerError("the planner says nothing on /diagnostics; see its own output")
        before = self._said()
        out.publish(pose_message(self.get_clock().now().nanoseconds * 1e-9, frame, place))
        wanted = ", ".join(f"{x:.3f}" for x in place)
        began = time.monotonic()

        def taken() -> bool:
            fresh = self._said() != before or time.monotonic() - began > STALE_S
            return fresh and (self._goal_is(place) or "refused" in self._said()[0])

        if not self._wait(FOUND_S, taken) or self.planner is None:
            raise DFPlannerError("the planner does not speak of the goal; see its own output")
        if not self._goal_is(place):
            raise DFPlannerError(self.planner[0])
        if not self._wait(wait_s, lambda: self.planner and self.planner[1].get("phase") == "arrived"):
            return (
                False,
                f"({wanted}) m after {wait_s:g} s: {self.planner[0]}, {self.planner[1].get('distance_m')} m away",
            )
        return True, f"({wanted}) m: arrived after {time.monotonic() - began:.1f} s"

    def _said(self) -> tuple[str, str]:
        """The planner's words, and its goal."""
        words, values = self.planner or ("", {})
        return words, values.get("goal", "none")

    def _goal_is(self, place: Sequence[float]) -> bool:
        words, goal = self._said()
        return "refused" not in words and goal.split(", ")[:2] == [f"{x:.3f}" for x in place[:2]]

    def call(self, service: str) -> str:
        """Calls a Trigger service; its answer, which is raised where it is a refusal."""
        client = self.create_client(Trigger, service)
        if not self._wait(FOUND_S, client.service_is_ready):
            raise DFPlannerError(f"there is no service {service}; are its node and this on the same ROS_DOMAIN_ID?")
        self._wait(KNOWN_S, lambda: False)
        future = client.call_async(Trigger.Request())
        if not self._wait(2 * FOUND_S, future.done):
            raise DFPlannerError(f"{service} does not answer")
        answer = future.result()
        if answer is None or not answer.success:
            raise DFPlannerError(f"{service}: {answer.message if answer else 'failed'}")
        return str(answer.message)
