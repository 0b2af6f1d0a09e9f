"""The launch files: what they describe, that the nodes know it, and that the nodes so started find one another."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

pytest.importorskip("rclpy", reason="needs ROS 2: pip install 'dfplanner[ros]'")

import rclpy
from rcl_interfaces.srv import GetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import parameter_value_to_python
from std_msgs.msg import String

from dfplanner_robot.nodes import convert, guard_node, names, planner_params, sim_node
from dfplanner_robot.nodes.transport import without_shared_memory

NODES = {
    "planner_node": (names.PLANNER, planner_params.PARAMETERS),
    "guard_node": (names.GUARD, guard_node.PARAMS),
    "sim_node": (names.SIM, sim_node.PARAMS),
}
"""By executable: the node's name, and its parameters."""
FILES = ("arm", "maze")
PATIENCE_S = 40.0
"""Seconds within which processes start and find each other, however busy the machine is."""

Read = Callable[..., tuple[list[Any], dict[str, Any]]]


@pytest.fixture
def read(standin: ModuleType, prefix: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Read:
    """``read("arm", sim="false")``: what the installed file declares, and its nodes by executable."""
    monkeypatch.setenv("AMENT_PREFIX_PATH", environment["AMENT_PREFIX_PATH"])

    def reader(name: str, **given: str) -> tuple[list[Any], dict[str, Any]]:
        declared, nodes = standin.read(prefix / "share" / "dfplanner" / "launch" / f"{name}.launch.py", given)
        return declared, {node.executable: node for node in nodes}

    return reader


def test_every_argument_is_described(read: Read) -> None:
    declared, _ = read("arm")
    wanted = "sim params checkpoint runtime server_url model real_time_factor autostart rviz"
    assert [argument.name for argument in declared] == wanted.split()
    assert all(len(argument.description) > 10 for argument in declared)


def test_simulated(read: Read) -> None:
    _, nodes = read("arm", real_time_factor="2", server_url="ws://there:8000", model="arm.xml")
    assert set(nodes) == {"sim_node", "guard_node", "planner_node"}
    arm, guard, planner = (nodes[name] for name in ("sim_node", "guard_node", "planner_node"))
    assert arm.parameters == {"use_sim_time": False, "guard": False, "real_time_factor": 2.0, "model": "arm.xml"}
    assert guard.parameters == {"use_sim_time": True, "autostart": True, "model": "arm.xml"}
    assert planner.parameters == {"use_sim_time": True, "autostart": True, "server_url": "ws://there:8000"}
    assert planner.remappings == {names.COMMAND: names.GUARDED}
    assert guard.remappings == arm.remappings == {}


def test_real(read: Read) -> None:
    _, nodes = read("arm", sim="false", autostart="false", checkpoint="mine", runtime="onnx")
    assert set(nodes) == {"guard_node", "planner_node"}
    assert nodes["guard_node"].parameters == {"use_sim_time": False, "autostart": False}
    expected = {"use_sim_time": False, "autostart": False, "checkpoint": "mine", "runtime": "onnx"}
    assert nodes["planner_node"].parameters == expected
    assert nodes["planner_node"].remappings == {names.COMMAND: names.GUARDED}


def test_rviz(read: Read, prefix: Path) -> None:
    _, nodes = read("arm", rviz="true")
    flag, view = nodes["rviz2"].options["arguments"]
    assert flag == "-d"
    displays = yaml.safe_load(Path(view).read_text())["Visualization Manager"]["Displays"]
    shown = {display.get("Topic", {}).get("Value") for display in displays}
    assert {names.PLAN, names.PLAN_MARKERS, names.HAND_POSE, names.GOAL_POSE} <= shown


def test_the_maze(read: Read) -> None:
    _, nodes = read("maze")
    assert set(nodes) == {"sim_node", "guard_node", "planner_node"}
    for node in nodes.values():
        (file,) = [given for given in node.options["parameters"] if isinstance(given, str)]
        assert Path(file).name == "maze.yaml"
    _, nodes = read("maze", model="maze2d-large")
    assert {node.parameters.get("model") for node in nodes.values()} == {"maze2d-large"}
    _, nodes = read("arm", model="ur5e.xml")
    assert "model" not in nodes["planner_node"].parameters, "of arms, the planner knows its own alone"


def test_topics_are_renamed_in_yaml(read: Read, prefix: Path, tmp_path: Path) -> None:
    filed = yaml.safe_load((prefix / "share" / "dfplanner" / "config" / "arm.yaml").read_text())
    topics = filed["launch"]["ros__parameters"]["topics"]
    ours = (names.JOINT_STATES, names.COMMAND, names.GOAL_POSE, names.GOAL_JOINTS, names.HAND_POSE)
    assert tuple(topics.values()) == (*ours, names.PLAN, names.PLAN_MARKERS)
    topics.update(joint_states="/left/joint_states", command="/left/command")
    mine = tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump(filed))
    _, nodes = read("arm", params=str(mine))
    assert nodes["guard_node"].remappings == {names.JOINT_STATES: "/left/joint_states", names.COMMAND: "/left/command"}
    assert nodes["planner_node"].remappings == {names.JOINT_STATES: "/left/joint_states", names.COMMAND: names.GUARDED}


