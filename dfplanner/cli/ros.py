"""``dfplanner ros``: the nodes on a ROS 2 graph, and what of it works on this machine."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from dfplanner.cli.common import Name, parse
from dfplanner.types import DFPlannerError
from dfplanner_robot.nodes.names import is_maze

INSTALL = (
    'pip install "dfplanner[ros]", or source a ROS 2 installation that has it, such as /opt/ros/jazzy/setup.bash, '
    "and use its Python"
)


@dataclass(frozen=True)
class Sim:
    """The simulated arm, with the guard in front of it. What follows --ros-args goes to ROS."""

    model: str | None = None
    """A file in MJCF, or a maze such as maze2d-umaze; by default the bundled arm."""
    real_time_factor: float | None = None
    """Seconds that pass in the simulation in one of ours; let other nodes take its time with use_sim_time."""
    camera: bool = False
    """Publish pictures."""


@dataclass(frozen=True)
class Planner:
    """The planner, a lifecycle node. What follows --ros-args goes to ROS."""

    model: str | None = None
    """What is driven: a maze's ball, such as maze2d-umaze; by default the bundled arm."""
    autostart: bool = False
    """Configure and activate at once, without a lifecycle manager."""
    checkpoint: Name | None = None
    """A bundled model's name, a file or a hub id; by default that of the arm, or of the maze."""
    runtime: Literal["torch", "onnx"] | None = None
    """onnx needs no torch; make its file with dfplanner export."""
    server_url: str | None = None
    """ws://HOST:PORT of a dfplanner serve that runs; by default the node starts a process that plans."""
    use_sim_time: bool = False
    """Take the time from a simulation's /clock."""


@dataclass(frozen=True)
class Guard:
    """The guard as a node of its own, in front of an arm. What follows --ros-args goes to ROS."""

    model: str | None = None
    """The arm and its surroundings, a file in MJCF, or a maze such as maze2d-umaze; by default the bundled arm."""


BALL = ("-p", "acceleration_share:=0.9", "-p", "resume_after_s:=0.3")
"""ROS arguments of the guard before a maze's ball: plans use nearly all of its motors' force, and nobody gets hurt."""

NODES: dict[str, tuple[type[Any], str]] = {
    "sim": (Sim, "dfplanner_robot.nodes.sim_node"),
    "planner": (Planner, "dfplanner_robot.nodes.planner_node"),
    "guard": (Guard, "dfplanner_robot.nodes.guard_node"),
}
ABOUT = {
    "sim": "the simulated arm, with the guard in front of it",
    "planner": "goals and joint states in, joint trajectories out",
    "guard": "the guard as a node of its own, in front of an arm",
    "goal": "send the planner a goal, and wait until it is reached",
    "call": "call a service, such as /planner/stop or /arm_guard/start",
    "check": "what of ROS works on this machine, and what to do",
}


def usage() -> str:
    """The help of the command itself."""
    lines = [f"  {name:<9} {what}" for name, what in ABOUT.items()]
    return "\n".join(
        [
            f"usage: dfplanner ros {{{','.join(ABOUT)}}} ... [--ros-args ...]",
            "",
            "The planner on a ROS 2 graph: nodes in the foreground, until Ctrl-C.",
            "",
            *lines,
            "",
            "  dfplanner ros planner --help says more.",
        ]
    )


def run(args: Sequence[str]) -> None:
    """Run a node until it is told to end, or the check; raises DFPlannerError, and SystemExit for exit codes but 0."""
    if not args or args[0] in ("-h", "--help"):
        print(usage())
        raise SystemExit(0)
    name, ours, theirs = args[0], *split(args[1:])
    if name == "check":
        from dfplanner.cli.ros_check import Check, check

        code = check(parse(Check, "ros check", ours))
    elif name in ("goal", "call"):
        from dfplanner.cli import ros_talk

        code = ros_talk.run(name, ours)
    elif name in NODES:
        kind, module = NODES[name]
        words = [*parameters(parse(kind, f"ros {name}", ours)), *theirs]
        try:
            node = importlib.import_module(module)
        except ImportError as e:
            raise DFPlannerError(f"the node needs {(e.name or str(e)).split('.')[0]}; run {INSTALL}") from e
        sys.argv[0] = f"dfplanner ros {name}"
        code = node.main(["--ros-args", *words] if words else [])
    else:
        raise DFPlannerError(f"dfplanner ros has no {name!r}; it has {', '.join(ABOUT)}")
    if code:
        raise SystemExit(code)


def split(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """Our arguments, and what follows --ros-args."""
    words = list(args)
    at = words.index("--ros-args") if "--ros-args" in words else len(words)
    return words[:at], words[at + 1 :]


def parameters(options: Any) -> list[str]:
    """ROS arguments that set a node's parameters to those options that were given, and those that a ball needs."""
    given = {f.name: getattr(options, f.name) for f in fields(options)}
    words = [
        word
        for name, value in given.items()
        if value is not None and value is not False
        for word in ("-p", f"{name}:={json.dumps(value)}")
    ]
    return [*words, *BALL] if isinstance(options, (Sim, Guard)) and is_maze(options.model or "") else words
