"""What may befall planner and arm in motion: late plans, dead and frozen processes, clocks that jump, wrong joints.

Whatever it is, no limit is broken and nothing is touched; and once it is over, the arm goes where it is sent.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: rclpy is not installed")

from dfplanner_envs.arm.model import reach_arm
from dfplanner_robot.nodes import names
from dfplanner_robot.nodes.gate import STREAM_S
from dfplanner_robot.trajectory import JointTrajectory

pytestmark = pytest.mark.slow

ARM = reach_arm()
AWAY = ARM.rest + np.array([0.4, 0.1, 0.2, 0.2, 0.3, -0.2, 0.5])
LEFT, RIGHT = (0.235, 0.296, 0.518), (0.312, -0.213, 0.518)
"""Two places with nothing between them."""
PATIENT = {"heartbeat_timeout_s": 0.3}
"""The machine may be busy."""
ORDER = [3, 0, 6, 1, 5, 2, 4]


class World:
    """The arm with the guard inside, and, once asked for, a planner: its clock and how long plans take are ours."""

    bent = "/bent_clock"

    def __init__(self, graph: Any, file: Path) -> None:
        from geometry_msgs.msg import PoseStamped
        from rosgraph_msgs.msg import Clock

        self.graph, self._file = graph, file
        self.ahead = 0.0
        """Seconds by which the planner's clock is before the arm's."""
        self.processes: dict[str, subprocess.Popen[str]] = {}
        node, qos = graph.node, graph.convert
        self._clock = node.create_publisher(Clock, self.bent, qos.SENSED)
        node.create_subscription(Clock, "/clock", self._bend, qos.SENSORS)
        self._goals = node.create_publisher(PoseStamped, names.GOAL_POSE, qos.COMMANDS)

    def _bend(self, message: Any) -> None:
        convert = self.graph.convert
        message.clock = convert.time_message(convert.seconds(message.clock) + self.ahead)
        self._clock.publish(message)

    def takes(self, seconds: float) -> None:
        """So long a plan takes from now on."""
        self._file.write_text(str(seconds))

    def start(self, what: str, *arguments: str, **params: Any) -> subprocess.Popen[str]:
        self.processes[what] = self.graph.start(what, arguments=arguments, **params)
        return self.processes[what]

    def end(self, what: str) -> bool:
        """As ``kill -9`` does, frozen or not; whether there was one."""
        process = self.processes.pop(what, None)
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
        return process is not None

    def arm(self, **params: Any) -> None:
        """Another arm than before, if there was one, ready, or on its way already if a planner waited for it."""
        self.end("sim_node")
        self.graph.states.clear()
        self.graph.joints.clear()
        self.start("sim_node", **PATIENT, **params)
        self.graph.wait(lambda: len(self.graph.joints) > 50, "joint states")
        self.graph.wait(lambda: self.graph.state in ("ready", "active"), "a guard that takes plans")

    def planner(self) -> subprocess.Popen[str]:
        """One that waits for goals, started if there is none."""
        graph = self.graph
        if "slow_server" not in self.processes:
            process = self.start("slow_server", str(self._file))
            graph.wait(lambda: "listening on" in graph.log(process), "the server")
        if "planner_node" not in self.processes:
            graph.said.pop("planner", None)
            url = graph.log(self.processes["slow_server"]).split()[-1]
            clock = ("--ros-args", "-r", f"/clock:={self.bent}")
            self.start("planner_node", *clock, autostart=True, server_url=url, use_sim_time=True)
        graph.wait(lambda: graph.said.get("planner", (b"", "", {}))[2].get("phase") == "waiting", "the planner")
        return self.processes["planner_node"]

    def go(self, place: tuple[float, ...]) -> None:
        """Sends the hand to a place."""
        self.graph.wait(self._goals.get_subscription_count, "a listener to goals")
        self._goals.publish(self.graph.convert.pose_message(0.0, names.BASE_FRAME, place))

    def away(self, place: tuple[float, ...]) -> float:
        """Metres from the hand to a place."""
        p = self.graph.hands[-1].pose.position
        return float(np.linalg.norm(np.array([p.x, p.y, p.z]) - place))

    def reaches(self, place: tuple[float, ...], seconds: float = 15.0) -> None:
        """Waits until the hand is at a place, and rests there."""
        self.graph.wait(lambda: self.away(place) < 0.025, f"the hand at {place}", seconds)
        self.graph.still()
        assert self.away(place) < 0.03

    def fresh(self) -> None:
        """All clocks agree, plans take no time, no goal is set, and the arm rests where it began."""
        self.ahead = 0.0
        self.takes(0.0)
        if "planner_node" in self.processes:
            assert self.graph.call("/planner/reset").success
        begun = time.time()
        assert self.graph.call("/arm_sim/reset").success
        self.graph.until("ready", since=self.graph.until("idle", since=begun))
        self.graph.still()


@pytest.fixture(scope="module")
def arm(graph: Any, tmp_path_factory: pytest.TempPathFactory) -> World:
    made = World(graph, tmp_path_factory.mktemp("server") / "takes")
    made.arm()
    return made


@pytest.fixture
def world(arm: World) -> Iterator[World]:
    arm.fresh()
    yield arm
    arm.graph.unharmed()


def reordered(plan: JointTrajectory, order: list[int]) -> JointTrajectory:
    """The same plan with its joints in another order."""
    assert plan.velocities is not None and plan.accelerations is not None
    rows = (x[:, order] for x in (plan.positions, plan.velocities, plan.accelerations))
    return JointTrajectory(tuple(plan.names[i] for i in order), plan.stamp, plan.times, *rows)


WRONG = {
    "missing": (lambda plan: reordered(plan, ORDER[:6]), "names", "stopped"),
    "renamed": (lambda plan: replace(plan, names=("elbow", *plan.names[1:])), "names", "stopped"),
    "doubled": (lambda plan: reordered(plan, [*ORDER[:6], 3]), "names", "stopped"),
    "columns of other joints": (lambda plan: replace(reordered(plan, ORDER), names=plan.names), "position", "stopped"),
}


def test_wrong_joints_in_motion_are_braked_for_and_joints_in_another_order_are_ours(graph: Any, world: World) -> None:
    if world.end("planner_node"):
        time.sleep(STREAM_S + 0.1)  # until then plans count as a stream's
    for spoil, reason, then in WRONG.values():
        plan = graph.smooth(AWAY, 2.0)
        graph.send(plan)
        graph.moves(0.2)
        begun = graph.send(spoil(replace(plan, stamp=graph.last.stamp)))
        graph.until(then, since=graph.until("braking", since=begun))
        graph.still()
        assert graph.told("guard", "mode", then)["reason"] == reason
        if then == "stopped":
            assert graph.call("/arm_guard/resume").success
            graph.until("ready", since=begun)
        begun = graph.send(reordered(graph.smooth(ARM.rest, 1.0), ORDER))
        graph.wait(lambda: np.abs(graph.last.positions - ARM.rest).max() < 0.01, "the rest posture")
        graph.still()
        assert "braking" not in [s for t, s in graph.states if t >= begun]


def test_plans_may_come_later_and_later(graph: Any, world: World) -> None:
    world.planner()
    for seconds, place in ((0.1, LEFT), (0.3, RIGHT), (1.0, LEFT)):  # the last is longer than a plan lasts
        world.takes(seconds)
        world.go(place)
        graph.moves(0.1)
        begin = world.away(place)
        graph.wait(lambda place=place, begin=begin: world.away(place) < 0.7 * begin, f"a way at {seconds} s", 20.0)
    world.takes(0.0)
    world.reaches(LEFT)


@pytest.mark.parametrize("jump", [10.0, -10.0])
def test_the_clock_of_the_planner_jumps(graph: Any, world: World, jump: float) -> None:
    world.planner()
    world.go(LEFT)
    graph.moves(0.2)
    world.ahead = jump
    begun = time.time()
    graph.until("braking", since=begun)
    graph.still()
    assert world.away(LEFT) > 0.05
    world.ahead = 0.0
    time.sleep(0.3)
    if graph.state == "stopped":  # a plan that begins in ten seconds is nothing a planner should send
        assert graph.call("/arm_guard/resume").success
    world.reaches(LEFT)


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_a_planner_frozen_or_killed_is_braked_for(graph: Any, world: World, number: int) -> None:
    process = world.planner()
    world.go(LEFT)
    graph.moves(0.2)
    process.send_signal(number)
    graph.until("ready", since=graph.until("braking", since=time.time()))
    graph.still()
    assert world.away(LEFT) > 0.05
    if number == signal.SIGSTOP:
        process.send_signal(signal.SIGCONT)  # what it says then is old
    else:
        world.end("planner_node")
        world.planner()
        world.go(LEFT)
    world.reaches(LEFT)


@pytest.mark.parametrize("pace", [1.0, 4.0])
def test_an_arm_that_died_and_came_again_is_planned_for_again(graph: Any, world: World, pace: float) -> None:
    """At a pace of 4 time is ahead of the machine's: the arm that comes again begins in the past of the first."""
    if pace > 1:
        world.arm(real_time_factor=pace)
    world.planner()
    world.go(LEFT)
    world.reaches(LEFT)
    world.go(RIGHT)
    graph.moves(0.2)
    before = graph.last.stamp
    world.arm()
    assert (graph.last.stamp < before) == (pace > 1)
    begun = graph.joints[0][0]
    assert graph.moved(0.1) - begun < 3.0  # at once, not when its time has caught up
    world.reaches(RIGHT)
