"""The page about one's own data does what it says, and what it says to set works on what is unlike its example."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dfplanner.train as trainer
from dfplanner.data import Episodes
from dfplanner.models.build import ModelConfig
from dfplanner.policy import DFPolicy
from dfplanner.train import TrainConfig, train
from dfplanner.types import DFPlannerError

PAGE = Path(__file__).parents[1] / "docs" / "own-data.md"


def blocks() -> list[str]:
    """The page's code."""
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_from_episodes_to_a_driving_planner_it_is_forty_lines() -> None:
    environment, rest = blocks()
    lines = [line for line in rest.splitlines() if line.strip()]
    assert "class Puck" in environment and len(lines) <= 40


@pytest.mark.slow
def test_the_page_runs_and_its_planner_reaches_goals_that_chance_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    there: dict[str, Any] = {"__name__": "page"}
    for code in blocks():
        exec(compile(code, str(PAGE), "exec"), there)
    there["env"].action_space.seed(0)
    by_chance = there["reached"](lambda obs, state: (there["env"].action_space.sample(), state))
    assert there["reached"](there["policy"].predict) >= max(0.8, by_chance + 0.4)


def line(n: int = 8, steps: int = 20) -> Episodes:
    """A cart on a line, pushed by one number: what is farthest from the page's example."""
    rng = np.random.default_rng(0)
    runs = []
    for _ in range(n):
        push = rng.uniform(-1, 1, steps)
        speed = np.cumsum(0.1 * push)
        runs.append((np.stack([np.cumsum(speed), speed], 1), push))
    return Episodes.from_trajectories(runs, pos=(0,), dt_s=0.05)


CONFIG: dict[str, Any] = {
    "name": "line", "env": "line", "chunk": 4, "horizon": 4, "steps": 2, "act_code": 3, "batch": 8, "stay": False,
    "model": ModelConfig(width=16, layers=1, heads=2, ff=16),
}  # fmt: skip


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """The inverse dynamics of what is hardly trained need no training either."""
    if "slow" not in request.keywords:
        monkeypatch.setattr(trainer, "fit_inverse", partial(trainer.fit_inverse, steps=2))


@pytest.mark.parametrize(
    "change", [{}, {"act_code": 12}, {"hindsight": 0.5}, {"stay": True}, {"chunk": 2, "act_code": 2}]
)
def test_a_position_of_one_number_and_actions_of_one(change: dict[str, Any], tmp_path: Path) -> None:
    made = train(TrainConfig(**{**CONFIG, **change}), line(), tmp_path, progress=False)
    assert (made.spec.pos, made.spec.act_dim, made.spec.dt_s) == ((0,), 1, 0.05)
    policy = DFPolicy.from_pretrained(tmp_path, goal=[0.3])
    action = policy.predict(np.array([0.1, 0.0]))[0]
    assert action.shape == (1,) and np.isfinite(action).all()
    assert policy.predict(np.zeros((3, 2)))[0].shape == (3, 1)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"act_code": 1}, "act_code is 1; training needs at least 2"),
        ({"horizon": 7}, "no episode is as long as one window of 25 steps .* choose a smaller horizon"),
    ],
)
def test_what_cannot_be_set_is_a_sentence(change: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(DFPlannerError, match=sentence):
        train(TrainConfig(**{**CONFIG, **change}), line(), tmp_path, progress=False)
