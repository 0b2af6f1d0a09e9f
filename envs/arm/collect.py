"""The arm's data, made by a script: go to the goal's posture on a free path, then hold still."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfplanner.data.episodes import Episodes
from dfplanner.types import DFPlannerError
from dfplanner_envs.arm.limits import Floats
from dfplanner_envs.arm.roadmap import reach_roadmap
from dfplanner_envs.arm.script import script
from dfplanner_envs.arm.sim import DT_S, ArmSim
from dfplanner_envs.arm.task import ReachTask, at_goal, reach_task

ENV = "arm-reach"
TAIL = 20
"""Steps stored after arrival; the arm then rests at the goal."""
LANES = 64
ROUND = 256
"""Episodes planned at a time; they are then run in lanes with others as long."""


def collect_arm(steps: int, seed: int, progress: Callable[[int], Any] | None = None, *, threads: int = 0) -> Episodes:
    """Whole episodes of the script that hold at least ``steps`` steps, from random tasks, each then holding its goal.

    Observations (N, 17): hand x, y, z in metres, 7 joint positions, 7 velocities; actions (N, 7): velocities as a
    share of the joints' limits; goals (N, 3) for the hand. Rewards are 1 where the hand is at the goal and slow.
    Stored is only what was simulated without a contact, a limit exceeded or a command clamped, and reached its goal.
    The same arguments give the same bytes, whatever the number of ``threads``. Raises DFPlannerError on fewer than
    1 step.
    """
    if steps < 1:
        raise DFPlannerError(f"steps is {steps}; at least 1 is needed")
    task, rng = reach_task(), np.random.default_rng(seed)
    limits, parts, arrival, held = task.arm.limits, [], [], 0
    simulation = ArmSim(task.arm, task.chain, LANES, threads)
    while held < steps:
        for rows, arrived in _round(task, simulation, rng):
            if held < steps:
                parts.append(rows)
                arrival.append(arrived)
                held += len(rows)
                if progress:
                    progress(len(rows))
    rows, j = np.concatenate(parts), len(limits)
    length = np.array([len(part) for part in parts])
    meta = {
        "env": ENV,
        "seed": int(seed),
        "controller": "roadmap",
        "stay": True,
        "dt_s": DT_S,
        "tail": TAIL,
        "pos": [0, 1, 2],
        "reward_goal": "pursued",
    }
    return Episodes(
        observations=rows[:, : 3 + 2 * j],
        actions=rows[:, 3 + 2 * j : 3 + 3 * j],
        goals=rows[:, 3 + 3 * j : 6 + 3 * j],
        rewards=rows[:, -1],
        starts=np.cumsum(length) - length,
        meta=meta,
        arrival=np.array(arrival),
    )


def _round(task: ReachTask, simulation: ArmSim, rng: np.random.Generator) -> list[tuple[NDArray, int]]:
    """The good ones of ROUND episodes, in the order they were drawn."""
    starts, goals, commands = _planned(task, ROUND, rng)
    order = np.argsort([len(c) for c in commands], kind="stable")
    found: dict[int, tuple[NDArray, int]] = {}
    for ids in order.reshape(-1, LANES):
        done = _executed(simulation, starts[ids], goals[ids], [commands[i] for i in ids])
        found |= {int(i): episode for i, episode in zip(ids, done, strict=True) if episode is not None}
    return [found[i] for i in sorted(found)]


def _planned(task: ReachTask, n: int, rng: np.random.Generator) -> tuple[Floats, Floats, list[Floats]]:
    """Starts (n, J), goals (n, 3) and the script's velocities (T, J) for n tasks that it can do."""
    starts, goals, commands = [], [], []
    while len(commands) < n:
        for start, goal, end in zip(*task.draw(n, rng), strict=True):
            if (command := script(reach_roadmap(), start, end)) is not None:
                starts.append(start)
                goals.append(goal)
                commands.append(command)
    return np.array(starts[:n]), np.array(goals[:n]), commands[:n]


def _executed(
    simulation: ArmSim, starts: Floats, goals: Floats, commands: list[Floats]
) -> list[tuple[NDArray, int] | None]:
    """Of each episode that went well: rows (T, 7 + 3 J) of observation, action, goal, reward; its arrival's step."""
    n, limits = simulation.n, simulation.arm.limits
    most = max(len(c) for c in commands) + TAIL
    wanted = np.zeros((most, n, len(limits)))
    for i, command in enumerate(commands):
        wanted[: len(command), i] = command
    # Only what the stored action says is sent.
    actions = (wanted / limits.velocity).astype(np.float32)
    simulation.put(np.arange(n), starts)
    bad, log = np.zeros((most, n), bool), []
    for t in range(most):
        log.append(simulation.observation())
        h = simulation.step(actions[t].astype(np.float64) * limits.velocity)
        bad[t] = h.collision | h.violation | h.clamped
    seen = np.array(log)
    there = at_goal(seen, goals)
    found: list[tuple[NDArray, int] | None] = []
    for i, command in enumerate(commands):
        first, end = int(there[:, i].argmax()), len(command) + TAIL
        good = there[first:end, i].all() and not bad[:end, i].any()
        found.append((_rows(seen[:end, i], actions[:end, i], goals[i], there[:end, i]), first) if good else None)
    return found


def _rows(seen: Floats, actions: NDArray, goal: Floats, there: NDArray) -> NDArray[np.float32]:
    parts = [seen, actions, np.tile(goal, (len(seen), 1)), there[:, None]]
    return np.concatenate(parts, axis=1).astype(np.float32)
