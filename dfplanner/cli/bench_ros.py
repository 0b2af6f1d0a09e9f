"""``dfplanner bench ros``: the ROS 2 graph on a simulated arm, measured: goals, latency, jitter, splices, faults."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from dfplanner.checkpoint import atomic_write
from dfplanner.cli.common import Env, File, Name, parse, writable
from dfplanner.types import DFPlannerError


@dataclass(frozen=True)
class BenchRos:
    """Start simulation, guard and planner as processes, send the arm to goals, then stream plans with faults at it."""

    goals: int = 12
    """Goals, one after the other, at most 12 s each (20 s with a maze); 0: none."""
    faults: int = 100
    """Faults of a planner, kinds taking turns, about a second each; 0: none."""
    model: Env = ""
    """A maze such as maze2d-umaze, whose ball is sent to goals; by default the bundled arm."""
    checkpoint: Name = ""
    """The planner's; by default that of the arm, or of the maze."""
    seed: int = 0
    """Of goals and faults."""
    json: File = ""
    """File for all numbers."""


def run(args: Sequence[str]) -> None:
    """Run it, print the tables, and say where things are."""
    a = parse(BenchRos, "bench ros", args)
    if a.goals < 0 or a.faults < 0 or not (a.goals or a.faults):
        raise DFPlannerError(f"{a.goals} goals and {a.faults} faults came; give at least one of either")
    from dfplanner.bench.ros import fault_table, goals_table, run_ros

    path = writable(a.json)
    with tqdm(total=a.goals + a.faults, desc="bench ros") as bar:
        found = run_ros(a.goals, a.faults, a.seed, a.checkpoint, a.model, progress=bar.update)
    if found["goals"]:
        print(goals_table(found["goals"]) + "\n")
    if faults := found["faults"]:
        print(fault_table(faults["seen"]))
        print(f"\n{len(faults['seen'])} faults: {faults['violations']} steps with a measured limit exceeded, ", end="")
        print(f"{faults['touched']} contacts; put back to rest {faults['restarts']} times, where it could not move on")
        faults["seen"] = [asdict(s) for s in faults["seen"]]
    if path:

        def write(part: str) -> None:
            Path(part).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")

        atomic_write(path, write)
        print(f"wrote {path}")
