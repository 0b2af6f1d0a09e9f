"""The maze's ball on the graph: the simulation with its guard, the planner's node, the maze's model in its worker."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: rclpy is not installed")

from dfplanner.checkpoint import bundled
from dfplanner_robot.nodes import names

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("maze2d-umaze" not in bundled(), reason="the maze's checkpoint is not bundled"),
]

TOLERANCE_M = 0.1
ROUND_THE_CORNER, THE_END = (2.9, 2.0), (0.9, 2.9)
"""The first is round one corner from where the ball starts, and the second round the other."""


@pytest.fixture(scope="module")
def goals(graph: Any) -> tuple[Any, Any]:
    """Publishers of places and of joints."""
    from geometry_msgs.msg import PoseStamped
    from sensor_msgs.msg import JointState

    how = graph.convert.COMMANDS
    return (
        graph.node.create_publisher(PoseStamped, names.GOAL_POSE, how),
        graph.node.create_publisher(JointState, names.GOAL_JOINTS, how),
    )


@pytest.fixture(scope="module")
def ball(graph: Any, goals: tuple[Any, Any]) -> Iterator[None]:
    """Both nodes, the guard inside and patient, for the machine may be busy; they must end clean."""
    patient = {"heartbeat_timeout_s": 1.0, "plan_timeout_s": 1.0, "late_s": 1.0}
    sim = graph.start("sim_node", model="maze2d-umaze", acceleration_share=0.9, resume_after_s=0.2, **patient)
    graph.until("ready")
    planner = graph.start("planner_node", model="maze2d-umaze", autostart=True)
    phase(graph, "waiting", 90.0)
    for publisher in goals:
        graph.wait(publisher.get_subscription_count, "a listener to goals")
    yield
    for process in (planner, sim):
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0, graph.log(process)
        assert "Traceback" not in graph.log(process)


def status(graph: Any) -> tuple[bytes, str, dict[str, str]]:
    """Level, words and values of the planner's last diagnostics."""
    return graph.said.get("planner", (b"", "", {}))


def phase(graph: Any, wanted: str, seconds: float = 30.0) -> None:
    """Waits until the planner, by what it says from now on, is in a phase."""
    graph.said.pop("planner", None)
    graph.wait(lambda: status(graph)[2].get("phase") == wanted, wanted, seconds)


def place(graph: Any) -> np.ndarray:
    """Where the ball is, x and y."""
    last = graph.last
    return np.array(last.positions)[[last.names.index(name) for name in ("ball_x", "ball_y")]]


def arrives(graph: Any, goal: tuple[float, float]) -> None:
    """Waits until the ball rests at a goal and the planner says so."""
    graph.wait(lambda: np.linalg.norm(place(graph) - goal) < TOLERANCE_M, f"the ball at {goal}", 60.0)
    phase(graph, "arrived")
    graph.still()
    assert np.linalg.norm(place(graph) - goal) < TOLERANCE_M + 0.05


def test_the_ball_goes_to_two_goals_one_after_the_other(graph: Any, ball: None, goals: tuple[Any, Any]) -> None:
    from nav_msgs.msg import Path as Way
    from sensor_msgs.msg import JointState

    ways: list[Any] = []
    graph.node.create_subscription(Way, names.PLAN, ways.append, graph.convert.SENSORS)
    assert np.allclose(place(graph), [0.8, 1.8], atol=1e-3)
    goals[0].publish(graph.convert.pose_message(0.0, names.BASE_FRAME, (*ROUND_THE_CORNER, 7.0)))
    arrives(graph, ROUND_THE_CORNER)
    x, y = THE_END
    goals[1].publish(JointState(name=["ball_y", "ball_x"], position=[y, x]))
    arrives(graph, THE_END)
    told = graph.said["simulation"][2]
    assert told["violations"] == "0" and told["touched"] == "0"
    drawn = np.array([[p.pose.position.x, p.pose.position.y, p.pose.position.z] for p in ways[-1].poses])
    assert not drawn[:, 2].any() and np.linalg.norm(drawn[-1, :2] - THE_END) < 0.5
    values = status(graph)[2]
    assert float(values["distance_m"]) < TOLERANCE_M + 0.05 and int(values["plans"]) > 5


def test_a_goal_in_a_wall_is_refused_in_a_sentence(graph: Any, ball: None, goals: tuple[Any, Any]) -> None:
    before, where = graph.said["planner"][2]["goal"], place(graph)
    goals[0].publish(graph.convert.pose_message(0.0, names.BASE_FRAME, (1.8, 1.8, 0.0)))
    graph.wait(lambda: "lies in a wall of maze umaze" in status(graph)[1], "the refusal")
    goals[0].publish(graph.convert.pose_message(0.0, "map", (0.8, 0.8, 0.0)))
    graph.wait(lambda: "expected 'base'" in status(graph)[1], "the refusal of a frame")
    time.sleep(0.5)
    assert status(graph)[2]["goal"] == before and np.allclose(place(graph), where, atol=0.01)


def test_another_body_is_refused_in_a_sentence(graph: Any) -> None:
    process = graph.start("planner_node", model="arm.xml", apart=True)
    assert process.wait(30) == 1
    assert "the planner has no body 'arm.xml'" in graph.log(process)
