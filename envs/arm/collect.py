"""The arm's data, made by a script: go to the goal's posture on a free path, then hold still."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dfplanner.data.episodes import Episodes
from dfplanner.types import DFPlannerError
from dfplanner_envs.arm.limits import Floats
from dfplanner_envs.arm.roadmap import reach_roadmap
from dfplanner_envs.arm.script import script
from dfplanner_envs.arm.sim import DT_S, ArmSim
from dfplanner_envs.arm.task import INSET, ReachTask, at_goal, reach_task
from dfplanner_envs.wrappers import ARM

TAIL = 20
"""Steps stored after arrival; the arm then rests at the goal."""
LANES = 64
ON_THE_WAY, KEEP = 0.85, 0.65
"""Share of episodes that begin on the way of another, and of these that keep the goal it was on the way to."""
STOPPED, NEARLY = 0.5, 0.6
"""Share of these that begin at rest, and of those that are nearly there: without them rest and goal are one thing."""
BLOCKED, BACK_RAD, ASIDE_RAD = 0.3, 0.1, 0.03
"""Share of episodes that begin, if they can, at rest before what blocks the straight way; how far, and how much aside.

There a guard stops an arm whose plan leads into something, and nothing else in the data comes so near.
"""
LOOK_RAD, TRIED = 0.02, 6
"""How densely that way is looked at, and how many goals are tried for one that something stands before."""
THROWN_RAD, THROWN_SPEED = 0.15, 0.25
"""Deviations, in rad and rad/s on each joint, of what throws these off their way, at most."""
ROUND = 256
"""Episodes planned at a time; they are then run in lanes with others as long."""


def collect_arm(steps: int, seed: int, progress: Callable[[int], Any] | None = None, *, threads: int = 0) -> Episodes:
    """Whole episodes of the script that hold at least ``steps`` steps, from random tasks, each then holding its goal.

    Observations (N, 17): hand x, y, z in metres, 7 joint positions, 7 velocities; actions (N, 7): velocities as a
    share of the joints' limits; goals (N, 7), the posture that answers the hand's goal, so that kinematics need not be
    learnt. Rewards are 1 where the hand is at the goal and slow; ``arrival`` is the step from which on it stays so.
    Most episodes begin on another's way, in motion or stopped, off it or with another goal, or stopped before an
    obstacle: without these, what imitates the data copies the velocity it sees, and never comes back. Stored is only
    what was simulated without a contact, a limit exceeded or a command clamped, and reached its goal. The same
    arguments give the same bytes, whatever the number of ``threads``. Raises DFPlannerError on fewer than 1 step.
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
        "env": ARM,
        "seed": int(seed),
        "controller": "roadmap",
        "stay": True,
        "dt_s": DT_S,
        "tail": TAIL,
        "pos": list(range(3, 3 + j)),
        "reward_goal": "pursued",
    }
    return Episodes(
        observations=rows[:, : 3 + 2 * j],
        actions=rows[:, 3 + 2 * j : 3 + 3 * j],
        goals=rows[:, 3 + 3 * j : 3 + 4 * j],
        rewards=rows[:, -1],
        starts=np.cumsum(length) - length,
        meta=meta,
        arrival=np.array(arrival),
    )


class _Planned(NamedTuple):
    """An episode to be run: start and velocities (J,), the hand's goal, its posture, the script's velocities (T, J)."""

    start: Floats
    moving: Floats
    goal: Floats
    end: Floats
    command: Floats


def _round(task: ReachTask, simulation: ArmSim, rng: np.random.Generator) -> list[tuple[NDArray, int]]:
    """The good ones of ROUND episodes, in the order they were drawn."""
    planned = _planned(task, ROUND, rng)
    order = np.argsort([len(p.command) for p in planned], kind="stable")
    found: dict[int, tuple[NDArray, int]] = {}
    for ids in order.reshape(-1, LANES):
        done = _executed(simulation, [planned[i] for i in ids])
        found |= {int(i): episode for i, episode in zip(ids, done, strict=True) if episode is not None}
    return [found[i] for i in sorted(found)]


def _planned(task: ReachTask, n: int, rng: np.random.Generator) -> list[_Planned]:
    """n episodes that the script can do: some from rest, others before an obstacle, or on the way and thrown off it."""
    planned: list[_Planned] = []
    while len(planned) < n:
        starts, goals, ends = task.draw(n, rng)
        for i, start in enumerate(starts):
            if rng.random() < BLOCKED:
                planned += _blocked(task, start, goals, ends, rng)
                continue
            way = script(reach_roadmap(), start, ends[i])
            if way is None:
                continue
            planned.append(_Planned(start, np.zeros_like(start), goals[i], ends[i], way))
            if rng.random() < ON_THE_WAY:
                q, qd = _thrown_off(task, start, way, rng)
                to = i if rng.random() < KEEP else int(rng.integers(n))
                if task.rounded.free(q) and (way := script(reach_roadmap(), q, ends[to], qd)) is not None:
                    planned[-1] = _Planned(q, qd, goals[to], ends[to], way)
    return planned[:n]


