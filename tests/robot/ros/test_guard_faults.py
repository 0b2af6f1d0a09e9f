"""What may befall the guard as a node of its own while the arm moves: a clock that jumps, being frozen, being killed.

The controller then stops by itself; what it is told afterwards begins where it stopped.
"""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: rclpy is not installed")

from dfplanner_envs.arm.model import reach_arm
from dfplanner_robot.nodes import names

pytestmark = pytest.mark.slow

ARM = reach_arm()
AWAY = ARM.rest + np.array([0.8, 0.1, 0.4, 0.4, 0.5, -0.2, 0.8])
BENT = "/bent_clock"


class Guarded:
    """The arm behind a plain controller, and its guard, whose clock is ``ahead`` seconds before the arm's."""

    def __init__(self, graph: Any) -> None:
        from rosgraph_msgs.msg import Clock

        self.graph, self.ahead = graph, 0.0
        convert = graph.convert
        out = graph.node.create_publisher(Clock, BENT, convert.SENSED)

        def bend(message: Any) -> None:
            out.publish(Clock(clock=convert.time_message(convert.seconds(message.clock) + self.ahead)))

        graph.node.create_subscription(Clock, "/clock", bend, convert.SENSORS)
        self._said = threading.Event()
        graph.node.create_subscription(
            graph.convert.TrajectoryMessage, names.COMMAND, lambda _: self._said.set(), graph.convert.COMMANDS
        )
        graph.start("sim_node", guard=False)
        self.process = self.guard()

    def guard(self) -> subprocess.Popen[str]:
        """A new one, ready."""
        begun = time.time()
        clock = ("--ros-args", "-r", f"/clock:={BENT}")
        patient = {"sensor_timeout_s": 0.2}  # the machine may be busy
        self.process = self.graph.start("guard_node", arguments=clock, use_sim_time=True, autostart=True, **patient)
        self.graph.until("ready", since=begun)
        return self.process

    def freeze(self) -> None:
        """Stops it between two commands: one that it was just sending would come late (docs/safety.md)."""
        self._said.clear()
        assert self._said.wait(5.0), "the guard commands nothing"
        self.process.send_signal(signal.SIGSTOP)

    def moves(self) -> None:
        """The arm is on a long way, and fast."""
        graph = self.graph
        for _ in range(5):  # where the machine is busy the guard may miss ticks, and brake
            graph.still()
            goal = AWAY if np.abs(graph.last.positions - ARM.rest).max() < 0.4 else ARM.rest
            graph.send(graph.smooth(goal, 2.5), names.GUARDED)
            try:
                graph.moves(0.5, 3.0)
                return
            except pytest.fail.Exception:
                continue
        pytest.fail("the arm did not follow a plan five times")

    def follows(self) -> None:
        """It takes plans, and follows one to its end."""
        graph = self.graph
        for _ in range(5):
            graph.send(graph.smooth(ARM.rest, 2.5), names.GUARDED)
            try:
                graph.wait(lambda: np.abs(graph.last.positions - ARM.rest).max() < 0.02, "the end", 4.0)
                return
            except pytest.fail.Exception:
                continue
        pytest.fail("no plan was followed to its end in five")


@pytest.fixture(scope="module")
def pair(graph: Any) -> Guarded:
    return Guarded(graph)


@pytest.fixture
def guarded(pair: Guarded) -> Iterator[Guarded]:
    yield pair
    pair.follows()
    pair.graph.unharmed()


@pytest.mark.parametrize("jump", [3.0, -3.0])
def test_its_clock_jumps_and_is_set_right_again(graph: Any, guarded: Guarded, jump: float) -> None:
    guarded.moves()
    guarded.ahead = jump
    begun = time.time()
    graph.until("fault", since=begun)
    graph.still()
    time.sleep(3.2)  # what was stamped with a time to come is due
    guarded.graph.unharmed()
    guarded.ahead = 0.0
    time.sleep(0.3)
    assert graph.call("/arm_guard/reset").success
    assert graph.call("/arm_guard/resume").success
    graph.until("ready", since=begun)


def test_frozen_it_goes_on_from_where_the_arm_came_to_rest(graph: Any, guarded: Guarded) -> None:
    for seconds in (0.09, 0.15, 1.0):  # the arm still follows its plan; has just begun to brake; rests
        guarded.moves()
        guarded.freeze()
        time.sleep(seconds)
        graph.said.pop("guard")
        guarded.process.send_signal(signal.SIGCONT)
        assert graph.told("guard", "mode", "ready")["reason"] == "tick_gap"
        graph.still()
        guarded.graph.unharmed()


def test_killed_another_takes_the_arm_over_where_it_came_to_rest(graph: Any, guarded: Guarded) -> None:
    guarded.moves()
    guarded.process.kill()
    guarded.process.wait()
    guarded.guard()
