"""The planner's node in a process of its own: its life, goals, services, and what it does when its worker dies.

The arm is the simulated one, with the guard inside; plans come from a fake server, or from a worker of the node's.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: rclpy is not installed")

from dfplanner.checkpoint import bundled
from dfplanner_envs.arm.task import reach_task
from dfplanner_robot.nodes import names

pytestmark = pytest.mark.slow

TASK = reach_task()
LEFT, RIGHT = (-0.11, 0.28, 0.62), (-0.07, -0.3, 0.59)
"""Two places with nothing between them."""
GOALS: dict[str, Any] = {}
CONFIGURE, CLEANUP, ACTIVATE, DEACTIVATE, SHUTDOWN = 1, 2, 3, 4, 5


@pytest.fixture(scope="module", autouse=True)
def sim(graph: Any) -> None:
    """The arm; its guard is patient, for the machine may be busy."""
    graph.start("sim_node", heartbeat_timeout_s=1.0, plan_timeout_s=1.0, late_s=1.0)
    graph.until("ready")


class Server:
    """The fake server's process, always on the same port."""

    def __init__(self, graph: Any) -> None:
        self.graph, self.url = graph, ""
        self.process: subprocess.Popen[str] = self.start()

    def start(self) -> subprocess.Popen[str]:
        where = {"port": self.url.rpartition(":")[2]} if self.url else {}
        self.process = self.graph.start("chunk_server", **where)
        self.graph.wait(lambda: "listening on" in self.graph.log(self.process), "the fake server")
        self.url = self.graph.log(self.process).split()[-1]
        return self.process


@pytest.fixture(scope="module")
def server(graph: Any) -> Server:
    return Server(graph)


def ended(graph: Any, process: subprocess.Popen[str], number: int = signal.SIGINT) -> None:
    """The process ends clean."""
    process.send_signal(number)
    assert process.wait(20) == 0, graph.log(process)
    assert "Traceback" not in graph.log(process)


@pytest.fixture(scope="module")
def planner(graph: Any, server: Server) -> Iterator[subprocess.Popen[str]]:
    """A node that planned for the arm by itself as soon as it was started; it must end clean."""
    process = graph.start("planner_node", autostart=True, use_sim_time=True, server_url=server.url)
    until(graph, "waiting")
    yield process
    ended(graph, process)


def status(graph: Any) -> tuple[bytes, str, dict[str, str]]:
    """Level, words and values of the planner's last diagnostics."""
    return graph.said.get("planner", (b"", "", {}))


def fact(graph: Any, key: str) -> str:
    """A value of the planner's diagnostics, one that is told from now on."""
    graph.said.pop("planner", None)
    return graph.wait(lambda: key in status(graph)[2], f"the planner's {key}") and status(graph)[2][key]


def until(graph: Any, phase: str, seconds: float = 30.0) -> None:
    """Waits until the diagnostics have it that the planner is in a phase."""
    graph.wait(
        lambda: status(graph)[2].get("phase") == phase and status(graph)[2]["lifecycle"] == "active", phase, seconds
    )


def change(graph: Any, number: int, label: str = "") -> bool:
    """Asks for a transition; whether it was made."""
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState

    request = ChangeState.Request(transition=Transition(id=number, label=label))
    return graph._asked(ChangeState, f"/{names.PLANNER}/change_state", request).success


def life(graph: Any) -> str:
    """The lifecycle's state."""
    from lifecycle_msgs.srv import GetState

    return graph._asked(GetState, f"/{names.PLANNER}/get_state", GetState.Request()).current_state.label


@pytest.fixture(scope="module", autouse=True)
def goals(graph: Any) -> None:
    """Publishers of goals; one that is destroyed while another thread spins would end that."""
    from geometry_msgs.msg import PoseStamped
    from sensor_msgs.msg import JointState

    GOALS["pose"] = graph.node.create_publisher(PoseStamped, names.GOAL_POSE, graph.convert.COMMANDS)
    GOALS["joints"] = graph.node.create_publisher(JointState, names.GOAL_JOINTS, graph.convert.COMMANDS)


def go(graph: Any, place: Any, frame: str = names.BASE_FRAME) -> None:
    """Publishes a goal."""
    graph.wait(GOALS["pose"].get_subscription_count, "a listener to goals")
    GOALS["pose"].publish(graph.convert.pose_message(0.0, frame, place))


def distance(graph: Any, place: Any) -> float:
    """Metres from the hand, as the arm's readings have it, to a place."""
    last = graph.last
    order = [last.names.index(n) for n in TASK.arm.limits.names]
    return float(np.linalg.norm(TASK.chain.hand(last.positions[order]) - place))


def reaches(graph: Any, place: Any, seconds: float = 40.0, near: float = 0.025) -> None:
    """Waits until the hand is at a place and the planner says so, and the arm rests there."""
    try:
        graph.wait(lambda: distance(graph, place) < near, f"the hand at {place}", seconds)
        until(graph, "arrived")
    except pytest.fail.Exception:
        print(distance(graph, place), graph.said)
        raise
    graph.still()
    assert distance(graph, place) < near + 0.01


