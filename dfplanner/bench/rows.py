"""The rows of the benchmark's table: from a name to a policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

from dfplanner.bench.baselines import RandomPolicy
from dfplanner.bench.mppi import MPPI
from dfplanner.bench.policies import PlannerPolicy
from dfplanner.bench.rollout import RolloutPolicy
from dfplanner.bench.tasks import Maze2DTask, Task, task_of
from dfplanner.checkpoint import bundled
from dfplanner.guidance import Objective, ReachGoal
from dfplanner.planner import Planner
from dfplanner.runtime import load_planner
from dfplanner.settings import POLICY_SETTINGS, PlannerSettings, policy_settings
from dfplanner.types import DFPlannerError
from dfplanner_envs.ogbench_maze import SIZES


@dataclass(frozen=True)
class Row:
    """A planner's row: which weights, how it samples, how the goal is told; a baseline has ``make`` instead."""

    note: str = ""
    """What a reader must know to compare it fairly."""
    weights: str = ""
    """Suffix of the checkpoint's name."""
    settings: PlannerSettings = field(default_factory=PlannerSettings)
    replan: float = 0.5
    """Chunks between plans."""
    by_task: dict[str, tuple[PlannerSettings, float]] = field(default_factory=dict)
    """Both of these, where they differ in one task, such as maze2d-medium."""
    objective: Callable[[NDArray], Objective] = ReachGoal
    make: Callable[[Task], RolloutPolicy] | None = None
    everywhere: bool = False
    """Whether it is a row of every family's table; the others are by default of Maze2D's and Multi2D's alone."""
    episodes: int = 1_000_000
    """At most so many episodes in a table of mixed rows, for what is slow."""


def _guided(goal: NDArray) -> Objective:
    return ReachGoal(goal, "guidance")


_TOKEN = POLICY_SETTINGS
OGBENCH = [f"pointmaze-{size}-navigate-v0" for size in SIZES]
_GUIDED = PlannerSettings(scheme="pyramid", scale=0.5, steps=8, guidance=3.0, action_chunks=2)

ROWS: dict[str, Row] = {
    "df": Row(
        "imitates: a goal token in front, few tokens ahead, own diffused actions",
        settings=_TOKEN,
        by_task={"maze2d-medium": (replace(_TOKEN, steps=1), 0.5), **{name: policy_settings(name) for name in OGBENCH}},
        everywhere=True,
    ),
    "df-guided": Row(
        "goal by guidance alone, pyramid, Monte Carlo guidance",
        settings=replace(_GUIDED, samples=4),
        objective=_guided,
        episodes=8,
        replan=2.0,
    ),
    "df-guided-nomcg": Row(
        "as df-guided with one future", settings=_GUIDED, objective=_guided, episodes=8, replan=2.0
    ),
    "df-guided-full": Row(
        "as df-guided-nomcg, all levels equal",
        settings=replace(_GUIDED, scheme="full-sequence"),
        objective=_guided,
        episodes=8,
        replan=2.0,
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
    "mppi": Row("on the true dynamics, plain distance", make=lambda task: MPPI(task.name, nthread=1), episodes=16),
    "data-controller": Row(make=lambda task: task.controller(), everywhere=True),
    "random": Row("uniform actions", make=lambda task: RandomPolicy(), everywhere=True),
}  # fmt: skip


def checkpoint_name(row: str, env_id: str) -> str:
    """The bundled checkpoint that a planner's row takes in an environment."""
    return task_of(env_id).weights + ROWS[row].weights


def default_rows(env_id: str, checkpoint: str | None = None) -> list[str]:
    """The rows that can be had in an environment, in the table's order.

    With a ``checkpoint`` of one's own: those that are about sampling alone.
    """
    ours, have = isinstance(task_of(env_id), Maze2DTask), bundled()
    rows = [name for name, row in ROWS.items() if ours or row.everywhere]
    if checkpoint:
        return [name for name in rows if not ROWS[name].weights]
    return [name for name in rows if ROWS[name].make or checkpoint_name(name, env_id) in have]


def note_of(row: str, env_id: str) -> str:
    """What a reader must know of a row to compare it fairly."""
    return task_of(env_id).controller_note if row == "data-controller" else ROWS[row].note


def make_policy(
    row: str,
    env_id: str,
    *,
    actions: str = "diffused",
    device: str = "cpu",
    seed: int = 0,
    checkpoint: str | None = None,
) -> RolloutPolicy:
    """A row's policy in an environment (``seed`` is told at reset); raises DFPlannerError on what cannot be had."""
    del seed
    if row not in ROWS:
        raise DFPlannerError(f"unknown policy {row!r}; known: {', '.join(ROWS)}")
    r, task = ROWS[row], task_of(env_id)
    if row == "mppi" and not isinstance(task, Maze2DTask):
        raise DFPlannerError(f"mppi simulates Maze2D, not {env_id}; leave it out there")
    if r.make:
        return r.make(task)
    name = checkpoint or checkpoint_name(row, env_id)
    settings, replan = r.by_task.get(task.name, (r.settings, r.replan))
    planner: Any = (
        load_planner(name, settings) if name.endswith(".onnx") else Planner.from_pretrained(name, settings, device)
    )
    spec = planner.spec
    if (spec.obs_dim, spec.act_dim) != (task.obs_dim, 2):
        raise DFPlannerError(
            f"{name} was trained on observations and actions of ({spec.obs_dim}, {spec.act_dim}) numbers, but {env_id} "
            f"has ({task.obs_dim}, 2); give a checkpoint of its own"
        )
    if actions == "pd" and spec.obs_dim < 4:
        raise DFPlannerError(f"the PD law needs velocities, which {env_id} does not show; take --actions diffused")
    return PlannerPolicy(planner, int(replan * spec.chunk), objective=r.objective, actions=actions)
