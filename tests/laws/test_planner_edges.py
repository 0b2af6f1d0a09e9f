"""The planner at its edges: what is missing, longer, shorter or more than usual, in the world of ``testing.Circle``."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch

from dfplanner.guidance import ReachGoal, StayNear
from dfplanner.planner import Planner
from dfplanner.settings import PlannerSettings
from dfplanner.testing import Circle, Recorder
from dfplanner.types import DFPlannerError

CIRCLE = Circle()
CHUNK, HORIZON = CIRCLE.spec.chunk, CIRCLE.spec.horizon
place = CIRCLE.position


def planner(causal: bool = True, **settings) -> Planner:
    return Planner(CIRCLE.checkpoint(causal), replace(PlannerSettings(steps=25, action_steps=4, overlap=3), **settings))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def history(at: list[float], length: int) -> np.ndarray:
    return place(np.asarray(at)[:, None] + np.arange(1 - length, 1) * CHUNK)


@pytest.mark.parametrize("overlap", [2, 3, 4, 5, 9])  # one observation does not say which way it goes
@pytest.mark.parametrize("length", [2, 3, 4, 5])
def test_no_seam_loses_a_token(length: int, overlap: int) -> None:
    """Whatever the history leaves of the model's horizon, and however many tokens the next window keeps."""
    plan = planner(scheme="autoregressive", overlap=overlap, horizon=9).plan(history([3, 7], length), generator=rng())
    assert plan.states.shape[1] == 9
    np.testing.assert_allclose(plan.states, CIRCLE.future([3, 7], 1, 9)[0], atol=2e-3)


@pytest.mark.parametrize("horizon", [3, 7, 11])
def test_a_rolling_window_narrows_where_fewer_tokens_are_left(horizon: int) -> None:
    plan = planner(scheme="rolling", scale=5, horizon=horizon).plan(history([3], 2), generator=rng())
    np.testing.assert_allclose(plan.states, CIRCLE.future([3], 1, horizon)[0], atol=2e-3)


@pytest.mark.parametrize("chunks", [1, 4, 7])
def test_the_actions_of_a_long_plan_are_those_of_its_first_chunks(chunks: int) -> None:
    p = planner(horizon=11, action_chunks=chunks)
    plan = p.plan(history([3], 2), generator=rng())
    assert (plan.levels[0, 1:, 1] == np.where(np.arange(10) < chunks, 0, 1000)).all()
    want = CIRCLE.future([3], 1, 11)[1]
    np.testing.assert_allclose(plan.actions[:, : chunks * CHUNK], want[:, : chunks * CHUNK], atol=2e-3)
    assert (plan.actions[:, chunks * CHUNK :] == 0).all()
    with pytest.raises(DFPlannerError, match=r"holds|do not fit"):
        p.plan(history([3], 2), None, plan, chunks * CHUNK + 1)


def test_a_goal_at_the_last_token_survives_a_warm_start() -> None:
    target = place(CHUNK * (HORIZON - 1))
    p = planner(False, warm_level=500)
    for s in (p.settings, replace(p.settings, candidates=4, incumbent=True)):
        old = p.plan(place(np.zeros(5)), ReachGoal(place(-CHUNK * (HORIZON - 1)), "last"), generator=rng())
        new = p.plan(place(np.zeros(5)), ReachGoal(target, "last"), old, generator=rng(1), settings=s)
        np.testing.assert_allclose(new.states[:, -1], np.tile(target, (5, 1)), atol=1e-6)


def test_a_missing_observation_is_pure_noise_to_the_model() -> None:
    """Then the plan is any the data holds, and the model sees what it was trained to see."""
    p = planner(scheme="autoregressive")
    plan = p.plan(np.full((400, 2), 9.0), trust=1000, generator=rng())
    x = cast(Recorder, p.checkpoint.model).calls[0][0][:, 1, :2]
    assert abs(x.std().item() - 1) < 0.15 and abs(x.mean().item()) < 0.2
    assert np.abs(np.linalg.norm(plan.states[:, 0], axis=-1) - 1).max() < 0.2
    angle = np.arctan2(plan.states[:, 0, 1], plan.states[:, 0, 0])
    assert min(np.histogram(angle, bins=4, range=(-np.pi, np.pi))[0]) > 60


def test_candidates_take_a_goal_for_all_or_one_each() -> None:
    p = planner(candidates=2)
    for goals in ([[0, 1]], [[0, 1], [0, -1], [0, 1], [0, -1]]):
        plan = p.plan(place(np.zeros(4)), ReachGoal(goals), generator=rng())
        for i in range(4):
            want = CIRCLE.future([0], 1 if goals[i % len(goals)][1] > 0 else -1, HORIZON)[0]
            np.testing.assert_allclose(plan.states[i : i + 1], want, atol=2e-3)
    for goals in ([[0, 1], [0, -1]], [[0, 1]] * 8):
        with pytest.raises(DFPlannerError, match=f"{len(goals)} goals were given for a batch of 4"):
            p.plan(place(np.zeros(4)), ReachGoal(goals), generator=rng())


def test_nobody_is_told_to_stay_but_the_last_quarter_of_the_candidates() -> None:
    """Nor where the plan is continued, when there are no candidates left."""
    p = planner(candidates=4, pace=-1.0, horizon=9, guidance=0.0)
    p.plan(history([3] * 8, 2), StayNear([0, 1]), generator=rng())
    told = [x[:, 0, 2:4] for x, _ in cast(Recorder, p.checkpoint.model).calls]
    for x in told:
        stays = (x == torch.tensor([0.0, 1.0])).all(1)
        assert stays.sum() == (8 if len(x) == 32 else 0) and (x[~stays] == torch.tensor([-1.0, 0.0])).all()
    assert {len(x) for x in told} == {32, 8}


@pytest.mark.parametrize(
    "more, says",
    [
        ({"committed": -1}, "counts of steps"),
        ({"elapsed": -1}, "counts of steps"),
        ({"trust": -1}, "level of 0 .* to 1000"),
        ({"trust": 1001}, "level of 0 .* to 1000"),
        ({"committed": 8, "horizon": 3}, "do not fit"),
        ({"level": 1001}, r"0 \(exact\) to 1000"),
        ({"level": -1}, r"0 \(exact\) to 1000"),
        ({"overlap": 0}, "overlap is 0; expected at least 1"),
        ({"candidates": 0}, "candidates is 0; expected at least 1"),
        ({"warm_level": -1}, "warm_level is -1"),
        ({"stabilise": 1001}, "stabilisation level"),
    ],
)
def test_what_makes_no_sense_is_a_sentence(more: dict, says: str) -> None:
    p = planner(action_chunks=5)
    old = p.plan(place([0]), ReachGoal(CIRCLE.goal(0, 1)), generator=rng())
    settings = {k: v for k, v in more.items() if k in ("horizon", "overlap", "candidates", "warm_level", "stabilise")}
    given = {k: v for k, v in more.items() if k in ("committed", "elapsed", "trust")}
    with pytest.raises(DFPlannerError, match=says):
        goal = ReachGoal(CIRCLE.goal(0, 1), level=more.get("level", 0))
        p.plan(place([0]), goal, old, generator=rng(), settings=replace(p.settings, **settings), **given)
