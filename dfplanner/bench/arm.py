"""``dfplanner bench arm-reach``: held-out goals for the arm, in quiet and with what real readings suffer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dfplanner.bench.arm_policy import ArmPlannerPolicy
from dfplanner.bench.report import Run, legend, text_table
from dfplanner.bench.rollout import WARM_UP, Latency, episode_seeds
from dfplanner.bench.stats import mean_interval, wilson
from dfplanner.planner import Planner
from dfplanner.settings import PlannerSettings
from dfplanner.types import DFPlannerError
from dfplanner_envs.arm.baselines import HELD_OUT, ArmPolicy, ArmRollout, RandomPolicy, ScriptPolicy, rollout_arm
from dfplanner_envs.arm.env import HORIZON
from dfplanner_envs.arm.task import reach_task
from dfplanner_envs.wrappers import ARM

SETTINGS = PlannerSettings(horizon=4, steps=1, action_steps=2)
REPLAN_EVERY = 2


@dataclass(frozen=True)
class Disturbance:
    """What readings suffer: ``says`` it in a table's title; the others are ``rollout_arm``'s arguments."""

    says: str
    readings: dict[str, Any] = field(default_factory=dict)


NOISE = {"noise": 0.005, "noise_speed": 0.02}
DISTURBANCES = (
    Disturbance(""),
    Disturbance("noise of 5 mrad and 20 mrad/s on each joint", NOISE),
    Disturbance("20 % of readings lost", {"drop": 0.2}),
    Disturbance("readings 100 ms late", {"latency_steps": 2}),
    Disturbance("all of these at once", {**NOISE, "drop": 0.2, "latency_steps": 2}),
)
NOTES = {
    "df": "goal token; a guard brakes where the arm could soon not stop without touching something",
    "df-unguarded": "the planner alone: what it knows of the scene it learnt",
    "script": "what made the data: a roadmap on the true scene; plans once, then looks at nothing",
    "random": "uniform actions",
}


def arm_policy(row: str, *, checkpoint: str | None = None, device: str = "cpu") -> ArmPolicy:
    """A row's policy; raises DFPlannerError on an unknown row, or a checkpoint of something else."""
    if row not in NOTES:
        raise DFPlannerError(f"unknown policy {row!r} for the arm; known: {', '.join(NOTES)}")
    if not row.startswith("df"):
        return ScriptPolicy() if row == "script" else RandomPolicy()
    return planner_policy(checkpoint, device, guarded=row == "df")


def planner_policy(checkpoint: str | None = None, device: str = "cpu", *, guarded: bool = True) -> ArmPlannerPolicy:
    """The row ``df``, with the bundled weights by default; raises DFPlannerError on a checkpoint of something else."""
    planner = Planner.from_pretrained(checkpoint or ARM, SETTINGS, device)
    joints = len(reach_task().arm.limits)
    if (planner.spec.obs_dim, planner.spec.act_dim) != (3 + 2 * joints, joints):
        raise DFPlannerError(
            f"{checkpoint} was trained on observations and actions of ({planner.spec.obs_dim}, {planner.spec.act_dim}) "
            f"numbers, but the arm has ({3 + 2 * joints}, {joints}); give a checkpoint of its own"
        )
    return ArmPlannerPolicy(planner, REPLAN_EVERY, guarded=guarded)


def run_arm(
    policies: Sequence[str] = (),
    episodes: int = len(HELD_OUT),
    seed: int = 0,
    *,
    checkpoint: str | None = None,
    device: str = "cpu",
    timed_plans: int = 50,
    say: Callable[[str], Any] = print,
) -> tuple[list[Run], list[tuple[str, ArmRollout]]]:
    """Runs ``policies`` (by default all) in quiet and ``df`` with every disturbance, and says a table of each.

    Also the rollouts in quiet, for pictures. Tasks are drawn from seeds that no data is drawn from. Raises
    DFPlannerError on what cannot be had.
    """
    rows = list(dict.fromkeys(policies)) or list(NOTES)
    made = {row: arm_policy(row, checkpoint=checkpoint, device=device) for row in rows}
    seeds = [HELD_OUT[0] + s for s in episode_seeds(seed, episodes)]
    runs: list[Run] = []
    quiet: list[tuple[str, ArmRollout]] = []
    for disturbance in DISTURBANCES:
        group: list[Run] = []
        for row, policy in made.items():
            if disturbance.says and not row.startswith("df"):
                continue
            result = rollout_arm(policy, seeds, **disturbance.readings, rng=np.random.default_rng(seed))
            plans = row.startswith("df") and not disturbance.says and timed_plans > 0
            latency = measure(policy, timed_plans) if plans else Latency.none()
            group.append(arm_run(result, row, seed, disturbance, latency))
            quiet += [(row, result)] * (not disturbance.says)
        runs += group
        if group:
            last = disturbance is DISTURBANCES[-1] or not {"df", "df-unguarded"} & made.keys()
            say(text_table(group, explained=False) + (f"{legend(runs)}\n" if last else ""))
    return runs, quiet


def arm_run(result: ArmRollout, row: str, seed: int, disturbance: Disturbance, latency: Latency) -> Run:
    """A run's JSON object, as ``report.make_run`` has it."""
    n = len(result.seeds)
    return {
        "env": ARM,
        "policy": row,
        "actions": None,
        "episodes": n,
        "seed": seed,
        "success_rate": wilson(int(result.success.sum()), n).to_dict(),
        "collisions": int(result.collision.sum()),
        "violations": int((result.violations > 0).sum()),
        "clamped": int((result.clamped > 0).sum()),
        "steps_to_goal": mean_interval(result.steps[result.success], 1, HORIZON).to_dict(),
        **latency.to_dict(),
        **({"disturbance": disturbance.says} if disturbance.says else {}),
        "note": NOTES[row],
        "detail": [
            {
                "seed": result.seeds[i],
                "goal": [round(float(x), 6) for x in result.goals[i]],
                "success": bool(result.success[i]),
                "collision": bool(result.collision[i]),
                "steps": int(result.steps[i]),
                "distance": round(float(result.distance[i]), 6),
            }
            for i in range(n)
        ],
    }


def measure(policy: ArmPolicy, plans: int) -> Latency:
    """Times ``act`` on one arm until it has planned so often; the first few plans are not counted."""
    ticks: list[tuple[float, bool]] = []
    seeds: Iterator[int] = iter(range(HELD_OUT[0] - 1, 0, -1))
    timed = _Timed(policy, ticks)
    while sum(planned for _, planned in ticks) < plans + WARM_UP:
        rollout_arm(timed, [next(seeds)])
    ms, planned = (np.array(x) for x in zip(*ticks, strict=True))
    first = np.flatnonzero(planned)[WARM_UP]
    return Latency(ms[first:][planned[first:]], ms[first:])


class _Timed:
    """A policy whose calls are timed, in milliseconds."""

    def __init__(self, policy: ArmPolicy, ticks: list[tuple[float, bool]]) -> None:
        self._policy, self._ticks, self.reset = policy, ticks, policy.reset

    def act(self, obs: Any, goal: Any, age: Any) -> Any:
        began = time.perf_counter()
        action = self._policy.act(obs, goal, age)
        self._ticks.append((1e3 * (time.perf_counter() - began), bool(getattr(self._policy, "planned", False))))
        return action
