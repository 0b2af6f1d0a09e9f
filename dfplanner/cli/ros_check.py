"""``dfplanner ros check``: what of ROS works on this machine, as a table."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from dfplanner.cli.common import Name
from dfplanner.cli.ros import INSTALL
from dfplanner.types import DFPlannerError
from dfplanner_robot.nodes import names


@dataclass(frozen=True)
class Check:
    """Print what of ROS works on this machine and what to do; exit code 1 if something is missing."""

    checkpoint: Name = "arm-reach"
    """The model that the planner shall use."""
    wait_s: float = 3.0
    """How long to look for other nodes."""


class Row(NamedTuple):
    """A line of the table. ``note``: worth knowing, and nothing is wrong."""

    what: str
    state: Literal["ok", "missing", "note"]
    found: str
    advice: str = ""


MESSAGES = (
    "builtin_interfaces",
    "std_msgs",
    "std_srvs",
    "sensor_msgs",
    "geometry_msgs",
    "nav_msgs",
    "trajectory_msgs",
    "diagnostic_msgs",
    "visualization_msgs",
    "lifecycle_msgs",
    "rosgraph_msgs",
    "rcl_interfaces",
)
ELSEWHERE = "dfplanner ros planner --server-url ws://HOST:PORT"
SERVE = 'pip install "dfplanner[serve]"'


def check(options: Check) -> int:
    """Prints the table; 0 if nothing is missing, else 1."""
    rows = []
    for row in report(options):
        rows.append(row)
        print(f"{row.what:<18} {row.state:<8} {row.found}", flush=True)
        if row.advice:
            print(f"{'':<18} {'':<8} -> {row.advice}", flush=True)
    return int(any(row.state == "missing" for row in rows))


def report(options: Check) -> Iterator[Row]:
    """The rows, as they are found out; raises nothing."""
    rclpy = _rclpy()
    yield rclpy
    yield _messages()
    yield from _environment()
    if rclpy.state == "ok":
        yield from _graph(options.wait_s)
    yield from _packages()
    yield _checkpoint(options.checkpoint)


def _rclpy() -> Row:
    """Tried in a process of its own first: a middleware that is not there ends the process that imports rclpy."""
    code = "import rclpy.utilities as u; print(u.get_rmw_implementation_identifier())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        distribution = os.environ.get("ROS_DISTRO") or "not sourced"
        return Row("rclpy", "ok", f"{_version('rclpy')}, {done.stdout.split()[-1]}, ROS {distribution}")
    why = (done.stderr.strip().splitlines() or [f"importing it ended with code {done.returncode}"])[-1].strip()
    sourced = sorted(p.parent for p in Path("/opt/ros").glob("*/setup.bash"))
    if rmw := os.environ.get("RMW_IMPLEMENTATION"):
        return Row("rclpy", "missing", why, f"install {rmw}, or unset RMW_IMPLEMENTATION; or run {INSTALL}")
    return Row("rclpy", "missing", why, f"source {sourced[-1]}/setup.bash" if sourced else f"run {INSTALL}")


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "version unknown"


def _messages() -> Row:
    absent = []
    for name in MESSAGES:
        try:
            importlib.import_module(f"{name}.msg" if name != "std_srvs" else f"{name}.srv")
        except ImportError:
            absent.append(name)
    if absent:
        names = " ".join(f"ros-jazzy-{name.replace('_', '-')}" for name in absent)
        return Row("messages", "missing", f"no {', '.join(absent)}", f"run {INSTALL} (or apt-get install {names})")
    return Row("messages", "ok", f"{len(MESSAGES)} packages")


def _environment() -> Iterator[Row]:
    prefix, here = os.environ.get("AMENT_PREFIX_PATH"), Path(sys.prefix)
    if prefix:
        yield Row("AMENT_PREFIX_PATH", "ok", prefix)
    else:
        found = (here / "share/ament_index").is_dir()
        advice = f"for ros2 launch: export AMENT_PREFIX_PATH={here}" if found else "for ros2 launch: source ROS 2"
        yield Row("AMENT_PREFIX_PATH", "note", "not set; dfplanner ros works without", advice)
    span = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE") or "SUBNET (by default)"
    domain = os.environ.get("ROS_DOMAIN_ID") or "0 (by default)"
    alone = (
        "" if span.startswith("LOCALHOST") else "for this machine alone: export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST"
    )
    yield Row("discovery", "ok" if not alone else "note", f"{span}, domain {domain}", alone)


def _graph(wait_s: float) -> Iterator[Row]:
    """A message to ourselves, and who else is there."""
    import rclpy
    from rclpy.context import Context
    from rclpy.executors import SingleThreadedExecutor
    from std_msgs.msg import Header

    from dfplanner_robot.nodes.transport import without_shared_memory

    without_shared_memory()
    context = Context()
    try:
        rclpy.init(args=[], context=context)
        node = rclpy.create_node(f"dfplanner_check_{os.getpid()}", context=context, use_global_arguments=False)
    except Exception as e:
        reason = str(e).splitlines()[0]
        yield Row("round trip", "missing", reason, "look at RMW_IMPLEMENTATION, ROS_DOMAIN_ID and the network")
        return
    try:
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        yield _round_trip(node, executor, Header)
        end = time.monotonic() + wait_s
        while time.monotonic() < end and not {names.SIM, names.PLANNER} <= set(node.get_node_names()):
            executor.spin_once(timeout_sec=0.1)
        yield from _nodes(node)
        executor.shutdown()
        node.destroy_node()
    finally:
        context.try_shutdown()


def _round_trip(node: Any, executor: Any, kind: Any, longest_s: float = 5.0) -> Row:
    came: list[float] = []
    topic, sent = f"/{node.get_name()}/echo", {}
    node.create_subscription(kind, topic, lambda m: came.append(time.monotonic() - sent[m.frame_id]), 10)
    publisher, end = node.create_publisher(kind, topic, 10), time.monotonic() + longest_s
    while not came and time.monotonic() < end:
        key = str(len(sent))
        sent[key] = time.monotonic()
        publisher.publish(kind(frame_id=key))
        executor.spin_once(timeout_sec=0.1)
    if came:
        return Row("round trip", "ok", f"published and received in {1e3 * came[0]:.1f} ms")
    advice = "is multicast, or UDP, blocked? Try ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST"
    return Row("round trip", "missing", f"nothing that was published came back in {longest_s:g} s", advice)


def _nodes(node: Any) -> Iterator[Row]:
    there = set(node.get_node_names())
    for name, word in ((names.SIM, "sim"), (names.PLANNER, "planner"), (names.GUARD, "guard")):
        if name in there:
            yield Row(f"node {word}", "ok", f"/{name} is on the graph")
        elif word != "guard":
            yield Row(f"node {word}", "note", "not on the graph", f"to start one: dfplanner ros {word}")


def _packages() -> Iterator[Row]:
    for name in ("msgpack", "websockets"):
        try:
            importlib.import_module(name)
        except ImportError:
            yield Row(name, "missing", "the planner's node talks with it to its worker", f"run {SERVE}")
        else:
            yield Row(name, "ok", _version(name))
    if importlib.util.find_spec("prometheus_client") is None:
        without = "the planner's node starts no worker of its own without it"
        yield Row("prometheus_client", "missing", without, f"run {SERVE}; or plan elsewhere: {ELSEWHERE}")


def _checkpoint(name: str) -> Row:
    try:
        from dfplanner.checkpoint import resolve

        return Row("checkpoint", "ok", f"{name}: {resolve(name)}")
    except DFPlannerError as e:
        return Row("checkpoint", "missing", str(e), "name another: dfplanner ros check --checkpoint NAME")
    except ImportError as e:
        advice = f"without torch: a file of dfplanner export, and --runtime onnx; or plan elsewhere: {ELSEWHERE}"
        return Row("checkpoint", "missing", str(e), advice)
