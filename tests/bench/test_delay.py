"""The delay study: what is a join, a seam, a stall; methods on made-up plans; and the command as a whole, small."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dfplanner.bench.delay import METHODS, DelayedPolicy, Method, brake, fit_dynamics, run_delay, table, write_json
from dfplanner.bench.delay_plot import plot_delay
from dfplanner.cli import main
from dfplanner.dynamics import LinearDynamics
from dfplanner.planner import Planner
from dfplanner.types import DFPlannerError, Plan, TokenSpec

SPEC = TokenSpec(4, 2, chunk=5, act_code=10, horizon=6, dt_s=0.01)
OBS, GOAL = np.zeros((3, 4)), np.zeros((3, 2))


class Stairs:
    """Plans whose actions rise by 0.01 a step, by 0.1 where a chunk begins, and by 0.5 with every plan."""

    spec, device, calls = SPEC, torch.device("cpu"), 1

    def __init__(self) -> None:
        self.made = 0

    def plan(self, history: NDArray, objective: Any, previous: Plan | None, committed: int, *_: Any, **__: Any) -> Plan:
        n = np.arange(20)
        rise = 0.01 * n + 0.1 * (n // 5) + 0.5 * self.made - 1
        self.made += 1
        actions = np.repeat(np.stack([rise, 0 * rise], 1)[None], len(history), 0).astype(np.float32)
        levels = np.zeros((len(history), 5, 2), np.int64)
        zeros = np.zeros((len(history), 5, 4), np.float32)
        return Plan(zeros, actions, levels, np.zeros(len(history), np.float32), 5, 0.01, zeros)


def rolled(method: Method, delay: int, every: int, ticks: int) -> DelayedPolicy:
    policy = DelayedPolicy(cast(Planner, Stairs()), method, delay, every)
    policy.reset(OBS, GOAL, np.random.default_rng(0))
    for _ in range(ticks):
        assert policy.act(OBS, GOAL).shape == (3, 2)
    return policy


def sizes(policy: DelayedPolicy) -> dict[str, list[float]]:
    return {where: [round(float(j[0]), 3) for j in jumps] for where, jumps in policy.jumps.items()}


def test_jumps_are_told_apart_by_where_they_are() -> None:
    """A plan every eight steps, without delay: seven changes inside it, of which one is between its chunks; then
    another plan, half above where the first one began. The very first action follows nothing."""
    policy = rolled("naive", 0, 8, 16)
    assert sizes(policy) == {"join": [round(0.5 - 0.17, 3)], "seam": [0.11] * 2, "inside": [0.01] * 12}
    assert policy.controller.stalls == policy.first_stalls == 0


def test_waiting_is_no_jump_but_stopping_and_starting_are() -> None:
    """Two steps of braking before each plan of three: the first wait is told apart, as nothing came before."""
    policy = rolled("synchronous", 2, 3, 12)
    assert policy.first_stalls == 2 and policy.controller.stalls - policy.first_stalls == 4
    got = sizes(policy)
    assert got["join"] == [0.98, 0.5, 0.48] and got["inside"] == [0.01] * 4 and got["seam"] == []


def test_an_ensemble_weighs_older_plans_more() -> None:
    policy = DelayedPolicy(cast(Planner, Stairs()), "ensemble", 0, 2)
    policy.reset(OBS, GOAL, np.random.default_rng(0))
    actions = [policy.act(OBS, GOAL)[0, 0] for _ in range(5)]
    said = np.array([-1 + 0.04, -0.5 + 0.02, 0.0])
    weights = np.exp(-0.01 * np.arange(3))
    assert actions[:2] == [np.float32(-1), np.float32(-0.99)]
    assert actions[4] == pytest.approx((said * weights).sum() / weights.sum(), abs=1e-6)


def test_only_what_commits_is_told_what_is_under_way() -> None:
    for method in METHODS:
        policy = DelayedPolicy(
            cast(Planner, Stairs()), method, 2, 5, LinearDynamics(np.zeros((7, 4)), OBS[0, :2], OBS[0, :2], OBS[0])
        )
        assert policy.controller.commit == (method in ("held", "ours"))
        assert (policy.controller.dynamics is not None) == (method == "ours")
    with pytest.raises(DFPlannerError, match="known ones are synchronous"):
        DelayedPolicy(cast(Planner, Stairs()), cast(Method, "hope"), 0, 5)


def test_braking_is_against_the_velocity() -> None:
    assert brake(np.array([[9, 9, 1.0, -20.0]]), OBS).tolist() == [[pytest.approx(-0.3), 1.0]]


def test_the_fitted_model_is_the_mazes_own() -> None:
    """A ball of 4.19 kg with unit damping, pushed by 100 N at full action, 10 ms a step, and no walls."""
    model = fit_dynamics("maze2d-umaze")
    o = model.predict(np.array([[1.0, 1.0, 2.0, -1.0]]), np.array([[[1.0, -1.0]]]))[0]
    v = np.array([2.0, -1.0])
    v = v + 0.01 / 4.18879 * (100 * np.array([1.0, -1.0]) - v)
    np.testing.assert_allclose(o, [1 + 0.01 * v[0], 1 + 0.01 * v[1], *v], atol=0.02)


def test_the_study_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = run_delay(
        ["maze2d-umaze"], ["naive", "ours"], [12, 0], episodes=2, seed=3, progress=False, say=lambda _: None
    )
    assert [(r.method, r.delay) for r in runs] == [("naive", 0), ("naive", 12), ("ours", 0), ("ours", 12)]
    assert all(r.kept == pytest.approx(r.score["mean"] / runs[i // 2 * 2].score["mean"]) for i, r in enumerate(runs))
    assert [r.waited for r in runs] == [0, 12, 0, 12] and all(r.stalls == 0 for r in runs)
    assert runs[3].join and runs[1].join and runs[3].join["p99"] < runs[1].join["p99"]
    text = table(runs)
    assert text.count("\n| naive |") == text.count("\n| ours |") == 2 and "a chunk is 10 steps" in text
    write_json(tmp_path / "delay.json", runs)
    told = json.loads((tmp_path / "delay.json").read_text())
    assert [r["delay"] for r in told["runs"]] == [0, 12, 0, 12] and set(told["methods"]) == set(METHODS)
    plot_delay(tmp_path / "delay.png", runs)
    assert (tmp_path / "delay.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    "args, says",
    [
        (["maze2d-nowhere"], "no environment is called"),
        (["PointMaze_UMaze-v3"], "in maze2d-... and multi2d-... alone"),
        (["--delays", "-1"], "0 or more"),
        (["--delays", "900"], "needs plans of"),
        (["--episodes", "0"], "1 to 1,000,000 episodes"),
        (["--methods", "hope"], "hope"),
    ],
)
def test_what_cannot_be_studied_is_a_sentence(args: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "delay", *args]) == 2
    assert says in capsys.readouterr().err


def test_nothing_to_draw_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DFPlannerError, match="nothing to draw"):
        plot_delay(tmp_path / "x.png", [])
