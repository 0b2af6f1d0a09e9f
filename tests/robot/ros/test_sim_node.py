"""The simulated arm in a process of its own, guard inside: time, motion, faults, services, parameters, the end."""

from __future__ import annotations

import os
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
from dfplanner_robot.trajectory import JointTrajectory, from_states

ARM = reach_arm()
AWAY = ARM.rest + np.array([0.4, 0.1, 0.2, 0.2, 0.3, -0.2, 0.5])


@pytest.fixture(scope="module", autouse=True)
def sim(graph: Any) -> Iterator[subprocess.Popen[str]]:
    process = graph.start("sim_node", seed=1)
    graph.until("ready")
    graph.wait(lambda: len(graph.joints) > 50, "joint states")
    yield process
    fresh(graph)


def fresh(graph: Any) -> None:
    """The arm at rest and ready; whatever happened before, no measured limit was broken, and nothing touched."""
    begun = time.time()
    assert graph.call("/arm_sim/reset").success
    graph.until("ready", since=graph.until("idle", since=begun))
    graph.still()
    facts = graph.said["simulation"][2]  # told again at each change of mode
    assert (facts["violations"], facts["touched"]) == ("0", "0")


@pytest.fixture(autouse=True)
def freshly(graph: Any, sim: Any) -> None:
    fresh(graph)


def smooth(graph: Any, goal: np.ndarray, seconds: float = 1.5) -> JointTrajectory:
    """From rest where the arm is to rest at ``goal``, from now on."""
    s = np.linspace(0, 1, 31)[:, None]
    begin = graph.last.positions
    way, slope = 10 * s**3 - 15 * s**4 + 6 * s**5, (30 * s**2 - 60 * s**3 + 30 * s**4) / seconds
    return from_states(
        ARM.limits.names, 0.0, begin + way * (goal - begin), slope * (goal - begin), seconds / (len(s) - 1)
    )


def arrived(graph: Any, goal: np.ndarray) -> None:
    graph.wait(lambda: np.abs(graph.last.positions - goal).max() < 0.02, "the end of the trajectory")
    graph.still()
    assert np.abs(graph.last.positions - goal).max() < 0.02


def test_rate_and_stamps(graph: Any) -> None:
    begin = len(graph.joints)
    graph.wait(lambda: len(graph.joints) - begin > 250, "joint states")
    at, readings = zip(*graph.joints[begin:], strict=True)
    stamps = np.array([r.stamp for r in readings])
    assert (np.diff(stamps) > 0).all()
    assert (len(stamps) - 1) / (stamps[-1] - stamps[0]) > 100
    assert np.median(np.abs(np.array(at) - stamps)) < 0.5  # at a factor of 1 its time is ours
    assert readings[0].names == ARM.limits.names
    assert readings[0].velocities is not None
    assert (np.diff(graph.clocks) > 0).all()
    assert abs(graph.clocks[-1] - stamps[-1]) < 0.5
    assert graph.hands[-1].header.frame_id == names.BASE_FRAME


def test_no_memory_is_shared_with_what_may_be_killed(sim: Any) -> None:
    maps = Path(f"/proc/{sim.pid}/maps")
    if not maps.exists():
        pytest.skip("needs /proc, which tells what a process shares")
    assert "fastrtps" in maps.read_text()
    assert "/dev/shm/fastrtps" not in maps.read_text()


def test_a_trajectory_sent_by_hand_is_followed_to_its_end_without_watchdogs(graph: Any) -> None:
    begun = graph.send(smooth(graph, AWAY, seconds=2.0))  # four times the timeout of plans
    arrived(graph, AWAY)
    heard = [s for t, s in graph.states if t >= begun]
    assert "active" in heard
    assert "braking" not in heard


def test_positions_alone_in_another_order_are_followed_as_slowly_as_limits_ask(graph: Any) -> None:
    order = np.array([3, 0, 6, 1, 5, 2, 4])
    q = np.stack([(AWAY + ARM.rest) / 2, AWAY])[:, order]
    mixed = tuple(ARM.limits.names[i] for i in order)
    graph.send(JointTrajectory(mixed, 0.0, np.array([0.05, 0.1]), q))  # far too fast
    arrived(graph, AWAY)
    assert graph.told("guard", "mode", "ready")["brake"] == "0"


def spoiled(plan: JointTrajectory, how: str) -> JointTrajectory:
    assert plan.velocities is not None
    q, v = plan.positions.copy(), plan.velocities.copy()
    if how == "not_finite":
        q[5, 2] = np.nan
    elif how == "wild":
        q[1:], v = np.random.default_rng(0).uniform(-10, 10, q[1:].shape), 10 * np.ones_like(v)
    elif how == "names":
        return replace(plan, names=("elbow", *plan.names[1:]))
    elif how == "form":
        return replace(plan, times=plan.times[::-1].copy())
    return replace(plan, positions=q, velocities=v, accelerations=None)


