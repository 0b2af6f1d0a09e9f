"""What a slow planner costs: closed loops in which every plan arrives some environment steps after it was asked for.

The delay is counted in steps and simulated, so that the same seeds give the same numbers on any machine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from dfplanner.asynchronous import AsynchronousController, PlanRequest, SimulatedWorker, plans_of
from dfplanner.bench.report import versions
from dfplanner.bench.rollout import RolloutResult, episode_seeds, run_episodes
from dfplanner.bench.rows import ROWS, checkpoint_name
from dfplanner.bench.stats import mean_interval, wilson
from dfplanner.bench.tasks import Maze2DTask, task_of
from dfplanner.checkpoint import atomic_write
from dfplanner.commitment import known_actions
from dfplanner.dynamics import LinearDynamics
from dfplanner.guidance import ReachGoal
from dfplanner.planner import Planner
from dfplanner.types import DFPlannerError, Plan
from dfplanner_envs.collect import collect

Method = Literal["synchronous", "naive", "ensemble", "held", "ours"]
METHODS: dict[Method, str] = {
    "synchronous": "the loop brakes until the plan is there, then begins it",
    "naive": "the old plan goes on; the new one takes over when it arrives, at its right place",
    "ensemble": "as naive, averaging all plans for a step, weights exp(-0.01 i), the oldest most (Zhao et al. 2023)",
    "held": "committed actions held at level 0 where they fill chunks, the model says where they lead; joined smoothly",
    "ours": "plans go on from where the committed actions lead by a linear model of one step; joined smoothly",
}
DELAYS = (0, 1, 2, 5, 10, 20)
FIT_STEPS = 20_000
"""Steps of the data that the linear model is fitted to."""


class Stalling(AsynchronousController):
    """Waits for every plan: there is none while one is being made."""

    def _due(self, tick: int) -> bool:
        return self.plan is None or tick - self._begun >= self.replan_every

    def _ask(self, tick: int, observation: NDArray, objective: Any) -> None:
        super()._ask(tick, observation, objective)
        self.plan = None


class Ensembling(AsynchronousController):
    """Averages what all plans say of a step (ACT, Zhao et al. 2023, with its m = 0.01)."""

    def reset(self) -> None:
        super().reset()
        self._alive: list[tuple[int, Plan]] = []

    def _adopt(self, plan: Plan, request: PlanRequest, tick: int) -> None:
        super()._adopt(plan, request, tick)
        self._alive.append((self._begun, plan))

    def _action(self, tick: int) -> NDArray[np.float32] | None:
        self._alive = [(begun, plan) for begun, plan in self._alive if tick - begun < known_actions(plan)]
        if not self._alive:
            return None
        weights = np.exp(-0.01 * np.arange(len(self._alive)))
        said = np.stack([plan.actions[:, tick - begun] for begun, plan in self._alive])
        return np.tensordot(weights / weights.sum(), said, 1).astype(np.float32)


def brake(observation: NDArray, last: NDArray) -> NDArray[np.float32]:
    """Against the velocity: what a ball without a plan does."""
    return np.clip(-0.3 * observation[:, 2:4], -1, 1).astype(np.float32)


class DelayedPolicy:
    """A planner whose plans arrive late, as the benchmark's policy; it keeps how actions change from step to step."""

    def __init__(
        self, planner: Planner, method: Method, delay: int, replan_every: int, dynamics: LinearDynamics | None = None
    ) -> None:
        if method not in METHODS:
            raise DFPlannerError(f"no method is called {method!r}; known ones are {', '.join(METHODS)}")
        self.planner, self.generator = planner, torch.Generator(planner.device)
        kinds: dict[str, type[AsynchronousController]] = {"synchronous": Stalling, "ensemble": Ensembling}
        self.controller = kinds.get(method, AsynchronousController)(
            SimulatedWorker(plans_of(planner, self.generator), delay),
            replan_every,
            planner.spec.act_dim,
            dynamics=dynamics if method == "ours" else None,
            fallback=brake,
            commit=method in ("held", "ours"),
        )

    def reset(self, obs: NDArray, goal: NDArray, rng: np.random.Generator) -> None:
        """N episodes begin; the same rng gives the same plans."""
        self.generator.manual_seed(int(rng.integers(2**62)))
        self.controller.reset()
        self._objective = ReachGoal(goal)
        self._last: NDArray | None = None
        self.jumps: dict[str, list[NDArray]] = {"join": [], "seam": [], "inside": []}
        """Norms (N,) of the change of action from the step before, by where the step lies: where another plan takes
        over (or a stall begins or ends), between two chunks of one plan, inside a chunk."""
        self.first_stalls = 0

    def act(self, obs: NDArray, goal: NDArray) -> NDArray:
        """(N, 4), (N, 2) -> (N, 2). The goal is the one told at ``reset``."""
        c = self.controller
        stalled = c.stalled
        action = np.clip(c.act(obs, self._objective), -1, 1)
        if c.plans == 0:
            self.first_stalls = c.stalls
        where = self._where(stalled)
        if where and self._last is not None:
            self.jumps[where].append(np.linalg.norm(action - self._last, axis=1))
        self._last = action
        return action

    def _where(self, stalled: bool) -> str:
        c = self.controller
        if c.plans == 0 or (c.plans == 1 and c.switched) or (stalled and c.stalled):
            return ""
        if c.switched or stalled != c.stalled or c.plan is None:
            return "join"
        at = c.place - c.plan.lead
        return "join" if at == 0 < c.plan.lead else "seam" if at % c.plan.chunk == 0 else "inside"

    @property
    def planned(self) -> bool:
        """Whether a plan arrived in the last step."""
        return self.controller.switched

    @property
    def nfe_per_plan(self) -> float:
        """Network evaluations of the last plan."""
        return float(self.planner.calls)


