"""The rows of the benchmark's table: from a name to a policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from numpy.typing import NDArray

from dfplanner.bench.baselines import DataController, RandomPolicy
from dfplanner.bench.mppi import MPPI
from dfplanner.bench.policies import PlannerPolicy
from dfplanner.bench.rollout import RolloutPolicy
from dfplanner.checkpoint import bundled
from dfplanner.guidance import Objective, ReachGoal
from dfplanner.planner import Planner
from dfplanner.settings import PlannerSettings
from dfplanner.types import DFPlannerError
from dfplanner_envs.mazes import maze_of


@dataclass(frozen=True)
class Row:
    """A planner's row: which weights, how it samples, how the goal is told; a baseline has ``make`` instead."""

    note: str = ""
    """What a reader must know to compare it fairly."""
    weights: str = ""
    """Suffix of the checkpoint's name."""
    settings: PlannerSettings = field(default_factory=PlannerSettings)
    by_task: dict[str, PlannerSettings] = field(default_factory=dict)
    """Settings that differ in one task, such as maze2d-medium."""
    replan_every: Callable[[int], int] = lambda chunk: chunk // 2
    """Steps between plans, from the chunk's length."""
    objective: Callable[[NDArray], Objective] = ReachGoal
    make: Callable[[str], RolloutPolicy] | None = None
    episodes: int = 1_000_000
    """At most so many episodes in a table of mixed rows, for what is slow."""


def _guided(goal: NDArray) -> Objective:
    return ReachGoal(goal, "guidance")


def _two_chunks(chunk: int) -> int:
    return 2 * chunk


_TOKEN = PlannerSettings(horizon=4, action_steps=3)
_GUIDED = PlannerSettings(scheme="pyramid", scale=0.5, steps=8, guidance=3.0, action_chunks=2)

ROWS: dict[str, Row] = {
    "df": Row(
        "imitates: a goal token in front, few tokens ahead, own diffused actions",
        settings=_TOKEN,
        by_task={"maze2d-medium": replace(_TOKEN, steps=1)},
    ),
    "df-guided": Row(
        "goal by guidance alone, pyramid, Monte Carlo guidance",
        settings=replace(_GUIDED, samples=4),
        objective=_guided,
        episodes=8,
        replan_every=_two_chunks,
    ),
    "df-guided-nomcg": Row(
        "as df-guided with one future", settings=_GUIDED, objective=_guided, episodes=8, replan_every=_two_chunks
    ),
    "df-guided-full": Row(
        "as df-guided-nomcg, all levels equal",
        settings=replace(_GUIDED, scheme="full-sequence"),
        objective=_guided,
        episodes=8,
        replan_every=_two_chunks,
    ),
    "df-d4rl": Row("as df, trained on D4RL's data, which never rests at a goal", weights="-d4rl", settings=_TOKEN),
    "teacher-forcing": Row(
        "trained by teacher forcing, sampled token by token",
        weights="-teacher-forcing",
        settings=replace(_TOKEN, scheme="autoregressive"),
    ),
    "full-sequence": Row("trained and sampled with all levels equal", weights="-full-sequence", settings=_TOKEN),
    "full-sequence-noncausal": Row(
        "the same, not causal, whole horizon", weights="-full-sequence-noncausal", settings=PlannerSettings()
    ),
    "mppi": Row("on the true dynamics, plain distance", make=lambda env: MPPI(env, nthread=1), episodes=16),
    "data-controller": Row("what made the data: waypoints and PD on the true map", make=DataController),
    "random": Row("uniform actions", make=lambda env: RandomPolicy()),
}  # fmt: skip


def checkpoint_name(row: str, env_id: str) -> str:
    """The bundled checkpoint that a planner's row takes in an environment."""
    maze, _ = maze_of(env_id)
    return f"maze2d-{maze.name}{ROWS[row].weights}"


def default_rows(env_id: str) -> list[str]:
    """The rows that can be had in an environment, in the table's order."""
    return [name for name, row in ROWS.items() if row.make or checkpoint_name(name, env_id) in bundled()]


def make_policy(
    row: str,
    env_id: str,
    *,
    actions: str = "diffused",
    device: str = "cpu",
    seed: int = 0,
    checkpoint: str | None = None,
) -> RolloutPolicy:
    """A row's policy in an environment (``seed`` is told at reset); an unknown name lists the known ones."""
    del seed
    if row not in ROWS:
        raise DFPlannerError(f"unknown policy {row!r}; known: {', '.join(ROWS)}")
    r = ROWS[row]
    maze, multi = maze_of(env_id)
    if r.make:
        return r.make(env_id)
    settings = r.by_task.get(f"{'multi2d' if multi else 'maze2d'}-{maze.name}", r.settings)
    planner = Planner.from_pretrained(checkpoint or checkpoint_name(row, env_id), settings, device)
    return PlannerPolicy(planner, r.replan_every(planner.spec.chunk), objective=r.objective, actions=actions)
