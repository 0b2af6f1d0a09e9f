"""The runtime without torch against the planner with it: of the same noise they make the same plan."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dfplanner.controller import RecedingHorizonController
from dfplanner.guidance import ReachGoal, StayNear
from dfplanner.policy import DFPolicy
from dfplanner.runtime import Goal, OnnxPlanner
from dfplanner.settings import PlannerSettings
from dfplanner.types import DFPlannerError, Plan

PLAIN = PlannerSettings(action_chunks=3)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def observations(b: int, *more: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(1, 2, (b, *more, 4)).astype(np.float32)


def assert_same(onnx: Plan, plan: Plan) -> None:
    """Equal plans: numbers within 1e-4 of the largest (of 1, if that is less: random weights may well make it 100)."""
    atol = 1e-4 * max(1.0, float(np.abs(plan.tokens).max()))
    np.testing.assert_allclose(onnx.tokens, plan.tokens, atol=atol)
    np.testing.assert_allclose(onnx.actions, plan.actions, atol=atol)
    np.testing.assert_allclose(onnx.states, plan.states, atol=5 * atol)  # an observation's deviation is about 2
    np.testing.assert_allclose(onnx.score, plan.score, atol=5 * atol, rtol=1e-4)
    np.testing.assert_array_equal(onnx.levels, plan.levels)
    assert (onnx.chunk, onnx.dt_s, len(onnx.trace)) == (plan.chunk, plan.dt_s, len(plan.trace))
    for (ours, row), (theirs, expected) in zip(onnx.trace, plan.trace, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=5 * atol)
        np.testing.assert_array_equal(row, expected)
    for name in ("states", "actions", "levels", "score", "tokens"):
        assert getattr(onnx, name).dtype == getattr(plan, name).dtype, name
        assert getattr(onnx, name).shape == getattr(plan, name).shape, name


SAMPLED = st.builds(
    PlannerSettings,
    horizon=st.sampled_from([None, 3, 5, 9]),
    scheme=st.sampled_from(["full-sequence", "autoregressive", "pyramid", "trapezoid", "rolling"]),
    scale=st.sampled_from([1.0, 2.0]),
    steps=st.integers(1, 4),
    action_steps=st.integers(0, 2),
    action_chunks=st.integers(1, 8),
    eta=st.sampled_from([0.0, 0.0, 0.5, 1.0]),
    candidates=st.sampled_from([1, 1, 4]),
    incumbent=st.booleans(),
    pace=st.sampled_from([None, -1.0]),
    stabilise=st.sampled_from([0, 20]),
    warm_level=st.sampled_from([0, 70, 5000]),
    overlap=st.integers(1, 4),
)


@settings(max_examples=60)
@given(
    kind=st.sampled_from(["causal", "non-causal", "gru"]),
    s=SAMPLED,
    b=st.sampled_from([1, 3, 4]),
    context=st.integers(1, 3),
    how=st.sampled_from(["token", "last"]),
    level=st.sampled_from([0, 50]),
    trust=st.sampled_from([0, 0, 30]),
    elapsed=st.integers(0, 7),
    each=st.booleans(),
    committed=st.integers(0, 9),
    known=st.booleans(),
    seed=st.integers(0, 99),
)
def test_of_the_same_noise_the_same_plan(
    pairs: Any,
    kind: str,
    s: PlannerSettings,
    b: int,
    context: int,
    how: Any,
    level: int,
    trust: int,
    elapsed: int,
    each: bool,
    committed: int,
    known: bool,
    seed: int,
) -> None:
    pair, seen = pairs(kind), observations(b, context, seed=seed)
    goal = ReachGoal(observations(b, seed=seed + 1)[:, :2], how, level=level)
    old = pair.torch.plan(seen[:, -1], goal, generator=rng(seed), settings=PlannerSettings(action_chunks=5))
    since = np.minimum(elapsed, np.arange(b) * 3) if each else elapsed
    warm = {"previous": old, "elapsed": since, "committed": committed, "trust": trust, "settings": s, "trace": True}
    warm["foreseen"] = observations(b, seed=seed + 2) if known and committed else None
    try:
        expected = pair.torch.plan(seen, goal, generator=rng(seed), **warm)
    except DFPlannerError as e:  # the committed actions do not fit into a short plan
        with pytest.raises(DFPlannerError) as refused:
            pair.onnx.plan(seen, goal, generator=rng(seed), **warm)
        assert str(refused.value) == str(e)
        return
    assert_same(pair.onnx.plan(seen, goal, generator=rng(seed), **warm), expected)
    assert pair.onnx.calls == pair.torch.calls


@pytest.mark.parametrize("b", [1, 3])
def test_without_goal_or_past_as_well(pair: Any, b: int) -> None:
    for s in (PLAIN, replace(PLAIN, scheme="pyramid", steps=5, horizon=12)):
        seen = observations(b)
        expected = pair.torch.plan(seen, generator=rng(), settings=s)
        assert_same(pair.onnx.plan(seen, generator=rng(), settings=s), expected)
        assert (expected.score == 0).all()


def test_what_one_refuses_the_other_refuses_in_the_same_words(causal: Any) -> None:
    seen, goal = observations(3), ReachGoal([1.0, 2.0])
    plan = causal.torch.plan(seen, goal, settings=PLAIN)
    wrong: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((observations(2)[:, :3],), {}),
        ((seen * np.nan,), {}),
        ((observations(2, 6),), {}),
        ((seen, None, None, 5), {}),
        ((seen, None, plan, 16), {}),
        ((seen, None, plan, -1), {}),
        ((seen, None, plan), {"elapsed": -1}),
        ((seen, None, plan), {"elapsed": np.array([1, 2])}),
        ((observations(2), None, plan), {}),
        ((seen,), {"trust": 1001}),
        ((seen,), {"settings": PlannerSettings(horizon=1)}),
        ((seen,), {"settings": PlannerSettings(scheme="staircase")}),
        ((seen,), {"settings": PlannerSettings(steps=0)}),
        ((seen,), {"settings": PlannerSettings(stabilise=2000)}),
        ((seen,), {"settings": PlannerSettings(candidates=2)}),
        ((seen, ReachGoal([1.0, 2.0], level=1001)), {}),
        ((seen, ReachGoal(np.zeros((2, 2)))), {}),
        ((seen, None, plan, 12), {"settings": PlannerSettings(horizon=2)}),
    ]
    for args, more in wrong:
        said = []
        for planner in (causal.torch, causal.onnx):
            with pytest.raises(DFPlannerError) as error:
                planner.plan(*args, **more)
            said.append(str(error.value))
        assert said[0] == said[1]


def test_a_goal_may_be_an_array_a_goal_a_reach_goal_or_a_sum(causal: Any) -> None:
    seen, xy = observations(3), observations(3, seed=5)[:, :2]
    plans = [
        causal.onnx.plan(seen, goal, generator=rng())
        for goal in (ReachGoal(xy), xy, xy.tolist(), Goal(xy), 1.0 * ReachGoal(xy))
    ]
    for plan in plans:
        np.testing.assert_array_equal(plan.states, plans[0].states)
        np.testing.assert_array_equal(plan.score, plans[0].score)
    last = causal.onnx.plan(seen, Goal(xy, "last"), generator=rng())
    np.testing.assert_allclose(last.states[:, -1, :2], xy, atol=1e-5)
    np.testing.assert_allclose(causal.onnx.plan(seen, Goal(xy, weight=3.0), generator=rng()).score, 3 * plans[0].score)


@pytest.mark.parametrize("how", ["stay near", "guidance", "sum"])
def test_what_needs_a_gradient_is_refused_in_a_sentence(causal: Any, how: str) -> None:
    near, token = StayNear([1.0, 1.0]), ReachGoal([1.0, 1.0])
    objective: Any = {"stay near": near, "guidance": ReachGoal([1.0, 1.0], "guidance"), "sum": token + near}[how]
    with pytest.raises(DFPlannerError, match="needs a gradient") as error:
        causal.onnx.plan(observations(1), objective)
    assert "\n" not in str(error.value)


def test_wrong_goals_and_generators_are_told(causal: Any) -> None:
    plan = causal.onnx.plan
    for goal, said in (([1.0], "the goal has the shape"), ([np.nan, 0], "NaN"), (Goal([0, 0], "sideways"), "sideways")):
        with pytest.raises(DFPlannerError, match=said):
            plan(observations(1), goal)
    with pytest.raises(DFPlannerError, match="the generator is a int"):
        plan(observations(1), generator=7)


def test_noise_comes_from_a_seed_or_from_the_caller(causal: Any) -> None:
    seen, plan = observations(2), causal.onnx.plan
    one, again, other = (plan(seen, generator=np.random.default_rng(s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.states, again.states)
    assert np.abs(one.states - other.states).max() > 1e-3
    assert np.abs(plan(seen).states - plan(seen).states).max() > 1e-3, "without one it is new each time"
    drawn, source = [], np.random.default_rng(1)

    def noise(shape: tuple[int, ...]) -> np.ndarray:
        drawn.append(shape)
        return source.standard_normal(shape, dtype=np.float32)

    np.testing.assert_array_equal(plan(seen, generator=noise).states, one.states)
    assert drawn == [(2, 7, 8)]


@pytest.mark.parametrize("actions", ["diffused", "inverse", "pd"])
def test_a_controller_acts_the_same_with_either(causal: Any, actions: Any) -> None:
    acted = []
    for planner in (causal.torch, causal.onnx):
        loop = RecedingHorizonController(planner, 5, actions=actions, warm_start=True, generator=rng())
        acted.append([loop.act(observations(2, seed=i), ReachGoal([1.0, 2.0])) for i in range(12)])
    np.testing.assert_allclose(acted[1], acted[0], atol=1e-4)


def test_a_policy_acts_the_same_with_either(causal: Any) -> None:
    seen = observations(3)
    acted = [DFPolicy(p, goal=[1.0, 2.0], seed=3).predict(seen)[0] for p in (causal.torch, causal.onnx)]
    np.testing.assert_allclose(acted[1], acted[0], atol=1e-4)


WITHOUT = """
import json, sys
import numpy as np
for name in ("torch", "onnx", "onnxscript", "safetensors", "tyro", "mujoco"):
    sys.modules[name] = None  # whoever imports it fails
from dfplanner.controller import RecedingHorizonController
from dfplanner.runtime import load_planner
loop = RecedingHorizonController(load_planner(sys.argv[1]), replan_every=5, generator=np.random.default_rng(0))
seen = np.array(json.loads(sys.argv[2]))
print(json.dumps([loop.act(seen, np.array([1.0, 2.0])).tolist() for _ in range(7)]))
"""


def test_a_controller_runs_where_torch_cannot_be_imported(causal: Any, tmp_path: Path) -> None:
    file = tmp_path / "alone.onnx"
    file.write_bytes(causal.file.read_bytes())  # the file alone is enough
    seen = observations(2)
    command = [sys.executable, "-c", WITHOUT, str(file), json.dumps(seen.tolist())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    planner: OnnxPlanner = causal.onnx
    loop = RecedingHorizonController(planner, 5, generator=np.random.default_rng(0))  # pyright: ignore[reportArgumentType]
    expected = [loop.act(seen, np.array([1.0, 2.0])) for _ in range(7)]  # pyright: ignore[reportArgumentType]
    np.testing.assert_allclose(json.loads(done.stdout), expected, atol=1e-6)