@pytest.mark.parametrize(("how", "reason"), [("not_finite",) * 2, ("wild", "position"), ("names",) * 2, ("form",) * 2])
def test_in_motion_what_is_spoiled_brakes_and_waits_for_resume(graph: Any, how: str, reason: str) -> None:
    graph.send(smooth(graph, AWAY, 2.0))
    graph.moves(0.2)
    before = int(graph.said["guard"][2][reason])
    begun = graph.send(spoiled(smooth(graph, AWAY), how))
    graph.until("stopped", since=begun)  # its braking may be over before a busy machine hears of it
    graph.still()
    assert int(graph.told("guard", "mode", "stopped")[reason]) == before + 1
    assert np.abs(graph.last.positions - AWAY).max() > 0.05  # it did not get there
    answer = graph.call("/arm_guard/resume")
    assert answer.success
    graph.until("ready", since=begun)
    graph.send(smooth(graph, AWAY))
    arrived(graph, AWAY)


@pytest.fixture
def streamer(graph: Any) -> Iterator[subprocess.Popen[str]]:
    process = graph.start("streamer", use_sim_time=True)
    graph.until("active", since=time.time())
    graph.moves(0.2)
    yield process
    process.send_signal(signal.SIGCONT)
    process.kill()
    process.wait()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_planner_that_is_killed_or_frozen_is_braked_for(graph: Any, streamer: Any, number: int) -> None:
    graph.moves(0.2)
    streamer.send_signal(number)
    begun = time.time()
    braked = graph.until("braking", since=begun)
    graph.until("ready", since=braked)
    graph.still()
    assert braked - begun < 1.0  # 0.1 s where the machine is not busy
    assert graph.said["guard"][2]["reason"] == "silent"


def test_stop_holds_against_a_stream_until_resume(graph: Any, streamer: Any) -> None:
    assert graph.call("/arm_guard/stop").success
    begun = time.time()
    graph.still()
    assert graph.state == "stopped"
    refused = graph.call("/arm_guard/start")  # lets go, and begins anew where the arm is
    assert refused.success
    graph.until("active", since=begun)
    graph.moves(0.2)
    assert graph.call("/arm_guard/stop").success
    graph.still()
    answer = graph.call("/arm_guard/resume")
    assert answer.success, answer.message
    graph.until("active", since=time.time() - 0.1)
    again = graph.call("/arm_guard/resume")
    assert not again.success
    assert "expected stopped" in again.message


def test_reset_restarts_the_simulation(graph: Any) -> None:
    graph.send(smooth(graph, AWAY))
    arrived(graph, AWAY)
    graph.send(smooth(graph, ARM.rest))
    graph.moves(0.2)
    begun = time.time()
    answer = graph.call("/arm_sim/reset")
    assert answer.success
    assert "sim restarted" in answer.message
    graph.wait(lambda: np.abs(graph.last.positions - ARM.rest).max() < 1e-3, "the rest posture")
    graph.until("ready", since=graph.until("idle", since=begun))
    graph.still()


def test_parameters_out_of_range_are_refused_with_the_reason(graph: Any) -> None:
    for name, value in (("jump_rad", 9.0), ("late_s", float("nan")), ("late_s", "soon"), ("rate_hz", 50.0)):
        answer = graph.set("arm_sim", name, value)
        assert not answer.successful
        assert answer.reason
    assert graph.set("arm_sim", "jump_rad", 0.12).successful
    assert graph.set("arm_sim", "jump_rad", 0.1).successful


@pytest.mark.parametrize(
    "wrong",
    [{"rate_hz": -5.0}, {"workspace": "[0.0,1.0]"}, {"model": "no such.xml"}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_it_does_not_start_with_nonsense_and_says_why(graph: Any, wrong: dict[str, Any]) -> None:
    process = graph.start("sim_node", **wrong)
    assert process.wait(timeout=20) == 1
    assert next(iter(wrong)) in graph.log(process)
    assert "Traceback" not in graph.log(process)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_clean(graph: Any, number: int) -> None:
    process = graph.start("sim_node", apart=True, camera=number == signal.SIGTERM)
    graph.wait(lambda: "ready" in graph.log(process), "the start")
    os.kill(process.pid, number)
    assert process.wait(timeout=10) == 0
    assert "Traceback" not in graph.log(process)
    assert "Error" not in graph.log(process)
