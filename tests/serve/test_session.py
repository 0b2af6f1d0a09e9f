"""What a request may say: read without a socket, objectives as guidance has them, and a sentence for what is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

pytest.importorskip("msgpack", reason="the wire needs msgpack")

from dfplanner.guidance import Avoid, Limits, ReachGoal, Smooth, StayNear
from dfplanner.serve.objectives import BadRequest, goal_alone, read_terms, torch_objective
from dfplanner.serve.protocol import packb
from dfplanner.serve.session import Session
from dfplanner.types import TokenSpec

HERE = [1.0, 0.0, 0.0, 0.0]
SPEC = TokenSpec(obs_dim=4, act_dim=2, chunk=5, act_code=4, horizon=6, dt_s=0.02, pos=(1, 2))
PLACES = hnp.arrays(np.float32, (2, 2), elements=st.floats(-9, 9, width=32))

BAD_REQUESTS: list[tuple[dict[str, Any], str]] = [
    ({"observation": None}, "no `observation`"),
    ({"observation": [1.0, np.nan, 0, 0]}, "NaN"),
    ({"observation": np.array([np.inf, 0, 0, 0])}, "infinity"),
    ({"observation": np.array([1e300, 0, 0, 0])}, "infinity"),
    ({"observation": np.zeros(3)}, r"shape \(3,\)"),
    ({"observation": np.zeros((1, 4))}, r"shape \(1, 4\)"),
    ({"observation": np.zeros(4, bool)}, "dtype bool"),
    ({"observation": ["a", "b", "c", "d"]}, "dtype"),
    ({"observation": [[1.0], [1, 2], 3, 4]}, "ragged"),
    ({"observation": {"a": 1}}, "dtype object"),
    ({"observation": HERE, "state": HERE}, "mean the same"),
    ({"goal": [1.0]}, "goal"),
    ({"goal": [1.0, np.nan]}, "goal"),
    ({"goal": "there"}, "goal"),
    ({"goals": [1.0, 2.0]}, "'goals' is not known"),
    ({"goal": [1.0, 2.0], "objective": {"name": "reach_goal", "goal": [1.0, 2.0]}}, "several goals"),
    ({"objective": "reach_goal"}, "map with a `name`"),
    ({"objective": {"name": "destroy"}}, "no objective is called 'destroy'"),
    ({"objective": {"name": "__class__"}}, "no objective"),
    ({"objective": {"name": "avoid", "centre": [1, 1]}}, "radius"),
    ({"objective": {"name": "avoid", "centre": [1, 1], "radius": -1}}, "radius"),
    ({"objective": {"name": "avoid", "radius": 1}}, "centre to avoid is missing"),
    ({"objective": {"name": "avoid", "centre": [1, 1], "radius": 1, "pos": [9]}}, "takes centre, radius, weight"),
    ({"objective": {"name": "stay_near", "point": [1, 1], "weight": np.nan}}, "weight"),
    ({"objective": {"name": "limits", "low": [1] * 4, "high": [0] * 4}}, "swap"),
    ({"objective": {"name": "reach_goal", "goal": [1, 1], "how": "magic"}}, "how"),
    ({"objective": [{"name": "smooth"}] * 9}, "at most 8"),
    ({"reset": 1}, "reset"),
    ({"committed": -1}, "committed"),
    ({"committed": 1.5}, "committed"),
    ({"committed": True}, "committed"),
    ({"committed": 3}, "no plan yet"),
    ({"elapsed": "5"}, "elapsed"),
    ({"seed": -1}, "seed"),
]


@pytest.mark.parametrize(("request_", "reason"), BAD_REQUESTS)
def test_what_is_wrong_is_told_in_a_sentence(request_: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRequest, match=reason) as e:
        Session(SPEC, 10, 1 << 20).read(packb({"observation": HERE} | request_))
    assert "\n" not in str(e.value) and len(str(e.value)) < 250


@settings(max_examples=30)
@given(PLACES, PLACES, st.floats(0, 9), st.floats(0.1, 9), st.sampled_from(["token", "guidance", "last"]))
def test_objectives_by_name_are_those_of_guidance(
    goals: Any, others: Any, weight: float, radius: float, how: Any
) -> None:
    """Those of a batch score each of its problems as its own objective does alone."""

    def wanted(i: int) -> list[dict[str, Any]]:
        return [
            {"name": "reach_goal", "goal": goals[i], "how": how, "weight": weight},
            {"name": "stay_near", "point": others[i].tolist(), "radius": radius},
            {"name": "avoid", "centre": others[i], "radius": np.float64(radius)},
            {"name": "smooth", "weight": 2},
            {"name": "limits", "low": [-1.0, -np.inf, 0.0, -1], "high": np.full(4, np.inf)},
            {"name": "limits", "low": [-1.0, 0.0], "high": [0.5, 1], "of": "actions"},
        ]

    terms = [read_terms(None, wanted(i), SPEC) for i in range(2)]
    together = torch_objective(terms, SPEC)
    noise = torch.Generator().manual_seed(0)
    states, actions = torch.randn(2, 5, 4, generator=noise), torch.randn(2, 4, 5, 2, generator=noise)
    assert together is not None
    score = together(states, actions)
    pos = SPEC.pos
    for i in range(2):
        mine = weight * ReachGoal(goals[i], how, pos=pos) + StayNear(others[i], radius, pos=pos)
        mine += Avoid(others[i], radius, pos=pos) + 2 * Smooth(pos)
        mine += Limits([-1, -np.inf, 0, -1], [np.inf] * 4) + Limits([-1, 0], [0.5, 1], of="actions")
        torch.testing.assert_close(score[i : i + 1], mine(states[i : i + 1], actions[i : i + 1]))
    first = together.terms[0][1]
    assert isinstance(first, ReachGoal) and first.how == how and first.goal.shape == (2, 2)


def test_goals_without_torch_are_a_batch_of_goal_tokens() -> None:
    terms = [read_terms(np.array([i, 2]), None, SPEC) for i in range(3)]
    goal = goal_alone(terms, SPEC)
    assert goal is not None and goal.goal.tolist() == [[0, 2], [1, 2], [2, 2]]
    assert goal.how == "token" and goal_alone([(), ()], SPEC) is None
    for wanted in ({"name": "smooth"}, {"name": "reach_goal", "goal": [1, 2], "how": "guidance"}):
        with pytest.raises(BadRequest, match="no gradients"):
            goal_alone([read_terms(None, wanted, SPEC)], SPEC)
