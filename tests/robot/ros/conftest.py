"""A graph of node processes on a domain of its own, and a client of them in this process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dfplanner_robot.nodes import names
from dfplanner_robot.nodes.transport import without_shared_memory
from dfplanner_robot.settings import JointReading
from dfplanner_robot.trajectory import JointTrajectory, from_states

HERE = Path(__file__).parent
FINGER = "finger"
"""A joint of somebody else's, who publishes on the same topic."""
DISCOVERED_S = 30.0
"""Seconds within which processes start and find each other, however busy the machine is."""


def speed(reading: JointReading) -> float:
    """Of the fastest joint, in rad/s."""
    return float(np.abs(np.asarray(reading.velocities)).max())


class Graph:
    """Starts processes, and listens to what they say; ``close`` kills all of them."""

    def __init__(self, folder: Path) -> None:
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from geometry_msgs.msg import PoseStamped
        from rclpy.context import Context
        from rclpy.executors import SingleThreadedExecutor
        from rosgraph_msgs.msg import Clock
        from sensor_msgs.msg import JointState
        from std_msgs.msg import Header, String
        from trajectory_msgs.msg import JointTrajectory as Message

        from dfplanner_robot.nodes import convert

        domain = os.getpid() % 100 + 1  # another for whoever else tests on this machine
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        without_shared_memory()  # rclpy reads of it here, too
        self.environment = {**os.environ, "ROS_DOMAIN_ID": str(domain), "OMP_NUM_THREADS": "1"}
        self.folder, self.processes = folder, []
        self.joints: list[tuple[float, JointReading]] = []
        """When each reading came, by this process's clock, and the reading."""
        self.states: list[tuple[float, str]] = []
        self.clocks: list[float] = []
        self.hands: list[Any] = []
        self.said: dict[str, Any] = {}
        """The last status of each name on /diagnostics."""
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node("client", context=self.context)
        self.convert, n = convert, self.node
        n.create_subscription(JointState, names.JOINT_STATES, self._read, convert.SENSORS)
        n.create_subscription(String, names.GUARD_STATE, self._state, convert.EACH)
        n.create_subscription(DiagnosticArray, names.DIAGNOSTICS, self._told, convert.COMMANDS)
        n.create_subscription(Clock, "/clock", self._ticked, convert.SENSORS)
        n.create_subscription(PoseStamped, names.HAND_POSE, self.hands.append, convert.SENSORS)
        self._out = {t: n.create_publisher(Message, t, convert.COMMANDS) for t in (names.COMMAND, names.GUARDED)}
        self._beats = n.create_publisher(Header, names.HEARTBEAT, convert.BEATS)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(n)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._ending = False
        self._thread.start()

    def _spin(self) -> None:
        while not self._ending:
            self._executor.spin_once(timeout_sec=0.05)

    def _read(self, message: Any) -> None:
        if FINGER not in message.name:
            self.joints.append((time.time(), self.convert.reading_of(message)))

    def _ticked(self, message: Any) -> None:
        self.clocks.append(self.convert.seconds(message.clock))

    def _state(self, message: Any) -> None:
        self.states.append((time.time(), message.data))

    def _told(self, message: Any) -> None:
        self.said.update({s.name: (s.level, s.message, {v.key: v.value for v in s.values}) for s in message.status})

    def start(
        self, what: str, *, apart: bool = False, arguments: Sequence[str] = (), **params: Any
    ) -> subprocess.Popen[str]:
        """A node process: a module of ``dfplanner_robot.nodes``, or a script beside this file.

        ``apart``: on a domain where nobody else is.
        """
        other = {"ROS_DOMAIN_ID": str(int(self.environment["ROS_DOMAIN_ID"]) % 100 + 1)} if apart else {}
        script = HERE / f"{what}.py"
        where = [str(script)] if script.exists() else ["-m", f"dfplanner_robot.nodes.{what}"]
        said = [x for k, v in params.items() for x in ("-p", f"{k}:={str(v).lower() if isinstance(v, bool) else v}")]
        with open(self.folder / f"{what}{len(self.processes)}.log", "w") as log:
            process = subprocess.Popen(
                [sys.executable, *where, *arguments, *(["--ros-args", *said] if said else [])],
                env={**self.environment, **other},
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self.processes.append((process, Path(log.name)))
        return process

    def log(self, process: subprocess.Popen[str]) -> str:
        """What a process has printed."""
        return next(path for p, path in self.processes if p is process).read_text()

    def wait(self, until: Callable[[], Any], what: str, seconds: float = DISCOVERED_S) -> Any:
        """Waits for something true and returns it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := until():
                return found
            time.sleep(0.01)
        logs = "\n".join(path.read_text()[-2000:] for _, path in self.processes)
        pytest.fail(f"{what} did not come within {seconds} s\nstates {self.states[-10:]}\n{logs}")

    @property
    def state(self) -> str:
        """The guard's, as last heard."""
        return self.states[-1][1] if self.states else ""

    @property
    def last(self) -> JointReading:
        """The last reading."""
        return self.joints[-1][1]

    def told(self, status: str, key: str, value: str) -> dict[str, str]:
        """What /diagnostics tells once ``key`` has ``value``."""

        def found() -> dict[str, str] | None:
            values = self.said[status][2] if status in self.said else {}
            return values if values.get(key) == value else None

        return self.wait(found, f"{key} {value} of {status}")

    def until(self, state: str, seconds: float = DISCOVERED_S, since: float = 0.0) -> float:
        """Waits for a state of the guard, entered after ``since``, and returns when it was heard."""
        return self.wait(
            lambda: next((t for t, s in list(self.states) if s == state and t >= since), None), state, seconds
        )

    def still(self, seconds: float = 5.0) -> None:
        """Waits until no joint has moved for 0.2 s."""

        def rests() -> bool:
            last = [r for _, r in self.joints[-25:]]
            return len(last) == 25 and max(map(speed, last)) < 1e-3

        self.wait(rests, "rest", seconds)

    def moves(self, faster: float = 0.05, seconds: float = DISCOVERED_S) -> None:
        """Waits until a joint is faster than so much."""
        self.wait(lambda: speed(self.last) > faster, "motion", seconds)

    def moved(self, faster: float) -> float:
        """Waits until a joint was faster than so much, though it may rest again; returns when it was."""
        return self.wait(lambda: next((t for t, r in list(self.joints) if speed(r) > faster), None), "motion")

    def smooth(self, goal: np.ndarray, seconds: float) -> JointTrajectory:
        """From rest where the arm is to rest at ``goal``, from now on."""
        s = np.linspace(0, 1, 31)[:, None]
        begin = self.last.positions
        way, slope = 10 * s**3 - 15 * s**4 + 6 * s**5, (30 * s**2 - 60 * s**3 + 30 * s**4) / seconds
        q, v = begin + way * (goal - begin), slope * (goal - begin)
        return from_states(self.last.names, 0.0, q, v, seconds / (len(s) - 1))

    def unharmed(self) -> None:
        """No measured limit was broken, and nothing touched."""
        self.said.pop("simulation", None)
        facts = self.wait(lambda: self.said.get("simulation"), "diagnostics")[2]
        assert (facts["violations"], facts["touched"]) == ("0", "0")

    def send(self, trajectory: JointTrajectory, topic: str = names.COMMAND) -> float:
        """Publishes a trajectory, once someone listens; returns when."""
        out = self._out[topic]
        self.wait(out.get_subscription_count, f"a listener to {topic}")
        out.publish(self.convert.trajectory_message(trajectory))
        return time.time()

    def call(self, service: str) -> Any:
        """A Trigger service's answer."""
        from std_srvs.srv import Trigger

        return self._asked(Trigger, service, Trigger.Request())

    def set(self, node: str, name: str, value: Any) -> Any:
        """Sets a parameter of a node: the answer."""
        from rcl_interfaces.srv import SetParameters
        from rclpy.parameter import Parameter

        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        return self._asked(SetParameters, f"/{node}/set_parameters", request).results[0]

    def _asked(self, kind: Any, service: str, request: Any) -> Any:
        from dfplanner_robot.nodes.talk import KNOWN_S

        client = self.node.create_client(kind, service)
        self.wait(lambda: client.service_is_ready(), f"the service {service}")
        time.sleep(KNOWN_S)
        future = client.call_async(request)
        answer = self.wait(lambda: future.done() and future.result(), f"an answer of {service}")
        self.node.destroy_client(client)
        return answer

    def close(self) -> None:
        """Ends everything."""
        for process, _ in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
        self._ending = True
        self._thread.join()
        self._executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graph]:
    """A graph for the tests of a module."""
    made = Graph(tmp_path_factory.mktemp("graph"))
    yield made
    made.close()