def _blocked(task: ReachTask, start: Floats, goals: Floats, ends: Floats, rng: np.random.Generator) -> list[_Planned]:
    """An episode that begins at rest before what blocks the straight way to one of a few goals, if there is one."""
    for to in rng.integers(len(ends), size=TRIED):
        q = _before_obstacle(task, start, ends[to], rng)
        if q is not None and (way := script(reach_roadmap(), q, ends[to])) is not None:
            return [_Planned(q, np.zeros_like(q), goals[to], ends[to], way)]
    return []


def _before_obstacle(task: ReachTask, start: Floats, end: Floats, rng: np.random.Generator) -> Floats | None:
    """Positions (J,) on the straight way, near to where something blocks it; None where nothing does."""
    far = float(np.linalg.norm(end - start))
    line = start + (end - start) * np.linspace(0, 1, max(2, math.ceil(far / LOOK_RAD)))[:, None]
    hit = next((k for k, q in enumerate(line) if not task.near.free(q)), None)
    if hit is None:
        return None
    q = line[max(0, hit - 1 - int(BACK_RAD / LOOK_RAD * rng.random() ** 2))]
    q = _inside(task, q + ASIDE_RAD * rng.random() * rng.standard_normal(len(q)))
    return q if task.near.free(q) else None


def _inside(task: ReachTask, q: Floats) -> Floats:
    return np.clip(q, task.arm.limits.lower + INSET / 2, task.arm.limits.upper - INSET / 2)


def _thrown_off(task: ReachTask, start: Floats, way: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Positions and velocities (J,) at a random time of the velocities ``way`` (T, J), or after: thrown or stopped."""
    limits = task.arm.limits
    v = np.concatenate([np.zeros_like(way[:1]), way, np.zeros((TAIL, way.shape[1]))])
    q = start + DT_S * np.append(np.zeros_like(v[:1]), np.cumsum((v[1:] + v[:-1]) / 2, axis=0), axis=0)
    first = 2 * len(way) // 3 if rng.random() < NEARLY else 0
    k, size, stopped = rng.integers(first, len(v)), rng.random(), rng.random() < STOPPED
    off = size**2 * THROWN_RAD * rng.standard_normal(len(limits))
    push = size * THROWN_SPEED * rng.standard_normal(len(limits))
    return _inside(task, q[k] + off), (v[k] + push) * (not stopped)


def _executed(simulation: ArmSim, planned: list[_Planned]) -> list[tuple[NDArray, int] | None]:
    """Of each episode that went well: rows (T, 4 + 4 J) of observation, action, posture, reward; its arrival's step."""
    starts, moving, goals, ends = (np.array(x) for x in list(zip(*planned, strict=True))[:4])
    commands = [p.command for p in planned]
    n, limits = simulation.n, simulation.arm.limits
    most = max(len(c) for c in commands) + TAIL
    wanted = np.zeros((most, n, len(limits)))
    for i, command in enumerate(commands):
        wanted[: len(command), i] = command
    # Only what the stored action says is sent.
    actions = (wanted / limits.velocity).astype(np.float32)
    simulation.put(np.arange(n), starts, moving)
    bad, log = np.zeros((most, n), bool), []
    for t in range(most):
        log.append(simulation.observation())
        h = simulation.step(actions[t].astype(np.float64) * limits.velocity)
        bad[t] = h.collision | h.violation | h.clamped
    seen = np.array(log)
    there = at_goal(seen, goals)
    found: list[tuple[NDArray, int] | None] = []
    for i, command in enumerate(commands):
        end = len(command) + TAIL
        away = np.flatnonzero(~there[:end, i])
        arrival = int(away[-1]) + 1 if len(away) else 0
        good = arrival < end - TAIL // 2 and not bad[:end, i].any()
        rows = _rows(seen[:end, i], actions[:end, i], ends[i], there[:end, i])
        found.append((rows, arrival) if good else None)
    return found


def _rows(seen: Floats, actions: NDArray, end: Floats, there: NDArray) -> NDArray[np.float32]:
    parts = [seen, actions, np.tile(end, (len(seen), 1)), there[:, None]]
    return np.concatenate(parts, axis=1).astype(np.float32)