class Beats:
    """The stamps of the planner's heartbeats."""

    def __init__(self, graph: Any) -> None:
        from std_msgs.msg import Header

        self.stamps: list[float] = []
        graph.node.create_subscription(Header, names.HEARTBEAT, self._heard, graph.convert.SENSED)
        self._seconds = graph.convert.seconds

    def _heard(self, message: Any) -> None:
        self.stamps.append(self._seconds(message.stamp))


def test_a_life_and_what_is_refused_in_it(graph: Any, server: Server) -> None:
    beats = Beats(graph)
    process = graph.start("planner_node", server_url=server.url, use_sim_time=True)
    assert life(graph) == "unconfigured"
    for number, label in ((ACTIVATE, ""), (DEACTIVATE, ""), (99, ""), (0, "fly"), (CLEANUP, "cleanup")):
        assert not change(graph, number, label)
    assert life(graph) == "unconfigured" and process.poll() is None
    answer = graph.call("/planner/stop")
    assert not answer.success and "not configured" in answer.message
    assert change(graph, CONFIGURE) and life(graph) == "inactive"
    assert not change(graph, CONFIGURE) and life(graph) == "inactive"
    _parameters_are_refused(graph)
    assert change(graph, ACTIVATE) and life(graph) == "active"
    assert not change(graph, ACTIVATE) and not change(graph, CLEANUP)
    graph.wait(lambda: len(beats.stamps) > 100, "heartbeats")
    assert 0.015 < np.median(np.diff(beats.stamps)) < 0.035
    assert change(graph, DEACTIVATE) and life(graph) == "inactive"
    count = len(beats.stamps)
    time.sleep(0.5)
    assert len(beats.stamps) <= count + 1
    assert change(graph, CLEANUP) and life(graph) == "unconfigured"
    assert graph.set(names.PLANNER, "rate_hz", 50.0).successful
    assert change(graph, SHUTDOWN)
    assert process.wait(10) == 0, graph.log(process)
    assert "Traceback" not in graph.log(process)


def _parameters_are_refused(graph: Any) -> None:
    refused = {
        "rate_hz": (1000.0, "range"),
        "goal_tolerance_m": (math.nan, "range"),
        "runtime": ("tensorflow", "expected one of torch, onnx"),
        "server_url": ("ws://127.0.0.1:1", "clean it up first"),
        "horizon": ("four", "type"),
        "autostart": (True, "read-only"),
        "checkpoint": ("", "empty"),
    }
    for name, (value, reason) in refused.items():
        answer = graph.set(names.PLANNER, name, value)
        assert not answer.successful, name
        assert reason in answer.reason, (name, answer.reason)
    assert graph.set(names.PLANNER, "goal_tolerance_m", 0.015).successful
    assert graph.set(names.PLANNER, "replan_every", 3).successful
    assert graph.set(names.PLANNER, "checkpoint", "another").successful


def gone(pid: int) -> bool:
    """Whether there is no such process, or it only waits to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_worker_of_its_own_is_loaded_replaced_and_taken_along(graph: Any, arm_checkpoint: Path) -> None:
    process = graph.start("planner_node", checkpoint="nosuch")
    assert life(graph) == "unconfigured"
    assert not change(graph, CONFIGURE) and life(graph) == "unconfigured"
    assert "unknown checkpoint 'nosuch'" in graph.log(process)
    assert graph.set(names.PLANNER, "checkpoint", str(arm_checkpoint)).successful
    assert change(graph, CONFIGURE) and change(graph, ACTIVATE)
    first = int(fact(graph, "worker_pid"))
    os.kill(first, signal.SIGKILL)
    graph.wait(lambda: status(graph)[2].get("worker") == "lost", "the loss of the worker")
    graph.wait(lambda: status(graph)[2].get("worker") == "ready", "a new worker", 60.0)
    assert fact(graph, "worker_restarts") == "1"
    second = int(fact(graph, "worker_pid"))
    assert graph.set(names.PLANNER, "checkpoint", "maze2d-umaze").successful
    answer = graph.call("/planner/reload")
    assert not answer.success and "this arm has" in answer.message and "goes on" in answer.message
    assert int(fact(graph, "worker_pid")) == second
    assert graph.set(names.PLANNER, "checkpoint", str(arm_checkpoint)).successful
    assert graph.call("/planner/reload").success
    third = int(fact(graph, "worker_pid"))
    assert len({first, second, third}) == 3
    ended(graph, process, signal.SIGTERM)
    graph.wait(lambda: gone(first) and gone(second) and gone(third), "the workers' end")


def workers(parent: int) -> list[int]:
    """The workers that are children of a process."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it is gone already
            ours = (path / "stat").read_text().rpartition(")")[2].split()[1] == str(parent)
            if ours and b"serve" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
    return found


def test_told_to_end_while_it_loads_it_ends(graph: Any, arm_checkpoint: Path) -> None:
    process = graph.start("planner_node", checkpoint=str(arm_checkpoint), autostart=True)
    found = graph.wait(lambda: workers(process.pid), "a worker")
    ended(graph, process)
    assert "told to end" in graph.log(process) and all(map(gone, found))


