"""``dfplanner ros goal`` and ``dfplanner ros call``: what one says to the graph, where no ``ros2`` command is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tyro.conf import Positional

from dfplanner.cli.common import parse
from dfplanner.cli.ros import INSTALL
from dfplanner.types import DFPlannerError


@dataclass(frozen=True)
class Goal:
    """Send the planner a goal, and wait until it is reached."""

    place: Positional[tuple[float, ...]]
    """x y z of the hand in the arm's base; x y of a maze's ball."""
    frame: str = "base"
    """In which it is."""
    wait_s: float = 15.0
    """Seconds to wait for the arrival."""


@dataclass(frozen=True)
class Call:
    """Call a service of the planner, the guard or the simulation, such as /planner/stop or /arm_guard/start."""

    service: Positional[str]
    """Its name."""


def run(name: str, args: Sequence[str]) -> int:
    """Does what ``name`` says, goal or call, and prints what came of it; raises DFPlannerError where it fails."""
    options = parse({"goal": Goal, "call": Call}[name], f"ros {name}", args)
    if isinstance(options, Goal) and len(options.place) not in (2, 3):
        raise DFPlannerError(
            f"{len(options.place)} numbers came; a goal is x y z of a hand, or x y of a ball, in metres"
        )
    try:
        from dfplanner_robot.nodes.talk import SERVICES, Talk
    except ImportError as e:
        raise DFPlannerError(f"it needs {(e.name or str(e)).split('.')[0]}; run {INSTALL}") from e
    if isinstance(options, Call) and options.service not in SERVICES:
        raise DFPlannerError(f"there is no service {options.service!r}; there are {', '.join(SERVICES)}")
    with Talk() as talk:
        if isinstance(options, Call):
            print(talk.call(options.service))
            return 0
        there, words = talk.goal([*options.place, 0.0][:3], options.frame, options.wait_s)
        print(words)
        return 0 if there else 1
