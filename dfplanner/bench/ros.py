"""``dfplanner bench ros``: the real graph in processes of its own: goals reached, latency, jitter, splices, faults."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dfplanner.bench.stats import percentiles
from dfplanner.types import DFPlannerError
from dfplanner_envs.arm.task import reach_task
from dfplanner_envs.mazes import CELL_OFFSET, maze_of

if TYPE_CHECKING:
    from dfplanner_envs.arm.limits import JointLimits
    from dfplanner_robot.nodes.bodies import Body
    from dfplanner_robot.nodes.exercise import Exercise, Seen

STARTS_S, GOAL_S, WITHIN_M = 60.0, 12.0, 0.02
BALL_GOAL_S, BALL_WITHIN_M = 20.0, 0.1
"""The same for the ball of a maze."""
SETTLES_S = 0.6
"""After a goal was reached: so long before it is measured how far from it the body stays, and the next is sent."""
PLANS = {"pass": "passed", "blended": "joined more slowly", "slowed": "slowed", "brake": "refused"}
"""What the guard counts of plans, and what the table calls it."""
Numbers = dict[str, Any]


@contextmanager
def graph(*commands: Sequence[str]) -> Iterator[Callable[[], None]]:
    """``python -m`` processes for as long as the block lasts.

    What it gives, and it itself at the end, raise DFPlannerError if one ended on its own.
    """
    with tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder) / str(i) for i in range(len(commands))]
        running: list[subprocess.Popen[bytes]] = []

        def alive() -> None:
            for process, command, log in zip(running, commands, logs, strict=True):
                if process.poll() is not None:
                    said = " ".join(log.read_text().strip().splitlines()[-1:])
                    raise DFPlannerError(f"{' '.join(command)} ended with code {process.returncode}: {said}")

        try:
            for command, log in zip(commands, logs, strict=True):
                with log.open("w") as out:
                    running.append(
                        subprocess.Popen([sys.executable, "-m", *command], stdout=out, stderr=subprocess.STDOUT)
                    )
            yield alive
            alive()
        finally:
            for process in running:
                process.send_signal(signal.SIGINT)
            for process in running:
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    process.kill()


@contextmanager
def client(limits: Callable[[], JointLimits]) -> Iterator[Exercise]:
    """The client, on a domain of its own; raises DFPlannerError where ROS is absent."""
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.setdefault("ROS_DOMAIN_ID", str(os.getpid() % 100 + 1))
    try:
        import rclpy
        from rclpy.utilities import try_shutdown

        from dfplanner_robot.nodes.exercise import Exercise
        from dfplanner_robot.nodes.transport import without_shared_memory
    except ImportError as e:
        raise DFPlannerError(f'{e.name} is missing; pip install "dfplanner[ros]", or source a ROS 2') from e
    without_shared_memory()
    rclpy.init()
    try:
        node = Exercise(limits())
        yield node
        node.destroy_node()
    finally:
        try_shutdown()


def run_ros(
    goals: int = 12,
    faults: int = 100,
    seed: int = 0,
    checkpoint: str = "",
    model: str = "",
    *,
    progress: Callable[[int], Any] = lambda n: None,
) -> Numbers:
    """Runs both halves on a simulated arm, or the first with the ball of a maze, ``model``, at real time.

    Raises DFPlannerError where the graph does not come up.
    """
    if model and faults:
        raise DFPlannerError("the faults are an arm's planner's; with a maze give --faults 0")
    found: Numbers = {"goals": None, "faults": None}
    chosen = ("--model", model) if model else ()
    sim = ("dfplanner", "ros", "sim", *chosen)
    planner = ("dfplanner", "ros", "planner", "--autostart", *chosen)
    with client(lambda: _body(model).limits) as node:
        if goals:
            with graph(sim, (*planner, "--checkpoint", checkpoint) if checkpoint else planner) as alive:
                found["goals"] = _goals(node, goals, seed, model, alive, progress)
        if faults:
            node.states.clear()
            with graph(sim) as alive:
                _up(node, "the simulation", lambda: node.state == "ready", alive)
                seen = node.faults(faults, np.random.default_rng(seed), lambda: progress(1))
                node.spin(1.5)
                found["faults"] = {"seen": seen, "restarts": node.restarts, **_harm(node)}
    return found


def _up(node: Exercise, what: str, there: Callable[[], bool], alive: Callable[[], None]) -> None:
    for _ in range(round(STARTS_S)):
        if node.spin(1.0, there):
            return
        alive()
    raise DFPlannerError(f"{what} did not come up within {STARTS_S:.0f} s; see dfplanner ros check")


def _body(model: str) -> Body:
    from dfplanner_robot.nodes.bodies import body_of  # what it imports, a benchmark of something else need not have

    return body_of(model)


def _places(n: int, rng: np.random.Generator, model: str) -> NDArray[np.float64]:
    """Goals (n, 3) in metres: of the arm's hand, or anywhere in a maze's free cells that its ball can be."""
    if not model:
        return reach_task().draw(n, rng)[1]
    maze, body = maze_of(model)[0], _body(model)
    cells = np.array(maze.free_cells)[rng.integers(len(maze.free_cells), size=n)]
    drawn = cells - CELL_OFFSET + rng.uniform(-0.5, 0.5, (n, 2))
    return np.array([[*body.place(place).place, 0.0] for place in drawn])


def _goals(
    node: Exercise, n: int, seed: int, model: str, alive: Callable[[], None], progress: Callable[[int], Any]
) -> Numbers:
    """n goals one after the other, and how punctual everything was meanwhile."""

    def waits() -> bool:
        return node.state == "ready" and "waiting" in node.told.get("planner", {}).get("message", "")

    _up(node, "the planner", waits, alive)
    goals = _places(n, np.random.default_rng([seed, 12]), model)
    within, wait = (BALL_WITHIN_M, BALL_GOAL_S) if model else (WITHIN_M, GOAL_S)
    node.readings.clear()
    took, off = [], []
    for goal in goals:
        took.append(node.reach(goal, within, wait))
        node.spin(SETTLES_S)
        if took[-1] is not None and node.hand is not None:
            off.append(float(np.linalg.norm(node.hand - goal)))
        progress(1)
    node.spin(1.2)
    came, stamps = np.array([t for t, _ in node.readings]), np.array([r.stamp for _, r in node.readings])
    reached = [t for t in took if t is not None]
    planner, guard = node.told.get("planner", {}), node.told.get("guard", {})
    late = {q: float(guard.get(f"ticks late, {said} (ms)", "nan")) for q, said in (("mean", "mean"), ("p99", "99 %"))}
    return {
        "n": n,
        "reached": len(reached),
        "seconds": percentiles(np.array(reached)),
        "off_m": _worst(np.array(off)),
        "unit": "m" if model else "rad",
        "plans": {said: int(guard.get(counted, -1)) for counted, said in PLANS.items()},
        "readings_hz": float((len(stamps) - 1) / (stamps[-1] - stamps[0])),
        "reading_latency_ms": percentiles(1e3 * (came - stamps)),
        "reading_jitter_ms": percentiles(np.abs(1e3 * (np.diff(came) - np.diff(stamps)))),
        "inference_ms": {q: float(planner.get(f"inference_ms_{q}", "nan")) for q in ("p50", "p99")},
        "tick_late_ms": late,
        **_splices(node),
        **_harm(node),
    }


def _splices(node: Exercise) -> Numbers:
    """What a new trajectory commands when it comes, against what the last one does then: the worst joint's difference.

    Left out are those between which the guard braked: the second begins anew.
    """
    braked = np.array([t for t, said in node.states if said == "braking"])
    q, v = [], []
    for (_, old), (came, new) in itertools.pairwise(node.commands):
        t = max(came, new.stamp)  # the simulation's time is the machine's
        if t < old.end and not ((braked > old.stamp) & (braked < t)).any():
            before, after = old.curve.at(t), new.curve.at(t)
            q.append(float(np.abs(after.q - before.q).max()))
            v.append(float(np.abs(after.v - before.v).max()))
    return {"splice_rad": _worst(np.array(q)), "splice_rad_s": _worst(np.array(v))}


def _worst(x: NDArray[np.float64]) -> dict[str, float | None]:
    return {**percentiles(x), "max": float(x.max()) if len(x) else None}


def _harm(node: Exercise) -> Numbers:
    simulation = node.told.get("simulation", {})
    return {key: int(simulation.get(key, -1)) for key in ("violations", "touched")}


def fault_table(seen: Sequence[Seen]) -> str:
    """Fault → what the arm did → time to brake, as a Markdown table; times are the longest seen."""
    rows = ["| fault | n | then waits as | braking heard after | at rest after |", "| --- | --- | --- | --- | --- |"]
    for kind in dict.fromkeys(s.kind for s in seen):
        some = [s for s in seen if s.kind == kind]
        braked = [s for s in some if np.isfinite(s.to_brake_s)]
        states = ", ".join(sorted({s.state for s in some}))
        if 0 < len(braked) < len(some):
            states = f"{len(some) - len(braked)} followed, {len(braked)} braked for"
        if not braked:
            rows.append(f"| {kind} | {len(some)} | followed it | – | – |")
            continue
        rested = [s.to_rest_s for s in braked if np.isfinite(s.to_rest_s)]
        brake, rest = max(s.to_brake_s for s in braked), f"≤ {1e3 * max(rested):.0f} ms" if rested else "–"
        rows.append(f"| {kind} | {len(some)} | {states} | ≤ {1e3 * brake:.0f} ms | {rest} |")
    return "\n".join(rows)


def goals_table(g: Numbers) -> str:
    """The first half's numbers, as a Markdown table."""

    def pair(key: str, digits: int = 1) -> str:
        x = g[key]
        return " / ".join("–" if x[k] is None else f"{x[k]:.{digits}f}" for k in x)

    unit = g["unit"]
    rows = [
        ("goals reached, one after the other", f"{g['reached']} of {g['n']}"),
        ("seconds to the goal, p50 / p99", pair("seconds")),
        (f"metres from it {SETTLES_S} s later, p50 / p99 / max", pair("off_m", 3)),
        ("plans " + " / ".join(g["plans"]), " / ".join(map(str, g["plans"].values()))),
        ("joint states a second", f"{g['readings_hz']:.1f}"),
        ("joint state, from its stamp to a client, ms, p50 / p99", pair("reading_latency_ms")),
        ("the same, jitter of the period, ms, p50 / p99", pair("reading_jitter_ms", 2)),
        ("a plan, from asking to answer, ms, p50 / p99", pair("inference_ms")),
        ("ticks of guard and physics late, ms, mean / p99", pair("tick_late_ms", 2)),
        (f"splice, {unit}, p50 / p99 / max", pair("splice_rad", 4)),
        (f"splice, {unit}/s, p50 / p99 / max", pair("splice_rad_s", 3)),
        ("steps with a measured limit exceeded; contacts", f"{g['violations']}; {g['touched']}"),
    ]
    return "\n".join(["| what | measured |", "| --- | --- |", *(f"| {a} | {b} |" for a, b in rows)])
