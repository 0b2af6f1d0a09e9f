"""The guard as a node before a plain controller, here the simulation's: its services, its checks, and its death."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: rclpy is not installed")

from dfplanner_envs.arm.model import reach_arm
from dfplanner_robot.nodes import names
from dfplanner_robot.nodes.gate import STREAM_S
from dfplanner_robot.trajectory import JointTrajectory, from_states

FINGER = "finger"
"""No joint of the arm; the client leaves its readings out, too."""

ARM = reach_arm()
AWAY = ARM.rest + np.array([0.4, 0.1, 0.2, 0.2, 0.3, -0.2, 0.5])


@pytest.fixture(scope="module", autouse=True)
def guard(graph: Any) -> subprocess.Popen[str]:
    """The guard first; without an arm it does not start."""
    process = graph.start("guard_node", use_sim_time=True)
    refused = graph.call("/arm_guard/start")
    assert not refused.success
    assert "see the joint states" in refused.message
    told = graph.wait(lambda: graph.said.get("guard"), "diagnostics")
    assert told[1] == "idle: waits for simulated time on /clock: none came"
    graph.start("sim_node", guard=False)
    graph.wait(lambda: len(graph.joints) > 50, "joint states")
    return process


@pytest.fixture(autouse=True)
def started(graph: Any, guard: Any) -> Iterator[None]:
    """At first the guard holds the arm where it is, at rest; whatever happens, no measured limit is broken."""
    graph.still()
    begun = time.time()
    if graph.told("guard", "mode", graph.state)["mode"] != "ready":
        graph.wait(lambda: graph.call("/arm_guard/start").success, "the start")
        graph.until("ready", since=begun)
    yield
    graph.unharmed()


def test_a_plan_goes_through_it_to_the_controller(graph: Any) -> None:
    graph.send(graph.smooth(AWAY, 1.5), names.GUARDED)
    graph.wait(lambda: np.abs(graph.last.positions - AWAY).max() < 0.02, "the end of the trajectory")
    graph.still()
    assert graph.told("guard", "mode", "ready")["pass"] == "1"
    graph.send(graph.smooth(ARM.rest, 1.5), names.GUARDED)
    graph.wait(lambda: np.abs(graph.last.positions - ARM.rest).max() < 0.02, "the way back")


def test_nan_in_motion_brakes_and_waits_for_resume(graph: Any) -> None:
    plan = graph.smooth(AWAY, 2.0)
    graph.send(plan, names.GUARDED)
    graph.moves(0.2)
    bad = plan.positions.copy()
    bad[3, 3] = np.nan
    begun = graph.send(replace(plan, positions=bad), names.GUARDED)
    graph.until("stopped", since=begun)
    graph.still()
    assert graph.said["guard"][2]["reason"] == "not_finite"
    assert graph.call("/arm_guard/resume").success
    graph.until("ready", since=begun)


@pytest.mark.parametrize("size", [1e160, 9.0])
def test_positions_beyond_all_bounds_are_refused_and_the_guard_lives(graph: Any, guard: Any, size: float) -> None:
    graph.send(graph.smooth(AWAY, 2.0), names.GUARDED)
    graph.moves(0.2)
    bad = JointTrajectory(ARM.limits.names, 0.0, np.array([2.0]), np.full((1, 7), size))
    begun = graph.send(bad, names.GUARDED)
    graph.until("stopped", since=begun)
    graph.still()
    assert graph.told("guard", "mode", "stopped")["reason"] == ("position" if size == 9.0 else "not_finite")
    graph.send(bad, names.COMMAND)  # nor does the plain controller end
    graph.send(replace(bad, positions=graph.last.positions[None]), names.COMMAND)
    assert graph.call("/arm_guard/resume").success
    graph.until("ready", since=begun)
    assert guard.poll() is None


def test_a_plan_of_thousands_of_points_is_refused_while_the_arm_moves(graph: Any) -> None:
    graph.send(graph.smooth(ARM.rest, 2.0), names.GUARDED)
    graph.wait(lambda: np.abs(graph.last.positions - ARM.rest).max() < 0.02, "the way back")
    graph.still()
    graph.send(graph.smooth(AWAY, 2.0), names.GUARDED)
    graph.moves(0.2)
    long = from_states(ARM.limits.names, 0.0, np.tile(AWAY, (3000, 1)), np.zeros((3000, 7)), 0.008)
    begun = graph.send(long, names.GUARDED)
    graph.until("stopped", since=begun)
    assert graph.told("guard", "mode", "stopped")["reason"] == "form"
    assert "fault" not in {s for t, s in graph.states if t >= begun}
    assert graph.call("/arm_guard/resume").success
    graph.until("ready", since=begun)


def test_another_who_publishes_joint_states_does_no_harm(graph: Any) -> None:
    from sensor_msgs.msg import JointState

    other = graph.node.create_publisher(JointState, names.JOINT_STATES, graph.convert.SENSED)
    begun = graph.send(graph.smooth(ARM.rest, 1.5), names.GUARDED)
    for _ in range(100):
        message = JointState(name=[FINGER], position=[0.04])
        message.header.stamp = graph.convert.time_message(graph.clocks[-1])
        other.publish(message)
        time.sleep(0.02)
    graph.node.destroy_publisher(other)
    graph.wait(lambda: np.abs(graph.last.positions - ARM.rest).max() < 0.02, "the end of the trajectory")
    assert {s for t, s in graph.states if t >= begun} <= {"ready", "active"}
    graph.said.pop("guard")
    assert int(graph.wait(lambda: graph.said.get("guard"), "diagnostics")[2]["readings of other joints"]) > 50


def test_two_of_a_name_are_warned(graph: Any) -> None:
    pair = [graph.start("sim_node", apart=True) for _ in range(2)]
    graph.wait(lambda: any("more of the name /arm_sim" in graph.log(p) for p in pair), "the warning")
    for process in pair:
        process.kill()
    assert "more of the name" not in graph.log(graph.processes[0][0])


def test_who_streams_is_watched(graph: Any) -> None:
    streamer = graph.start("streamer", arguments=[names.GUARDED], use_sim_time=True)
    graph.until("active", since=time.time())
    graph.moves(0.2)
    streamer.send_signal(signal.SIGSTOP)
    begun = time.time()
    graph.until("ready", since=graph.until("braking", since=begun))
    graph.still()
    assert graph.said["guard"][2]["reason"] == "silent"
    streamer.kill()
    time.sleep(STREAM_S + 0.1)  # until then plans count as a stream's


def test_parameters_are_refused_or_taken(graph: Any) -> None:
    wrong = (("jump_rad", -1.0), ("plan_timeout_s", float("inf")), ("velocity_share", 0.5), ("max_slowdown", 0.5))
    for name, value in wrong:
        answer = graph.set("arm_guard", name, value)
        assert not answer.successful
        assert name in answer.reason
    assert graph.set("arm_guard", "plan_timeout_s", 0.6).successful


def test_diagnostics_tell_every_reason_and_how_punctual_ticks_are(graph: Any) -> None:
    from dfplanner_robot.states import Reason

    facts = graph.wait(lambda: graph.said.get("guard"), "diagnostics")[2]
    assert {r.value for r in Reason} <= facts.keys()
    assert float(facts["ticks late, 99 % (ms)"]) >= 0


def test_an_arm_that_jumps_is_a_fault_and_may_be_started_anew(graph: Any) -> None:
    graph.send(graph.smooth(AWAY, 1.0), names.GUARDED)
    graph.wait(lambda: np.abs(graph.last.positions - AWAY).max() < 0.02, "the end of the trajectory")
    begun = time.time()
    assert graph.call("/arm_sim/reset").success
    graph.until("fault", since=begun)
    graph.wait(lambda: "start anew" in graph.call("/arm_guard/reset").message, "the refusal")
    assert np.abs(graph.last.positions - ARM.rest).max() < 1e-3  # it does not jump back
    graph.still()
    assert graph.call("/arm_guard/start").success
    graph.until("ready", since=begun)


def test_the_controller_stops_by_itself_when_the_guard_is_gone(graph: Any, guard: Any) -> None:
    for process, number, goal in ((guard, signal.SIGKILL, AWAY), (None, signal.SIGINT, 2 * ARM.rest - AWAY)):
        if process is None:
            process = graph.start("guard_node", autostart=True)
            graph.until("ready", since=time.time())
        graph.send(graph.smooth(goal, 2.5), names.GUARDED)
        graph.moves(0.2)
        process.send_signal(number)
        begun = time.time()
        graph.still()
        assert time.time() - begun < 3.0  # 0.3 s until it rests; 0.2 s of rest are waited for
        assert np.abs(graph.last.positions - goal).max() > 0.05
        assert process.wait(timeout=10) == (-signal.SIGKILL if number == signal.SIGKILL else 0)
        assert "Traceback" not in graph.log(process)