@dataclass(frozen=True)
class DelayRun:
    """A method at a delay. Estimates: {"mean", "lo", "hi", "n"}, 95 % intervals; jumps: {"p99", "max"} or null."""

    env: str
    method: str
    delay: int
    """Environment steps from asking to arrival."""
    replan_every: int
    chunk: int
    action_noise: float
    success_rate: dict[str, Any]
    score: dict[str, Any]
    kept: float | None
    """The score as a share of the method's own without delay."""
    join: dict[str, float] | None
    seam: dict[str, float] | None
    inside: dict[str, float] | None
    waited: int
    """Steps before the first plan was there."""
    stalls: int
    """Steps without a plan after that."""
    plans: int
    returns: tuple[float, ...]


def _jump(parts: list[NDArray]) -> dict[str, float] | None:
    if not parts:
        return None
    j = np.concatenate(parts)
    return {"p99": float(np.percentile(j, 99)), "max": float(j.max())}


def fit_dynamics(env_id: str) -> LinearDynamics:
    """A linear model of one step, from data as the weights were trained on: the maze's own, goals anywhere."""
    return LinearDynamics.fit(collect(f"multi2d-{_maze(env_id).maze.name}", FIT_STEPS, seed=0, threads=1))


def _maze(env_id: str) -> Maze2DTask:
    task = task_of(env_id)
    if not isinstance(task, Maze2DTask):
        raise DFPlannerError(f"delays are studied in maze2d-... and multi2d-... alone, not in {env_id}")
    return task


