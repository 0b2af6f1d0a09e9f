"""The arm's benchmark: its table, and a policy that knows where the arm is though readings are late and lost."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dfplanner.bench.arm import DISTURBANCES, arm_policy, run_arm
from dfplanner.bench.arm_plot import plot_arm
from dfplanner.bench.arm_policy import ArmPlannerPolicy
from dfplanner.bench.report import read_json, write_json
from dfplanner.cli import main
from dfplanner.types import DFPlannerError, Plan
from dfplanner_envs.arm.baselines import HELD_OUT, rollout_arm
from dfplanner_envs.arm.task import reach_task

TASK = reach_task()
TOP = TASK.arm.limits.velocity


class Straight:
    """Plans as ``Planner`` does, without a model: joints straight to the posture that is asked for, gently."""

    device, calls, spec = "cpu", 1, SimpleNamespace(pos=tuple(range(3, 10)))

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []
        self.since: list[int] = []

    def plan(
        self, history: Any, objective: Any, previous: Any, committed: int, generator: Any, *, elapsed: int
    ) -> Plan:
        self.seen.append(history.copy())
        self.since.append(elapsed)
        q, v, steps = history[:, 3:10].copy(), history[:, 10:].copy(), []
        for _ in range(5):
            v = np.clip(v + np.clip(2 * (objective.goal.numpy() - q) - v, -0.1, 0.1), -0.4, 0.4)
            steps.append(v / TOP)
            q += 0.05 * v
        n = len(q)
        actions = np.stack(steps, 1).astype(np.float32)
        blank = [np.zeros(shape, np.float32) for shape in ((n, 2, 17), (n,), (n, 3, 33))]
        return Plan(blank[0], actions, np.zeros((n, 2, 2), int), blank[1], 5, 0.05, blank[2])


@pytest.mark.parametrize("readings", [{}, {"latency_steps": 2}, {"drop": 0.2, "latency_steps": 2}], ids=str)
def test_what_it_plans_from_is_where_the_arm_is(readings: dict[str, Any]) -> None:
    planner = Straight()
    policy = ArmPlannerPolicy(planner, 2)  # pyright: ignore[reportArgumentType]
    result = rollout_arm(policy, HELD_OUT[:6], horizon=40, **readings)
    true = result.trajectories[:, : 2 * len(planner.seen) : 2].swapaxes(0, 1)
    running = (np.arange(len(true)) * 2)[:, None] < result.steps
    off = np.abs(np.array(planner.seen) - true[: len(planner.seen)]) * running[..., None]
    assert planner.since[0] == 0 and set(planner.since[1:]) == {2}
    assert np.abs(np.diff(true, axis=0))[..., 3:10].max() > 0.03  # there was something to know
    assert off[..., 3:10].max() < (0.02 if readings else 1e-6)
    assert off[..., :3].max() < (0.02 if readings else 1e-6)


def test_the_table_has_the_upper_and_the_lower_bound(tmp_path, capsys) -> None:
    runs, rollouts = run_arm(["script", "random"], episodes=4)
    assert [run["policy"] for run in runs] == ["script", "random"] == [row for row, _ in rollouts]
    assert runs[0]["success_rate"]["mean"] == 1.0 and runs[0]["collisions"] == runs[0]["violations"] == 0
    assert runs[1]["success_rate"]["mean"] == 0.0 and runs[1]["clamped"] == 4
    said = capsys.readouterr().out
    assert "collisions" in said and "Violations: episodes in which" in said
    write_json(tmp_path / "arm.json", runs)
    assert read_json(tmp_path / "arm.json") == json.loads(json.dumps(runs))
    plot_arm(tmp_path / "arm.png", rollouts)
    assert (tmp_path / "arm.png").read_bytes().startswith(b"\x89PNG")


def test_tasks_are_held_out_and_differ_between_seeds() -> None:
    one, two = (run_arm(["random"], 2, seed)[0][0]["detail"] for seed in (0, 1))
    assert {d["seed"] for d in one} == set(HELD_OUT[:2]) and {d["seed"] for d in one + two} > set(HELD_OUT[:2])
    assert [d["goal"] for d in one] != [d["goal"] for d in two]
    assert len({d.says for d in DISTURBANCES}) == len(DISTURBANCES)


def test_what_cannot_be_had_is_said(capsys) -> None:
    with pytest.raises(DFPlannerError, match="known: df, df-unguarded, script"):
        run_arm(["mppi"])
    with pytest.raises(DFPlannerError, match="but the arm has"):
        arm_policy("df", checkpoint="maze2d-umaze")
    assert main(["bench", "arm-reach", "--action-noise", "0.1"]) == 2
    assert "disturbances of its own" in capsys.readouterr().err