def test_the_node_needs_no_torch() -> None:
    code = "import sys, dfplanner_robot.nodes.planner_node; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.skipif("arm-reach" not in bundled(), reason="the arm's checkpoint is not bundled")
def test_a_goal_is_reached_though_the_worker_is_killed_on_the_way(graph: Any) -> None:
    place = (0.4, 0.3, 0.4)
    process = graph.start("planner_node", autostart=True, use_sim_time=True, goal_tolerance_m=0.05)
    until(graph, "waiting", 60.0)
    worker = int(fact(graph, "worker_pid"))
    go(graph, place)
    graph.moves(0.2)
    os.kill(worker, signal.SIGKILL)
    graph.still(10.0)
    assert distance(graph, place) > 0.05
    reaches(graph, place, 60.0, near=0.055)  # how well it plans is not asked here
    assert fact(graph, "worker_restarts") == "1"
    ended(graph, process)


def test_a_goal_is_reached_and_shown_on_the_way(graph: Any, planner: Any) -> None:
    from nav_msgs.msg import Path as Way
    from visualization_msgs.msg import MarkerArray

    ways: list[Any] = []
    shown: list[Any] = []
    graph.node.create_subscription(Way, names.PLAN, ways.append, graph.convert.SENSORS)
    graph.node.create_subscription(MarkerArray, names.PLAN_MARKERS, shown.append, graph.convert.SENSORS)
    go(graph, LEFT)
    graph.moves()
    reaches(graph, LEFT)
    last, spheres = ways[-1], shown[-1].markers[1:]
    assert last.header.frame_id == names.BASE_FRAME and len(last.poses) == 16
    sizes = [m.scale.x for m in spheres]
    assert len(spheres) == 4 and sizes == sorted(sizes) and sizes[0] < sizes[-1], "the farther, the less certain"
    values = status(graph)[2]
    assert float(values["distance_m"]) < 0.02 and int(values["plans"]) > 5
    assert float(values["inference_ms_p50"]) <= float(values["inference_ms_p99"])
    plans = status(graph)[2]["plans"]
    time.sleep(1.5)
    assert fact(graph, "plans") == plans, "nothing is planned for an arm that has arrived"


def test_goals_that_cannot_be_are_refused_in_a_sentence(graph: Any, planner: Any) -> None:
    from sensor_msgs.msg import JointState

    wrong = {
        "finite": lambda: go(graph, (math.nan, 0.0, 0.4)),
        "expected 'base'": lambda: go(graph, LEFT, "camera"),
        "out of the arm's reach": lambda: go(graph, (2.0, 0.0, 0.4)),
    }
    before = fact(graph, "goal")
    for words, send in wrong.items():
        send()
        graph.wait(lambda words=words: words in status(graph)[1], words)
    assert fact(graph, "goal") == before
    graph.wait(GOALS["joints"].get_subscription_count, "a listener to postures")
    GOALS["joints"].publish(JointState(name=["elbow"], position=[0.0]))
    graph.wait(lambda: "elbow" in status(graph)[1], "the refusal of a posture")
    posture = TASK.posture(np.array([LEFT]))[0][0] - 0.3 * (np.arange(7) == 0)
    named = list(zip(TASK.arm.limits.names, posture.tolist(), strict=True))[::-1]
    GOALS["joints"].publish(JointState(name=[n for n, _ in named], position=[q for _, q in named]))
    reaches(graph, TASK.chain.hand(posture))
    assert "refused" not in status(graph)[1]


def test_stop_brakes_and_resume_goes_on(graph: Any, planner: Any) -> None:
    go(graph, RIGHT)
    graph.moves(0.2)
    begun = time.time()
    answer = graph.call("/planner/stop")
    assert answer.success, answer.message
    graph.still()
    assert distance(graph, RIGHT) > 0.2 and fact(graph, "phase") == "stopped"
    graph.until("ready", since=begun)
    assert "braking" not in [s for t, s in graph.states if t >= begun], "it was not the guard that stopped the arm"
    assert graph.call("/planner/resume").success
    graph.moves(0.2)
    assert graph.call("/arm_guard/stop").success
    graph.still()
    until(graph, "held")
    assert graph.call("/planner/resume").success  # the guard's as well
    reaches(graph, RIGHT)


def test_reset_forgets_the_goal(graph: Any, planner: Any) -> None:
    go(graph, RIGHT)
    reaches(graph, RIGHT)
    go(graph, LEFT)
    graph.moves(0.2)
    assert graph.call("/planner/reset").success
    graph.still()
    assert fact(graph, "goal") == "none" and distance(graph, LEFT) > 0.05
    until(graph, "waiting")


def test_an_arm_whose_server_dies_comes_to_rest_and_goes_on_with_the_next(
    graph: Any, planner: Any, server: Server
) -> None:
    go(graph, LEFT)
    graph.moves(0.2)
    server.process.kill()
    graph.still(10.0)
    assert distance(graph, LEFT) > 0.05
    graph.wait(lambda: status(graph)[0] == b"\x02", "an error in diagnostics")
    server.start()
    reaches(graph, LEFT)