def planner_for(env_id: str, delays: Sequence[int], replan_every: int | None, device: str = "cpu") -> Planner:
    """The headline row's planner with plans long enough for the longest delay; the same for every method."""
    task, row = _maze(env_id), ROWS["df"]
    settings, _ = row.by_task.get(task.name, (row.settings, row.replan))
    planner = Planner.from_pretrained(checkpoint_name("df", env_id), settings, device)
    chunk, longest = planner.spec.chunk, max(delays)
    chunks = -(-(max(replan_every or chunk // 2, longest) + longest) // chunk)
    if chunks >= planner.spec.horizon:
        raise DFPlannerError(f"a delay of {longest} steps needs plans of {chunks} chunks; give at most {chunk} steps")
    s = planner.settings
    tokens = max(s.horizon or planner.spec.horizon, chunks + 1)
    # every plan from pure noise, as in the headline row: a warm start gained nothing here
    planner.settings = replace(s, action_chunks=chunks, horizon=tokens, warm_level=planner.schedule.levels)
    return planner


def run_delay(
    envs: Sequence[str],
    methods: Sequence[Method] = tuple(METHODS),
    delays: Sequence[int] = DELAYS,
    episodes: int = 50,
    seed: int = 0,
    *,
    replan_every: int | None = None,
    action_noise: float = 0.0,
    device: str = "cpu",
    progress: bool = True,
    say: Callable[[str], Any] = print,
) -> list[DelayRun]:
    """Every method at every delay, all on the same episodes; says a table for each environment.

    ``replan_every``: steps between plans (by default half a chunk), more where plans take longer. Raises DFPlannerError
    before the work on what cannot be run.
    """
    if not delays or min(delays) < 0 or (replan_every is not None and replan_every < 1):
        raise DFPlannerError(
            f"delays {list(delays)} and replan_every {replan_every} came; give steps, 0 or more, and 1 or more"
        )
    seeds = episode_seeds(seed, episodes)
    delays = sorted(set(delays))
    planners = {env: planner_for(env, delays, replan_every, device) for env in envs}
    runs: list[DelayRun] = []
    total = sum(task_of(env).horizon for env in envs) * len(methods) * len(delays)
    with tqdm(total=total, unit="step", desc="delay", disable=not progress) as bar:
        for env, planner in planners.items():
            dynamics = fit_dynamics(env) if "ours" in methods else None
            every = replan_every or planner.spec.chunk // 2
            for method in methods:
                for delay in delays:
                    bar.set_description(f"{env} {method} {delay}")
                    policy = DelayedPolicy(planner, method, delay, every, dynamics)
                    result = run_episodes(policy, env, seeds, bar, action_noise=action_noise)
                    runs.append(_run(policy, result, method, delay, every, runs))
            with tqdm.external_write_mode():
                say(table([r for r in runs if r.env == env]))
    return runs


def _run(
    policy: DelayedPolicy, result: RolloutResult, method: str, delay: int, every: int, before: Sequence[DelayRun]
) -> DelayRun:
    c = policy.controller
    score = mean_interval(result.score).to_dict()
    none = [r.score["mean"] for r in before if (r.env, r.method, r.delay) == (result.env_id, method, 0)]
    base = score["mean"] if delay == 0 else none[0] if none else None
    return DelayRun(
        result.env_id,
        method,
        delay,
        every,
        policy.planner.spec.chunk,
        result.action_noise,
        wilson(int(result.success.sum()), len(result.seeds)).to_dict(),
        score,
        float(score["mean"] / base) if base and score["mean"] is not None else None,
        **{where: _jump(parts) for where, parts in policy.jumps.items()},
        waited=policy.first_stalls,
        stalls=c.stalls - policy.first_stalls,
        plans=c.plans,
        returns=tuple(float(r) for r in result.returns),
    )


COLUMNS = (
    "method",
    "delay",
    "success %",
    "score",
    "kept %",
    "join p99",
    "join max",
    "inside p99",
    "inside max",
    "stalls",
)


def table(runs: Sequence[DelayRun]) -> str:
    """Markdown: a row for each method and delay of an environment."""
    first = runs[0]
    noise = f", action noise {first.action_noise}" if first.action_noise else ""
    head = f"{first.env}: a chunk is {first.chunk} steps, a plan every {first.replan_every} or as they arrive{noise}"
    rows = [list(COLUMNS), ["---"] + ["--:"] * (len(COLUMNS) - 1)]
    for r in runs:
        s = r.score
        span = "" if s["lo"] is None else f" [{s['lo']:.1f}, {s['hi']:.1f}]"
        jumps = [f"{j[k]:.2f}" if j else "–" for j in (r.join, r.inside) for k in ("p99", "max")]
        kept = "–" if r.kept is None else f"{100 * r.kept:.0f}"
        rate = f"{100 * r.success_rate['mean']:.0f}"
        rows.append([r.method, str(r.delay), rate, f"{s['mean']:.1f}{span}", kept, *jumps, str(r.stalls)])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "", *lines, ""])


def write_json(path: Path, runs: Sequence[DelayRun]) -> None:
    """{"versions", "methods", "runs"}, whole or not at all."""
    text = json.dumps({"versions": versions(), "methods": METHODS, "runs": [asdict(r) for r in runs]}, indent=1) + "\n"

    def write(part: str) -> None:
        Path(part).write_text(text, encoding="utf-8")

    atomic_write(path, write)