@pytest.mark.parametrize("name", FILES)
def test_nodes_know_every_parameter(name: str, read: Read, prefix: Path) -> None:
    """Of the right type and in range; what a file says to no node would be passed over without a word."""
    filed = yaml.safe_load((prefix / "share" / "dfplanner" / "config" / f"{name}.yaml").read_text())
    assert set(filed) - {"launch"} == {node for node, _ in NODES.values()}
    everything = {"checkpoint": "c", "runtime": "onnx", "server_url": "ws://s:1", "model": "m", "real_time_factor": "1"}
    _, nodes = read(name, **everything)
    for executable, (node, params) in NODES.items():
        known = {p.name: p for p in params}
        for key, value in {**filed[node]["ros__parameters"], **nodes[executable].parameters}.items():
            if key == "use_sim_time":  # every node of ROS has it
                continue
            assert key in known, f"{node} has no parameter {key}"
            param = known[key]
            value = tuple(value) if isinstance(value, list) else value
            assert type(value) is type(param.default), f"{node}.{key} is {value!r}; expected as {param.default!r}"
            param.checked(value)


def test_numbers_have_comments() -> None:
    for path in (Path(__file__).parents[2] / "launch" / "config").glob("*.yaml"):
        for line in path.read_text().splitlines():
            key, colon, rest = line.partition(": ")
            assert not (colon and not key.startswith(("#", "    #")) and "#" not in rest), f"{path.name}: {line}"


class Graph:
    """Processes on a domain of their own, and a client of them."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        domain = os.getpid() % 100 + 1
        self.environment = environment | {
            "ROS_DOMAIN_ID": str(domain),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",  # each node makes of it what it must
            "ROS_LOG_DIR": str(folder),
        }
        self.log = folder / "said.log"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.modes: list[str] = []
        self.context = Context()
        rclpy.init(args=[], context=self.context, domain_id=domain)
        self.node = rclpy.create_node("watcher", context=self.context)
        self.node.create_subscription(String, names.GUARD_STATE, self._hear, convert.EACH)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)

    def _hear(self, message: String) -> None:
        self.modes.append(message.data)

    def start(self, command: list[str]) -> None:
        """Start a process."""
        with self.log.open("ab") as log:
            self.processes.append(subprocess.Popen(command, env=self.environment, stdout=log, stderr=log))

    def wait(self, until: Callable[[], Any], what: str) -> Any:
        """Waits for something true, and returns it."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.05)
            if found := until():
                return found
        pytest.fail(f"{what} did not come within {PATIENCE_S} s\n{self.log.read_text()[-4000:]}")

    def parameters(self, node: str, *keys: str) -> list[Any]:
        """Parameters of a node."""
        client = self.node.create_client(GetParameters, f"/{node}/get_parameters")
        self.wait(client.service_is_ready, f"{node}'s parameters")
        future = client.call_async(GetParameters.Request(names=list(keys)))
        answer = self.wait(lambda: future.done() and future.result(), f"an answer of {node}")
        return [parameter_value_to_python(value) for value in answer.values]

    def talk(self, topic: str) -> tuple[set[str], set[str]]:
        """Who publishes a topic, and who listens."""
        said, heard = self.node.get_publishers_info_by_topic(topic), self.node.get_subscriptions_info_by_topic(topic)
        return {info.node_name for info in said}, {info.node_name for info in heard}

    def end(self) -> list[int]:
        """Interrupts everything; the exit codes."""
        for process in self.processes:
            process.send_signal(signal.SIGINT)
        return [process.wait(PATIENCE_S) for process in self.processes]

    def close(self) -> None:
        """Nothing is left."""
        for process in self.processes:
            process.kill()
            process.wait()
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture
def graph(environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Graph]:
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    without_shared_memory()
    made = Graph(environment, tmp_path)
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["stand-in", "ros2 launch"])
def test_what_is_launched_finds_one_another(how: str, read: Read, prefix: Path, graph: Graph) -> None:
    given = {"autostart": "false", "checkpoint": "maze2d-umaze", "real_time_factor": "0.5"}
    if how == "stand-in":
        for node in read("arm", **given)[1].values():
            graph.start(node.command(prefix))
    else:
        pytest.importorskip("launch.actions", reason="needs ROS 2's own launch, which no wheel brings")
        ros2 = shutil.which("ros2")
        assert ros2 is not None
        graph.start([ros2, "launch", "-n", "dfplanner", "arm.launch.py", *(f"{k}:={v}" for k, v in given.items())])

    everybody = {names.PLANNER, names.SIM, names.GUARD}
    graph.wait(lambda: everybody <= set(graph.node.get_node_names()), "one of the nodes")
    assert graph.parameters(names.PLANNER, "use_sim_time", "checkpoint") == [True, "maze2d-umaze"]
    assert graph.parameters(names.GUARD, "use_sim_time", "publish_hz") == [True, 50.0]
    assert graph.parameters(names.SIM, "use_sim_time", "real_time_factor", "guard") == [False, 0.5, False]
    graph.wait(lambda: graph.talk(names.COMMAND) == ({names.GUARD}, {names.SIM}), "the way from the guard to the arm")
    graph.wait(lambda: graph.talk(names.GUARDED) == ({names.PLANNER}, {names.GUARD}), "the way to the guard")
    graph.wait(lambda: "ready" in graph.modes, "a guard that is ready")
    assert graph.end() == [0] * len(graph.processes), graph.log.read_text()
