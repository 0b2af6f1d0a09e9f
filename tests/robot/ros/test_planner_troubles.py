"""The planner node where something is amiss: it says so, and however it ends, the arm comes to rest smoothly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: rclpy is not installed")

from dfplanner_robot.nodes import names

pytestmark = pytest.mark.slow

LEFT, RIGHT = (-0.11, 0.28, 0.62), (-0.07, -0.3, 0.59)
"""Two places with nothing between them."""
HEARD = Path(__file__).parents[3] / "docker/heard.py"
ACTIVATE, DEACTIVATE = 3, 4


@pytest.fixture(scope="module")
def url(graph: Any) -> str:
    """Where plans come from."""
    process = graph.start("chunk_server")
    graph.wait(lambda: "listening on" in graph.log(process), "the fake server")
    return graph.log(process).split()[-1]


@pytest.fixture(scope="module")
def sim(graph: Any) -> subprocess.Popen[str]:
    """The arm; its guard is patient with plans, for the machine may be busy."""
    process = graph.start("sim_node", heartbeat_timeout_s=0.2, plan_timeout_s=1.0, late_s=1.0)
    graph.until("ready")
    return process


@pytest.fixture(scope="module")
def planner(graph: Any, sim: Any, url: str) -> subprocess.Popen[str]:
    """A node that waits for goals."""
    process = graph.start("planner_node", autostart=True, server_url=url)
    graph.told("planner", "phase", "waiting")
    return process


@pytest.fixture(scope="module")
def go(graph: Any) -> Any:
    """Sends a goal, and waits until the arm moves fast."""
    from geometry_msgs.msg import PoseStamped

    out = graph.node.create_publisher(PoseStamped, names.GOAL_POSE, graph.convert.COMMANDS)

    def send(place: Any) -> None:
        graph.wait(out.get_subscription_count, "a listener to goals")
        out.publish(graph.convert.pose_message(0.0, names.BASE_FRAME, place))
        graph.moves(0.4)

    return send


@pytest.fixture(scope="module")
def beats(graph: Any) -> list[float]:
    """The stamps of the planner's heartbeats."""
    from std_msgs.msg import Header

    stamps: list[float] = []
    graph.node.create_subscription(
        Header, names.HEARTBEAT, lambda m: stamps.append(graph.convert.seconds(m.stamp)), graph.convert.SENSED
    )
    return stamps


def heard(graph: Any, name: str) -> subprocess.CompletedProcess[str]:
    """What the health check of a container says."""
    return subprocess.run(
        [sys.executable, str(HEARD), name], env=graph.environment, capture_output=True, text=True, timeout=60
    )


def change(graph: Any, number: int) -> bool:
    """Asks for a transition; whether it was made."""
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState

    request = ChangeState.Request(transition=Transition(id=number))
    return graph._asked(ChangeState, f"/{names.PLANNER}/change_state", request).success


def words(graph: Any) -> str:
    """The planner's last words."""
    return graph.said["planner"][1] if "planner" in graph.said else ""


def test_what_could_not_be_configured_is_not_healthy(graph: Any) -> None:
    process = graph.start("planner_node", checkpoint="nosuch", autostart=True)
    graph.wait(lambda: "unknown checkpoint 'nosuch'" in words(graph), "the reason")
    said = heard(graph, "planner")
    assert said.returncode == 1 and "configuring failed: " in said.stdout, said
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    graph.said.clear()


def test_without_an_arm_it_says_what_it_waits_for(graph: Any, url: str) -> None:
    process = graph.start("planner_node", autostart=True, server_url=url)
    graph.wait(lambda: words(graph) == f"waits for joint states on {names.JOINT_STATES}: none came", "these words")
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0 and graph.log(process).count("none came") == 1
    graph.said.clear()


def rests_smoothly(graph: Any, beats: list[float], since: float) -> None:
    """The arm comes to rest, which the guard did not bring about, and heartbeats go on until then."""
    graph.still()
    moved = [r.stamp for t, r in graph.joints if t >= since and abs(r.velocities).max() > 0.01]
    assert beats[-1] > moved[-1] - 0.05, "it fell silent while the arm moved"
    assert "braking" not in [s for t, s in graph.states if t >= since]


def test_deactivated_and_ended_in_motion_it_stops_smoothly(
    graph: Any, planner: subprocess.Popen[str], go: Any, beats: list[float]
) -> None:
    go(LEFT)
    since = graph.joints[-1][0]
    assert change(graph, DEACTIVATE)
    rests_smoothly(graph, beats, since)
    assert change(graph, ACTIVATE)
    go(RIGHT)
    since = graph.joints[-1][0]
    planner.send_signal(signal.SIGINT)
    rests_smoothly(graph, beats, since)
    assert planner.wait(20) == 0, graph.log(planner)
    graph.said.clear()


def test_a_simulation_that_stands_still_is_noticed(graph: Any, sim: subprocess.Popen[str], url: str) -> None:
    process = graph.start("planner_node", autostart=True, use_sim_time=True, server_url=url)
    graph.wait(lambda: words(graph) == "waiting", "that all is well")
    os.kill(sim.pid, signal.SIGSTOP)
    graph.wait(lambda: words(graph).startswith("the last joint state is "), "that it is old")
    assert graph.said["planner"][0] == b"\x01"
    os.kill(sim.pid, signal.SIGCONT)
    graph.wait(lambda: words(graph) == "waiting", "that all is well again")
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0 and "the arm is heard again" in graph.log(process)


def test_a_parameter_that_cannot_be_is_refused_in_one_sentence(graph: Any) -> None:
    process = graph.start("planner_node", horizon=1)
    assert process.wait(30) == 1
    said = graph.log(process).strip().rpartition("planner_node.py: ")[2]
    assert said == "the value given for horizon cannot be used; expected a whole number from 2 to 64"
